//! Calling agents: as somebody, and to nobody but the agent that is meant.
//!
//! This crate introduces identity, wire and connections to each other for everybody who calls: a
//! program that is no agent, the command line, and the handlers of a node.

mod call;
mod error;
pub mod open;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use convoke_agent::{AgentCallError, CallError};
use convoke_identity::{IdentityError, IdentitySource, Material, WorkloadApiConfig};
use convoke_model::SpiffeId;
use convoke_net::client::{Address, Dialer, Pool, PoolLimits, Provenance, Route};
use tokio::time::Instant;

pub use call::ClientCall;
pub use convoke_net::client::AddressError;

/// Most callees whose TLS configuration is kept. Each is a few kilobytes; who calls more agents
/// than this pays for making some of them again.
const CALLEES_MAX: usize = 1024;

/// How long a question that every agent answers openly may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Whom a client calls as, and where it gets that identity.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Whom to call as.
    pub identity: SpiffeId,
    /// The unix socket of the Workload API.
    pub socket: PathBuf,
    /// The user id that the Workload API's server may have, beside root and our own.
    pub issuer_uid: Option<u32>,
}

/// Calls agents under one identity. Cloning is cheap; clones share their connections.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    source: Arc<IdentitySource>,
    pool: Pool,
    callees: Mutex<HashMap<SpiffeId, Callee>>,
}

/// What is kept of an agent that has been called.
#[derive(Clone)]
struct Callee {
    identity: Arc<str>,
    tls: Arc<rustls::ClientConfig>,
}

/// Checks that `address` is one that agents can be called at, without calling.
///
/// # Errors
///
/// [`AddressError`] names the first rule that it breaks.
pub fn check_address(address: &str) -> Result<(), AddressError> {
    Address::parse(address, Provenance::Operator).map(drop)
}

impl Client {
    /// Gets the identity from the Workload API, enrolling with the embedded issuer where that is
    /// needed and allowed.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] names what is missing and the cure.
    pub async fn connect(options: ClientOptions) -> Result<Self, IdentityError> {
        let mut config = WorkloadApiConfig::new(options.socket, options.identity);
        config.issuer_uid = options.issuer_uid;
        Ok(Self::with_source(Arc::new(IdentitySource::connect(config).await?)))
    }

    /// Calls under the identity of `source`.
    #[must_use]
    pub fn with_source(source: Arc<IdentitySource>) -> Self {
        let own = Arc::clone(&source);
        let pool = Pool::with_lifetime(Dialer::default(), PoolLimits::default(), move |certs| {
            convoke_identity::tls::lifetime(&own, certs)
        });
        Self(Arc::new(Inner { source, pool, callees: Mutex::default() }))
    }

    /// Whom this client calls as.
    #[must_use]
    pub fn spiffe_id(&self) -> &SpiffeId {
        self.0.source.spiffe_id()
    }

    /// The certificate and the roots that are in use now.
    #[must_use]
    pub fn material(&self) -> Arc<Material> {
        self.0.source.current()
    }

    /// Begins a call of `capability` on `agent`; nothing is sent before it is awaited.
    pub fn call(
        &self,
        agent: &SpiffeId,
        capability: &str,
        params: impl serde::Serialize,
    ) -> ClientCall {
        ClientCall::new(self.clone(), agent.clone(), capability, &params)
    }

    /// Reads a document that the agent answers to anybody, such as its card: status and body.
    ///
    /// # Errors
    ///
    /// [`CallError`], as of a call.
    pub async fn get(
        &self,
        agent: &SpiffeId,
        address: &str,
        path: &str,
    ) -> Result<(u16, Bytes), CallError> {
        let at = call::Destination::new(agent.clone(), address, path)?;
        let route = self.route(&at)?;
        let request = open::request(path).map_err(|cause| at.protocol(cause))?;
        let deadline = Instant::now() + OPEN_TIMEOUT;
        let answer = self.0.pool.send(&route, request, deadline).await;
        let answer = answer.map_err(|error| error::of_send(&at, error, OPEN_TIMEOUT))?;
        Ok((answer.status().as_u16(), answer.into_body()))
    }

    fn route(&self, at: &call::Destination) -> Result<Route, CallError> {
        let callee = self.callee(&at.agent).map_err(|error| AgentCallError::Identity {
            agent: at.agent.clone(),
            cause: error.to_string(),
        })?;
        Ok(Route {
            address: at.address.clone(),
            tls: Some(callee.tls),
            identity: callee.identity,
            revision: self.0.source.current().revision(),
        })
    }

    /// The TLS configuration that accepts `agent` and nobody else, made once.
    fn callee(&self, agent: &SpiffeId) -> Result<Callee, rustls::Error> {
        let mut callees = self.0.callees.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(callee) = callees.get(agent) {
            return Ok(callee.clone());
        }
        if callees.len() >= CALLEES_MAX {
            callees.clear();
        }
        let tls = convoke_identity::tls::client_config(&self.0.source, agent, &[b"http/1.1"])?;
        let callee = Callee { identity: agent.as_str().into(), tls };
        callees.insert(agent.clone(), callee.clone());
        Ok(callee)
    }
}
