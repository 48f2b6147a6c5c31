//! What was promised, beside what was measured.

use serde::Serialize;

use crate::report::Report;
use crate::stats::Spread;
use crate::unary::Row;

/// One promise.
#[derive(Debug, Serialize)]
pub(crate) struct Target {
    pub(crate) what: &'static str,
    pub(crate) target: String,
    pub(crate) measured: String,
    pub(crate) verdict: Verdict,
}

/// Whether a promise is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// In every round.
    Yes,
    /// In the median, and not in every round.
    Mostly,
    /// Not in the median.
    No,
}

/// Which side of a bound is good.
#[derive(Debug, Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn holds(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(bound) => figure >= bound,
            Self::AtMost(bound) => figure <= bound,
        }
    }

    fn verdict(self, figure: Spread) -> Verdict {
        if !self.holds(figure.median) {
            Verdict::No
        } else if self.holds(figure.min) && self.holds(figure.max) {
            Verdict::Yes
        } else {
            Verdict::Mostly
        }
    }

    fn text(self, unit: &str) -> String {
        match self {
            Self::AtLeast(bound) => format!("≥ {bound}{unit}"),
            Self::AtMost(bound) => format!("≤ {bound}{unit}"),
        }
    }
}

impl Verdict {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Mostly => "in the median",
            Self::No => "**no**",
        }
    }
}

/// The promises about which `report` says something. Source of the bounds: the design's list of
/// what Convoke must reach.
pub(crate) fn targets(report: &Report) -> Vec<Target> {
    let mut targets = Vec::new();
    let mut add = |what, bound: Bound, unit, figure: Spread| {
        let measured = format!("{:.2}{unit} ({:.2}–{:.2})", figure.median, figure.min, figure.max);
        let (target, verdict) = (bound.text(unit), bound.verdict(figure));
        targets.push(Target { what, target, measured, verdict });
    };
    let one = |figure: f64| Spread { median: figure, min: figure, max: figure };
    let many = |row: &&Row| row.connections > 1;
    if let Some(unary) = &report.unary {
        let beside = |server| {
            let of_server = unary.rows.iter().filter(many).find(|row| row.server == server);
            of_server.and_then(|row| row.beside.as_ref())
        };
        if let Some(dev) = beside("dev") {
            add("plaintext, 64 connections: throughput", Bound::AtLeast(0.6), " ×", dev.throughput);
            add("plaintext, 64 connections: server CPU", Bound::AtMost(1.7), " ×", dev.server_cpu);
        }
        if let Some(mesh) = beside("mesh") {
            let what = "mTLS, Rego, audit, 64 connections: throughput";
            // Its policy depends on caller and method alone, so its decisions are remembered.
            add(what, Bound::AtLeast(0.7), " ×", mesh.throughput);
        }
        let refused: u64 = unary.rows.iter().map(|row| row.refused).sum();
        add("allowed calls that were refused", Bound::AtMost(0.0), "", one(refused as f64));
        add("idle memory", Bound::AtMost(25.0), " MiB", one(mib(unary.idle_bytes)));
    }
    if let Some(decisions) = &report.decisions {
        for decision in decisions {
            let ([p50, p99, threads], [p50_us, p99_us]) = match decision.policy {
                "evaluated" => (
                    [
                        "decision, evaluated: p50",
                        "decision, evaluated: p99",
                        "decision, evaluated: two threads beside two processes",
                    ],
                    [20.0, 40.0],
                ),
                "strict" => (
                    [
                        "decision, strict policy, remembered: p50",
                        "decision, strict policy, remembered: p99",
                        "decision, strict policy, remembered: two threads beside two processes",
                    ],
                    [1.0, 1.0],
                ),
                _ => (
                    [
                        "decision, tutorial's policy, remembered: p50",
                        "decision, tutorial's policy, remembered: p99",
                        "decision, tutorial's policy, remembered: two threads beside two processes",
                    ],
                    [1.0, 1.0],
                ),
            };
            add(p50, Bound::AtMost(p50_us), " µs", one(decision.p50_us));
            add(p99, Bound::AtMost(p99_us), " µs", one(decision.p99_us));
            add(threads, Bound::AtLeast(0.9), " ×", decision.threads);
        }
    }
    if let Some(handshakes) = &report.handshakes {
        add("full mTLS handshakes", Bound::AtLeast(0.95), " × bare rustls", handshakes.ratio);
    }
    if let Some(starts) = &report.starts {
        let answered = starts.answered_ms;
        let spread = Spread { median: answered.p50, min: answered.p50, max: answered.max };
        add("cold start to first authorised answer", Bound::AtMost(25.0), " ms", spread);
        add("stripped binary", Bound::AtMost(40.0), " MiB", one(mib(starts.binary_bytes)));
    }
    if let Some(seconds) = report.clean_build_seconds {
        add("clean release build", Bound::AtMost(8.0), " min", one(seconds / 60.0));
    }
    targets
}

pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_held_in_every_round_or_only_mostly() {
        fn check(bound: Bound, (min, median, max): (f64, f64, f64), expected: Verdict) {
            let verdict = bound.verdict(Spread { median, min, max });
            assert_eq!(verdict, expected, "{bound:?} {min} {median} {max}");
        }
        check(Bound::AtLeast(0.5), (0.5, 0.6, 0.7), Verdict::Yes);
        check(Bound::AtLeast(0.5), (0.4, 0.6, 0.7), Verdict::Mostly);
        check(Bound::AtLeast(0.5), (0.4, 0.49, 0.7), Verdict::No);
        check(Bound::AtMost(25.0), (8.0, 9.0, 25.0), Verdict::Yes);
        check(Bound::AtMost(25.0), (8.0, 9.0, 26.0), Verdict::Mostly);
        check(Bound::AtMost(25.0), (8.0, 26.0, 27.0), Verdict::No);
    }
}
