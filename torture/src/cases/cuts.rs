//! streams are cut at random bytes and taken up again, beside ones that are not.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use convoke_model::Cursor;
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
pub struct Cuts {
    /// How many cuts at least.
    pub cuts: u64,
    /// How many streams at a time.
    pub readers: usize,
    /// When no further stream is begun.
    pub time_max: Duration,
}

/// How many bytes of an answer pass at most before it is cut: some events, or not even its head.
const PASS_MAX: u64 = 8_000;

/// How often each task is followed again from its beginning.
const AGAIN: u64 = 4;

/// Cuts, and checks.
///
/// # Errors
///
/// If it could not be done.
pub async fn run(victim: &Path, amount: &Cuts, seed: u64, tell: impl Fn(String)) -> Result<Report> {
    let begun = std::time::Instant::now();
    let mut random = Random::new(seed);
    let site = Arc::new(Site::new(victim, &mut random).await?);
    let running = site.start().await?;
    site.plain().cut_below(PASS_MAX);
    let until = Instant::now() + amount.time_max;
    let mut readers = JoinSet::new();
    for number in 0..amount.readers {
        let asker = Asker::new(site.anonymous()?, History::in_memory(), until + amount.time_max);
        let reader =
            Reader { number, asker, random: random.fork(), site: Arc::clone(&site), until };
        readers.spawn(reader.run(amount.cuts));
    }
    let mut histories = Vec::new();
    while let Some(history) = readers.join_next().await {
        histories.push(history.context("a reader panicked")??.into_entries());
    }
    let cuts = site.plain().cuts();
    tell(format!("R-16: {cuts} cuts"));
    site.plain().cut_below(0);
    let evidence =
        gather(&site, &site.store(), running, &[site.anonymous_direct()?], histories).await?;
    let violations = check(&evidence).iter().map(ToString::to_string).collect();
    let events = evidence.controls.values().map(Vec::len).sum::<usize>();
    let runs = format!("{cuts} cuts, {} tasks of {events} events", evidence.controls.len());
    Ok(Report::new("R-16", begun, runs, violations))
}

struct Reader {
    number: usize,
    asker: Asker,
    random: Random,
    site: Arc<Site>,
    until: Instant,
}

impl Reader {
    async fn run(mut self, cuts: u64) -> Result<History> {
        let mut sent = 0;
        while self.site.plain().cuts() < cuts && Instant::now() < self.until {
            let message = format!("r-{}-{sent}", self.number);
            sent += 1;
            let (to, pause_us) = (50 + self.random.below(150), self.random.below(500));
            let params = json!({"to": to, "pause_us": pause_us});
            let send = Send { message, capability: "count", params };
            let Some(told) = self.asker.stream(&send).await? else { continue };
            let (Some(id), Some(cursor)) = (told.task, told.cursor) else { continue };
            for _ in 0..AGAIN {
                let seq = 1 + self.random.below(cursor.seq.saturating_sub(1));
                self.asker.follow(&id, Some(Cursor { seq, ..cursor })).await?;
            }
        }
        Ok(self.asker.into_history())
    }
}
