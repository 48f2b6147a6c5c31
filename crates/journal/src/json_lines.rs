//! Records as lines of JSON in a file: audit above all.

mod file;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use convoke_model::{AuditEvent, AuditRecord};
use tokio::sync::watch;

use crate::{AuditCounts, AuditError, AuditSink, BoxFuture};
pub use file::AppendFile;
use writer::{BATCH_RECORDS, Target};

/// How many records may wait to be written: about a second of a node at full load, in about 20 MiB
/// of memory. Beyond that calls are refused.
pub const RECORDS_MAX_DEFAULT: usize = 65_536;

/// What a line is made of.
pub trait Line: Send + 'static {
    /// Writes one line of JSON, with its newline, at the end of `line`.
    fn write_line(&self, line: &mut Vec<u8>);
}

/// The sink of audit records.
pub type JsonLinesSink = JsonLines<AuditEntry>;

/// A line of the audit trail.
#[derive(Debug)]
pub enum AuditEntry {
    /// What was decided on a request.
    Decision(AuditRecord),
    /// What happened to the node itself.
    Event(AuditEvent),
    /// A line that was made before, without its end.
    Line(String),
}

/// When a file is put aside and another begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// Size from which on the file is put aside, in bytes. It may have grown past it by one batch.
    pub bytes: u64,
    /// How many files are kept beside the one that is written; the oldest is deleted for the next.
    pub keep: u32,
}

/// How lines are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinesOptions {
    /// What the file is called in log lines, such as `audit file`.
    pub what: &'static str,
    /// Whether [`JsonLines::written`] returns only when the lines are on the disk.
    pub sync: bool,
    /// How many records may wait to be written.
    pub records_max: usize,
    /// When the file is put aside; `None` never does.
    pub rotation: Option<Rotation>,
}

impl Default for LinesOptions {
    fn default() -> Self {
        Self { what: "audit file", sync: false, records_max: RECORDS_MAX_DEFAULT, rotation: None }
    }
}

impl Line for AuditEntry {
    fn write_line(&self, line: &mut Vec<u8>) {
        match self {
            Self::Decision(record) => record.write_line(line),
            Self::Event(event) => event.write_line(line),
            Self::Line(made) => {
                line.extend_from_slice(made.as_bytes());
                line.push(b'\n');
            }
        }
    }
}

/// Appends records to a file, one line of JSON each.
///
/// A thread of its own formats and writes them in batches, within 10 ms of the first of a batch. The
/// callers only move their record into a queue of bounded length.
///
/// If the file cannot be written, nothing that was taken is dropped: the sink is unhealthy, refuses
/// further records and tries again until it can. After a failed sync the whole batch is written
/// again, because the kernel may have dropped any part of it; so a record may be there twice, and is
/// never missing.
///
/// With a [`Rotation`], the file `name` becomes `name.1`, `name.1` becomes `name.2` and so on, always
/// between two records. A process that dies in between leaves a gap in the numbers at worst. A file
/// has one writer: as long as one lives, no other process can open it.
///
/// Dropping the sink closes it.
pub struct JsonLines<L: Line> {
    shared: Arc<Shared<L>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// Why an audit file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum AuditOpenError {
    /// The directory of the file is not there and cannot be made.
    #[error("directory `{path}` of the audit file cannot be created")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be opened for appending.
    #[error("audit file `{path}` cannot be opened for appending")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process writes the file.
    #[error(
        "audit file `{path}` is being written by another process; stop it, or give each agent an `observability.audit.path` of its own"
    )]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The writer's thread cannot be started.
    #[error("the thread that writes the audit file cannot be started")]
    Thread {
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What callers and the writer share.
struct Shared<L> {
    path: Arc<Path>,
    options: LinesOptions,
    queue: Mutex<Queue<L>>,
    /// Tells the writer that the queue has changed in a way it waits for.
    wake: Condvar,
    progress: watch::Sender<Progress>,
    refused: AtomicU64,
}

struct Queue<L> {
    records: Vec<L>,
    /// Records that the writer has taken and not yet written.
    in_flight: usize,
    /// How many records were ever taken.
    taken: u64,
    /// Somebody waits, so the writer should not gather.
    urgent: bool,
    closing: bool,
    failure: Option<Arc<io::Error>>,
}

/// How far the writer has come, for those who wait for it.
#[derive(Default)]
struct Progress {
    written: u64,
    failure: Option<Arc<io::Error>>,
    /// The writer has ended and will write no more.
    ended: bool,
}

impl<L: Line> JsonLines<L> {
    /// Opens `path` for appending, readable by its owner alone if it is new, as are the directories
    /// above it that have to be made. If the last line is torn, because a process died while it
    /// wrote, it is ended, so that the next record has a line of its own.
    ///
    /// With `sync`, records are on the disk before [`written`](Self::written) returns, and effects
    /// wait for that; otherwise they are with the kernel.
    ///
    /// # Errors
    ///
    /// [`AuditOpenError`] names what cannot be opened or made.
    pub fn open(path: &Path, sync: bool) -> Result<Self, AuditOpenError> {
        Self::open_with(path, LinesOptions { sync, ..LinesOptions::default() })
    }

    /// As [`open`](Self::open), with more to choose.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_with(path: &Path, options: LinesOptions) -> Result<Self, AuditOpenError> {
        let file = AppendFile::open(path, options)?;
        Self::start(path, options, file)
    }

    fn start(
        path: &Path,
        options: LinesOptions,
        target: impl Target,
    ) -> Result<Self, AuditOpenError> {
        let queue = Queue {
            records: Vec::new(),
            in_flight: 0,
            taken: 0,
            urgent: false,
            closing: false,
            failure: None,
        };
        let shared = Arc::new(Shared {
            path: path.into(),
            options,
            queue: Mutex::new(queue),
            wake: Condvar::new(),
            progress: watch::Sender::new(Progress::default()),
            refused: AtomicU64::new(0),
        });
        let theirs = Arc::clone(&shared);
        let writer = std::thread::Builder::new()
            .name("convoke-audit".to_owned())
            .spawn(move || writer::run(&theirs, target))
            .map_err(|source| AuditOpenError::Thread { source })?;
        Ok(Self { shared, writer: Mutex::new(Some(writer)) })
    }

    /// Takes a record, which is written soon, in the order of taking.
    ///
    /// # Errors
    ///
    /// [`AuditError`] if it was not taken.
    pub fn push(&self, record: L) -> Result<(), AuditError> {
        let shared = &*self.shared;
        let mut queue = shared.lock();
        if let Err(error) = shared.check(&queue) {
            drop(queue);
            shared.refused.fetch_add(1, Ordering::Relaxed);
            return Err(error);
        }
        queue.records.push(record);
        queue.taken += 1;
        // The writer sleeps until the first record, and then until a batch is full.
        let wake = matches!(queue.records.len(), 1 | BATCH_RECORDS);
        drop(queue);
        if wake {
            shared.wake.notify_one();
        }
        Ok(())
    }

    /// Waits until every record taken so far is written (and synced, with
    /// [`LinesOptions::sync`]).
    ///
    /// # Errors
    ///
    /// [`AuditError::Unwritable`] or [`AuditError::Closed`] if they could not be written.
    pub async fn written(&self) -> Result<(), AuditError> {
        let shared = &*self.shared;
        let taken = {
            let mut queue = shared.lock();
            queue.urgent = !queue.records.is_empty();
            queue.taken
        };
        shared.wake.notify_one();
        let mut progress = shared.progress.subscribe();
        let arrived = |now: &Progress| now.written >= taken || now.failure.is_some() || now.ended;
        // The channel's other end is in `shared` as well, so it cannot be closed.
        let now = progress.wait_for(arrived).await.map_err(|_| AuditError::Closed)?;
        match &now.failure {
            _ if now.written >= taken => Ok(()),
            Some(source) => Err(shared.unwritable(source)),
            None => Err(AuditError::Closed),
        }
    }

    /// Whether records are taken and written at present.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.shared.check(&self.shared.lock()).is_ok()
    }

    /// How many records there were.
    #[must_use]
    pub fn count(&self) -> AuditCounts {
        AuditCounts {
            written: self.shared.progress.borrow().written,
            refused: self.shared.refused.load(Ordering::Relaxed),
        }
    }

    /// Takes no more records, writes those that were taken and waits until that is done. It blocks;
    /// after [`written`](Self::written) only briefly. Closing again does nothing.
    ///
    /// # Errors
    ///
    /// [`AuditError::Lost`] if the file could not be written at a last try.
    pub fn close(&self) -> Result<(), AuditError> {
        self.shared.lock().closing = true;
        self.shared.wake.notify_all();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A writer that panicked has left its records in the queue, which is looked at next.
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!(path = %self.shared.path.display(), "the writer of a file panicked");
        }
        let queue = self.shared.lock();
        match queue.waiting() {
            0 => Ok(()),
            records => Err(AuditError::Lost {
                records,
                path: Arc::clone(&self.shared.path),
                source: queue.failure.clone(),
            }),
        }
    }
}

impl AuditSink for JsonLinesSink {
    fn submit(&self, record: AuditRecord) -> Result<(), AuditError> {
        self.push(AuditEntry::Decision(record))
    }

    fn resubmit(&self, line: String) -> Result<(), AuditError> {
        self.push(AuditEntry::Line(line))
    }

    fn note(&self, event: AuditEvent) -> Result<(), AuditError> {
        self.push(AuditEntry::Event(event))
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), AuditError>> {
        Box::pin(self.written())
    }

    fn waits(&self) -> bool {
        self.shared.options.sync
    }

    fn healthy(&self) -> bool {
        self.is_healthy()
    }

    fn counts(&self) -> AuditCounts {
        self.count()
    }
}

impl<L: Line> Drop for JsonLines<L> {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "records are lost");
        }
    }
}

impl<L> Shared<L> {
    fn lock(&self) -> MutexGuard<'_, Queue<L>> {
        // Nothing that is done under the lock can panic half-way.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more record can be taken.
    fn check(&self, queue: &Queue<L>) -> Result<(), AuditError> {
        if queue.closing {
            return Err(AuditError::Closed);
        }
        if let Some(source) = &queue.failure {
            return Err(self.unwritable(source));
        }
        let records_max = self.options.records_max;
        if queue.waiting() >= records_max {
            return Err(AuditError::Full { records_max });
        }
        Ok(())
    }

    fn unwritable(&self, source: &Arc<io::Error>) -> AuditError {
        AuditError::Unwritable { path: Arc::clone(&self.path), source: Arc::clone(source) }
    }
}

impl<L> Queue<L> {
    fn waiting(&self) -> usize {
        self.records.len() + self.in_flight
    }
}

#[cfg(test)]
mod tests;
