//! A journal that keeps everything in the process.

mod shelf;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use convoke_model::{AuditRecord, TaskEvent, TaskId};

use crate::{AuditSink, BoxFuture, Durability, Journal, JournalError, NewTask, Scope, StoredTask};
use shelf::{Entry, Shelf};

/// The part of a journal that the tasks of one owner may take: the others are not to lose theirs by
/// it. It is the part that a caller has of everything else.
const OWNERS_PART: usize = 4;

/// How much a [`MemoryJournal`] may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimits {
    /// How many tasks. An owner may have a quarter of them.
    pub tasks_max: usize,
    /// About how many bytes of memory they may take together, counted as their containers hold
    /// them: what an allocator keeps beside that comes on top. A task that has not ended counts
    /// twice, because whoever works on it has a copy. An owner may have a quarter.
    pub bytes_max: usize,
}

/// Keeps tasks in the process, within bounds, and loses them with it.
///
/// An owner whose tasks take more than its part loses those of its own that ended longest ago, and
/// nobody else loses any by it. When all owners together take too much, the tasks go that ended
/// longest ago, whoever has them. Running tasks are never forgotten: if they alone fill the part, or
/// the journal, new ones are refused. An append that ends a task is always taken, because a task has
/// to be able to end.
pub struct MemoryJournal {
    limits: MemoryLimits,
    sink: Arc<dyn AuditSink>,
    /// One lock, held for a look-up and a few moves, never across an await or a large copy.
    shelf: Mutex<Shelf>,
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
        let check = |shelf: &Shelf| shelf.check_create(scope, &id, &entry, self.limits);
        let audit = self.audit_first(audit, check).await?;

        let mut shelf = self.lock();
        shelf.check_create(scope, &id, &entry, self.limits)?;
        if let Some(record) = audit {
            self.sink.submit(record)?;
        }
        let last_seq = entry.last_seq;
        shelf.insert(scope, id, entry);
        let forgotten = shelf.forget(scope, self.limits);
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
        let check =
            |shelf: &Shelf| shelf.check_append(scope, id, expected_seq, &events, self.limits);
        let audit = self.audit_first(audit, check).await?;

        let mut shelf = self.lock();
        shelf.check_append(scope, id, expected_seq, &events, self.limits)?;
        if let Some(record) = audit {
            self.sink.submit(record)?;
        }
        let last_seq = shelf.append(scope, id, events)?;
        let forgotten = shelf.forget(scope, self.limits);
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

impl MemoryLimits {
    /// What one owner may have of it.
    fn of_owner(self) -> Self {
        Self {
            tasks_max: self.tasks_max.div_ceil(OWNERS_PART),
            bytes_max: self.bytes_max.div_ceil(OWNERS_PART),
        }
    }
}

impl Default for MemoryLimits {
    /// A quarter of a million tasks, the number with which the goals of the design are measured, in
    /// 256 MiB, which the smallest machines that we expect can spare.
    fn default() -> Self {
        Self { tasks_max: 250_000, bytes_max: 256 * 1024 * 1024 }
    }
}

#[cfg(test)]
mod tests;
