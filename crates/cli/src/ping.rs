//! `convoke ping`: an agent reached several times, step by step.

use std::time::Duration;

use convoke::Ping;
use serde_json::{Value, json};

use crate::args;
use crate::exit::{Code, Failure};
use crate::paint::{Paint, say};
use crate::{call, output};

/// A step of a ping: its name, its key in JSON, and how long it took.
type Step = (&'static str, &'static str, fn(&Ping) -> Duration);

/// The steps, in their order.
const STEPS: [Step; 4] = [
    ("connect", "connect_ms", |ping| ping.connect),
    ("TLS", "tls_ms", |ping| ping.tls),
    ("answer", "answer_ms", |ping| ping.answer),
    ("total", "total_ms", |ping| ping.total),
];

pub(crate) async fn run(options: args::Ping, paint: Paint) -> Result<(), Failure> {
    call::check_address(&options.address)?;
    let client = call::connect(&options.as_who, Some(&options.agent), None).await?;
    let mut good: Vec<Ping> = Vec::new();
    let mut last_failure = None;
    for number in 1..=options.count {
        if number > 1 {
            tokio::time::sleep(options.interval).await;
        }
        match client.ping(&options.agent, &options.address).await {
            Ok(ping) => {
                if !options.json {
                    say(format!("{number:>3}  {}", steps(&ping)));
                }
                good.push(ping);
            }
            Err(error) => {
                let failure = Failure::from(error);
                if !options.json && options.count > 1 {
                    say(format!("{number:>3}  {} {}", paint.bad("failed:"), failure.message));
                }
                last_failure = Some(failure);
            }
        }
    }
    report(&options, &good, paint)?;
    match last_failure {
        None => Ok(()),
        Some(failure) if good.is_empty() => Err(failure),
        Some(failure) => {
            let failed = options.count as usize - good.len();
            let text = format!("{failed} of {} pings failed; {}", options.count, failure.message);
            Err(Failure { message: text, ..failure })
        }
    }
}

fn report(options: &args::Ping, good: &[Ping], paint: Paint) -> Result<(), Failure> {
    let Some(last) = good.last() else { return Ok(()) };
    if options.json {
        let mut report = json!({
            "agent": options.agent.as_str(),
            "address": options.address,
            "protocol": last.protocol,
            "status": last.status,
            "svid_not_after": last.svid_not_after.to_string(),
            "count": options.count,
            "failed": options.count as usize - good.len(),
        });
        for (_, key, of) in STEPS {
            let Spread { min, median, max } = Spread::of(good.iter().map(of));
            report[key] = json!({"min": millis(min), "median": millis(median), "max": millis(max)});
        }
        output::print(&report)?;
    } else {
        say(format!("\nagent        {}", paint.name(options.agent.as_str())));
        say(format!("certificate  good until {}", last.svid_not_after));
        say(format!("spoken       {}", last.protocol));
        if good.len() > 1 {
            say(format!("\n{:<12} {:>10} {:>10} {:>10}", "", "min", "median", "max"));
            for (name, _, of) in STEPS {
                let Spread { min, median, max } = Spread::of(good.iter().map(of));
                let (min, median, max) = (words(min), words(median), words(max));
                say(format!("{name:<12} {min:>10} {median:>10} {max:>10}"));
            }
        }
    }
    if last.status != 200 {
        let text = format!("{} answers {} instead of 200", options.address, last.status);
        return Err(Failure::new(Code::AgentFailed, text).hint("see the agent's log"));
    }
    Ok(())
}

/// The steps of one ping in words.
pub(crate) fn steps(ping: &Ping) -> String {
    let each = STEPS.iter().map(|(name, _, of)| format!("{name} {}", words(of(ping))));
    each.collect::<Vec<_>>().join(", ")
}

fn words(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// Milliseconds, to the microsecond.
pub(crate) fn millis(time: Duration) -> Value {
    let micros = time.as_micros();
    json!(micros as f64 / 1000.0)
}

/// The shortest, the middle and the longest of some times.
#[derive(Debug, PartialEq, Eq)]
struct Spread {
    min: Duration,
    median: Duration,
    max: Duration,
}

impl Spread {
    /// Of no times, all are zero. The median of an even number is the lower of the middle two.
    fn of(times: impl Iterator<Item = Duration>) -> Self {
        let mut times: Vec<Duration> = times.collect();
        times.sort_unstable();
        let at = |index: usize| times.get(index).copied().unwrap_or_default();
        let last = times.len().saturating_sub(1);
        Self { min: at(0), median: at(last / 2), max: at(last) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_a_middle() {
        let check = |millis: &[u64], expected: [u64; 3]| {
            let spread = Spread::of(millis.iter().copied().map(Duration::from_millis));
            let [min, median, max] = expected.map(Duration::from_millis);
            assert_eq!(spread, Spread { min, median, max });
        };
        check(&[], [0, 0, 0]);
        check(&[5], [5, 5, 5]);
        check(&[9, 1, 5], [1, 5, 9]);
        check(&[4, 3, 2, 1], [1, 2, 4]);
    }
}
