//! The question and the input document that a policy sees of it.

use std::collections::BTreeMap;

use convoke_model::{Caller, Json, OperationKind, SpiffeId, UnixMillis};
use regorus::Value;

use crate::said::Said;

/// Everything that a policy may know about one operation.
///
/// ```text
/// caller{spiffe_id, trust_domain, path, tenant, app, trust_level}
/// agent{spiffe_id, trust_domain, name}
/// request{method, operation, params, timestamp, protocol}
/// context{remote_addr, request_id, task_id, context_id}
/// delegation{chain[], depth, scope[]}
/// caller_spiffe_id · callee_spiffe_id · resource_spiffe_id · action
/// ```
///
/// What is not known is absent. An anonymous caller has an empty `caller` and no
/// `caller_spiffe_id`. There is no delegation yet: its chain and scope are empty, its depth is 0,
/// and `budget` and `expires_at` are absent.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Who asks.
    pub caller: &'a Caller,
    /// The agent that is asked.
    pub agent: &'a SpiffeId,
    /// The agent's name, as its card has it.
    pub agent_name: &'a str,
    /// What is asked.
    pub operation: OperationKind,
    /// The capability that is called, or that the task belongs to.
    pub method: &'a str,
    /// The parameters of the call.
    pub params: Option<&'a Json>,
    /// The instant of the request.
    pub at: UnixMillis,
    /// The wire, such as `a2a/1.0`.
    pub protocol: &'a str,
    /// Where the caller's connection comes from, as address and port.
    pub remote_addr: &'a str,
    /// The request as logs and audit name it.
    pub request_id: &'a str,
    /// The task that the operation is about.
    pub task_id: Option<&'a str>,
    /// The conversation that the operation belongs to.
    pub context_id: Option<&'a str>,
}

/// Bytes of the document's JSON text that are the same for every question: its keys and marks.
const FIXED_BYTES: usize = 640;

impl Question<'_> {
    /// The size of the document with `params`, in bytes of its JSON text, before any of it is
    /// built. Escapes are not counted, the fixed part is rounded up.
    pub(crate) fn document_bytes(&self, params: Option<&Json>) -> usize {
        let caller = match self.caller {
            // The ID stands in the document twice, its domain and path once each.
            Caller::Principal(principal) => {
                3 * principal.spiffe_id.as_str().len()
                    + principal.tenant.len()
                    + principal.app.len()
            }
            Caller::Anonymous => 0,
        };
        let agent = 3 * self.agent.as_str().len()
            + self.agent.trust_domain_str().len()
            + self.agent_name.len();
        let request =
            2 * self.method.len() + self.protocol.len() + params.map_or(0, |p| p.get().len());
        let context = self.remote_addr.len()
            + self.request_id.len()
            + self.task_id.map_or(0, str::len)
            + self.context_id.map_or(0, str::len);
        FIXED_BYTES + caller + agent + request + context
    }
}

/// Builds documents on one thread from parts that are made once.
pub(crate) struct Inputs {
    pub(crate) keys: Keys,
    delegation: Value,
    operations: [(OperationKind, Value); 3],
    /// The agent that was asked last; a thread mostly serves the same one.
    agent: Option<Agent>,
    /// The protocol that was spoken last.
    protocol: Value,
}

struct Agent {
    id: SpiffeId,
    name: Box<str>,
    id_value: Value,
    document: Value,
}

macro_rules! keys {
    ($($name:ident)*) => {
        /// The document's keys as values; a clone is a count, not an allocation.
        pub(crate) struct Keys {
            $(pub(crate) $name: Value,)*
        }

        impl Keys {
            fn new() -> Self {
                Self { $($name: Value::from(stringify!($name)),)* }
            }
        }
    };
}

keys! {
    action agent allow app callee_spiffe_id caller caller_spiffe_id chain context context_id
    delegation depth method name operation params path protocol reason remote_addr request
    request_id resource_spiffe_id scope spiffe_id task_id tenant timestamp trust_domain trust_level
}

impl Inputs {
    pub(crate) fn new() -> Self {
        let keys = Keys::new();
        let nothing = || Value::from(Vec::new());
        let delegation = object([
            (&keys.chain, nothing()),
            (&keys.depth, Value::from(0_u64)),
            (&keys.scope, nothing()),
        ]);
        let kinds = [OperationKind::SendMessage, OperationKind::GetTask, OperationKind::CancelTask];
        let operations = kinds.map(|kind| (kind, Value::from(kind.as_str())));
        Self { keys, delegation, operations, agent: None, protocol: Value::from("") }
    }

    /// The document of `question`, with `params` as its parameters.
    ///
    /// # Errors
    ///
    /// What the engine says of parameters that it cannot hold, such as a number out of its range.
    pub(crate) fn document(
        &mut self,
        question: &Question<'_>,
        params: Option<&Json>,
    ) -> Result<Value, Said> {
        let params = params
            .map(|json| Value::from_json_str(json.get()))
            .transpose()
            .map_err(|error| Said::of(&error))?;
        let operation = self.operation(question.operation);
        let protocol = self.protocol(question.protocol);
        let (agent, agent_id) = self.agent(question);
        let keys = &self.keys;
        let method = Value::from(question.method);

        let (caller, caller_id) = caller(keys, question.caller);
        let request = object(
            [
                (&keys.method, method.clone()),
                (&keys.operation, operation),
                (&keys.protocol, protocol),
                (&keys.timestamp, Value::from(question.at.to_string())),
            ]
            .into_iter()
            .chain(params.map(|params| (&keys.params, params))),
        );
        let context = object(
            [
                (&keys.remote_addr, Value::from(question.remote_addr)),
                (&keys.request_id, Value::from(question.request_id)),
            ]
            .into_iter()
            .chain(question.task_id.map(|id| (&keys.task_id, Value::from(id))))
            .chain(question.context_id.map(|id| (&keys.context_id, Value::from(id)))),
        );
        Ok(object(
            [
                (&keys.action, method),
                (&keys.agent, agent),
                (&keys.callee_spiffe_id, agent_id.clone()),
                (&keys.caller, caller),
                (&keys.context, context),
                (&keys.delegation, self.delegation.clone()),
                (&keys.request, request),
                (&keys.resource_spiffe_id, agent_id),
            ]
            .into_iter()
            .chain(caller_id.map(|id| (&keys.caller_spiffe_id, id))),
        ))
    }

    fn operation(&self, kind: OperationKind) -> Value {
        match self.operations.iter().find(|(known, _)| *known == kind) {
            Some((_, value)) => value.clone(),
            None => Value::from(kind.as_str()),
        }
    }

    fn protocol(&mut self, protocol: &str) -> Value {
        if !matches!(&self.protocol, Value::String(known) if **known == *protocol) {
            self.protocol = Value::from(protocol);
        }
        self.protocol.clone()
    }

    /// The agent's part of the document, and its ID.
    fn agent(&mut self, question: &Question<'_>) -> (Value, Value) {
        if let Some(known) = &self.agent
            && known.id == *question.agent
            && *known.name == *question.agent_name
        {
            return (known.document.clone(), known.id_value.clone());
        }
        let keys = &self.keys;
        let id_value = Value::from(question.agent.as_str());
        let document = object([
            (&keys.name, Value::from(question.agent_name)),
            (&keys.spiffe_id, id_value.clone()),
            (&keys.trust_domain, Value::from(question.agent.trust_domain_str())),
        ]);
        self.agent = Some(Agent {
            id: question.agent.clone(),
            name: question.agent_name.into(),
            id_value: id_value.clone(),
            document: document.clone(),
        });
        (document, id_value)
    }
}

/// The caller's part of the document, and the caller's ID if there is one.
fn caller(keys: &Keys, caller: &Caller) -> (Value, Option<Value>) {
    let Caller::Principal(principal) = caller else {
        return (Value::new_object(), None);
    };
    let id = Value::from(principal.spiffe_id.as_str());
    let app =
        (!principal.app.is_empty()).then(|| (&keys.app, Value::String(principal.app.clone())));
    let document = object(
        [
            (&keys.path, Value::from(principal.spiffe_id.path())),
            (&keys.spiffe_id, id.clone()),
            (&keys.tenant, Value::String(principal.tenant.clone())),
            (&keys.trust_domain, Value::from(principal.spiffe_id.trust_domain_str())),
            (&keys.trust_level, Value::from(principal.trust_level.as_str())),
        ]
        .into_iter()
        .chain(app),
    );
    (document, Some(id))
}

fn object<'a>(fields: impl IntoIterator<Item = (&'a Value, Value)>) -> Value {
    let fields: BTreeMap<Value, Value> =
        fields.into_iter().map(|(key, value)| (key.clone(), value)).collect();
    Value::from(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Ask;

    fn check(ask: &Ask<'_>, expected: &str) {
        let built = ask.with(|question| {
            let mut inputs = Inputs::new();
            let built = inputs.document(question, question.params).unwrap();
            // The parts that are kept give the same document the second time.
            assert_eq!(inputs.document(question, question.params).unwrap(), built);
            let text = built.to_json_str().unwrap();
            assert!(
                question.document_bytes(question.params) >= Json::of(&built).unwrap().get().len(),
                "{text}"
            );
            built
        });
        assert_eq!(
            built,
            Value::from_json_str(expected).unwrap(),
            "{}",
            built.to_json_str().unwrap()
        );
    }

    #[test]
    fn the_document_of_a_principal() {
        check(
            &Ask::default(),
            r#"{
                "caller": {
                    "spiffe_id": "spiffe://example.org/orchestrator",
                    "trust_domain": "example.org",
                    "path": "/orchestrator",
                    "tenant": "example.org",
                    "trust_level": "internal"
                },
                "agent": {
                    "spiffe_id": "spiffe://example.org/document-worker",
                    "trust_domain": "example.org",
                    "name": "Document Worker Agent"
                },
                "request": {
                    "method": "count_words",
                    "operation": "SendMessage",
                    "params": {"text": "one two"},
                    "timestamp": "2026-12-31T23:59:59.001Z",
                    "protocol": "a2a/1.0"
                },
                "context": {
                    "remote_addr": "127.0.0.1:50000",
                    "request_id": "req-1",
                    "context_id": "ctx-1"
                },
                "delegation": {"chain": [], "depth": 0, "scope": []},
                "caller_spiffe_id": "spiffe://example.org/orchestrator",
                "callee_spiffe_id": "spiffe://example.org/document-worker",
                "resource_spiffe_id": "spiffe://example.org/document-worker",
                "action": "count_words"
            }"#,
        );
    }

    #[test]
    fn the_document_of_nobody() {
        check(
            &Ask { caller: "anonymous", method: "m", params: None },
            r#"{
                "caller": {},
                "agent": {
                    "spiffe_id": "spiffe://example.org/document-worker",
                    "trust_domain": "example.org",
                    "name": "Document Worker Agent"
                },
                "request": {
                    "method": "m",
                    "operation": "SendMessage",
                    "timestamp": "2026-12-31T23:59:59.001Z",
                    "protocol": "a2a/1.0"
                },
                "context": {
                    "remote_addr": "127.0.0.1:50000",
                    "request_id": "req-1",
                    "context_id": "ctx-1"
                },
                "delegation": {"chain": [], "depth": 0, "scope": []},
                "callee_spiffe_id": "spiffe://example.org/document-worker",
                "resource_spiffe_id": "spiffe://example.org/document-worker",
                "action": "m"
            }"#,
        );
    }

    #[test]
    fn parts_that_are_kept_follow_the_question() {
        let mut inputs = Inputs::new();
        Ask::default().with(|question| {
            inputs.document(question, None).unwrap();
            let other = SpiffeId::parse("spiffe://example.org/other").unwrap();
            let next = Question {
                agent: &other,
                agent_name: "Other",
                protocol: "a2a/0.3",
                operation: OperationKind::CancelTask,
                ..*question
            };
            assert_eq!(
                inputs.document(&next, None).unwrap(),
                Inputs::new().document(&next, None).unwrap()
            );
            let document = inputs.document(&next, None).unwrap();
            assert_eq!(document["agent"]["name"], Value::from("Other"));
            assert_eq!(document["request"]["protocol"], Value::from("a2a/0.3"));
            assert_eq!(document["request"]["operation"], Value::from("CancelTask"));
        });
    }
}
