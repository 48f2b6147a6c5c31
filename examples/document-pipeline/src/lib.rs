//! Agents that process documents: a worker that analyzes them, an orchestrator that has them
//! analyzed, and a summarizer, which the orchestrator asks where it is configured to.
//!
//! The tutorial runs the first two and the demo all three, each as a process of its own with its own
//! identity and policy. `config/` and `policies/` are what they are started with.

mod orchestrator;
mod summarizer;
mod text;
mod worker;

#[cfg(test)]
mod in_process;

pub use orchestrator::{
    BatchReport, Document, DocumentOrchestrator, DocumentReport, Outcome, ProcessReport, Results,
};
pub use summarizer::{Summarizer, Summary};
pub use text::Sentiment;
pub use worker::{Analysis, DocumentWorker, SentimentReport, WordCount};

/// `config/worker.yaml`.
pub const WORKER_CONFIG: &str = include_str!("../config/worker.yaml");

/// `config/orchestrator.yaml`.
pub const ORCHESTRATOR_CONFIG: &str = include_str!("../config/orchestrator.yaml");

/// `config/orchestrator_with_summarizer.yaml`: knows the summarizer as well.
pub const ORCHESTRATOR_WITH_SUMMARIZER_CONFIG: &str =
    include_str!("../config/orchestrator_with_summarizer.yaml");

/// `config/summarizer.yaml`.
pub const SUMMARIZER_CONFIG: &str = include_str!("../config/summarizer.yaml");

/// `policies/summarizer_policy.rego`.
pub const SUMMARIZER_POLICY: &str = include_str!("../policies/summarizer_policy.rego");

/// `policies/worker_policy.rego`.
pub const WORKER_POLICY: &str = include_str!("../policies/worker_policy.rego");

/// `policies/worker_policy_strict.rego`: the orchestrator and nobody else.
pub const WORKER_POLICY_STRICT: &str = include_str!("../policies/worker_policy_strict.rego");

/// `policies/orchestrator_policy.rego`.
pub const ORCHESTRATOR_POLICY: &str = include_str!("../policies/orchestrator_policy.rego");
