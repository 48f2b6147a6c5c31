//! What the journal, its writer, its readers and its housekeeper know together.

use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::error::StoreError;
use super::{Fatal, WriterCounts};
use crate::{AuditSink, Durability, JournalError};

/// Shared by all threads of one journal.
pub(super) struct Shared {
    /// The store's file, as errors name it.
    pub(super) path: Arc<Path>,
    pub(super) durability: Durability,
    /// How often the store was opened, which is the fence of everything made or claimed here.
    pub(super) opened: u64,
    pub(super) epoch: u64,
    /// The random name of the store.
    pub(super) store_id: String,
    pub(super) sink: Arc<dyn AuditSink>,
    /// Ends the process.
    pub(super) fatal: Fatal,
    pub(super) counts: Counts,
    /// The newest item of the outbox that is committed; zero if there is none.
    pub(super) outbox_last: AtomicI64,
    /// Pages in the log, as the last checkpoint saw it.
    pub(super) log_pages: AtomicU64,
    failure: Mutex<Option<Failure>>,
    work: Mutex<Work>,
    /// Tells the housekeeper that `work` has changed.
    wake: Condvar,
}

/// What the store says of itself once it is open.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    pub(super) opened: u64,
    pub(super) epoch: u64,
    pub(super) store_id: String,
}

/// Why nothing can be written at present.
#[derive(Clone)]
struct Failure {
    error: StoreError,
    words: Arc<str>,
}

/// What the housekeeper waits for.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Something was committed, or could not be.
    pub(super) is_due: bool,
    pub(super) is_closing: bool,
}

/// Counted by the writer.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) jobs: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) synced_commits: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) last_batch: AtomicU64,
}

impl Shared {
    pub(super) fn new(
        path: Arc<Path>,
        durability: Durability,
        found: Opened,
        sink: Arc<dyn AuditSink>,
        fatal: Fatal,
    ) -> Self {
        let Opened { opened, epoch, store_id } = found;
        Self {
            path,
            durability,
            opened,
            epoch,
            store_id,
            sink,
            fatal,
            counts: Counts::default(),
            outbox_last: AtomicI64::new(0),
            log_pages: AtomicU64::new(0),
            failure: Mutex::default(),
            work: Mutex::default(),
            wake: Condvar::new(),
        }
    }

    /// What a caller is told of `error`, which is noted if it concerns more than that caller.
    pub(super) fn failed(&self, error: StoreError) -> JournalError {
        if !matches!(error, StoreError::Closed) {
            self.note(&error);
        }
        error.into_journal(&self.path)
    }

    /// Notes why nothing can be written. What cannot pass is never replaced by what can.
    pub(super) fn note(&self, error: &StoreError) {
        let mut failure = self.failure();
        if failure.as_ref().is_some_and(|known| !known.error.is_passing()) {
            return;
        }
        let what = error.what();
        let is_new = failure.as_ref().is_none_or(|known| known.error.what() != what);
        let words = format!("the journal at `{}` {what}", self.path.display()).into();
        *failure = Some(Failure { error: error.clone(), words });
        drop(failure);
        if is_new {
            let path = self.path.display();
            tracing::error!(%path, "the journal {what}; nothing is written until that is over");
        }
        // The housekeeper tries it again.
        self.make_due();
    }

    /// Something was written, so what may pass is over.
    pub(super) fn note_success(&self) {
        let mut failure = self.failure();
        if failure.as_ref().is_some_and(|known| known.error.is_passing()) {
            *failure = None;
            drop(failure);
            tracing::info!(path = %self.path.display(), "the journal can be written again");
        }
    }

    /// Why nothing can ever be written again here, if that is so.
    pub(super) fn lasting_failure(&self) -> Option<StoreError> {
        self.failure().as_ref().map(|known| known.error.clone()).filter(|error| !error.is_passing())
    }

    /// Why nothing is written, in words.
    pub(super) fn trouble(&self) -> Option<Arc<str>> {
        self.failure().as_ref().map(|known| Arc::clone(&known.words))
    }

    /// Ends the process after a failed sync; see [`StoreError::is_failed_sync`].
    pub(super) fn end_process(&self, error: &StoreError) {
        let path = self.path.display();
        (self.fatal)(&format!(
            "the journal at `{path}` could not be synced to its disk ({}); what is on the disk is \
             whole, and this process cannot know what that is: look at the disk and start it anew",
            convoke_model::chain(error)
        ));
    }

    fn failure(&self) -> MutexGuard<'_, Option<Failure>> {
        // Nothing that is done under the lock can panic half-way.
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the housekeeper something to do.
    pub(super) fn make_due(&self) {
        let mut work = self.work();
        let was_due = std::mem::replace(&mut work.is_due, true);
        drop(work);
        if !was_due {
            self.wake.notify_all();
        }
    }

    /// Tells the housekeeper to end.
    pub(super) fn close(&self) {
        self.work().is_closing = true;
        self.wake.notify_all();
    }

    pub(super) fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wake(&self) -> &Condvar {
        &self.wake
    }
}

impl Counts {
    pub(super) fn get(&self) -> WriterCounts {
        WriterCounts {
            jobs: self.jobs.load(Ordering::Relaxed),
            commits: self.commits.load(Ordering::Relaxed),
            synced_commits: self.synced_commits.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            last_batch: self.last_batch.load(Ordering::Relaxed),
        }
    }
}
