//! Where a request stands in its trace, and the spans that are made of it.
//!
//! Every request has a place in a trace, which its log lines and audit record name and which is
//! handed on to the agents that it calls. Spans are made of it only where somebody collects them and
//! the trace is sampled; otherwise a [`Span`] is an empty value and its making costs a look at two
//! bits.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use convoke_model::{RequestId, SpiffeId, TRACEPARENT, TraceContext};
use http::HeaderMap;
use uuid::Uuid;

/// Makes the spans of one agent. Cloning gives another handle to the same.
#[derive(Clone, Default)]
pub(crate) struct Tracer(Option<Arc<Recording>>);

struct Recording {
    agent: SpiffeId,
    /// Traces that begin here are sampled if their number is below this share of all.
    rate: f64,
    collector: Box<dyn Collect>,
}

/// Takes the spans that have ended.
pub(crate) trait Collect: Send + Sync {
    /// Takes `span`, or drops it and counts that, but never waits.
    fn collect(&self, span: Ended);
}

/// Where a request that came in stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    /// Its own place.
    pub(crate) place: TraceContext,
    /// The caller's span, if the caller named one.
    pub(crate) parent: Option<u64>,
}

/// A part of a request that takes time. It ends when it is dropped, however that comes.
#[must_use = "a span lasts as long as its value"]
pub(crate) struct Span(Option<Box<Open>>);

struct Open {
    recording: Arc<Recording>,
    begun: Instant,
    span: Ended,
}

/// A span that has ended.
pub(crate) struct Ended {
    /// What was done.
    pub(crate) name: Cow<'static, str>,
    /// On which side of a call.
    pub(crate) kind: Kind,
    /// Its place in its trace.
    pub(crate) place: TraceContext,
    /// The span that it is a part of; `None` for the first of a trace.
    pub(crate) parent: Option<u64>,
    /// When it began.
    pub(crate) begun: SystemTime,
    /// How long it took.
    pub(crate) took: Duration,
    /// How it ended, if it did so by itself.
    pub(crate) end: Option<Result<(), String>>,
    /// What is known of it.
    pub(crate) attributes: Vec<(&'static str, Value)>,
}

/// On which side of a call a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The callee's.
    Server,
    /// The caller's.
    Client,
    /// Neither.
    Internal,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Words.
    Text(Cow<'static, str>),
    /// A number.
    Number(i64),
}

/// The span of a request in the log: its fields are on every line of the request.
pub(crate) fn request_span(
    place: TraceContext,
    request_id: &RequestId,
    operation: &'static str,
) -> tracing::Span {
    tracing::info_span!(
        "request",
        request_id = request_id.as_str(),
        trace_id = Hex::<32>::of(place.trace_id()).as_str(),
        span_id = Hex::<16>::of(place.span_id().into()).as_str(),
        operation,
    )
}

impl Tracer {
    /// Makes spans of `agent` for `collector`, of this share of the traces that begin here.
    pub(crate) fn new(agent: SpiffeId, rate: f64, collector: Box<dyn Collect>) -> Self {
        Self(Some(Arc::new(Recording { agent, rate, collector })))
    }

    /// The place of a request with these headers: in the trace that the caller names, or in one of
    /// its own. A trace that began elsewhere is sampled if whoever began it does.
    pub(crate) fn arrive(&self, headers: &HeaderMap) -> Arrival {
        let span_id = Uuid::new_v4().as_u64_pair().1;
        let mut named = headers.get_all(TRACEPARENT).iter();
        let caller = match (named.next(), named.next()) {
            // Several values contradict each other, so none counts. Source: W3C Trace Context §3.2.
            (Some(value), None) => value.to_str().ok().and_then(TraceContext::parse),
            _ => None,
        };
        match caller {
            Some(caller) => {
                Arrival { place: caller.child(span_id), parent: Some(caller.span_id()) }
            }
            None => {
                let trace_id = Uuid::new_v4().as_u128();
                let sampled = self.0.as_ref().is_some_and(|to| is_below(trace_id, to.rate));
                Arrival { place: TraceContext::root(trace_id, span_id, sampled), parent: None }
            }
        }
    }

    /// The span of a request that has just come in.
    pub(crate) fn request(&self, arrival: Arrival, operation: &'static str) -> Span {
        let mut span = self.begin(arrival.place, arrival.parent, Kind::Server, || "request".into());
        span.set("agent.operation", || Value::Text(operation.into()));
        span
    }

    /// A span that is a part of the one at `parent`.
    pub(crate) fn part(
        &self,
        parent: TraceContext,
        kind: Kind,
        name: impl FnOnce() -> Cow<'static, str>,
    ) -> Span {
        if !self.records(parent) {
            return Span(None);
        }
        let place = parent.child(Uuid::new_v4().as_u64_pair().1);
        self.begin(place, Some(parent.span_id()), kind, name)
    }

    /// A span that has ended already, of which somebody else kept the time.
    pub(crate) fn past(
        &self,
        place: TraceContext,
        parent: u64,
        kind: Kind,
        took: Duration,
        name: impl FnOnce() -> Cow<'static, str>,
    ) -> Span {
        let mut span = self.begin(place, Some(parent), kind, name);
        if let Some(open) = &mut span.0 {
            open.begun = open.begun.checked_sub(took).unwrap_or(open.begun);
            open.span.begun = open.span.begun.checked_sub(took).unwrap_or(open.span.begun);
        }
        span
    }

    fn begin(
        &self,
        place: TraceContext,
        parent: Option<u64>,
        kind: Kind,
        name: impl FnOnce() -> Cow<'static, str>,
    ) -> Span {
        let Some(recording) = self.0.as_ref().filter(|_| place.is_sampled()) else {
            return Span(None);
        };
        let mut attributes = Vec::with_capacity(8);
        attributes.push(("agent.spiffe_id", Value::from(recording.agent.as_str())));
        Span(Some(Box::new(Open {
            recording: Arc::clone(recording),
            begun: Instant::now(),
            span: Ended {
                name: name(),
                kind,
                place,
                parent,
                begun: SystemTime::now(),
                took: Duration::ZERO,
                end: None,
                attributes,
            },
        })))
    }

    fn records(&self, place: TraceContext) -> bool {
        self.0.is_some() && place.is_sampled()
    }
}

impl Span {
    /// Its place, for the parts of it; `outer`, the place that it was made at, if it is not recorded.
    pub(crate) fn place_or(&self, outer: TraceContext) -> TraceContext {
        self.0.as_ref().map_or(outer, |open| open.span.place)
    }

    /// Whether anybody will see it.
    pub(crate) fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// Adds what is known; `value` is asked only if the span is recorded.
    pub(crate) fn set(&mut self, name: &'static str, value: impl FnOnce() -> Value) {
        if let Some(open) = &mut self.0 {
            open.span.attributes.push((name, value()));
        }
    }

    /// Says how it went; `why` is asked only if the span is recorded.
    pub(crate) fn end<E: fmt::Display>(&mut self, how: Result<(), E>) {
        if let Some(open) = &mut self.0 {
            open.span.end = Some(how.map_err(|why| why.to_string()));
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            let Open { recording, begun, mut span } = *open;
            span.took = begun.elapsed();
            recording.collector.collect(span);
        }
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned().into())
    }
}

/// Whether a trace is among the share `rate` of all.
///
/// By the lower 63 bits, as OpenTelemetry's own samplers do, so that two programs with the same rate
/// choose the same traces.
pub(crate) fn is_below(trace_id: u128, rate: f64) -> bool {
    const ALL: u64 = 1 << 63;
    // The lower half is what is meant, and a product that is too large for the type is the type's end.
    let bound = (rate.clamp(0.0, 1.0) * ALL as f64) as u64;
    ((trace_id as u64) >> 1) < bound
}

/// The last `DIGITS` hexadecimal digits of a number, without an allocation.
struct Hex<const DIGITS: usize>([u8; DIGITS]);

impl<const DIGITS: usize> Hex<DIGITS> {
    fn of(mut number: u128) -> Self {
        let mut digits = [b'0'; DIGITS];
        for digit in digits.iter_mut().rev() {
            *digit = b"0123456789abcdef"[(number & 0xf) as usize];
            number >>= 4;
        }
        Self(digits)
    }

    fn as_str(&self) -> &str {
        // Digits are ASCII, so this never is an error.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;

    use http::HeaderValue;

    use super::*;

    /// Keeps what it is given.
    #[derive(Clone, Default)]
    pub(crate) struct Kept(pub(crate) Arc<Mutex<Vec<Ended>>>);

    impl Collect for Kept {
        fn collect(&self, span: Ended) {
            self.0.lock().unwrap().push(span);
        }
    }

    fn tracer(rate: f64) -> (Tracer, Kept) {
        let kept = Kept::default();
        let agent = SpiffeId::parse("spiffe://example.org/worker").unwrap();
        (Tracer::new(agent, rate, Box::new(kept.clone())), kept)
    }

    fn headers(values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, HeaderValue::from_static(value));
        }
        headers
    }

    const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    #[test]
    fn a_trace_goes_on_or_begins() {
        let check = |rate: f64, values: &[&'static str], parent: Option<u64>, sampled: bool| {
            let arrival = tracer(rate).0.arrive(&headers(values));
            assert_eq!(
                (arrival.parent, arrival.place.is_sampled()),
                (parent, sampled),
                "{values:?}"
            );
            let goes_on = arrival.place.trace_id() == 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
            assert_eq!(goes_on, parent.is_some());
            assert_ne!(Some(arrival.place.span_id()), parent);
        };
        let caller = Some(0x00f0_67aa_0ba9_02b7);
        // Whoever began a trace decides on it, whatever our own share is.
        check(0.0, &[CALLER], caller, true);
        check(1.0, &[UNSAMPLED], caller, false);
        check(1.0, &[], None, true);
        check(0.0, &[], None, false);
        check(1.0, &["nonsense"], None, true);
        check(1.0, &[CALLER, CALLER], None, true);
        assert!(!Tracer::default().arrive(&headers(&[])).place.is_sampled());
        assert!(Tracer::default().arrive(&headers(&[CALLER])).place.is_sampled());
    }

    #[test]
    fn parts_name_what_they_are_a_part_of() {
        let (tracer, kept) = tracer(1.0);
        let arrival = tracer.arrive(&headers(&[CALLER]));
        let mut request = tracer.request(arrival, "SendMessage");
        let handling = tracer.part(arrival.place, Kind::Internal, || "handle_x".into());
        let inside = handling.place_or(arrival.place);
        let call = inside.child(7);
        drop(tracer.past(call, inside.span_id(), Kind::Client, Duration::from_secs(3), || {
            "call_y".into()
        }));
        drop(handling);
        request.end(Err("refused"));
        drop(request);
        let spans = kept.0.lock().unwrap();
        let shown: Vec<_> =
            spans.iter().map(|span| (&*span.name, span.parent, span.kind)).collect();
        assert_eq!(
            shown,
            [
                ("call_y", Some(inside.span_id()), Kind::Client),
                ("handle_x", Some(arrival.place.span_id()), Kind::Internal),
                ("request", Some(0x00f0_67aa_0ba9_02b7), Kind::Server),
            ]
        );
        assert!(spans.iter().all(|span| span.place.trace_id() == arrival.place.trace_id()));
        assert!(spans[0].took >= Duration::from_secs(3));
        assert_eq!(spans[2].end, Some(Err("refused".to_owned())));
        assert!(spans[2].attributes.contains(&("agent.operation", Value::from("SendMessage"))));
    }

    #[test]
    fn what_is_not_sampled_or_not_collected_is_never_asked_for() {
        let (tracer, kept) = tracer(0.0);
        for tracer in [tracer, Tracer::default()] {
            let arrival = tracer.arrive(&headers(&[]));
            let mut span = tracer.request(arrival, "SendMessage");
            span.set("x", || unreachable!("nobody looks"));
            let part = tracer.part(arrival.place, Kind::Internal, || unreachable!("nobody looks"));
            assert_eq!(part.place_or(arrival.place), arrival.place);
        }
        assert!(kept.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_share_of_the_traces_is_a_share() {
        let count = |rate: f64| {
            (0..10_000_u64)
                .filter(|n| is_below(u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)), rate))
                .count()
        };
        assert_eq!((count(0.0), count(1.0)), (0, 10_000));
        assert!((2_300..2_700).contains(&count(0.25)), "{}", count(0.25));
        assert_eq!(count(f64::NAN), 0);
    }

    #[test]
    fn numbers_are_shown_in_full() {
        let place = TraceContext::parse(CALLER).unwrap();
        assert_eq!(Hex::<32>::of(place.trace_id()).as_str(), &CALLER[3..35]);
        assert_eq!(Hex::<16>::of(place.span_id().into()).as_str(), &CALLER[36..52]);
    }
}
