//! A journal that keeps everything in the process.

mod entry;
mod list;
mod shelf;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use convoke_model::{AuditRecord, Cursor, SpiffeId, Task, TaskId, UnixMillis};

use crate::{
    AuditSink, BoxFuture, Claimed, Created, Durability, Events, Head, Journal, JournalError,
    ListQuery, NewTask, Scope, Step, StoredTask, TaskPage, page,
};
use entry::{Entry, FENCE, More};
use list::Found;
use shelf::Shelf;

/// The part of a journal that the tasks of one owner may take: the others are not to lose theirs by
/// it. It is the part that a caller has of everything else.
const OWNERS_PART: usize = 4;

/// How much is kept at most of a task's events one by one, in bytes of their stored form. Whoever was
/// cut off and comes back soon has missed less than that.
const LOG_BYTES_MAX: usize = 256 * 1024;

/// The part of an owner's room that the events of one task may take. Where there is little room, it
/// is for tasks.
const LOGS_PART: usize = 256;

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
    /// Random, so that a place in the events of a journal that is gone is not taken for one in this.
    /// Tokens of lists are made with it, too.
    epoch: u64,
    /// One lock, held for a look-up and a few moves, never across an await or a large copy.
    shelf: Mutex<Shelf>,
}

impl MemoryJournal {
    /// An empty journal that hands audit records to `sink`.
    #[must_use]
    pub fn new(limits: MemoryLimits, sink: Arc<dyn AuditSink>) -> Self {
        // The keys that the standard library draws for its maps are the random source that is there;
        // each has others. Programs that read numbers as doubles keep 53 bits.
        let epoch = RandomState::new().hash_one("epoch") >> 11;
        Self { limits, sink, epoch, shelf: Mutex::default() }
    }

    async fn create_task(
        &self,
        scope: &Scope,
        mut new: NewTask,
        audit: Option<AuditRecord>,
    ) -> Result<Created, JournalError> {
        let send = new.send.clone();
        let now = now();
        new.send = new.send.filter(|send| send.until >= now);
        let entry = Entry::fold(scope, new, self.limits)?;
        let check =
            |shelf: &Shelf| shelf.check_create(scope, &entry, send.as_ref(), now, self.limits);
        let audit = self.audit_first(audit, |shelf| check(shelf).map(drop)).await?;

        let mut shelf = self.lock();
        let known = check(&shelf)?;
        if let Some(record) = audit {
            self.sink.submit(record)?;
        }
        if let Some(known) = known {
            return Ok(Created::Known(known));
        }
        let last_seq = entry.last_seq;
        shelf.insert(scope, entry, send);
        let forgotten = shelf.forget(scope, self.limits);
        drop(shelf);
        // Freed after the lock, because a task may be large.
        drop(forgotten);
        Ok(Created::New { last_seq, fence: FENCE })
    }

    async fn append_step(
        &self,
        scope: &Scope,
        id: &TaskId,
        step: Step,
        audit: Option<AuditRecord>,
    ) -> Result<u64, JournalError> {
        let more = More::of(&step, self.limits);
        let check = |shelf: &Shelf| shelf.check_append(scope, id, &step, &more, self.limits);
        let audit = self.audit_first(audit, check).await?;

        let mut shelf = self.lock();
        shelf.check_append(scope, id, &step, &more, self.limits)?;
        if let Some(record) = audit {
            self.sink.submit(record)?;
        }
        let last_seq = shelf.append(scope, id, step, more, self.limits)?;
        let forgotten = shelf.forget(scope, self.limits);
        drop(shelf);
        drop(forgotten);
        Ok(last_seq)
    }

    fn page(&self, scope: &Scope, query: &ListQuery) -> Result<TaskPage, JournalError> {
        let place = page::place(self.epoch, scope, query)?;
        let Found { tasks, next, total } = self.lock().list(scope, query, place);
        // Copied after the lock, because tasks may be large.
        let tasks = tasks.iter().map(|task| shown(task, query)).collect();
        let next = next.map(|place| page::token(self.epoch, scope, query, place));
        Ok(TaskPage { tasks, next, total })
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
    ) -> BoxFuture<'a, Result<Created, JournalError>> {
        Box::pin(self.create_task(scope, task, audit))
    }

    fn append<'a>(
        &'a self,
        scope: &'a Scope,
        id: &'a TaskId,
        step: Step,
        audit: Option<AuditRecord>,
    ) -> BoxFuture<'a, Result<u64, JournalError>> {
        Box::pin(self.append_step(scope, id, step, audit))
    }

    fn head<'a>(
        &'a self,
        scope: &'a Scope,
        id: &'a TaskId,
    ) -> BoxFuture<'a, Result<Option<Head>, JournalError>> {
        Box::pin(async move { Ok(self.lock().find(scope, id).map(Entry::head)) })
    }

    fn read<'a>(
        &'a self,
        scope: &'a Scope,
        id: &'a TaskId,
    ) -> BoxFuture<'a, Result<Option<StoredTask>, JournalError>> {
        Box::pin(async move { Ok(self.lock().find(scope, id).map(Entry::stored)) })
    }

    fn events<'a>(
        &'a self,
        scope: &'a Scope,
        id: &'a TaskId,
        after: Cursor,
    ) -> BoxFuture<'a, Result<Option<Events>, JournalError>> {
        let events = move |entry: &Entry| {
            if after.epoch == self.epoch { entry.events(after.seq) } else { Events::Lost }
        };
        Box::pin(async move { Ok(self.lock().find(scope, id).map(events)) })
    }

    fn list<'a>(
        &'a self,
        scope: &'a Scope,
        query: ListQuery,
    ) -> BoxFuture<'a, Result<TaskPage, JournalError>> {
        Box::pin(async move { self.page(scope, &query) })
    }

    /// Nothing: every task here was made by this process, which works on it.
    fn claim<'a>(
        &'a self,
        _agent: &'a SpiffeId,
        _max: usize,
    ) -> BoxFuture<'a, Result<Vec<Claimed>, JournalError>> {
        Box::pin(async { Ok(Vec::new()) })
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

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn trouble(&self) -> Option<Arc<str>> {
        None
    }
}

/// As much of `task` as `query` asks for.
fn shown(task: &Task, query: &ListQuery) -> Task {
    Task {
        id: task.id.clone(),
        context_id: task.context_id.clone(),
        status: task.status.clone(),
        artifacts: if query.artifacts { task.artifacts.clone() } else { Vec::new() },
        history: task.newest(query.history_length).to_vec(),
        metadata: task.metadata.clone(),
    }
}

fn now() -> UnixMillis {
    // A clock before 1970 forgets no name of a message.
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl MemoryLimits {
    /// What one owner may have of it.
    fn of_owner(self) -> Self {
        Self {
            tasks_max: self.tasks_max.div_ceil(OWNERS_PART),
            bytes_max: self.bytes_max.div_ceil(OWNERS_PART),
        }
    }

    /// How much of a task's events is kept one by one, in bytes; the task itself is kept whole.
    fn of_log(self) -> usize {
        LOG_BYTES_MAX.min(self.of_owner().bytes_max / LOGS_PART)
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
