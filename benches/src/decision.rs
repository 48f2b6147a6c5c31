//! `Policy::decide`: how long one takes, and whether two threads are worth two processes.

use std::process::{Command, Stdio};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use convoke_model::{Caller, Json, OperationKind, Principal, SpiffeId, UnixMillis};
use convoke_policy::{Policy, PolicyOptions, PolicySource, Question};
use serde::Serialize;

use crate::child::{Child, Lines};
use crate::options::{Pace, Rego};
use crate::stage::{SEED_POLICY, STRICT_POLICY};
use crate::stats::{Sample, Spread, interleave, percentile};

/// Threads and processes that are compared.
const SIDE_BY_SIDE: usize = 2;

/// Longest decision, generous: how long one takes is measured here, not judged.
const TIME_MAX: Duration = Duration::from_secs(1);

/// Different requests that are asked about in turn, so that none is asked twice in a row.
const REQUESTS: usize = 256;

/// Of one policy.
#[derive(Debug, Serialize)]
pub(crate) struct Decisions {
    pub(crate) policy: &'static str,
    pub(crate) count: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Decisions a second of two threads beside two processes.
    pub(crate) threads: Spread,
    /// Decisions a second of two threads.
    pub(crate) threads_per_second: Spread,
}

/// Measures both of the worker's policies.
///
/// # Errors
///
/// If a decision is not an allowing one.
pub(crate) fn measure(pace: Pace) -> Result<Vec<Decisions>> {
    [Rego::Seed, Rego::Strict, Rego::Evaluated].into_iter().map(|rego| of(rego, pace)).collect()
}

/// One process of the comparison: prints `ready`, waits for a line with a number of milliseconds,
/// decides for so long and prints how often and in how many nanoseconds.
///
/// # Errors
///
/// If a decision is not an allowing one.
pub(crate) fn process(rego: Rego) -> Result<()> {
    let asker = Asker::new(rego)?;
    asker.ask(0)?;
    crate::say("ready")?;
    for line in std::io::stdin().lines() {
        let done = asker.ask_for(Duration::from_millis(line?.parse()?))?;
        crate::say(&format!("{} {}", done.count, done.elapsed.as_nanos()))?;
    }
    Ok(())
}

fn of(rego: Rego, pace: Pace) -> Result<Decisions> {
    let mut latencies_ns = Asker::new(rego)?.latencies(pace.run)?;
    latencies_ns.sort_unstable();
    let at = |share| -> Result<f64> {
        let ns = percentile(&latencies_ns, share).context("no decision was made")?;
        Ok(ns as f64 / 1000.0)
    };
    let mut processes: Vec<Process> =
        (0..SIDE_BY_SIDE).map(|_| Process::start(rego)).collect::<Result<_>>()?;
    let asker = Arc::new(Asker::new(rego)?);
    let time = pace.run / 4;
    let rounds = interleave(2, pace.rounds, |contender| match contender {
        0 => in_processes(&mut processes, time),
        _ => in_threads(&asker, time),
    })?;
    Ok(Decisions {
        policy: rego.name(),
        count: latencies_ns.len() as u64,
        p50_us: at(0.5)?,
        p99_us: at(0.99)?,
        threads: Spread::ratio(&rounds[1], &rounds[0], Sample::per_second)?,
        threads_per_second: Spread::over(&rounds[1], Sample::per_second)?,
    })
}

/// A policy and the requests that it is asked about.
struct Asker {
    policy: Policy,
    caller: Caller,
    agent: SpiffeId,
    params: Json,
    request_ids: Vec<String>,
    began: Instant,
}

impl Asker {
    fn new(rego: Rego) -> Result<Self> {
        let text = match rego {
            Rego::Seed => SEED_POLICY.to_owned(),
            Rego::Strict => STRICT_POLICY.to_owned(),
            Rego::Evaluated => format!("{STRICT_POLICY}\nat := input.request.timestamp\n"),
        };
        let source = PolicySource { name: rego.name().to_owned(), text };
        let options = PolicyOptions { time_max: TIME_MAX, ..PolicyOptions::default() };
        let agent = SpiffeId::parse("spiffe://example.org/document-worker")?;
        let caller = SpiffeId::parse("spiffe://example.org/orchestrator")?;
        Ok(Self {
            policy: Policy::load(&source, &options)?,
            caller: Caller::Principal(Arc::new(Principal::from_verified_svid(caller, &agent))),
            agent,
            params: Json::parse(r#"{"text":"This is a wonderful document."}"#)?,
            request_ids: (0..REQUESTS).map(|number| format!("request-{number}")).collect(),
            began: Instant::now(),
        })
    }

    fn ask(&self, number: u64) -> Result<()> {
        let request_id = &self.request_ids[number as usize % REQUESTS];
        let question = Question {
            caller: &self.caller,
            agent: &self.agent,
            agent_name: "Document Worker Agent",
            operation: OperationKind::SendMessage,
            method: "count_words",
            params: Some(&self.params),
            at: UnixMillis(1_800_000_000_000 + number),
            protocol: "a2a/1.0",
            remote_addr: "127.0.0.1:50000",
            request_id,
            task_id: None,
            context_id: None,
        };
        let decision = self.policy.decide(&question, &|| self.began.elapsed());
        ensure!(decision.is_allowed(), "refused: {:?}", decision.reason);
        Ok(())
    }

    /// Asks for `time`, looking at the clock now and then only.
    fn ask_for(&self, time: Duration) -> Result<Sample> {
        let begun = Instant::now();
        let mut count = 0;
        while begun.elapsed() < time {
            for _ in 0..64 {
                self.ask(count)?;
                count += 1;
            }
        }
        Ok(Sample { count, elapsed: begun.elapsed(), ..Sample::default() })
    }

    /// Asks for `time` and gives how long each took, in nanoseconds; the first, which loads the
    /// policy on this thread, is left out.
    fn latencies(&self, time: Duration) -> Result<Vec<u64>> {
        self.ask_for(time / 20)?;
        let begun = Instant::now();
        let mut latencies_ns = Vec::with_capacity(1 << 18);
        while begun.elapsed() < time {
            let asked = Instant::now();
            self.ask(latencies_ns.len() as u64)?;
            latencies_ns.push(u64::try_from(asked.elapsed().as_nanos())?);
        }
        Ok(latencies_ns)
    }
}

fn in_threads(asker: &Arc<Asker>, time: Duration) -> Result<Sample> {
    let ready = Arc::new(Barrier::new(SIDE_BY_SIDE));
    let threads: Vec<_> = (0..SIDE_BY_SIDE)
        .map(|_| {
            let (asker, ready) = (Arc::clone(asker), Arc::clone(&ready));
            std::thread::spawn(move || {
                // Loads the policy on this thread, which every worker thread does once.
                let loaded = asker.ask(0);
                ready.wait();
                loaded.and_then(|()| asker.ask_for(time))
            })
        })
        .collect();
    let done = threads
        .into_iter()
        .map(|thread| thread.join().map_err(|_| anyhow!("a thread that decided panicked"))?);
    joined(done)
}

fn in_processes(processes: &mut [Process], time: Duration) -> Result<Sample> {
    for process in &mut *processes {
        process.child.tell(&time.as_millis().to_string())?;
    }
    joined(processes.iter_mut().map(Process::done))
}

/// What went on side by side: counts add up, times do not.
fn joined(done: impl Iterator<Item = Result<Sample>>) -> Result<Sample> {
    let mut joined = Sample::default();
    for done in done {
        let done = done?;
        joined.count += done.count;
        joined.elapsed = joined.elapsed.max(done.elapsed);
    }
    Ok(joined)
}

struct Process {
    child: Child,
    lines: Lines,
}

impl Process {
    fn start(rego: Rego) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["decide", rego.name()]).stdout(Stdio::piped());
        let mut child = Child::start(&mut command)?;
        let mut lines = child.lines()?;
        let line = lines.next()?;
        ensure!(line == "ready", "`{line}` instead of `ready`");
        Ok(Self { child, lines })
    }

    fn done(&mut self) -> Result<Sample> {
        let line = self.lines.next()?;
        let (count, nanos) = line.split_once(' ').context("no two numbers")?;
        let elapsed = Duration::from_nanos(nanos.parse()?);
        Ok(Sample { count: count.parse()?, elapsed, ..Sample::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_policies_allow_the_question() {
        for rego in [Rego::Seed, Rego::Strict] {
            let asker = Asker::new(rego).unwrap();
            asker.ask(0).unwrap();
            assert!(asker.ask_for(Duration::from_millis(1)).unwrap().count > 0);
        }
    }

    #[test]
    fn side_by_side_counts_add_up_and_times_do_not() {
        let sample = |count, seconds| {
            Ok(Sample { count, elapsed: Duration::from_secs(seconds), ..Sample::default() })
        };
        let both = joined([sample(10, 1), sample(20, 2)].into_iter()).unwrap();
        assert_eq!((both.count, both.elapsed), (30, Duration::from_secs(2)));
    }
}
