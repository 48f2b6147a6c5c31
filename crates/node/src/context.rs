//! What a handler is given of its request, and the way out for its calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use convoke_agent::{BoxFuture, CallError, Context, ContextParts, Outbound, OutboundCall};
use convoke_client::Client;
use convoke_model::{ContextId, Json, TaskId};
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
            let (target, capability) = (call.agent.clone(), call.capability.clone());
            let begun = Instant::now();
            let answer = self.client.perform(call).await;
            let status = match &answer {
                Ok(_) => Status::Success,
                Err(CallError::Refused(_)) => Status::Denied,
                Err(CallError::Failed(_)) => Status::Error,
            };
            self.metrics.call(&target, capability.as_str(), status, begun.elapsed());
            answer
        })
    }
}

/// Milliseconds with one digit after the point, as the log has them.
pub(crate) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}
