//! What the writer is asked to do, and the room in which requests wait.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use convoke_model::{AuditRecord, CapabilityName, ContextId, TaskEvent, TaskId, TaskRecord, Terms};
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::chore::Chore;
use super::error::StoreError;
use super::heads::Heads;
use super::shared::Shared;
use crate::stored::{encode_event, encode_record, record_kind};
use crate::{Created, Fence, JournalError, NewTask, Scope, SendKey, Step};

/// How many jobs may wait at a time. They are some batches' worth, so that the writer never waits
/// for callers, and no more, because whoever waits longer is better told so.
pub(super) const JOBS_MAX: usize = 4096;

/// How many KiB of bodies may wait at a time. A job that is larger than all of it waits until it is
/// alone.
const KIB_MAX: u32 = 64 * 1024;

/// How long a job waits for room before it is refused.
const ROOM_WAIT: Duration = Duration::from_secs(1);

/// Where the outcome of a job goes. Nobody may be there any more.
pub(super) type Reply<T> = oneshot::Sender<Result<T, JournalError>>;

/// One thing for the writer to do.
pub(super) enum Job {
    Create(Box<Create>),
    Append(Box<Append>),
    /// Makes what was committed before as durable as it gets.
    Flush(Reply<()>),
    /// Takes items of the outbox out up to this one: they have left the store.
    Tidy(i64),
    /// Tries whether anything can be written.
    Probe,
    /// Something of the journal's own, in a commit of its own.
    Chore(Chore),
    /// Ends the writer once everything before is done.
    Close,
}

/// A task to be made.
pub(super) struct Create {
    pub(super) scope: Scope,
    pub(super) id: TaskId,
    pub(super) context_id: ContextId,
    pub(super) capability: CapabilityName,
    pub(super) subject: Option<Arc<str>>,
    pub(super) terms: Terms,
    pub(super) changes: Changes,
    pub(super) send: Option<SendKey>,
    pub(super) audit: Option<Audit>,
    pub(super) reply: Reply<Created>,
}

/// A step of a task.
pub(super) struct Append {
    pub(super) scope: Scope,
    pub(super) id: TaskId,
    pub(super) expected_seq: u64,
    pub(super) fence: Fence,
    pub(super) changes: Changes,
    pub(super) audit: Option<Audit>,
    pub(super) reply: Reply<u64>,
}

/// Events and records, with their bodies, which are made on the caller's thread: the writer is one
/// for all.
pub(super) struct Changes {
    pub(super) events: Vec<TaskEvent>,
    /// The body of each event.
    pub(super) bodies: Vec<String>,
    /// Kind and body of each record.
    pub(super) records: Vec<(i64, String)>,
    /// How long the bodies are together, in bytes.
    pub(super) bytes: usize,
    room: Option<Room>,
}

/// What a waiting job occupies, until it is dropped.
struct Room {
    _job: OwnedSemaphorePermit,
    _kib: OwnedSemaphorePermit,
}

/// An audit record and the line that is written of it.
pub(super) struct Audit {
    pub(super) record: AuditRecord,
    pub(super) line: String,
}

/// The way to the writer.
pub(super) struct Queue {
    jobs: Arc<Semaphore>,
    kib: Arc<Semaphore>,
    sender: mpsc::Sender<Job>,
}

impl Job {
    /// Whether the job's commit has to survive what the journal promises to survive. Pieces of
    /// artifacts may be lost with the machine, until something else is committed after them.
    pub(super) fn is_durable(&self) -> bool {
        match self {
            Self::Create(_) | Self::Flush(_) | Self::Probe => true,
            Self::Append(append) => append.audit.is_some() || !append.changes.are_pieces(),
            Self::Tidy(_) | Self::Chore(_) | Self::Close => false,
        }
    }

    /// Whether an audit record has to be written before what the job does.
    pub(super) fn has_audit(&self) -> bool {
        match self {
            Self::Create(create) => create.audit.is_some(),
            Self::Append(append) => append.audit.is_some(),
            Self::Flush(_) | Self::Tidy(_) | Self::Probe | Self::Chore(_) | Self::Close => false,
        }
    }

    /// How long the bodies of its rows are together.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Create(create) => create.changes.bytes,
            Self::Append(append) => append.changes.bytes,
            Self::Flush(_) | Self::Tidy(_) | Self::Probe | Self::Chore(_) | Self::Close => 0,
        }
    }

    /// Tells whoever waits for the job that it was not done.
    pub(super) fn refuse(self, shared: &Shared, error: StoreError) {
        let told = |id: TaskId| match error.clone() {
            StoreError::Taken => JournalError::Fenced { id },
            other => other.into_journal(&shared.path),
        };
        // Whoever asked may have gone.
        match self {
            Self::Create(create) => drop(create.reply.send(Err(told(create.id)))),
            Self::Append(append) => drop(append.reply.send(Err(told(append.id)))),
            Self::Flush(reply) => drop(reply.send(Err(error.into_journal(&shared.path)))),
            Self::Chore(chore) => chore.refuse(error),
            Self::Tidy(_) | Self::Probe | Self::Close => {}
        }
    }
}

impl Create {
    pub(super) fn new(
        scope: &Scope,
        new: NewTask,
        audit: Option<AuditRecord>,
        reply: Reply<Created>,
    ) -> Self {
        let NewTask { id, context_id, capability, subject, terms, events, records, send } = new;
        let changes = Changes::new(events, &records);
        let (scope, audit) = (scope.clone(), audit.map(Audit::new));
        Self { scope, id, context_id, capability, subject, terms, changes, send, audit, reply }
    }
}

impl Append {
    pub(super) fn new(
        scope: &Scope,
        id: &TaskId,
        step: Step,
        audit: Option<AuditRecord>,
        reply: Reply<u64>,
    ) -> Self {
        let Step { expected_seq, fence, events, records } = step;
        let changes = Changes::new(events, &records);
        let (scope, id, audit) = (scope.clone(), id.clone(), audit.map(Audit::new));
        Self { scope, id, expected_seq, fence, changes, audit, reply }
    }
}

impl Changes {
    fn new(events: Vec<TaskEvent>, records: &[TaskRecord]) -> Self {
        let bodies: Vec<String> = events.iter().map(encode_event).collect();
        let records: Vec<(i64, String)> =
            records.iter().map(|record| (record_kind(record), encode_record(record))).collect();
        let bytes = bodies.iter().chain(records.iter().map(|(_, body)| body)).map(String::len);
        let bytes = bytes.sum();
        Self { events, bodies, records, bytes, room: None }
    }

    pub(super) fn are_empty(&self) -> bool {
        self.events.is_empty() && self.records.is_empty()
    }

    /// Whether there is nothing but pieces of artifacts, at least one.
    fn are_pieces(&self) -> bool {
        let is_piece = |event: &TaskEvent| matches!(event, TaskEvent::Artifact { .. });
        self.records.is_empty() && !self.events.is_empty() && self.events.iter().all(is_piece)
    }
}

impl Audit {
    fn new(record: AuditRecord) -> Self {
        let mut line = Vec::new();
        record.write_line(&mut line);
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        // It is made of texts and escapes, so nothing is lost here.
        let line = String::from_utf8(line)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        Self { record, line }
    }
}

impl Queue {
    pub(super) fn new() -> (Self, mpsc::Receiver<Job>) {
        // The channel has no bound of its own: whoever sends has room in the semaphores.
        let (sender, receiver) = mpsc::channel();
        let jobs = Arc::new(Semaphore::new(JOBS_MAX));
        let kib = Arc::new(Semaphore::new(KIB_MAX as usize));
        (Self { jobs, kib, sender }, receiver)
    }

    /// Waits until `changes` have room among the jobs that wait.
    ///
    /// # Errors
    ///
    /// [`JournalError::Busy`] if there is none for a second.
    pub(super) async fn make_room(&self, changes: &mut Changes) -> Result<(), JournalError> {
        // Every job is charged for what it is made of beside its bodies as well.
        let kib = u32::try_from(changes.bytes / 1024).unwrap_or(KIB_MAX).min(KIB_MAX - 1) + 1;
        let now = || {
            let job = Arc::clone(&self.jobs).try_acquire_owned().ok()?;
            let kib = Arc::clone(&self.kib).try_acquire_many_owned(kib).ok()?;
            Some(Room { _job: job, _kib: kib })
        };
        let soon = async {
            let job = Arc::clone(&self.jobs).acquire_owned().await.ok()?;
            let kib = Arc::clone(&self.kib).acquire_many_owned(kib).await.ok()?;
            Some(Room { _job: job, _kib: kib })
        };
        let room = match now() {
            Some(room) => Some(room),
            None => tokio::time::timeout(ROOM_WAIT, soon).await.ok().flatten(),
        };
        changes.room = Some(room.ok_or(JournalError::Busy)?);
        Ok(())
    }

    /// Has the writer do a chore, and waits until it is committed. It blocks, so it is for threads of
    /// our own.
    ///
    /// # Errors
    ///
    /// What the chore said, or why it could not be committed.
    pub(super) fn run_chore<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, &mut Heads) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (chore, result) = Chore::new(work);
        self.send(Job::Chore(chore))?;
        result.blocking_recv().unwrap_or(Err(StoreError::Closed))
    }

    /// How many more jobs have room.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.jobs.available_permits()
    }

    /// Hands a job to the writer.
    ///
    /// # Errors
    ///
    /// [`StoreError::Closed`] if the writer has ended.
    pub(super) fn send(&self, job: Job) -> Result<(), StoreError> {
        self.sender.send(job).map_err(|_| StoreError::Closed)
    }
}
