//! One call, from its parameters to its result.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use convoke_a2a::client::{build_send, parse_response, result_of};
use convoke_a2a::jsonrpc::RequestIdJson;
use convoke_agent::{AgentCallError, CallError, CallSettings, OutboundCall, RetrySettings};
use convoke_model::{
    CapabilityName, FaultCode, Json, MessageId, RequestId, SpiffeId, TRACEPARENT, TraceContext,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::Client;
use crate::attempts::{Call, Failed};
use crate::cache::{self, Key};
use crate::endpoint::Endpoint;
use crate::error::{self, At, Head};
use crate::observe::CallEvent;

/// How long the answer is still of use to whoever waits for it.
///
/// Source: gRPC over HTTP/2, where it is called `Timeout`. A node of ours reads it from every
/// request, and works for nobody who has gone.
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Most digits of a `grpc-timeout`. Source: as [`GRPC_TIMEOUT`].
const GRPC_TIMEOUT_MAX: u64 = 99_999_999;

/// A call that has not been sent yet.
#[must_use = "a call is sent when `json` or `into` is awaited"]
pub struct ClientCall {
    client: Client,
    agent: SpiffeId,
    capability: String,
    params: Result<Json, String>,
    address: Option<String>,
    settings: CallSettings,
    trace: Option<TraceContext>,
    idempotent: bool,
}

impl ClientCall {
    pub(crate) fn new(
        client: Client,
        agent: SpiffeId,
        capability: &str,
        params: &impl Serialize,
    ) -> Self {
        Self {
            agent,
            capability: capability.to_owned(),
            params: Json::of(params).map_err(|error| error.to_string()),
            address: None,
            settings: client.settings().clone(),
            trace: None,
            idempotent: false,
            client,
        }
    }

    /// Where the agent is, as an `https` URL.
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// How long to wait for the answer, over all attempts, instead of as the client does.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }

    /// Asking twice is as good as asking once: the call may be made again even where the first
    /// attempt may have arrived, and its answer may be kept, where the settings say so. Without
    /// this, only what provably did nothing is made again.
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Makes the call again as `retry` says instead of as the client does.
    pub fn retry(mut self, retry: RetrySettings) -> Self {
        self.settings.retry = retry;
        self
    }

    /// Takes an answer to the same call that is no older than this, and keeps this one's for as
    /// long; for a call that is [`idempotent`](Self::idempotent).
    pub fn cache_ttl(mut self, ttl: Duration) -> Self {
        self.settings.cache_ttl = Some(ttl);
        self
    }

    /// Makes the call a part of this trace.
    pub fn trace(mut self, trace: TraceContext) -> Self {
        self.trace = Some(trace);
        self
    }

    /// Sends the call and waits for its result, as the JSON that the agent wrote.
    ///
    /// # Errors
    ///
    /// [`CallError`]: refused, or failed and how.
    pub async fn json(self) -> Result<Json, CallError> {
        let agent = self.agent;
        let capability = CapabilityName::parse(&self.capability).map_err(|error| {
            AgentCallError::UnknownCapability {
                agent: agent.clone(),
                capability: self.capability.clone(),
                message: format!("the name {error}"),
            }
        })?;
        let address =
            self.address.ok_or_else(|| AgentCallError::NoAddress { agent: agent.clone() })?;
        let params = self.params.map_err(|cause| AgentCallError::InvalidParams {
            agent: agent.clone(),
            capability: capability.clone(),
            message: cause,
            violations: Vec::new(),
        })?;
        let request_id = RequestId::parse(&Uuid::new_v4().to_string())
            .unwrap_or_else(|_| unreachable!("a UUID is within an id's bounds"));
        let call = OutboundCall {
            agent,
            address,
            capability,
            params,
            timeout: self.settings.timeout,
            settings: self.settings,
            request_id,
            context_id: None,
            trace: self.trace,
            idempotent: self.idempotent,
        };
        self.client.perform(call).await
    }

    /// As [`Self::json`], read as a `T`.
    ///
    /// # Errors
    ///
    /// As [`Self::json`]; [`AgentCallError::Protocol`] if the result is no `T`.
    pub async fn into<T: DeserializeOwned>(self) -> Result<T, CallError> {
        let (agent, capability) = (self.agent.clone(), self.capability.clone());
        let json = self.json().await?;
        json.to().map_err(|error| {
            let cause = format!("the result has another shape than expected: {error}");
            match CapabilityName::parse(&capability) {
                Ok(capability) => AgentCallError::Protocol { agent, capability, cause },
                Err(_) => AgentCallError::UnknownCapability { agent, capability, message: cause },
            }
            .into()
        })
    }
}

impl Client {
    /// Makes one call and waits for its result, as the call's settings say.
    ///
    /// Nothing that may have arrived is sent twice, unless the call is idempotent.
    ///
    /// # Errors
    ///
    /// [`CallError`]: refused, or failed and how.
    pub async fn perform(&self, call: OutboundCall) -> Result<Json, CallError> {
        let deadline = deadline_after(call.timeout);
        let concurrency_max = call.settings.concurrency_max;
        let endpoint = self.endpoint(&call.agent, &call.address, concurrency_max)?;
        let ttl = call.settings.cache_ttl.filter(|_| call.idempotent);
        let key = ttl.and_then(|_| {
            let (caller, agent) = (self.spiffe_id(), &endpoint.agent);
            // What an agent said is good as long as the trust that let it in is unbroken. Of one that
            // is not trusted nothing is, and asking says so.
            let since = self.0.source.current().trusted_since(&agent.trust_domain())?;
            Key::new(caller, agent, since, &endpoint.shown, &call.capability, &call.params)
        });
        let (Some(ttl), Some(key)) = (ttl, key) else {
            return self.ask(&endpoint, &call, deadline).await;
        };
        let ask = || self.ask(&endpoint, &call, deadline);
        // On the heap, because it is as large again as a call that is not kept.
        let kept = timeout_at(deadline, Box::pin(self.0.cache.get(key, ttl, ask))).await;
        let (answer, from) = kept.unwrap_or_else(|_elapsed| {
            let (agent, capability) = (call.agent.clone(), call.capability.clone());
            Err(AgentCallError::TimedOut { agent, capability, after: call.timeout }.into())
        })?;
        if from == cache::From::Kept {
            let attempts = &self.0.attempts;
            attempts.tell(&endpoint.call(&call, deadline), CallEvent::Cached);
        }
        Ok(answer)
    }

    async fn ask(
        &self,
        endpoint: &Arc<Endpoint>,
        call: &OutboundCall,
        deadline: Instant,
    ) -> Result<Json, CallError> {
        let at = endpoint.at(&call.capability);
        // Random, so that no agent can tell from one call how many others were made. The same for
        // all attempts, so that an agent that remembers what it did knows the call again.
        let name = Uuid::new_v4().to_string();
        let id = RequestIdJson::string(&name);
        let message_id = MessageId::parse(&name).map_err(|error| at.protocol(error))?;
        let (headers, body) = build_send(Some(&call.capability), &call.params, &message_id, &id);
        let about = endpoint.call(call, deadline);
        self.exchange(endpoint, &about, call.timeout, (&headers, &body), |head, body| {
            let answer = parse_response(&id, head.status, head.headers, body);
            let answer = answer.map_err(|error| error::of_answer(at, error, head))?;
            result_of(&answer).map_err(|error| error::of_result(at, &answer, &error))
        })
        .await
    }

    /// Sends one request, as often as `about` allows within its `timeout`, and has `read` look at
    /// each answer.
    pub(crate) async fn exchange<T>(
        &self,
        endpoint: &Endpoint,
        about: &Call<'_>,
        timeout: Duration,
        (headers, body): (&HeaderMap, &Bytes),
        read: impl Fn(&Head<'_>, &[u8]) -> Result<T, Failed>,
    ) -> Result<T, CallError> {
        let at = endpoint.at(about.capability);
        let path: Uri = endpoint.address.path().parse().map_err(|error| at.protocol(error))?;
        let (path, read) = (&path, &read);
        let attempt = |span| async move {
            let begun = Instant::now();
            let until = about.attempt_until(begun);
            let left = until.saturating_duration_since(begun);
            let timeout = if until == about.deadline { timeout } else { left };
            let request = request(path, headers, body, Some(left), span);
            let route = endpoint.route(&self.0.source);
            let source = &self.0.source;
            let sent = self.0.pool.send(&route, request, until);
            let response = source.while_trusting(at.agent, sent).await;
            let response = response.ok_or_else(|| error::untrusted(at))?;
            let response = response.map_err(|error| error::of_send(at, &error, timeout))?;
            let head = Head { status: response.status(), headers: response.headers() };
            read(&head, response.body())
                .map_err(|failed| Failed { error: in_time(failed.error, timeout, until), ..failed })
        };
        self.0.attempts.run(&endpoint.gate, about, attempt).await
    }
}

/// How much earlier than we an agent may find that the time of a call is over: what it is told is
/// rounded down to milliseconds, and its answer takes its way.
const OVER_BEFORE: Duration = Duration::from_millis(20);

/// An attempt whose time is over took too long, whichever side noticed first.
fn in_time(error: CallError, after: Duration, until: Instant) -> CallError {
    let over = until.saturating_duration_since(Instant::now()) <= OVER_BEFORE;
    match error {
        CallError::Failed(AgentCallError::Remote {
            agent,
            capability,
            code: FaultCode::DeadlineExceeded,
            ..
        }) if over => AgentCallError::TimedOut { agent, capability, after }.into(),
        other => other,
    }
}

impl Endpoint {
    pub(crate) fn at<'a>(&'a self, capability: &'a CapabilityName) -> At<'a> {
        At { agent: &self.agent, address: &self.shown, capability }
    }

    fn call<'a>(&'a self, call: &'a OutboundCall, deadline: Instant) -> Call<'a> {
        Call {
            agent: &self.agent,
            address: &self.shown,
            capability: &call.capability,
            settings: &call.settings,
            idempotent: call.idempotent,
            trace: call.trace,
            deadline,
        }
    }
}

/// One attempt, with what only it has: the time that is left, if it has to end, and its place in the
/// trace.
pub(crate) fn request(
    path: &Uri,
    headers: &HeaderMap,
    body: &Bytes,
    left: Option<Duration>,
    span: Option<TraceContext>,
) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body.clone()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = path.clone();
    *request.headers_mut() = headers.clone();
    if let Some(left) = left {
        request.headers_mut().insert(GRPC_TIMEOUT, visible(grpc_timeout(left)));
    }
    if let Some(span) = span {
        request.headers_mut().insert(TRACEPARENT, visible(span.to_string()));
    }
    request
}

/// Milliseconds while they fit, rounded down: a callee had better stop too early than too late.
fn grpc_timeout(left: Duration) -> String {
    match u64::try_from(left.as_millis()) {
        Ok(millis) if millis <= GRPC_TIMEOUT_MAX => format!("{}m", millis.max(1)),
        _ => format!("{}S", left.as_secs().min(GRPC_TIMEOUT_MAX)),
    }
}

fn visible(text: String) -> HeaderValue {
    HeaderValue::try_from(text)
        .unwrap_or_else(|_| unreachable!("digits, letters and dashes may stand in a header"))
}

/// The instant in `timeout`; a time that no clock reaches is a long one.
pub(crate) fn deadline_after(timeout: Duration) -> Instant {
    const LONG: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
    Instant::now() + timeout.min(LONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_fits_into_eight_digits() {
        let check = |left: Duration, expected: &str| assert_eq!(grpc_timeout(left), expected);
        check(Duration::ZERO, "1m");
        check(Duration::from_micros(1_999), "1m");
        check(Duration::from_secs(30), "30000m");
        check(Duration::from_millis(99_999_999), "99999999m");
        check(Duration::from_millis(100_000_000), "100000S");
        check(Duration::MAX, "99999999S");
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_whose_time_is_over_took_too_long_whoever_noticed() {
        let agent = SpiffeId::parse("spiffe://example.org/worker").unwrap();
        let capability = CapabilityName::parse("count").unwrap();
        let remote = |code| -> CallError {
            let (agent, capability) = (agent.clone(), capability.clone());
            AgentCallError::Remote { agent, capability, code, message: String::new() }.into()
        };
        let check = |code, left: Duration, expected: bool| {
            let told = in_time(remote(code), Duration::from_secs(2), Instant::now() + left);
            let late = matches!(told, CallError::Failed(AgentCallError::TimedOut { .. }));
            assert_eq!(late, expected, "{code:?} {left:?}");
        };
        check(FaultCode::DeadlineExceeded, Duration::ZERO, true);
        check(FaultCode::DeadlineExceeded, OVER_BEFORE, true);
        check(FaultCode::DeadlineExceeded, Duration::from_secs(1), false);
        check(FaultCode::Internal, Duration::ZERO, false);
    }
}
