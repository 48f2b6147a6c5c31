//! An agent as its author writes it: a struct with capabilities.

use std::borrow::Cow;
use std::fmt;
use std::future::ready;
use std::sync::Arc;

use convoke_model::{Json, UnixMillis};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{BoxFuture, Context, HandlerError};

/// Most [`Capability::retries`]. With pauses that grow to a minute it is a quarter of an hour; what
/// is away for longer is better tried again by who wants it.
pub const RETRIES_MAX: u32 = 20;

/// A struct whose methods other agents can call.
///
/// The macro `agent` implements it from the methods that carry `#[capability]`.
pub trait Agent: Sized + Send + Sync + 'static {
    /// What the agent can do, in the order in which its card lists it.
    fn capabilities() -> Vec<Capability<Self>>;

    /// Runs before anybody can reach the agent: for what it needs and may not get. An error keeps
    /// it from starting, and its sentence is what the operator reads.
    ///
    /// In `context` the agent acts for itself: it is the caller, and there is no deadline.
    /// `#[on_start]` on a method of the `#[agent]` block is this.
    fn on_start(&self, context: &Context) -> impl Future<Output = Result<(), HandlerError>> + Send {
        let _ = context;
        ready(Ok(()))
    }

    /// Runs when the agent ends, after the last of its requests and tasks, for what is left of
    /// `server.drain_timeout`; it is dropped where it stands when that is over. `#[on_stop]`.
    fn on_stop(&self) -> impl Future<Output = ()> + Send {
        ready(())
    }

    /// Runs when the agent's certificate has been renewed; the new one is good until `not_after`.
    /// Of renewals that come while it runs, only the last is told. `#[on_svid_update]`.
    fn on_svid_update(&self, not_after: UnixMillis) -> impl Future<Output = ()> + Send {
        let _ = not_after;
        ready(())
    }
}

/// The code behind a capability. It gets the parameters as they came, after the input schema has
/// let them through.
pub type Handler<A> = Box<
    dyn Fn(Arc<A>, Context, Json) -> BoxFuture<'static, Result<Json, HandlerError>> + Send + Sync,
>;

/// A named operation of an agent: what the card shows of it, and the code behind it.
pub struct Capability<A> {
    pub(crate) name: Cow<'static, str>,
    pub(crate) description: &'static str,
    pub(crate) tags: Vec<&'static str>,
    pub(crate) ephemeral: bool,
    pub(crate) resume: bool,
    pub(crate) retries: u32,
    pub(crate) default: bool,
    pub(crate) requires_peer: Option<Vec<Cow<'static, str>>>,
    pub(crate) input: Result<Value, String>,
    pub(crate) output: Option<Result<Value, String>>,
    pub(crate) handler: Handler<A>,
}

impl<A> Capability<A> {
    /// A durable capability of this name, input schema and code.
    pub fn new(
        name: impl Into<Cow<'static, str>>,
        input: impl IntoSchema,
        handler: impl Fn(Arc<A>, Context, Json) -> BoxFuture<'static, Result<Json, HandlerError>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            description: "",
            tags: Vec::new(),
            ephemeral: false,
            resume: false,
            retries: 0,
            default: false,
            requires_peer: None,
            input: input.into_schema(),
            output: None,
            handler: Box::new(handler),
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

    /// Its handler can go on: where the agent ends while it works on a task, it is run again from
    /// its beginning when the agent is back, and finds its last
    /// [checkpoint](crate::Context::last_checkpoint) and the answers to its questions. Without this
    /// such a task fails.
    #[must_use]
    pub fn resume(mut self) -> Self {
        self.resume = true;
        self
    }

    /// How often a failed attempt at a task is made again, at most [`RETRIES_MAX`] times; none by
    /// default. An attempt that failed for good is not:
    /// [`HandlerError::permanent`](crate::HandlerError::permanent) says so. Before each one there is
    /// a pause, longer from one to the next, a minute at most, and as long as chance has it.
    ///
    /// An attempt that the end of the agent broke off counts too.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Takes the messages that name no capability.
    #[must_use]
    pub fn default(mut self) -> Self {
        self.default = true;
        self
    }

    /// Lets only callers in whose SPIFFE ID matches any of these [patterns](crate::PeerPattern),
    /// of those whom policy lets in.
    #[must_use]
    pub fn requires_peer<T: Into<Cow<'static, str>>>(
        mut self,
        patterns: impl IntoIterator<Item = T>,
    ) -> Self {
        self.requires_peer = Some(patterns.into_iter().map(Into::into).collect());
        self
    }
}

impl<A> fmt::Debug for Capability<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capability").field("name", &self.name).finish_non_exhaustive()
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
