//! Calling agents: as somebody, and to nobody but the agent that is meant.
//!
//! This crate introduces identity, wire and connections to each other for everybody who calls: a
//! program that is no agent, the command line, and the handlers of a node. A call is made as its
//! settings say: again where that does no harm, so many at a time, and not at all while the agent
//! is down.
//!
//! | module | story |
//! |---|---|
//! | `call` | one call, from its parameters to its result |
//! | [`task`] | the tasks of an agent: sent, followed, listed, ended |
//! | `attempts` | how often it is made |
//! | `gate`, `breaker` | how many at a time, and when none |
//! | `backoff`, `budget` | how long to wait before another attempt, and how many there may be |
//! | `cache` | answers that are good for a while |
//! | `error` | what went wrong, and what follows from it |

mod attempts;
mod backoff;
mod breaker;
mod budget;
mod cache;
mod call;
mod endpoint;
mod error;
mod gate;
mod observe;
pub mod open;
mod ping;
mod random;
#[cfg(test)]
mod simulation;
pub mod task;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use convoke_agent::{CallError, CallSettings};
use convoke_identity::{IdentityError, IdentitySource, Material, WorkloadApiConfig};
use convoke_model::{CapabilityName, SpiffeId, limits};
use convoke_net::client::{Address, Dialer, Pool, PoolLimits, Provenance};
use tokio::time::Instant;

use attempts::Attempts;
use cache::Cache;
use endpoint::{Endpoint, Endpoints};
use error::At;
use random::Random;

pub use call::ClientCall;
pub use convoke_net::client::AddressError;
pub use observe::{BreakerState, CallEvent, CallObserver, CallTarget};
pub use ping::Ping;

/// How long a question that every agent answers openly may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Whom a client calls as, where it gets that identity, and how it calls.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Whom to call as.
    pub identity: SpiffeId,
    /// The unix socket of the Workload API.
    pub socket: PathBuf,
    /// The user id that the Workload API's server may have, beside root and our own.
    pub issuer_uid: Option<u32>,
    /// How agents are called.
    pub calls: CallSettings,
}

/// Calls agents under one identity. Cloning is cheap; clones share their connections, their
/// breakers, their retry budget and the answers that are kept.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    source: Arc<IdentitySource>,
    calls: CallSettings,
    pool: Pool,
    endpoints: Endpoints,
    attempts: Attempts,
    cache: Cache,
}

impl ClientOptions {
    /// Calls as `identity`, from the Workload API at `socket`, with the settings that calls have by
    /// default.
    #[must_use]
    pub fn new(identity: SpiffeId, socket: impl Into<PathBuf>) -> Self {
        let (socket, calls) = (socket.into(), CallSettings::default());
        Self { identity, socket, issuer_uid: None, calls }
    }
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
        let source = Arc::new(IdentitySource::connect(config).await?);
        Ok(Self::new(source, options.calls, None))
    }

    /// Calls under the identity of `source`, with the settings that calls have by default.
    #[must_use]
    pub fn with_source(source: Arc<IdentitySource>) -> Self {
        Self::new(source, CallSettings::default(), None)
    }

    /// Calls under the identity of `source`; `calls` are the settings of the calls that bring none
    /// of their own, and `observer` hears of what happens to all of them.
    #[must_use]
    pub fn new(
        source: Arc<IdentitySource>,
        calls: CallSettings,
        observer: Option<Arc<dyn CallObserver>>,
    ) -> Self {
        let limits = PoolLimits {
            // Calls have passed their own bound already, which the operator chose.
            per_destination_max: limits::REQUESTS_MAX,
            ..PoolLimits::default()
        };
        let own = Arc::clone(&source);
        let pool = Pool::with_lifetime(Dialer::default(), limits, move |certs| {
            convoke_identity::tls::lifetime(&own, certs)
        });
        Self(Arc::new(Inner {
            source,
            calls,
            pool,
            endpoints: Endpoints::default(),
            attempts: Attempts::new(Random::new(), observer),
            cache: Cache::default(),
        }))
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

    /// How many connections to agents are open.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.0.pool.open_connections()
    }

    /// How this client calls when a call says nothing else.
    #[must_use]
    pub fn settings(&self) -> &CallSettings {
        &self.0.calls
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

    /// Reads a document that the agent answers to anybody, such as its card: status and body. It
    /// is asked for once, whatever the settings say, also while the agent's breaker is open.
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
        let endpoint = self.endpoint(agent, address, self.0.calls.concurrency_max)?;
        let at = At { agent, address: &endpoint.shown, capability: &question(path) };
        let request = open::request(path).map_err(|cause| at.protocol(cause))?;
        let route = endpoint.route(&self.0.source);
        let answer = self.0.pool.send(&route, request, Instant::now() + OPEN_TIMEOUT).await;
        let answer = answer.map_err(|error| error::of_send(at, &error, OPEN_TIMEOUT).error)?;
        Ok((answer.status().as_u16(), answer.into_body()))
    }

    fn endpoint(
        &self,
        agent: &SpiffeId,
        address: &str,
        concurrency_max: usize,
    ) -> Result<Arc<Endpoint>, CallError> {
        self.0.endpoints.get(&self.0.source, agent, address, concurrency_max)
    }
}

/// What stands where errors name a capability, for a question that is no call.
fn question(path: &str) -> CapabilityName {
    let name = if path.contains("card") { "card" } else { "health" };
    CapabilityName::parse(name)
        .unwrap_or_else(|_| unreachable!("both names are within the grammar"))
}
