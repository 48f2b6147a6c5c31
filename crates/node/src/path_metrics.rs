//! Counters of what happens to a request before its handler: turned away, decided elsewhere.
//!
//! No label holds text of a peer; every series is there from the start.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Prebuilt handles; cloning shares them.
#[derive(Debug, Clone, Default)]
pub(crate) struct PathMetrics {
    /// Requests that have a place.
    pub(crate) at_work: Gauge,
    /// Records that the decision log did not take.
    pub(crate) decision_log_dropped: Counter,
    /// 1 while the policy's files hold what cannot be loaded.
    pub(crate) reload_failing: Gauge,
    /// 1 while a policy server cannot be asked.
    pub(crate) policy_server_down: Gauge,
    /// Whether a policy server is asked: 0 closed, 1 open, 2 half-open.
    pub(crate) policy_server_breaker: Gauge,
    rejected: [Counter; 4],
    reloads: [Counter; 2],
    server_answers: [Counter; 3],
}

/// Why a request was turned away before it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// All places are taken.
    Busy,
    /// The caller has its part of them.
    Caller,
    /// The processor is behind.
    Behind,
    /// The caller's deadline has passed.
    Late,
}

/// What became of a policy server's question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerAnswer {
    /// It answered.
    Answered,
    /// It did not, or not in a way that can be read.
    Failed,
    /// It was not asked, because it failed before.
    Spared,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

impl PathMetrics {
    /// Adds the metrics to `registry`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let rejected = Family::<ReasonLabel, Counter>::default();
        let reloads = Family::<ResultLabel, Counter>::default();
        let answers = Family::<ResultLabel, Counter>::default();
        let of = |family: &Family<ResultLabel, Counter>, result| {
            family.get_or_create_owned(&ResultLabel { result })
        };
        let metrics = Self {
            rejected: ["busy", "caller", "behind", "late"]
                .map(|reason| rejected.get_or_create_owned(&ReasonLabel { reason })),
            reloads: ["loaded", "refused"].map(|result| of(&reloads, result)),
            server_answers: ["answered", "failed", "spared"].map(|result| of(&answers, result)),
            ..Self::default()
        };
        let add = registry.sub_registry_with_prefix("convoke");
        add.register("requests_rejected", "Requests turned away before their work", rejected);
        add.register("requests_at_work", "Requests at work", metrics.at_work.clone());
        add.register("policy_reloads", "Changed policies that were found", reloads);
        let help = "1 while the policy's files cannot be loaded and the last good one decides";
        add.register("policy_reload_failing", help, metrics.reload_failing.clone());
        add.register("policy_server_questions", "Questions for the policy server", answers);
        let help = "1 while the policy server cannot be asked and everything is refused";
        add.register("policy_server_down", help, metrics.policy_server_down.clone());
        let help = "Decisions that the decision log had no room for";
        add.register("decision_log_dropped", help, metrics.decision_log_dropped.clone());
        metrics
    }

    pub(crate) fn rejected(&self, why: Rejection) {
        self.rejected[why as usize].inc();
    }

    pub(crate) fn reloaded(&self, loaded: bool) {
        self.reloads[usize::from(!loaded)].inc();
        self.reload_failing.set(i64::from(!loaded));
    }

    /// How many questions were answered, failed, and were spared.
    pub(crate) fn server_answers(&self) -> [u64; 3] {
        [0, 1, 2].map(|place| self.server_answers[place].get())
    }

    pub(crate) fn server(&self, answer: ServerAnswer) {
        self.server_answers[answer as usize].inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_from_the_start_and_counts() {
        let mut registry = Registry::default();
        let metrics = PathMetrics::register(&mut registry);
        metrics.rejected(Rejection::Late);
        metrics.reloaded(false);
        metrics.server(ServerAnswer::Spared);
        metrics.at_work.inc();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"convoke_requests_rejected_total{reason="busy"} 0"#,
            r#"convoke_requests_rejected_total{reason="late"} 1"#,
            "convoke_requests_at_work 1",
            r#"convoke_policy_reloads_total{result="loaded"} 0"#,
            r#"convoke_policy_reloads_total{result="refused"} 1"#,
            "convoke_policy_reload_failing 1",
            r#"convoke_policy_server_questions_total{result="spared"} 1"#,
            "convoke_policy_server_down 0",
            "convoke_decision_log_dropped_total 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
