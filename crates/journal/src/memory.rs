//! A journal that keeps everything in the process.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use convoke_model::{AuditRecord, CapabilityName, EventError, Task, TaskEvent, TaskId};

use crate::size::{event_bytes, replaced_bytes};
use crate::{AuditSink, BoxFuture, Durability, Journal, JournalError, NewTask, Scope, StoredTask};

/// What a task takes beside its events and its names: its entry and its places in map and queue, with
/// as much again for what map and queue hold in reserve.
const TASK_BYTES: usize = 2
    * (size_of::<Task>()
        + size_of::<(TaskId, Entry)>()
        + size_of::<(Scope, TaskId)>()
        + size_of::<(Scope, HashMap<TaskId, Entry>)>());

/// How much a [`MemoryJournal`] may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimits {
    /// How many tasks.
    pub tasks_max: usize,
    /// About how many bytes of memory they may take together.
    pub bytes_max: usize,
}

/// Keeps tasks in the process, within bounds, and loses them with it.
///
/// When there is no room, the tasks that ended longest ago are forgotten. Running tasks never are:
/// if they alone fill the journal, new ones are refused. An append that ends a task is always
/// taken, because a task has to be able to end.
pub struct MemoryJournal {
    limits: MemoryLimits,
    sink: Arc<dyn AuditSink>,
    /// One lock, held for a look-up and a few moves, never across an await or a large copy.
    shelf: Mutex<Shelf>,
}

/// What there is. `bytes` and `running_bytes` are sums over the entries.
#[derive(Default)]
struct Shelf {
    /// By owner first: a task of another owner is not compared with, so nothing about it can leak.
    owners: HashMap<Scope, HashMap<TaskId, Entry>>,
    /// Tasks that have ended, those that ended first in front.
    ended: VecDeque<(Scope, TaskId)>,
    tasks: usize,
    bytes: usize,
    running_bytes: usize,
}

struct Entry {
    task: Arc<Task>,
    capability: CapabilityName,
    subject: Option<Arc<str>>,
    last_seq: u64,
    bytes: usize,
}

impl MemoryJournal {
    /// An empty journal that hands audit records to `sink`.
    #[must_use]
    pub fn new(limits: MemoryLimits, sink: Arc<dyn AuditSink>) -> Self {
        Self { limits, sink, shelf: Mutex::default() }
    }

    async fn create_task(
        &self,
        scope: &Scope,
        new: NewTask,
        audit: Option<AuditRecord>,
    ) -> Result<u64, JournalError> {
        let (id, entry) = Entry::fold(scope, new)?;
        let check = |shelf: &Shelf| shelf.check_create(scope, &id, entry.bytes, self.limits);
        let audit = self.audit_first(audit, check).await?;

        let mut shelf = self.lock();
        shelf.check_create(scope, &id, entry.bytes, self.limits)?;
        if let Some(record) = audit {
            self.sink.submit(record)?;
        }
        let last_seq = entry.last_seq;
        shelf.insert(scope, id, entry);
        let forgotten = shelf.forget(self.limits);
        drop(shelf);
        // Freed after the lock, because a task may be large.
        drop(forgotten);
        Ok(last_seq)
    }

    async fn append_events(
        &self,
        scope: &Scope,
        id: &TaskId,
        expected_seq: u64,
        events: Vec<TaskEvent>,
        audit: Option<AuditRecord>,
    ) -> Result<u64, JournalError> {
        let bytes = events.iter().map(event_bytes).sum();
        let check = |shelf: &Shelf| {
            shelf.check_append(scope, id, expected_seq, &events, bytes, self.limits)
        };
        let audit = self.audit_first(audit, check).await?;

        let mut shelf = self.lock();
        shelf.check_append(scope, id, expected_seq, &events, bytes, self.limits)?;
        if let Some(record) = audit {
            self.sink.submit(record)?;
        }
        let last_seq = shelf.append(scope, id, events, bytes)?;
        let forgotten = shelf.forget(self.limits);
        drop(shelf);
        drop(forgotten);
        Ok(last_seq)
    }

    /// Where effects wait for their audit record, writes it now, if `check` finds that the commit
    /// can go on; the caller checks again afterwards. Otherwise gives it back, to be handed over
    /// under the lock of the change itself.
    async fn audit_first(
        &self,
        audit: Option<AuditRecord>,
        check: impl Fn(&Shelf) -> Result<(), JournalError>,
    ) -> Result<Option<AuditRecord>, JournalError> {
        match audit {
            Some(record) if self.sink.waits() => {
                check(&self.lock())?;
                self.sink.submit(record)?;
                self.sink.flush().await?;
                Ok(None)
            }
            other => Ok(other),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        // Every change is checked before it is begun, so a panic elsewhere leaves the shelf whole.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal for MemoryJournal {
    fn create<'a>(
        &'a self,
        scope: &'a Scope,
        task: NewTask,
        audit: Option<AuditRecord>,
    ) -> BoxFuture<'a, Result<u64, JournalError>> {
        Box::pin(self.create_task(scope, task, audit))
    }

    fn append<'a>(
        &'a self,
        scope: &'a Scope,
        id: &'a TaskId,
        expected_seq: u64,
        events: Vec<TaskEvent>,
        audit: Option<AuditRecord>,
    ) -> BoxFuture<'a, Result<u64, JournalError>> {
        Box::pin(self.append_events(scope, id, expected_seq, events, audit))
    }

    fn read<'a>(
        &'a self,
        scope: &'a Scope,
        id: &'a TaskId,
    ) -> BoxFuture<'a, Result<Option<StoredTask>, JournalError>> {
        Box::pin(async move { Ok(self.lock().find(scope, id).map(Entry::stored)) })
    }

    fn record(&self, audit: AuditRecord) -> Result<(), JournalError> {
        Ok(self.sink.submit(audit)?)
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(async move { Ok(self.sink.flush().await?) })
    }

    fn durability(&self) -> Durability {
        Durability::Memory
    }
}

impl Shelf {
    fn find(&self, scope: &Scope, id: &TaskId) -> Option<&Entry> {
        self.owners.get(scope)?.get(id)
    }

    fn check_create(
        &self,
        scope: &Scope,
        id: &TaskId,
        bytes: usize,
        limits: MemoryLimits,
    ) -> Result<(), JournalError> {
        if self.find(scope, id).is_some() {
            return Err(JournalError::Exists { id: id.clone() });
        }
        let running = self.tasks - self.ended.len();
        if running >= limits.tasks_max {
            return Err(limits.full());
        }
        self.check_room(bytes, limits)
    }

    fn check_append(
        &self,
        scope: &Scope,
        id: &TaskId,
        expected: u64,
        events: &[TaskEvent],
        bytes: usize,
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
        if events.last().is_some_and(ends) { Ok(()) } else { self.check_room(bytes, limits) }
    }

    /// Ended tasks can be forgotten, so only running ones stand in the way.
    fn check_room(&self, bytes: usize, limits: MemoryLimits) -> Result<(), JournalError> {
        let fits = self.running_bytes.saturating_add(bytes) <= limits.bytes_max;
        if fits { Ok(()) } else { Err(limits.full()) }
    }

    fn insert(&mut self, scope: &Scope, id: TaskId, entry: Entry) {
        self.tasks += 1;
        self.bytes += entry.bytes;
        let ended = entry.task.status.state.is_terminal().then(|| id.clone());
        if ended.is_none() {
            self.running_bytes += entry.bytes;
        }
        self.owners.entry(scope.clone()).or_default().insert(id, entry);
        if let Some(id) = ended {
            self.ended.push_back((self.own_name(scope), id));
        }
    }

    /// The scope as the map has it. Its texts are then kept once for an owner, not once for a task.
    fn own_name(&self, scope: &Scope) -> Scope {
        self.owners.get_key_value(scope).map_or(scope, |(own, _)| own).clone()
    }

    /// Adds `events`, which were checked, to the task and returns the number of the newest.
    fn append(
        &mut self,
        scope: &Scope,
        id: &TaskId,
        events: Vec<TaskEvent>,
        bytes: usize,
    ) -> Result<u64, JournalError> {
        let Some(entry) = self.owners.get_mut(scope).and_then(|tasks| tasks.get_mut(id)) else {
            return Err(JournalError::NotFound { id: id.clone() });
        };
        if events.is_empty() {
            return Ok(entry.last_seq);
        }
        // Copies the task only while a reader holds it.
        let task = Arc::make_mut(&mut entry.task);
        let mut replaced = 0;
        for event in events {
            replaced += replaced_bytes(task, &event);
            task.apply(event)?;
            entry.last_seq += 1;
        }
        let ended = task.status.state.is_terminal();
        let before = entry.bytes;
        entry.bytes = (before + bytes).saturating_sub(replaced);
        let (after, last_seq) = (entry.bytes, entry.last_seq);
        self.bytes = self.bytes - before + after;
        self.running_bytes -= before;
        if ended {
            self.ended.push_back((self.own_name(scope), id.clone()));
        } else {
            self.running_bytes += after;
        }
        Ok(last_seq)
    }

    /// Takes out the tasks that ended first until the rest fits.
    fn forget(&mut self, limits: MemoryLimits) -> Vec<Entry> {
        let mut forgotten = Vec::new();
        while self.tasks > limits.tasks_max || self.bytes > limits.bytes_max {
            let Some((scope, id)) = self.ended.pop_front() else { break };
            let Some(tasks) = self.owners.get_mut(&scope) else { continue };
            let removed = tasks.remove(&id);
            if tasks.is_empty() {
                self.owners.remove(&scope);
            }
            if let Some(entry) = removed {
                self.tasks -= 1;
                self.bytes -= entry.bytes;
                forgotten.push(entry);
            }
        }
        forgotten
    }
}

impl Entry {
    fn fold(scope: &Scope, new: NewTask) -> Result<(TaskId, Self), JournalError> {
        // Its owner's names count for every task, because the first of an owner brings them.
        let names = [scope.agent.as_str(), &scope.tenant, &scope.owner, new.id.as_str()];
        let bytes = TASK_BYTES
            + names.iter().map(|name| name.len()).sum::<usize>()
            + new.subject.as_ref().map_or(0, |subject| subject.len())
            + new.events.iter().map(event_bytes).sum::<usize>();
        let mut events = new.events.into_iter();
        let first = events.next().ok_or(EventError::NotSubmitted)?;
        let mut task = Task::begin(new.id.clone(), new.context_id, first)?;
        let mut last_seq = 1;
        for event in events {
            task.apply(event)?;
            last_seq += 1;
        }
        let (capability, subject) = (new.capability, new.subject);
        Ok((new.id, Self { task: Arc::new(task), capability, subject, last_seq, bytes }))
    }

    fn stored(&self) -> StoredTask {
        StoredTask {
            task: Arc::clone(&self.task),
            capability: self.capability.clone(),
            subject: self.subject.clone(),
            last_seq: self.last_seq,
        }
    }
}

impl MemoryLimits {
    fn full(self) -> JournalError {
        JournalError::Full { tasks_max: self.tasks_max, bytes_max: self.bytes_max }
    }
}

impl Default for MemoryLimits {
    /// A quarter of a million tasks, the number with which the goals of the design are measured, in
    /// 256 MiB, which the smallest machines that we expect can spare.
    fn default() -> Self {
        Self { tasks_max: 250_000, bytes_max: 256 * 1024 * 1024 }
    }
}

fn ends(event: &TaskEvent) -> bool {
    matches!(event, TaskEvent::Status(status) if status.state.is_terminal())
}

#[cfg(test)]
mod tests;
