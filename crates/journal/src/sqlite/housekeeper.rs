//! What is done beside the writer: the log is written back into the store, what has left the outbox
//! is taken out, and a store that could not be written is tried again.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use super::error::StoreError;
use super::job::{Job, Queue};
use super::shared::Shared;
use super::wait::wait;

/// How long it waits after something was committed. Writing back more often costs syncs; less often
/// lets the log grow, and makes each time long enough to be felt.
const EVERY: Duration = Duration::from_millis(100);

/// How long it waits before it tries a store again that could not be written.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// How many items of the outbox are taken out by one job.
const TIDY_ITEMS: i64 = 1024;

/// The housekeeper. It sleeps while nothing is committed.
pub(super) struct Housekeeper {
    /// A connection of its own: the writer does not wait while pages are written back.
    connection: Connection,
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    /// Items of the outbox up to here have left it, or are about to.
    tidied: i64,
    /// What the last checkpoint said, so that one thing is said once.
    checkpoint_failed: bool,
}

impl Housekeeper {
    pub(super) fn new(connection: Connection, shared: Arc<Shared>, queue: Arc<Queue>) -> Self {
        let tidied = shared.outbox_last.load(Ordering::Acquire);
        Self { connection, shared, queue, tidied, checkpoint_failed: false }
    }

    /// Works until the journal closes.
    pub(super) fn run(mut self) {
        while self.sleep() {
            self.checkpoint();
            self.tidy();
            if self.shared.trouble().is_some() && self.shared.lasting_failure().is_none() {
                // If nothing comes of it, that makes work due again.
                self.send(Job::Probe);
            }
        }
        // What has left the store need not be handed over again by the next one who opens it.
        self.tidy();
    }

    /// Sleeps until there is something to do, and then a moment longer, so that it is worth it.
    /// `false` means that the journal closes.
    fn sleep(&self) -> bool {
        let work = self.shared.work();
        let wake = self.shared.wake();
        let work = wake.wait_while(work, |work| !work.is_due && !work.is_closing);
        let work = work.unwrap_or_else(PoisonError::into_inner);
        let pause = if self.shared.trouble().is_some() { PROBE_EVERY } else { EVERY };
        let work = wake.wait_timeout_while(work, pause, |work| !work.is_closing);
        let (mut work, _) = work.unwrap_or_else(PoisonError::into_inner);
        work.is_due = false;
        !work.is_closing
    }

    /// Writes back what no reader still needs in the log.
    fn checkpoint(&mut self) {
        let pages = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
            Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        });
        match pages {
            Ok((in_log, written_back)) => {
                // A log that is written back wholly begins anew with the next commit.
                let left = if in_log == written_back { 0 } else { in_log };
                let left = u64::try_from(left).unwrap_or_default();
                self.shared.log_pages.store(left, Ordering::Relaxed);
                self.checkpoint_failed = false;
            }
            Err(error) => self.checkpoint_error(error.into()),
        }
    }

    fn checkpoint_error(&mut self, error: StoreError) {
        if error.is_failed_sync() {
            self.shared.note(&error);
            self.shared.end_process(&error);
        } else if matches!(error, StoreError::Damaged(_)) {
            self.shared.note(&error);
        } else if !std::mem::replace(&mut self.checkpoint_failed, true) {
            // The log has everything; it grows until this is over.
            let path = self.shared.path.display();
            tracing::warn!(%path, %error, "the journal's log cannot be written back");
        }
    }

    /// Has the lines taken out of the outbox that the sink has written.
    fn tidy(&mut self) {
        let last = self.shared.outbox_last.load(Ordering::Acquire);
        if last <= self.tidied {
            return;
        }
        // Lines that are committed were handed over before; so this flush is about them as well.
        if wait(self.shared.sink.flush()).is_ok() {
            while self.tidied < last {
                self.tidied = last.min(self.tidied + TIDY_ITEMS);
                self.send(Job::Tidy(self.tidied));
            }
        } else {
            // The sink says by itself what is wrong with it; it is asked again.
            self.shared.make_due();
        }
    }

    /// A writer that has ended is no longer in need of anything.
    fn send(&self, job: Job) {
        if self.queue.send(job).is_err() {
            tracing::debug!("the journal's writer has ended before its housekeeper");
        }
    }
}
