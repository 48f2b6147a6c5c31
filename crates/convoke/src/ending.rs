//! How a process is asked to end: once to drain, and again to end at once.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long whatever is left may take to write its last records once the drain is cut.
const CUT_WITHIN: Duration = Duration::from_secs(1);

/// The signal of a write that would make a file larger than this process may (`RLIMIT_FSIZE`).
/// Source: signal(7); the same number on every architecture of Linux but MIPS and PA-RISC.
const SIGXFSZ: i32 = 25;

/// The wish of an operator that this process ends, as signals bring it.
///
/// The first SIGINT or SIGTERM asks for a drain. One that comes during the drain asks for the end,
/// whatever still runs: it cancels [`Ending::cut`], and a process that is still there a second
/// later, or at the next signal, is ended in its place.
#[derive(Debug, Clone)]
pub struct Ending {
    drain: CancellationToken,
    cut: CancellationToken,
    by: Arc<OnceLock<EndSignal>>,
}

/// A signal that asks a process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndSignal {
    /// SIGINT, as from Ctrl-C.
    Interrupt,
    /// SIGTERM, as from `kill` and service managers.
    Terminate,
}

impl EndSignal {
    /// Its name, such as `SIGTERM`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }

    /// The exit status that shells give to a process which this signal ended: 128 and its number.
    /// Source: POSIX.1, shell command language, 2.8.2.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

impl Ending {
    /// Listens to signals from now on, for as long as the process lives.
    ///
    /// From now on a file that may not grow further is as a full disk is, too: by default SIGXFSZ
    /// would end the process in the midst of a record.
    ///
    /// # Errors
    ///
    /// If the system has no thread, or no room for another handler of signals.
    pub fn on_signals() -> io::Result<Self> {
        let ending = Self {
            drain: CancellationToken::new(),
            cut: CancellationToken::new(),
            by: Arc::default(),
        };
        let (ready, listens) = sync_channel(1);
        let own = ending.clone();
        // On a thread and a runtime of its own: handlers that keep every thread of the others busy
        // must not keep the process from ending.
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(own.listen(&ready)),
                Err(error) => tell(&ready, Err(error)),
            }
        })?;
        listens.recv().map_err(io::Error::other)??;
        Ok(ending)
    }

    /// Cancelled when the process is to drain and end; whoever has another reason cancels it too.
    #[must_use]
    pub fn drain(&self) -> &CancellationToken {
        &self.drain
    }

    /// Cancelled when the drain is to end, with what still runs.
    #[must_use]
    pub fn cut(&self) -> &CancellationToken {
        &self.cut
    }

    /// The signal that cut the drain, if one did.
    #[must_use]
    pub fn cut_by(&self) -> Option<EndSignal> {
        self.by.get().copied()
    }

    async fn listen(self, ready: &SyncSender<io::Result<()>>) {
        let mut signals = match Signals::new() {
            Ok(signals) => signals,
            Err(error) => return tell(ready, Err(error)),
        };
        tell(ready, Ok(()));
        loop {
            let Some(signal) = signals.next().await else { return };
            if !self.drain.is_cancelled() {
                self.drain.cancel();
                continue;
            }
            let signal = *self.by.get_or_init(|| signal);
            self.cut.cancel();
            tokio::select! {
                _ = signals.next() => {}
                () = tokio::time::sleep(CUT_WITHIN) => {}
            }
            crate::serve::say(format_args!(
                "error: ended by {} while something that does not let go was still at work",
                signal.name()
            ));
            std::process::exit(signal.exit_code().into());
        }
    }
}

fn tell(ready: &SyncSender<io::Result<()>>, outcome: io::Result<()>) {
    // There is room for the one message, and whoever waits for it has not gone away.
    let _told = ready.send(outcome);
}

/// Both signals, listened to from one instant on, so that none is missed between two.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        // Whoever listens once has taken the place of the signal's default for good. The write fails
        // all the same, and whoever writes says what follows.
        let _nobody_asks = signal(SignalKind::from_raw(SIGXFSZ))?;
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The next one. `None` when no more can come.
    async fn next(&mut self) -> Option<EndSignal> {
        tokio::select! {
            received = self.interrupt.recv() => received.map(|()| EndSignal::Interrupt),
            received = self.terminate.recv() => received.map(|()| EndSignal::Terminate),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_the_exit_code_of_its_number() {
        let check = |signal: EndSignal, kind: SignalKind, name: &str| {
            assert_eq!(i32::from(signal.exit_code()), 128 + kind.as_raw_value(), "{name}");
            assert_eq!(signal.name(), name);
        };
        check(EndSignal::Interrupt, SignalKind::interrupt(), "SIGINT");
        check(EndSignal::Terminate, SignalKind::terminate(), "SIGTERM");
    }
}
