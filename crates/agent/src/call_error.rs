//! How a call to another agent can end without a result.

use std::fmt;
use std::time::Duration;

use convoke_model::{CapabilityName, FaultCode, FieldViolation, SpiffeId, TaskId};

/// Why a call gave no result. That the other agent said no is not a kind of failure: repeating
/// the call will not help, and the handler may have something to say about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The other agent was reached, knew who was asking and said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Everything else.
    #[error(transparent)]
    Failed(#[from] AgentCallError),
}

/// A refusal: what the other agent said no to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{agent} refused `{capability}`: {message}")]
pub struct Refusal {
    /// Who refused.
    pub agent: SpiffeId,
    /// What was asked of it.
    pub capability: CapabilityName,
    /// What it said.
    pub message: String,
    /// Whether it refused the caller's certificate at the TLS handshake: it has seen no request then,
    /// and asked no policy.
    pub at_handshake: bool,
}

/// How a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgentCallError {
    /// Nobody answers at the address.
    #[error("cannot reach {agent} at {address}: {cause}")]
    Unreachable {
        /// Who was called.
        agent: SpiffeId,
        /// Where.
        address: String,
        /// What the network said.
        cause: String,
    },
    /// Somebody answers at the address, but not the agent that was called.
    #[error("{address} is not {expected}: {cause}")]
    WrongPeer {
        /// Who was called.
        expected: SpiffeId,
        /// Who answered, if its certificate is good and says so.
        found: Option<SpiffeId>,
        /// Where.
        address: String,
        /// What it presents instead.
        cause: String,
    },
    /// No answer in time.
    #[error("{agent} did not answer `{capability}` within {after:?}")]
    TimedOut {
        /// Who was called.
        agent: SpiffeId,
        /// What was asked of it.
        capability: CapabilityName,
        /// How long the call waited; zero if the request's own deadline had already passed.
        after: Duration,
    },
    /// The agent failed so often of late that it is left alone for a while; nothing was sent.
    #[error(
        "{agent} at {address} is not called: it failed too often, the last time because {cause}; \
         the next attempt is due in {retry_after:.1?}"
    )]
    CircuitOpen {
        /// Who was called.
        agent: SpiffeId,
        /// Where.
        address: String,
        /// When a call may be let through again to find out.
        retry_after: Duration,
        /// Why the last call that was made failed.
        cause: String,
    },
    /// As many calls of the agent as are allowed at a time are under way, and none ended in time;
    /// nothing was sent.
    #[error(
        "{agent} at {address} is not called: {concurrency_max} calls of it are under way and none \
         ended within {after:?}; allow more at a time with `concurrency_max`, or make fewer"
    )]
    Busy {
        /// Who was called.
        agent: SpiffeId,
        /// Where.
        address: String,
        /// How many calls may be under way at a time.
        concurrency_max: usize,
        /// How long the call waited.
        after: Duration,
    },
    /// The request that the call was made for has been cancelled.
    #[error("the call of `{capability}` on {agent} was canceled")]
    Canceled {
        /// Who was called.
        agent: SpiffeId,
        /// What was asked of it.
        capability: CapabilityName,
    },
    /// The other agent has no such capability, or no agent can have one of that name.
    #[error("{agent} has no capability `{capability}`: {message}")]
    UnknownCapability {
        /// Who was called.
        agent: SpiffeId,
        /// What was asked of it, in the caller's spelling.
        capability: String,
        /// What the other agent said, or what is wrong with the name.
        message: String,
    },
    /// The capability's schema refuses the parameters.
    #[error("{agent} cannot take these parameters of `{capability}`: {message}")]
    InvalidParams {
        /// Who was called.
        agent: SpiffeId,
        /// What was asked of it.
        capability: CapabilityName,
        /// What the other agent said.
        message: String,
        /// The fields that are wrong, as far as the other agent names them.
        violations: Vec<FieldViolation>,
    },
    /// The other agent took the call and reported something else.
    #[error("`{capability}` failed on {agent}: {message}")]
    Remote {
        /// Who was called.
        agent: SpiffeId,
        /// What was asked of it.
        capability: CapabilityName,
        /// What it reported.
        code: FaultCode,
        /// In its own words.
        message: String,
    },
    /// The other agent's task waits for its caller, who has to answer it or to sign in elsewhere.
    #[error("`{capability}` on {agent} waits {what}; it is task `{task}`{}", told(.message))]
    Waits {
        /// Who was called.
        agent: SpiffeId,
        /// What was asked of it.
        capability: CapabilityName,
        /// The task, which goes on once it has what it waits for.
        task: TaskId,
        /// What it waits for.
        what: WaitsFor,
        /// What the agent says of it.
        message: Option<String>,
    },
    /// The answer is not one that A2A, or the type that the caller expects, has.
    #[error("{agent} gave an answer to `{capability}` that cannot be read: {cause}")]
    Protocol {
        /// Who was called.
        agent: SpiffeId,
        /// What was asked of it.
        capability: CapabilityName,
        /// What is wrong with the answer.
        cause: String,
    },
    /// Nobody said where the agent is.
    #[error("no address for {agent}: give one, or name the agent in `agent_registry`")]
    NoAddress {
        /// Who was called.
        agent: SpiffeId,
    },
    /// The caller has no identity to call with at the moment.
    #[error("no identity to call {agent} with: {cause}")]
    Identity {
        /// Who was called.
        agent: SpiffeId,
        /// What is wrong.
        cause: String,
    },
}

/// What a task waits for that its caller has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitsFor {
    /// An answer.
    Answer,
    /// That the caller signs in elsewhere.
    SignIn,
}

impl fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answer => "for an answer",
            Self::SignIn => "for its caller to sign in",
        })
    }
}

/// The words of an agent behind ours.
fn told(message: &Option<String>) -> String {
    message.as_ref().map(|message| format!(": {message}")).unwrap_or_default()
}

impl CallError {
    /// Who was called.
    #[must_use]
    pub fn agent(&self) -> &SpiffeId {
        use AgentCallError as Failed;
        match self {
            Self::Refused(refusal) => &refusal.agent,
            Self::Failed(Failed::WrongPeer { expected, .. }) => expected,
            Self::Failed(
                Failed::Unreachable { agent, .. }
                | Failed::CircuitOpen { agent, .. }
                | Failed::Busy { agent, .. }
                | Failed::TimedOut { agent, .. }
                | Failed::Canceled { agent, .. }
                | Failed::UnknownCapability { agent, .. }
                | Failed::InvalidParams { agent, .. }
                | Failed::Remote { agent, .. }
                | Failed::Waits { agent, .. }
                | Failed::Protocol { agent, .. }
                | Failed::NoAddress { agent }
                | Failed::Identity { agent, .. },
            ) => agent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> SpiffeId {
        SpiffeId::parse("spiffe://example.org/worker").unwrap()
    }

    fn capability() -> CapabilityName {
        CapabilityName::parse("count_words").unwrap()
    }

    fn check(error: impl Into<CallError>, expected: &str) {
        let error = error.into();
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.agent(), &agent());
    }

    #[test]
    fn each_says_one_clear_line() {
        let (agent, capability) = (agent(), capability());
        check(
            Refusal {
                agent: agent.clone(),
                capability: capability.clone(),
                message: "policy does not allow it".into(),
                at_handshake: false,
            },
            "spiffe://example.org/worker refused `count_words`: policy does not allow it",
        );
        check(
            AgentCallError::Unreachable {
                agent: agent.clone(),
                address: "https://localhost:8443".into(),
                cause: "connection refused".into(),
            },
            "cannot reach spiffe://example.org/worker at https://localhost:8443: connection refused",
        );
        check(
            AgentCallError::WrongPeer {
                expected: agent.clone(),
                found: SpiffeId::parse("spiffe://example.org/other").ok(),
                address: "https://localhost:8443".into(),
                cause: "it presents spiffe://example.org/other".into(),
            },
            "https://localhost:8443 is not spiffe://example.org/worker: it presents \
             spiffe://example.org/other",
        );
        check(
            AgentCallError::TimedOut {
                agent: agent.clone(),
                capability: capability.clone(),
                after: Duration::from_millis(1500),
            },
            "spiffe://example.org/worker did not answer `count_words` within 1.5s",
        );
        check(
            AgentCallError::CircuitOpen {
                agent: agent.clone(),
                address: "https://localhost:8443".into(),
                retry_after: Duration::from_millis(12_340),
                cause: "connection refused".into(),
            },
            "spiffe://example.org/worker at https://localhost:8443 is not called: it failed too \
             often, the last time because connection refused; the next attempt is due in 12.3s",
        );
        check(
            AgentCallError::Busy {
                agent: agent.clone(),
                address: "https://localhost:8443".into(),
                concurrency_max: 100,
                after: Duration::from_secs(2),
            },
            "spiffe://example.org/worker at https://localhost:8443 is not called: 100 calls of it \
             are under way and none ended within 2s; allow more at a time with `concurrency_max`, \
             or make fewer",
        );
        check(
            AgentCallError::NoAddress { agent: agent.clone() },
            "no address for spiffe://example.org/worker: give one, or name the agent in \
             `agent_registry`",
        );
        check(
            AgentCallError::Remote {
                agent,
                capability,
                code: FaultCode::CapabilityFailed,
                message: "division by zero".into(),
            },
            "`count_words` failed on spiffe://example.org/worker: division by zero",
        );
    }
}
