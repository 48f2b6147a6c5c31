//! Exit codes: part of the interface, because scripts act on them.

use std::fmt;

use convoke::open::OpenError;
use convoke::{AgentCallError, CallError};

/// Why the command ended, as the shell sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// Something that has no code of its own.
    Failure = 1,
    /// The command line or a configuration is wrong. The same number as clap's.
    Usage = 2,
    /// Policy, or the TLS handshake, refused the caller.
    Refused = 3,
    /// Nothing answers at the address.
    Unreachable = 4,
    /// Somebody answers, but is not who was expected.
    WrongPeer = 5,
    /// The agent has no such capability.
    UnknownCapability = 6,
    /// The capability's schema refuses the parameters.
    InvalidParams = 7,
    /// No answer in time.
    TimedOut = 8,
    /// The agent took the call and failed.
    AgentFailed = 9,
    /// No identity could be had for the caller.
    NoIdentity = 10,
    /// A signal ended the command. The number that shells give to SIGINT.
    Interrupted = 130,
}

/// An error with the exit code and, where there is one, the cure.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Code::Failure, format_args!("{error:#}"))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Code::Failure, error)
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let (code, hint) = match &error {
            CallError::Refused(_) => (
                Code::Refused,
                "the agent's audit log names the rule that decided; its policy has to allow this \
                 caller, or call as another with --identity",
            ),
            CallError::Failed(failed) => match failed {
                AgentCallError::Unreachable { .. } | AgentCallError::NoAddress { .. } => {
                    (Code::Unreachable, "check that the agent runs, and its address and port")
                }
                AgentCallError::CircuitOpen { .. } | AgentCallError::Busy { .. } => (
                    Code::Unreachable,
                    "the agent may be down or overloaded: see its log, and call again later",
                ),
                AgentCallError::WrongPeer { .. } => (
                    Code::WrongPeer,
                    "check --agent against the SPIFFE ID of the agent at that address; IDs are \
                     case-sensitive",
                ),
                AgentCallError::UnknownCapability { .. } => {
                    (Code::UnknownCapability, "`convoke card show` lists what the agent can do")
                }
                AgentCallError::InvalidParams { .. } => (
                    Code::InvalidParams,
                    "`convoke card show` prints the schema of the capability's parameters",
                ),
                AgentCallError::TimedOut { .. } => {
                    (Code::TimedOut, "give it longer with --timeout, or see the agent's log")
                }
                AgentCallError::Identity { .. } => (
                    Code::NoIdentity,
                    "start an issuer with `convoke identity serve`, or name its socket with --socket",
                ),
                AgentCallError::Canceled { .. }
                | AgentCallError::Remote { .. }
                | AgentCallError::Protocol { .. } => {
                    (Code::AgentFailed, "the agent's log has the details, under the request's id")
                }
            },
        };
        Self::new(code, error).hint(hint)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let code = match &error {
            OpenError::Address(_) | OpenError::NotLoopback(_) => Code::Usage,
            OpenError::Send(_) => Code::Unreachable,
        };
        Self::new(code, error)
    }
}
