//! What follows from an event.

use convoke_model::TaskEvent;

/// What [`crate::decide`] wants done. The node commits all of `records` in one commit and then, and
/// only then, takes the `actions` in their order. On a failed commit it drops both, and the state
/// that made them.
///
/// Several decisions may add to the same effects before they are committed; a task whose handler
/// starts at once is then one commit, not two.
#[derive(Debug, Default)]
pub struct Effects {
    /// Facts to commit, in their order. The first follows what the journal already holds, so the
    /// sequence number that the journal should be at is [`crate::State::last_seq`] less their count.
    pub records: Vec<TaskEvent>,
    /// What to do once the facts are committed.
    pub actions: Vec<Action>,
}

/// Something to do once the facts are committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Run the handler of the task's capability. An in-process handler may have been started
    /// earlier, as long as none of its own effects was let out.
    RunHandler,
    /// Hand the message that came last to the handler, which waits for it.
    ResumeHandler,
    /// Stop the handler; whatever it still says changes nothing.
    StopHandler,
    /// The task stands where those who wait for it can be answered: it has ended, or waits itself.
    Answer,
}

impl Effects {
    /// Nothing to do.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.actions.is_empty()
    }
}
