//! Agents that have been called, and what is kept of them.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use convoke_agent::{AgentCallError, CallError};
use convoke_identity::IdentitySource;
use convoke_model::SpiffeId;
use convoke_net::client::{Address, Provenance, Route};

use crate::gate::Gate;

/// Most endpoints that are kept. Each is a few kilobytes; who calls more agents than this pays for
/// making some of them again.
pub(crate) const ENDPOINTS_MAX: usize = 1024;

/// One agent at one address.
pub(crate) struct Endpoint {
    pub(crate) agent: SpiffeId,
    /// The address as the caller wrote it.
    pub(crate) written: Box<str>,
    /// The address as errors show it.
    pub(crate) shown: Box<str>,
    pub(crate) address: Address,
    pub(crate) gate: Gate,
    callee: Callee,
}

/// What calls of an agent need at whichever address.
#[derive(Clone)]
struct Callee {
    identity: Arc<str>,
    tls: Arc<rustls::ClientConfig>,
}

/// The endpoints of one client.
#[derive(Default)]
pub(crate) struct Endpoints(RwLock<HashMap<SpiffeId, Vec<Arc<Endpoint>>>>);

impl Endpoints {
    /// `agent` at the address `written`, with room for `concurrency_max` calls at a time if it is
    /// new.
    ///
    /// # Errors
    ///
    /// [`AgentCallError::Unreachable`] if that is no address, [`AgentCallError::Identity`] if there
    /// is no TLS for it.
    pub(crate) fn get(
        &self,
        source: &IdentitySource,
        agent: &SpiffeId,
        written: &str,
        concurrency_max: usize,
    ) -> Result<Arc<Endpoint>, CallError> {
        let found = |known: &HashMap<SpiffeId, Vec<Arc<Endpoint>>>| {
            let endpoints = known.get(agent)?;
            endpoints.iter().find(|endpoint| *endpoint.written == *written).map(Arc::clone)
        };
        if let Some(endpoint) = found(&self.0.read().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(endpoint);
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = found(&known) {
            return Ok(endpoint);
        }
        // Addresses come from configuration, code and the command line alone.
        let address = Address::parse(written, Provenance::Operator).map_err(|error| {
            AgentCallError::Unreachable {
                agent: agent.clone(),
                address: written.to_owned(),
                cause: error.to_string(),
            }
        })?;
        // Its connections are shared between all addresses that lead to the same place.
        let sibling = known.get(agent).and_then(|endpoints| endpoints.first());
        let callee = match sibling {
            Some(sibling) => sibling.callee.clone(),
            None => Callee::new(source, agent).map_err(|error| AgentCallError::Identity {
                agent: agent.clone(),
                cause: error.to_string(),
            })?,
        };
        make_room(&mut known);
        let endpoint = Arc::new(Endpoint {
            agent: agent.clone(),
            written: written.into(),
            shown: address.to_string().into(),
            address,
            gate: Gate::new(concurrency_max),
            callee,
        });
        known.entry(agent.clone()).or_default().push(Arc::clone(&endpoint));
        Ok(endpoint)
    }
}

#[cfg(test)]
impl Endpoints {
    pub(crate) fn len(&self) -> usize {
        self.0.read().unwrap().values().map(Vec::len).sum()
    }
}

/// Forgets endpoints that nobody is calling once there are too many: those in good health first,
/// since of them nothing is lost.
fn make_room(known: &mut HashMap<SpiffeId, Vec<Arc<Endpoint>>>) {
    for also_troubled in [false, true] {
        if known.values().map(Vec::len).sum::<usize>() < ENDPOINTS_MAX {
            return;
        }
        known.retain(|_, endpoints| {
            endpoints.retain(|endpoint| {
                let is_called = Arc::strong_count(endpoint) > 1;
                is_called || !(also_troubled || endpoint.gate.is_untouched())
            });
            !endpoints.is_empty()
        });
    }
}

impl Endpoint {
    /// The way there with the identity that `source` has now.
    pub(crate) fn route(&self, source: &IdentitySource) -> Route {
        Route {
            address: self.address.clone(),
            tls: Some(Arc::clone(&self.callee.tls)),
            identity: Arc::clone(&self.callee.identity),
            revision: source.current().revision(),
        }
    }
}

impl Callee {
    /// The TLS configuration that accepts `agent` and nobody else.
    fn new(source: &IdentitySource, agent: &SpiffeId) -> Result<Self, rustls::Error> {
        let tls = convoke_identity::tls::client_config(source, agent, &[b"http/1.1"])?;
        Ok(Self { identity: agent.as_str().into(), tls })
    }
}
