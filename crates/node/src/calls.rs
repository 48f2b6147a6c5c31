//! The way out for the calls of an agent's handlers.

use std::sync::Arc;
use std::time::Instant;

use convoke_agent::{BoxFuture, CallError, Outbound, OutboundCall};
use convoke_client::Client;
use convoke_model::{CapabilityName, Json, SpiffeId};

use crate::observe::metrics::{Metrics, Status};

/// Calls of an agent's handlers: made as the agent, and counted.
pub(crate) struct Calls {
    pub(crate) client: Client,
    pub(crate) metrics: Arc<Metrics>,
}

impl Outbound for Calls {
    fn call(&self, call: OutboundCall) -> BoxFuture<'_, Result<Json, CallError>> {
        Box::pin(async move {
            let mut counted = Counted {
                metrics: &self.metrics,
                target: call.agent.clone(),
                capability: call.capability.clone(),
                begun: Instant::now(),
                status: Status::Error,
            };
            let answer = self.client.perform(call).await;
            counted.status = match &answer {
                Ok(_) => Status::Success,
                Err(CallError::Refused(_)) => Status::Denied,
                Err(CallError::Failed(_)) => Status::Error,
            };
            answer
        })
    }
}

/// Counts a call when it ends, also when it ends by being dropped: a call that took too long, or
/// whose handler was cancelled.
struct Counted<'a> {
    metrics: &'a Metrics,
    target: SpiffeId,
    capability: CapabilityName,
    begun: Instant,
    status: Status,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        self.metrics.call(&self.target, self.capability.as_str(), self.status, took);
    }
}
