//! How much memory a task takes: at work, in line, waiting for an answer, and stored.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;
use serde_json::json;

use super::worker::{Setting, Stored, Worker};
use super::{send_text, stored};
use crate::load::{self, Until};
use crate::stage::{Door, Stage};
use crate::wire::{self, Exchange};

/// How many tasks there are of each, so that a page more or less does not matter.
const TASKS: u64 = 10_000;

/// How many wait for an answer: one caller may have 1,000 open, those of the warm-up included.
const QUESTIONS: u64 = 800;

/// How many are stored.
const STORED: u64 = 20_000;

/// Connections that make them.
const CONNECTIONS: usize = 32;

/// How long memory is given to come to rest: what one request took is given back.
const REST: Duration = Duration::from_millis(500);

/// How long tasks may take to get where they are measured.
const WITHIN: Duration = Duration::from_secs(60);

/// Tasks of one kind.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) tasks: u64,
    /// By how much the process grew for one, in bytes.
    pub(crate) resident_bytes: f64,
    /// By how much the store grew for one, in bytes.
    pub(crate) store_bytes: f64,
}

/// Measures the growth of one worker for each kind.
///
/// # Errors
///
/// If a task is not made, or does not get to where it is to be measured.
pub(crate) fn measure(stage: &Stage) -> Result<Vec<Row>> {
    [
        ("at work", "hold", 8 * TASKS as usize, TASKS, "TASK_STATE_WORKING"),
        ("in line", "hold", 1, TASKS, "TASK_STATE_SUBMITTED"),
        ("waiting for an answer", "relay", 10_000, QUESTIONS, "TASK_STATE_INPUT_REQUIRED"),
        ("stored", "note", 10_000, STORED, "TASK_STATE_COMPLETED"),
    ]
    .into_iter()
    .map(|(what, capability, seats, tasks, state)| {
        grow(stage, what, (capability, seats), tasks, state)
    })
    .collect()
}

fn grow(
    stage: &Stage,
    what: &'static str,
    (capability, seats): (&'static str, usize),
    tasks: u64,
    state: &str,
) -> Result<Row> {
    let store = stage.path("memory.store");
    let setting = Setting { name: "memory", door: Door::Mesh, store: &store, seats, disk: None };
    let worker = Worker::start(stage, &setting)?;
    let request = match capability {
        "relay" => {
            let params = wire::message(capability, &json!({ "pieces": 1 }));
            wire::call("SendMessage", &params, wire::EXTENSION_FIELD)
        }
        _ => send_text(capability),
    };
    // The connections and what comes with them are there before, and so is the first of the line.
    stage.ask(&worker.target, &request)?;
    let exchange = Arc::new(Exchange::any(request));
    let push = |count| {
        load::push(&worker.target, worker.pid(), &exchange, CONNECTIONS, Until::Sent(count))
    };
    let warm = push(CONNECTIONS as u64 * 4)?.answered();
    let pages = |worker: &Worker| -> Result<(u64, u64)> {
        std::thread::sleep(REST);
        Ok((worker.resident()?, Stored::open(&store)?.bytes()?))
    };
    let before = pages(&worker)?;
    let made = push(tasks)?.answered();
    let expected = made + warm + u64::from(seats > 1);
    let give_up = Instant::now() + WITHIN;
    loop {
        let params = json!({ "pageSize": 1, "status": state });
        let request = wire::call("ListTasks", &params, "");
        let found = stored::list(stage, &worker.target, &request)?;
        if found >= expected {
            break;
        }
        ensure!(Instant::now() < give_up, "{found} tasks of {expected} are {state}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let after = pages(&worker)?;
    worker.kill()?;
    std::fs::remove_dir_all(&store)?;
    let each = |before: u64, after: u64| after.saturating_sub(before) as f64 / made as f64;
    Ok(Row {
        what,
        tasks: made,
        resident_bytes: each(before.0, after.0),
        store_bytes: each(before.1, after.1),
    })
}
