//! What the node asks of a journal.

use std::sync::Arc;

use convoke_model::{
    AuditRecord, Caller, CapabilityName, ContextId, Cursor, EventError, MessageId, SpiffeId, Task,
    TaskEvent, TaskId, TaskRecord, TaskState, Terms, UnixMillis, Work,
};

use crate::{AuditError, BoxFuture};

/// Keeps tasks as their events, and the audit records of what was decided about them.
///
/// A task belongs to a [`Scope`]; there is no method without one, but for [`claim`](Self::claim),
/// which finds work for the agent itself, and in every method a task of another scope is the same as
/// none. The futures do their work when they are polled; one that is dropped early may or may not
/// have committed, and [`read`](Self::read) tells.
pub trait Journal: Send + Sync + 'static {
    /// Commits a new task with its first events, and `audit` with it. If the task's sender is known
    /// to have sent the same before ([`NewTask::send`]), there is no new task, and the audit record
    /// is kept all the same.
    ///
    /// # Errors
    ///
    /// [`JournalError`]; nothing was changed.
    fn create<'a>(
        &'a self,
        scope: &'a Scope,
        task: NewTask,
        audit: Option<AuditRecord>,
    ) -> BoxFuture<'a, Result<Created, JournalError>>;

    /// Commits `step`, all of it or nothing, to a task, and `audit` with it. Returns the number of
    /// the newest event.
    ///
    /// A step that has nothing but artifacts may be acknowledged before it is as durable as
    /// [`durability`](Self::durability) says; it is by the time that any later commit is, and
    /// [`epoch`](Self::epoch) tells where such a step may have been lost.
    ///
    /// # Errors
    ///
    /// [`JournalError::Conflict`] if somebody else was faster; [`JournalError::Fenced`] if the task
    /// is somebody else's to work on; otherwise as it says. Nothing was changed.
    fn append<'a>(
        &'a self,
        scope: &'a Scope,
        id: &'a TaskId,
        step: Step,
        audit: Option<AuditRecord>,
    ) -> BoxFuture<'a, Result<u64, JournalError>>;

    /// Where the task stands, without what was said in it; `None` if there is none of that name in
    /// `scope`.
    ///
    /// # Errors
    ///
    /// [`JournalError`] if the journal could not be asked. A missing task is no error.
    fn head<'a>(
        &'a self,
        scope: &'a Scope,
        id: &'a TaskId,
    ) -> BoxFuture<'a, Result<Option<Head>, JournalError>>;

    /// The task as its committed events make it; `None` if there is none of that name in `scope`.
    ///
    /// # Errors
    ///
    /// As of [`head`](Self::head).
    fn read<'a>(
        &'a self,
        scope: &'a Scope,
        id: &'a TaskId,
    ) -> BoxFuture<'a, Result<Option<StoredTask>, JournalError>>;

    /// The events of a task behind `after`, at most about [`EVENTS_PAGE_BYTES`] of them; `None` if
    /// there is no task of that name in `scope`.
    ///
    /// # Errors
    ///
    /// As of [`head`](Self::head).
    fn events<'a>(
        &'a self,
        scope: &'a Scope,
        id: &'a TaskId,
        after: Cursor,
    ) -> BoxFuture<'a, Result<Option<Events>, JournalError>>;

    /// A page of the tasks of `scope`: the newest status first, and among those of one instant the
    /// task that was made last.
    ///
    /// # Errors
    ///
    /// [`JournalError::PageToken`] if the query's token is none of this query; otherwise as of
    /// [`head`](Self::head).
    fn list<'a>(
        &'a self,
        scope: &'a Scope,
        query: ListQuery,
    ) -> BoxFuture<'a, Result<TaskPage, JournalError>>;

    /// Makes up to `max` tasks of `agent` the caller's to work on that have not ended and that nobody
    /// works on: those whose holder has gone. They come in the order in which they were made; one
    /// that was claimed is not given out again while its holder is there.
    ///
    /// # Errors
    ///
    /// As of [`head`](Self::head).
    fn claim<'a>(
        &'a self,
        agent: &'a SpiffeId,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Claimed>, JournalError>>;

    /// Takes the record of a decision that changes no task: a read, an ephemeral call, a refusal.
    /// It returns at once and the record is written within 10 ms. Where [`AuditSink::waits`] says
    /// so, await [`flush`](Self::flush) before acting on the decision.
    ///
    /// [`AuditSink::waits`]: crate::AuditSink::waits
    ///
    /// # Errors
    ///
    /// [`JournalError::Audit`] if the record was not taken; the call has to be refused.
    fn record(&self, audit: AuditRecord) -> Result<(), JournalError>;

    /// Waits until everything taken so far is as durable as [`durability`](Self::durability) says.
    ///
    /// # Errors
    ///
    /// [`JournalError`] if it could not be made so.
    fn flush(&self) -> BoxFuture<'_, Result<(), JournalError>>;

    /// Commits what was taken so far, and takes nothing more. A journal that is closed tells the one
    /// that is opened on the same store next that nothing is missing.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// What an acknowledged commit survives.
    fn durability(&self) -> Durability;

    /// The number that stands before the dot of a [`Cursor`]. It changes when events may have been
    /// lost that somebody has seen.
    fn epoch(&self) -> u64;

    /// Why no changes are taken at present, if that is so; for health and for the log. It may be
    /// over by itself.
    fn trouble(&self) -> Option<Arc<str>>;
}

/// How many bytes of events [`Journal::events`] gives at a time, about: a reader of ten thousand
/// takes some at a time.
pub const EVENTS_PAGE_BYTES: usize = 256 * 1024;

/// Whose tasks: those that one caller made at one agent. It is made from a verified caller, never
/// from what a request says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The agent that was asked. A node may host several, each with a policy of its own, so a task
    /// of one must not be reachable through another.
    pub agent: SpiffeId,
    /// The caller's tenant; empty for a caller without a credential.
    pub tenant: Arc<str>,
    /// The application within the tenant; empty where the credential names none.
    pub app: Arc<str>,
    /// The caller's verified SPIFFE ID, or `anonymous`, which no SPIFFE ID is.
    pub owner: Arc<str>,
}

/// A task to be committed for the first time.
#[derive(Debug, Clone)]
pub struct NewTask {
    /// Its name.
    pub id: TaskId,
    /// The conversation it belongs to.
    pub context_id: ContextId,
    /// The capability that does its work.
    pub capability: CapabilityName,
    /// The subject that its owner acted for, if that is another.
    pub subject: Option<Arc<str>>,
    /// On which terms it was taken.
    pub terms: Terms,
    /// Its first events, numbered from 1; the first is the submission.
    pub events: Vec<TaskEvent>,
    /// Its first records, numbered from 1.
    pub records: Vec<TaskRecord>,
    /// Under what its sender may send it again, and means the same task.
    pub send: Option<SendKey>,
}

/// What makes a second sending of a message the same as the first: the owner's name for it. What was
/// sent is compared too, so that one name for two messages is an error and not a loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendKey {
    /// The sender's name for the message.
    pub message_id: MessageId,
    /// SHA-256 of what was sent.
    pub digest: [u8; 32],
    /// Until when the name is remembered at least.
    pub until: UnixMillis,
}

/// What has become of a task that was to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// It is there.
    New {
        /// The number of its newest event.
        last_seq: u64,
        /// The right to work on it.
        fence: Fence,
    },
    /// Its sender has sent the same before, and this task was made of it.
    Known(TaskId),
}

/// The right to work on a task. Whoever claims the task later has a greater one, and then this one
/// is worth nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence(pub u64);

/// What is committed to a task at a time.
#[derive(Debug, Clone)]
pub struct Step {
    /// The number of the newest event, as whoever made the step knew it.
    pub expected_seq: u64,
    /// The right to work on the task.
    pub fence: Fence,
    /// Events that follow.
    pub events: Vec<TaskEvent>,
    /// Records that follow.
    pub records: Vec<TaskRecord>,
}

/// Where a task stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The capability that does its work.
    pub capability: CapabilityName,
    /// Its state.
    pub state: TaskState,
    /// The number of its newest event.
    pub last_seq: u64,
}

/// A task as a journal has it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredTask {
    /// What its events make of it. Shared, because most readers only look.
    pub task: Arc<Task>,
    /// The capability that does its work.
    pub capability: CapabilityName,
    /// The subject that its owner acted for, if that is another.
    pub subject: Option<Arc<str>>,
    /// On which terms it was taken.
    pub terms: Terms,
    /// What its records come to.
    pub work: Work,
    /// The number of its newest event.
    pub last_seq: u64,
}

/// Events of a task, from a place on.
#[derive(Debug, Clone, PartialEq)]
pub enum Events {
    /// What follows, without a gap, each with its number; fewer than there are if `last_seq` is
    /// greater than the last number here.
    Page {
        /// The events.
        events: Vec<(u64, TaskEvent)>,
        /// The number of the task's newest event.
        last_seq: u64,
        /// The task's state after the newest event.
        state: TaskState,
    },
    /// The place is one of an epoch that is over, or lies ahead, or what follows it is no longer
    /// kept event by event: only the task as a whole can be had.
    Lost,
}

/// Which tasks are wanted. Filters add up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// Only tasks of this conversation.
    pub context_id: Option<ContextId>,
    /// Only tasks in this state.
    pub state: Option<TaskState>,
    /// Only tasks whose status is of this instant or a later one.
    pub since: Option<UnixMillis>,
    /// Only tasks of these capabilities; `None` means all.
    pub capabilities: Option<Vec<CapabilityName>>,
    /// How many tasks at most.
    pub page_size: u32,
    /// Where the page before ended, as [`TaskPage::next`] said.
    pub page_token: Option<String>,
    /// At most this many of the newest messages of each task; `None` means all.
    pub history_length: Option<u32>,
    /// Whether tasks come with their artifacts.
    pub artifacts: bool,
}

/// A page of tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskPage {
    /// The tasks, as much of each as was asked for.
    pub tasks: Vec<Task>,
    /// Asks for the page that follows; `None` after the last. It means something to the journal
    /// alone, and has nothing in it that its owner may not know.
    pub next: Option<String>,
    /// How many tasks pass the filters, over all pages, as it was when the first page was read.
    pub total: u64,
}

/// A task that is now the caller's to work on.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    /// Whose it is.
    pub scope: Scope,
    /// Its name.
    pub id: TaskId,
    /// The right to work on it.
    pub fence: Fence,
    /// Where it stands.
    pub state: TaskState,
    /// The capability that does its work.
    pub capability: CapabilityName,
    /// On which terms it was taken.
    pub terms: Terms,
}

/// What an acknowledged commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: tasks end with the process.
    Memory,
    /// A kill of the process, not of the machine.
    Relaxed,
    /// A power cut.
    Strict,
}

/// Why a journal did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The owner has a task of that name.
    #[error("task `{id}` already exists")]
    Exists {
        /// The task.
        id: TaskId,
    },
    /// The owner has no task of that name.
    #[error("task `{id}` does not exist")]
    NotFound {
        /// The task.
        id: TaskId,
    },
    /// The task has moved on since it was read.
    #[error("task `{id}` is at event {actual}, not at {expected}; read it again")]
    Conflict {
        /// The task.
        id: TaskId,
        /// The number that the caller knew.
        expected: u64,
        /// The number of the newest event.
        actual: u64,
    },
    /// The task is somebody else's to work on by now.
    #[error("task `{id}` is worked on by somebody else by now")]
    Fenced {
        /// The task.
        id: TaskId,
    },
    /// The owner has sent something else under the same name.
    #[error("message `{message_id}` was sent before with another content; name a new message anew")]
    SendConflict {
        /// The owner's name for both.
        message_id: MessageId,
    },
    /// A page token that is none, or that belongs to another query.
    #[error("the page token is none of this list; begin again without one")]
    PageToken,
    /// Changes come faster than they can be committed.
    #[error("the journal has more to commit than it can; try again later")]
    Busy,
    /// The store takes or gives nothing at present.
    #[error("the journal at `{path}` {what}")]
    Storage {
        /// The store.
        path: Arc<std::path::Path>,
        /// What is wrong and what to do, as the end of a sentence that begins with the store.
        what: String,
        /// What the store said.
        #[source]
        source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    },
    /// What is stored is not what was written.
    #[error(
        "the journal at `{path}` is damaged: {what}; stop the node, and run `convoke data check`"
    )]
    Damaged {
        /// The store.
        path: Arc<std::path::Path>,
        /// Where, and how it shows.
        what: String,
    },
    /// The owner's running tasks have all that one owner may have.
    #[error(
        "your running tasks have all the room that one caller may have (at most {tasks_max} tasks \
         and {bytes_max} bytes); try again when some have ended"
    )]
    OwnerFull {
        /// How many tasks an owner may have.
        tasks_max: usize,
        /// How many bytes they may take.
        bytes_max: usize,
    },
    /// There is no room, and no ended task that could be forgotten to make some.
    #[error(
        "the journal is full of running tasks (at most {tasks_max} tasks and {bytes_max} bytes); \
         try again when some have ended"
    )]
    Full {
        /// How many tasks there may be.
        tasks_max: usize,
        /// How many bytes they may take.
        bytes_max: usize,
    },
    /// The events cannot follow the ones before them.
    #[error("the events do not continue the task")]
    Event(#[from] EventError),
    /// The audit record could not be kept.
    #[error("the audit record could not be kept, so nothing was done")]
    Audit(#[from] AuditError),
}

impl Scope {
    /// The tasks of `caller` at `agent`.
    #[must_use]
    pub fn new(agent: SpiffeId, caller: &Caller) -> Self {
        let (tenant, app) = match caller {
            Caller::Principal(principal) => {
                (Arc::clone(&principal.tenant), Arc::clone(&principal.app))
            }
            Caller::Anonymous => (Arc::from(""), Arc::from("")),
        };
        Self { agent, tenant, app, owner: caller.name().into() }
    }
}

impl Durability {
    /// The word of configuration and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Relaxed => "relaxed",
            Self::Strict => "strict",
        }
    }

    /// One sentence for the log at start.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Memory => "tasks are kept in memory only and are lost when this process ends",
            Self::Relaxed => {
                "acknowledged tasks survive the end of this process, but not of the machine"
            }
            Self::Strict => "acknowledged tasks are on the disk and survive a power cut",
        }
    }
}
