//! tasks are cancelled in the moment in which they complete.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::ask::{Asker, Send};
use crate::checker::check;
use crate::evidence::gather;
use crate::history::{Entry, History};
use crate::random::Random;
use crate::report::Report;
use crate::site::Site;

/// How much of it.
#[derive(Debug, Clone)]
pub struct Races {
    /// How many at least.
    pub races: u64,
    /// How many at a time.
    pub racers: usize,
    /// When no further race is begun.
    pub time_max: Duration,
}

/// Races, and checks.
///
/// # Errors
///
/// If it could not be done.
pub async fn run(
    victim: &Path,
    amount: &Races,
    seed: u64,
    tell: impl Fn(String),
) -> Result<Report> {
    let begun = std::time::Instant::now();
    let mut random = Random::new(seed);
    let site = Site::new(victim, &mut random).await?;
    let running = site.start().await?;
    let until = Instant::now() + amount.time_max;
    let races = Arc::new(AtomicU64::new(0));
    let mut racers = JoinSet::new();
    for number in 0..amount.racers {
        let asker = Asker::new(site.anonymous()?, History::in_memory(), until + amount.time_max);
        let racer = Racer { number, asker, random: random.fork(), races: Arc::clone(&races) };
        racers.spawn(racer.run(amount.races, until));
    }
    let mut histories = Vec::new();
    while let Some(history) = racers.join_next().await {
        histories.push(history.context("a racer panicked")??.into_entries());
    }
    tell(format!("R-19: {} races", races.load(Ordering::Relaxed)));
    let count = |wanted: fn(&Entry) -> bool| {
        histories.iter().flatten().filter(|entry| wanted(entry)).count()
    };
    let cancelled = count(|entry| matches!(entry, Entry::Cancelled { .. }));
    let completed = count(|entry| matches!(entry, Entry::NotCancelable { .. }));
    let failed = count(|entry| matches!(entry, Entry::Failed { .. }));
    let evidence = gather(&site, &site.store(), running, &[site.anonymous()?], histories).await?;
    let mut violations: Vec<String> = check(&evidence).iter().map(ToString::to_string).collect();
    if cancelled == 0 || completed == 0 {
        violations.push(format!("{cancelled} cancelled, {completed} completed: no races"));
    }
    if failed > 0 {
        violations.push(format!("{failed} questions had no answer, and nobody was killed"));
    }
    let runs = format!("{cancelled} cancelled in time and {completed} too late");
    let mut report = Report::new("R-19", begun, runs, violations);
    if !report.violations.is_empty() {
        report.kept = Some(site.keep());
    }
    Ok(report)
}

struct Racer {
    number: usize,
    asker: Asker,
    random: Random,
    races: Arc<AtomicU64>,
}

impl Racer {
    async fn run(mut self, races: u64, until: Instant) -> Result<History> {
        let mut sent = 0;
        // Where the two are even is found by itself: whoever wins makes it harder for the next.
        let mut head_start_us: u64 = 2_000;
        while self.races.fetch_add(1, Ordering::Relaxed) < races && Instant::now() < until {
            let message = format!("c-{}-{sent}", self.number);
            sent += 1;
            let (capability, params) = match sent % 3 {
                0 => ("quick", json!({"key": message})),
                1 => ("count", json!({"to": self.random.below(4), "pause_us": 0})),
                _ => {
                    let pause_us = self.random.below(2_000);
                    ("count", json!({"to": 1, "pause_us": pause_us}))
                }
            };
            let send = Send { message, capability, params };
            let Some(task) = self.asker.send(&send, false).await? else { continue };
            let id = task["id"].as_str().unwrap_or_default().to_owned();
            let wait = Duration::from_micros(self.random.below(head_start_us + 1));
            tokio::time::sleep(wait).await;
            let cancelled = self.asker.cancel(&id).await?;
            head_start_us = match cancelled {
                Some(true) => (head_start_us + 200).min(20_000),
                _ => head_start_us.saturating_sub(200),
            };
        }
        Ok(self.asker.into_history())
    }
}
