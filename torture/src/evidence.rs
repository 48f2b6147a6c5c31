//! Gathering what the checker needs once the torture is over.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use convoke::task::Tasks;
use convoke_a2a::client::{event_json, task_json};
use convoke_model::{Cursor, ListTasks, SubscribeToTask, TaskState};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::ask::{task_id, value};
use crate::checker::{Evidence, Rule, Violation};
use crate::history::Entry;
use crate::site::{Site, Victim, comes_true};
use crate::store;

/// How long after the last restart everything has to be quiet. Source: the house's reliability
/// plan, R-01.
pub const QUIET_AFTER: Duration = Duration::from_secs(30);

/// How many tasks are read from the first event at a time.
const READ_AT_A_TIME: usize = 16;

/// Waits for quiet, reads everything from the agent and from its `store`, and ends it.
///
/// # Errors
///
/// If the agent gives no answers at all, its store cannot be read, or it has ended by itself.
pub async fn gather(
    site: &Site,
    store: &Path,
    victim: Victim,
    ways: &[Tasks],
    histories: Vec<Vec<Entry>>,
) -> Result<Evidence> {
    let mut evidence = Evidence { histories, ..Evidence::default() };
    quiet(ways).await;
    for tasks in ways {
        let mut pages = tasks.pages(ListTasks {
            page_size: Some(100),
            include_artifacts: true,
            ..ListTasks::default()
        });
        let (mut count, mut total) = (0, 0);
        while let Some(page) = pages.next().await.context("a list breaks off")? {
            total = page.total;
            for task in &page.tasks {
                let task = value(&task_json(task))?;
                let id = task["id"].as_str().unwrap_or_default().to_owned();
                evidence.listed.push(id.clone());
                evidence.finals.insert(id, task);
                count += 1;
            }
        }
        ensure!(count == total, "a list has {count} tasks, and says that it has {total}");
    }
    evidence.controls = controls(ways, &evidence).await?;
    evidence.stored = Some(store::read(store)?);
    // An end in good order would wait for the callers of tasks that asked.
    victim.kill().await?;
    evidence.marks = store::marks(&site.path("marks"))?;
    Ok(evidence)
}

/// Waits until nothing is at work, for as long as that may take. What does not come to rest shows in
/// the states of the tasks.
pub async fn quiet(ways: &[Tasks]) {
    let until = Instant::now() + QUIET_AFTER;
    for tasks in ways {
        let left = until.saturating_duration_since(Instant::now());
        let _in_time = comes_true(left, || is_quiet(tasks)).await;
    }
}

async fn is_quiet(tasks: &Tasks) -> bool {
    for state in [TaskState::Submitted, TaskState::Working] {
        let list = ListTasks { state: Some(state), page_size: Some(1), ..ListTasks::default() };
        if tasks.list(&list).await.map_or(true, |page| page.total > 0) {
            return false;
        }
    }
    true
}

/// Every event of each task that somebody has followed.
async fn controls(
    ways: &[Tasks],
    evidence: &Evidence,
) -> Result<BTreeMap<String, Vec<(String, Value)>>> {
    let mut wanted = BTreeSet::new();
    let mut epoch = None;
    for entry in evidence.histories.iter().flatten() {
        if let Entry::Heard { cursor: Some(cursor), event, .. } = entry {
            let task = event["task"]["id"].as_str().unwrap_or_default();
            if evidence.finals.contains_key(task) {
                wanted.insert(task.to_owned());
            }
            epoch = cursor.parse::<Cursor>().ok().map(|cursor| cursor.epoch).or(epoch);
        }
    }
    let Some(epoch) = epoch else { return Ok(BTreeMap::new()) };
    let mut controls = BTreeMap::new();
    let mut reading = JoinSet::new();
    for id in wanted {
        if reading.len() >= READ_AT_A_TIME
            && let Some(read) = reading.join_next().await
        {
            let (id, control) = read.context("a reader panicked")??;
            controls.insert(id, control);
        }
        let ways = ways.to_vec();
        reading.spawn(async move {
            let control = control(&ways, &id, epoch).await?;
            Ok::<_, anyhow::Error>((id, control))
        });
    }
    while let Some(read) = reading.join_next().await {
        let (id, control) = read.context("a reader panicked")??;
        controls.insert(id, control);
    }
    Ok(controls)
}

/// The events of a task behind its first, in one stream from whoever's task it is.
pub async fn control(ways: &[Tasks], id: &str, epoch: u64) -> Result<Vec<(String, Value)>> {
    let after = Some(Cursor { epoch, seq: 1 });
    let from = SubscribeToTask { tenant: None, id: task_id(id)?, after };
    let mut refused = None;
    for tasks in ways {
        let mut events = match tasks.subscribe(&from).await {
            Ok(events) => events,
            Err(error) => {
                refused = Some(error);
                continue;
            }
        };
        let mut control = Vec::new();
        while let Some(event) = events.next().await.with_context(|| format!("{id} breaks off"))? {
            let cursor = event.cursor.map(|cursor| cursor.to_string()).unwrap_or_default();
            let event = value(&event_json(&event.item, None, false))?;
            let asks = event["statusUpdate"]["status"]["state"] == "TASK_STATE_INPUT_REQUIRED";
            control.push((cursor, event));
            // A task that waits for its caller has no end that could be waited for.
            if asks && is_last(tasks, id, control.len()).await? {
                break;
            }
        }
        return Ok(control);
    }
    Err(anyhow::anyhow!("nobody can follow {id}: {refused:?}"))
}

/// Whether a task stands at the question that was just heard.
async fn is_last(tasks: &Tasks, id: &str, heard: usize) -> Result<bool> {
    let from = SubscribeToTask { tenant: None, id: task_id(id)?, after: None };
    let Ok(mut events) = tasks.subscribe(&from).await else { return Ok(false) };
    let first = events.next().await?.and_then(|event| event.cursor);
    Ok(first.is_some_and(|cursor| cursor.seq == heard as u64 + 1))
}

/// What is wrong with a client that had not come to its end when everything was quiet.
#[must_use]
pub fn stuck(client: usize) -> String {
    let what = format!("waits still, {} s after the last restart", QUIET_AFTER.as_secs());
    Violation { rule: Rule::Quiet, subject: format!("client {client}"), what }.to_string()
}
