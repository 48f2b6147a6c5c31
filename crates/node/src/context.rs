//! What a handler is given of its request.

use std::sync::Arc;
use std::time::Duration;

use convoke_agent::{Context, ContextParts, Outlet};
use convoke_model::{Caller, ContextId, Principal, TaskId, TraceContext};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::ids;
use crate::operations::Request;
use crate::service::Service;

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

/// The context in which an agent acts for itself: it is the caller, and nothing ends it but `stop`.
pub(crate) fn of_agent(service: &Service, stop: CancellationToken) -> Context {
    let own = &service.agent.spiffe_id;
    let caller = Principal::from_verified_svid(own.clone(), own);
    let (trace_id, span_id) = (Uuid::new_v4().as_u128(), Uuid::new_v4().as_u64_pair().1);
    Context::new(ContextParts {
        caller: Caller::Principal(Arc::new(caller)),
        request_id: ids::request(),
        task_id: None,
        context_id: None,
        deadline: None,
        trace: TraceContext::root(trace_id, span_id, false),
        cancelled: stop,
        config: Arc::clone(&service.agent),
        span: tracing::Span::current(),
        outbound: Arc::clone(&service.outbound),
        outlet: None,
    })
}

/// Milliseconds with one digit after the point, as the log has them.
pub(crate) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}
