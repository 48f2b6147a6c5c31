//! the agent is killed at random instants while clients of all sorts ask of it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::ask::{Asker, Send, Told};
use crate::checker::check;
use crate::evidence::{QUIET_AFTER, gather, stuck};
use crate::history::History;
use crate::random::Random;
use crate::report::Report;
use crate::site::Site;

/// How much of it.
#[derive(Debug, Clone)]
pub struct Kills {
    /// How often the agent is killed.
    pub kills: u32,
    /// How many clients there are.
    pub clients: usize,
    /// How long the agent lives at most.
    pub life_max: Duration,
    /// The longest pause of a client between two questions.
    pub pause_max: Duration,
    /// When no further kill is made.
    pub time_max: Duration,
}

/// Every fourth client proves who it is; so many names there are.
const NAMES: usize = 4;

/// Kills, and checks.
///
/// # Errors
///
/// If it could not be done, which says nothing about the agent unless it did not start.
pub async fn run(
    victim: &Path,
    amount: &Kills,
    seed: u64,
    tell: impl Fn(String),
) -> Result<Report> {
    let begun = std::time::Instant::now();
    let mut random = Random::new(seed);
    let site = Site::new(victim, &mut random).await?;
    let mut running = site.start().await?;
    let mut ways = vec![site.anonymous()?];
    for name in 0..NAMES {
        ways.push(site.of(&format!("u{name}")).await?);
    }
    let ending = Arc::new(AtomicBool::new(false));
    // Questions are asked for as long as the torture and the quiet after it may take.
    let until = Instant::now() + amount.time_max + 4 * QUIET_AFTER;
    let mut clients: Vec<JoinHandle<Result<History>>> = Vec::new();
    for number in 0..amount.clients {
        let way = match number % 4 {
            3 => ways.get(1 + (number / 4) % NAMES),
            _ => ways.first(),
        };
        let way = way.context("no way")?.clone();
        let history = History::begin(&site.path(&format!("client-{number}.jsonl")))?;
        let client = Client {
            number,
            sent: 0,
            asker: Asker::new(way, history, until),
            random: random.fork(),
            pause_max: amount.pause_max,
        };
        clients.push(tokio::spawn(client.run(Arc::clone(&ending))));
    }

    let mut kills = 0;
    while kills < amount.kills && begun.elapsed() < amount.time_max {
        tokio::time::sleep(random.below_duration(amount.life_max)).await;
        running.kill().await?;
        kills += 1;
        if kills % 20 == 0 {
            tell(format!("R-01: {kills} kills"));
        }
        running = site.start().await?;
    }
    ending.store(true, Ordering::Relaxed);
    let quiet_at = Instant::now() + QUIET_AFTER;
    let mut violations = Vec::new();
    let mut histories = Vec::new();
    for (number, mut client) in clients.into_iter().enumerate() {
        match timeout_at(quiet_at, &mut client).await {
            Ok(history) => histories.push(history.context("a client panicked")??.into_entries()),
            Err(_) => {
                client.abort();
                violations.push(stuck(number));
                let file = site.path(&format!("client-{number}.jsonl"));
                histories.push(crate::history::read(&file)?);
            }
        }
    }
    let evidence = gather(&site, &site.store(), running, &ways, histories).await?;
    violations.extend(check(&evidence).iter().map(ToString::to_string));
    let answers = evidence.histories.iter().map(Vec::len).sum::<usize>();
    let runs = format!(
        "{kills} kills, {} clients, {} tasks, {answers} entries, {} tasks followed",
        amount.clients,
        evidence.finals.len(),
        evidence.controls.len(),
    );
    let mut report = Report::new("R-01", begun, runs, violations);
    if !report.violations.is_empty() {
        report.kept = Some(site.keep());
    }
    Ok(report)
}

/// One client and what it is up to.
struct Client {
    number: usize,
    sent: u64,
    asker: Asker,
    random: Random,
    pause_max: Duration,
}

impl Client {
    async fn run(mut self, ending: Arc<AtomicBool>) -> Result<History> {
        let mut mine: Vec<String> = Vec::new();
        while !ending.load(Ordering::Relaxed) {
            match self.random.below(10) {
                0 => self.asker.list().await?,
                1 if !mine.is_empty() => {
                    let place = self.random.place(mine.len());
                    if let Some(id) = mine.get(place) {
                        self.asker.get(id).await?;
                    }
                }
                2 if !mine.is_empty() => {
                    // Followed from the task as it stands, or read if it has ended.
                    let place = self.random.place(mine.len());
                    if let Some(id) = mine.get(place).cloned() {
                        self.asker.follow(&id, None).await?;
                    }
                }
                _ => mine.extend(Box::pin(self.make()).await?),
            }
            let pause = self.random.below_duration(self.pause_max);
            tokio::time::sleep(pause).await;
        }
        Ok(self.asker.into_history())
    }

    /// Makes a task, and sees to it that it ends; its name, if it is one to come back to.
    async fn make(&mut self) -> Result<Option<String>> {
        let send = self.next();
        if matches!(send.capability, "hangs" | "deaf") {
            let Some(task) = self.asker.send(&send, false).await? else { return Ok(None) };
            let id = name(&task);
            tokio::time::sleep(self.random.below_duration(self.pause_max)).await;
            self.asker.cancel(&id).await?;
            return Ok(Some(id));
        }
        match self.random.below(10) {
            0..4 => {
                let Some(task) = self.asker.send(&send, true).await? else { return Ok(None) };
                self.answer(&name(&task), task["status"]["state"].as_str(), None).await
            }
            4..8 => {
                let Some(told) = self.asker.stream(&send).await? else { return Ok(None) };
                let Told { task: Some(id), state, cursor, .. } = told else { return Ok(None) };
                self.answer(&id, state.as_deref(), cursor).await
            }
            other => {
                let Some(task) = self.asker.send(&send, false).await? else { return Ok(None) };
                let id = name(&task);
                if other == 8 && send.capability != "asks" {
                    tokio::time::sleep(self.random.below_duration(self.pause_max / 8)).await;
                    self.asker.cancel(&id).await?;
                    return Ok(Some(id));
                }
                let Some(told) = self.asker.follow(&id, None).await? else { return Ok(None) };
                self.answer(&id, told.state.as_deref(), told.cursor).await
            }
        }
    }

    /// Answers a task's question if it has one, and follows it to its end.
    async fn answer(
        &mut self,
        id: &str,
        state: Option<&str>,
        cursor: Option<convoke_model::Cursor>,
    ) -> Result<Option<String>> {
        // Some questions are left open, as people do; nobody comes back to those.
        if state == Some("TASK_STATE_INPUT_REQUIRED") {
            if self.random.chance(10) {
                return Ok(None);
            }
            let word = format!("word-{}-{}", self.number, self.random.below(1_000_000));
            let replied = self.asker.reply(id, &word).await?;
            if replied.is_none() {
                return Ok(None);
            }
            if cursor.is_some() {
                self.asker.follow(id, cursor).await?;
            }
        }
        Ok(Some(id.to_owned()))
    }

    fn next(&mut self) -> Send {
        let message = format!("m-{}-{}", self.number, self.sent);
        self.sent += 1;
        let (to, pause_us) = (self.random.below(40), self.random.below(20_000));
        let (capability, params): (_, Value) = match self.random.below(20) {
            0..5 => ("quick", json!({"key": message})),
            5..9 => ("count", json!({"to": to, "pause_us": pause_us})),
            9..13 => ("resumable", json!({"to": to, "pause_us": pause_us})),
            13..15 => ("asks", json!({})),
            15 => ("flaky", json!({})),
            16 => {
                let capability = if self.random.chance(50) { "panics" } else { "errors" };
                (capability, json!({}))
            }
            17 => (if self.random.chance(50) { "hangs" } else { "deaf" }, json!({})),
            18 => ("chatter", json!({"pieces": 10 * to})),
            _ => ("late", json!({})),
        };
        Send { message, capability, params }
    }
}

fn name(task: &Value) -> String {
    task["id"].as_str().unwrap_or_default().to_owned()
}
