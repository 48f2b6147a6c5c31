//! What a caller can ask, the same value whichever wire it came by.

use std::fmt;
use std::str::FromStr;

use crate::{ContextId, Json, Message, TaskId, TaskState, UnixMillis};

/// One thing that a caller asks of an agent.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// Hand the agent a message; it answers with a message or a task.
    SendMessage(SendMessage),
    /// The same, answered by a stream of what becomes of it.
    SendStreamingMessage(SendMessage),
    /// Read a task.
    GetTask(GetTask),
    /// Read a page of the caller's tasks.
    ListTasks(ListTasks),
    /// End a task that is still running.
    CancelTask(CancelTask),
    /// Follow a task that has not ended.
    SubscribeToTask(SubscribeToTask),
}

/// The name of an operation, without what it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperationKind {
    /// See [`Operation::SendMessage`].
    SendMessage,
    /// See [`Operation::SendStreamingMessage`].
    SendStreamingMessage,
    /// See [`Operation::GetTask`].
    GetTask,
    /// See [`Operation::ListTasks`].
    ListTasks,
    /// See [`Operation::CancelTask`].
    CancelTask,
    /// See [`Operation::SubscribeToTask`].
    SubscribeToTask,
}

/// The request of [`Operation::SendMessage`] and [`Operation::SendStreamingMessage`].
#[derive(Debug, Clone, PartialEq)]
pub struct SendMessage {
    /// What the request says its tenant is. It may match the caller's, never select one.
    pub tenant: Option<String>,
    /// The message.
    pub message: Message,
    /// How the caller wants the answer.
    pub configuration: SendConfiguration,
    /// Whatever the caller attached to the request.
    pub metadata: Option<Json>,
}

/// How the caller of [`Operation::SendMessage`] wants the answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SendConfiguration {
    /// Media types that the caller can read; empty means any.
    pub accepted_output_modes: Vec<String>,
    /// At most this many of the newest messages of the history; `None` means all.
    pub history_length: Option<u32>,
    /// Answer once the task exists instead of once it ended.
    pub return_immediately: bool,
}

/// The request of [`Operation::GetTask`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetTask {
    /// As in [`SendMessage::tenant`].
    pub tenant: Option<String>,
    /// Which task.
    pub id: TaskId,
    /// At most this many of the newest messages of the history; `None` means all.
    pub history_length: Option<u32>,
}

/// The request of [`Operation::ListTasks`]. Filters add up: a task has to pass all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListTasks {
    /// As in [`SendMessage::tenant`].
    pub tenant: Option<String>,
    /// Only tasks of this conversation.
    pub context_id: Option<ContextId>,
    /// Only tasks that stand there.
    pub state: Option<TaskState>,
    /// Only tasks whose status is of this instant or a later one.
    pub since: Option<UnixMillis>,
    /// How many tasks at most, from 1 to [`limits::LIST_PAGE_MAX`](crate::limits::LIST_PAGE_MAX);
    /// `None` means [`limits::LIST_PAGE_DEFAULT`](crate::limits::LIST_PAGE_DEFAULT).
    pub page_size: Option<u32>,
    /// Where the page before this one ended, as its answer said; `None` begins.
    pub page_token: Option<String>,
    /// At most this many of the newest messages of each task; `None` means all.
    pub history_length: Option<u32>,
    /// Whether tasks are shown with their artifacts.
    pub include_artifacts: bool,
}

/// The request of [`Operation::CancelTask`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelTask {
    /// As in [`SendMessage::tenant`].
    pub tenant: Option<String>,
    /// Which task.
    pub id: TaskId,
    /// Whatever the caller attached to the request.
    pub metadata: Option<Json>,
}

/// The request of [`Operation::SubscribeToTask`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscribeToTask {
    /// As in [`SendMessage::tenant`].
    pub tenant: Option<String>,
    /// Which task.
    pub id: TaskId,
    /// What the caller has seen of the task already: nothing of it comes again. `None` begins with
    /// the task as it stands.
    pub after: Option<Cursor>,
}

/// A place in the events of a task: everything up to event `seq` has been seen. It is the `id` of a
/// server-sent event, written `epoch.seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// Which record of the task is meant. One that may have lost events has another number, because
    /// other events may have taken theirs.
    pub epoch: u64,
    /// The number of the newest event that was seen.
    pub seq: u64,
}

/// A text that is no [`Cursor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no place in a stream; give the `id` of the last event as it came")]
pub struct CursorError;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.seq)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        // Only as it is written: no sign, no leading zeros.
        let number = |text: &str| {
            let number: u64 = text.parse().map_err(|_| CursorError)?;
            if number.to_string() == text { Ok(number) } else { Err(CursorError) }
        };
        let (epoch, seq) = text.split_once('.').ok_or(CursorError)?;
        Ok(Self { epoch: number(epoch)?, seq: number(seq)? })
    }
}

impl Operation {
    /// The operation's name.
    #[must_use]
    pub fn kind(&self) -> OperationKind {
        match self {
            Self::SendMessage(_) => OperationKind::SendMessage,
            Self::SendStreamingMessage(_) => OperationKind::SendStreamingMessage,
            Self::GetTask(_) => OperationKind::GetTask,
            Self::ListTasks(_) => OperationKind::ListTasks,
            Self::CancelTask(_) => OperationKind::CancelTask,
            Self::SubscribeToTask(_) => OperationKind::SubscribeToTask,
        }
    }

    /// What the request says its tenant is.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        match self {
            Self::SendMessage(request) | Self::SendStreamingMessage(request) => {
                request.tenant.as_deref()
            }
            Self::GetTask(request) => request.tenant.as_deref(),
            Self::ListTasks(request) => request.tenant.as_deref(),
            Self::CancelTask(request) => request.tenant.as_deref(),
            Self::SubscribeToTask(request) => request.tenant.as_deref(),
        }
    }

    /// The task that the request names.
    #[must_use]
    pub fn task_id(&self) -> Option<&TaskId> {
        match self {
            Self::SendMessage(request) | Self::SendStreamingMessage(request) => {
                request.message.task_id.as_ref()
            }
            Self::GetTask(request) => Some(&request.id),
            Self::ListTasks(_) => None,
            Self::CancelTask(request) => Some(&request.id),
            Self::SubscribeToTask(request) => Some(&request.id),
        }
    }

    /// The context that the request names.
    #[must_use]
    pub fn context_id(&self) -> Option<&ContextId> {
        match self {
            Self::SendMessage(request) | Self::SendStreamingMessage(request) => {
                request.message.context_id.as_ref()
            }
            Self::ListTasks(request) => request.context_id.as_ref(),
            Self::GetTask(_) | Self::CancelTask(_) | Self::SubscribeToTask(_) => None,
        }
    }
}

impl OperationKind {
    /// Every operation, those that begin something first.
    pub const ALL: &[Self] = &[
        Self::SendMessage,
        Self::SendStreamingMessage,
        Self::GetTask,
        Self::ListTasks,
        Self::CancelTask,
        Self::SubscribeToTask,
    ];

    /// The name that A2A gives the operation; policy, logs and audit use the same.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SendMessage => "SendMessage",
            Self::SendStreamingMessage => "SendStreamingMessage",
            Self::GetTask => "GetTask",
            Self::ListTasks => "ListTasks",
            Self::CancelTask => "CancelTask",
            Self::SubscribeToTask => "SubscribeToTask",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_only_as_it_is_written() {
        let cursor = Cursor { epoch: 3, seq: u64::MAX };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for wrong in ["", "1", ".", "1.", ".1", "1.2.3", "01.2", "1.+2", "-1.2", "1. 2", "a.b"] {
            assert_eq!(wrong.parse::<Cursor>(), Err(CursorError), "{wrong}");
        }
        assert!("1.18446744073709551616".parse::<Cursor>().is_err());
    }
}
