//! Agents that find each other, prove who they are, are allowed or refused, call each other and
//! leave a trail.
//!
//! An agent is a struct with capabilities:
//!
//! ```no_run
//! use convoke::{Context, HandlerError, agent};
//!
//! struct Greeter;
//!
//! #[agent]
//! impl Greeter {
//!     /// Greet somebody by name
//!     #[capability(ephemeral)]
//!     async fn greet(&self, context: &Context, name: String) -> Result<String, HandlerError> {
//!         let from = &context.config().metadata.name;
//!         Ok(format!("Hello {name}, this is {from}"))
//!     }
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     convoke::main(Greeter)
//! }
//! ```
//!
//! [`Client`] calls agents from programs that are none; with the feature `serve` off, it is all
//! that this crate has.

pub use convoke_agent::{
    Agent, AgentCallError, AgentConfig, BreakerSettings, CallError, CallSettings, Context,
    HandlerError, Metadata, Refusal, RegistryEntry, RetrySettings, WaitsFor, join_calls,
};
pub use convoke_client::{
    AddressError, BreakerState, CallEvent, CallObserver, CallTarget, Client, ClientCall,
    ClientOptions, Ping, check_address, open, task,
};
/// SPIFFE identities: the source of one, and the embedded issuer.
pub use convoke_identity as identity;
pub use convoke_macros::agent;
pub use convoke_model::{
    Caller, CapabilityName, Fault, FaultCode, FieldViolation, Json, Principal, SpiffeId,
    SpiffeIdError, TrustDomain, TrustLevel, UnixMillis, chain, limits,
};

#[cfg(feature = "serve")]
mod check;
#[cfg(feature = "serve")]
mod command_line;
#[cfg(feature = "serve")]
mod ending;
#[cfg(feature = "serve")]
pub mod serve;
#[cfg(feature = "testing")]
#[allow(clippy::panic, reason = "a panic is how a test is told")]
pub mod testing;
/// Writes a value into a log line as JSON: `tracing::info!(operations = json_field(&list), "…")`.
#[cfg(feature = "serve")]
pub use convoke_node::observe::logging::json_field;
#[cfg(feature = "serve")]
pub use serve::main;

/// What the macros need to name; not for people.
#[doc(hidden)]
pub mod __private {
    pub use convoke_agent;
    pub use schemars;
    pub use serde;
    pub use serde_json;
}
