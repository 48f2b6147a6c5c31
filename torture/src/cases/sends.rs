//! one message is sent a hundred times at once, while the agent is killed now and then.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::ask::{Asker, Send};
use crate::checker::check;
use crate::evidence::gather;
use crate::history::History;
use crate::random::Random;
use crate::report::Report;
use crate::site::Site;

/// How much of it.
#[derive(Debug, Clone)]
pub struct Sends {
    /// How many messages at most.
    pub rounds: u32,
    /// How many copies of each.
    pub copies: usize,
    /// In how many rounds of a hundred the agent is killed.
    pub kills_percent: u64,
    /// When no further round is begun.
    pub time_max: Duration,
}

/// A kill comes within this time of its round's beginning, about as long as a round takes.
const KILL_WITHIN: Duration = Duration::from_millis(150);

/// Sends, and checks.
///
/// # Errors
///
/// If it could not be done.
pub async fn run(
    victim: &Path,
    amount: &Sends,
    seed: u64,
    tell: impl Fn(String),
) -> Result<Report> {
    let begun = std::time::Instant::now();
    let mut random = Random::new(seed);
    let site = Site::new(victim, &mut random).await?;
    let mut running = site.start().await?;
    let until = Instant::now() + 2 * amount.time_max + Duration::from_secs(30);
    let way = site.anonymous()?;
    let new = || Asker::new(way.clone(), History::in_memory(), until);
    let mut askers: Vec<Asker> = (0..amount.copies).map(|_| new()).collect();
    let (mut rounds, mut kills) = (0, 0);
    while rounds < amount.rounds && begun.elapsed() < amount.time_max {
        let message = format!("m-{rounds}");
        let params = json!({"key": message});
        let mut copies = JoinSet::new();
        for mut asker in askers.drain(..) {
            let send =
                Send { message: message.clone(), capability: "quick", params: params.clone() };
            let waits = random.chance(50);
            copies.spawn(async move {
                asker.send(&send, waits).await?;
                Ok::<_, anyhow::Error>(asker)
            });
        }
        if random.chance(amount.kills_percent) {
            tokio::time::sleep(random.below_duration(KILL_WITHIN)).await;
            running.kill().await?;
            kills += 1;
            running = site.start().await?;
        }
        while let Some(asker) = copies.join_next().await {
            askers.push(asker.context("a client panicked")??);
        }
        rounds += 1;
        if rounds % 500 == 0 {
            tell(format!("R-18: {rounds} rounds"));
        }
    }
    let histories: Vec<_> =
        askers.into_iter().map(|asker| asker.into_history().into_entries()).collect();
    let evidence = gather(&site, &site.store(), running, &[way], histories).await?;
    let mut violations: Vec<String> = check(&evidence).iter().map(ToString::to_string).collect();
    if evidence.finals.len() != rounds as usize {
        violations.push(format!("{rounds} messages became {} tasks", evidence.finals.len()));
    }
    let runs = format!(
        "{rounds} messages, each {} times at once; {kills} kills; {} executions",
        amount.copies,
        evidence.marks.len()
    );
    let mut report = Report::new("R-18", begun, runs, violations);
    if !report.violations.is_empty() {
        report.kept = Some(site.keep());
    }
    Ok(report)
}
