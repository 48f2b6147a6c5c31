//! The daemon as a value: configuration and an agent in, a running node out.
//!
//! This crate introduces the others to each other and holds no rule of its own. The path of a
//! request:
//!
//! | step | where |
//! |---|---|
//! | accept, limits, TLS | `convoke_net`, `convoke_identity` |
//! | route, decode, encode | [`http`], `convoke_a2a` |
//! | look up, authorise, put on record, do | [`operations`] |
//! | tasks: decide, commit, act | [`tasks`], `convoke_engine`, `convoke_journal` |
//! | tasks: who follows them | [`stream`] |

mod admission;
mod answers;
mod bodies;
mod budget;
mod calls;
mod card;
mod clock;
pub mod config;
mod connection;
mod context;
mod deadline;
mod digest;
mod handler;
mod http;
mod ids;
mod intake;
mod list;
mod metrics_listener;
mod node;
pub mod observe;
mod operations;
mod path_metrics;
mod policy;
mod quota;
mod refusals;
pub mod routes;
mod service;
mod sparse;
mod start_error;
mod store;
mod stream;
mod tasks;
mod web_pki;

pub use node::{Node, NodeOptions, Summary};
pub use policy::{DecisionLogError, PolicyServerError, load_policy};
pub use start_error::StartError;
