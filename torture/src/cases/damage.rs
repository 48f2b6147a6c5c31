//! bits of the store flip, pages become zero, files become shorter. What is damaged is refused,
//! or served as it was; never something else, and never nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use convoke_journal::{
    Created, Durability, Events, Journal, ListQuery, NewTask, Retention, Scope, SendKey,
    SqliteJournal, SqliteOptions, StoredTask,
};
use convoke_model::{
    CapabilityName, ContextId, Cursor, Message, MessageId, Role, SpiffeId, TaskEvent, TaskId,
    Terms, UnixMillis,
};
use rusqlite::{Connection, OpenFlags};
use serde_json::json;
use tokio::time::Instant;

use super::no_audit::NoAudit;
use crate::ask::{Asker, Send};
use crate::history::History;
use crate::random::Random;
use crate::report::Report;
use crate::site::Site;

/// How much of it.
#[derive(Debug, Clone)]
pub struct Damage {
    /// How many tasks the store has, about.
    pub tasks: u64,
    /// How many bits are flipped, one at a time.
    pub flips: u32,
    /// How many pages become zero, one at a time.
    pub zeroed: u32,
    /// How often a file becomes shorter.
    pub cut: u32,
    /// When no further damage is done.
    pub time_max: Duration,
}

/// The files of a store.
const FILES: [&str; 3] = ["journal.db", "journal.db-wal", "journal.mark"];

/// How much is zeroed at a time. Source: the size of a sector of today's disks.
const SECTOR: usize = 4096;

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Flip,
    Zero,
    Cut,
}

/// Events with their numbers.
type Numbered = Vec<(u64, TaskEvent)>;

/// What is in a store that is whole.
struct Known {
    tasks: Vec<(Scope, StoredTask, Numbered)>,
    sends: Vec<(Scope, SendKey, TaskId)>,
    epoch: u64,
}

/// Damages, and checks.
///
/// # Errors
///
/// If it could not be done.
pub async fn run(
    victim: &Path,
    amount: &Damage,
    seed: u64,
    tell: impl Fn(String),
) -> Result<Report> {
    let begun = std::time::Instant::now();
    let mut random = Random::new(seed);
    let site = Site::new(victim, &mut random).await?;
    let stores = fill(&site, amount.tasks).await?;
    let mut known = Vec::new();
    for store in &stores {
        let copy = copied(store)?;
        known.push(Known::read(copy.path()).await?);
    }
    let kinds = [(Kind::Flip, amount.flips), (Kind::Zero, amount.zeroed), (Kind::Cut, amount.cut)];
    let (mut refused, mut at_read, mut harmless) = (0, 0, 0);
    let mut violations = Vec::new();
    for (kind, count) in kinds {
        for round in 0..count {
            if begun.elapsed() > amount.time_max {
                break;
            }
            let which = random.place(stores.len());
            let (Some(store), Some(known)) = (stores.get(which), known.get(which)) else {
                continue;
            };
            let copy = copied(store)?;
            let Some(what) = damage(copy.path(), kind, &mut random)? else { continue };
            match known.look(copy.path(), &mut random).await {
                Ok(Found::Refused) => refused += 1,
                Ok(Found::RefusedReading) => at_read += 1,
                Ok(Found::Harmless) => harmless += 1,
                Err(error) => violations.push(format!("{what} of store {which}: {error:#}")),
            }
            if round % 500 == 499 {
                tell(format!("R-06: {} damages of a kind", round + 1));
            }
        }
    }
    let done = refused + at_read + harmless + violations.len();
    let runs = format!(
        "{done} damages: {refused} refused at the start, {at_read} when read, {harmless} harmless"
    );
    let mut report = Report::new("R-06", begun, runs, violations);
    if !report.violations.is_empty() {
        report.kept = Some(site.keep());
    }
    Ok(report)
}

/// Makes two stores with tasks of all sorts: one that was killed, with its log, and one that was
/// closed.
async fn fill(site: &Site, tasks: u64) -> Result<[PathBuf; 2]> {
    let running = site.start().await?;
    let until = Instant::now() + Duration::from_secs(60);
    let mut asker = Asker::new(site.anonymous()?, History::in_memory(), until);
    for number in 0..tasks {
        let message = format!("d-{number}");
        let (capability, params) = match number % 5 {
            0 => ("count", json!({"to": number % 7, "pause_us": 0})),
            1 => ("resumable", json!({"to": 2, "pause_us": 0})),
            2 => ("errors", json!({})),
            3 => ("late", json!({})),
            _ => ("quick", json!({"key": format!("{message}-{}", "k".repeat(300))})),
        };
        asker.send(&Send { message, capability, params }, true).await?;
    }
    running.kill().await?;
    let killed = site.path("killed");
    copy(&site.store(), &killed)?;
    site.start().await?.stop().await?;
    let closed = site.path("closed");
    copy(&site.store(), &closed)?;
    Ok([killed, closed])
}

/// Copies the files of a store.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for name in FILES {
        match std::fs::copy(from.join(name), to.join(name)) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot copy {name}")),
        }
    }
    Ok(())
}

fn copied(from: &Path) -> Result<tempfile::TempDir> {
    let to = tempfile::Builder::new().prefix("convoke-damage-").tempdir()?;
    copy(from, to.path())?;
    Ok(to)
}

/// Does one thing to one file; what, in words, or nothing if the file is not there.
fn damage(store: &Path, kind: Kind, random: &mut Random) -> Result<Option<String>> {
    // A store that was closed has no log.
    let there: Vec<&str> = FILES
        .into_iter()
        .filter(|name| store.join(name).metadata().is_ok_and(|it| it.len() > 0))
        .collect();
    let Some(name) = there.get(random.place(there.len())).copied() else { return Ok(None) };
    let path = store.join(name);
    let Ok(mut bytes) = std::fs::read(&path) else { return Ok(None) };
    if bytes.is_empty() {
        return Ok(None);
    }
    let at = random.place(bytes.len());
    let bit = random.below(8);
    match kind {
        Kind::Flip => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        Kind::Zero => {
            let begin = at / SECTOR * SECTOR;
            let end = bytes.len().min(begin + SECTOR);
            if let Some(sector) = bytes.get_mut(begin..end) {
                sector.fill(0);
            }
        }
        Kind::Cut => bytes.truncate(at),
    }
    std::fs::write(&path, bytes)?;
    Ok(Some(format!("{kind:?} at byte {at} bit {bit} of {name}")))
}

/// What became of a damaged store, if it was as it should be.
enum Found {
    Refused,
    RefusedReading,
    Harmless,
}

fn open(store: &Path) -> Result<SqliteJournal, convoke_journal::OpenError> {
    let options = SqliteOptions {
        directory: store.to_owned(),
        durability: Durability::Strict,
        retention: Retention::default(),
        fatal: Box::new(|_| {}),
    };
    SqliteJournal::open(options, Arc::new(NoAudit))
}

impl Known {
    /// Everything that is in a store, found with plain SQL and read through the journal.
    async fn read(store: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(store.join("journal.db"), flags)?;
        let mut scopes = BTreeMap::new();
        let mut rows =
            connection.prepare("SELECT scope_no, agent, tenant, app, owner FROM scopes")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let text = |column: usize| row.get::<_, String>(column);
            let scope = Scope {
                agent: SpiffeId::parse(&text(1)?)?,
                tenant: text(2)?.into(),
                app: text(3)?.into(),
                owner: text(4)?.into(),
            };
            scopes.insert(row.get::<_, i64>(0)?, scope);
        }
        let scope = |number: i64| scopes.get(&number).cloned().context("a scope is missing");
        let mut ids = Vec::new();
        let mut rows = connection.prepare("SELECT scope_no, task_id FROM tasks")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            ids.push((scope(row.get(0)?)?, TaskId::parse(&row.get::<_, String>(1)?)?));
        }
        let mut sends = Vec::new();
        let mut rows = connection.prepare(
            "SELECT sends.scope_no, message_id, digest, until_at, task_id
             FROM sends JOIN tasks USING (task_no)",
        )?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let digest: Vec<u8> = row.get(2)?;
            let key = SendKey {
                message_id: MessageId::parse(&row.get::<_, String>(1)?)?,
                digest: digest.try_into().ok().context("a digest is none")?,
                until: UnixMillis(u64::try_from(row.get::<_, i64>(3)?)?),
            };
            sends.push((scope(row.get(0)?)?, key, TaskId::parse(&row.get::<_, String>(4)?)?));
        }
        let journal = open(store)?;
        let epoch = journal.epoch();
        let mut tasks = Vec::new();
        for (scope, id) in ids {
            let task = journal.read(&scope, &id).await?.context("a task is missing")?;
            let events = events(&journal, &scope, &id, epoch).await?.context("events are lost")?;
            tasks.push((scope, task, events));
        }
        ensure!(!tasks.is_empty() && !sends.is_empty(), "the store is empty");
        Ok(Self { tasks, sends, epoch })
    }

    /// Looks whether a damaged store is refused, or has everything.
    async fn look(&self, store: &Path, random: &mut Random) -> Result<Found> {
        let Ok(journal) = open(store) else { return Ok(Found::Refused) };
        let mut found = Found::Harmless;
        for (scope, task, all) in &self.tasks {
            let id = &task.task.id;
            match journal.read(scope, id).await {
                Ok(Some(read)) => ensure!(read == *task, "{id} is read as {read:?}"),
                Ok(None) => anyhow::bail!("{id} is missing"),
                Err(_) => found = Found::RefusedReading,
            }
            match journal.head(scope, id).await {
                Ok(Some(head)) => ensure!(
                    (head.state, head.last_seq) == (task.task.status.state, task.last_seq),
                    "{id} has the head {head:?}"
                ),
                Ok(None) => anyhow::bail!("the head of {id} is missing"),
                Err(_) => found = Found::RefusedReading,
            }
            match events(&journal, scope, id, self.epoch).await {
                Ok(Some(read)) => ensure!(read == *all, "{id} is told as {read:?}"),
                // Another epoch says so itself: nobody goes on from a place that may mean another.
                Ok(None) if journal.epoch() != self.epoch => {}
                Ok(None) => anyhow::bail!("the events of {id} are lost"),
                Err(_) => found = Found::RefusedReading,
            }
        }
        if let Some(listed) = self.list(&journal).await {
            ensure!(listed == self.tasks.len(), "{listed} of {} are listed", self.tasks.len());
        } else {
            found = Found::RefusedReading;
        }
        let place = random.place(self.sends.len());
        if let Some((scope, key, id)) = self.sends.get(place) {
            match journal.create(scope, again(key)?, None).await {
                Ok(Created::Known(known)) => ensure!(known == *id, "{id} is known as {known}"),
                Ok(Created::New { .. }) => anyhow::bail!("{} is new", key.message_id),
                Err(_) => found = Found::RefusedReading,
            }
        }
        journal.close().await;
        Ok(found)
    }

    /// How many different tasks are listed as they are known; `None` if lists are refused.
    async fn list(&self, journal: &SqliteJournal) -> Option<usize> {
        let mut known = BTreeMap::new();
        let mut scopes: Vec<&Scope> = Vec::new();
        for (scope, task, _) in &self.tasks {
            known.insert(&task.task.id, task.task.status.state);
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
        let mut right = 0;
        for scope in scopes {
            let mut query = ListQuery {
                context_id: None,
                state: None,
                since: None,
                capabilities: None,
                page_size: 100,
                page_token: None,
                history_length: Some(0),
                artifacts: false,
            };
            // A list that does not end is none.
            for _ in 0..=known.len() {
                let page = journal.list(scope, query.clone()).await.ok()?;
                for task in page.tasks {
                    if known.get(&task.id) == Some(&task.status.state) {
                        known.remove(&task.id);
                        right += 1;
                    }
                }
                query.page_token = page.next;
                if query.page_token.is_none() {
                    break;
                }
            }
        }
        Some(right)
    }
}

/// All events of a task; `None` if they cannot be told one by one.
async fn events(
    journal: &SqliteJournal,
    scope: &Scope,
    id: &TaskId,
    epoch: u64,
) -> Result<Option<Numbered>> {
    let mut all = Numbered::new();
    loop {
        let seq = all.last().map_or(0, |(seq, _)| *seq);
        match journal.events(scope, id, Cursor { epoch, seq }).await?.context("no task")? {
            Events::Lost => return Ok(None),
            Events::Page { events, last_seq, .. } => {
                ensure!(!events.is_empty(), "{id} ends at {seq} of {last_seq}");
                all.extend(events);
                if all.last().is_some_and(|(seq, _)| *seq >= last_seq) {
                    return Ok(Some(all));
                }
            }
        }
    }
}

/// The task that comes of a message if it is not known.
fn again(key: &SendKey) -> Result<NewTask> {
    let message = Message::new(key.message_id.clone(), Role::User, Vec::new());
    Ok(NewTask {
        id: TaskId::parse("00000000-0000-4000-8000-000000000000")?,
        context_id: ContextId::parse("again")?,
        capability: CapabilityName::parse("quick")?,
        subject: None,
        terms: Terms::default(),
        events: vec![TaskEvent::Submitted { message, at: UnixMillis(1) }],
        records: Vec::new(),
        send: Some(key.clone()),
    })
}
