//! An agent as the node sees it: names, schemas and calls, without the type of the struct.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use convoke_model::{CapabilityName, Fault, FaultCode, IdError, Json};
use serde_json::Value;
use tracing::Instrument;

use crate::hooks::Hooks;
use crate::schema::Compiled;
use crate::{
    Agent, BoxFuture, Capability, Context, HandlerError, PeerGuard, PeerGuardError, RETRIES_MAX,
};

/// One agent, ready to be asked.
pub struct Host {
    /// Both lists are in the order of the card and have the same length.
    descriptors: Vec<Descriptor>,
    entries: Vec<Entry>,
    by_name: HashMap<CapabilityName, CapabilityIndex>,
    /// Takes the messages that name no capability: the one marked so, or the only one.
    fallback: Option<CapabilityIndex>,
    hooks: Arc<dyn Hooks>,
}

/// What the card shows of a capability.
#[derive(Debug, Clone, PartialEq)]
pub struct Descriptor {
    /// Its name within the agent; the skill's id on the card.
    pub name: CapabilityName,
    /// What it does.
    pub description: String,
    /// What its parameters have to be.
    ///
    /// JSON Schema lets an object have properties that the schema does not name, and so do we: a
    /// caller may be newer than the agent. `additionalProperties: false` refuses them.
    pub input_schema: Value,
    /// What its result is, if promised.
    pub output_schema: Option<Value>,
    /// Whether it answers with a message instead of a task.
    pub ephemeral: bool,
    /// Whether a handler that was broken off is run again after a restart. The card does not show
    /// it, nor the next.
    pub resume: bool,
    /// How often a failed attempt is made again.
    pub retries: u32,
    /// Whether it takes the messages that name no capability.
    pub default: bool,
    /// Who may call it at most, whatever policy says; `None` leaves it to policy. The card does
    /// not show it.
    pub requires_peer: Option<PeerGuard>,
    /// Words by which a registry finds it.
    pub tags: Vec<String>,
}

/// One capability of the [`Host`] that gave this index; of no other host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CapabilityIndex(usize);

impl CapabilityIndex {
    /// The place in [`Host::capabilities`].
    #[must_use]
    pub fn get(self) -> usize {
        self.0
    }
}

/// Why an agent cannot be hosted: its capabilities are wrong or contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// There is nothing that anybody could ask of it.
    #[error("the agent has no capability")]
    Empty,
    /// A name that no capability can have.
    #[error("capability `{name}`: the name {problem}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: IdError,
    },
    /// One name for two capabilities.
    #[error("two capabilities are called `{name}`")]
    Duplicate {
        /// The name.
        name: CapabilityName,
    },
    /// Two capabilities would both take what names none.
    #[error("both `{first}` and `{second}` are the default capability; only one can be")]
    TwoDefaults {
        /// The first of them.
        first: CapabilityName,
        /// The second.
        second: CapabilityName,
    },
    /// What only tasks have, and no task.
    #[error(
        "capability `{name}`: `{what}` is for tasks, and an ephemeral capability makes none; take \
         one of the two away"
    )]
    Ephemeral {
        /// The capability.
        name: CapabilityName,
        /// `resume` or `retries`.
        what: &'static str,
    },
    /// More attempts than we make.
    #[error("capability `{name}`: {retries} retries are too many; at most {RETRIES_MAX} are made")]
    Retries {
        /// The capability.
        name: CapabilityName,
        /// How many it wants.
        retries: u32,
    },
    /// A schema that is none, or that we do not take.
    #[error("capability `{name}`: {which} schema: {problem}")]
    Schema {
        /// The capability.
        name: CapabilityName,
        /// `input` or `output`.
        which: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A guard that is none.
    #[error("capability `{name}`: requires_peer: {problem}")]
    Guard {
        /// The capability.
        name: CapabilityName,
        /// What is wrong with it.
        problem: PeerGuardError,
    },
    /// Parameters are an object, and the schema refuses objects.
    #[error("capability `{name}`: input schema: `type` must be `object`, parameters always are")]
    InputNotObject {
        /// The capability.
        name: CapabilityName,
    },
}

/// What it takes to run a capability.
struct Entry {
    input: Compiled,
    output: Option<Compiled>,
    /// The property that a lone text part stands for.
    text_property: Option<String>,
    run: Box<Run>,
}

/// A handler that has its agent.
type Run = dyn Fn(Context, Json) -> BoxFuture<'static, Result<Json, HandlerError>> + Send + Sync;

impl Host {
    /// Takes an agent in: its schemas are compiled and its capabilities checked against each other.
    ///
    /// # Errors
    ///
    /// [`HostError`] names the first capability that is wrong.
    pub fn new<A: Agent>(agent: A) -> Result<Self, HostError> {
        Self::with(agent, A::capabilities())
    }

    /// As [`Host::new`], with capabilities that are known only now, instead of the agent's own.
    ///
    /// # Errors
    ///
    /// [`HostError`] names the first capability that is wrong.
    pub fn with<A: Agent>(
        agent: A,
        capabilities: impl IntoIterator<Item = Capability<A>>,
    ) -> Result<Self, HostError> {
        let agent = Arc::new(agent);
        let mut host = Self {
            descriptors: Vec::new(),
            entries: Vec::new(),
            by_name: HashMap::new(),
            fallback: None,
            hooks: Arc::clone(&agent) as _,
        };
        for capability in capabilities {
            host.add(&agent, capability)?;
        }
        match host.descriptors.len() {
            0 => return Err(HostError::Empty),
            1 => host.fallback = Some(CapabilityIndex(0)),
            _ => {}
        }
        Ok(host)
    }

    fn add<A: Agent>(
        &mut self,
        agent: &Arc<A>,
        capability: Capability<A>,
    ) -> Result<(), HostError> {
        let Capability {
            name,
            description,
            tags,
            ephemeral,
            resume,
            retries,
            default,
            requires_peer,
            input,
            output,
            handler,
        } = capability;
        let index = CapabilityIndex(self.descriptors.len());
        let name = CapabilityName::parse(&name)
            .map_err(|problem| HostError::Name { name: name.into_owned(), problem })?;
        if self.by_name.insert(name.clone(), index).is_some() {
            return Err(HostError::Duplicate { name });
        }
        let of_a_task = [(resume, "resume"), (retries > 0, "retries")];
        if ephemeral && let Some((_, what)) = of_a_task.into_iter().find(|(said, _)| *said) {
            return Err(HostError::Ephemeral { name, what });
        }
        if retries > RETRIES_MAX {
            return Err(HostError::Retries { name, retries });
        }
        if default && let Some(first) = self.fallback.replace(index) {
            let first = self.descriptor(first).name.clone();
            return Err(HostError::TwoDefaults { first, second: name });
        }
        let requires_peer = requires_peer.map(PeerGuard::new).transpose();
        let requires_peer =
            requires_peer.map_err(|problem| HostError::Guard { name: name.clone(), problem })?;
        let (input_schema, input) = compile(&name, "input", input)?;
        if input_schema.get("type").is_some_and(|kind| kind != "object") {
            return Err(HostError::InputNotObject { name });
        }
        let (output_schema, output) = match output {
            Some(output) => {
                let (schema, compiled) = compile(&name, "output", output)?;
                (Some(schema), Some(compiled))
            }
            None => (None, None),
        };
        let text_property = text_property(&input_schema);
        let agent = Arc::clone(agent);
        let run = Box::new(move |context, params| handler(Arc::clone(&agent), context, params));
        self.entries.push(Entry { input, output, text_property, run });
        self.descriptors.push(Descriptor {
            name,
            description: description.to_owned(),
            input_schema,
            output_schema,
            ephemeral,
            resume,
            retries,
            default,
            requires_peer,
            tags: tags.into_iter().map(str::to_owned).collect(),
        });
        Ok(())
    }

    /// What the agent can do, in the order of its card; never empty.
    #[must_use]
    pub fn capabilities(&self) -> &[Descriptor] {
        &self.descriptors
    }

    /// The capability of this name.
    #[must_use]
    pub fn find(&self, name: &CapabilityName) -> Option<CapabilityIndex> {
        self.by_name.get(name).copied()
    }

    /// What the card shows of a capability.
    #[must_use]
    pub fn descriptor(&self, index: CapabilityIndex) -> &Descriptor {
        &self.descriptors[index.0]
    }

    /// Asks the input schema about parameters.
    ///
    /// # Errors
    ///
    /// [`FaultCode::InvalidParams`] with the first violations, each with its JSON pointer.
    pub fn check_input(&self, index: CapabilityIndex, params: &Json) -> Result<(), Fault> {
        match self.entry(index).input.violations(params) {
            none if none.is_empty() => Ok(()),
            violations => Err(Fault::invalid_params(violations)),
        }
    }

    /// Asks the output schema, if there is one, about a result.
    ///
    /// # Errors
    ///
    /// [`FaultCode::InvalidAgentResponse`] with the first violations: the agent broke its promise,
    /// the caller did nothing wrong.
    pub fn check_output(&self, index: CapabilityIndex, result: &Json) -> Result<(), Fault> {
        let Some(output) = &self.entry(index).output else { return Ok(()) };
        let violations = output.violations(result);
        let Some(first) = violations.first() else { return Ok(()) };
        let message = format!(
            "`{}` gave a result that its output schema refuses: {}{}{}",
            self.descriptor(index).name,
            first.field,
            if first.field.is_empty() { "" } else { " " },
            first.description,
        );
        Err(Fault { violations, ..Fault::new(FaultCode::InvalidAgentResponse, message) })
    }

    /// Runs the capability's handler inside the context's span. The parameters have passed
    /// [`check_input`](Self::check_input), and the result is still to pass
    /// [`check_output`](Self::check_output).
    ///
    /// A panic of the handler unwinds through the future: the node contains it.
    pub fn call(
        &self,
        index: CapabilityIndex,
        context: Context,
        params: Json,
    ) -> BoxFuture<'static, Result<Json, HandlerError>> {
        let span = context.span().clone();
        let handler = (self.entry(index).run)(context, params);
        // Without a subscriber there is nothing to enter, and a second box to save.
        if span.is_none() { handler } else { Box::pin(handler.instrument(span)) }
    }

    pub(crate) fn hooks(&self) -> &dyn Hooks {
        &*self.hooks
    }

    pub(crate) fn fallback(&self) -> Option<CapabilityIndex> {
        self.fallback
    }

    pub(crate) fn text_property(&self, index: CapabilityIndex) -> Option<&str> {
        self.entry(index).text_property.as_deref()
    }

    fn entry(&self, index: CapabilityIndex) -> &Entry {
        &self.entries[index.0]
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("capabilities", &self.descriptors).finish_non_exhaustive()
    }
}

fn compile(
    name: &CapabilityName,
    which: &'static str,
    schema: Result<Value, String>,
) -> Result<(Value, Compiled), HostError> {
    let wrong = |problem| HostError::Schema { name: name.clone(), which, problem };
    let schema = schema.map_err(wrong)?;
    let compiled = Compiled::new(&schema).map_err(wrong)?;
    Ok((schema, compiled))
}

/// The only property that a schema requires, if it is a string.
fn text_property(schema: &Value) -> Option<String> {
    let [Value::String(name)] = schema.get("required")?.as_array()?.as_slice() else {
        return None;
    };
    let kind = schema.get("properties")?.get(name)?.get("type")?;
    (kind == "string").then(|| name.clone())
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;
    use crate::call::tests::parts;
    use crate::{CallError, Outbound, OutboundCall};

    /// An agent whose capabilities are whatever a test says.
    macro_rules! agent {
        ($name:ident, $($capability:expr),* $(,)?) => {
            #[derive(Debug)]
            struct $name;
            impl Agent for $name {
                fn capabilities() -> Vec<Capability<Self>> {
                    vec![$($capability),*]
                }
            }
        };
    }
    pub(crate) use agent;

    pub(crate) fn echo<A>(
        _: Arc<A>,
        _: Context,
        params: Json,
    ) -> BoxFuture<'static, Result<Json, HandlerError>> {
        Box::pin(std::future::ready(Ok(params)))
    }

    pub(crate) struct Nowhere;

    impl Outbound for Nowhere {
        fn call(&self, call: OutboundCall) -> BoxFuture<'_, Result<Json, CallError>> {
            panic!("nobody should call {}", call.agent)
        }
    }

    fn check<A: Agent + fmt::Debug>(agent: A, expected: &str) {
        assert_eq!(Host::new(agent).unwrap_err().to_string(), expected);
    }

    #[test]
    fn contradictions_are_refused_by_name() {
        agent!(Empty,);
        check(Empty, "the agent has no capability");
        agent!(Named, Capability::new("a b", json!({}), echo));
        check(
            Named,
            "capability `a b`: the name ` ` is not allowed; use letters, digits, `_`, `-`, `.` and \
             begin with a letter",
        );
        agent!(Twice, Capability::new("a", json!({}), echo), Capability::new("a", json!({}), echo));
        check(Twice, "two capabilities are called `a`");
        agent!(
            Defaults,
            Capability::new("a", json!({}), echo).default(),
            Capability::new("b", json!({}), echo),
            Capability::new("c", json!({}), echo).default(),
        );
        check(Defaults, "both `a` and `c` are the default capability; only one can be");
        agent!(List, Capability::new("a", json!({"type": "array"}), echo));
        check(List, "capability `a`: input schema: `type` must be `object`, parameters always are");
        agent!(Text, Capability::new("a", "{", echo));
        check(Text, "capability `a`: input schema: EOF while parsing an object at line 1 column 1");
        agent!(Resumes, Capability::new("a", json!({}), echo).ephemeral().resume());
        check(
            Resumes,
            "capability `a`: `resume` is for tasks, and an ephemeral capability makes none; take \
             one of the two away",
        );
        agent!(Retries, Capability::new("a", json!({}), echo).ephemeral().retries(1));
        check(
            Retries,
            "capability `a`: `retries` is for tasks, and an ephemeral capability makes none; take \
             one of the two away",
        );
        agent!(Often, Capability::new("a", json!({}), echo).retries(21));
        check(Often, "capability `a`: 21 retries are too many; at most 20 are made");
        let guarded = |patterns: &'static [&str]| {
            Capability::new("a", json!({}), echo::<Empty>).requires_peer(patterns.iter().copied())
        };
        let error = Host::with(Empty, [guarded(&["spiffe://*/x"])]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "capability `a`: requires_peer: `spiffe://*/x`: the trust domain has `*`; name the \
             domain, and write one pattern for each"
        );
        let error = Host::with(Empty, [guarded(&[])]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "capability `a`: requires_peer: no pattern; leave `requires_peer` out, or say who may \
             call"
        );
        agent!(Output, Capability::new("a", json!({}), echo).output(|| json!({"type": 1})));
        let error = Host::new(Output).unwrap_err().to_string();
        assert!(error.starts_with("capability `a`: output schema: /type: "), "{error}");
    }

    #[tokio::test]
    async fn a_capability_is_found_checked_and_called() {
        agent!(
            One,
            Capability::new("double", r#"{"required": ["n"]}"#, |_, _, params| {
                Box::pin(async move {
                    #[derive(serde::Deserialize)]
                    struct Params {
                        n: u32,
                    }
                    let Params { n } = crate::decode(&params)?;
                    crate::encode(&n.checked_mul(2).ok_or_else(|| HandlerError::new("too much"))?)
                })
            })
            .description("Doubles")
            .output(json!({"type": "integer", "maximum": 100}))
            .tags(["math"]),
        );
        let host = Host::new(One).unwrap();
        let name = CapabilityName::parse("double").unwrap();
        let index = host.find(&name).unwrap();
        assert_eq!(host.find(&CapabilityName::parse("Double").unwrap()), None);
        let descriptor = host.descriptor(index);
        assert_eq!(
            (&*descriptor.description, &*descriptor.tags),
            ("Doubles", &["math".into()][..])
        );
        assert!(!descriptor.ephemeral && !descriptor.default);

        let call = |params: &str| {
            let context = Context::new(parts(Arc::new(Nowhere)));
            host.call(index, context, Json::parse(params).unwrap())
        };
        assert_eq!(call(r#"{"n": 21}"#).await.unwrap().get(), "42");
        assert_eq!(call(r#"{"n": 4294967295}"#).await.unwrap_err().to_string(), "too much");
        // The schema says nothing of the type, so the type itself does.
        let error = call(r#"{"n": "x"}"#).await.unwrap_err();
        assert_eq!(error.fault().code, FaultCode::InvalidParams);

        let fault = host.check_input(index, &Json::empty_object()).unwrap_err();
        assert_eq!(fault.message, "invalid parameters: /n is missing");
        assert_eq!(host.check_input(index, &Json::parse(r#"{"n": 1}"#).unwrap()), Ok(()));
        let fault = host.check_output(index, &Json::parse("\"x\"").unwrap()).unwrap_err();
        assert_eq!(fault.code, FaultCode::InvalidAgentResponse);
        assert_eq!(
            fault.message,
            "`double` gave a result that its output schema refuses: must be of type integer"
        );
        assert_eq!(fault.violations.len(), 1);
        assert_eq!(host.check_output(index, &Json::parse("100").unwrap()), Ok(()));
    }
}
