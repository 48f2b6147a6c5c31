//! Asking a policy server: OPA, or what speaks its REST API.
//!
//! Nothing but an answer in time allows. A server that fails is spared for a while, so that its
//! death costs no caller its whole timeout, and is looked for by itself, so that it is found again
//! also when nobody calls any more.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use convoke_model::{Revision, chain, limits};
use convoke_net::client::{
    Address, AddressError, Dialer, Pool, PoolLimits, Provenance, Response, Route, SendError,
};
use convoke_policy::{Question, RemoteError, RemotePolicy, RemoteVerdict};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Request, Uri};
use http_body_util::Full;
use tokio::time::Instant;

use super::breaker::Breaker;
use crate::config::OpaConfig;
use crate::observe::health::Health;
use crate::path_metrics::{PathMetrics, ServerAnswer};
use crate::web_pki::{self, WebPkiError};

/// Largest answer, in bytes: a decision, a sentence and the name of a rule.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Most questions on their way at a time; further ones wait within their timeout.
const QUESTIONS_MAX: usize = 128;

/// How often a server that is away is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why a policy server cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyServerError {
    /// Its URL is none.
    #[error("`authorization.opa.url`: {0}")]
    Address(#[from] AddressError),
    /// Plain HTTP to another machine.
    #[error(
        "`authorization.opa.url` is plain http to {host}, where anybody on the way decides; use \
         https, or a server on this machine"
    )]
    Plaintext {
        /// The host of the URL.
        host: String,
    },
    /// The path of the decision makes no URL.
    #[error("`authorization.opa.path` `{path}` is no path; write names with slashes between them")]
    Path {
        /// The path.
        path: String,
    },
    /// The token has a character that no header may have.
    #[error("the token of `authorization.opa` has a character that no header may have")]
    Token,
    /// There is nothing to check the server's certificate by.
    #[error("`authorization.opa.url` is https: {0}")]
    Tls(#[from] WebPkiError),
}

/// A policy server.
pub(super) struct PolicyServer {
    policy: RemotePolicy,
    pool: Pool,
    route: Route,
    decision: Uri,
    token: Option<HeaderValue>,
    timeout: Duration,
    breaker: Breaker,
    began: Instant,
    /// Whether it answered when it was last asked; nothing is known at first, which counts as no.
    up: AtomicBool,
    health: Arc<Health>,
    metrics: PathMetrics,
}

impl PolicyServer {
    /// The server that `config` names. It is not asked yet, and need not be there.
    ///
    /// # Errors
    ///
    /// [`PolicyServerError`] says what in the configuration, or on this machine, is in the way.
    pub(super) fn new(
        config: &OpaConfig,
        health: &Arc<Health>,
        metrics: &PathMetrics,
    ) -> Result<Self, PolicyServerError> {
        let address = Address::parse_with_http(&config.url, Provenance::Operator)?;
        let tls = if address.is_https() {
            Some(Arc::new(web_pki::client_config("http/1.1")?))
        } else if is_this_machine(&address.host()) {
            None
        } else {
            return Err(PolicyServerError::Plaintext { host: address.host() });
        };
        let name = config.path.trim_matches('/');
        let prefix = address.path().trim_end_matches('/').to_owned();
        let wrong = || PolicyServerError::Path { path: config.path.clone() };
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-' | '.');
        if name.is_empty() || !name.chars().all(is_name) {
            return Err(wrong());
        }
        let path = |text: String| text.parse::<Uri>().map_err(|_| wrong());
        let token = match &config.token {
            Some(token) => {
                let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))
                    .map_err(|_| PolicyServerError::Token)?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let limits = PoolLimits {
            per_destination_max: QUESTIONS_MAX,
            idle_max: QUESTIONS_MAX,
            response_bytes_max: ANSWER_BYTES_MAX,
            ..PoolLimits::default()
        };
        health.set_policy_reachable(false);
        Ok(Self {
            policy: RemotePolicy::new(name),
            pool: Pool::new(Dialer::default(), limits),
            decision: path(format!("{prefix}/v1/data/{name}"))?,
            route: Route { address, tls, identity: "".into(), revision: 0 },
            token,
            timeout: config.timeout,
            breaker: Breaker::default(),
            began: Instant::now(),
            up: AtomicBool::new(false),
            health: Arc::clone(health),
            metrics: metrics.clone(),
        })
    }

    /// What its decisions are put on record under.
    pub(super) fn revision(&self) -> &Revision {
        self.policy.revision()
    }

    /// Asks `question`; whatever goes wrong is a refusal.
    pub(super) async fn ask(&self, question: &Question<'_>) -> RemoteVerdict {
        let operation = question.operation;
        let failed = |error| RemoteVerdict::failed(&self.policy, operation, error);
        let Some(leave) = self.breaker.leave(self.began.elapsed()) else {
            self.metrics.server(ServerAnswer::Spared);
            let why = "the policy server did not answer before; it is asked again in a moment";
            return failed(RemoteError::Unreachable(why.to_owned()));
        };
        let input = question.to_json();
        if input.len() > limits::POLICY_INPUT_BYTES_MAX {
            return failed(RemoteError::TooLarge);
        }
        self.metrics.policy_server_breaker.set(self.breaker.stands());
        let sent = self.send(Request::post(&self.decision), Bytes::from(envelope(&input))).await;
        let (verdict, error) = match sent {
            Ok(answer) => {
                let status = answer.status().as_u16();
                let verdict = RemoteVerdict::read(&self.policy, operation, status, answer.body());
                (verdict, not_with_a_decision(status))
            }
            Err(SendError::TimedOut { .. }) => {
                let verdict = failed(RemoteError::OverTime);
                (verdict, "the policy server did not answer in time".to_owned())
            }
            Err(error) => {
                let why = chain(&error);
                let unreachable = RemoteError::Unreachable(why.clone());
                (failed(unreachable), why)
            }
        };
        if verdict.is_answer() {
            self.metrics.server(ServerAnswer::Answered);
            leave.answered();
            self.is_up();
        } else {
            self.metrics.server(ServerAnswer::Failed);
            if leave.failed(self.began.elapsed()) {
                self.is_down(&error);
            }
        }
        self.metrics.policy_server_breaker.set(self.breaker.stands());
        verdict
    }

    /// Looks for the server while it is away, without end.
    pub(super) async fn watch(&self) {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        let mut first = true;
        loop {
            tick.tick().await;
            if self.up.load(Ordering::Relaxed) {
                continue;
            }
            if let (Err(error), true) = (self.look().await, first) {
                self.is_down(&error);
            }
            first = false;
        }
    }

    /// Asks where decisions are asked for, as one is, whether there is an answer: a server that is
    /// healthy may still not decide, for us or at all. Says what came instead of an answer.
    async fn look(&self) -> Result<(), String> {
        let sent = self.send(Request::post(&self.decision), Bytes::from(envelope(b"{}"))).await;
        let answer = sent.map_err(|error| chain(&error))?;
        let status = answer.status().as_u16();
        if !RemoteVerdict::can_read(status, answer.body()) {
            return Err(not_with_a_decision(status));
        }
        self.breaker.reset();
        self.metrics.policy_server_breaker.set(self.breaker.stands());
        self.is_up();
        Ok(())
    }

    async fn send(
        &self,
        request: http::request::Builder,
        body: Bytes,
    ) -> Result<Response, SendError> {
        let deadline = Instant::now() + self.timeout;
        let mut request = request.body(Full::new(body)).unwrap_or_else(|_| {
            unreachable!("method and path were parsed, and there is no header yet")
        });
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(token) = &self.token {
            headers.insert(AUTHORIZATION, token.clone());
        }
        self.pool.send(&self.route, request, deadline).await
    }

    fn is_up(&self) {
        if self.up.load(Ordering::Relaxed) || self.up.swap(true, Ordering::Relaxed) {
            return;
        }
        self.health.set_policy_reachable(true);
        self.metrics.policy_server_down.set(0);
        tracing::info!(server = %self, "Policy server answers");
    }

    fn is_down(&self, error: &str) {
        self.up.store(false, Ordering::Relaxed);
        self.health.set_policy_reachable(false);
        self.metrics.policy_server_down.set(1);
        tracing::error!(
            server = %self,
            error,
            "Policy server cannot be asked; every call is refused until it answers"
        );
    }
}

/// Where it is; the token is not shown.
impl fmt::Display for PolicyServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = &self.route.address;
        let scheme = if address.is_https() { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}{}", address.host(), address.port(), self.decision)
    }
}

fn not_with_a_decision(status: u16) -> String {
    format!("the policy server answered {status}, not with a decision")
}

fn envelope(input: &[u8]) -> Vec<u8> {
    [b"{\"input\":", input, b"}"].concat()
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests;
