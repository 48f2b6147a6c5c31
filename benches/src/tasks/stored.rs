//! Whether many stored tasks make anything slower, and how long a node takes to find what an earlier
//! one left.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use super::fill::task_id;
use super::worker::{Setting, Worker};
use super::{send_text, sse};
use crate::child::find;
use crate::load::{self, Connection, Target, Until};
use crate::options::{Fill, Pace};
use crate::stage::{Door, Stage};
use crate::stats::{Sample, Spread, interleave, percentile};
use crate::wire::{self, Exchange};

/// How many tasks are stored, and how few they are compared with. Few is enough for a page.
const MANY: u64 = 250_000;
const FEW: u64 = 100;

/// How many tasks an earlier process left that had not ended.
const LEFT: u64 = 100_000;

/// How many requests of a kind make a turn.
const REQUESTS: u64 = 200;

/// How many tasks a second are sent while their latency is looked at.
const PACED_PER_SECOND: f64 = 5_000.0;

/// On how many connections, and for how long.
const CONNECTIONS: usize = 64;
const PACED_FOR: Duration = Duration::from_secs(5);

/// Seats of the worker, of which a caller may have a quarter.
const SEATS: usize = 1_000_000;

/// What is asked of a store with many tasks, beside one with few.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) what: &'static str,
    /// In microseconds.
    pub(crate) few_us: Spread,
    pub(crate) many_us: Spread,
    pub(crate) beside: Spread,
}

/// Tasks that are made at a fixed pace while many are stored.
#[derive(Debug, Serialize)]
pub(crate) struct Paced {
    pub(crate) per_second: f64,
    pub(crate) tasks: u64,
    pub(crate) refused: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: f64,
}

/// A node that finds what an earlier one left.
#[derive(Debug, Serialize)]
pub(crate) struct Recovery {
    pub(crate) what: &'static str,
    pub(crate) tasks: u64,
    /// From the start of the process to an authorised answer, in milliseconds.
    pub(crate) answered_ms: f64,
    /// From the beginning of the search to its end, in milliseconds.
    pub(crate) found_ms: f64,
    /// What that comes to for a million tasks, in seconds.
    pub(crate) seconds_per_million: f64,
    /// Whether the answer came first.
    pub(crate) answered_before: bool,
}

/// All of it.
#[derive(Debug, Serialize)]
pub(crate) struct Stored {
    pub(crate) many: u64,
    pub(crate) few: u64,
    pub(crate) rows: Vec<Row>,
    /// Tasks a second with 64 in flight, beside few.
    pub(crate) create: Spread,
    pub(crate) paced: Paced,
    pub(crate) recoveries: Vec<Recovery>,
}

/// Measures starts, reads, new tasks and recovery.
///
/// # Errors
///
/// One wrong answer makes all of it void.
pub(crate) fn measure(stage: &Stage, pace: Pace) -> Result<Stored> {
    let stores = [stage.path("few.store"), stage.path("many.store")];
    fill(&stores[0], Fill::Ended, FEW)?;
    fill(&stores[1], Fill::Ended, MANY)?;
    let names = ["few", "many"];
    let start = |index: usize| {
        let store = &stores[index];
        let setting =
            Setting { name: names[index], door: Door::Mesh, store, seats: SEATS, disk: None };
        Worker::start(stage, &setting)
    };
    let mut rows = vec![row("start to first answer", pace, |index| {
        let begun = Instant::now();
        let worker = start(index)?;
        get(stage, &worker.target, 0)?;
        let elapsed = begun.elapsed();
        worker.end()?;
        Ok(Sample { count: 1, elapsed, ..Sample::default() })
    })?];
    let workers = [start(0)?, start(1)?];
    let asked = Asked { stage, workers: &workers };
    rows.push(row("first page of `ListTasks`", pace, |index| {
        let request = wire::call("ListTasks", &json!({ "pageSize": 50 }), "");
        asked.turn(
            index,
            |_| request.clone(),
            |answer| {
                let page = wire::result(answer)?;
                let tasks = page["tasks"].as_array().context("no page")?;
                ensure!(tasks.len() == 50, "{} tasks", tasks.len());
                Ok(())
            },
        )
    })?);
    rows.push(row("`GetTask`", pace, |index| {
        let tasks = [FEW, MANY][index];
        asked.turn(
            index,
            |turn| get_request(nth(turn, tasks)),
            |answer| {
                let task = wire::result(answer)?;
                ensure!(task["artifacts"].is_array(), "another task: {task}");
                Ok(())
            },
        )
    })?);
    rows.push(row("`SubscribeToTask` that resumes", pace, |index| {
        let tasks = [FEW, MANY][index];
        let epoch = epoch(stage, &workers[index].target)?;
        asked.streams(index, |turn| {
            let params = json!({ "id": task_id(nth(turn, tasks)) });
            wire::call("SubscribeToTask", &params, &format!("last-event-id: {epoch}.1\r\n"))
        })
    })?);
    let request = send_text("hold");
    let answer = stage.ask(&workers[0].target, &request)?;
    let exchange = Arc::new(Exchange::with_task(request, &answer)?);
    let rounds = interleave(2, pace.rounds, |index| {
        let (worker, until) = (&workers[index], Until::Over(pace.run / 2));
        let pushed = load::push(&worker.target, worker.pid(), &exchange, CONNECTIONS, until)?;
        Ok(pushed.run(worker.pid())?.sample)
    })?;
    let create = Spread::ratio(&rounds[1], &rounds[0], Sample::per_second)?;
    let [few, many] = workers;
    few.kill()?;
    // A process of its own, because the one before has a hundred thousand tasks at work.
    many.kill()?;
    fill_again(&stores[1])?;
    let worker = start(1)?;
    let paced = paced(&worker, &exchange)?;
    worker.kill()?;
    let mut recoveries = Vec::new();
    for (what, kind) in [("that waited", Fill::Waiting), ("that were at work", Fill::Working)] {
        recoveries.push(recover(stage, what, kind)?);
    }
    Ok(Stored { many: MANY, few: FEW, rows, create, paced, recoveries })
}

/// Fills a store in a process of its own, which takes its memory with it.
fn fill(store: &Path, kind: Fill, count: u64) -> Result<()> {
    let kind = match kind {
        Fill::Ended => "ended",
        Fill::Waiting => "waiting",
        Fill::Working => "working",
    };
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("fill").arg(store).arg(kind).arg(count.to_string());
    let status = command.stdout(Stdio::null()).status()?;
    ensure!(status.success(), "filling a store ended with {status}");
    Ok(())
}

fn fill_again(store: &PathBuf) -> Result<()> {
    std::fs::remove_dir_all(store)?;
    fill(store, Fill::Ended, MANY)
}

fn row(what: &'static str, pace: Pace, turn: impl FnMut(usize) -> Result<Sample>) -> Result<Row> {
    let rounds = interleave(2, pace.rounds, turn).context(what)?;
    let each_us = |sample: &Sample| 1e6 / sample.per_second();
    Ok(Row {
        what,
        few_us: Spread::over(&rounds[0], each_us)?,
        many_us: Spread::over(&rounds[1], each_us)?,
        beside: Spread::ratio(&rounds[1], &rounds[0], each_us)?,
    })
}

/// One task of `tasks`, another one each turn, here and there.
fn nth(turn: u64, tasks: u64) -> u64 {
    turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) % tasks
}

fn get_request(index: u64) -> Vec<u8> {
    wire::call("GetTask", &json!({ "id": task_id(index) }), "")
}

fn get(stage: &Stage, target: &Target, index: u64) -> Result<Value> {
    wire::result(&stage.ask(target, &get_request(index))?)
}

/// How many tasks a list says that there are.
pub(super) fn list(stage: &Stage, target: &Target, request: &[u8]) -> Result<u64> {
    let page = wire::result(&stage.ask(target, request)?)?;
    page["totalSize"].as_u64().with_context(|| format!("no total: {page}"))
}

/// The epoch of a node's cursors, from the number of any event.
fn epoch(stage: &Stage, target: &Target) -> Result<String> {
    let params = wire::message("tell", &json!({ "pieces": 1 }));
    let request = wire::call("SendStreamingMessage", &params, wire::EXTENSION_FIELD);
    let followed = stage
        .block_on(async { sse::follow(&mut Connection::open(target).await?, &request).await })?;
    let text = String::from_utf8(followed.body)?;
    let number = text.lines().find_map(|line| line.strip_prefix("id: ")).context("no number")?;
    Ok(number.split_once('.').context("a number of another form")?.0.to_owned())
}

/// The two workers that are asked in turn.
struct Asked<'a> {
    stage: &'a Stage,
    workers: &'a [Worker; 2],
}

impl Asked<'_> {
    /// Asks one after the other, and checks each answer after its time was taken.
    fn turn(
        &self,
        index: usize,
        request: impl Fn(u64) -> Vec<u8>,
        check: impl Fn(&[u8]) -> Result<()>,
    ) -> Result<Sample> {
        self.stage.block_on(async {
            let mut connection = Connection::open(&self.workers[index].target).await?;
            let mut elapsed = Duration::ZERO;
            for turn in 0..REQUESTS {
                let request = request(turn);
                let begun = Instant::now();
                let extent = connection.answer(&request).await?;
                elapsed += begun.elapsed();
                check(&connection.received[..extent.total])?;
            }
            Ok(Sample { count: REQUESTS, elapsed, ..Sample::default() })
        })
    }

    /// The same with answers that are streams.
    fn streams(&self, index: usize, request: impl Fn(u64) -> Vec<u8>) -> Result<Sample> {
        self.stage.block_on(async {
            let mut connection = Connection::open(&self.workers[index].target).await?;
            let mut elapsed = Duration::ZERO;
            for turn in 0..REQUESTS {
                let followed = sse::follow(&mut connection, &request(turn)).await?;
                elapsed += followed.took;
                let text = String::from_utf8(followed.body)?;
                ensure!(text.contains("TASK_STATE_COMPLETED"), "another stream: {text}");
                ensure!(text.contains(".2\n"), "a stream from another place: {text}");
            }
            Ok(Sample { count: REQUESTS, elapsed, ..Sample::default() })
        })
    }
}

fn paced(worker: &Worker, exchange: &Arc<Exchange>) -> Result<Paced> {
    let until = Until::Paced(PACED_PER_SECOND, PACED_FOR);
    let pushed = load::push(&worker.target, worker.pid(), exchange, CONNECTIONS, until)?;
    let mut run = pushed.run(worker.pid())?;
    run.latencies_ns.sort_unstable();
    let at = |share| -> Result<f64> {
        let ns = percentile(&run.latencies_ns, share).context("no task was acknowledged")?;
        Ok(f64::from(ns) / 1000.0)
    };
    Ok(Paced {
        per_second: run.sample.per_second(),
        tasks: run.sample.count,
        refused: run.refused,
        p50_us: at(0.5)?,
        p99_us: at(0.99)?,
        max_us: at(1.0)?,
    })
}

fn recover(stage: &Stage, what: &'static str, kind: Fill) -> Result<Recovery> {
    let store = stage.path("left.store");
    fill(&store, kind, LEFT)?;
    let setting =
        Setting { name: "left", door: Door::Mesh, store: &store, seats: 10_000, disk: None };
    let begun = Instant::now();
    let mut worker = Worker::start(stage, &setting)?;
    get(stage, &worker.target, LEFT / 2)?;
    let answered = begun.elapsed();
    let found = "Tasks of an earlier process found";
    let answered_before = find(&std::fs::read_to_string(&worker.log)?, found).is_none();
    let line = worker.logged(found)?;
    let found_ms = line["duration_ms"].as_f64().context("no duration")?;
    let state = match kind {
        // Their handlers wait for ever, and a caller may have a quarter of the seats.
        Fill::Waiting | Fill::Ended => "TASK_STATE_SUBMITTED",
        Fill::Working => "TASK_STATE_FAILED",
    };
    let request = wire::call("ListTasks", &json!({ "pageSize": 1, "status": state }), "");
    let there = list(stage, &worker.target, &request)?;
    let least = if kind == Fill::Working { LEFT } else { LEFT - 2_500 };
    ensure!(there >= least, "{there} tasks of {LEFT} are {state}");
    worker.kill()?;
    std::fs::remove_dir_all(&store)?;
    Ok(Recovery {
        what,
        tasks: LEFT,
        answered_ms: answered.as_secs_f64() * 1000.0,
        found_ms,
        seconds_per_million: found_ms / 1000.0 * 1e6 / LEFT as f64,
        answered_before,
    })
}
