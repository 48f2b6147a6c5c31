//! What follows from an event.

use convoke_model::{TaskEvent, TaskRecord};

/// What [`crate::decide`] wants done. The node commits all of `events` and `records` in one commit
/// and then, and only then, takes the `actions` in their order. On a failed commit it drops all of
/// them, and the state that made them.
///
/// Several decisions may add to the same effects before they are committed; a task whose handler
/// starts at once is then one commit, not two.
#[derive(Debug, Default)]
pub struct Effects {
    /// Public events to commit, in their order. The first follows what the journal already holds, so
    /// the number that the journal should be at is [`crate::State::last_seq`] less their count.
    pub events: Vec<TaskEvent>,
    /// Records to commit with them, in their order.
    pub records: Vec<TaskRecord>,
    /// What to do once all of it is committed.
    pub actions: Vec<Action>,
}

/// Something to do once what was decided is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Run the handler of the task's capability, from its beginning. An in-process handler may have
    /// been started earlier, as long as none of its own effects was let out.
    ///
    /// It may be said twice, by a timer that fires again for example. A task has one handler at a
    /// time, so it means nothing while one waits for its turn or is at work.
    RunHandler,
    /// Hand the message that came last to the handler, if it waits for it. One that goes on after a
    /// restart may not have come to its question yet; it finds the message in
    /// [`crate::EarlierAnswers`].
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

    /// Whether there is nothing to commit.
    #[must_use]
    pub fn changes_nothing(&self) -> bool {
        self.events.is_empty() && self.records.is_empty()
    }

    /// Whether there is nothing to commit and nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes_nothing() && self.actions.is_empty()
    }
}
