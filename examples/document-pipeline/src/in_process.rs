//! Both agents in the test's own process: a call goes straight from one host to the other.

use std::sync::{Arc, Mutex};

use convoke_agent::{
    AgentCallError, AgentConfig, BoxFuture, CallError, CallSettings, Context, ContextParts, Host,
    Metadata, Outbound, OutboundCall, Refusal, RegistryEntry,
};
use convoke_model::{
    Caller, CapabilityName, Fault, Json, Principal, RequestId, SpiffeId, TraceContext,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{DocumentOrchestrator, DocumentWorker};

/// The two agents and what was asked of the worker.
pub(crate) struct Network {
    pub(crate) worker: Arc<Host>,
    pub(crate) orchestrator: Host,
    failing_on: Option<&'static str>,
    asked: Arc<Mutex<Vec<String>>>,
}

/// The way from the orchestrator to the worker.
struct ToWorker {
    worker: Arc<Host>,
    failing_on: Option<&'static str>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Network {
    pub(crate) fn new() -> Self {
        Self {
            worker: Arc::new(Host::new(DocumentWorker).unwrap()),
            orchestrator: Host::new(DocumentOrchestrator).unwrap(),
            failing_on: None,
            asked: Arc::default(),
        }
    }

    /// The worker refuses whoever sends `text`.
    pub(crate) fn failing_on(mut self, text: &'static str) -> Self {
        self.failing_on = Some(text);
        self
    }

    /// The capabilities that the worker was asked for, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) async fn call_worker(&self, name: &str, params: &Value) -> Result<Json, Fault> {
        let context = self.context("document-worker", "Document Worker Agent");
        call(&self.worker, context, name, Json::of(params).unwrap()).await
    }

    pub(crate) async fn call_orchestrator(
        &self,
        name: &str,
        params: &Value,
    ) -> Result<Json, Fault> {
        let context = self.context("orchestrator", "Document Orchestrator Agent");
        call(&self.orchestrator, context, name, Json::of(params).unwrap()).await
    }

    fn context(&self, path: &str, name: &str) -> Context {
        let to_worker = ToWorker {
            worker: Arc::clone(&self.worker),
            failing_on: self.failing_on,
            asked: Arc::clone(&self.asked),
        };
        context(path, name, Arc::new(to_worker))
    }
}

impl Outbound for ToWorker {
    fn call(&self, request: OutboundCall) -> BoxFuture<'_, Result<Json, CallError>> {
        Box::pin(async move {
            let OutboundCall { agent, address, capability, params, .. } = request;
            assert_eq!(address, "https://localhost:8443");
            self.asked.lock().unwrap().push(capability.to_string());
            // Later calls overtake earlier ones now and then, as on a network.
            for _ in 0..params.get().len() % 3 {
                tokio::task::yield_now().await;
            }
            let sent: Value = params.to().unwrap();
            if let Some(message) = self.failing_on.filter(|text| sent["text"] == *text) {
                let message = message.to_owned();
                let at_handshake = false;
                return Err(Refusal { agent, capability, message, at_handshake }.into());
            }
            let nowhere = Arc::new(ToWorker {
                worker: Arc::clone(&self.worker),
                failing_on: None,
                asked: Arc::default(),
            });
            let context = context("document-worker", "Document Worker Agent", nowhere);
            let answer = call(&self.worker, context, capability.as_str(), params).await;
            answer.map_err(|fault| {
                let Fault { code, message, .. } = fault;
                AgentCallError::Remote { agent, capability, code, message }.into()
            })
        })
    }
}

/// What the node does between the wire and the handler.
async fn call(host: &Host, context: Context, name: &str, params: Json) -> Result<Json, Fault> {
    let index = host.find(&CapabilityName::parse(name).unwrap()).unwrap();
    host.check_input(index, &params)?;
    let result = host.call(index, context, params).await.map_err(|error| error.into_fault())?;
    host.check_output(index, &result)?;
    Ok(result)
}

fn context(path: &str, name: &str, outbound: Arc<dyn Outbound>) -> Context {
    let id = |path: &str| SpiffeId::parse(&format!("spiffe://example.org/{path}")).unwrap();
    let caller = Principal::from_verified_svid(id("user/ann"), &id(path));
    let worker = RegistryEntry::new(id("document-worker"), "https://localhost:8443");
    Context::new(ContextParts {
        caller: Caller::Principal(Arc::new(caller)),
        request_id: RequestId::parse("r-1").unwrap(),
        task_id: None,
        context_id: None,
        deadline: None,
        trace: TraceContext::root(1, 1, false),
        cancelled: CancellationToken::new(),
        attempt: 1,
        checkpoint: None,
        config: Arc::new(AgentConfig {
            spiffe_id: id(path),
            metadata: Metadata { name: name.into(), ..Metadata::default() },
            agent_registry: [("document_worker".to_owned(), worker)].into(),
            calls: CallSettings::default(),
        }),
        span: tracing::Span::none(),
        outbound,
        outlet: None,
    })
}
