//! What a handler is given of its request.

use std::sync::Arc;
use std::time::Duration;

use convoke_agent::{Context, ContextParts, Outlet};
use convoke_model::{ContextId, TaskId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::operations::Request;

/// The context of the handler that works for `request`.
pub(crate) fn of_request(
    request: &Request<'_>,
    stop: CancellationToken,
    task_id: Option<TaskId>,
    context_id: ContextId,
    outlet: Option<Arc<dyn Outlet>>,
) -> Context {
    Context::new(ContextParts {
        caller: request.connection.caller.clone(),
        request_id: request.id.clone(),
        context_id: Some(context_id),
        // A task outlives the call that made it; only who waits for it has a deadline.
        deadline: request.deadline.filter(|_| task_id.is_none()).map(Instant::into_std),
        task_id,
        trace: request.trace,
        cancelled: stop,
        config: Arc::clone(&request.service.agent),
        span: tracing::Span::current(),
        outbound: Arc::clone(&request.service.outbound),
        outlet,
    })
}

/// Milliseconds with one digit after the point, as the log has them.
pub(crate) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}
