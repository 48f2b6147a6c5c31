//! The look at a store that is too large to be looked at before the first answer.
//!
//! What is read is verified row by row anyway. What is not there to be read is not: a damaged index
//! can hide a task. So a large store is looked at wholly once it is open, slowly, and what is found
//! ends all writing, as any damage does.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::error::StoreError;
use super::shared::Shared;
use super::walk::check;

/// How long it leaves a journal that was just opened to those who find their tasks again.
const START: Duration = Duration::from_secs(20);

/// After so many steps of SQLite's machine it pauses: some milliseconds of work.
const STEPS: i32 = 20_000;

/// The pause, about as long as the work, so that half a core is left even on the smallest machine.
const PAUSE: Duration = Duration::from_millis(4);

/// Looks at a store once.
pub(super) struct Inspector {
    connection: Connection,
    shared: Arc<Shared>,
    /// When it begins.
    pub(super) start: Duration,
}

impl Inspector {
    /// `connection` only reads.
    pub(super) fn new(connection: Connection, shared: Arc<Shared>) -> Self {
        Self { connection, shared, start: START }
    }

    pub(super) fn run(mut self) {
        if !self.sleep(self.start) {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let pause = move || {
            std::thread::sleep(PAUSE);
            shared.work().is_closing
        };
        let path = self.shared.path.display();
        if let Err(error) = self.connection.progress_handler(STEPS, Some(pause)) {
            tracing::warn!(%path, %error, "the journal is not looked at as a whole");
            return;
        }
        let began = Instant::now();
        match check(&self.connection) {
            Ok(()) => {
                let seconds = began.elapsed().as_secs();
                tracing::info!(%path, seconds, "the journal was looked at and is whole");
            }
            // It was told to stop.
            Err(_) if self.shared.work().is_closing => {}
            Err(error @ StoreError::Damaged(_)) => {
                tracing::error!(%path, %error, "the journal is damaged");
                self.shared.note(&error);
            }
            Err(error) => tracing::warn!(%path, %error, "the journal is not looked at as a whole"),
        }
    }

    /// `false` means that the journal closes.
    fn sleep(&self, rest: Duration) -> bool {
        let work = self.shared.work();
        let waited = self.shared.wake().wait_timeout_while(work, rest, |work| !work.is_closing);
        let (work, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !work.is_closing
    }
}
