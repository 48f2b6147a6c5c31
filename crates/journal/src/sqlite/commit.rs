//! One commit after the other: transaction, number, sync, mark.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::params;

use super::chore::Chore;
use super::error::StoreError;
use super::job::Job;
use super::mark::{Mark, MarkFile};
use super::outcome::Outcome;
use super::shared::Shared;
use super::store::{Refused, Store};
use super::{BUSY_WAIT, PAGE_BYTES};
use crate::Durability;

/// The size of the log above which the writer makes room itself: under a load that never pauses no
/// checkpoint beside it finds the moment in which the log can begin anew.
const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// How long the writer waits for readers when it makes room; one that reads for longer is somebody
/// with a query of its own, and callers do not wait for that.
const ROOM_BUSY_WAIT: Duration = Duration::from_millis(50);

/// How long it leaves it when it could make none.
const ROOM_AGAIN: Duration = Duration::from_secs(1);

/// Commits what the store has staged.
pub(super) struct Committer {
    store: Store,
    shared: Arc<Shared>,
    mark: MarkFile,
    written: Mark,
    /// How SQLite syncs at present.
    sync: Option<Sync>,
    /// Something was committed that is not known to be on the disk.
    is_unsynced: bool,
    room_tried: Option<Instant>,
}

/// SQLite's `synchronous`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sync {
    /// A commit is written, and synced with the next one that is, or with the next checkpoint.
    Normal,
    /// A commit is on the disk when it returns.
    Full,
}

/// A transaction, which is taken back when it is dropped without being finished.
pub(super) struct Commit<'c> {
    committer: &'c mut Committer,
    sync: Sync,
    /// There has to be a commit even if it changes nothing.
    is_forced: bool,
    is_over: bool,
}

impl Committer {
    /// `written` is what the mark says, with the number of the newest commit.
    pub(super) fn new(store: Store, shared: Arc<Shared>, mark: MarkFile, written: Mark) -> Self {
        let (sync, is_unsynced, room_tried) = (None, false, None);
        Self { store, shared, mark, written, sync, is_unsynced, room_tried }
    }

    /// Begins a commit that has to be as durable as the journal promises, or may be less.
    ///
    /// # Errors
    ///
    /// [`StoreError`], which is noted.
    pub(super) fn begin(&mut self, is_durable: bool) -> Result<Commit<'_>, StoreError> {
        if let Some(error) = self.shared.lasting_failure() {
            return Err(error);
        }
        let strict = self.shared.durability == Durability::Strict;
        let sync = if strict && is_durable { Sync::Full } else { Sync::Normal };
        if let Err(error) = self.begin_transaction(sync) {
            return Err(self.roll_back(error.into()));
        }
        Ok(Commit { committer: self, sync, is_forced: false, is_over: false })
    }

    fn begin_transaction(&mut self, sync: Sync) -> rusqlite::Result<()> {
        if self.sync != Some(sync) {
            self.sync = None;
            self.store.connection.execute_batch(match sync {
                Sync::Normal => "PRAGMA synchronous = NORMAL",
                Sync::Full => "PRAGMA synchronous = FULL",
            })?;
            self.sync = Some(sync);
        }
        self.store.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        Ok(())
    }

    /// Does a chore in a commit of its own.
    pub(super) fn run_chore(&mut self, mut chore: Chore) {
        let done = self.begin(false).and_then(|mut commit| {
            let store = &mut commit.committer.store;
            let changes = store.connection.total_changes();
            match chore.run(&store.connection, &mut store.heads) {
                Ok(()) => commit.is_forced = store.connection.total_changes() != changes,
                Err(error) => return Err(commit.fail(error)),
            }
            commit.finish(0, 0)
        });
        chore.end(done.map(|_| ()));
    }

    /// Writes that everything was closed in order.
    pub(super) fn close(mut self) {
        let closed = self.begin(true).and_then(|mut commit| {
            commit.is_forced = true;
            let clean = "UPDATE store SET is_clean = 1 WHERE only_row = 1";
            match commit.committer.store.connection.execute(clean, []) {
                Ok(_) => commit.finish(0, 0),
                Err(error) => Err(commit.fail(error.into())),
            }
        });
        if let Err(error) = closed {
            let path = self.shared.path.display();
            tracing::warn!(%path, %error, "the journal is not closed in order");
        }
    }

    /// Takes a failed transaction back, and returns why it failed, which is noted.
    fn roll_back(&mut self, error: StoreError) -> StoreError {
        // Some errors have taken it back already.
        if !self.store.connection.is_autocommit()
            && let Err(error) = self.store.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a transaction of the journal cannot be taken back");
        }
        self.store.rolled_back();
        self.shared.note(&error);
        if error.is_failed_sync() {
            self.written.is_unsure = true;
            if let Err(error) = self.mark.write(&self.written) {
                tracing::error!(%error, "the journal's mark cannot be written");
            }
            self.shared.end_process(&error);
        }
        error
    }

    /// What follows a commit.
    fn committed(&mut self, sync: Sync, jobs: usize, bytes: usize) {
        self.written.commits += 1;
        let counts = &self.shared.counts;
        counts.jobs.fetch_add(jobs as u64, Ordering::Relaxed);
        counts.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        counts.commits.fetch_add(1, Ordering::Relaxed);
        counts.last_batch.store(jobs as u64, Ordering::Relaxed);
        self.is_unsynced = sync == Sync::Normal;
        if sync == Sync::Full {
            counts.synced_commits.fetch_add(1, Ordering::Relaxed);
            // It is a witness, and a missing witness refuses nothing.
            if let Err(error) = self.mark.write(&self.written) {
                tracing::warn!(%error, "the journal's mark cannot be written");
            }
        }
        let outbox_last = self.store.committed();
        self.shared.outbox_last.store(outbox_last, Ordering::Release);
        self.shared.note_success();
        self.shared.make_due();
        self.make_room();
    }

    /// Writes the log back into the store and begins it anew, if it is too long.
    fn make_room(&mut self) {
        let pages = self.shared.log_pages.load(Ordering::Relaxed);
        if pages * PAGE_BYTES < LOG_BYTES_MAX
            || self.room_tried.is_some_and(|tried| tried.elapsed() < ROOM_AGAIN)
        {
            return;
        }
        self.room_tried = Some(Instant::now());
        let connection = &self.store.connection;
        let made = connection
            .busy_timeout(ROOM_BUSY_WAIT)
            .and_then(|()| {
                connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| {
                    Ok(row.get::<_, i64>(0)? == 0)
                })
            })
            .and_then(|made| connection.busy_timeout(BUSY_WAIT).map(|()| made));
        match made {
            Ok(true) => self.shared.log_pages.store(0, Ordering::Relaxed),
            Ok(false) => tracing::debug!("a reader keeps the journal's log from beginning anew"),
            Err(error) => drop(self.roll_back(error.into())),
        }
    }
}

impl Commit<'_> {
    /// Stages what a job asks for.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub(super) fn stage(&mut self, job: &mut Job) -> Result<Outcome, Refused> {
        let store = &mut self.committer.store;
        match job {
            Job::Create(create) => store.create(create).map(Outcome::Created),
            Job::Append(append) => store.append(append).map(Outcome::Appended),
            Job::Flush(_) => {
                // A commit that is synced syncs all of the log before it.
                self.is_forced |= self.sync == Sync::Full && self.committer.is_unsynced;
                Ok(Outcome::Done)
            }
            Job::Probe => {
                self.is_forced = true;
                Ok(Outcome::Done)
            }
            Job::Tidy(through) => {
                store.delete_items(*through)?;
                Ok(Outcome::Done)
            }
            // They are not of a batch.
            Job::Chore(_) | Job::Close => Ok(Outcome::Done),
        }
    }

    /// Commits. `false` means that there was nothing to commit.
    ///
    /// # Errors
    ///
    /// [`StoreError`], which is noted; nothing was changed.
    pub(super) fn finish(mut self, jobs: usize, bytes: usize) -> Result<bool, StoreError> {
        self.is_over = true;
        let committer = &mut *self.committer;
        if !committer.store.is_changed() && !self.is_forced {
            committer.store.connection.prepare_cached("ROLLBACK")?.execute([])?;
            return Ok(false);
        }
        if let Err(error) = committer.write() {
            return Err(committer.roll_back(error));
        }
        committer.committed(self.sync, jobs, bytes);
        Ok(true)
    }

    /// Takes everything back, and returns why, which is noted.
    pub(super) fn fail(mut self, error: StoreError) -> StoreError {
        self.is_over = true;
        self.committer.roll_back(error)
    }
}

impl Committer {
    fn write(&mut self) -> Result<(), StoreError> {
        self.store.finish()?;
        let connection = &self.store.connection;
        // Whoever opened the store after us has raised the number.
        let is_ours = connection
            .prepare_cached("UPDATE store SET commits = ? WHERE only_row = 1 AND opened = ?")?
            .execute(params![self.written.commits as i64 + 1, self.shared.opened as i64])?;
        if is_ours == 0 {
            return Err(StoreError::Taken);
        }
        connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }
}

impl Drop for Commit<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let committer = &mut *self.committer;
        if let Err(error) = committer.store.connection.execute_batch("ROLLBACK") {
            tracing::error!(%error, "a transaction of the journal cannot be taken back");
        }
        committer.store.rolled_back();
    }
}
