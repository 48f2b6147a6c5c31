//! What was counted, under all the names that somebody looks for.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use convoke_model::TaskState;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::histogram::Shown;
use super::{Counts, ENDS, REFUSALS, Status, TargetMetrics};
use crate::path_metrics::PathMetrics;

/// Writes the counts.
#[derive(Debug)]
pub(super) struct Render(pub(super) Arc<Counts>, pub(super) PathMetrics);

/// The prefix under which everything is written first.
const FIRST: &str = "agentweave_";

/// The prefix of the second name.
const SECOND: &str = "convoke_";

/// Names that only the first seed's alert rules know, for what has another name already.
pub(super) const ALIASES: [&str; 11] = [
    "agentweave_auth_check_duration_seconds",
    "agentweave_authz_allowed",
    "agentweave_authz_check_duration_seconds",
    "agentweave_authz_circuit_breaker_state",
    "agentweave_authorization_checks",
    "agentweave_capability_calls",
    "agentweave_opa_errors",
    "agentweave_opa_requests",
    "agentweave_svid_rotation",
    "agentweave_svid_rotation_errors",
    "agentweave_svid_ttl_seconds",
];

/// OpenMetrics `text` with each metric of the first prefix under the second one too.
pub(super) fn under_both_names(text: &str) -> String {
    let mut both = String::with_capacity(2 * text.len());
    let mut metric = Vec::new();
    // What ends the text belongs to no metric, and comes last.
    let (body, end) = text.rsplit_once("# EOF").unwrap_or((text, ""));
    let flush = |metric: &mut Vec<&str>, both: &mut String| {
        for line in metric.drain(..) {
            let (comment, rest) = match line.split_inclusive(' ').take(2).collect::<String>() {
                start if line.starts_with("# ") => line.split_at(start.len()),
                _ => ("", line),
            };
            if let Some(rest) = rest.strip_prefix(FIRST) {
                both.push_str(comment);
                both.push_str(SECOND);
                both.push_str(rest);
            }
        }
    };
    for line in body.split_inclusive('\n') {
        if let Some(described) = line.strip_prefix("# HELP ") {
            flush(&mut metric, &mut both);
            let name = described.split(' ').next().unwrap_or_default();
            both.push_str(line);
            if name.starts_with(FIRST) && !ALIASES.contains(&name) {
                metric.push(line);
            }
            continue;
        }
        both.push_str(line);
        if !metric.is_empty() {
            metric.push(line);
        }
    }
    flush(&mut metric, &mut both);
    both.push_str("# EOF");
    both.push_str(end);
    both
}

impl Collector for Render {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (page, counts) = (&mut Page(encoder), &*self.0);
        counts.requests(page)?;
        counts.calls(page)?;
        counts.decisions(page)?;
        counts.tasks(page)?;
        counts.node(page)?;
        counts.aliases(page)?;
        policy_server(&self.1, page)
    }
}

impl Counts {
    fn requests(&self, page: &mut Page<'_>) -> fmt::Result {
        let help = "Requests by capability, how they ended and the caller's trust domain";
        let rows = self.by_status().flat_map(|(capability, of, status)| {
            let counts = of.counts[status.index()].iter().enumerate();
            counts.filter_map(move |(domain, count)| {
                let (count, is_own) = (load(count), domain == self.peers.home());
                let labels = [
                    ("capability", capability),
                    ("status", status.as_str()),
                    ("caller_trust_domain", self.peers.label(domain)),
                ];
                // A series that begins at zero is one whose growth can be seen.
                (count > 0 || is_own).then_some((labels, count))
            })
        });
        page.counter("requests", help, rows)?;
        let in_flight = self.in_flight.load(Ordering::Relaxed) as f64;
        page.gauge("requests_in_flight", "Requests at work", [([], in_flight)])?;
        let help = "Time from a decoded request to its answer";
        let rows = self.by_status().filter_map(|(capability, of, status)| {
            let shown = of.seconds[status.index()].show();
            let labels = [("capability", capability), ("status", status.as_str())];
            (shown.count > 0 || status == Status::Success).then_some((labels, shown))
        });
        page.histogram("request_duration_seconds", help, rows)?;
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let rows = errors.iter().map(|((code, capability), count)| {
            ([("error_type", *code), ("capability", &*self.names[*capability])], *count)
        });
        page.counter("errors", "Requests that failed, by fault and capability", rows)
    }

    fn calls(&self, page: &mut Page<'_>) -> fmt::Result {
        let mut rows = Vec::new();
        for target in self.all_targets() {
            let known = target.known.read().unwrap_or_else(PoisonError::into_inner);
            let named = known.iter().map(|(name, counts)| (name.to_string(), counts));
            for (name, counts) in named.chain([(super::peers::OTHER.to_owned(), &target.other)]) {
                for (status, count) in Status::ALL.into_iter().zip(counts) {
                    rows.push((target, name.clone(), status, load(count)));
                }
            }
        }
        let rows = rows.iter().map(|(target, capability, status, count)| {
            let labels = [
                ("target_agent", &*target.label),
                ("capability", capability),
                ("status", status.as_str()),
            ];
            (labels, *count)
        });
        page.counter("agent_calls", "Calls to other agents and how they ended", rows)?;
        let help = "Time from a call to another agent to its answer";
        let row = |target: &'_ TargetMetrics| target.seconds.show();
        let rows = self.all_targets().map(|target| ([label(target)], row(target)));
        page.histogram("agent_call_duration_seconds", help, rows)
    }

    fn decisions(&self, page: &mut Page<'_>) -> fmt::Result {
        let rows = self.allowed_and_denied().map(|(word, count)| ([("decision", word)], count));
        page.counter("authz_decisions", "Decisions of policy", rows)?;
        let help = "Time that policy took to decide";
        page.histogram("authz_duration_seconds", help, [([], self.decision_seconds.show())])?;
        let help = "Decisions of policy by caller and capability";
        let names = self.names.len();
        let rows = self.decisions.iter().enumerate().flat_map(|(place, counts)| {
            DECISIONS.into_iter().zip(counts).filter_map(move |(word, count)| {
                let labels = [
                    ("peer_id", self.peers.label(place / names)),
                    ("capability", &*self.names[place % names]),
                    ("decision", word),
                ];
                let count = load(count);
                (count > 0).then_some((labels, count))
            })
        });
        page.counter("auth_decisions", help, rows)?;
        let rows = REFUSALS.iter().zip(&self.refused);
        let rows = rows.map(|(reason, count)| ([("reason", *reason)], load(count)));
        page.counter("authz_denied", "Requests refused, by reason", rows)
    }

    fn tasks(&self, page: &mut Page<'_>) -> fmt::Result {
        let rows = ENDS
            .iter()
            .zip(&self.tasks)
            .map(|(end, count)| ([("status", task_status(*end))], load(count)));
        page.counter("tasks", "Tasks that have ended, and how", rows)?;
        let help = "Time from a task's beginning to its end";
        page.histogram("task_duration_seconds", help, [([], self.task_seconds.show())])
    }

    fn node(&self, page: &mut Page<'_>) -> fmt::Result {
        let rows = self.connections.iter().enumerate().map(|(peer, count)| {
            let labels = [("peer_id", self.peers.label(peer))];
            (labels, count.load(Ordering::Relaxed) as f64)
        });
        page.gauge("active_connections", "Open connections", rows)?;
        let open = self.pool.get().map_or(0, |pool| pool.0.open_connections());
        let help = "Open connections to other agents";
        page.gauge("connection_pool_active", help, [([], open as f64)])?;
        let help = "Requests refused because no audit record could be taken";
        page.counter("audit_refused", help, [([], load(&self.audit_refused))])?;
        let drops = self.otlp_dropped.lock().unwrap_or_else(PoisonError::into_inner);
        let dropped = drops.as_ref().map_or(0, |drops| drops.dropped());
        drop(drops);
        let help = "Spans that the collector has missed";
        page.counter("otlp_dropped", help, [([], dropped)])?;
        let help = "Seconds until the agent's certificate ends";
        page.gauge("identity_ttl_seconds", help, [([], self.svid_ttl())])?;
        let help = "Certificates that were replaced";
        page.counter("identity_renewals", help, [([], load(&self.rotations))])?;
        let help = "Times that a new certificate or new roots could not be had";
        page.counter("identity_renewal_errors", help, [([], load(&self.rotation_errors))])?;
        page.info("build", "What is running", [("version", env!("CARGO_PKG_VERSION"))])
    }

    /// Names that only alert rules know, for what has another name already.
    fn aliases(&self, page: &mut Page<'_>) -> fmt::Result {
        let help = "As agentweave_authz_duration_seconds";
        for name in ["auth_check_duration_seconds", "authz_check_duration_seconds"] {
            page.histogram(name, help, [([], self.decision_seconds.show())])?;
        }
        let [(_, allowed), _] = self.all_decisions();
        page.counter("authz_allowed", "Requests that policy allowed", [([], allowed)])?;
        let rows = self.allowed_and_denied().map(|(word, count)| ([("decision", word)], count));
        page.counter("authorization_checks", "As agentweave_authz_decisions_total", rows)?;
        let rows = self.by_status().map(|(capability, of, status)| {
            let labels = [("capability", capability), ("status", status.as_str())];
            (labels, of.seconds[status.index()].count())
        });
        page.counter("capability_calls", "Requests by capability and how they ended", rows)?;
        page.gauge(
            "svid_ttl_seconds",
            "As agentweave_identity_ttl_seconds",
            [([], self.svid_ttl())],
        )?;
        let help = "As agentweave_identity_renewals_total";
        page.counter("svid_rotation", help, [([], load(&self.rotations))])?;
        let help = "As agentweave_identity_renewal_errors_total";
        page.counter("svid_rotation_errors", help, [([], load(&self.rotation_errors))])
    }

    /// Every capability with what is counted of it, for each status.
    fn by_status(&self) -> impl Iterator<Item = (&str, &super::CapabilityMetrics, Status)> {
        let named = self.names.iter().zip(&self.capabilities);
        named.flat_map(|(name, of)| Status::ALL.map(|status| (&**name, of, status)))
    }

    fn all_targets(&self) -> impl Iterator<Item = &TargetMetrics> {
        self.targets.values().chain([&self.other_target])
    }

    fn all_decisions(&self) -> [(&'static str, u64); 2] {
        let sum = |place: usize| self.decisions.iter().map(|counts| load(&counts[place])).sum();
        [(DECISIONS[0], sum(0)), (DECISIONS[1], sum(1))]
    }

    fn allowed_and_denied(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.all_decisions().into_iter()
    }

    fn svid_ttl(&self) -> f64 {
        (load(&self.svid_valid_until).saturating_sub(load(&self.now)) / 1000) as f64
    }
}

/// What alert rules know of a policy server; its own names are beside it.
fn policy_server(path: &PathMetrics, page: &mut Page<'_>) -> fmt::Result {
    let [answered, failed, _spared] = path.server_answers();
    let help = "Questions that the policy server was asked";
    page.counter("opa_requests", help, [([], answered + failed)])?;
    let help = "Questions that the policy server did not answer";
    page.counter("opa_errors", help, [([], failed)])?;
    let help = "Whether the policy server is asked: 0 closed, 1 open, 2 half-open";
    let state = path.policy_server_breaker.get() as f64;
    page.gauge("authz_circuit_breaker_state", help, [([], state)])
}

fn task_status(end: TaskState) -> &'static str {
    match end {
        TaskState::Completed => "completed",
        TaskState::Failed => "failed",
        TaskState::Canceled => "canceled",
        _ => "rejected",
    }
}

/// The words for what is allowed and what is not, in the order in which they are counted.
const DECISIONS: [&str; 2] = ["allow", "deny"];

fn label(target: &TargetMetrics) -> (&'static str, &str) {
    ("target_agent", &*target.label)
}

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

/// The text that is being written.
struct Page<'a>(DescriptorEncoder<'a>);

type Labels<'l, const N: usize> = [(&'static str, &'l str); N];

impl Page<'_> {
    fn counter<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels<'l, N>, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, count) in rows {
            let none = None::<&prometheus_client::metrics::exemplar::Exemplar<NoLabelSet, u64>>;
            match labels.is_empty() {
                true => metric.encode_counter(&count, none)?,
                false => metric.encode_family(&labels)?.encode_counter(&count, none)?,
            }
        }
        Ok(())
    }

    fn gauge<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels<'l, N>, f64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in rows {
            match labels.is_empty() {
                true => metric.encode_gauge(&value)?,
                false => metric.encode_family(&labels)?.encode_gauge(&value)?,
            }
        }
        Ok(())
    }

    fn histogram<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels<'l, N>, Shown)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, Shown { sum, count, buckets }) in rows {
            match labels.is_empty() {
                true => metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?,
                false => metric
                    .encode_family(&labels)?
                    .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?,
            }
        }
        Ok(())
    }

    fn info(&mut self, name: &str, help: &str, labels: Labels<'_, 1>) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(&labels)
    }
}
