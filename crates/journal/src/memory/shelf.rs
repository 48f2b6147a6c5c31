//! What a journal in memory holds, and for whom it makes room.

use std::collections::{BTreeMap, HashMap, VecDeque};

use convoke_model::{CapabilityName, ContextId, MessageId, TaskId, TaskState, UnixMillis};

use super::MemoryLimits;
use super::entry::{Entry, FENCE, More};
use crate::page::Position;
use crate::{JournalError, Scope, SendKey, Step};

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
    /// How many tasks were made so far.
    made: u64,
}

/// The tasks of one owner, at least one.
#[derive(Default)]
pub(super) struct Owner {
    pub(super) tasks: HashMap<TaskId, Entry>,
    /// Those that have ended, each with the number of its end; the end that is longest ago in front.
    pub(super) ended: VecDeque<(u64, TaskId)>,
    /// All of them in the order of lists, which is read from its end.
    pub(super) listed: BTreeMap<Position, Listed>,
    /// What its messages were called of which there is a task, as far as they may come again. A name
    /// goes with its task, so there are no more names than tasks.
    pub(super) sends: HashMap<MessageId, Sent>,
    pub(super) held: Held,
}

/// What lists ask of a task before they show it, so that they need not look at those they pass over.
pub(super) struct Listed {
    pub(super) id: TaskId,
    pub(super) context_id: ContextId,
    pub(super) capability: CapabilityName,
    pub(super) state: TaskState,
}

/// A message of which there is a task.
pub(super) struct Sent {
    pub(super) task: TaskId,
    digest: [u8; 32],
    until: UnixMillis,
}

/// Sums over tasks.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) tasks: usize,
    pub(super) bytes: usize,
    pub(super) running: usize,
    pub(super) running_bytes: usize,
}

impl Shelf {
    pub(super) fn find(&self, scope: &Scope, id: &TaskId) -> Option<&Entry> {
        self.owners.get(scope)?.tasks.get(id)
    }

    /// Whether a task can be made; the task that there is already, if its sender has sent the same
    /// before.
    pub(super) fn check_create(
        &self,
        scope: &Scope,
        entry: &Entry,
        send: Option<&SendKey>,
        now: UnixMillis,
        limits: MemoryLimits,
    ) -> Result<Option<TaskId>, JournalError> {
        if let Some(known) = self.check_send(scope, send, now)? {
            return Ok(Some(known));
        }
        if self.find(scope, &entry.task.id).is_some() {
            return Err(JournalError::Exists { id: entry.task.id.clone() });
        }
        self.check_room(scope, entry.held(), limits)?;
        Ok(None)
    }

    fn check_send(
        &self,
        scope: &Scope,
        send: Option<&SendKey>,
        now: UnixMillis,
    ) -> Result<Option<TaskId>, JournalError> {
        let Some((owner, send)) = self.owners.get(scope).zip(send) else { return Ok(None) };
        match owner.sends.get(&send.message_id) {
            Some(sent) if sent.until < now => Ok(None),
            Some(sent) if sent.digest == send.digest => Ok(Some(sent.task.clone())),
            Some(_) => Err(JournalError::SendConflict { message_id: send.message_id.clone() }),
            None => Ok(None),
        }
    }

    pub(super) fn check_append(
        &self,
        scope: &Scope,
        id: &TaskId,
        step: &Step,
        more: &More,
        limits: MemoryLimits,
    ) -> Result<(), JournalError> {
        let Some(entry) = self.find(scope, id) else {
            return Err(JournalError::NotFound { id: id.clone() });
        };
        let (expected, actual) = (step.expected_seq, entry.last_seq);
        if actual != expected {
            return Err(JournalError::Conflict { id: id.clone(), expected, actual });
        }
        if step.fence != FENCE {
            return Err(JournalError::Fenced { id: id.clone() });
        }
        entry.task.admits(&step.events)?;
        if more.ends {
            return Ok(());
        }
        let bytes = more.bytes;
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
    pub(super) fn insert(&mut self, scope: &Scope, mut entry: Entry, send: Option<SendKey>) {
        self.made += 1;
        entry.number = self.made;
        let (held, id) = (entry.held(), entry.task.id.clone());
        let owner = self.owners.entry(scope.clone()).or_default();
        if let Some(SendKey { message_id, digest, until }) = send {
            owner.sends.insert(message_id, Sent { task: id.clone(), digest, until });
        }
        owner.listed.insert(entry.position(), entry.listed());
        owner.tasks.insert(id.clone(), entry);
        owner.held.add(held);
        self.held.add(held);
        if held.running == 0 {
            self.note_end(scope, id);
        }
    }

    /// Adds a step, which was checked, to the task and returns the number of its newest event.
    pub(super) fn append(
        &mut self,
        scope: &Scope,
        id: &TaskId,
        step: Step,
        more: More,
        limits: MemoryLimits,
    ) -> Result<u64, JournalError> {
        let missing = || JournalError::NotFound { id: id.clone() };
        let owner = self.owners.get_mut(scope).ok_or_else(missing)?;
        let entry = owner.tasks.get_mut(id).ok_or_else(missing)?;
        let (before, was_at, was) = (entry.held(), entry.position(), entry.task.status.state);
        entry.add(step, more, limits)?;
        let (after, is_at, is) = (entry.held(), entry.position(), entry.task.status.state);
        if (was_at, was) != (is_at, is) {
            owner.listed.remove(&was_at);
            owner.listed.insert(is_at, entry.listed());
        }
        let last_seq = entry.last_seq;
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
        owner.listed.remove(&entry.position());
        // The name may have become another task's meanwhile.
        if let Some(name) = &entry.sent_as
            && owner.sends.get(name).is_some_and(|sent| sent.task == id)
        {
            owner.sends.remove(name);
        }
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
