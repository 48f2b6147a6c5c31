//! Gets lines to a writer without ever waiting for it.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use super::line::{self, Style};

/// Most bytes that wait for the writer; lines beyond are dropped and counted.
const PENDING_BYTES_MAX: usize = 1024 * 1024;

/// How long the writer gathers lines after the first, so that a busy node wakes it and writes a few
/// hundred times a second and not for each line. A warning does not wait.
const GATHER: Duration = Duration::from_millis(5);

/// How many bytes are written without gathering more.
const BATCH_BYTES: usize = 64 * 1024;

/// Capacity of a buffer that is kept between bursts, in bytes.
const BUFFER_BYTES_KEPT: usize = 64 * 1024;

/// How long to wait before a descriptor that would block is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(10);

/// How long a dropped guard waits for the last lines.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(1);

/// How often, and at what distance, a thread that must not wait for the lock tries to have it.
const LOCK_TRIES: u32 = 20;
const LOCK_TRIED_EVERY: Duration = Duration::from_millis(1);

/// Where lines are left. Cloning gives another handle to the same writer.
#[derive(Clone)]
pub(super) struct Sink(Arc<Shared>);

/// Holds the log's writer thread; dropping it waits up to a second for the last lines, and what is
/// logged after it is lost.
#[must_use = "lines that are still waiting are lost when the guard is dropped too early"]
pub struct LogGuard {
    pub(super) sink: Sink,
    pub(super) style: Style,
    /// Names of fields, beside those that are always, whose values are not written.
    pub(super) redact: Vec<String>,
}

/// Why lines may be missing.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// The writer did not take all lines in time.
    #[error("the log's reader did not take all lines in {after:?}")]
    TimedOut {
        /// How long we waited.
        after: Duration,
    },
    /// The writer failed; the most recent error since the last flush.
    #[error("the log cannot be written")]
    Write(#[source] io::Error),
}

struct Shared {
    state: Mutex<State>,
    /// There is something for the writer.
    work: Condvar,
    /// The writer has written all that there was.
    idle: Condvar,
}

#[derive(Default)]
struct State {
    pending: Vec<u8>,
    dropped: u64,
    /// Lines are there that should not wait for others.
    urgent: bool,
    /// The writer sleeps, so it has to be woken. Waking somebody who does not is a call of the
    /// system for nothing.
    sleeping: bool,
    writing: bool,
    closed: bool,
    failed: Option<io::Error>,
}

/// Starts the thread that owns `writer`.
pub(super) fn start(
    writer: impl Write + Send + 'static,
    style: Style,
) -> io::Result<(Sink, LogGuard)> {
    let sink = Sink(Arc::new(Shared {
        state: Mutex::default(),
        work: Condvar::new(),
        idle: Condvar::new(),
    }));
    let shared = Arc::clone(&sink.0);
    thread::Builder::new()
        .name("convoke-log".to_owned())
        .stack_size(128 * 1024)
        .spawn(move || shared.write_until_closed(writer, style))?;
    Ok((sink.clone(), LogGuard { sink, style, redact: Vec::new() }))
}

impl Sink {
    /// Leaves a line for the writer. Copies it under a lock that is never held during I/O.
    pub(super) fn write_line(&self, line: &[u8], urgent: bool) {
        self.0.leave(self.0.lock(), line, urgent);
    }

    /// Leaves a line for the writer that should not wait for others, unless the log is closed or
    /// this very thread may hold its lock.
    pub(super) fn try_write_line(&self, line: &[u8]) -> bool {
        match self.0.lock_soon() {
            Some(state) if !state.closed => {
                self.0.leave(state, line, true);
                true
            }
            _ => false,
        }
    }

    /// Whether lines are still taken. A lock that cannot be had is that of a log in trouble.
    pub(super) fn is_open(&self) -> bool {
        self.0.lock_soon().is_some_and(|state| !state.closed)
    }

    /// Waits until all lines so far are written, but no longer than `timeout`.
    pub(super) fn wait_until_written(&self, timeout: Duration) {
        if let Some(state) = self.0.lock_soon() {
            let busy = |state: &mut State| !state.closed && !state.is_idle();
            // Whether it was in time makes no difference to somebody who goes on anyway.
            drop(self.0.idle.wait_timeout_while(state, timeout, busy));
        }
    }
}

impl Shared {
    fn leave(&self, mut state: MutexGuard<'_, State>, line: &[u8], urgent: bool) {
        if state.closed || line.is_empty() {
            return;
        }
        let was_idle = state.pending.is_empty() && state.dropped == 0;
        if state.pending.len() + line.len() > PENDING_BYTES_MAX {
            state.dropped += 1;
        } else {
            state.pending.extend_from_slice(line);
        }
        let hurry = urgent || state.pending.len() >= BATCH_BYTES;
        let wake = state.sleeping && (was_idle || (hurry && !state.urgent));
        state.urgent |= hurry;
        drop(state);
        if wake {
            self.work.notify_one();
        }
    }
}

impl LogGuard {
    /// Waits until all lines so far are written, at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`FlushError`], also for a write that failed earlier.
    pub fn flush(&self, timeout: Duration) -> Result<(), FlushError> {
        let until = Instant::now() + timeout;
        let mut state = self.sink.0.lock();
        state.urgent = true;
        self.sink.0.work.notify_one();
        while !state.is_idle() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(FlushError::TimedOut { after: timeout });
            }
            let waited = self.sink.0.idle.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        match state.failed.take() {
            Some(error) => Err(FlushError::Write(error)),
            None => Ok(()),
        }
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        // Nobody is left to tell: the log itself is what failed.
        let _ = self.flush(LAST_LINES_TIMEOUT);
        self.sink.0.lock().closed = true;
        self.sink.0.work.notify_one();
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.dropped == 0 && !self.writing
    }
}

impl Shared {
    /// The state; a panic while it was held left it whole, since every change of it is one step.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, unless it cannot be had soon. It is held for as long as copying a line takes, so
    /// then it is held for good, by the thread that asks.
    fn lock_soon(&self) -> Option<MutexGuard<'_, State>> {
        for _ in 0..LOCK_TRIES {
            match self.state.try_lock() {
                Ok(state) => return Some(state),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => thread::sleep(LOCK_TRIED_EVERY),
            }
        }
        None
    }

    fn write_until_closed(&self, mut writer: impl Write, style: Style) {
        let mut batch = Vec::new();
        let mut state = self.lock();
        loop {
            while state.pending.is_empty() && state.dropped == 0 {
                state.writing = false;
                self.idle.notify_all();
                if state.closed {
                    return;
                }
                state.sleeping = true;
                state.urgent = false;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.sleeping = true;
            let waits = |state: &mut State| !state.urgent && !state.closed;
            let waited = self.work.wait_timeout_while(state, GATHER, waits);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            (state.sleeping, state.urgent) = (false, false);
            // Swapping keeps both buffers, so a steady log does not allocate.
            std::mem::swap(&mut state.pending, &mut batch);
            let dropped = std::mem::take(&mut state.dropped);
            state.writing = true;
            drop(state);

            if dropped > 0 {
                batch.extend_from_slice(line::dropped(style, dropped).as_bytes());
            }
            let written = write_all(&mut writer, &batch);
            batch.clear();
            batch.shrink_to(BUFFER_BYTES_KEPT);

            state = self.lock();
            if let Err(error) = written {
                state.failed = Some(error);
            }
        }
    }
}

/// As `Write::write_all`, but patient with a descriptor that somebody made non-blocking, as shells
/// and parents do with a shared terminal.
fn write_all(writer: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match writer.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count.min(bytes.len())..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY_AFTER),
            Err(error) => return Err(error),
        }
    }
    writer.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::logging::Format;
    use std::sync::mpsc;

    const STYLE: Style = Style { format: Format::Json, colour: false };
    const LONG: Duration = Duration::from_secs(60);

    /// Says when it is written to, and goes on when it is told to.
    struct Gate {
        entered: mpsc::Sender<()>,
        go: mpsc::Receiver<()>,
        text: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.entered.send(()).unwrap();
            self.go.recv().map_err(io::Error::other)?;
            self.text.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_writer_holds_nobody_up_and_lost_lines_are_counted() {
        let (entered, is_in) = mpsc::channel();
        let (go, may_go) = mpsc::channel();
        let text = Arc::new(Mutex::new(Vec::new()));
        let gate = Gate { entered, go: may_go, text: Arc::clone(&text) };
        let (sink, guard) = start(gate, STYLE).unwrap();
        sink.write_line(b"first\n", false);
        is_in.recv().unwrap();
        let big = vec![b'x'; PENDING_BYTES_MAX];
        sink.write_line(&big, false);
        sink.write_line(b"lost\n", false);
        sink.write_line(b"lost\n", false);
        let stuck = guard.flush(Duration::from_millis(1));
        assert!(matches!(stuck, Err(FlushError::TimedOut { .. })), "{stuck:?}");
        go.send(()).unwrap();
        go.send(()).unwrap();
        guard.flush(LONG).unwrap();
        let written = text.lock().unwrap().clone();
        assert_eq!(&written[..6], b"first\n");
        let note = String::from_utf8(written[6 + big.len()..].to_vec()).unwrap();
        assert!(note.contains(r#""message":"log lines dropped","count":2"#), "{note}");
    }

    #[test]
    fn who_may_hold_the_lock_is_not_held_up_by_it() {
        let (sink, guard) = start(io::sink(), STYLE).unwrap();
        let held = sink.0.lock();
        assert!(!sink.is_open() && !sink.try_write_line(b"a\n"));
        sink.wait_until_written(LONG);
        drop(held);
        assert!(sink.is_open() && sink.try_write_line(b"a\n"));
        drop(guard);
        assert!(!sink.is_open() && !sink.try_write_line(b"a\n"));
    }

    #[test]
    fn a_failing_writer_is_reported_and_tried_again() {
        struct Fails(bool, mpsc::Sender<Vec<u8>>);
        impl Write for Fails {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if !std::mem::replace(&mut self.0, true) {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                self.1.send(bytes.to_vec()).unwrap();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (sender, lines) = mpsc::channel();
        let (sink, guard) = start(Fails(false, sender), STYLE).unwrap();
        sink.write_line(b"a\n", false);
        let failed = guard.flush(LONG);
        assert!(matches!(failed, Err(FlushError::Write(_))), "{failed:?}");
        sink.write_line(b"b\n", false);
        guard.flush(LONG).unwrap();
        assert_eq!(lines.recv().unwrap(), b"b\n");
    }

    #[test]
    fn a_dropped_guard_lets_the_last_lines_out() {
        struct To(mpsc::Sender<Vec<u8>>);
        impl Write for To {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.send(bytes.to_vec()).unwrap();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (sender, lines) = mpsc::channel();
        let (sink, guard) = start(To(sender), STYLE).unwrap();
        sink.write_line(b"last\n", false);
        drop(guard);
        sink.write_line(b"after\n", false);
        assert_eq!(lines.iter().collect::<Vec<_>>().concat(), b"last\n");
    }
}
