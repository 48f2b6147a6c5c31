//! An agent that answers what a test says.

use std::collections::BTreeMap;
use std::future::pending;

use convoke_agent::{Agent, BoxFuture, Capability, Context, HandlerError, Host, HostError};
use convoke_model::{CapabilityName, Fault, FaultCode, Json};
use serde::Serialize;
use serde_json::json;

use super::door::Cutter;
use super::{CallLog, LoggedCall, TestPolicy};

/// An agent whose capabilities answer what a test says, or fail as it says. In a [`Mesh`] it is a
/// real one: it has an identity and a policy, and its answers travel over mTLS.
///
/// A name that is given twice behaves as it was told last.
///
/// [`Mesh`]: super::Mesh
#[derive(Debug, Clone, Default)]
pub struct MockCallee {
    capabilities: BTreeMap<String, Behaviour>,
    log: CallLog,
}

#[derive(Debug, Clone)]
enum Behaviour {
    Answers(Result<Json, String>),
    Fails(Fault),
    Refuses,
    IsSilent,
    HangsUp,
}

impl MockCallee {
    /// An agent without a capability; it needs at least one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// `capability` gives `result`, whatever the parameters.
    #[must_use]
    pub fn answers(self, capability: &str, result: impl Serialize) -> Self {
        let result = Json::of(&result).map_err(|error| error.to_string());
        self.with(capability, Behaviour::Answers(result))
    }

    /// `capability` fails with this code and sentence.
    #[must_use]
    pub fn fails(self, capability: &str, code: FaultCode, message: &str) -> Self {
        self.with(capability, Behaviour::Fails(Fault::new(code, message)))
    }

    /// `capability` is refused to everybody by the agent's policy; the log does not see its calls.
    #[must_use]
    pub fn refuses(self, capability: &str) -> Self {
        self.with(capability, Behaviour::Refuses)
    }

    /// `capability` never answers: its callers time out.
    #[must_use]
    pub fn never_answers(self, capability: &str) -> Self {
        self.with(capability, Behaviour::IsSilent)
    }

    /// When `capability` is called, every connection of the agent is cut.
    #[must_use]
    pub fn hangs_up(self, capability: &str) -> Self {
        self.with(capability, Behaviour::HangsUp)
    }

    /// What is asked of the agent, now and later.
    #[must_use]
    pub fn log(&self) -> CallLog {
        self.log.clone()
    }

    fn with(mut self, capability: &str, behaviour: Behaviour) -> Self {
        self.capabilities.insert(capability.to_owned(), behaviour);
        self
    }

    /// Whom the policy lets in: everybody, but not to what the agent refuses.
    pub(crate) fn policy(&self) -> TestPolicy {
        let refuses = |behaviour: &Behaviour| matches!(behaviour, Behaviour::Refuses);
        let allowed: Vec<&String> =
            self.capabilities.iter().filter(|(_, it)| !refuses(it)).map(|(name, _)| name).collect();
        // A list of names in JSON is one in Rego.
        TestPolicy::rego(format!(
            "package agentweave.authz\n\nimport rego.v1\n\ndefault allow := false\n\n\
             allow if input.request.method in {}\n",
            json!(allowed)
        ))
    }

    pub(crate) fn host(self, cutter: &Cutter) -> Result<Host, HostError> {
        let Self { capabilities, log } = self;
        let capabilities = capabilities.into_iter().map(|(name, behaviour)| {
            let (log, cutter) = (log.clone(), cutter.clone());
            let called = name.clone();
            let handler = move |_agent, context: Context, params| {
                answer(&called, &behaviour, &log, &cutter, &context, params)
            };
            Capability::new(name, json!({"type": "object"}), handler)
                .description("Answers what a test says")
                .ephemeral()
        });
        Host::with(Mock, capabilities)
    }
}

/// The agent behind every stand-in. What it can do comes from the test.
struct Mock;

impl Agent for Mock {
    fn capabilities() -> Vec<Capability<Self>> {
        Vec::new()
    }
}

fn answer(
    name: &str,
    behaviour: &Behaviour,
    log: &CallLog,
    cutter: &Cutter,
    context: &Context,
    params: Json,
) -> BoxFuture<'static, Result<Json, HandlerError>> {
    // The host has let the name in, so it is one.
    if let Ok(capability) = CapabilityName::parse(name) {
        log.add(LoggedCall { caller: context.caller().clone(), capability, params });
    }
    let answer = match behaviour {
        Behaviour::Answers(Ok(result)) => Ok(result.clone()),
        Behaviour::Answers(Err(why)) => {
            Err(HandlerError::new(format!("the test's answer is no JSON: {why}")))
        }
        Behaviour::Fails(fault) => Err(HandlerError::of_fault(fault.clone())),
        Behaviour::Refuses => Err(HandlerError::new("the policy should have refused this")),
        Behaviour::IsSilent => return Box::pin(pending()),
        Behaviour::HangsUp => {
            cutter.cut();
            return Box::pin(pending());
        }
    };
    Box::pin(std::future::ready(answer))
}
