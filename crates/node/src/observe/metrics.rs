//! Counters and histograms of one node, in OpenMetrics text.
//!
//! Every metric has two names: `convoke_…`, and `agentweave_…` as the first seed's project has it, so
//! that its dashboards and alerts work. What has several names is counted once and read for each
//! when somebody looks. No label holds text that a peer chose: capabilities are the agent's own,
//! peers and targets those of the configuration, and whatever is neither is `other`. The request
//! path adds to numbers that are there already and looks nothing up.

mod histogram;
mod peers;
mod render;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use convoke_client::Client;
use convoke_model::{Decision, Fault, SpiffeId, TaskState, UnixMillis};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use histogram::{DECISION_SECONDS, Histogram, REQUEST_SECONDS, TASK_SECONDS};
pub use peers::Peer;
use peers::Peers;
use render::Render;

use crate::calls::CallMetrics;
use crate::path_metrics::PathMetrics;
use crate::stream::StreamGauges;

/// The media type of [`Metrics::encode`]. Source: OpenMetrics 1.0 §4.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Most capabilities of one target that calls are counted under by name.
pub const CALLED_CAPABILITIES_MAX: usize = 64;

/// The metrics of one agent.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    counts: Arc<Counts>,
    /// What happens to calls before they end.
    pub(crate) outward: Arc<CallMetrics>,
    /// Streams that are open.
    pub(crate) streams: StreamGauges,
    /// Tasks that are at work.
    tasks_at_work: Gauge,
    /// Tasks that wait for their turn.
    tasks_in_line: Gauge,
    /// What happens to a request before its handler.
    pub(crate) path: PathMetrics,
}

/// What is counted.
#[derive(Debug)]
struct Counts {
    peers: Peers,
    /// In the order of the agent's capabilities, and one more for whatever is none.
    capabilities: Vec<CapabilityMetrics>,
    names: Vec<Box<str>>,
    /// By fault and by the index of the capability. Only faults take the lock.
    errors: Mutex<BTreeMap<(&'static str, usize), u64>>,
    in_flight: AtomicI64,
    /// By peer and by capability.
    decisions: Vec<[AtomicU64; 2]>,
    /// In the order of [`REFUSALS`].
    refused: [AtomicU64; REFUSALS.len()],
    decision_seconds: Histogram,
    /// By peer.
    connections: Vec<AtomicI64>,
    targets: HashMap<SpiffeId, TargetMetrics>,
    other_target: TargetMetrics,
    audit_refused: AtomicU64,
    otlp_dropped: Mutex<Option<Box<dyn OtlpDrops>>>,
    svid_valid_until: AtomicU64,
    rotations: AtomicU64,
    rotation_errors: AtomicU64,
    /// Whose connections to other agents are counted.
    pool: OnceLock<Pool>,
    /// In the order of [`ENDS`].
    tasks: [AtomicU64; ENDS.len()],
    task_seconds: Histogram,
    /// Set by whoever encodes.
    now: AtomicU64,
}

/// Why requests are refused: what policy says, and what is refused before it is asked.
const REFUSALS: [&str; 10] = [
    "denied",
    "undefined",
    "not_a_decision",
    "error",
    "over_time",
    "unreachable",
    "input_too_large",
    "guard",
    "no_credential",
    "other",
];

/// How tasks end.
const ENDS: [TaskState; 4] =
    [TaskState::Completed, TaskState::Failed, TaskState::Canceled, TaskState::Rejected];

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
pub struct CapabilityMetrics {
    seconds: [Histogram; 3],
    /// By status and by the caller's trust domain, as an index of a peer.
    counts: [Vec<AtomicU64>; 3],
}

/// Counts one open connection until it is dropped.
#[derive(Debug)]
pub struct OpenConnection(Arc<Counts>, usize);

/// Counts one request at work until it is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Counts>);

/// A client of whose connections only the number is asked for.
struct Pool(Client);

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pool").field(&self.0.open_connections()).finish()
    }
}

/// Says how many spans and lines a collector has missed.
pub(crate) trait OtlpDrops: fmt::Debug + Send + Sync {
    /// How many so far.
    fn dropped(&self) -> u64;
}

/// The calls to one agent.
#[derive(Debug)]
struct TargetMetrics {
    label: Box<str>,
    seconds: Histogram,
    other: [AtomicU64; 3],
    /// Capabilities by which the target has answered with success at least once. A name that only
    /// ever failed may be anything, for example what a caller sent to a handler.
    known: RwLock<HashMap<Box<str>, [AtomicU64; 3]>>,
}

impl Metrics {
    /// The metrics of the agent `own`, named `name`, with these capabilities, in their order, which
    /// calls these targets.
    #[must_use]
    pub fn new<'a>(
        own: &SpiffeId,
        name: &str,
        capabilities: impl IntoIterator<Item = &'a str>,
        targets: impl IntoIterator<Item = &'a SpiffeId>,
        started: UnixMillis,
    ) -> Self {
        let targets: Vec<&SpiffeId> = targets.into_iter().collect();
        let peers = Peers::new(own, targets.iter().copied());
        let names: Vec<Box<str>> =
            capabilities.into_iter().chain([peers::OTHER]).map(Box::from).collect();
        let zeros = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
        let capability = || CapabilityMetrics {
            seconds: Status::ALL.map(|_| Histogram::new(REQUEST_SECONDS)),
            counts: Status::ALL.map(|_| zeros(peers.len())),
        };
        let counts = Arc::new(Counts {
            capabilities: names.iter().map(|_| capability()).collect(),
            errors: Mutex::default(),
            in_flight: AtomicI64::new(0),
            decisions: (0..peers.len() * names.len()).map(|_| Default::default()).collect(),
            refused: Default::default(),
            decision_seconds: Histogram::new(DECISION_SECONDS),
            connections: (0..peers.len()).map(|_| AtomicI64::new(0)).collect(),
            targets: targets
                .into_iter()
                .map(|id| (id.clone(), TargetMetrics::new(id.as_str())))
                .collect(),
            other_target: TargetMetrics::new(peers::OTHER),
            audit_refused: AtomicU64::new(0),
            otlp_dropped: Mutex::new(None),
            svid_valid_until: AtomicU64::new(0),
            rotations: AtomicU64::new(0),
            rotation_errors: AtomicU64::new(0),
            pool: OnceLock::new(),
            tasks: Default::default(),
            task_seconds: Histogram::new(TASK_SECONDS),
            now: AtomicU64::new(0),
            peers,
            names,
        });
        let mut registry =
            Registry::with_labels([("agent_name".into(), name.to_owned().into())].into_iter());
        let process: Gauge<f64, AtomicU64> = Gauge::default();
        process.set(started.0 as f64 / 1000.0);
        let help = "When the agent was started, in seconds since 1970";
        registry.register("process_start_time_seconds", help, process);
        let path = PathMetrics::register(&mut registry);
        let add = registry.sub_registry_with_prefix("agentweave");
        let streams = StreamGauges::default();
        add.register("active_streams", "Open streams", streams.open.clone());
        let help = "Bytes that open streams hold until they are read and sent";
        add.register("stream_backlog_bytes", help, streams.backlog_bytes.clone());
        let (tasks_at_work, tasks_in_line) = (Gauge::default(), Gauge::default());
        add.register("active_tasks", "Tasks at work", tasks_at_work.clone());
        add.register("waiting_tasks", "Tasks waiting for their turn", tasks_in_line.clone());
        add.register_collector(Box::new(Render(Arc::clone(&counts), path.clone())));
        let outward = Arc::new(CallMetrics::register(&mut registry, counts.targets.keys()));
        Self { registry, counts, outward, streams, tasks_at_work, tasks_in_line, path }
    }

    /// How metrics know `peer`; `None` is who has no credential.
    #[must_use]
    pub fn peer(&self, peer: Option<&SpiffeId>) -> Peer {
        self.counts.peers.find(peer)
    }

    /// A request is at work for as long as the value lives.
    #[must_use]
    pub fn in_flight(&self) -> InFlight {
        self.counts.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(&self.counts))
    }

    /// A request of `caller` for the agent's capability of that index has ended; `None`, and an index
    /// that the agent does not have, is a request for anything else.
    pub fn request(
        &self,
        capability: Option<usize>,
        caller: Peer,
        fault: Option<&Fault>,
        status: Status,
        took: Duration,
    ) {
        let counts = &*self.counts;
        let index = counts.capability(capability);
        let of = &counts.capabilities[index];
        of.seconds[status.index()].observe(took);
        of.counts[status.index()][caller.domain].fetch_add(1, Ordering::Relaxed);
        if let Some(fault) = fault {
            let mut errors = counts.errors.lock().unwrap_or_else(PoisonError::into_inner);
            *errors.entry((fault.code.reason(), index)).or_default() += 1;
        }
    }

    /// Policy has decided on a request of `caller` for the capability of that index.
    pub fn decision(&self, capability: Option<usize>, caller: Peer, decision: &Decision) {
        let counts = &*self.counts;
        let place = caller.own * counts.names.len() + counts.capability(capability);
        let allowed = decision.is_allowed();
        counts.decisions[place][usize::from(!allowed)].fetch_add(1, Ordering::Relaxed);
        counts.decision_seconds.observe(decision.took);
        if !allowed {
            self.refused(decision.reason.as_str());
        }
    }

    /// A request was refused for `reason`, as the audit record names it.
    pub fn refused(&self, reason: &str) {
        let place = REFUSALS.iter().position(|known| *known == reason);
        let place = place.unwrap_or(REFUSALS.len() - 1);
        self.counts.refused[place].fetch_add(1, Ordering::Relaxed);
    }

    /// A call of ours has ended.
    pub fn call(&self, target: &SpiffeId, capability: &str, status: Status, took: Duration) {
        let target = self.counts.target(target);
        target.seconds.observe(took);
        {
            let known = target.known.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(counters) = known.get(capability) {
                counters[status.index()].fetch_add(1, Ordering::Relaxed);
                return;
            }
            let is_new = status == Status::Success
                && *target.label != *peers::OTHER
                && known.len() < CALLED_CAPABILITIES_MAX;
            if !is_new {
                target.other[status.index()].fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        let mut known = target.known.write().unwrap_or_else(PoisonError::into_inner);
        let has_room = known.len() < CALLED_CAPABILITIES_MAX || known.contains_key(capability);
        let counters = match has_room {
            true => known.entry(capability.into()).or_default(),
            false => &target.other,
        };
        counters[status.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// A connection of `peer` is open for as long as the value lives.
    #[must_use]
    pub fn connection(&self, peer: Peer) -> OpenConnection {
        self.counts.connections[peer.own].fetch_add(1, Ordering::Relaxed);
        OpenConnection(Arc::clone(&self.counts), peer.own)
    }

    /// A request was refused because its audit record could not be taken.
    pub fn audit_refused(&self) {
        self.counts.audit_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// The current certificate is valid until `until`.
    pub fn set_svid_valid_until(&self, until: UnixMillis) {
        self.counts.svid_valid_until.store(until.0, Ordering::Relaxed);
    }

    /// The certificate was replaced.
    pub fn rotated(&self) {
        self.counts.rotations.fetch_add(1, Ordering::Relaxed);
    }

    /// How often, so far, a successor of the certificate or the roots could not be had.
    pub fn set_rotation_errors(&self, count: u64) {
        self.counts.rotation_errors.store(count, Ordering::Relaxed);
    }

    /// The connections to other agents are those of `client`; of several, those of the first.
    pub fn follow_pool(&self, client: Client) {
        self.counts.pool.get_or_init(|| Pool(client));
    }

    /// A task has come to its end, in `state` and so long after it was made. A state that is no end
    /// is not counted.
    pub fn task_ended(&self, state: TaskState, took: Duration) {
        let Some(place) = ENDS.iter().position(|end| *end == state) else { return };
        self.counts.tasks[place].fetch_add(1, Ordering::Relaxed);
        self.counts.task_seconds.observe(took);
    }

    /// How many tasks are at work, and how many wait for their turn.
    pub(crate) fn set_tasks(&self, at_work: usize, in_line: usize) {
        let count = |tasks: usize| i64::try_from(tasks).unwrap_or(i64::MAX);
        self.tasks_at_work.set(count(at_work));
        self.tasks_in_line.set(count(in_line));
    }

    /// Who counts what the collector of spans misses.
    pub(crate) fn set_otlp_drops(&self, drops: Box<dyn OtlpDrops>) {
        *self.counts.otlp_dropped.lock().unwrap_or_else(PoisonError::into_inner) = Some(drops);
    }

    /// Everything as OpenMetrics text of type [`CONTENT_TYPE`].
    ///
    /// # Errors
    ///
    /// If a metric cannot be spelled in OpenMetrics.
    pub fn encode(&self, now: UnixMillis) -> Result<String, fmt::Error> {
        self.counts.now.store(now.0, Ordering::Relaxed);
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(render::under_both_names(&text))
    }
}

impl Counts {
    /// The place of a capability among those that are counted.
    fn capability(&self, index: Option<usize>) -> usize {
        let other = self.names.len() - 1;
        index.map_or(other, |index| index.min(other))
    }

    fn target(&self, id: &SpiffeId) -> &TargetMetrics {
        self.targets.get(id).unwrap_or(&self.other_target)
    }
}

impl TargetMetrics {
    fn new(label: &str) -> Self {
        Self {
            label: label.into(),
            seconds: Histogram::new(REQUEST_SECONDS),
            other: Default::default(),
            known: RwLock::default(),
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.connections[self.1].fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Status {
    /// Every status, in the order of [`Status::index`].
    const ALL: [Self; 3] = [Self::Success, Self::Error, Self::Denied];

    fn index(self) -> usize {
        self as usize
    }

    /// The word of the label.
    fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
            Self::Denied => "denied",
        }
    }
}

#[cfg(test)]
mod tests;
