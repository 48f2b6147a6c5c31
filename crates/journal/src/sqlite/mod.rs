//! The journal in SQLite: one file, one writer, commits that many share.

mod chore;
mod claims;
mod commit;
mod compact;
mod error;
mod events;
mod heads;
mod housekeeper;
mod insert;
mod inspector;
mod job;
mod list;
mod load;
mod lock;
mod lookup;
pub mod maintenance;
mod mark;
mod migrate;
mod open;
mod outbox;
mod outcome;
mod reader;
mod retention;
mod rows;
mod shared;
mod shown;
mod store;
mod sweeper;
#[cfg(test)]
mod tests;
mod wait;
mod walk;
mod writer;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use convoke_model::{AuditRecord, Cursor, SpiffeId, TaskId};
use tokio::sync::oneshot;

use crate::{
    AuditSink, BoxFuture, Claimed, Created, Durability, Events, Fence, Head, Journal, JournalError,
    ListQuery, NewTask, Scope, Step, StoredTask, TaskPage, page,
};
use claims::Claims;
use commit::Committer;
pub use error::OpenError;
use error::StoreError;
use housekeeper::Housekeeper;
use inspector::Inspector;
use job::{Append, Create, Job, Queue};
use lock::Lock;
use open::Opening;
use reader::{LookError, Readers};
pub use retention::Retention;
use shared::Shared;
use store::Store;
use sweeper::Sweeper;
use writer::Writer;

/// SQLite's own: larger ones gained nothing in our measurements.
const PAGE_BYTES: u64 = 4096;

/// How long a connection waits for another program that has the store locked: a person may look at
/// it beside us.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// How many prepared statements a connection keeps: all that there are.
const STATEMENTS: usize = 64;

/// What ends the process, with why.
pub type Fatal = Box<dyn Fn(&str) + Send + Sync>;

/// How a [`SqliteJournal`] is opened.
pub struct SqliteOptions {
    /// Where its files are; made if it is not there, for its owner alone.
    pub directory: PathBuf,
    /// [`Durability::Strict`] or [`Durability::Relaxed`]; [`Durability::Memory`] is what a
    /// [`MemoryJournal`](crate::MemoryJournal) has, and is taken for `Relaxed` here.
    pub durability: Durability,
    /// How long what has ended is kept.
    pub retention: Retention,
    /// Ends the process at once, without cleaning up. It is called when a sync has failed: then
    /// nobody knows what is on the disk, and a second sync would say that all is well.
    pub fatal: Fatal,
}

/// Keeps tasks in a SQLite file, which a person can read with `sqlite3`.
///
/// One thread writes. Whatever is asked of it while it commits shares the next commit, and with
/// [`Durability::Strict`] one sync. Readers work beside it. What cannot be written is refused and
/// tried again by itself; what was damaged is never served.
///
/// Dropping it closes it.
pub struct SqliteJournal {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    readers: Arc<Readers>,
    claims: Arc<Claims>,
    threads: Mutex<Option<Threads>>,
}

/// How much was written since the journal was opened. For metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriterCounts {
    /// What was asked of the writer and committed.
    pub jobs: u64,
    /// Commits.
    pub commits: u64,
    /// Commits that were synced.
    pub synced_commits: u64,
    /// Bytes of events and records.
    pub bytes: u64,
    /// How many jobs the last commit had.
    pub last_batch: u64,
}

/// What ends with the journal.
struct Threads {
    writer: JoinHandle<()>,
    /// The housekeeper and the sweeper, which ask things of the writer.
    beside: Vec<JoinHandle<()>>,
    _lock: Lock,
}

impl SqliteJournal {
    /// Opens the store in a directory, or makes one, and hands the audit records to `sink` that an
    /// earlier process has left. It blocks: a store of up to 64 MiB is looked at wholly.
    ///
    /// # Errors
    ///
    /// [`OpenError`] says what is wrong and what to do.
    pub fn open(options: SqliteOptions, sink: Arc<dyn AuditSink>) -> Result<Self, OpenError> {
        let SqliteOptions { directory, durability, retention, fatal } = options;
        let durability = match durability {
            Durability::Memory => Durability::Relaxed,
            other => other,
        };
        let Opening { lock, connection, mark, written, found, file, is_checked } =
            open::open(&directory, durability, &*sink)?;
        let failed = |error: StoreError| error.into_open(&directory);
        let fence = Fence(found.opened);
        let path = file.as_path().into();
        let shared = Arc::new(Shared::new(path, durability, found, Arc::clone(&sink), fatal));
        let claims = connection
            .query_row("SELECT coalesce(max(task_no), 0) FROM tasks", [], |row| row.get(0))
            .map_err(|error| failed(error.into()))?;
        let claims = Arc::new(Claims::new(claims));
        let readers = Readers::open(&file, Arc::clone(&shared)).map_err(failed)?;
        let beside = open::connect(&file).map_err(failed)?;
        let store = Store::new(connection, Arc::clone(&claims), sink, fence).map_err(failed)?;
        let committer = Committer::new(store, Arc::clone(&shared), mark, written);

        let inspector = match is_checked {
            true => None,
            false => {
                let connection = reader::open(&file).map_err(failed)?;
                Some(Inspector::new(connection, Arc::clone(&shared)))
            }
        };

        let (queue, jobs) = Queue::new();
        let queue = Arc::new(queue);
        let writer = Writer::new(jobs, committer, Arc::clone(&shared));
        let housekeeper = Housekeeper::new(beside, Arc::clone(&shared), Arc::clone(&queue));
        let sweeper = Sweeper::new(retention, Arc::clone(&shared), Arc::clone(&queue));
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let builder = std::thread::Builder::new().name(name.to_owned());
            builder.spawn(run).map_err(|source| OpenError::Io { path: directory.clone(), source })
        };
        let writer = spawn("convoke-journal", Box::new(move || writer.run()))?;
        let spawn_beside = || {
            let housekeeper = spawn("convoke-keeper", Box::new(move || housekeeper.run()))?;
            let sweeper = spawn("convoke-sweeper", Box::new(move || sweeper.run()))?;
            let mut beside = vec![housekeeper, sweeper];
            if let Some(inspector) = inspector {
                beside.push(spawn("convoke-inspect", Box::new(move || inspector.run()))?);
            }
            Ok(beside)
        };
        let beside = match spawn_beside() {
            Ok(beside) => beside,
            Err(error) => {
                // The others hold the store until they are told to end.
                shared.close();
                drop(queue.send(Job::Close));
                drop(writer.join());
                return Err(error);
            }
        };
        let threads = Mutex::new(Some(Threads { writer, beside, _lock: lock }));
        Ok(Self { shared, queue, readers: Arc::new(readers), claims, threads })
    }

    /// How much was written.
    #[must_use]
    pub fn counts(&self) -> WriterCounts {
        self.shared.counts.get()
    }

    async fn create_task(
        &self,
        scope: &Scope,
        task: NewTask,
        audit: Option<AuditRecord>,
    ) -> Result<Created, JournalError> {
        let (reply, outcome) = oneshot::channel();
        let mut job = Create::new(scope, task, audit, reply);
        self.queue.make_room(&mut job.changes).await?;
        self.ask(Job::Create(Box::new(job)), outcome).await
    }

    async fn append_step(
        &self,
        scope: &Scope,
        id: &TaskId,
        step: Step,
        audit: Option<AuditRecord>,
    ) -> Result<u64, JournalError> {
        let (reply, outcome) = oneshot::channel();
        let mut job = Append::new(scope, id, step, audit, reply);
        self.queue.make_room(&mut job.changes).await?;
        self.ask(Job::Append(Box::new(job)), outcome).await
    }

    async fn flush_all(&self) -> Result<(), JournalError> {
        let (reply, outcome) = oneshot::channel();
        self.ask(Job::Flush(reply), outcome).await?;
        Ok(self.shared.sink.flush().await?)
    }

    /// Hands a job to the writer and waits for its outcome.
    async fn ask<T>(
        &self,
        job: Job,
        outcome: oneshot::Receiver<Result<T, JournalError>>,
    ) -> Result<T, JournalError> {
        let closed = || StoreError::Closed.into_journal(&self.shared.path);
        self.queue.send(job).map_err(|_| closed())?;
        outcome.await.unwrap_or_else(|_| Err(closed()))
    }

    async fn find<T: Send + 'static>(
        &self,
        scope: &Scope,
        id: &TaskId,
        look: impl FnOnce(&rusqlite::Connection, &rows::TaskRow) -> Result<T, StoreError>
        + Send
        + 'static,
    ) -> Result<Option<T>, JournalError> {
        let (scope, id) = (scope.clone(), id.clone());
        let find = move |connection: &rusqlite::Connection| {
            let Some(scope_no) = lookup::scope_no(connection, &scope)? else { return Ok(None) };
            let row = lookup::task_by_id(connection, scope_no, &id)?;
            row.map(|row| look(connection, &row)).transpose()
        };
        self.readers.look::<_, StoreError, _>(find).await
    }

    async fn claim_tasks(
        &self,
        agent: &SpiffeId,
        max: usize,
    ) -> Result<Vec<Claimed>, JournalError> {
        let (agent, claims) = (agent.clone(), Arc::clone(&self.claims));
        let fence = Fence(self.shared.opened);
        let claim = move |connection: &rusqlite::Connection| {
            let search = || claims::search(connection, &agent, claims.last_old());
            claims.take(&agent, max, search, |tasks| claims::load(connection, tasks, fence))
        };
        self.readers.look::<_, StoreError, _>(claim).await
    }

    async fn list_tasks(&self, scope: &Scope, query: ListQuery) -> Result<TaskPage, JournalError> {
        let (scope, key) = (scope.clone(), self.page_key());
        let list = move |connection: &rusqlite::Connection| -> Result<TaskPage, LookError> {
            let place = page::place(key, &scope, &query)?;
            Ok(list::list(connection, key, &scope, &query, place)?)
        };
        self.readers.look_long(list).await
    }

    /// What page tokens are made with: half of the store's name, which no peer is told.
    fn page_key(&self) -> u64 {
        let half = self.shared.store_id.get(..16).unwrap_or_default();
        u64::from_str_radix(half, 16).unwrap_or_default()
    }

    /// Ends the threads, after all that was asked before. It blocks.
    fn end(&self) {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Threads { writer, beside, _lock }) = threads else { return };
        self.shared.close();
        let mut panicked = false;
        for thread in beside {
            panicked |= thread.join().is_err();
        }
        // Whoever closes the store last writes its log back, so the writer is the last one.
        self.readers.close();
        // A writer that has ended needs not to be told.
        drop(self.queue.send(Job::Close));
        panicked |= writer.join().is_err();
        if panicked {
            let path = self.shared.path.display();
            tracing::error!(%path, "a thread of the journal has panicked");
        }
    }
}

impl Journal for SqliteJournal {
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
        Box::pin(self.find(scope, id, |_, row| load::head(row)))
    }

    fn read<'a>(
        &'a self,
        scope: &'a Scope,
        id: &'a TaskId,
    ) -> BoxFuture<'a, Result<Option<StoredTask>, JournalError>> {
        Box::pin(self.find(scope, id, load::stored))
    }

    fn events<'a>(
        &'a self,
        scope: &'a Scope,
        id: &'a TaskId,
        after: Cursor,
    ) -> BoxFuture<'a, Result<Option<Events>, JournalError>> {
        let (epoch, scope, id) = (self.shared.epoch, scope.clone(), id.clone());
        Box::pin(
            self.readers
                .look(move |connection| events::events(connection, epoch, &scope, &id, after)),
        )
    }

    fn list<'a>(
        &'a self,
        scope: &'a Scope,
        query: ListQuery,
    ) -> BoxFuture<'a, Result<TaskPage, JournalError>> {
        Box::pin(self.list_tasks(scope, query))
    }

    fn claim<'a>(
        &'a self,
        agent: &'a SpiffeId,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Claimed>, JournalError>> {
        Box::pin(self.claim_tasks(agent, max))
    }

    fn record(&self, audit: AuditRecord) -> Result<(), JournalError> {
        Ok(self.shared.sink.submit(audit)?)
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(self.flush_all())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        // It is some milliseconds, at the end.
        Box::pin(async { self.end() })
    }

    fn durability(&self) -> Durability {
        self.shared.durability
    }

    fn epoch(&self) -> u64 {
        self.shared.epoch
    }

    fn trouble(&self) -> Option<Arc<str>> {
        self.shared.trouble()
    }
}

impl Drop for SqliteJournal {
    fn drop(&mut self) {
        self.end();
    }
}
