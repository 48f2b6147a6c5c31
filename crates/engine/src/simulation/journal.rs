//! A journal as the engine's contract has it, that can lose what it has not made durable.

use convoke_model::{TaskEvent, TaskRecord, TaskState};

use super::script::Chance;
use crate::State;

/// What was committed, of all tasks, in its order.
#[derive(Default)]
pub(super) struct Journal {
    steps: Vec<Step>,
    /// How many of the steps survive a crash in any case.
    durable: usize,
}

struct Step {
    task: usize,
    /// The sender's name for the message, where the step makes the task.
    send: Option<usize>,
    events: Vec<TaskEvent>,
    records: Vec<TaskRecord>,
}

impl Journal {
    /// Takes a step that is not durable yet.
    pub(super) fn write(
        &mut self,
        task: usize,
        send: Option<usize>,
        events: Vec<TaskEvent>,
        records: Vec<TaskRecord>,
    ) {
        self.steps.push(Step { task, send, events, records });
    }

    pub(super) fn sync(&mut self) {
        self.durable = self.steps.len();
    }

    /// Loses some of what is not durable, from the end.
    pub(super) fn crash(&mut self, chance: &mut Chance) {
        let kept = chance.below(self.steps.len() - self.durable + 1);
        self.steps.truncate(self.durable + kept);
        self.sync();
    }

    /// The task that was made of what was sent under this name.
    pub(super) fn known(&self, send: usize) -> Option<usize> {
        self.steps.iter().find(|step| step.send == Some(send)).map(|step| step.task)
    }

    /// How many tasks there are, and under how many names they were sent.
    pub(super) fn made(&self) -> (usize, usize) {
        let mut sends: Vec<usize> = self.steps.iter().filter_map(|step| step.send).collect();
        let tasks = sends.len();
        sends.sort_unstable();
        sends.dedup();
        (tasks, sends.len())
    }

    /// `vacant` and what was committed to it; `None` if it was never made. That it can be folded at
    /// all says that nothing follows an end.
    pub(super) fn state(&self, task: usize, mut vacant: State) -> Option<State> {
        for step in self.steps.iter().filter(|step| step.task == task) {
            for event in &step.events {
                vacant.apply(event.clone()).unwrap();
            }
            for record in &step.records {
                vacant.apply_record(record.clone());
            }
        }
        vacant.task().is_some().then_some(vacant)
    }

    /// How often the task ended, and how often an attempt at it was to be made again.
    pub(super) fn ends_and_retries(&self, task: usize) -> (usize, usize) {
        let of_task = || self.steps.iter().filter(|step| step.task == task);
        let ends = |event: &&TaskEvent| matches!(event, TaskEvent::Status(status) if TaskState::is_terminal(status.state));
        let retries = |record: &&TaskRecord| matches!(record, TaskRecord::Retry { .. });
        (
            of_task().flat_map(|step| &step.events).filter(ends).count(),
            of_task().flat_map(|step| &step.records).filter(retries).count(),
        )
    }
}
