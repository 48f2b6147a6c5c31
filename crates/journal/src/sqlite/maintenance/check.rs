//! Whether a store is whole.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::{Looking, MaintenanceError, Progress};
use crate::sqlite::error::{OpenError, StoreError};
use crate::sqlite::load;
use crate::sqlite::lock::Lock;
use crate::sqlite::lookup::{millis, unsigned};
use crate::sqlite::mark::{Found, Mark, MarkFile};
use crate::sqlite::open::FILE;
use crate::sqlite::retention::NOBODY;
use crate::sqlite::rows::TaskRow;
use crate::sqlite::walk::walk;

/// How many findings are told; the others are counted.
const TOLD_MAX: usize = 100;

/// How many tasks are looked at between two words on how far it is.
const TOLD_EVERY: u64 = 1_000;

/// Rows that belong to nothing.
const STRAY: [(&str, &str); 4] = [
    (
        "SELECT DISTINCT task_no FROM events WHERE task_no NOT IN (SELECT task_no FROM tasks)",
        "events",
    ),
    (
        "SELECT DISTINCT task_no FROM pieces WHERE task_no NOT IN (SELECT task_no FROM tasks)",
        "pieces",
    ),
    (
        "SELECT DISTINCT task_no FROM records WHERE task_no NOT IN (SELECT task_no FROM tasks)",
        "records",
    ),
    // A task that was deleted leaves what it was sent as until that may be forgotten.
    (
        "SELECT task_no FROM sends JOIN tasks USING (task_no)
         WHERE sends.scope_no <> tasks.scope_no AND tasks.scope_no <> 0",
        "a message of another owner",
    ),
];

/// What a check has found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckReport {
    /// How many tasks were looked at.
    pub tasks: u64,
    /// The first things that are wrong, in words.
    pub findings: Vec<String>,
    /// How many others there are.
    pub others: u64,
    /// Whether all that is wrong is that the mark beside the store speaks of more than is there, so
    /// that [`accept_loss`] would do.
    pub is_loss_only: bool,
}

impl CheckReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Findings as they come.
#[derive(Default)]
struct Findings {
    report: CheckReport,
    /// What was found, as hashes: a damaged row is seen as a row and as part of its task.
    seen: HashSet<u64>,
}

impl Findings {
    fn add(&mut self, what: String) {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        if !self.seen.insert(hasher.finish()) {
            return;
        }
        if self.report.findings.len() < TOLD_MAX {
            self.report.findings.push(what);
        } else {
            self.report.others += 1;
        }
    }
}

/// Looks at everything in the store of a data directory: SQLite's pages and indexes, the sum of each
/// row, each task as its events make it, counts, and whether the newest commits are there. It works
/// beside a running node and sees the store as it was when it began. Of a backup, which is a file
/// and has nothing beside it, the same but for the newest commits.
///
/// # Errors
///
/// [`MaintenanceError`] if it cannot be looked at. What is wrong with it is no error but a finding.
pub fn check(path: &Path, progress: Progress<'_>) -> Result<CheckReport, MaintenanceError> {
    let only = |what| CheckReport { findings: vec![what], ..CheckReport::default() };
    let looking = match Looking::at(path) {
        Err(MaintenanceError::Damaged { what, .. }) => return Ok(only(what)),
        looking => looking?,
    };
    let mut report = look(&looking, progress)?;
    let Some(directory) = &looking.directory else { return Ok(report) };
    // A node that runs may have written the mark since.
    let marked = match Lock::take(directory) {
        Ok(_lock) => MarkFile::peek(directory),
        Err(OpenError::InUse { .. }) => Found::Missing,
        Err(error) => return Err(error.into()),
    };
    let (store_id, commits) = match store(&looking) {
        // That it cannot be read was found before.
        Err(MaintenanceError::Damaged { .. }) if !report.is_whole() => return Ok(report),
        read => read?,
    };
    let missing = match marked {
        Found::Missing => None,
        Found::Unreadable => Some("the mark cannot be read".to_owned()),
        Found::Mark(mark) if mark.store_id != store_id => {
            Some("the mark is another store's".to_owned())
        }
        Found::Mark(mark) if mark.commits > commits => Some(format!(
            "commit {} was on the disk, and the newest that is there is {commits}",
            mark.commits
        )),
        Found::Mark(_) => None,
    };
    if let Some(what) = missing {
        report.is_loss_only = report.is_whole();
        report.findings.push(what);
    }
    Ok(report)
}

/// Has a store be opened although its newest commits are missing, or its mark is: what is there
/// counts from now on. Streams that were followed begin anew.
///
/// # Errors
///
/// [`MaintenanceError`] if the store is in use or cannot be used.
pub fn accept_loss(directory: &Path) -> Result<(), MaintenanceError> {
    let looking = Looking::of_directory(directory)?;
    let _lock = Lock::take(directory)?;
    let (store_id, commits) = store(&looking)?;
    let (mark, _) = MarkFile::open(directory)?;
    // Unsure marks have the store's epoch raised when it is opened.
    Ok(mark.write_synced(&Mark { store_id, commits, is_unsure: true })?)
}

/// The store's name and the number of its newest commit.
fn store(looking: &Looking) -> Result<(String, u64), MaintenanceError> {
    let sql = "SELECT store_id, commits FROM store WHERE only_row = 1";
    let row = looking.connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
    let (store_id, commits): (String, i64) = row.map_err(|error| looking.failed(error))?;
    Ok((store_id, unsigned(commits)))
}

/// Looks at everything in a store's file.
pub(super) fn look(
    looking: &Looking,
    progress: Progress<'_>,
) -> Result<CheckReport, MaintenanceError> {
    let mut findings = Findings::default();
    match look_at(&looking.connection, &mut findings, progress) {
        // It cannot be read on, which is a finding, too.
        Err(StoreError::Damaged(what)) => findings.add(what),
        looked => looked.map_err(|error| looking.failed(error))?,
    }
    Ok(findings.report)
}

fn look_at(
    connection: &Connection,
    findings: &mut Findings,
    progress: Progress<'_>,
) -> Result<(), StoreError> {
    // All that is read is of one commit.
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Deferred)?;
    progress("pages", 0, 0);
    let mut statement = transaction.prepare(&format!("PRAGMA integrity_check({TOLD_MAX})"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let what: String = row.get(0)?;
        if what != "ok" {
            findings.add(what);
        }
    }
    progress("rows", 0, 0);
    walk(&transaction, &mut |what| findings.add(what))?;
    for (sql, what) in STRAY {
        let mut statement = transaction.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let task_no: i64 = row.get(0)?;
            findings.add(format!("task {task_no}, which is not there, has {what}"));
        }
    }
    look_at_tasks(&transaction, findings, progress)
}

/// Makes each task anew of its events.
fn look_at_tasks(
    connection: &Connection,
    findings: &mut Findings,
    progress: Progress<'_>,
) -> Result<(), StoreError> {
    let total: i64 = connection.query_row("SELECT count(*) FROM tasks", [], |row| row.get(0))?;
    let sql = format!("SELECT {} FROM tasks ORDER BY task_no", TaskRow::COLUMNS);
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        // Wrong sums were told of before.
        let Ok(task) = TaskRow::read(row) else { continue };
        if task.scope_no != NOBODY {
            match look_at_task(connection, &task) {
                Err(StoreError::Damaged(what)) => findings.add(what),
                looked => looked?,
            }
        }
        findings.report.tasks += 1;
        if findings.report.tasks.is_multiple_of(TOLD_EVERY) {
            progress("tasks", findings.report.tasks, unsigned(total));
        }
    }
    Ok(())
}

fn look_at_task(connection: &Connection, row: &TaskRow) -> Result<(), StoreError> {
    // Gaps, what cannot follow an end, and a state that is none of its events are refused there.
    let stored = load::stored(connection, row)?;
    let status = &stored.task.status;
    if millis(status.timestamp) != row.moving.status_at {
        let what = format!("task {} has its status of another instant", row.task_no);
        return Err(StoreError::Damaged(what));
    }
    Ok(())
}

/// The file of a store in a directory, for who names one or the other.
pub(super) fn file_of(path: &Path) -> std::path::PathBuf {
    if path.is_dir() { path.join(FILE) } else { path.to_owned() }
}
