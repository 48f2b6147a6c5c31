//! What asks this process to end.

use std::io::Read;

use convoke::serve::Ending;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::{Code, Failure};

/// How this process is asked to end: by signals and, if asked for, by the end of standard input.
/// Must be called within a runtime.
pub(crate) fn ending(until_stdin_ends: bool) -> Result<Ending, Failure> {
    let ending =
        Ending::on_signals().map_err(|error| Failure::of_file(Code::Failure, "signals", &error))?;
    if until_stdin_ends {
        let drain = ending.drain().clone();
        tokio::spawn(async move {
            stdin_ended().await;
            drain.cancel();
        });
    }
    Ok(ending)
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

/// The signals that end the demo, listened to from one instant on, so that none is missed between
/// two.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one: its name, and the exit code of a process that it ends. A terminal
    /// that goes away counts as Ctrl-C.
    pub(crate) async fn next(&mut self) -> (&'static str, Code) {
        tokio::select! {
            _ = self.interrupt.recv() => ("SIGINT", Code::Interrupted),
            _ = self.terminate.recv() => ("SIGTERM", Code::Terminated),
            _ = self.hangup.recv() => ("SIGHUP", Code::Interrupted),
        }
    }
}
