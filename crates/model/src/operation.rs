//! What a caller can ask, the same value whichever wire it came by.

use crate::{ContextId, Json, Message, TaskId};

/// One thing that a caller asks of an agent.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// Hand the agent a message; it answers with a message or a task.
    SendMessage(SendMessage),
    /// The same, answered by a stream of what becomes of it.
    SendStreamingMessage(SendMessage),
    /// Read a task.
    GetTask(GetTask),
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
}

impl Operation {
    /// The operation's name.
    #[must_use]
    pub fn kind(&self) -> OperationKind {
        match self {
            Self::SendMessage(_) => OperationKind::SendMessage,
            Self::SendStreamingMessage(_) => OperationKind::SendStreamingMessage,
            Self::GetTask(_) => OperationKind::GetTask,
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
            Self::CancelTask => "CancelTask",
            Self::SubscribeToTask => "SubscribeToTask",
        }
    }
}
