//! What went wrong below, in the words of somebody who called an agent.

use std::time::Duration;

use convoke_a2a::client::{AnswerError, ResultError};
use convoke_agent::{AgentCallError, CallError, Refusal};
use convoke_identity::tls::{PeerError, peer_error};
use convoke_model::{Fault, FaultCode, chain};
use convoke_net::client::SendError;

use crate::call::Destination;

/// A request that got no response.
pub(crate) fn of_send(at: &Destination, error: SendError, timeout: Duration) -> CallError {
    let (agent, capability) = (at.agent.clone(), at.capability.clone());
    let unreachable = |cause: String| AgentCallError::Unreachable {
        agent: at.agent.clone(),
        address: at.address.to_string(),
        cause,
    };
    match &error {
        SendError::TimedOut { .. } => {
            AgentCallError::TimedOut { agent, capability, after: timeout }
        }
        SendError::Tls { source, .. } => match peer_error(source) {
            Some(own @ PeerError::OwnExpired { .. }) => {
                AgentCallError::Identity { agent, cause: own.to_string() }
            }
            // Whoever it is does not prove to be the agent.
            Some(reason) => AgentCallError::WrongPeer {
                found: match reason {
                    PeerError::WrongId { found, .. } => Some(found.clone()),
                    _ => None,
                },
                cause: match reason {
                    PeerError::WrongId { found, .. } => format!("it presents {found}"),
                    other => chain(other),
                },
                expected: agent,
                address: at.address.to_string(),
            },
            None => unreachable(format!("tls: {source}")),
        },
        SendError::PeerRefusedUs { alert, .. } => {
            return Refusal {
                agent,
                capability,
                message: format!(
                    "it does not accept our certificate (tls alert {alert:?}); it may not trust \
                     our trust domain, or our certificate may have expired"
                ),
            }
            .into();
        }
        SendError::ResponseTooLarge { .. } => {
            AgentCallError::Protocol { agent, capability, cause: error.to_string() }
        }
        _ => unreachable(chain(&error)),
    }
    .into()
}

/// A response that is no answer, or a fault.
pub(crate) fn of_answer(at: &Destination, error: AnswerError) -> CallError {
    match error {
        AnswerError::Fault(fault) => of_fault(at, fault),
        other => at.protocol(chain(&other)),
    }
}

/// An answer that holds no result.
pub(crate) fn of_result(at: &Destination, error: &ResultError) -> CallError {
    let message = match error {
        ResultError::Ended { text: Some(text), .. } => text.clone(),
        other => other.to_string(),
    };
    remote(at, FaultCode::CapabilityFailed, message)
}

fn of_fault(at: &Destination, fault: Fault) -> CallError {
    let (agent, capability) = (at.agent.clone(), at.capability.clone());
    match fault.code {
        FaultCode::PermissionDenied | FaultCode::Unauthenticated => {
            Refusal { agent, capability, message: fault.message }.into()
        }
        FaultCode::CapabilityNotFound => AgentCallError::UnknownCapability {
            agent,
            capability: capability.as_str().to_owned(),
            message: what_there_is(&fault).unwrap_or(fault.message),
        }
        .into(),
        FaultCode::InvalidParams => AgentCallError::InvalidParams {
            agent,
            capability,
            message: match fault.message.strip_prefix("invalid parameters: ") {
                Some(which) => which.to_owned(),
                None => fault.message,
            },
            violations: fault.violations,
        }
        .into(),
        code => remote(at, code, fault.message),
    }
}

/// What an agent that lacks a capability has instead, if it says so.
fn what_there_is(fault: &Fault) -> Option<String> {
    let fact = |key: &str| {
        fault.metadata.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str())
    };
    let has = format!("it has {}", fact("capabilities")?);
    Some(match fact("didYouMean") {
        Some(name) => format!("{has}; did you mean `{name}`?"),
        None => has,
    })
}

fn remote(at: &Destination, code: FaultCode, message: String) -> CallError {
    let (agent, capability) = (at.agent.clone(), at.capability.clone());
    AgentCallError::Remote { agent, capability, code, message }.into()
}
