//! Tasks that are acknowledged once they are on the disk, beside a program that appends and syncs as
//! many bytes for each.
//!
//! The handler waits for ever, so that what is measured is a task's beginning and nothing else: it is
//! submitted and at work in one commit, and its handler has begun. Every turn has a process and a
//! store of its own, which is killed at the end: what is in the store by then has to be what was
//! acknowledged, task for task.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::disk::{Disk, Syncs};
use super::send_text;
use super::worker::{Setting, Stored, Worker};
use crate::authority::Authority;
use crate::child::Child;
use crate::cores;
use crate::load::{self, Run, Target, Until};
use crate::options::Pace;
use crate::stage::{Door, Stage, TRUST_DOMAIN};
use crate::stats::{Sample, Spread, interleave, percentile};
use crate::wire::Exchange;

/// How many requests are under way at a time, one experiment each.
const IN_FLIGHT: [usize; 3] = [1, 64, 256];

/// How many tasks may be at work. One caller may have a quarter, and no turn makes as many.
const SEATS: usize = 1_000_000;

/// By how much a sync is longer on the slow disk, in microseconds.
const SLOW_US: u32 = 1000;

/// One server with some requests under way.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) server: &'static str,
    /// By how much a sync is longer than this machine's, in microseconds.
    pub(crate) extra_us: u32,
    pub(crate) in_flight: usize,
    /// Tasks that were acknowledged.
    pub(crate) acks: u64,
    /// Requests that were refused because the processors were behind.
    pub(crate) refused: u64,
    pub(crate) per_second: Spread,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// CPU of the server for one task, in microseconds.
    pub(crate) server_cpu_us: Spread,
    /// How many tasks share a sync, those of checkpoints included; unknown without a C compiler.
    pub(crate) acks_per_sync: Option<Spread>,
    /// Tasks a second beside the ceiling; a ceiling has none.
    pub(crate) beside: Option<Spread>,
    /// CPU beside the ceiling, if that one was seen to use any: the kernel counts in steps of 10 ms,
    /// and who waits for the disk may stay below one.
    pub(crate) cpu_beside: Option<Spread>,
}

/// All of it.
#[derive(Debug, Serialize)]
pub(crate) struct Durable {
    pub(crate) rows: Vec<Row>,
    pub(crate) request_bytes: usize,
    /// What a task says, which is what the ceiling appends for it, in bytes.
    pub(crate) record_bytes: usize,
    /// Whether syncs could be counted, and made longer.
    pub(crate) has_disk: bool,
}

/// Measures both listeners, and the mesh on a slower disk.
///
/// # Errors
///
/// One wrong answer, or one task more or less in the store than were acknowledged, makes all of it
/// void.
pub(crate) fn measure(stage: &Stage, pace: Pace) -> Result<Durable> {
    let disk = Disk::make(stage.identity())?;
    if disk.is_none() {
        crate::note("without cc, syncs are not counted, and there is no slow disk")?;
    }
    let mut rows = Vec::new();
    let (mut request_bytes, mut record_bytes) = (0, 0);
    for (door, extra_us) in [(Door::Dev, 0), (Door::Mesh, 0), (Door::Mesh, SLOW_US)] {
        if extra_us > 0 && disk.is_none() {
            continue;
        }
        let ring = Ring::of(stage, door, disk.as_ref(), extra_us)?;
        (request_bytes, record_bytes) = (ring.exchange.request.len(), ring.record_bytes);
        for in_flight in IN_FLIGHT {
            rows.extend(ring.compare(in_flight, pace)?);
        }
    }
    Ok(Durable { rows, request_bytes, record_bytes, has_disk: disk.is_some() })
}

/// Keeps one worker busy with tasks that begin, so that a profiler can look at it.
///
/// # Errors
///
/// As [`measure`].
pub(crate) fn hold(stage: &Stage, door: Door, in_flight: usize, time: Duration) -> Result<()> {
    let store = stage.path("hold.store");
    let setting = Setting { name: "hold", door, store: &store, seats: SEATS, disk: None };
    let worker = Worker::start(stage, &setting)?;
    let request = send_text("hold");
    let answer = stage.ask(&worker.target, &request)?;
    let exchange = Arc::new(Exchange::with_task(request, &answer)?);
    crate::say(&format!("worker {} is busy for {time:?}", worker.pid()))?;
    let until = Until::Over(time);
    let pushed = load::push(&worker.target, worker.pid(), &exchange, in_flight, until)?;
    let run = pushed.run(worker.pid())?;
    worker.kill()?;
    crate::say(&format!(
        "{:.0} tasks/s, {:.1} µs CPU of the server each, {} refused",
        run.sample.per_second(),
        run.sample.server_us(),
        run.refused
    ))
}

/// What contenders of one door have in common.
struct Ring<'a> {
    stage: &'a Stage,
    door: Door,
    disk: Option<(&'a Disk, u32)>,
    exchange: Arc<Exchange>,
    answer: PathBuf,
    record_bytes: usize,
    /// The caller's side of the ceiling's TLS.
    tls: Option<Arc<rustls::ClientConfig>>,
}

/// A server for one turn.
struct Turn {
    contender: Contender,
    target: Target,
    syncs: Option<Syncs>,
}

enum Contender {
    Ceiling(Child),
    Ours(Worker),
}

impl<'a> Ring<'a> {
    fn of(stage: &'a Stage, door: Door, disk: Option<&'a Disk>, extra_us: u32) -> Result<Self> {
        let store = stage.path("first.store");
        let setting = Setting { name: "first", door, store: &store, seats: SEATS, disk: None };
        let worker = Worker::start(stage, &setting)?;
        let request = send_text("hold");
        let answer = stage.ask(&worker.target, &request)?;
        let exchange = Arc::new(Exchange::with_task(request, &answer)?);
        let audit = stage.path("first.audit.jsonl");
        worker.settled(&audit)?;
        worker.kill()?;
        let record_bytes = Stored::open(&store)?.bytes_per_task(&audit)?;
        std::fs::remove_dir_all(&store)?;
        let answer_file = stage.path("durable.answer");
        std::fs::write(&answer_file, answer)?;
        let tls = match door {
            Door::Dev => None,
            Door::Mesh => Some(stage.save_identity(&Authority::new(TRUST_DOMAIN)?)?),
        };
        let disk = disk.map(|disk| (disk, extra_us));
        Ok(Self { stage, door, disk, exchange, answer: answer_file, record_bytes, tls })
    }

    fn names(&self) -> [&'static str; 2] {
        match self.door {
            Door::Dev => ["ceil_durable", "dev"],
            Door::Mesh => ["ceil_durable, TLS", "mesh"],
        }
    }

    fn compare(&self, in_flight: usize, pace: Pace) -> Result<Vec<Row>> {
        let names = self.names();
        let mut answered: [Answered; 2] = Default::default();
        let rounds = interleave(names.len(), pace.rounds, |index| {
            let (run, per_sync) = self
                .turn(index > 0, in_flight, pace)
                .with_context(|| format!("{} with {in_flight} in flight", names[index]))?;
            answered[index].add(run, per_sync)
        })?;
        let extra_us = self.disk.map_or(0, |(_, extra_us)| extra_us);
        let rows = rounds.iter().zip(answered).enumerate().map(|(index, (own, mut answered))| {
            let is_ours = index > 0;
            let beside = is_ours.then(|| Spread::ratio(own, &rounds[0], Sample::per_second));
            let cpu = is_ours.then(|| Spread::ratio(own, &rounds[0], Sample::server_us).ok());
            let per_sync = &answered.per_sync;
            let acks_per_sync = match per_sync.is_empty() {
                true => None,
                false => Some(Spread::of(per_sync)?),
            };
            Ok(Row {
                server: names[index],
                extra_us,
                in_flight,
                acks: answered.latencies_ns.len() as u64,
                refused: answered.refused,
                per_second: Spread::over(own, Sample::per_second)?,
                p50_us: answered.at(0.5)?,
                p99_us: answered.at(0.99)?,
                server_cpu_us: Spread::over(own, Sample::server_us)?,
                acks_per_sync,
                beside: beside.transpose()?,
                cpu_beside: cpu.flatten(),
            })
        });
        rows.collect()
    }

    /// One turn of a server of its own: what was measured, and how many tasks shared a sync.
    fn turn(&self, ours: bool, in_flight: usize, pace: Pace) -> Result<(Run, Option<f64>)> {
        let store = self.stage.path("turn.store");
        let Turn { contender, target, syncs } =
            if ours { self.ours(&store)? } else { self.ceiling(&store)? };
        let pid = match &contender {
            Contender::Ceiling(child) => child.pid(),
            Contender::Ours(worker) => worker.pid(),
        };
        let count = || syncs.as_ref().map(Syncs::count).transpose();
        let before = count()?;
        // Half of what other parts take: each turn has the start of a process before it.
        let until = Until::Over(pace.run / 2);
        let pushed = load::push(&target, pid, &self.exchange, in_flight, until)?;
        let acks = pushed.answered();
        let per_sync = match (before, count()?) {
            (Some(before), Some(after)) => Some(acks as f64 / (after - before) as f64),
            _ => None,
        };
        let run = pushed.run(pid)?;
        match contender {
            Contender::Ceiling(child) => {
                child.kill()?;
                let bytes = std::fs::metadata(&store)?.len();
                ensure!(bytes == acks * self.record_bytes as u64, "the ceiling lost something");
                std::fs::remove_file(&store)?;
            }
            Contender::Ours(worker) => {
                worker.kill()?;
                let stored = Stored::open(&store)?.tasks()?;
                ensure!(stored == acks, "{acks} tasks were acknowledged, and {stored} are stored");
                std::fs::remove_dir_all(&store)?;
            }
        }
        Ok((run, per_sync))
    }

    fn ours(&self, store: &std::path::Path) -> Result<Turn> {
        let Self { stage, door, disk, .. } = *self;
        let setting = Setting { name: "turn", door, store, seats: SEATS, disk };
        let mut worker = Worker::start(stage, &setting)?;
        let (target, syncs) = (worker.target.clone(), worker.syncs.take());
        Ok(Turn { contender: Contender::Ours(worker), target, syncs })
    }

    fn ceiling(&self, store: &std::path::Path) -> Result<Turn> {
        let mut command = cores::server(&std::env::current_exe()?, self.stage.is_apart());
        command.arg("ceil-durable").arg(&self.answer).arg(store);
        command.arg(self.record_bytes.to_string()).stdout(Stdio::piped());
        if self.tls.is_some() {
            command.arg(self.stage.identity());
        }
        let syncs = self.disk.map(|(disk, us)| disk.under(&mut command, "ceiling", us));
        let mut child = Child::start(&mut command)?;
        let addr = child.lines()?.next()?.parse()?;
        let target = Target { addr, tls: self.tls.clone() };
        Ok(Turn { contender: Contender::Ceiling(child), target, syncs: syncs.transpose()? })
    }
}

/// What came back in all turns.
#[derive(Default)]
struct Answered {
    latencies_ns: Vec<u32>,
    refused: u64,
    per_sync: Vec<f64>,
}

impl Answered {
    fn add(&mut self, run: Run, per_sync: Option<f64>) -> Result<Sample> {
        let Run { sample, mut latencies_ns, refused } = run;
        self.latencies_ns.append(&mut latencies_ns);
        self.refused += refused;
        self.per_sync.extend(per_sync);
        Ok(sample)
    }

    fn at(&mut self, share: f64) -> Result<f64> {
        self.latencies_ns.sort_unstable();
        let ns = percentile(&self.latencies_ns, share).context("no task was acknowledged")?;
        Ok(f64::from(ns) / 1000.0)
    }
}
