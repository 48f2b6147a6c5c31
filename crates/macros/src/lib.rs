//! The attribute that turns the methods of a struct into capabilities.

mod arguments;
mod expand;
mod hook;
mod method;

use proc_macro::TokenStream;

/// Makes a struct an agent: on an `impl` block, it implements `convoke::Agent` from the methods
/// that carry `#[capability]`.
///
/// ```text
/// #[convoke::agent]
/// impl Greeter {
///     /// Greet somebody by name
///     #[capability(ephemeral)]
///     async fn greet(
///         &self,
///         context: &Context,
///         /// Whom to greet
///         name: String,
///         greeting: Option<String>,
///     ) -> Result<Greeting, HandlerError> {
///         …
///     }
/// }
/// ```
///
/// A capability is an `async fn` of `&self` and `&Context`. Each further parameter is a property of
/// the JSON object that callers send: its name is the property's, its type says what the property
/// has to be, `Option<T>` may be absent, and its doc comment describes it in the input schema.
/// Attributes `#[serde(…)]` and `#[schemars(…)]` on a parameter mean what they mean on the field of
/// a struct. The method returns what callers get, or a `Result` of that whose error turns into a
/// `HandlerError`.
///
/// `#[capability(…)]` takes:
///
/// - `name = "…"`: by default the method's name;
/// - `description = "…"`: by default the first paragraph of the method's doc comment;
/// - `ephemeral`: answers with a message instead of a task, for functions that are quick and change
///   nothing;
/// - `resume`: its handler can go on; where the agent ends while it works on a task, it is run again
///   from its beginning when the agent is back, and finds its last checkpoint;
/// - `retries = 3`: how often a failed attempt at a task is made again, at most 20 times; both are for
///   capabilities that are not `ephemeral`;
/// - `default`: takes the messages that name no capability;
/// - `requires_peer = "spiffe://…"`, or a list of such patterns: of those whom policy lets in, only
///   callers whose SPIFFE ID matches one of them; `*` stands for anything within a segment of the
///   path, and `**` at the end for the rest;
/// - `tags = ["…"]`: words by which a registry finds the capability;
/// - `input_schema = …` and `output_schema = …`: the path of a function that gives a
///   `serde_json::Value`, or of a constant with JSON text, instead of the schema that follows from
///   the types.
///
/// Methods may also be hooks, at most one of each:
///
/// - `#[on_start] async fn (&self, context: &Context) -> Result<(), HandlerError>`, or without a
///   result, runs before anybody can reach the agent; an error keeps it from starting;
/// - `#[on_stop] async fn (&self)` runs after the last request, for what is left of
///   `server.drain_timeout`;
/// - `#[on_svid_update] async fn (&self, not_after: UnixMillis)` runs when the agent's certificate
///   has been renewed.
///
/// `#[agent(crate = "path")]` says where `convoke` is, if not at `::convoke`.
#[proc_macro_attribute]
pub fn agent(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::agent(arguments.into(), item.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
