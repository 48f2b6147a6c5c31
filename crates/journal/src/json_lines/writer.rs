//! The thread that formats records and writes them.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::{Line, Shared};

/// A batch that is this long is written without gathering more.
pub(super) const BATCH_RECORDS: usize = 4096;

/// How long the writer gathers after the first record of a batch: half of the 10 ms within which
/// records are promised to be written, the other half being for the writing.
const GATHER: Duration = Duration::from_millis(5);

/// About how many bytes go into one write.
const WRITE_BYTES: usize = 256 * 1024;

/// How long the writer waits before it tries again for the first time; each time twice as long, up
/// to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(50);

/// The longest wait between two tries: an operator who has made room waits no longer for calls to be
/// taken again.
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Where the lines go.
pub(super) trait Target: Send + 'static {
    /// Writes some of `bytes` at the end and returns how many.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Called before the first byte of a batch, when the last line is complete.
    fn begin(&mut self) -> io::Result<()>;

    /// Makes what was written survive a power cut.
    fn sync(&mut self) -> io::Result<()>;

    /// Starts afresh after a failed sync, at the beginning of a line.
    fn reopen(&mut self) -> io::Result<()>;
}

/// Writes batches until the sink is closed and the queue is empty, or a last try has failed.
pub(super) fn run<L: Line>(shared: &Shared<L>, mut target: impl Target) {
    let _ended = Ended(shared);
    let mut batch = Batch::new();
    while gather(shared, &mut batch) {
        if !write(shared, &mut batch, &mut target) {
            break;
        }
    }
}

/// Closes the sink when the writer ends, however it ends, so that no caller trusts a queue that
/// nobody reads.
struct Ended<'a, L>(&'a Shared<L>);

impl<L> Drop for Ended<'_, L> {
    fn drop(&mut self) {
        self.0.lock().closing = true;
        self.0.progress.send_modify(|progress| progress.ended = true);
    }
}

/// Waits for records and takes them. `false` means that there are none and will be none.
fn gather<L: Line>(shared: &Shared<L>, batch: &mut Batch<L>) -> bool {
    let queue = shared.lock();
    let mut queue = shared
        .wake
        .wait_while(queue, |queue| queue.records.is_empty() && !queue.closing)
        .unwrap_or_else(PoisonError::into_inner);
    if queue.records.is_empty() {
        return false;
    }
    let more = |queue: &mut super::Queue<L>| {
        !queue.urgent && !queue.closing && queue.records.len() < BATCH_RECORDS
    };
    queue = shared
        .wake
        .wait_timeout_while(queue, GATHER, more)
        .unwrap_or_else(PoisonError::into_inner)
        .0;
    batch.reset();
    std::mem::swap(&mut batch.records, &mut queue.records);
    queue.in_flight = batch.records.len();
    queue.urgent = false;
    true
}

/// Writes the batch, trying again until it is written. `false` means that the sink is being closed
/// and a last try has failed.
fn write<L: Line>(shared: &Shared<L>, batch: &mut Batch<L>, target: &mut impl Target) -> bool {
    let mut retry = RETRY_MIN;
    loop {
        // Read before the try: a sink that is closed meanwhile gets one more.
        let last = shared.lock().closing;
        match batch.write_to(target, shared.options.sync) {
            Ok(()) => break,
            Err(error) => report_failure(shared, error),
        }
        if last {
            return false;
        }
        let queue = shared.lock();
        drop(
            shared
                .wake
                .wait_timeout_while(queue, retry, |queue| !queue.closing)
                .unwrap_or_else(PoisonError::into_inner),
        );
        retry = (retry * 2).min(RETRY_MAX);
    }
    report_success(shared, batch.records.len());
    true
}

fn report_failure<L>(shared: &Shared<L>, error: io::Error) {
    let error = Arc::new(error);
    let first = shared.lock().failure.replace(Arc::clone(&error)).is_none();
    if first {
        let path = shared.path.display();
        let what = shared.options.what;
        tracing::error!(%path, %error, "{what} cannot be written; nothing is taken until it can");
    }
    shared.progress.send_modify(|progress| progress.failure = Some(error));
}

fn report_success<L>(shared: &Shared<L>, records: usize) {
    let mut queue = shared.lock();
    queue.in_flight = 0;
    let recovered = queue.failure.take().is_some();
    drop(queue);
    if recovered {
        let what = shared.options.what;
        tracing::info!(path = %shared.path.display(), "{what} can be written again");
    }
    shared.progress.send_modify(|progress| {
        progress.written += u64::try_from(records).unwrap_or(u64::MAX);
        progress.failure = None;
    });
}

/// Records on their way to the file, and how far they have come; a failed try goes on from there.
struct Batch<L> {
    records: Vec<L>,
    /// The first record that is not in `lines` yet, nor written.
    next: usize,
    /// Whole lines.
    lines: Vec<u8>,
    /// How many bytes of `lines` are written.
    sent: usize,
    /// A sync has failed, so nothing counts as written.
    restart: bool,
}

impl<L: Line> Batch<L> {
    fn new() -> Self {
        Self { records: Vec::new(), next: 0, lines: Vec::new(), sent: 0, restart: false }
    }

    fn write_to(&mut self, target: &mut impl Target, sync: bool) -> io::Result<()> {
        if self.restart {
            target.reopen()?;
            self.rewind();
        } else if self.sent == 0 && self.next == 0 {
            target.begin()?;
        }
        loop {
            while self.sent < self.lines.len() {
                match target.write(&self.lines[self.sent..]) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(sent) => self.sent += sent,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            self.lines.clear();
            self.sent = 0;
            if self.next == self.records.len() {
                break;
            }
            while self.next < self.records.len() && self.lines.len() < WRITE_BYTES {
                self.records[self.next].write_line(&mut self.lines);
                self.next += 1;
            }
        }
        if sync {
            target.sync().inspect_err(|_| self.restart = true)?;
        }
        Ok(())
    }

    /// Empties the batch. What a burst needed is given back; an ordinary batch reuses its memory.
    fn reset(&mut self) {
        self.records.clear();
        self.records.shrink_to(BATCH_RECORDS);
        self.rewind();
    }

    fn rewind(&mut self) {
        self.next = 0;
        self.lines.clear();
        self.sent = 0;
        self.restart = false;
    }
}
