//! Why something could not be done about a task.

use std::time::Duration;

use convoke_a2a::client::AnswerError;
use convoke_agent::{AgentCallError, CallError};
use convoke_model::FaultCode;

use crate::open::OpenError;

/// Why something could not be done about a task.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// As of a call: refused, or failed and how.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A development listener could not be asked.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Who listens there said no, or gave no answer that can be read.
    #[error("`{asked}` failed at {address}")]
    Answer {
        /// The capability or the operation.
        asked: String,
        /// Where.
        address: String,
        /// What came back.
        source: Box<AnswerError>,
    },
    /// Who listens there gave an answer that does not fit the question.
    #[error("{address} gave an answer to `{asked}` that cannot be read: {cause}")]
    Unreadable {
        /// The capability or the operation.
        asked: String,
        /// Where.
        address: String,
        /// What is wrong with the answer.
        cause: String,
    },
    /// A stream ended in the middle of its task.
    #[error("the stream of `{asked}` at {address} ended before the task did")]
    Ended {
        /// The capability or the operation.
        asked: String,
        /// Where.
        address: String,
    },
    /// The stream broke before it had said which task it is about, so that nothing can be followed.
    #[error(
        "the stream broke before the task had a name; a list of tasks shows whether there is one"
    )]
    Unnamed {
        /// How it broke.
        source: Box<TaskError>,
    },
    /// The stream broke and could not be taken up again.
    #[error(
        "the stream broke, and nothing new came of the task for {after:?}; the task may still run"
    )]
    Lost {
        /// For how long it was tried.
        after: Duration,
        /// How the last attempt failed.
        source: Box<TaskError>,
    },
}

impl TaskError {
    /// What the agent said, if it said no in words of A2A.
    #[must_use]
    pub fn code(&self) -> Option<FaultCode> {
        match self {
            Self::Call(CallError::Refused(_)) => Some(FaultCode::PermissionDenied),
            Self::Call(CallError::Failed(failed)) => match failed {
                AgentCallError::Remote { code, .. } => Some(*code),
                AgentCallError::UnknownCapability { .. } => Some(FaultCode::CapabilityNotFound),
                AgentCallError::InvalidParams { .. } => Some(FaultCode::InvalidParams),
                _ => None,
            },
            Self::Answer { source, .. } => match &**source {
                AnswerError::Fault(fault) => Some(fault.code),
                _ => None,
            },
            Self::Unnamed { source } | Self::Lost { source, .. } => source.code(),
            Self::Open(_) | Self::Unreadable { .. } | Self::Ended { .. } => None,
        }
    }

    /// Whether the same question may be answered later.
    pub(super) fn may_pass(&self) -> bool {
        if let Some(code) = self.code() {
            return matches!(
                code,
                FaultCode::Unavailable
                    | FaultCode::ResourceExhausted
                    | FaultCode::DeadlineExceeded
                    | FaultCode::Internal
            );
        }
        match self {
            Self::Call(CallError::Failed(failed)) => matches!(
                failed,
                AgentCallError::Unreachable { .. }
                    | AgentCallError::TimedOut { .. }
                    | AgentCallError::CircuitOpen { .. }
                    | AgentCallError::Busy { .. }
            ),
            Self::Open(OpenError::Send(_)) | Self::Ended { .. } => true,
            Self::Answer { source, .. } => {
                matches!(&**source, AnswerError::Http { status, .. } if status.is_server_error())
            }
            _ => false,
        }
    }
}
