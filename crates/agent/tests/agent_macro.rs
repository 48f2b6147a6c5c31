//! What `#[agent]` makes of an impl block.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use convoke_agent::{
    AgentConfig, BoxFuture, CallError, Context, ContextParts, HandlerError, Host, Metadata,
    Outbound, OutboundCall,
};
use convoke_macros::agent;
use convoke_model::{
    Caller, CapabilityName, FaultCode, Json, RequestId, SpiffeId, TraceContext, UnixMillis,
};
use serde_json::{Value, json};

struct Calculator {
    places: u8,
}

#[derive(serde::Serialize, schemars::JsonSchema)]
struct Quotient {
    /// The whole number
    quotient: u32,
    agent: String,
}

/// Fails with an error of its own.
struct Overflow;

impl From<Overflow> for HandlerError {
    fn from(_: Overflow) -> Self {
        Self::new("too large")
    }
}

const ANY: &str = r#"{"type": "object"}"#;

fn number() -> Value {
    json!({"type": "integer"})
}

#[agent(crate = "convoke_agent")]
impl Calculator {
    /// Divide one number
    /// by another.
    ///
    /// # Errors
    ///
    /// This is not for the card.
    #[capability(ephemeral, tags = ["math", "division"])]
    async fn divide(
        &self,
        context: &Context,
        /// What to divide
        dividend: u32,
        /// By what to divide;
        /// by default by one
        divisor: Option<u32>,
        #[serde(default)]
        #[schemars(range(max = 9))]
        _places: u8,
    ) -> Result<Quotient, HandlerError> {
        let quotient = dividend
            .checked_div(divisor.unwrap_or(1))
            .ok_or_else(|| HandlerError::invalid_field("/divisor", "must not be zero"))?;
        Ok(Quotient { quotient, agent: context.config().metadata.name.clone() })
    }

    /// Not shown
    #[capability(
        name = "square-root",
        description = "Take a root",
        default,
        input_schema = ANY,
        output_schema = number
    )]
    async fn root(
        &self,
        _: &Context,
        mut agent: u32,
        r#type: Option<String>,
    ) -> Result<u32, Overflow> {
        agent = agent.isqrt();
        if r#type.is_some() { Err(Overflow) } else { Ok(agent) }
    }

    /// How many places there are
    #[capability(resume, retries = 3)]
    async fn places(&self, _context: &Context) -> u8 {
        self.helper()
    }

    /// Nobody can call this
    #[cfg(any())]
    #[capability]
    async fn absent(&self, _context: &Context) {}

    fn helper(&self) -> u8 {
        self.places
    }
}

struct Nowhere;

impl Outbound for Nowhere {
    fn call(&self, call: OutboundCall) -> BoxFuture<'_, Result<Json, CallError>> {
        panic!("nobody should call {}", call.agent)
    }
}

fn host() -> Host {
    Host::new(Calculator { places: 7 }).unwrap()
}

fn context() -> Context {
    Context::new(ContextParts {
        caller: Caller::Anonymous,
        request_id: RequestId::parse("r").unwrap(),
        task_id: None,
        context_id: None,
        deadline: None,
        trace: TraceContext::root(1, 1, false),
        cancelled: Default::default(),
        attempt: 1,
        checkpoint: None,
        config: Arc::new(AgentConfig {
            spiffe_id: SpiffeId::parse("spiffe://example.org/calculator").unwrap(),
            metadata: Metadata { name: "Calculator".into(), ..Metadata::default() },
            agent_registry: Default::default(),
            calls: Default::default(),
        }),
        span: tracing::Span::none(),
        outbound: Arc::new(Nowhere),
        outlet: None,
    })
}

async fn call(name: &str, params: &str) -> Result<Json, HandlerError> {
    let host = host();
    let index = host.find(&CapabilityName::parse(name).unwrap()).unwrap();
    host.call(index, context(), Json::parse(params).unwrap()).await
}

#[test]
fn the_card_says_what_the_methods_say() {
    let host = host();
    let [divide, root, places] = host.capabilities() else { panic!("three capabilities") };

    assert_eq!(divide.name.as_str(), "divide");
    assert_eq!(divide.description, "Divide one number by another.");
    assert_eq!(divide.tags, ["math", "division"]);
    assert!(divide.ephemeral && !divide.default);
    let input = &divide.input_schema;
    assert_eq!(input["type"], "object");
    assert_eq!(input["required"], json!(["dividend"]));
    assert_eq!(input["properties"]["dividend"]["description"], "What to divide");
    assert_eq!(
        input["properties"]["divisor"]["description"],
        "By what to divide;\nby default by one"
    );
    assert_eq!(input["properties"]["_places"]["maximum"], 9);
    let output = divide.output_schema.as_ref().unwrap();
    assert_eq!(output["required"], json!(["quotient", "agent"]));

    assert_eq!(root.name.as_str(), "square-root");
    assert_eq!(root.description, "Take a root");
    assert!(!root.ephemeral && root.default);
    assert_eq!(root.input_schema, json!({"type": "object"}));
    assert_eq!(root.output_schema, Some(json!({"type": "integer"})));

    assert!(places.resume && !root.resume && !divide.resume);
    assert_eq!([divide.retries, root.retries, places.retries], [0, 0, 3]);
    assert_eq!(places.input_schema["type"], "object");
    assert_eq!(places.output_schema.as_ref().unwrap()["type"], "integer");
}

#[tokio::test]
async fn parameters_arrive_by_name() {
    let result = call("divide", r#"{"divisor": 2, "unknown": [], "dividend": 85}"#).await.unwrap();
    assert_eq!(result.get(), r#"{"quotient":42,"agent":"Calculator"}"#);
    let result = call("divide", r#"{"dividend": 5}"#).await.unwrap();
    assert_eq!(result.get(), r#"{"quotient":5,"agent":"Calculator"}"#);
    assert_eq!(call("places", "{}").await.unwrap().get(), "7");
    assert_eq!(call("square-root", r#"{"agent": 17}"#).await.unwrap().get(), "4");
}

#[tokio::test]
async fn errors_arrive_as_handler_errors() {
    let error = call("divide", r#"{"dividend": 5, "divisor": 0}"#).await.unwrap_err();
    assert_eq!(error.fault().code, FaultCode::InvalidParams);
    assert_eq!(error.violations()[0].field, "/divisor");
    let error = call("square-root", r#"{"agent": 1, "type": "x"}"#).await.unwrap_err();
    assert_eq!(error.to_string(), "too large");
    // The given schema lets this through; the type does not.
    let error = call("square-root", r#"{"agent": -1}"#).await.unwrap_err();
    assert_eq!(error.fault().code, FaultCode::InvalidParams);
}

#[derive(Default)]
struct Hooked {
    fails: bool,
    seen: std::sync::Mutex<Vec<String>>,
}

#[agent(crate = "convoke_agent")]
impl Hooked {
    /// Do nothing
    #[capability(ephemeral, requires_peer = "spiffe://example.org/orchestrator")]
    async fn one(&self, _context: &Context) {}

    /// Do nothing
    #[capability(requires_peer = ["spiffe://example.org/a", "spiffe://example.org/user/**"])]
    async fn several(&self, _context: &Context) {}

    /// Do nothing
    #[capability]
    async fn open(&self, _context: &Context) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    #[on_start]
    async fn prepare(&self, context: &Context) -> Result<(), Overflow> {
        self.seen.lock().unwrap().push(format!("start {}", context.config().metadata.name));
        if self.fails { Err(Overflow) } else { Ok(()) }
    }

    #[on_stop]
    async fn on_stop(&self) {
        self.seen.lock().unwrap().push("stop".to_owned());
    }

    #[on_svid_update]
    async fn renewed(&self, not_after: UnixMillis) {
        self.seen.lock().unwrap().push(format!("until {not_after}"));
    }
}

#[test]
fn guards_are_read_from_the_attribute() {
    let host = Host::new(Hooked::default()).unwrap();
    let rules: Vec<_> = host
        .capabilities()
        .iter()
        .map(|one| one.requires_peer.as_ref().map(|guard| guard.rule().to_string()))
        .collect();
    assert_eq!(
        rules,
        [
            Some("spiffe://example.org/orchestrator".to_owned()),
            Some("spiffe://example.org/a, spiffe://example.org/user/**".to_owned()),
            None,
        ]
    );
}

#[tokio::test]
async fn marked_methods_are_hooks() {
    let host = Host::new(Hooked::default()).unwrap();
    host.start(&context()).await.unwrap();
    host.svid_update(UnixMillis(0)).await;
    host.stop().await;
    let index = host.find(&CapabilityName::parse("open").unwrap()).unwrap();
    let seen = host.call(index, context(), Json::empty_object()).await.unwrap();
    assert_eq!(seen.get(), r#"["start Calculator","until 1970-01-01T00:00:00.000Z","stop"]"#);

    let host = Host::new(Hooked { fails: true, ..Hooked::default() }).unwrap();
    assert_eq!(host.start(&context()).await.unwrap_err().to_string(), "too large");
}
