//! An agent as its author writes it: a struct with capabilities.

use std::sync::Arc;

use convoke_model::Json;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{BoxFuture, Context, HandlerError};

/// A struct whose methods other agents can call.
///
/// The macro `agent` implements it from the methods that carry `#[capability]`.
pub trait Agent: Sized + Send + Sync + 'static {
    /// What the agent can do, in the order in which its card lists it.
    fn capabilities() -> Vec<Capability<Self>>;
}

/// The code behind a capability. It gets the parameters as they came, after the input schema has
/// let them through.
pub type Handler<A> = fn(Arc<A>, Context, Json) -> BoxFuture<'static, Result<Json, HandlerError>>;

/// A named operation of an agent: what the card shows of it, and the code behind it.
#[derive(Debug)]
pub struct Capability<A> {
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
    pub(crate) tags: Vec<&'static str>,
    pub(crate) ephemeral: bool,
    pub(crate) default: bool,
    pub(crate) input: Result<Value, String>,
    pub(crate) output: Option<Result<Value, String>>,
    pub(crate) handler: Handler<A>,
}

impl<A> Capability<A> {
    /// A durable capability of this name, input schema and code.
    pub fn new(name: &'static str, input: impl IntoSchema, handler: Handler<A>) -> Self {
        Self {
            name,
            description: "",
            tags: Vec::new(),
            ephemeral: false,
            default: false,
            input: input.into_schema(),
            output: None,
            handler,
        }
    }

    /// Says what the capability does, for people and for models that choose between agents.
    #[must_use]
    pub fn description(mut self, description: &'static str) -> Self {
        self.description = description;
        self
    }

    /// Promises that every result passes this schema.
    #[must_use]
    pub fn output(mut self, output: impl IntoSchema) -> Self {
        self.output = Some(output.into_schema());
        self
    }

    /// Words by which a registry finds the capability.
    #[must_use]
    pub fn tags(mut self, tags: impl IntoIterator<Item = &'static str>) -> Self {
        self.tags = tags.into_iter().collect();
        self
    }

    /// Answers with a message instead of a task: for functions that are quick and change nothing.
    #[must_use]
    pub fn ephemeral(mut self) -> Self {
        self.ephemeral = true;
        self
    }

    /// Takes the messages that name no capability.
    #[must_use]
    pub fn default(mut self) -> Self {
        self.default = true;
        self
    }
}

/// A JSON Schema, or what makes one: a function, a value, or JSON text.
pub trait IntoSchema {
    /// The schema; the error says why the text is not JSON.
    ///
    /// # Errors
    ///
    /// If it is a text that is not JSON.
    fn into_schema(self) -> Result<Value, String>;
}

impl IntoSchema for Value {
    fn into_schema(self) -> Result<Value, String> {
        Ok(self)
    }
}

impl IntoSchema for &str {
    fn into_schema(self) -> Result<Value, String> {
        serde_json::from_str(self).map_err(|error| error.to_string())
    }
}

impl<F: FnOnce() -> Value> IntoSchema for F {
    fn into_schema(self) -> Result<Value, String> {
        Ok(self())
    }
}

/// What a handler may return when it can fail: a `Result` whose error becomes a [`HandlerError`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a result that a capability can return",
    label = "the error has to be a `HandlerError`, or one that turns into it",
    note = "turn it into one: `.map_err(|error| HandlerError::new(\"…\").caused_by(error))`"
)]
pub trait Reply {
    /// The result that the caller gets.
    type Output;

    /// The result, or the error as the host knows it.
    ///
    /// # Errors
    ///
    /// The handler's own.
    fn reply(self) -> Result<Self::Output, HandlerError>;
}

impl<T, E: Into<HandlerError>> Reply for Result<T, E> {
    type Output = T;

    fn reply(self) -> Result<T, HandlerError> {
        self.map_err(Into::into)
    }
}

/// Reads parameters as the type that a handler wants.
///
/// # Errors
///
/// [`HandlerError::invalid_field`] if the type wants more than the input schema does.
pub fn decode<P: DeserializeOwned>(params: &Json) -> Result<P, HandlerError> {
    params.to().map_err(|error| HandlerError::invalid_field("", error.to_string()))
}

/// Writes a handler's result.
///
/// # Errors
///
/// If JSON cannot hold the result: a map whose key is no string, for example.
pub fn encode<T: Serialize>(result: &T) -> Result<Json, HandlerError> {
    Ok(Json::of(result)?)
}
