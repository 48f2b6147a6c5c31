//! What a handler is given of its request.

use std::sync::Arc;
use std::time::Duration;

use convoke_agent::{
    BoxFuture, CallError, CapabilityIndex, Context, ContextParts, Outbound, OutboundCall, Outlet,
};
use convoke_model::{Caller, CapabilityName, ContextId, Json, Principal, TraceContext, Work};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::ids;
use crate::observe::trace::{Kind, Span};
use crate::operations::Request;
use crate::service::Service;
use crate::tasks::{Origin, Running};

/// The context of the ephemeral handler that answers `request`.
pub(crate) fn of_request(
    request: &Request<'_>,
    stop: CancellationToken,
    context_id: ContextId,
) -> Context {
    let caller = &request.connection.caller;
    let about = request.about.get().copied();
    let (trace, outbound) = handling(request.service, request.trace, caller, about);
    Context::new(ContextParts {
        caller: caller.clone(),
        request_id: request.id.clone(),
        context_id: Some(context_id),
        deadline: request.deadline.map(Instant::into_std),
        task_id: None,
        attempt: 1,
        checkpoint: None,
        trace,
        cancelled: stop,
        config: Arc::clone(&request.service.agent),
        span: tracing::Span::current(),
        outbound,
        outlet: None,
    })
}

/// The context of the handler that works on `task`. A task outlives the call that made it, so its
/// deadline is its own.
pub(crate) fn of_task(
    service: &Service,
    task: &Running,
    context_id: ContextId,
    (capability, work): (CapabilityIndex, Work),
    deadline: Option<Instant>,
    outlet: Arc<dyn Outlet>,
) -> Context {
    let Origin { caller, request_id, trace } = task.origin();
    let (trace, outbound) = handling(service, *trace, caller, Some(capability));
    Context::new(ContextParts {
        caller: caller.clone(),
        request_id: request_id.clone(),
        context_id: Some(context_id),
        deadline: deadline.map(Instant::into_std),
        task_id: Some(task.id().clone()),
        attempt: work.attempt,
        checkpoint: work.checkpoint.map(|checkpoint| checkpoint.value),
        trace,
        cancelled: task.stop().clone(),
        config: Arc::clone(&service.agent),
        span: tracing::Span::current(),
        outbound,
        outlet: Some(outlet),
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
        attempt: 1,
        checkpoint: None,
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

/// The place of a handler in the trace of its request, and its way out: calls are parts of the
/// handler's span, which lasts as long as its context.
fn handling(
    service: &Service,
    trace: TraceContext,
    caller: &Caller,
    about: Option<CapabilityIndex>,
) -> (TraceContext, Arc<dyn Outbound>) {
    let outbound = Arc::clone(&service.outbound);
    let name = about.map(|index| &service.host.descriptor(index).name);
    let mut span = service.tracer.part(trace, Kind::Internal, || {
        format!("handle_{}", name.map_or("unknown", CapabilityName::as_str)).into()
    });
    span.set("agent.caller.spiffe_id", || caller.name().into());
    let place = span.place_or(trace);
    match span.is_recorded() {
        true => (place, Arc::new(Handling { outbound, _span: span })),
        false => (place, outbound),
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
