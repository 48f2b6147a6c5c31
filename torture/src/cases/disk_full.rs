//! the disk below the store fills up at random points, and is emptied again.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use convoke_model::{FaultCode, GetTask};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::damage;
use crate::ask::{Asker, Send, task_id};
use crate::checker::check;
use crate::evidence::{gather, quiet};
use crate::history::History;
use crate::random::Random;
use crate::report::Report;
use crate::site::{Site, comes_true};

/// How much of it.
#[derive(Debug, Clone)]
pub struct DiskFull {
    /// How often the disk is filled.
    pub fills: u32,
    /// How large the disk is: it has to have room for the store and its log.
    pub disk_mib: u64,
    /// How many clients there are.
    pub clients: usize,
    /// When it is not filled again.
    pub time_max: Duration,
}

/// Mounts a small disk over the store and becomes what follows. It needs no rights, where the system
/// lets its users have name spaces of their own.
const SMALL_DISK: &str = "mount -t tmpfs -o size=$1m,mode=700 none \"$0\" && shift && exec \"$@\"";

/// How much room an emptied disk has to have at least; with less, the case is about nothing.
const ROOM_MIB_MIN: u64 = 8;

/// How soon after there is room again changes have to be taken. Source: the house's reliability
/// plan, R-07.
const RECOVERED_AFTER: Duration = Duration::from_secs(5);

/// How long a full disk may go unnoticed: what is written fits into what the store has already.
const NOTICED_AFTER: Duration = Duration::from_secs(10);

/// Fills, and checks.
///
/// # Errors
///
/// If it could not be done.
pub async fn run(
    victim: &Path,
    amount: &DiskFull,
    seed: u64,
    tell: impl Fn(String),
) -> Result<Report> {
    let begun = std::time::Instant::now();
    let mut random = Random::new(seed);
    let site = Site::new(victim, &mut random).await?;
    let store = site.store();
    std::fs::create_dir_all(&store)?;
    let size = amount.disk_mib.to_string();
    let disk = store.to_str().context("a path is not UTF-8")?.to_owned();
    let before: Vec<String> = ["unshare", "-rm", "sh", "-c", SMALL_DISK, &disk, &size]
        .into_iter()
        .map(str::to_owned)
        .collect();
    if let Err(why) = has_name_spaces(&before) {
        return Ok(Report::skipped("R-07", why));
    }
    let running = site.start_with(&before, json!({})).await?;
    let pid = running.pid().context("the victim is gone")?.as_raw_nonzero();
    let inside = PathBuf::from(format!("/proc/{pid}/root{disk}"));
    if !inside.join("journal.db").exists() {
        return Ok(Report::skipped("R-07", "the small disk cannot be reached from here"));
    }

    let until = Instant::now() + 2 * amount.time_max + Duration::from_secs(60);
    let ending = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for number in 0..amount.clients {
        let asker = Asker::new(site.anonymous()?, History::in_memory(), until);
        clients.spawn(client(number, asker, Arc::clone(&ending)));
    }
    let way = site.anonymous()?;
    let mut asker = Asker::new(way.clone(), History::in_memory(), until);
    let first =
        Send { message: "first".into(), capability: "quick", params: json!({"key": "first"}) };
    let task = asker.send(&first, true).await?.context("the first task was not taken")?;
    let get = GetTask {
        tenant: None,
        id: task_id(task["id"].as_str().unwrap_or_default())?,
        history_length: None,
    };

    let mut violations = Vec::new();
    let (mut fills, mut noticed, mut slowest) = (0, 0, Duration::ZERO);
    while fills < amount.fills && begun.elapsed() < amount.time_max {
        sleep(random.below_duration(Duration::from_millis(100))).await;
        let filler = inside.join("filler");
        fill(&filler)?;
        fills += 1;
        let mut wrong = |what: String| violations.push(format!("fill {fills}: {what}"));
        let send = |number: u64| {
            let message = format!("probe-{fills}-{number}");
            let params = json!({"key": format!("{message}{}", "x".repeat(30_000))});
            Send { message, capability: "quick", params }.request(true)
        };
        // Each makes the store grow, until it cannot.
        let (mut number, mut refusal) = (0, None);
        let noticed_until = Instant::now() + NOTICED_AFTER;
        while refusal.is_none() && Instant::now() < noticed_until {
            number += 1;
            refusal = way.send(&send(number)?).await.err();
        }
        match refusal {
            None => wrong("the store grows on a full disk".to_owned()),
            Some(error) if error.code() == Some(FaultCode::Unavailable) => noticed += 1,
            Some(error) => wrong(format!("refused with {}", convoke_model::chain(&error))),
        }
        if let Err(error) = way.get(&get).await {
            wrong(format!("a read is refused with {}", convoke_model::chain(&error)));
        }
        let address = format!("http://{}", site.plain().address());
        match convoke::open::get(&address, "/health/live").await {
            Ok((200, _)) => {}
            other => wrong(format!("health says {other:?}")),
        }
        std::fs::remove_file(&filler).context("cannot empty the disk")?;
        let room = rustix::fs::statvfs(&inside).context("cannot look at the disk")?;
        ensure!(
            room.f_bavail * room.f_frsize >= ROOM_MIB_MIN << 20,
            "the store fills a disk of {} MiB by itself",
            amount.disk_mib
        );
        let emptied = Instant::now();
        let taken = comes_true(RECOVERED_AFTER, || {
            number += 1;
            let (way, send) = (way.clone(), send(number));
            async move {
                match send {
                    Ok(send) => way.send(&send).await.is_ok(),
                    Err(_) => false,
                }
            }
        });
        if !taken.await {
            wrong("changes are refused with room on the disk".to_owned());
        }
        slowest = slowest.max(emptied.elapsed());
        if fills % 10 == 0 {
            tell(format!("R-07: {fills} fills"));
        }
    }
    ending.store(true, Ordering::Relaxed);
    let mut histories = vec![asker.into_history().into_entries()];
    while let Some(history) = clients.join_next().await {
        histories.push(history.context("a client panicked")??.into_entries());
    }
    let runs = format!(
        "{fills} fills, {noticed} noticed; changes were taken again after {} ms at most",
        slowest.as_millis()
    );
    // The disk goes with the victim, and SQLite finds no way to it from here.
    let (ways, copy) = ([way], site.path("copy"));
    quiet(&ways).await;
    running.held_still(|| damage::copy(&inside, &copy)).await?;
    let evidence = gather(&site, &copy, running, &ways, histories).await?;
    // Probes are not in any history: they are there to be refused.
    let found = check(&evidence).into_iter().filter(|found| !found.what.contains("`probe-"));
    violations.extend(found.map(|found| found.to_string()));
    let mut report = Report::new("R-07", begun, runs, violations);
    if !report.violations.is_empty() {
        report.kept = Some(site.keep());
    }
    Ok(report)
}

/// Whether the system lets us have a small disk of our own; otherwise what it says.
fn has_name_spaces(before: &[String]) -> Result<(), String> {
    let mut words = before.iter();
    let Some(program) = words.next() else { return Ok(()) };
    let tried = Command::new(program).args(words).arg("true").output();
    match tried {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
            Err(format!("no small disk can be mounted: {said}"))
        }
        Err(error) => Err(format!("no small disk can be mounted: {program}: {error}")),
    }
}

/// Writes until nothing more can be written.
fn fill(filler: &Path) -> Result<()> {
    let mut file = File::create(filler).context("cannot fill the disk")?;
    for size in [1 << 20, 1 << 16, 1 << 12] {
        let zeros = vec![0; size];
        while file.write_all(&zeros).is_ok() {}
    }
    Ok(())
}

/// Sends one message after the other; each until it has an answer.
async fn client(number: usize, mut asker: Asker, ending: Arc<AtomicBool>) -> Result<History> {
    let mut sent = 0;
    while !ending.load(Ordering::Relaxed) {
        let message = format!("f-{number}-{sent}");
        sent += 1;
        let (capability, params) = match sent % 2 {
            0 => ("quick", json!({"key": message})),
            _ => ("errors", json!({})),
        };
        asker.send(&Send { message, capability, params }, false).await?;
        sleep(Duration::from_millis(20)).await;
    }
    Ok(asker.into_history())
}
