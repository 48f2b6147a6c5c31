//! Running what an agent's author wrote, so that its panic ends a call and nothing else.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use convoke_agent::HandlerError;
use convoke_model::{Fault, Json, chain};
use futures_util::FutureExt;

/// How a handler ended.
pub(crate) enum Outcome {
    /// By itself, with its result.
    Returned(Json),
    /// By itself, without one.
    Failed {
        /// What the caller is told.
        fault: Fault,
        /// Whether another attempt may have more luck.
        is_retryable: bool,
    },
    /// By itself, because the agent will not do it.
    Rejected(Fault),
    /// By a panic, which the panic hook has already printed.
    Panicked,
}

/// A handler that has ended, before anybody was told.
pub(crate) struct Ended(Result<Result<Json, HandlerError>, Box<dyn Any + Send>>);

/// Runs `handler` to its end, whatever that is.
///
/// What a panicking handler leaves half done is the agent's own; the node shares nothing with it
/// but values that are never changed.
pub(crate) async fn contained(handler: impl Future<Output = Result<Json, HandlerError>>) -> Ended {
    Ended(AssertUnwindSafe(handler).catch_unwind().await)
}

impl Ended {
    /// Tells the log what it is to know, and gives what the caller is.
    pub(crate) fn told(self) -> Outcome {
        match self.0 {
            Ok(Ok(result)) => Outcome::Returned(result),
            Ok(Err(error)) if error.is_rejected() => {
                tracing::info!(error = chain(&error), "Capability rejected the task");
                Outcome::Rejected(error.into_fault())
            }
            Ok(Err(error)) => {
                // The cause, if there is one, is for the log alone.
                tracing::warn!(error = chain(&error), "Capability failed");
                let is_retryable = error.is_retryable();
                Outcome::Failed { fault: error.into_fault(), is_retryable }
            }
            Err(_payload) => {
                tracing::error!("Capability panicked");
                Outcome::Panicked
            }
        }
    }
}
