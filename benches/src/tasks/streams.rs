//! What an event of a stream costs, in a short stream and in a long one, with one reader and with a
//! hundred.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde::Serialize;
use serde_json::json;

use super::sse::{self, Followed, Said};
use super::worker::{Setting, Worker};
use crate::authority::Authority;
use crate::child::Child;
use crate::cores;
use crate::load::{Connection, Target};
use crate::options::Pace;
use crate::procfs;
use crate::stage::{Door, Stage, TRUST_DOMAIN};
use crate::stats::{Sample, Spread, interleave};
use crate::wire;

/// How many pieces a stream has, one experiment each.
const PIECES: [u64; 3] = [100, 1_000, 10_000];

/// How many pieces come in a turn, in as many streams one after the other as that takes.
const PIECES_OF_A_TURN: u64 = 20_000;

/// How many follow one task, and how many pieces they see.
const CROWD: usize = 100;
const PIECES_FOR_A_CROWD: u64 = 1_000;

/// How long a task may take to get somewhere.
const WITHIN: Duration = Duration::from_secs(10);

/// One server with streams of one length.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) server: &'static str,
    /// How many pieces a stream has.
    pub(crate) pieces: u64,
    pub(crate) readers: usize,
    /// Events that were delivered, a second.
    pub(crate) per_second: Spread,
    /// For one event that was delivered, in microseconds.
    pub(crate) wall_us: Spread,
    pub(crate) server_cpu_us: Spread,
    /// Events a second beside the ceiling; a ceiling has none.
    pub(crate) beside: Option<Spread>,
    /// What an event costs beside the first row of the same server: wall and CPU, if that was seen
    /// to use any.
    pub(crate) wall_beside_first: Option<Spread>,
    pub(crate) cpu_beside_first: Option<Spread>,
}

/// Measures streams over mutual TLS.
///
/// # Errors
///
/// One stream with a gap, without an end or with other events makes all of it void.
pub(crate) fn measure(stage: &Stage, pace: Pace) -> Result<Vec<Row>> {
    let store = stage.path("streams.store");
    let setting =
        Setting { name: "streams", door: Door::Mesh, store: &store, seats: 10_000, disk: None };
    let worker = Worker::start(stage, &setting)?;
    let tls = Some(stage.save_identity(&Authority::new(TRUST_DOMAIN)?)?);
    let (mut contenders, mut ceilings) = (Vec::new(), Vec::new());
    for pieces in PIECES {
        let request = request(pieces);
        let target = worker.target.clone();
        let first = stage.block_on(async {
            let mut connection = Connection::open(&target).await?;
            sse::follow(&mut connection, &request).await
        })?;
        let said = sse::check(&first.body)?;
        ensure!(said.pieces >= pieces, "{} pieces instead of {pieces}", said.pieces);
        let events = stage.path(&format!("events.{pieces}"));
        std::fs::write(&events, &first.body)?;
        let mut command = cores::server(&std::env::current_exe()?, stage.is_apart());
        command.arg("ceil-sse").arg(&events).arg(stage.identity()).stdout(Stdio::piped());
        let mut child = Child::start(&mut command)?;
        let ceiling = Target { addr: child.lines()?.next()?.parse()?, tls: tls.clone() };
        let (pid, name) = (child.pid(), "ceil_sse");
        let expected = Expected::Same(first.body.into());
        contenders.push(Contender {
            name,
            pid,
            target: ceiling,
            request: request.clone(),
            expected,
            pieces,
        });
        let (pid, name, expected) = (worker.pid(), "mesh", Expected::Like(said));
        contenders.push(Contender { name, pid, target, request, expected, pieces });
        ceilings.push(child);
    }
    let rounds = interleave(contenders.len(), pace.rounds, |index| {
        let contender = &contenders[index];
        let streams = PIECES_OF_A_TURN / contender.pieces;
        stage.block_on(contender.turn(streams)).context(contender.name)
    })?;
    let mut rows = Vec::new();
    for (index, (contender, own)) in contenders.iter().zip(&rounds).enumerate() {
        let is_ours = index % 2 == 1;
        let ceiling = is_ours.then(|| &rounds[index - 1]);
        let first = (index > 1).then(|| &rounds[index % 2]);
        rows.push(row(contender.name, (contender.pieces, 1), own, ceiling, first)?);
    }
    let crowd = interleave(2, pace.rounds, |index| {
        let readers = if index == 0 { 1 } else { CROWD };
        let turn = crowd(&worker, readers);
        stage.block_on(turn).with_context(|| format!("{readers} readers of one task"))
    })?;
    for (index, own) in crowd.iter().enumerate() {
        let readers = if index == 0 { 1 } else { CROWD };
        let first = (index > 0).then(|| &crowd[0]);
        rows.push(row("mesh", (PIECES_FOR_A_CROWD, readers), own, None, first)?);
    }
    Ok(rows)
}

fn row(
    server: &'static str,
    (pieces, readers): (u64, usize),
    own: &[Sample],
    ceiling: Option<&Vec<Sample>>,
    first: Option<&Vec<Sample>>,
) -> Result<Row> {
    let beside = ceiling.map(|ceiling| Spread::ratio(own, ceiling, Sample::per_second));
    let wall = first.map(|first| Spread::ratio(own, first, wall_us));
    let cpu = first.and_then(|first| Spread::ratio(own, first, Sample::server_us).ok());
    Ok(Row {
        server,
        pieces,
        readers,
        per_second: Spread::over(own, Sample::per_second)?,
        wall_us: Spread::over(own, wall_us)?,
        server_cpu_us: Spread::over(own, Sample::server_us)?,
        beside: beside.transpose()?,
        wall_beside_first: wall.transpose()?,
        cpu_beside_first: cpu,
    })
}

fn wall_us(sample: &Sample) -> f64 {
    1e6 / sample.per_second()
}

fn request(pieces: u64) -> Vec<u8> {
    let params = wire::message("tell", &json!({ "pieces": pieces }));
    wire::call("SendStreamingMessage", &params, wire::EXTENSION_FIELD)
}

/// A server with streams of one length.
struct Contender {
    name: &'static str,
    pid: u32,
    target: Target,
    request: Vec<u8>,
    expected: Expected,
    pieces: u64,
}

enum Expected {
    /// These very bytes.
    Same(Arc<[u8]>),
    /// As many events.
    Like(Said),
}

impl Expected {
    fn check(&self, body: &[u8]) -> Result<u64> {
        match self {
            Self::Same(expected) => {
                ensure!(**expected == *body, "other events");
                Ok(body.windows(2).filter(|window| *window == b"\n\n").count() as u64)
            }
            Self::Like(expected) => {
                let said = sse::check(body)?;
                ensure!(said.pieces == expected.pieces, "{} pieces", said.pieces);
                Ok(said.events)
            }
        }
    }
}

impl Contender {
    async fn turn(&self, streams: u64) -> Result<Sample> {
        let mut connection = Connection::open(&self.target).await?;
        let before = procfs::cpu(self.pid)?;
        let mut sample = Sample::default();
        for _ in 0..streams {
            let Followed { body, took } = sse::follow(&mut connection, &self.request).await?;
            sample.count += self.expected.check(&body)?;
            sample.elapsed += took;
        }
        sample.server_cpu = procfs::cpu(self.pid)?.saturating_sub(before);
        Ok(sample)
    }
}

/// Lets `readers` follow one task from before its first piece to its end.
async fn crowd(worker: &Worker, readers: usize) -> Result<Sample> {
    let mut own = Connection::open(&worker.target).await?;
    let params = wire::message("relay", &json!({ "pieces": PIECES_FOR_A_CROWD }));
    let sent = ask(&mut own, wire::call("SendMessage", &params, wire::EXTENSION_FIELD)).await?;
    let id = sent["task"]["id"].as_str().context("no task")?.to_owned();
    let patience = Instant::now() + WITHIN;
    let get = wire::call("GetTask", &json!({ "id": id }), "");
    while ask(&mut own, get.clone()).await?["status"]["state"] != "TASK_STATE_INPUT_REQUIRED" {
        ensure!(Instant::now() < patience, "the task does not ask");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let subscribe = wire::call("SubscribeToTask", &json!({ "id": id }), "");
    let mut connections = Vec::with_capacity(readers);
    for _ in 0..readers {
        let mut connection = Connection::open(&worker.target).await?;
        sse::begin(&mut connection, &subscribe).await?;
        connections.push(connection);
    }
    let before = procfs::cpu(worker.pid())?;
    let begun = Instant::now();
    let answer = json!({
        "message": {
            "messageId": "bench-2",
            "taskId": id,
            "role": "ROLE_USER",
            "parts": [{ "text": "yes" }],
        },
        "configuration": { "returnImmediately": true },
    });
    ask(&mut own, wire::call("SendMessage", &answer, "")).await?;
    try_join_all(connections.iter_mut().map(sse::rest)).await?;
    let elapsed = begun.elapsed();
    let server_cpu = procfs::cpu(worker.pid())?.saturating_sub(before);
    let mut count = 0;
    for connection in &connections {
        let said = sse::check(&sse::body(&connection.received)?)?;
        ensure!(said.pieces >= PIECES_FOR_A_CROWD, "{} pieces", said.pieces);
        count += said.events;
    }
    Ok(Sample { count, elapsed, server_cpu, generator_cpu: Duration::ZERO })
}

async fn ask(connection: &mut Connection, request: Vec<u8>) -> Result<serde_json::Value> {
    let extent = connection.answer(&request).await?;
    wire::result(&connection.received[..extent.total])
}
