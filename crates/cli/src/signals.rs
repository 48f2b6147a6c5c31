//! What asks this process to end.

use std::io::Read;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Resolves with the name of the first signal that asks this process to end.
pub(crate) async fn ended() -> std::io::Result<&'static str> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
        _ = hangup.recv() => "SIGHUP",
    })
}

/// Resolves once standard input has ended.
///
/// It is read on a thread of its own: a read cannot be broken off, and the runtime would wait for
/// one of its own threads before the process could end by a signal.
async fn stdin_ended() {
    let (reading, ended) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while matches!(std::io::stdin().read(&mut buffer), Ok(read) if read > 0) {}
        drop(reading);
    });
    // Nothing is ever sent: the channel closes.
    let _closed = ended.await;
}

/// A token that is cancelled by a signal and, if asked for, by the end of standard input.
pub(crate) fn shutdown(until_stdin_ends: bool) -> CancellationToken {
    cancelled_by(ended(), until_stdin_ends)
}

/// As [`shutdown`], for who takes SIGHUP as another wish.
pub(crate) fn shutdown_unless_hung_up(until_stdin_ends: bool) -> CancellationToken {
    cancelled_by(interrupted(), until_stdin_ends)
}

/// Resolves with the first SIGINT or SIGTERM.
async fn interrupted() -> std::io::Result<&'static str> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    })
}

fn cancelled_by(
    signal: impl Future<Output = std::io::Result<&'static str>> + Send + 'static,
    until_stdin_ends: bool,
) -> CancellationToken {
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            // Without signal handlers the default action ends the process, which is as good.
            signal = signal => if signal.is_err() { std::future::pending::<()>().await },
            () = stdin_ended(), if until_stdin_ends => {}
        }
        cancel.cancel();
    });
    token
}
