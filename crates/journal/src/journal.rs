//! What the node asks of a journal.

use std::sync::Arc;

use convoke_model::{
    AuditRecord, Caller, CapabilityName, ContextId, EventError, SpiffeId, Task, TaskEvent, TaskId,
};

use crate::{AuditError, BoxFuture};

/// Keeps tasks as their events, and the audit records of what was decided about them.
///
/// A task belongs to a [`Scope`]; there is no method without one, and in every method a task of
/// another scope is the same as none. The futures do their work when they are polled; one that is
/// dropped early may or may not have committed, and [`read`](Self::read) tells.
pub trait Journal: Send + Sync + 'static {
    /// Commits a new task with its first events, and `audit` with it. Returns the number of the
    /// newest event.
    ///
    /// # Errors
    ///
    /// [`JournalError`]; nothing was changed.
    fn create<'a>(
        &'a self,
        scope: &'a Scope,
        task: NewTask,
        audit: Option<AuditRecord>,
    ) -> BoxFuture<'a, Result<u64, JournalError>>;

    /// Commits `events`, all or none, to a task whose newest event is number `expected_seq`, and
    /// `audit` with them. Returns the number of the newest event.
    ///
    /// # Errors
    ///
    /// [`JournalError::Conflict`] if somebody else was faster; otherwise as it says. Nothing was
    /// changed.
    fn append<'a>(
        &'a self,
        scope: &'a Scope,
        id: &'a TaskId,
        expected_seq: u64,
        events: Vec<TaskEvent>,
        audit: Option<AuditRecord>,
    ) -> BoxFuture<'a, Result<u64, JournalError>>;

    /// The task as its committed events make it; `None` if there is none of that name in `scope`.
    ///
    /// # Errors
    ///
    /// [`JournalError`] if the journal could not be asked. A missing task is no error.
    fn read<'a>(
        &'a self,
        scope: &'a Scope,
        id: &'a TaskId,
    ) -> BoxFuture<'a, Result<Option<StoredTask>, JournalError>>;

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

    /// What an acknowledged commit survives.
    fn durability(&self) -> Durability;
}

/// Whose tasks: those that one caller made at one agent. It is made from a verified caller, never
/// from what a request says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The agent that was asked. A node may host several, each with a policy of its own, so a task
    /// of one must not be reachable through another.
    pub agent: SpiffeId,
    /// The caller's tenant; empty for a caller without a credential.
    pub tenant: Arc<str>,
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
    /// Its first events, numbered from 1; the first is the submission.
    pub events: Vec<TaskEvent>,
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
    /// The number of its newest event.
    pub last_seq: u64,
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
        let tenant = match caller {
            Caller::Principal(principal) => Arc::clone(&principal.tenant),
            Caller::Anonymous => Arc::from(""),
        };
        Self { agent, tenant, owner: caller.name().into() }
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
