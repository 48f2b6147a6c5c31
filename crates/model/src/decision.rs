//! What policy said.

use std::sync::Arc;
use std::time::Duration;

/// What policy said of one operation. Everything but [`Reason::Allowed`] is a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Why.
    pub reason: Reason,
    /// The rule that decided, such as `data.agentweave.authz.allow`, or the name of the default.
    pub rule: Arc<str>,
    /// Which policy decided.
    pub revision: Revision,
    /// How long it took.
    pub took: Duration,
}

/// Why an operation was allowed or refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The rule is true. The text is the policy's own `reason`, if it gives one.
    Allowed(Option<String>),
    /// The rule is false. The text is the policy's own `reason`, if it gives one.
    Denied(Option<String>),
    /// The rule has no value for this input.
    Undefined,
    /// The rule has a value that is neither a boolean nor a decision object.
    NotADecision,
    /// Evaluation failed. The text is for the operator, never for the caller.
    Error(String),
    /// Evaluation took longer than it may.
    OverTime,
    /// The server that decides cannot be asked, or gives no answer that can be read. The text is for
    /// the operator, never for the caller.
    Unreachable(String),
    /// The input document is larger than it may be.
    InputTooLarge,
    /// Policy allows it, and the capability's own guard does not; the rule is the guard's patterns.
    Guard,
}

/// Names one loaded policy: a digest of its sources, so that equal policies have equal names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Revision(pub Arc<str>);

impl Decision {
    /// Whether the operation may go on.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(self.reason, Reason::Allowed(_))
    }
}

impl Reason {
    /// One word for logs, audit and metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Allowed(_) => "allowed",
            Self::Denied(_) => "denied",
            Self::Undefined => "undefined",
            Self::NotADecision => "not_a_decision",
            Self::Error(_) => "error",
            Self::OverTime => "over_time",
            Self::Unreachable(_) => "unreachable",
            Self::InputTooLarge => "input_too_large",
            Self::Guard => "guard",
        }
    }

    /// What the policy itself said, or what went wrong while asking it.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::Allowed(text) | Self::Denied(text) => text.as_deref(),
            Self::Error(text) | Self::Unreachable(text) => Some(text),
            _ => None,
        }
    }
}
