//! What a handler says when it has no result.

use std::error::Error;
use std::fmt;

use convoke_model::{Fault, FaultCode, FieldViolation, JsonError, SpiffeIdError};

use crate::{CallError, UnknownRegistryKey};

/// Why a handler has no result: a sentence for the caller, and a cause that only the log sees.
///
/// The two are apart on purpose. What a library's error says may hold what the caller must not
/// learn, so an error of another crate becomes a `HandlerError` only by an explicit sentence:
///
/// ```
/// # use convoke_agent::HandlerError;
/// fn read(path: &str) -> Result<String, HandlerError> {
///     std::fs::read_to_string(path)
///         .map_err(|error| HandlerError::new("the archive is away").caused_by(error))
/// }
/// assert_eq!(read("/nowhere/archive").unwrap_err().to_string(), "the archive is away");
/// ```
#[derive(Debug)]
pub struct HandlerError(Box<Parts>);

#[derive(Debug)]
struct Parts {
    fault: Fault,
    meaning: Meaning,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

/// What an error means for the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// This attempt has failed; the next one may not.
    Attempt,
    /// Every attempt would fail.
    Permanent,
    /// The agent will not do it.
    Rejected,
}

impl HandlerError {
    /// A failure that the caller reads as `message`: lowercase, no full stop, naming the thing.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self::of(Fault::new(FaultCode::CapabilityFailed, message))
    }

    /// Parameters that the schema lets through and the handler cannot take. `field` is a JSON
    /// pointer (RFC 6901) into the parameters.
    #[must_use]
    pub fn invalid_field(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::of(Fault::invalid_field(field, description))
    }

    /// The agent will not do what it was asked, though it could: the task ends in
    /// `TASK_STATE_REJECTED`, and no further attempt is made. The caller reads `why`.
    ///
    /// ```
    /// # use convoke_agent::HandlerError;
    /// fn check(amount: u32) -> Result<(), HandlerError> {
    ///     if amount > 1000 {
    ///         return Err(HandlerError::rejected("amounts above 1000 are decided by people"));
    ///     }
    ///     Ok(())
    /// }
    /// assert!(check(5000).unwrap_err().is_rejected());
    /// ```
    #[must_use]
    pub fn rejected(why: impl Into<String>) -> Self {
        let mut error = Self::new(why);
        error.0.meaning = Meaning::Rejected;
        error
    }

    /// Every attempt would fail: none is made again, however many
    /// [`retries`](crate::Capability::retries) the capability has. It is so from the outset for
    /// parameters that are wrong, and for what was [rejected](Self::rejected).
    #[must_use]
    pub fn permanent(mut self) -> Self {
        if self.0.meaning == Meaning::Attempt {
            self.0.meaning = Meaning::Permanent;
        }
        self
    }

    /// Another attempt may not fail. It is so from the outset, and is said to take back what
    /// [`permanent`](Self::permanent) said, of an error that somebody else made; it changes nothing
    /// about parameters that are wrong, or about what was [rejected](Self::rejected).
    #[must_use]
    pub fn retryable(mut self) -> Self {
        if self.0.meaning == Meaning::Permanent && self.0.fault.code != FaultCode::InvalidParams {
            self.0.meaning = Meaning::Attempt;
        }
        self
    }

    /// Whether another attempt is worth making, if the capability has
    /// [`retries`](crate::Capability::retries).
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.meaning == Meaning::Attempt
    }

    /// Whether the agent will not do it, rather than has failed to.
    #[must_use]
    pub fn is_rejected(&self) -> bool {
        self.0.meaning == Meaning::Rejected
    }

    /// Adds what the log should know and the caller should not.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// What the caller is told.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.fault.message
    }

    /// The fields that are wrong, if the parameters are.
    #[must_use]
    pub fn violations(&self) -> &[FieldViolation] {
        &self.0.fault.violations
    }

    /// What the caller is told, as a fault: [`FaultCode::CapabilityFailed`], or
    /// [`FaultCode::InvalidParams`] if the parameters are wrong.
    #[must_use]
    pub fn fault(&self) -> &Fault {
        &self.0.fault
    }

    /// The fault alone; the cause is dropped, so log the error first.
    #[must_use]
    pub fn into_fault(self) -> Fault {
        self.0.fault
    }

    /// The error whose caller is told `fault`, whatever its code: for stand-ins in tests.
    #[doc(hidden)]
    #[must_use]
    pub fn of_fault(fault: Fault) -> Self {
        Self::of(fault)
    }

    fn of(fault: Fault) -> Self {
        let meaning = match fault.code {
            FaultCode::InvalidParams => Meaning::Permanent,
            _ => Meaning::Attempt,
        };
        Self(Box::new(Parts { fault, meaning, cause: None }))
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl Error for HandlerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

/// The caller reads which agent refused or failed, and how.
impl From<CallError> for HandlerError {
    fn from(error: CallError) -> Self {
        Self::new(error.to_string()).caused_by(error)
    }
}

/// The caller reads that the agent is badly configured; the log reads which key is missing.
impl From<UnknownRegistryKey> for HandlerError {
    fn from(error: UnknownRegistryKey) -> Self {
        Self::new("the agent does not know an agent that it needs").caused_by(error)
    }
}

/// The caller reads that the agent made a mistake; the log reads which.
impl From<SpiffeIdError> for HandlerError {
    fn from(error: SpiffeIdError) -> Self {
        Self::new("the agent used a SPIFFE ID that is none").caused_by(error)
    }
}

/// The caller reads that the agent made a mistake; the log reads which.
impl From<JsonError> for HandlerError {
    fn from(error: JsonError) -> Self {
        Self::new("the agent could not read or write JSON").caused_by(error)
    }
}

#[cfg(test)]
mod tests {
    use convoke_model::SpiffeId;

    use super::*;
    use crate::AgentCallError;

    #[test]
    fn the_cause_stays_out_of_the_message() {
        let error = HandlerError::new("the archive is away").caused_by("disk 7 at 10.0.0.3");
        assert_eq!(error.to_string(), "the archive is away");
        assert_eq!(error.source().unwrap().to_string(), "disk 7 at 10.0.0.3");
        assert_eq!(
            error.into_fault(),
            Fault::new(FaultCode::CapabilityFailed, "the archive is away")
        );
    }

    #[test]
    fn a_handler_can_refuse_its_parameters() {
        let error = HandlerError::invalid_field("/divisor", "must not be zero");
        assert_eq!(error.to_string(), "/divisor: must not be zero");
        assert_eq!(error.violations()[0].field, "/divisor");
        assert_eq!(error.fault().code, FaultCode::InvalidParams);
    }

    #[test]
    fn an_error_says_whether_to_try_again() {
        let check = |error: HandlerError, is_retryable, is_rejected| {
            assert_eq!((error.is_retryable(), error.is_rejected()), (is_retryable, is_rejected));
        };
        let wrong = || HandlerError::invalid_field("/n", "is odd");
        check(HandlerError::new("away"), true, false);
        check(HandlerError::new("away").permanent(), false, false);
        check(HandlerError::new("away").permanent().retryable(), true, false);
        check(wrong(), false, false);
        check(wrong().retryable(), false, false);
        check(HandlerError::rejected("no"), false, true);
        check(HandlerError::rejected("no").retryable(), false, true);
        check(HandlerError::rejected("no").permanent(), false, true);
        assert_eq!(HandlerError::rejected("no").to_string(), "no");
    }

    #[test]
    fn a_failed_call_is_told_and_kept() {
        let agent = SpiffeId::parse("spiffe://example.org/worker").unwrap();
        let call = CallError::from(AgentCallError::NoAddress { agent });
        let error = HandlerError::from(call.clone());
        assert_eq!(error.message(), call.to_string());
        assert_eq!(error.source().unwrap().downcast_ref::<CallError>(), Some(&call));
    }
}
