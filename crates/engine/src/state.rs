//! What the engine knows of one task.

use convoke_model::{
    CapabilityName, ContextId, EventError, Task, TaskEvent, TaskId, TaskRecord, Terms, Work,
};

/// What the engine knows of one task. It follows from the task's terms, events and records alone, so
/// that a state rebuilt from a journal decides as the one that was lost.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    id: TaskId,
    context_id: ContextId,
    capability: CapabilityName,
    terms: Terms,
    /// `None` until the submission is recorded.
    task: Option<Task>,
    work: Work,
    last_seq: u64,
}

/// A recorded event that cannot follow the ones before it: the record is damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {seq} of task `{id}` cannot be replayed")]
pub struct ReplayError {
    /// The task.
    pub id: TaskId,
    /// The event's number within the task; the first is 1.
    pub seq: u64,
    /// What is wrong with it.
    #[source]
    pub source: EventError,
}

impl State {
    /// A task that has yet to be submitted, under identifiers that the caller made.
    #[must_use]
    pub fn new(
        id: TaskId,
        context_id: ContextId,
        capability: CapabilityName,
        terms: Terms,
    ) -> Self {
        let work = Work::default();
        Self { id, context_id, capability, terms, task: None, work, last_seq: 0 }
    }

    /// The state behind `task` as a journal has folded it, and behind what its records come to;
    /// `last_seq` is the number of its events.
    #[must_use]
    pub fn of_stored(
        task: Task,
        capability: CapabilityName,
        terms: Terms,
        work: Work,
        last_seq: u64,
    ) -> Self {
        let (id, context_id) = (task.id.clone(), task.context_id.clone());
        Self { id, context_id, capability, terms, task: Some(task), work, last_seq }
    }

    /// Changes the state as the recorded `event` says. Live decisions and replays both come through
    /// here. On an error nothing has changed.
    ///
    /// # Errors
    ///
    /// [`ReplayError`] if `event` cannot follow the ones before it.
    pub fn apply(&mut self, event: TaskEvent) -> Result<(), ReplayError> {
        let seq = self.last_seq + 1;
        let applied = match &mut self.task {
            Some(task) => task.apply(event),
            None => Task::begin(self.id.clone(), self.context_id.clone(), event)
                .map(|task| self.task = Some(task)),
        };
        applied.map_err(|source| ReplayError { id: self.id.clone(), seq, source })?;
        self.last_seq = seq;
        Ok(())
    }

    /// Adds what the next record says of the work.
    pub fn apply_record(&mut self, record: TaskRecord) {
        self.work.apply(record);
    }

    /// The task as its owner may see it; `None` until it is submitted.
    #[must_use]
    pub fn task(&self) -> Option<&Task> {
        self.task.as_ref()
    }

    /// The task as its owner may see it, for an answer that is the state's last use.
    #[must_use]
    pub fn into_task(self) -> Option<Task> {
        self.task
    }

    /// The task's name.
    #[must_use]
    pub fn id(&self) -> &TaskId {
        &self.id
    }

    /// The conversation that the task belongs to.
    #[must_use]
    pub fn context_id(&self) -> &ContextId {
        &self.context_id
    }

    /// The capability that does the task's work.
    #[must_use]
    pub fn capability(&self) -> &CapabilityName {
        &self.capability
    }

    /// On which terms the task was taken.
    #[must_use]
    pub fn terms(&self) -> Terms {
        self.terms
    }

    /// What the records come to: attempts, the next one if it is not due yet, the last checkpoint.
    #[must_use]
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// The number of the newest event; zero until the task is submitted. Numbers have no gaps.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Whether the task has ended for good.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.task.as_ref().is_some_and(|task| task.status.state.is_terminal())
    }
}
