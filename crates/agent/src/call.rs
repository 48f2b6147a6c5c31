//! Calling another agent.

use std::pin::Pin;
use std::time::Duration;

use convoke_model::{
    CapabilityName, ContextId, FieldViolation, IdError, Json, JsonError, RequestId, SpiffeId,
    TraceContext,
};
use serde::de::DeserializeOwned;

use crate::{AgentCallError, CallError, CallSettings, Context, RegistryEntry, RetrySettings};

/// How much later than its time a call is ended from outside. Whoever makes it watches the time
/// too, and knows better than we do what it waited for.
const GRACE: Duration = Duration::from_millis(20);

/// A future on the heap that any thread may run.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The way out: the node implements it over its client, a test over whatever it likes.
pub trait Outbound: Send + Sync {
    /// Makes one call. The callee's identity is checked against [`OutboundCall::agent`] before
    /// anything is said.
    ///
    /// The future is dropped a moment after the call's time is over, and when the request that it is
    /// made for is cancelled. An implementation need not watch either, but one that watches the time
    /// can say what it waited for, and may tell the callee.
    fn call(&self, call: OutboundCall) -> BoxFuture<'_, Result<Json, CallError>>;
}

/// One call, ready to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundCall {
    /// Who has to answer.
    pub agent: SpiffeId,
    /// Where it is.
    pub address: String,
    /// What is asked of it.
    pub capability: CapabilityName,
    /// With what.
    pub params: Json,
    /// How long the answer may take: what `settings` say, or what the request that the call is made
    /// for has left, whichever is shorter.
    pub timeout: Duration,
    /// How this agent is called, as the configuration and the code of the handler have it.
    pub settings: CallSettings,
    /// The request that the call is made for, for this side's logs. It is not sent: A2A has no place
    /// for it, and the trace lays the logs of both sides together.
    pub request_id: RequestId,
    /// The conversation that the request belongs to. It is not sent: an agent has to refuse a context
    /// that it does not take, and what somebody has with us is no matter of those whom we call.
    pub context_id: Option<ContextId>,
    /// The place in its trace of the request that the call is made for.
    pub trace: Option<TraceContext>,
    /// Whether asking twice is as good as asking once, so that a call whose answer was lost may be
    /// made again.
    pub idempotent: bool,
}

/// Somebody that can be called: a [`SpiffeId`], or an entry of `agent_registry`, which also knows
/// where.
pub trait Callee {
    /// Who it is and, if known, where.
    fn callee(self) -> (SpiffeId, Option<String>);
}

impl Callee for SpiffeId {
    fn callee(self) -> (SpiffeId, Option<String>) {
        (self, None)
    }
}

impl Callee for &SpiffeId {
    fn callee(self) -> (SpiffeId, Option<String>) {
        (self.clone(), None)
    }
}

impl Callee for &RegistryEntry {
    fn callee(self) -> (SpiffeId, Option<String>) {
        (self.spiffe_id.clone(), Some(self.address.clone()))
    }
}

/// A call that has not been made yet; [`json`](Self::json) or [`into`](Self::into) makes it.
#[must_use = "a call is made by `.json().await` or `.into().await`"]
#[derive(Debug)]
pub struct CallBuilder {
    context: Context,
    agent: SpiffeId,
    address: Option<String>,
    capability: String,
    params: Result<Json, JsonError>,
    timeout: Option<Duration>,
    retry: Option<RetrySettings>,
    cache_ttl: Option<Duration>,
    idempotent: bool,
}

impl CallBuilder {
    pub(crate) fn new(
        context: Context,
        agent: impl Callee,
        capability: &str,
        params: Result<Json, JsonError>,
    ) -> Self {
        let (agent, address) = agent.callee();
        let capability = capability.to_owned();
        Self {
            context,
            agent,
            address,
            capability,
            params,
            timeout: None,
            retry: None,
            cache_ttl: None,
            idempotent: false,
        }
    }

    /// Calls the agent at this `https` URL instead of where `agent_registry` says.
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// Waits this long for the answer, over all attempts, instead of as configured; never longer
    /// than the request that the call is made for has left.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Asking twice is as good as asking once: the call may be made again even where the first
    /// attempt may have arrived, and its answer may be kept, where the settings say so. Without
    /// this, only what provably did nothing is made again.
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Makes the call again as `retry` says instead of as configured.
    pub fn retry(mut self, retry: RetrySettings) -> Self {
        self.retry = Some(retry);
        self
    }

    /// Takes an answer to the same call that is no older than this, and keeps this one's for as
    /// long, instead of as configured; for a call that is [`idempotent`](Self::idempotent).
    pub fn cache_ttl(mut self, ttl: Duration) -> Self {
        self.cache_ttl = Some(ttl);
        self
    }

    /// Makes the call and gives the result as the other agent wrote it.
    ///
    /// # Errors
    ///
    /// [`CallError::Refused`] if the other agent said no, [`CallError::Failed`] for all else.
    pub async fn json(self) -> Result<Json, CallError> {
        let (context, call) = self.ready()?;
        make(&context, call).await
    }

    /// Makes the call and reads the result as a `T`.
    ///
    /// # Errors
    ///
    /// As [`json`](Self::json); [`AgentCallError::Protocol`] if the result has another shape.
    pub async fn into<T: DeserializeOwned>(self) -> Result<T, CallError> {
        let (context, call) = self.ready()?;
        let (agent, capability) = (call.agent.clone(), call.capability.clone());
        make(&context, call).await?.to().map_err(|error| {
            AgentCallError::Protocol { agent, capability, cause: error.to_string() }.into()
        })
    }

    fn ready(self) -> Result<(Context, OutboundCall), CallError> {
        let Self {
            context,
            agent,
            address,
            capability,
            params,
            timeout,
            retry,
            cache_ttl,
            idempotent,
        } = self;
        let capability = match CapabilityName::parse(&capability) {
            Ok(capability) => capability,
            Err(error) => return Err(unknown(agent, capability, &error)),
        };
        let params = match params {
            Ok(params) if params.is_object() => params,
            Ok(_) => return Err(not_params(agent, capability, "must be an object".into())),
            Err(error) => return Err(not_params(agent, capability, error.to_string())),
        };
        let configured = || context.config().address_of(&agent).map(str::to_owned);
        let Some(address) = address.or_else(configured) else {
            return Err(AgentCallError::NoAddress { agent }.into());
        };
        let mut settings = context.config().calls_to(&agent, &address).clone();
        settings.timeout = timeout.unwrap_or(settings.timeout);
        settings.retry = retry.unwrap_or(settings.retry);
        settings.cache_ttl = cache_ttl.or(settings.cache_ttl);
        let remaining = context.remaining();
        let timeout = remaining.map_or(settings.timeout, |left| left.min(settings.timeout));
        if timeout.is_zero() {
            return Err(AgentCallError::TimedOut { agent, capability, after: timeout }.into());
        }
        let request_id = context.request_id().clone();
        let context_id = context.context_id().cloned();
        let call = OutboundCall {
            agent,
            address,
            capability,
            params,
            timeout,
            settings,
            request_id,
            context_id,
            trace: Some(context.trace()),
            idempotent,
        };
        Ok((context, call))
    }
}

async fn make(context: &Context, call: OutboundCall) -> Result<Json, CallError> {
    tracing::info!(target = %call.agent, capability = %call.capability, "Calling agent");
    let begun = tokio::time::Instant::now();
    let (agent, capability, after) = (call.agent.clone(), call.capability.clone(), call.timeout);

    let result = tokio::select! {
        biased;
        () = context.cancelled().cancelled() => {
            Err(AgentCallError::Canceled { agent: agent.clone(), capability }.into())
        }
        answer = tokio::time::timeout(after + GRACE, context.outbound().call(call)) => {
            answer.unwrap_or_else(|_| {
                Err(AgentCallError::TimedOut { agent: agent.clone(), capability, after }.into())
            })
        }
    };

    let duration_ms = millis(begun.elapsed());
    match &result {
        Ok(_) => tracing::info!(target = %agent, duration_ms, "Agent call completed"),
        Err(error) => tracing::warn!(target = %agent, duration_ms, %error, "Agent call failed"),
    }
    result
}

fn unknown(agent: SpiffeId, capability: String, error: &IdError) -> CallError {
    let message = format!("the name {error}");
    AgentCallError::UnknownCapability { agent, capability, message }.into()
}

fn not_params(agent: SpiffeId, capability: CapabilityName, description: String) -> CallError {
    let message = format!("the parameters {description}");
    let violations = vec![FieldViolation { field: String::new(), description }];
    AgentCallError::InvalidParams { agent, capability, message, violations }.into()
}

/// Milliseconds with one place, as the log shows durations.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex};

    use convoke_model::{Caller, limits};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{AgentConfig, CallSettings, ContextParts, Metadata};

    pub(crate) const WORKER: &str = "spiffe://example.org/worker";

    /// Remembers what it was asked and answers with `answer`, or never.
    struct Recorder {
        seen: Mutex<Vec<OutboundCall>>,
        answer: Option<Result<Json, CallError>>,
    }

    impl Outbound for Recorder {
        fn call(&self, call: OutboundCall) -> BoxFuture<'_, Result<Json, CallError>> {
            self.seen.lock().unwrap().push(call);
            Box::pin(async move {
                match &self.answer {
                    Some(answer) => answer.clone(),
                    None => std::future::pending().await,
                }
            })
        }
    }

    pub(crate) fn worker() -> SpiffeId {
        SpiffeId::parse(WORKER).unwrap()
    }

    pub(crate) fn parts(outbound: Arc<dyn Outbound>) -> ContextParts {
        let entry = RegistryEntry::new(worker(), "https://worker:8443");
        ContextParts {
            caller: Caller::Anonymous,
            request_id: RequestId::parse("r-1").unwrap(),
            task_id: None,
            context_id: None,
            deadline: None,
            trace: TraceContext::root(1, 1, false),
            cancelled: CancellationToken::new(),
            attempt: 1,
            checkpoint: None,
            config: Arc::new(AgentConfig {
                spiffe_id: SpiffeId::parse("spiffe://example.org/caller").unwrap(),
                metadata: Metadata { name: "Caller".into(), ..Metadata::default() },
                agent_registry: [("worker".to_owned(), entry)].into(),
                calls: CallSettings::default(),
            }),
            span: tracing::Span::none(),
            outbound,
            outlet: None,
        }
    }

    fn recorder(answer: Option<Result<Json, CallError>>) -> Arc<Recorder> {
        Arc::new(Recorder { seen: Mutex::default(), answer })
    }

    fn count_words() -> CapabilityName {
        CapabilityName::parse("count_words").unwrap()
    }

    #[tokio::test]
    async fn a_call_says_who_where_what_and_how_long() {
        let recorder = recorder(Some(Ok(Json::parse("42.0").unwrap())));
        let context = Context::new(parts(recorder.clone()));
        let params = serde_json::json!({"text": "a b"});

        let result = context.call_agent(worker(), "count_words", &params).json().await.unwrap();
        assert_eq!(result.get(), "42.0");
        let entry = context.config().registry("worker").unwrap();
        let call = context.call_agent(entry, "count_words", &params);
        let call = call.address("https://elsewhere").timeout(Duration::from_millis(5));
        assert_eq!(call.into::<f64>().await, Ok(42.0));

        let first = OutboundCall {
            agent: worker(),
            address: "https://worker:8443".into(),
            capability: count_words(),
            params: Json::parse(r#"{"text":"a b"}"#).unwrap(),
            timeout: limits::CALL_TIMEOUT_DEFAULT,
            settings: CallSettings::default(),
            request_id: RequestId::parse("r-1").unwrap(),
            context_id: None,
            trace: Some(TraceContext::root(1, 1, false)),
            idempotent: false,
        };
        let short = Duration::from_millis(5);
        let second = OutboundCall {
            address: "https://elsewhere".into(),
            timeout: short,
            settings: CallSettings { timeout: short, ..CallSettings::default() },
            ..first.clone()
        };
        assert_eq!(*recorder.seen.lock().unwrap(), [first, second]);
    }

    #[tokio::test]
    async fn a_call_is_made_as_the_code_says_and_else_as_configured() {
        let recorder = recorder(Some(Ok(Json::parse("1").unwrap())));
        let minute = Duration::from_secs(60);
        let configured = CallSettings {
            timeout: minute,
            concurrency_max: 3,
            cache_ttl: Some(minute),
            ..CallSettings::default()
        };
        let mut parts = parts(recorder.clone());
        let config = Arc::make_mut(&mut parts.config);
        config.agent_registry.get_mut("worker").unwrap().calls = configured.clone();
        let context = Context::new(parts);
        let call = || context.call_agent(worker(), "count_words", serde_json::json!({}));
        let once = RetrySettings { attempts_max: 1, ..RetrySettings::default() };
        let second = Duration::from_secs(1);

        call().json().await.unwrap();
        call().idempotent().retry(once.clone()).cache_ttl(second).json().await.unwrap();
        // Another address is another place, so the entry says nothing of it.
        call().address("https://elsewhere").json().await.unwrap();

        let seen = recorder.seen.lock().unwrap();
        let made: Vec<_> = seen.iter().map(|call| (&call.settings, call.idempotent)).collect();
        let changed = CallSettings { retry: once, cache_ttl: Some(second), ..configured.clone() };
        assert_eq!(
            made,
            [(&configured, false), (&changed, true), (&CallSettings::default(), false)]
        );
        assert_eq!(seen[0].timeout, minute);
    }

    #[tokio::test]
    async fn a_call_that_cannot_be_made_is_not() {
        let recorder = recorder(None);
        let context = Context::new(parts(recorder.clone()));
        let nobody = SpiffeId::parse("spiffe://example.org/nobody").unwrap();
        let fails = async |agent: &SpiffeId, name: &str, params: serde_json::Value| {
            context.call_agent(agent, name, params).json().await.unwrap_err().to_string()
        };
        let none = serde_json::json!({});
        assert_eq!(
            fails(&nobody, "count_words", none.clone()).await,
            "no address for spiffe://example.org/nobody: give one, or name the agent in \
             `agent_registry`"
        );
        assert_eq!(
            fails(&worker(), "count/words", none).await,
            "spiffe://example.org/worker has no capability `count/words`: the name `/` is not \
             allowed; use letters, digits, `_`, `-`, `.` and begin with a letter"
        );
        assert_eq!(
            fails(&worker(), "count_words", serde_json::json!([1])).await,
            "spiffe://example.org/worker cannot take these parameters of `count_words`: the \
             parameters must be an object"
        );
        assert!(recorder.seen.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn no_call_outlives_its_timeout_or_its_request() {
        let now = tokio::time::Instant::now().into_std();
        let late = |after| {
            let capability = count_words();
            CallError::from(AgentCallError::TimedOut { agent: worker(), capability, after })
        };
        let (short, long) = (Duration::from_secs(2), Duration::from_secs(60));
        for (deadline, timeout, after) in [
            (None, None, limits::CALL_TIMEOUT_DEFAULT),
            (None, Some(short), short),
            (Some(now + long), Some(short), short),
        ] {
            let context = Context::new(ContextParts { deadline, ..parts(recorder(None)) });
            let mut call = context.call_agent(worker(), "count_words", serde_json::json!({}));
            if let Some(timeout) = timeout {
                call = call.timeout(timeout);
            }
            let begun = tokio::time::Instant::now();
            assert_eq!(call.json().await, Err(late(after)));
            assert_eq!(begun.elapsed().as_secs(), after.as_secs());
        }
        // By the clock that the tests stopped, 34 s of the request's minute are over. Timers count
        // whole milliseconds, so the rest is 26 s but for one of those.
        let deadline = Some(now + long);
        let context = Context::new(ContextParts { deadline, ..parts(recorder(None)) });
        let left = context.remaining().unwrap();
        assert_eq!(left.as_secs_f64().round(), 26.0);
        let call = context.call_agent(worker(), "count_words", serde_json::json!({}));
        assert_eq!(call.json().await, Err(late(left)));
        assert_eq!(context.remaining(), Some(Duration::ZERO));
        let call = context.call_agent(worker(), "count_words", serde_json::json!({}));
        assert_eq!(call.json().await, Err(late(Duration::ZERO)));
    }

    #[tokio::test]
    async fn a_cancelled_request_ends_its_calls() {
        let parts = parts(recorder(None));
        let cancel = parts.cancelled.clone();
        let context = Context::new(parts);
        let call = context.call_agent(worker(), "count_words", serde_json::json!({})).json();
        let (result, ()) = tokio::join!(call, async { cancel.cancel() });
        let (agent, capability) = (worker(), count_words());
        assert_eq!(result, Err(AgentCallError::Canceled { agent, capability }.into()));
    }

    #[tokio::test]
    async fn a_result_of_another_shape_is_named() {
        let context = Context::new(parts(recorder(Some(Ok(Json::parse("[1]").unwrap())))));
        let call = context.call_agent(worker(), "count_words", serde_json::json!({}));
        let error = call.into::<String>().await.unwrap_err().to_string();
        assert!(
            error.starts_with(
                "spiffe://example.org/worker gave an answer to `count_words` that cannot be read: \
                 invalid type: sequence, expected a string"
            ),
            "{error}"
        );
    }
}
