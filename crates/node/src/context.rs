//! What a handler is given of its request.

use std::sync::Arc;
use std::time::Duration;

use convoke_agent::{BoxFuture, CallError, Context, ContextParts, Outbound, OutboundCall, Outlet};
use convoke_model::{Caller, CapabilityName, ContextId, Json, Principal, TaskId, TraceContext};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::ids;
use crate::observe::trace::{Kind, Span};
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
    let (trace, outbound) = handling(request);
    Context::new(ContextParts {
        caller: request.connection.caller.clone(),
        request_id: request.id.clone(),
        context_id: Some(context_id),
        // A task outlives the call that made it; only who waits for it has a deadline.
        deadline: request.deadline.filter(|_| task_id.is_none()).map(Instant::into_std),
        task_id,
        trace,
        cancelled: stop,
        config: Arc::clone(&request.service.agent),
        span: tracing::Span::current(),
        outbound,
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

/// The place in its trace of the handler that works for `request`, and its way out: calls are parts
/// of the handler's span, which lasts as long as its context.
fn handling(request: &Request<'_>) -> (TraceContext, Arc<dyn Outbound>) {
    let service = request.service;
    let outbound = Arc::clone(&service.outbound);
    let name = request.about.get().map(|index| &service.host.descriptor(*index).name);
    let mut span = service.tracer.part(request.trace, Kind::Internal, || {
        format!("handle_{}", name.map_or("unknown", CapabilityName::as_str)).into()
    });
    span.set("agent.caller.spiffe_id", || request.connection.caller.name().into());
    let trace = span.place_or(request.trace);
    match span.is_recorded() {
        true => (trace, Arc::new(Handling { outbound, _span: span })),
        false => (trace, outbound),
    }
}

/// The way out of a handler whose time is kept.
struct Handling {
    outbound: Arc<dyn Outbound>,
    _span: Span,
}

impl Outbound for Handling {
    fn call(&self, call: OutboundCall) -> BoxFuture<'_, Result<Json, CallError>> {
        self.outbound.call(call)
    }
}

/// Milliseconds with one digit after the point, as the log has them.
pub(crate) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}
