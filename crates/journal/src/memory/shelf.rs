//! What a journal in memory holds, and for whom it makes room.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use convoke_model::{CapabilityName, EventError, Task, TaskEvent, TaskId};

use super::MemoryLimits;
use crate::size::{event_bytes, put, task_bytes, text_bytes};
use crate::{JournalError, NewTask, Scope, StoredTask};

/// What a task takes beside itself and its names: its places in the map and in the queue, with as
/// much again for what map and queue hold in reserve.
const PLACE_BYTES: usize = 2 * (size_of::<(TaskId, Entry)>() + size_of::<(u64, TaskId)>());

/// What an owner takes beside its names and its tasks: its places among the owners and in the order
/// of those who have ended tasks, with as much again in reserve.
const OWNER_BYTES: usize = 2 * (size_of::<(Scope, Owner)>() + size_of::<(u64, Scope)>());

/// How often a task that has not ended is in memory: whoever works on it has a copy.
const COPIES_AT_WORK: usize = 2;

/// Everything there is.
#[derive(Default)]
pub(super) struct Shelf {
    /// By owner first: a task of another owner is not compared with, so nothing about it can leak.
    pub(super) owners: HashMap<Scope, Owner>,
    /// The owners that have ended tasks, by the number of the end that is longest ago.
    pub(super) oldest: BTreeMap<u64, Scope>,
    /// The sum over the owners.
    pub(super) held: Held,
    /// How many tasks have ended so far.
    ends: u64,
}

/// The tasks of one owner, at least one.
#[derive(Default)]
pub(super) struct Owner {
    pub(super) tasks: HashMap<TaskId, Entry>,
    /// Those that have ended, each with the number of its end; the end that is longest ago in front.
    pub(super) ended: VecDeque<(u64, TaskId)>,
    pub(super) held: Held,
}

/// Sums over tasks.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) tasks: usize,
    pub(super) bytes: usize,
    pub(super) running: usize,
    pub(super) running_bytes: usize,
}

/// One task.
pub(super) struct Entry {
    pub(super) task: Arc<Task>,
    capability: CapabilityName,
    subject: Option<Arc<str>>,
    pub(super) last_seq: u64,
    /// What the task takes by itself.
    pub(super) task_bytes: usize,
    /// What it takes beside that.
    place_bytes: usize,
}

impl Shelf {
    pub(super) fn find(&self, scope: &Scope, id: &TaskId) -> Option<&Entry> {
        self.owners.get(scope)?.tasks.get(id)
    }

    pub(super) fn check_create(
        &self,
        scope: &Scope,
        id: &TaskId,
        entry: &Entry,
        limits: MemoryLimits,
    ) -> Result<(), JournalError> {
        if self.find(scope, id).is_some() {
            return Err(JournalError::Exists { id: id.clone() });
        }
        self.check_room(scope, entry.held(), limits)
    }

    pub(super) fn check_append(
        &self,
        scope: &Scope,
        id: &TaskId,
        expected: u64,
        events: &[TaskEvent],
        limits: MemoryLimits,
    ) -> Result<(), JournalError> {
        let Some(entry) = self.find(scope, id) else {
            return Err(JournalError::NotFound { id: id.clone() });
        };
        let actual = entry.last_seq;
        if actual != expected {
            return Err(JournalError::Conflict { id: id.clone(), expected, actual });
        }
        entry.task.admits(events)?;
        if events.last().is_some_and(ends) {
            return Ok(());
        }
        let bytes = COPIES_AT_WORK * events.iter().map(event_bytes).sum::<usize>();
        self.check_room(scope, Held { bytes, running_bytes: bytes, ..Held::default() }, limits)
    }

    /// Ended tasks can be forgotten, so only running ones stand in the way.
    fn check_room(
        &self,
        scope: &Scope,
        more: Held,
        limits: MemoryLimits,
    ) -> Result<(), JournalError> {
        let MemoryLimits { tasks_max, bytes_max } = limits.of_owner();
        let own = self.owners.get(scope).map_or(Held::default(), |owner| owner.held);
        if !own.leaves_room(more, limits.of_owner()) {
            return Err(JournalError::OwnerFull { tasks_max, bytes_max });
        }
        let MemoryLimits { tasks_max, bytes_max } = limits;
        if !self.held.leaves_room(more, limits) {
            return Err(JournalError::Full { tasks_max, bytes_max });
        }
        Ok(())
    }

    /// Puts a task there, which was checked.
    pub(super) fn insert(&mut self, scope: &Scope, id: TaskId, entry: Entry) {
        let held = entry.held();
        let owner = self.owners.entry(scope.clone()).or_default();
        owner.tasks.insert(id.clone(), entry);
        owner.held.add(held);
        self.held.add(held);
        if held.running == 0 {
            self.note_end(scope, id);
        }
    }

    /// Adds `events`, which were checked, to the task and returns the number of the newest.
    pub(super) fn append(
        &mut self,
        scope: &Scope,
        id: &TaskId,
        events: Vec<TaskEvent>,
    ) -> Result<u64, JournalError> {
        let missing = || JournalError::NotFound { id: id.clone() };
        let owner = self.owners.get_mut(scope).ok_or_else(missing)?;
        let entry = owner.tasks.get_mut(id).ok_or_else(missing)?;
        if events.is_empty() {
            return Ok(entry.last_seq);
        }
        let before = entry.held();
        // Copies the task only while a reader holds it. A copy has nothing in reserve, so what it
        // takes is counted anew.
        if Arc::get_mut(&mut entry.task).is_none() {
            let copy = Task::clone(&entry.task);
            entry.task_bytes = task_bytes(&copy);
            entry.task = Arc::new(copy);
        }
        let task = Arc::make_mut(&mut entry.task);
        for event in events {
            let change = put(task, event)?;
            entry.task_bytes = (entry.task_bytes + change.taken).saturating_sub(change.freed);
            entry.last_seq += 1;
        }
        let (after, last_seq) = (entry.held(), entry.last_seq);
        for held in [&mut owner.held, &mut self.held] {
            held.subtract(before);
            held.add(after);
        }
        if after.running < before.running {
            self.note_end(scope, id.clone());
        }
        Ok(last_seq)
    }

    fn note_end(&mut self, scope: &Scope, id: TaskId) {
        let Some(owner) = self.owners.get_mut(scope) else { return };
        self.ends += 1;
        owner.ended.push_back((self.ends, id));
        if owner.ended.len() == 1 {
            // The scope as the map has it: its texts are then kept once for an owner.
            let own = self.owners.get_key_value(scope).map_or(scope, |(own, _)| own).clone();
            self.oldest.insert(self.ends, own);
        }
    }

    /// Takes out what has to go so that the rest fits: tasks of `scope`, which has just been given
    /// something, as far as it has more than its part; then those that ended longest ago.
    pub(super) fn forget(&mut self, scope: &Scope, limits: MemoryLimits) -> Vec<Entry> {
        let mut forgotten = Vec::new();
        let part = limits.of_owner();
        while self.owners.get(scope).is_some_and(|owner| owner.held.exceeds(part)) {
            let Some(entry) = self.forget_first_of(scope) else { break };
            forgotten.push(entry);
        }
        while self.held.exceeds(limits) {
            let Some(oldest) = self.oldest.values().next().cloned() else { break };
            let Some(entry) = self.forget_first_of(&oldest) else { break };
            forgotten.push(entry);
        }
        forgotten
    }

    /// Takes out the task of `scope` that ended first.
    fn forget_first_of(&mut self, scope: &Scope) -> Option<Entry> {
        let owner = self.owners.get_mut(scope)?;
        let (number, id) = owner.ended.pop_front()?;
        let own = self.oldest.remove(&number);
        if let (Some((next, _)), Some(own)) = (owner.ended.front(), own) {
            self.oldest.insert(*next, own);
        }
        let entry = owner.tasks.remove(&id)?;
        let held = entry.held();
        owner.held.subtract(held);
        self.held.subtract(held);
        if owner.tasks.is_empty() {
            self.owners.remove(scope);
        }
        Some(entry)
    }
}

impl Held {
    /// Whether `more` fits once every task that has ended is forgotten.
    fn leaves_room(self, more: Self, limits: MemoryLimits) -> bool {
        self.running.saturating_add(more.tasks) <= limits.tasks_max
            && self.running_bytes.saturating_add(more.bytes) <= limits.bytes_max
    }

    fn exceeds(self, limits: MemoryLimits) -> bool {
        self.tasks > limits.tasks_max || self.bytes > limits.bytes_max
    }

    pub(super) fn add(&mut self, other: Self) {
        self.tasks += other.tasks;
        self.bytes += other.bytes;
        self.running += other.running;
        self.running_bytes += other.running_bytes;
    }

    fn subtract(&mut self, other: Self) {
        self.tasks -= other.tasks;
        self.bytes -= other.bytes;
        self.running -= other.running;
        self.running_bytes -= other.running_bytes;
    }
}

impl Entry {
    pub(super) fn fold(scope: &Scope, new: NewTask) -> Result<(TaskId, Self), JournalError> {
        // Its owner counts for every task, because the first of an owner brings it.
        let names = [scope.agent.as_str(), &scope.tenant, &scope.owner, new.capability.as_str()];
        let place_bytes = PLACE_BYTES
            + OWNER_BYTES
            + names.into_iter().map(text_bytes).sum::<usize>()
            + new.subject.as_deref().map_or(0, text_bytes);
        let mut events = new.events.into_iter();
        let first = events.next().ok_or(EventError::NotSubmitted)?;
        let mut task = Task::begin(new.id.clone(), new.context_id, first)?;
        let mut last_seq = 1;
        for event in events {
            task.apply(event)?;
            last_seq += 1;
        }
        let (capability, subject, task_bytes) = (new.capability, new.subject, task_bytes(&task));
        let task = Arc::new(task);
        Ok((new.id, Self { task, capability, subject, last_seq, task_bytes, place_bytes }))
    }

    /// What the task counts for.
    pub(super) fn held(&self) -> Held {
        if self.task.status.state.is_terminal() {
            let bytes = self.place_bytes + self.task_bytes;
            return Held { tasks: 1, bytes, ..Held::default() };
        }
        let bytes = self.place_bytes + COPIES_AT_WORK * self.task_bytes;
        Held { tasks: 1, bytes, running: 1, running_bytes: bytes }
    }

    pub(super) fn stored(&self) -> StoredTask {
        StoredTask {
            task: Arc::clone(&self.task),
            capability: self.capability.clone(),
            subject: self.subject.clone(),
            last_seq: self.last_seq,
        }
    }
}

fn ends(event: &TaskEvent) -> bool {
    matches!(event, TaskEvent::Status(status) if status.state.is_terminal())
}
