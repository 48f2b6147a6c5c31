//! Counters and histograms of one node, in OpenMetrics text.
//!
//! Names are those of the first seed's project, so its dashboards work. No label holds text that a
//! peer chose: capabilities are the agent's own, targets those of the configuration, and whatever
//! is neither is `other`. The request path holds prebuilt handles and looks nothing up.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use convoke_model::{SpiffeId, UnixMillis};
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::calls::CallMetrics;
use crate::path_metrics::PathMetrics;

/// The media type of [`Metrics::encode`]. Source: OpenMetrics 1.0 §4.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Most capabilities of one target that calls are counted under by name.
pub const CALLED_CAPABILITIES_MAX: usize = 64;

/// The label of whatever has none of its own.
const OTHER: &str = "other";

/// Upper bounds for requests and calls, in seconds. Source: 0.005 to 10 are the seed project's;
/// the smaller ones are ours, because most of our requests are faster.
const REQUEST_SECONDS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// Upper bounds for decisions, in seconds, up to the longest evaluation that is allowed.
const DECISION_SECONDS: [f64; 11] = [
    0.000_001,
    0.000_002_5,
    0.000_005,
    0.000_01,
    0.000_02,
    0.000_04,
    0.000_1,
    0.000_25,
    0.000_5,
    0.001,
    0.005,
];

/// The metrics of one agent.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// In the order of the agent's capabilities.
    capabilities: Vec<CapabilityMetrics>,
    other: CapabilityMetrics,
    targets: HashMap<SpiffeId, TargetMetrics>,
    other_target: TargetMetrics,
    calls: Family<CallLabels, Counter>,
    /// What happens to calls before they end.
    pub(crate) outward: Arc<CallMetrics>,
    allowed: Counter,
    denied: Counter,
    decision_seconds: Histogram,
    connections: Gauge,
    audit_refused: Counter,
    /// Streams that are open.
    pub(crate) streams: Gauge,
    svid_ttl: Gauge,
    svid_valid_until: AtomicU64,
    /// What happens to a request before its handler.
    pub(crate) path: PathMetrics,
}

/// How a request or a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// With a result.
    Success,
    /// With a fault that is not a refusal.
    Error,
    /// Refused by policy or for want of a credential.
    Denied,
}

/// The requests for one capability.
#[derive(Debug)]
pub struct CapabilityMetrics([Series; 3]);

/// Counts one open connection until it is dropped.
#[derive(Debug)]
pub struct OpenConnection(Gauge);

#[derive(Debug)]
struct Series {
    count: Counter,
    seconds: Histogram,
}

/// The calls to one agent.
#[derive(Debug)]
struct TargetMetrics {
    label: String,
    seconds: Histogram,
    other: [Counter; 3],
    /// Capabilities by which the target has answered with success at least once. A name that only
    /// ever failed may be anything, for example what a caller sent to a handler.
    known: RwLock<HashMap<Box<str>, [Counter; 3]>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    capability: String,
    status: Status,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    target_agent: String,
    capability: String,
    status: Status,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TargetLabels {
    target_agent: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    decision: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

impl Metrics {
    /// The metrics of the agent `name` with these capabilities, in their order, which calls these
    /// targets.
    #[must_use]
    pub fn new<'a>(
        name: &str,
        capabilities: impl IntoIterator<Item = &'a str>,
        targets: impl IntoIterator<Item = &'a SpiffeId>,
    ) -> Self {
        let mut registry =
            Registry::with_labels([("agent_name".into(), name.to_owned().into())].into_iter());
        let requests = Family::<RequestLabels, Counter>::default();
        let request_seconds = Family::<RequestLabels, Histogram>::new_with_constructor(seconds);
        let calls = Family::<CallLabels, Counter>::default();
        let call_seconds = Family::<TargetLabels, Histogram>::new_with_constructor(seconds);
        let decisions = Family::<DecisionLabels, Counter>::default();
        let decision_seconds = Histogram::new(DECISION_SECONDS);
        let (connections, svid_ttl) = (Gauge::default(), Gauge::default());
        let audit_refused = Counter::default();

        let add = registry.sub_registry_with_prefix("agentweave");
        add.register("requests", "Requests by capability and how they ended", requests.clone());
        let help = "Time from a decoded request to its answer";
        add.register("request_duration_seconds", help, request_seconds.clone());
        add.register("agent_calls", "Calls to other agents and how they ended", calls.clone());
        let help = "Time from a call to another agent to its answer";
        add.register("agent_call_duration_seconds", help, call_seconds.clone());
        add.register("authz_decisions", "Decisions of policy", decisions.clone());
        let help = "Time that policy took to decide";
        add.register("authz_duration_seconds", help, decision_seconds.clone());
        add.register("active_connections", "Open connections", connections.clone());
        let streams = Gauge::default();
        add.register("active_streams", "Open streams", streams.clone());
        let help = "Requests refused because no audit record could be taken";
        add.register("audit_refused", help, audit_refused.clone());
        let help = "Seconds until the agent's certificate ends";
        add.register("identity_ttl_seconds", help, svid_ttl.clone());
        let build = Info::new(BuildLabels { version: env!("CARGO_PKG_VERSION") });
        add.register("build", "What is running", build);
        let targets: Vec<&SpiffeId> = targets.into_iter().collect();
        let outward = Arc::new(CallMetrics::register(&mut registry, targets.iter().copied()));
        let path = PathMetrics::register(&mut registry);

        let capability = |name: &str| {
            CapabilityMetrics(Status::ALL.map(|status| {
                let labels = RequestLabels { capability: name.to_owned(), status };
                Series {
                    count: requests.get_or_create_owned(&labels),
                    seconds: request_seconds.get_or_create_owned(&labels),
                }
            }))
        };
        let target = |label: &str| {
            let target_agent = label.to_owned();
            TargetMetrics {
                label: label.to_owned(),
                seconds: call_seconds.get_or_create_owned(&TargetLabels { target_agent }),
                other: call_counters(&calls, label, OTHER),
                known: RwLock::default(),
            }
        };
        let decision = |decision| decisions.get_or_create_owned(&DecisionLabels { decision });
        Self {
            capabilities: capabilities.into_iter().map(capability).collect(),
            other: capability(OTHER),
            targets: targets.into_iter().map(|id| (id.clone(), target(id.as_str()))).collect(),
            other_target: target(OTHER),
            allowed: decision("allow"),
            denied: decision("deny"),
            decision_seconds,
            connections,
            audit_refused,
            streams,
            svid_ttl,
            svid_valid_until: AtomicU64::new(0),
            path,
            calls,
            outward,
            registry,
        }
    }

    /// The requests for the agent's capability of that index; `None`, and an index that the agent
    /// does not have, are the requests for anything else.
    #[must_use]
    pub fn capability(&self, index: Option<usize>) -> &CapabilityMetrics {
        index.and_then(|index| self.capabilities.get(index)).unwrap_or(&self.other)
    }

    /// A call of ours has ended.
    pub fn call(&self, target: &SpiffeId, capability: &str, status: Status, took: Duration) {
        let target = self.targets.get(target).unwrap_or(&self.other_target);
        target.seconds.observe(took.as_secs_f64());
        {
            let known = target.known.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(counters) = known.get(capability) {
                counters[status.index()].inc();
                return;
            }
            let is_new = status == Status::Success
                && target.label != OTHER
                && known.len() < CALLED_CAPABILITIES_MAX;
            if !is_new {
                target.other[status.index()].inc();
                return;
            }
        }
        let mut known = target.known.write().unwrap_or_else(PoisonError::into_inner);
        let has_room = known.len() < CALLED_CAPABILITIES_MAX || known.contains_key(capability);
        if has_room {
            let make = || call_counters(&self.calls, &target.label, capability);
            known.entry(capability.into()).or_insert_with(make)[status.index()].inc();
        } else {
            target.other[status.index()].inc();
        }
    }

    /// Policy has decided.
    pub fn decision(&self, allowed: bool, took: Duration) {
        if allowed { &self.allowed } else { &self.denied }.inc();
        self.decision_seconds.observe(took.as_secs_f64());
    }

    /// A connection is open for as long as the value lives.
    #[must_use]
    pub fn connection(&self) -> OpenConnection {
        self.connections.inc();
        OpenConnection(self.connections.clone())
    }

    /// A request was refused because its audit record could not be taken.
    pub fn audit_refused(&self) {
        self.audit_refused.inc();
    }

    /// The current certificate is valid until `until`.
    pub fn set_svid_valid_until(&self, until: UnixMillis) {
        self.svid_valid_until.store(until.0, Ordering::Relaxed);
    }

    /// Everything as OpenMetrics text of type [`CONTENT_TYPE`].
    ///
    /// # Errors
    ///
    /// If a metric cannot be spelled in OpenMetrics.
    pub fn encode(&self, now: UnixMillis) -> Result<String, fmt::Error> {
        let until = self.svid_valid_until.load(Ordering::Relaxed);
        let ttl = until.saturating_sub(now.0) / 1000;
        self.svid_ttl.set(i64::try_from(ttl).unwrap_or(i64::MAX));
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl CapabilityMetrics {
    /// A request has ended.
    pub fn record(&self, status: Status, took: Duration) {
        let series = &self.0[status.index()];
        series.count.inc();
        series.seconds.observe(took.as_secs_f64());
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Status {
    /// Every status, in the order of [`Status::index`].
    const ALL: [Self; 3] = [Self::Success, Self::Error, Self::Denied];

    fn index(self) -> usize {
        match self {
            Self::Success => 0,
            Self::Error => 1,
            Self::Denied => 2,
        }
    }
}

impl EncodeLabelValue for Status {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        let word = match self {
            Self::Success => "success",
            Self::Error => "error",
            Self::Denied => "denied",
        };
        EncodeLabelValue::encode(&word, encoder)
    }
}

fn seconds() -> Histogram {
    Histogram::new(REQUEST_SECONDS)
}

fn call_counters(
    calls: &Family<CallLabels, Counter>,
    target: &str,
    capability: &str,
) -> [Counter; 3] {
    Status::ALL.map(|status| {
        calls.get_or_create_owned(&CallLabels {
            target_agent: target.to_owned(),
            capability: capability.to_owned(),
            status,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn worker() -> SpiffeId {
        SpiffeId::parse("spiffe://example.org/worker").unwrap()
    }

    fn metrics() -> Metrics {
        Metrics::new("Agent \"A\"\n", ["analyze", "count"], [&worker()])
    }

    fn check(metrics: &Metrics, lines: &[&str]) {
        let text = metrics.encode(UnixMillis(0)).unwrap();
        for line in lines {
            let line = line.replace("NAME", r#"agent_name="Agent \"A\"\n""#);
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn requests_are_counted_by_capability_and_status() {
        let metrics = metrics();
        metrics.capability(Some(1)).record(Status::Success, MILLI);
        metrics.capability(Some(1)).record(Status::Denied, MILLI);
        metrics.capability(Some(2)).record(Status::Error, MILLI);
        metrics.capability(None).record(Status::Error, MILLI);
        check(
            &metrics,
            &[
                r#"agentweave_requests_total{NAME,capability="count",status="success"} 1"#,
                r#"agentweave_requests_total{NAME,capability="count",status="denied"} 1"#,
                r#"agentweave_requests_total{NAME,capability="analyze",status="success"} 0"#,
                r#"agentweave_requests_total{NAME,capability="other",status="error"} 2"#,
                r#"agentweave_request_duration_seconds_bucket{NAME,le="0.0005",capability="count",status="success"} 0"#,
                r#"agentweave_request_duration_seconds_bucket{NAME,le="0.001",capability="count",status="success"} 1"#,
                r#"agentweave_request_duration_seconds_count{NAME,capability="count",status="success"} 1"#,
            ],
        );
    }

    #[test]
    fn calls_are_counted_under_names_that_have_proved_real() {
        let metrics = metrics();
        let stranger = SpiffeId::parse("spiffe://example.org/stranger").unwrap();
        metrics.call(&worker(), "evil\n", Status::Error, MILLI);
        metrics.call(&worker(), "count", Status::Error, MILLI);
        metrics.call(&worker(), "count", Status::Success, MILLI);
        metrics.call(&worker(), "count", Status::Denied, MILLI);
        metrics.call(&stranger, "count", Status::Success, MILLI);
        let target = r#"target_agent="spiffe://example.org/worker""#;
        let line = |rest: &str| format!("agentweave_agent_calls_total{{NAME,{target},{rest}");
        check(
            &metrics,
            &[
                &line(r#"capability="other",status="error"} 2"#),
                &line(r#"capability="count",status="success"} 1"#),
                &line(r#"capability="count",status="denied"} 1"#),
                r#"agentweave_agent_calls_total{NAME,target_agent="other",capability="other",status="success"} 1"#,
                &format!("agentweave_agent_call_duration_seconds_count{{NAME,{target}}} 4"),
            ],
        );
        for number in 0..2 * CALLED_CAPABILITIES_MAX {
            metrics.call(&worker(), &format!("c{number}"), Status::Success, MILLI);
        }
        let text = metrics.encode(UnixMillis(0)).unwrap();
        let series = text.lines().filter(|line| {
            line.starts_with("agentweave_agent_calls_total{") && line.contains("/worker")
        });
        assert_eq!(series.count(), 3 * (CALLED_CAPABILITIES_MAX + 1));
        assert!(!text.contains("evil") && !text.contains("stranger"));
    }

    #[test]
    fn the_rest_is_counted_once() {
        let metrics = metrics();
        metrics.decision(true, Duration::from_micros(3));
        metrics.decision(false, Duration::from_micros(3));
        metrics.decision(false, Duration::from_micros(3));
        metrics.audit_refused();
        metrics.set_svid_valid_until(UnixMillis(90_999));
        let open = [metrics.connection(), metrics.connection()];
        check(
            &metrics,
            &[
                r#"agentweave_authz_decisions_total{NAME,decision="allow"} 1"#,
                r#"agentweave_authz_decisions_total{NAME,decision="deny"} 2"#,
                r#"agentweave_authz_duration_seconds_count{NAME} 3"#,
                r#"agentweave_authz_duration_seconds_bucket{NAME,le="0.000005"} 3"#,
                r#"agentweave_audit_refused_total{NAME} 1"#,
                r#"agentweave_identity_ttl_seconds{NAME} 90"#,
                r#"agentweave_active_connections{NAME} 2"#,
                &format!(
                    r#"agentweave_build_info{{NAME,version="{}"}} 1"#,
                    env!("CARGO_PKG_VERSION")
                ),
            ],
        );
        drop(open);
        check(&metrics, &[r#"agentweave_active_connections{NAME} 0"#]);
        metrics.set_svid_valid_until(UnixMillis(0));
        check(&metrics, &[r#"agentweave_identity_ttl_seconds{NAME} 0"#]);
    }
}
