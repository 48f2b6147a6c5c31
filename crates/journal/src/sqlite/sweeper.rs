//! The thread that has retention done, step by step, in the writer's turns.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::job::Queue;
use super::lookup::now;
use super::retention::{Retention, Sweep};
use super::shared::Shared;

/// How long it leaves a journal that was just opened to those who find their tasks again.
const START: Duration = Duration::from_secs(10);

/// How long commits have the writer for themselves between two steps.
const BETWEEN: Duration = Duration::from_millis(20);

/// How long it waits after a step that failed. The writer says by itself what is wrong.
const AGAIN: Duration = Duration::from_secs(10);

/// Sweeps until the journal closes.
pub(super) struct Sweeper {
    retention: Retention,
    shared: Arc<Shared>,
    queue: Arc<Queue>,
}

impl Sweeper {
    pub(super) fn new(retention: Retention, shared: Arc<Shared>, queue: Arc<Queue>) -> Self {
        Self { retention, shared, queue }
    }

    pub(super) fn run(self) {
        let mut sweep = Sweep::new(self.retention);
        let mut rest = START;
        while self.sleep(rest) {
            (sweep, rest) = match self.step(sweep) {
                Some((sweep, rest)) => (sweep, rest.max(BETWEEN)),
                None => (Sweep::new(self.retention), AGAIN),
            };
        }
    }

    /// One step in a commit of its own; `None` if nothing came of it.
    fn step(&self, mut sweep: Sweep) -> Option<(Sweep, Duration)> {
        let done = self.queue.run_chore(move |connection, _heads| {
            // Heads are of tasks that have not ended, which no step touches.
            let rest = sweep.step(connection, now())?;
            Ok((sweep, rest))
        });
        done.ok()
    }

    /// `false` means that the journal closes.
    fn sleep(&self, rest: Duration) -> bool {
        let work = self.shared.work();
        let waited = self.shared.wake().wait_timeout_while(work, rest, |work| !work.is_closing);
        let (work, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !work.is_closing
    }
}
