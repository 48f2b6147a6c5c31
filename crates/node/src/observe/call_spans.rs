//! The spans of calls that an agent makes.

use std::sync::Arc;

use convoke_client::{CallEvent, CallObserver, CallTarget};

use super::trace::{Kind, Tracer};

/// Makes a span of every attempt to call another agent, and passes on what it hears.
pub(crate) struct CallSpans {
    tracer: Tracer,
    then: Arc<dyn CallObserver>,
}

impl CallSpans {
    /// Makes spans by `tracer`, and tells `then` everything too.
    pub(crate) fn new(tracer: Tracer, then: Arc<dyn CallObserver>) -> Self {
        Self { tracer, then }
    }
}

impl CallObserver for CallSpans {
    fn observe(&self, to: CallTarget<'_>, event: CallEvent<'_>) {
        if let CallEvent::Attempted { number, took, span: Some(place), error } = event
            && let Some(caller) = to.trace
        {
            // The callee was told this place, so its own span is a part of this one.
            let name = || format!("call_{}", to.capability).into();
            let mut span = self.tracer.past(place, caller.span_id(), Kind::Client, took, name);
            span.set("agent.capability", || to.capability.as_str().into());
            span.set("agent.target.spiffe_id", || to.agent.as_str().into());
            span.set("server.address", || to.address.into());
            span.set("call.attempt", || i64::from(number).into());
            span.end(error.map_or(Ok(()), Err));
        }
        self.then.observe(to, event);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use convoke_model::{CapabilityName, SpiffeId, TraceContext};

    use super::*;
    use crate::observe::trace::tests::Kept;

    #[derive(Default)]
    struct Heard(Mutex<usize>);

    impl CallObserver for Heard {
        fn observe(&self, _to: CallTarget<'_>, _event: CallEvent<'_>) {
            *self.0.lock().unwrap() += 1;
        }
    }

    #[test]
    fn an_attempt_is_a_span_between_caller_and_callee() {
        let (kept, heard) = (Kept::default(), Arc::new(Heard::default()));
        let own = SpiffeId::parse("spiffe://example.org/orchestrator").unwrap();
        let tracer = Tracer::new(own, 1.0, Box::new(kept.clone()));
        let watch = CallSpans::new(tracer, Arc::clone(&heard) as _);
        let agent = SpiffeId::parse("spiffe://example.org/worker").unwrap();
        let capability = CapabilityName::parse("count_words").unwrap();
        let caller = TraceContext::root(7, 8, true);
        let to = |trace| CallTarget {
            agent: &agent,
            address: "https://worker",
            capability: &capability,
            trace,
        };
        let attempted = |span| CallEvent::Attempted {
            number: 2,
            took: Duration::from_secs(1),
            span,
            error: None,
        };
        watch.observe(to(Some(caller)), attempted(Some(caller.child(9))));
        watch.observe(to(None), attempted(None));
        let unsampled = TraceContext::root(7, 8, false);
        watch.observe(to(Some(unsampled)), attempted(Some(unsampled.child(9))));
        watch.observe(to(Some(caller)), CallEvent::Cached);
        let spans = kept.0.lock().unwrap();
        assert_eq!(spans.len(), 1);
        assert_eq!((&*spans[0].name, spans[0].place), ("call_count_words", caller.child(9)));
        assert_eq!((spans[0].parent, spans[0].kind), (Some(8), Kind::Client));
        assert_eq!(*heard.0.lock().unwrap(), 4);
    }
}
