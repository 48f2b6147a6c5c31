//! The question and the input document that a policy sees of it.

use std::collections::BTreeMap;

use convoke_model::{Caller, Json, OperationKind, SpiffeId, UnixMillis};
use regorus::Value;

use crate::field::{Field, Fields};
use crate::said::Said;

/// Everything that a policy may know about one operation.
///
/// ```text
/// caller{spiffe_id, trust_domain, path, tenant, app, trust_level}
/// agent{spiffe_id, trust_domain, name}
/// request{method, operation, params, timestamp, protocol}
/// context{remote_addr, request_id, task_id, context_id}
/// delegation{chain[], depth, scope[]}
/// caller_spiffe_id · callee_spiffe_id · resource_spiffe_id · action · method · timestamp
/// caller_trust_domain · resource_trust_domain
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
const FIXED_BYTES: usize = 768;

impl Question<'_> {
    /// The size of the whole document with `params`, in bytes of its JSON text, before any of it is
    /// built. Escapes are not counted, the fixed part is rounded up. A policy that reads less is
    /// given less, so that what fits depends on the question and `params` alone.
    pub(crate) fn document_bytes(&self, params: Option<&Json>) -> usize {
        let caller = match self.caller {
            // The ID stands in the document twice, its domain twice and its path once.
            Caller::Principal(principal) => {
                4 * principal.spiffe_id.as_str().len()
                    + principal.tenant.len()
                    + principal.app.len()
            }
            Caller::Anonymous => 0,
        };
        let agent = 3 * self.agent.as_str().len()
            + 2 * self.agent.trust_domain_str().len()
            + self.agent_name.len();
        let request =
            3 * self.method.len() + self.protocol.len() + params.map_or(0, |p| p.get().len());
        let context = self.remote_addr.len()
            + self.request_id.len()
            + self.task_id.map_or(0, str::len)
            + self.context_id.map_or(0, str::len);
        FIXED_BYTES + caller + agent + request + context
    }
}

/// Builds one policy's documents on one thread, from parts that are made anew only when they
/// change: callers, agents and methods mostly come again.
pub(crate) struct Inputs {
    /// The keys of a decision object.
    pub(crate) allow: Value,
    pub(crate) reason: Value,
    entries: Vec<(Value, Part)>,
}

/// What stands at a key of the document itself.
enum Part {
    Leaf(Leaf),
    Section(Section),
}

struct Section {
    leaves: Vec<Leaf>,
    /// The last object, unless it held parameters.
    built: Option<Value>,
}

struct Leaf {
    field: Field,
    key: Value,
    /// The last value, undefined if it was not known.
    value: Value,
}

impl Inputs {
    /// Documents of these fields alone. A section is there if one of its fields is.
    pub(crate) fn new(fields: Fields) -> Self {
        let mut entries: Vec<(Value, Part)> = Vec::new();
        // The fields of a section follow each other.
        let mut last_section = "";
        for field in fields.iter() {
            let (section, name) = field.place();
            let leaf = Leaf::new(field, name);
            match entries.last_mut() {
                _ if section.is_empty() => entries.push((leaf.key.clone(), Part::Leaf(leaf))),
                Some((_, Part::Section(known))) if section == last_section => {
                    known.leaves.push(leaf);
                }
                _ => {
                    let part = Part::Section(Section { leaves: vec![leaf], built: None });
                    entries.push((Value::from(section), part));
                }
            }
            last_section = section;
        }
        Self { allow: Value::from("allow"), reason: Value::from("reason"), entries }
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
        let mut params = params
            .map(|json| Value::from_json_str(json.get()))
            .transpose()
            .map_err(|error| Said::of(&error))?;
        let entries = self.entries.iter_mut().map(|(key, part)| {
            let value = match part {
                Part::Leaf(leaf) => {
                    leaf.follow(question);
                    leaf.value.clone()
                }
                Part::Section(section) => section.follow(question, &mut params),
            };
            (key.clone(), value)
        });
        Ok(object(entries))
    }
}

impl Section {
    fn follow(&mut self, question: &Question<'_>, params: &mut Option<Value>) -> Value {
        let mut is_same = true;
        let mut holds_params = false;
        for leaf in &mut self.leaves {
            is_same &= leaf.follow(question);
            holds_params |= leaf.field == Field::Params;
        }
        if let (Some(built), true) = (&self.built, is_same) {
            return built.clone();
        }
        let built = object(self.leaves.iter().map(|leaf| {
            let value = match leaf.field {
                Field::Params => params.take().unwrap_or(Value::Undefined),
                _ => leaf.value.clone(),
            };
            (leaf.key.clone(), value)
        }));
        // Parameters are as large as a caller likes: nothing here keeps them alive.
        self.built = (!holds_params).then(|| built.clone());
        built
    }
}

impl Leaf {
    fn new(field: Field, name: &'static str) -> Self {
        let nothing = || Value::from(Vec::new());
        let value = match field {
            Field::Delegation => object(
                [("chain", nothing()), ("depth", Value::from(0_u64)), ("scope", nothing())]
                    .map(|(key, value)| (Value::from(key), value)),
            ),
            _ => Value::Undefined,
        };
        Self { field, key: Value::from(name), value }
    }

    /// Takes the value that `question` has. Whether it is the same as before.
    fn follow(&mut self, question: &Question<'_>) -> bool {
        match self.field {
            Field::Params | Field::Delegation => true,
            Field::Timestamp | Field::TimestampAlias => self.take(Some(&question.at.to_string())),
            field => self.take(field.text(question)),
        }
    }

    fn take(&mut self, text: Option<&str>) -> bool {
        let is_same = match (&self.value, text) {
            (Value::String(known), Some(text)) => **known == *text,
            (Value::Undefined, None) => true,
            _ => false,
        };
        if !is_same {
            self.value = text.map_or(Value::Undefined, Value::from);
        }
        is_same
    }
}

/// An object of what is known.
fn object(fields: impl IntoIterator<Item = (Value, Value)>) -> Value {
    let fields: BTreeMap<Value, Value> =
        fields.into_iter().filter(|(_, value)| !matches!(value, Value::Undefined)).collect();
    Value::from(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Ask;

    fn whole() -> Inputs {
        Inputs::new(Fields::under(&[]))
    }

    fn check(ask: &Ask<'_>, expected: &str) {
        let built = ask.with(|question| {
            let mut inputs = whole();
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
                "action": "count_words",
                "method": "count_words",
                "timestamp": "2026-12-31T23:59:59.001Z",
                "caller_trust_domain": "example.org",
                "resource_trust_domain": "example.org"
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
                "action": "m",
                "method": "m",
                "timestamp": "2026-12-31T23:59:59.001Z",
                "resource_trust_domain": "example.org"
            }"#,
        );
    }

    #[test]
    fn parts_that_are_kept_follow_the_question() {
        let mut inputs = whole();
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
                whole().document(&next, None).unwrap()
            );
            let document = inputs.document(&next, None).unwrap();
            assert_eq!(document["agent"]["name"], Value::from("Other"));
            assert_eq!(document["request"]["protocol"], Value::from("a2a/0.3"));
            assert_eq!(document["request"]["operation"], Value::from("CancelTask"));
        });
    }

    #[test]
    fn what_is_not_read_is_not_built() {
        let check = |ask: &Ask<'_>, paths: &[&[&str]], expected: &str| {
            let mut fields = Fields::default();
            for path in paths {
                fields.add(Fields::under(path));
            }
            let built = ask
                .with(|question| Inputs::new(fields).document(question, question.params).unwrap());
            assert_eq!(built, Value::from_json_str(expected).unwrap(), "{paths:?}");
        };
        let ask = Ask::default();
        check(&ask, &[], "{}");
        check(&ask, &[&["action"]], r#"{"action": "count_words"}"#);
        check(&ask, &[&["request", "params"]], r#"{"request": {"params": {"text": "one two"}}}"#);
        check(
            &ask,
            &[&["request", "method"], &["agent", "name"], &["delegation"]],
            r#"{
                "request": {"method": "count_words"},
                "agent": {"name": "Document Worker Agent"},
                "delegation": {"chain": [], "depth": 0, "scope": []}
            }"#,
        );
        let nobody = Ask { caller: "anonymous", ..Ask::default() };
        check(&nobody, &[&["caller", "path"], &["caller_spiffe_id"]], r#"{"caller": {}}"#);
    }

    #[test]
    fn parameters_are_not_kept() {
        let mut inputs = whole();
        Ask::default().with(|question| {
            let first = inputs.document(question, question.params).unwrap();
            assert_eq!(first["request"]["params"]["text"], Value::from("one two"));
            let next = inputs.document(question, None).unwrap();
            assert_eq!(next["request"]["params"], Value::Undefined);
            let Value::Object(params) = &first["request"]["params"] else { panic!("{first:?}") };
            assert_eq!(std::sync::Arc::strong_count(params), 1);
        });
    }
}
