//! Audit records as lines of JSON in a file.

mod file;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use convoke_model::AuditRecord;
use tokio::sync::watch;

use crate::{AuditCounts, AuditError, AuditSink, BoxFuture};
use file::AppendFile;
use writer::{BATCH_RECORDS, Target};

/// How many records may wait to be written: about a second of a node at full load, in about 20 MiB
/// of memory. Beyond that calls are refused.
pub const RECORDS_MAX_DEFAULT: usize = 65_536;

/// Appends audit records to a file, one line of JSON each.
///
/// A thread of its own formats and writes them in batches, within 10 ms of the first of a batch. The
/// callers only move their record into a queue of bounded length.
///
/// If the file cannot be written, nothing that was taken is dropped: the sink is unhealthy, refuses
/// further records and tries again until it can. After a failed sync the whole batch is written
/// again, because the kernel may have dropped any part of it; so a record may be there twice, and is
/// never missing.
///
/// Dropping the sink closes it.
pub struct JsonLinesSink {
    shared: Arc<Shared>,
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
    /// The writer's thread cannot be started.
    #[error("the thread that writes the audit file cannot be started")]
    Thread {
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What callers and the writer share.
struct Shared {
    path: Arc<Path>,
    records_max: usize,
    sync: bool,
    queue: Mutex<Queue>,
    /// Tells the writer that the queue has changed in a way it waits for.
    wake: Condvar,
    progress: watch::Sender<Progress>,
    refused: AtomicU64,
}

#[derive(Default)]
struct Queue {
    records: Vec<AuditRecord>,
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

impl JsonLinesSink {
    /// Opens `path` for appending, readable by its owner alone if it is new, as are the directories
    /// above it that have to be made. If the last line is torn, because a process died while it
    /// wrote, it is ended, so that the next record has a line of its own.
    ///
    /// With `sync`, records are on the disk before [`flush`](AuditSink::flush) returns, and effects
    /// wait for that; otherwise they are with the kernel.
    ///
    /// # Errors
    ///
    /// [`AuditOpenError`] names what cannot be opened or made.
    pub fn open(path: &Path, sync: bool) -> Result<Self, AuditOpenError> {
        Self::open_with(path, sync, RECORDS_MAX_DEFAULT)
    }

    /// As [`open`](Self::open), with another length of the queue than [`RECORDS_MAX_DEFAULT`].
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_with(path: &Path, sync: bool, records_max: usize) -> Result<Self, AuditOpenError> {
        let file = AppendFile::open(path, sync)?;
        Self::start(path, sync, records_max, file)
    }

    fn start(
        path: &Path,
        sync: bool,
        records_max: usize,
        target: impl Target,
    ) -> Result<Self, AuditOpenError> {
        let shared = Arc::new(Shared {
            path: path.into(),
            records_max,
            sync,
            queue: Mutex::default(),
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

    /// Takes no more records, writes those that were taken and waits until that is done. It blocks;
    /// after a successful [`flush`](AuditSink::flush) only briefly. Closing again does nothing.
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
            tracing::error!(path = %self.shared.path.display(), "the audit writer panicked");
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

    fn flush(&self) -> BoxFuture<'_, Result<(), AuditError>> {
        let shared = &*self.shared;
        Box::pin(async move {
            let taken = {
                let mut queue = shared.lock();
                queue.urgent = !queue.records.is_empty();
                queue.taken
            };
            shared.wake.notify_one();
            let mut progress = shared.progress.subscribe();
            let arrived =
                |now: &Progress| now.written >= taken || now.failure.is_some() || now.ended;
            // The channel's other end is in `shared` as well, so it cannot be closed.
            let now = progress.wait_for(arrived).await.map_err(|_| AuditError::Closed)?;
            match &now.failure {
                _ if now.written >= taken => Ok(()),
                Some(source) => Err(shared.unwritable(source)),
                None => Err(AuditError::Closed),
            }
        })
    }

    fn waits(&self) -> bool {
        self.shared.sync
    }

    fn healthy(&self) -> bool {
        self.shared.check(&self.shared.lock()).is_ok()
    }

    fn counts(&self) -> AuditCounts {
        AuditCounts {
            written: self.shared.progress.borrow().written,
            refused: self.shared.refused.load(Ordering::Relaxed),
        }
    }
}

impl Drop for JsonLinesSink {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "audit records are lost");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing that is done under the lock can panic half-way.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more record can be taken.
    fn check(&self, queue: &Queue) -> Result<(), AuditError> {
        if queue.closing {
            return Err(AuditError::Closed);
        }
        if let Some(source) = &queue.failure {
            return Err(self.unwritable(source));
        }
        if queue.waiting() >= self.records_max {
            return Err(AuditError::Full { records_max: self.records_max });
        }
        Ok(())
    }

    fn unwritable(&self, source: &Arc<io::Error>) -> AuditError {
        AuditError::Unwritable { path: Arc::clone(&self.path), source: Arc::clone(source) }
    }
}

impl Queue {
    fn waiting(&self) -> usize {
        self.records.len() + self.in_flight
    }
}

#[cfg(test)]
mod tests;
