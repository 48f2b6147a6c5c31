//! What went wrong, in codes that every wire and the command line map once.

use crate::limits;

/// Why an operation was not done. The closed list of everything that a caller can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultCode {
    /// A2A `TaskNotFoundError`: no such task, or not this caller's.
    TaskNotFound,
    /// A2A `TaskNotCancelableError`: the task has ended.
    TaskNotCancelable,
    /// A2A `PushNotificationNotSupportedError`.
    PushNotificationNotSupported,
    /// A2A `UnsupportedOperationError`.
    UnsupportedOperation,
    /// A2A `ContentTypeNotSupportedError`.
    ContentTypeNotSupported,
    /// A2A `InvalidAgentResponseError`.
    InvalidAgentResponse,
    /// A2A `ExtensionSupportRequiredError`.
    ExtensionSupportRequired,
    /// A2A `VersionNotSupportedError`.
    VersionNotSupported,
    /// The body is not JSON within our bounds.
    Parse,
    /// JSON, but not a request.
    InvalidRequest,
    /// No such method.
    MethodNotFound,
    /// The method is known, its parameters are wrong.
    InvalidParams,
    /// The agent has no capability of that name.
    CapabilityNotFound,
    /// The capability ran and failed; the message is the agent's own.
    CapabilityFailed,
    /// A fault of ours; the message holds nothing but a request id.
    Internal,
    /// No credential where one is needed.
    Unauthenticated,
    /// Policy refused.
    PermissionDenied,
    /// More than a limit allows (body, connections, queue).
    ResourceExhausted,
    /// The caller's deadline passed.
    DeadlineExceeded,
    /// The node is draining or a part that it needs is away; trying again later may help.
    Unavailable,
}

/// A code, a sentence for people, and what a program needs to act on it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// Which of the closed list.
    pub code: FaultCode,
    /// One sentence: lowercase, no full stop, naming the thing.
    pub message: String,
    /// Facts by name, for a program; never values of a policy or of another caller.
    pub metadata: Vec<(&'static str, String)>,
    /// The fields that are wrong, for [`FaultCode::InvalidParams`].
    pub violations: Vec<FieldViolation>,
}

/// One field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// A JSON pointer (RFC 6901) into the parameters, or a path of the protocol's own fields such
    /// as `message.parts`.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

impl Fault {
    /// A fault with a sentence and nothing else.
    #[must_use]
    pub fn new(code: FaultCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), metadata: Vec::new(), violations: Vec::new() }
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.metadata.push((key, value.into()));
        self
    }

    /// [`FaultCode::InvalidParams`] about one field.
    #[must_use]
    pub fn invalid_field(field: impl Into<String>, description: impl Into<String>) -> Self {
        let (field, description) = (field.into(), description.into());
        let mut fault = Self::new(FaultCode::InvalidParams, format!("{field}: {description}"));
        fault.violations.push(FieldViolation { field, description });
        fault
    }

    /// [`FaultCode::InvalidParams`] about all of `violations`, of which the first few are kept.
    #[must_use]
    pub fn invalid_params(mut violations: Vec<FieldViolation>) -> Self {
        violations.truncate(limits::VIOLATIONS_MAX);
        let mut message = String::from("invalid parameters");
        for (index, violation) in violations.iter().enumerate() {
            message.push_str(if index == 0 { ": " } else { "; " });
            if !violation.field.is_empty() {
                message.push_str(&violation.field);
                message.push(' ');
            }
            message.push_str(&violation.description);
        }
        Self { code: FaultCode::InvalidParams, message, metadata: Vec::new(), violations }
    }
}

impl FaultCode {
    /// The `reason` of `google.rpc.ErrorInfo`, by which programs tell faults apart.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::TaskNotFound => "TASK_NOT_FOUND",
            Self::TaskNotCancelable => "TASK_NOT_CANCELABLE",
            Self::PushNotificationNotSupported => "PUSH_NOTIFICATION_NOT_SUPPORTED",
            Self::UnsupportedOperation => "UNSUPPORTED_OPERATION",
            Self::ContentTypeNotSupported => "CONTENT_TYPE_NOT_SUPPORTED",
            Self::InvalidAgentResponse => "INVALID_AGENT_RESPONSE",
            Self::ExtensionSupportRequired => "EXTENSION_SUPPORT_REQUIRED",
            Self::VersionNotSupported => "VERSION_NOT_SUPPORTED",
            Self::Parse => "PARSE_ERROR",
            Self::InvalidRequest => "INVALID_REQUEST",
            Self::MethodNotFound => "METHOD_NOT_FOUND",
            Self::InvalidParams => "INVALID_PARAMS",
            Self::CapabilityNotFound => "CAPABILITY_NOT_FOUND",
            Self::CapabilityFailed => "CAPABILITY_FAILED",
            Self::Internal => "INTERNAL_ERROR",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::Unavailable => "UNAVAILABLE",
        }
    }

    /// The code of a `reason`, as a client reads it back.
    #[must_use]
    pub fn from_reason(reason: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.reason() == reason)
    }

    /// Every code.
    pub const ALL: [Self; 20] = [
        Self::TaskNotFound,
        Self::TaskNotCancelable,
        Self::PushNotificationNotSupported,
        Self::UnsupportedOperation,
        Self::ContentTypeNotSupported,
        Self::InvalidAgentResponse,
        Self::ExtensionSupportRequired,
        Self::VersionNotSupported,
        Self::Parse,
        Self::InvalidRequest,
        Self::MethodNotFound,
        Self::InvalidParams,
        Self::CapabilityNotFound,
        Self::CapabilityFailed,
        Self::Internal,
        Self::Unauthenticated,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::DeadlineExceeded,
        Self::Unavailable,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_distinct_and_read_back() {
        for code in FaultCode::ALL {
            assert_eq!(FaultCode::from_reason(code.reason()), Some(code));
        }
        assert_eq!(FaultCode::from_reason("task_not_found"), None);
    }

    #[test]
    fn violations_are_bounded_and_named() {
        let many = (0..limits::VIOLATIONS_MAX + 5)
            .map(|n| FieldViolation { field: format!("/{n}"), description: "is wrong".into() })
            .collect();
        let fault = Fault::invalid_params(many);
        assert_eq!(fault.violations.len(), limits::VIOLATIONS_MAX);
        assert!(fault.message.starts_with("invalid parameters: /0 is wrong; /1 is wrong"));
    }
}
