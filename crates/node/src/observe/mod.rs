//! What a node shows of itself: log lines, metrics, spans, audit and health.
//!
//! Nothing here is global: a subscriber, a registry and a health value belong to one node, so
//! that many nodes fit in one process.

pub(crate) mod audit;
pub(crate) mod call_spans;
pub mod health;
pub mod logging;
pub mod metrics;
pub mod otlp;
pub(crate) mod trace;
