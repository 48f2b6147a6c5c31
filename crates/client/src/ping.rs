//! Whether an agent can be reached, and where the time goes.

use std::time::{Duration, UNIX_EPOCH};

use convoke_agent::CallError;
use convoke_identity::tls::verified_peer;
use convoke_model::{SpiffeId, UnixMillis};
use convoke_net::client::{Dialer, probe};
use tokio::time::Instant;

use crate::error::At;
use crate::{Client, OPEN_TIMEOUT, error, open, question};

/// The question that every agent answers as soon as it is there.
const LIVE: &str = "/health/live";

/// How an agent was reached over a fresh connection, step by step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ping {
    /// Time to find the address of the name and open a TCP connection.
    pub connect: Duration,
    /// Time of the TLS handshake, in which the agent proves who it is.
    pub tls: Duration,
    /// Time from the question to its answer. The agent's verdict on our certificate is in it.
    pub answer: Duration,
    /// Time of all of it.
    pub total: Duration,
    /// Until when the agent's certificate is valid.
    pub svid_not_after: UnixMillis,
    /// What was spoken, as in `HTTP/1.1 over TLS 1.3`.
    pub protocol: &'static str,
    /// The HTTP status of the answer, 200 if all is well.
    pub status: u16,
    /// The agent's clock as it answered, in whole seconds, if it says. Source: RFC 9110 §6.6.1.
    pub date: Option<UnixMillis>,
}

impl Client {
    /// Asks `agent` at `address` whether it is alive, over a connection of its own, once. Neither
    /// the agent's breaker nor any setting has a say.
    ///
    /// # Errors
    ///
    /// [`CallError`], as of a call: who cannot be pinged cannot be called, for the same reason.
    pub async fn ping(&self, agent: &SpiffeId, address: &str) -> Result<Ping, CallError> {
        let endpoint = self.endpoint(agent, address, self.0.calls.concurrency_max)?;
        let at = At { agent, address: &endpoint.shown, capability: &question(LIVE) };
        let request = open::request(LIVE).map_err(|cause| at.protocol(cause))?;
        let route = endpoint.route(&self.0.source);
        let deadline = Instant::now() + OPEN_TIMEOUT;
        let reached = probe(&Dialer::default(), &route, request, deadline).await;
        let reached = reached.map_err(|error| error::of_send(at, &error, OPEN_TIMEOUT).error)?;
        let peer = verified_peer(&reached.peer_certificates).map_err(|cause| at.protocol(cause))?;
        let Some(peer) = peer else {
            // The handshake does not end well without one.
            return Err(at.protocol("it presented no certificate").into());
        };
        let date = reached.response.headers().get(http::header::DATE);
        let date = date.and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        let since = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok());
        Ok(Ping {
            connect: reached.connect,
            tls: reached.tls,
            answer: reached.answer,
            total: reached.total,
            svid_not_after: peer.not_after,
            // The one version of each that this client speaks.
            protocol: "HTTP/1.1 over TLS 1.3",
            status: reached.response.status().as_u16(),
            date: since.map(|since| UnixMillis(since.as_secs().saturating_mul(1000))),
        })
    }
}
