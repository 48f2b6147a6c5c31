//! SendMessage → Message over JSON-RPC: our listeners beside their ceilings.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::contender::Contender;
use crate::load;
use crate::options::Pace;
use crate::procfs;
use crate::stage::{Door, Level, Stage};
use crate::stats::{Sample, Spread, interleave, percentile};
use crate::wire::Exchange;

/// How many connections are kept busy, one experiment each.
const CONNECTIONS: [usize; 2] = [1, 64];

/// One server on one number of connections.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) server: &'static str,
    pub(crate) connections: usize,
    /// Requests that were answered right.
    pub(crate) requests: u64,
    /// Requests that were refused because the decision was over time or the processors behind.
    pub(crate) refused: u64,
    pub(crate) per_second: Spread,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// CPU of the server for one request, in microseconds.
    pub(crate) server_cpu_us: Spread,
    /// CPU of the load generator for one request, in microseconds.
    pub(crate) generator_cpu_us: f64,
    /// Beside the ceiling; a ceiling has none.
    pub(crate) beside: Option<Beside>,
}

/// A server beside its ceiling, round by round.
#[derive(Debug, Serialize)]
pub(crate) struct Beside {
    pub(crate) ceiling: &'static str,
    pub(crate) throughput: Spread,
    pub(crate) server_cpu: Spread,
}

/// All of it, with the memory of the worker before and after.
#[derive(Debug, Serialize)]
pub(crate) struct Unary {
    pub(crate) rows: Vec<Row>,
    pub(crate) request_bytes: usize,
    pub(crate) answer_bytes: usize,
    /// Resident memory of the mesh worker after its first answer, in bytes.
    pub(crate) idle_bytes: u64,
    /// The same after all rounds, in bytes.
    pub(crate) loaded_bytes: u64,
}

/// Measures both listeners.
///
/// # Errors
///
/// One wrong answer or one missing record makes all of it void.
pub(crate) fn measure(stage: &Stage, pace: Pace) -> Result<Unary> {
    let mut rows = Vec::new();

    let dev = stage.worker("dev", Door::Dev, Level::Warn)?;
    let (exchange, answer) = stage.first_answer(&dev.target)?;
    dev.settle(1, 0)?;
    let ceiling = stage.ceiling_http(&answer)?;
    same_bytes(stage, &ceiling, &exchange)?;
    rows.extend(compare(&[&ceiling, &dev], &exchange, pace)?);
    drop((dev, ceiling));

    let quiet = stage.worker("mesh", Door::Mesh, Level::Warn)?;
    let (exchange, answer) = stage.first_answer(&quiet.target)?;
    quiet.settle(1, 0)?;
    let idle_bytes = procfs::resident(quiet.pid())?;
    let verbose = stage.worker("mesh_info", Door::Mesh, Level::Info)?;
    same_bytes(stage, &verbose, &exchange)?;
    verbose.settle(1, 0)?;
    let ceiling = stage.ceiling_tls(&answer)?;
    same_bytes(stage, &ceiling, &exchange)?;
    rows.extend(compare(&[&ceiling, &quiet, &verbose], &exchange, pace)?);

    Ok(Unary {
        rows,
        request_bytes: exchange.request.len(),
        answer_bytes: exchange.head_bytes() + exchange.body_bytes(),
        idle_bytes,
        loaded_bytes: procfs::resident(quiet.pid())?,
    })
}

/// A ceiling that answered fewer bytes would be no ceiling.
fn same_bytes(stage: &Stage, contender: &Contender, exchange: &Exchange) -> Result<()> {
    let (own, _) = stage.first_answer(&contender.target)?;
    ensure!(
        (own.head_bytes(), own.body_bytes()) == (exchange.head_bytes(), exchange.body_bytes()),
        "{} answers other bytes",
        contender.name
    );
    Ok(())
}

/// Measures `contenders`, of which the first is the ceiling of the others.
fn compare(contenders: &[&Contender], exchange: &Exchange, pace: Pace) -> Result<Vec<Row>> {
    let exchange = Arc::new(exchange.clone());
    let mut rows = Vec::new();
    for connections in CONNECTIONS {
        let mut answered: Vec<Answered> = contenders.iter().map(|_| Answered::default()).collect();
        let rounds = interleave(contenders.len(), pace.rounds, |index| {
            let run = load::run(contenders[index], &exchange, connections, pace.run)?;
            answered[index].add(run.latencies_ns, run.refused);
            Ok(run.sample)
        })?;
        for (index, (own, answered)) in rounds.iter().zip(answered).enumerate() {
            let beside = (index > 0).then(|| beside(contenders[0].name, own, &rounds[0]));
            let name = contenders[index].name;
            rows.push(row(name, connections, own, answered, beside.transpose()?)?);
        }
    }
    Ok(rows)
}

/// What came back in all rounds.
#[derive(Default)]
struct Answered {
    latencies_ns: Vec<u32>,
    refused: u64,
}

impl Answered {
    fn add(&mut self, mut latencies_ns: Vec<u32>, refused: u64) {
        self.latencies_ns.append(&mut latencies_ns);
        self.refused += refused;
    }
}

fn beside(ceiling: &'static str, own: &[Sample], other: &[Sample]) -> Result<Beside> {
    let throughput = Spread::ratio(own, other, Sample::per_second)?;
    let server_cpu = Spread::ratio(own, other, Sample::server_us)?;
    Ok(Beside { ceiling, throughput, server_cpu })
}

fn row(
    server: &'static str,
    connections: usize,
    rounds: &[Sample],
    mut answered: Answered,
    beside: Option<Beside>,
) -> Result<Row> {
    answered.latencies_ns.sort_unstable();
    let at = |share| -> Result<f64> {
        let ns = percentile(&answered.latencies_ns, share).context("no request was answered")?;
        Ok(f64::from(ns) / 1000.0)
    };
    Ok(Row {
        server,
        connections,
        requests: answered.latencies_ns.len() as u64,
        refused: answered.refused,
        per_second: Spread::over(rounds, Sample::per_second)?,
        p50_us: at(0.5)?,
        p99_us: at(0.99)?,
        server_cpu_us: Spread::over(rounds, Sample::server_us)?,
        generator_cpu_us: Spread::over(rounds, Sample::generator_us)?.median,
        beside,
    })
}

/// Keeps one worker busy, so that a profiler can look at it.
///
/// # Errors
///
/// As [`measure`].
pub(crate) fn hold(
    stage: &Stage,
    door: Door,
    level: Level,
    connections: usize,
    time: Duration,
) -> Result<()> {
    let worker = stage.worker("worker", door, level)?;
    let (exchange, _) = stage.first_answer(&worker.target)?;
    worker.settle(1, 0)?;
    crate::say(&format!("worker {} is busy for {time:?}", worker.pid()))?;
    let run = load::run(&worker, &Arc::new(exchange), connections, time)?;
    crate::say(&format!(
        "{:.0} requests/s, {:.1} µs CPU of the server each, {} refused because late",
        run.sample.per_second(),
        run.sample.server_us(),
        run.refused
    ))
}
