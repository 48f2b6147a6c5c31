//! One task in memory, with the newest of its events.

use std::collections::VecDeque;
use std::sync::Arc;

use convoke_model::{
    CapabilityName, EventError, MessageId, Task, TaskEvent, TaskId, TaskRecord, Terms, Work,
};

use super::MemoryLimits;
use super::shelf::{Held, Listed, Owner, Sent};
use crate::page::Position;
use crate::size::{event_bytes, put, task_bytes, text_bytes};
use crate::stored::{decode_event, encode_event, event_kind};
use crate::{
    EVENTS_PAGE_BYTES, Events, Fence, Head, JournalError, NewTask, Scope, Step, StoredTask,
};

/// The right to work on any of these tasks. It never changes hands: the tasks live no longer than
/// the process that works on them.
pub(super) const FENCE: Fence = Fence(1);

/// What a task takes beside itself and its names: its places in the map, the queue, the list and
/// among the names of messages, with as much again for what these hold in reserve.
const PLACE_BYTES: usize = 2
    * (size_of::<(TaskId, Entry)>()
        + size_of::<(u64, TaskId)>()
        + size_of::<(Position, Listed)>()
        + size_of::<(MessageId, Sent)>());

/// What an owner takes beside its names and its tasks: its places among the owners and in the order
/// of those who have ended tasks, with as much again in reserve.
const OWNER_BYTES: usize = 2 * (size_of::<(Scope, Owner)>() + size_of::<(u64, Scope)>());

/// How often a task that has not ended is in memory: whoever works on it has a copy.
const COPIES_AT_WORK: usize = 2;

/// One task.
pub(super) struct Entry {
    pub(super) task: Arc<Task>,
    capability: CapabilityName,
    subject: Option<Arc<str>>,
    terms: Terms,
    work: Work,
    /// Its place in the order in which tasks were made.
    pub(super) number: u64,
    pub(super) last_seq: u64,
    /// The newest of its events, without a gap up to `last_seq`.
    log: VecDeque<Kept>,
    /// What it was sent as, if it may be sent again.
    pub(super) sent_as: Option<MessageId>,
    /// What the task takes by itself.
    pub(super) task_bytes: usize,
    /// What the log takes.
    pub(super) log_bytes: usize,
    /// What it takes beside that.
    place_bytes: usize,
}

/// An event as it would be stored, which is a third of what it takes as a value.
struct Kept {
    kind: i64,
    body: Box<str>,
}

/// What a step adds, made before the shelf is locked.
pub(super) struct More {
    log: Vec<Kept>,
    /// How much room it takes at most while the task is at work.
    pub(super) bytes: usize,
    /// Whether the task ends with it.
    pub(super) ends: bool,
}

impl Entry {
    pub(super) fn fold(
        scope: &Scope,
        new: NewTask,
        limits: MemoryLimits,
    ) -> Result<Self, JournalError> {
        // Its owner counts for every task, because the first of an owner brings it.
        let names = [
            scope.agent.as_str(),
            &scope.tenant,
            &scope.app,
            &scope.owner,
            new.capability.as_str(),
        ];
        let place_bytes = PLACE_BYTES
            + OWNER_BYTES
            + names.into_iter().map(text_bytes).sum::<usize>()
            + new.subject.as_deref().map_or(0, text_bytes)
            + new.send.as_ref().map_or(0, |send| text_bytes(send.message_id.as_str()));
        let log = log_of(&new.events);
        let mut events = new.events.into_iter();
        let first = events.next().ok_or(EventError::NotSubmitted)?;
        let mut task = Task::begin(new.id, new.context_id, first)?;
        let mut last_seq = 1;
        for event in events {
            task.apply(event)?;
            last_seq += 1;
        }
        let mut work = Work::default();
        new.records.into_iter().for_each(|record| work.apply(record));
        let mut entry = Self {
            task_bytes: task_bytes(&task),
            task: Arc::new(task),
            capability: new.capability,
            subject: new.subject,
            terms: new.terms,
            work,
            number: 0,
            last_seq,
            log: VecDeque::new(),
            sent_as: new.send.map(|send| send.message_id),
            log_bytes: 0,
            place_bytes,
        };
        entry.keep(log, limits);
        Ok(entry)
    }

    /// Adds a step, which was checked.
    pub(super) fn add(
        &mut self,
        step: Step,
        more: More,
        limits: MemoryLimits,
    ) -> Result<(), EventError> {
        step.records.into_iter().for_each(|record| self.work.apply(record));
        if step.events.is_empty() {
            return Ok(());
        }
        // Copies the task only while a reader holds it. A copy has nothing in reserve, so what it
        // takes is counted anew.
        if Arc::get_mut(&mut self.task).is_none() {
            let copy = Task::clone(&self.task);
            self.task_bytes = task_bytes(&copy);
            self.task = Arc::new(copy);
        }
        let task = Arc::make_mut(&mut self.task);
        for event in step.events {
            let change = put(task, event)?;
            self.task_bytes = (self.task_bytes + change.taken).saturating_sub(change.freed);
            self.last_seq += 1;
        }
        self.keep(more.log, limits);
        Ok(())
    }

    /// Adds to the log and lets go of what is too long ago for it.
    fn keep(&mut self, more: Vec<Kept>, limits: MemoryLimits) {
        for kept in more {
            self.log_bytes += kept.bytes();
            self.log.push_back(kept);
        }
        while self.log_bytes > limits.of_log()
            && let Some(oldest) = self.log.pop_front()
        {
            self.log_bytes -= oldest.bytes();
        }
    }

    /// The events behind number `after`.
    pub(super) fn events(&self, after: u64) -> Events {
        let missed = self.last_seq.checked_sub(after).and_then(|n| usize::try_from(n).ok());
        let Some(from) = missed.and_then(|missed| self.log.len().checked_sub(missed)) else {
            return Events::Lost;
        };
        let (mut events, mut bytes) = (Vec::new(), 0);
        for (seq, kept) in (after + 1..).zip(self.log.range(from..)) {
            bytes += kept.bytes();
            if bytes > EVENTS_PAGE_BYTES && !events.is_empty() {
                break;
            }
            // What an agent wrongly called JSON cannot be read again; the task has it all the same.
            let Ok(event) = decode_event(kept.kind, &kept.body) else { return Events::Lost };
            events.push((seq, event));
        }
        Events::Page { events, last_seq: self.last_seq, state: self.task.status.state }
    }

    /// What the task counts for.
    pub(super) fn held(&self) -> Held {
        let beside = self.place_bytes + self.log_bytes + self.work_bytes();
        if self.task.status.state.is_terminal() {
            return Held { tasks: 1, bytes: beside + self.task_bytes, ..Held::default() };
        }
        let bytes = beside + COPIES_AT_WORK * self.task_bytes;
        Held { tasks: 1, bytes, running: 1, running_bytes: bytes }
    }

    fn work_bytes(&self) -> usize {
        self.work.checkpoint.as_ref().map_or(0, |checkpoint| text_bytes(checkpoint.value.get()))
    }

    /// Where the task stands in lists.
    pub(super) fn position(&self) -> Position {
        Position { at: self.task.status.timestamp, number: self.number }
    }

    pub(super) fn listed(&self) -> Listed {
        Listed {
            id: self.task.id.clone(),
            context_id: self.task.context_id.clone(),
            capability: self.capability.clone(),
            state: self.task.status.state,
        }
    }

    pub(super) fn head(&self) -> Head {
        Head {
            capability: self.capability.clone(),
            state: self.task.status.state,
            last_seq: self.last_seq,
        }
    }

    pub(super) fn stored(&self) -> StoredTask {
        StoredTask {
            task: Arc::clone(&self.task),
            capability: self.capability.clone(),
            subject: self.subject.clone(),
            terms: self.terms,
            work: self.work.clone(),
            last_seq: self.last_seq,
        }
    }
}

impl More {
    pub(super) fn of(step: &Step, limits: MemoryLimits) -> Self {
        let log = log_of(&step.events);
        let log_bytes = log.iter().map(Kept::bytes).sum::<usize>();
        let checkpoint = |record: &TaskRecord| match record {
            TaskRecord::Checkpoint(checkpoint) => text_bytes(checkpoint.value.get()),
            TaskRecord::Started { .. } | TaskRecord::Retry { .. } => 0,
        };
        let bytes = COPIES_AT_WORK * step.events.iter().map(event_bytes).sum::<usize>()
            + log_bytes.min(limits.of_log())
            + step.records.iter().map(checkpoint).sum::<usize>();
        Self { log, bytes, ends: step.events.last().is_some_and(ends) }
    }
}

impl Kept {
    /// What it takes, with as much again for the place that the log holds in reserve.
    fn bytes(&self) -> usize {
        2 * size_of::<Self>() + self.body.len()
    }
}

fn log_of(events: &[TaskEvent]) -> Vec<Kept> {
    let kept = |event| Kept { kind: event_kind(event), body: encode_event(event).into() };
    events.iter().map(kept).collect()
}

fn ends(event: &TaskEvent) -> bool {
    matches!(event, TaskEvent::Status(status) if status.state.is_terminal())
}
