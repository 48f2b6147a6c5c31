//! What a handler is given of its request, and the way out for its calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use convoke_agent::{BoxFuture, CallError, Context, ContextParts, Outbound, OutboundCall};
use convoke_client::Client;
use convoke_model::{CapabilityName, ContextId, Json, SpiffeId, TaskId};
use tokio_util::sync::CancellationToken;

use crate::observe::metrics::{Metrics, Status};
use crate::operations::Request;

/// The context of the handler that works for `request`.
pub(crate) fn of_request(
    request: &Request<'_>,
    stop: CancellationToken,
    task_id: Option<TaskId>,
    context_id: ContextId,
) -> Context {
    Context::new(ContextParts {
        caller: request.connection.caller.clone(),
        request_id: request.id.clone(),
        task_id,
        context_id: Some(context_id),
        deadline: None,
        cancelled: stop,
        config: Arc::clone(&request.service.agent),
        span: tracing::Span::current(),
        outbound: Arc::clone(&request.service.outbound),
    })
}

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

/// Milliseconds with one digit after the point, as the log has them.
pub(crate) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}
