//! What was promised, beside what was measured.

use serde::Serialize;

use crate::report::Report;
use crate::stats::Spread;
use crate::tasks::durable::Durable;
use crate::tasks::stored::Stored;
use crate::tasks::streams;
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
    if let Some(durable) = &report.durable {
        of_durable(durable, &mut add);
    }
    if let Some(streams) = &report.streams {
        of_streams(streams, &mut add);
    }
    if let Some(stored) = &report.stored {
        of_stored(stored, &mut add);
    }
    if let Some(seconds) = report.clean_build_seconds {
        add("clean release build", Bound::AtMost(8.0), " min", one(seconds / 60.0));
    }
    targets
}

/// What [`targets`] adds a promise with.
type Add<'a> = &'a mut dyn FnMut(&'static str, Bound, &'static str, Spread);

fn of_durable(durable: &Durable, add: Add<'_>) {
    let row = |in_flight, extra_us| {
        let mesh = durable.rows.iter().filter(|row| row.server == "mesh");
        mesh.into_iter().find(move |row| (row.in_flight, row.extra_us) == (in_flight, extra_us))
    };
    for (in_flight, extra_us, what, bound, shared) in [
        (64, 0, "durable task, 64 in flight", 0.5, "durable task, 64 in flight: tasks a sync"),
        (256, 0, "durable task, 256 in flight", 0.3, "durable task, 256 in flight: tasks a sync"),
        (64, 1000, "the same on a slow disk, 64", 0.5, "the same on a slow disk, 64: tasks a sync"),
        (
            256,
            1000,
            "the same on a slow disk, 256",
            0.3,
            "the same on a slow disk, 256: tasks a sync",
        ),
    ] {
        let Some(row) = row(in_flight, extra_us) else { continue };
        if let Some(beside) = row.beside {
            add(what, Bound::AtLeast(bound), " ×", beside);
        }
        if let Some(per_sync) = row.acks_per_sync {
            add(shared, Bound::AtLeast(0.8 * in_flight as f64), "", per_sync);
        }
    }
}

fn of_streams(rows: &[streams::Row], add: Add<'_>) {
    let long = rows.iter().filter(|row| row.server == "mesh" && row.readers == 1);
    let Some(long) = long.max_by_key(|row| row.pieces) else { return };
    if let Some(wall) = long.wall_beside_first {
        add("event of a long stream: wall, beside a short one", Bound::AtMost(1.2), " ×", wall);
    }
    if let Some(cpu) = long.cpu_beside_first {
        add("event of a long stream: CPU, beside a short one", Bound::AtMost(1.2), " ×", cpu);
    }
    if let Some(beside) = long.beside {
        add("events of a long stream", Bound::AtLeast(0.5), " × raw SSE", beside);
    }
}

fn of_stored(stored: &Stored, add: Add<'_>) {
    let one = |figure: f64| Spread { median: figure, min: figure, max: figure };
    for row in &stored.rows {
        let what = match row.what {
            "start to first answer" => "start with 250,000 stored, beside few",
            "`GetTask`" => "`GetTask` with 250,000 stored, beside few",
            "first page of `ListTasks`" => "`ListTasks` with 250,000 stored, beside few",
            _ => "`SubscribeToTask` with 250,000 stored, beside few",
        };
        // Source: the design has these as fast as with none; what is more than a tenth is slower.
        add(what, Bound::AtMost(1.1), " ×", row.beside);
    }
    let (p99, max) = (stored.paced.p99_us / 1000.0, stored.paced.max_us / 1000.0);
    add("5,000 durable tasks/s, 250,000 stored: p99", Bound::AtMost(5.0), " ms", one(p99));
    add("5,000 durable tasks/s, 250,000 stored: longest", Bound::AtMost(10.0), " ms", one(max));
    let worst = stored.recoveries.iter().map(|one| one.seconds_per_million).fold(0.0, f64::max);
    add("recovery of a million tasks", Bound::AtMost(5.0), " s", one(worst));
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
