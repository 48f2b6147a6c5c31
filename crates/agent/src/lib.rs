//! What a handler sees: an agent, its capabilities, the context of one request, and calls to other
//! agents.
//!
//! Nothing here opens a socket. A call to another agent leaves through [`Outbound`], which the node
//! implements; a request comes in through [`Host`], which the node asks to resolve, check and call.
//!
//! The macro `agent` writes [`Agent`] for an impl block whose methods carry `#[capability]`; by
//! hand it is a list of [`Capability`] values.

mod agent;
mod call;
mod call_error;
mod config;
mod context;
mod guard;
mod handler_error;
mod hooks;
mod host;
mod join;
mod progress;
mod resolve;
mod schema;

pub use agent::{Agent, Capability, Handler, IntoSchema, RETRIES_MAX, Reply, decode, encode};
pub use call::{BoxFuture, CallBuilder, Callee, Outbound, OutboundCall};
pub use call_error::{AgentCallError, CallError, Refusal, WaitsFor};
pub use config::{
    AgentConfig, BreakerSettings, CallSettings, Metadata, RegistryEntry, RetrySettings,
    UnknownRegistryKey,
};
pub use context::{Context, ContextParts};
pub use guard::{PeerGuard, PeerGuardError, PeerPattern, PeerPatternError};
pub use handler_error::HandlerError;
pub use host::{CapabilityIndex, Descriptor, Host, HostError};
pub use join::{JoinCalls, join_calls};
pub use progress::{
    AnswerSchema, ArtifactWriter, Ask, AskError, Outlet, Output, OutputError, PIECE_BYTES_MAX,
    Progress, Question, QuestionKind,
};
pub use schema::{input_schema_of, output_schema_of};

/// What the macros need to name; not for people.
#[doc(hidden)]
pub mod __private {
    /// This crate under the name by which the macros know it.
    pub mod convoke_agent {
        pub use crate::*;
    }
    pub use convoke_model::UnixMillis;
    pub use schemars;
    pub use serde;
}
