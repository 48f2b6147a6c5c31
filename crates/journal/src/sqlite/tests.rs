#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod damage;
mod format;
mod inspecting;
mod kills;
mod opening;
mod writing;

use std::path::Path;

use convoke_model::{TaskEvent, UnixMillis};
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::contract::{self, new_task, scope};
use crate::{AuditCounts, AuditError, MemorySink};

fn options(directory: &Path, durability: Durability) -> SqliteOptions {
    let fatal = Box::new(|why: &str| panic!("{why}"));
    let retention = Retention::default();
    SqliteOptions { directory: directory.into(), durability, retention, fatal }
}

fn sink() -> Arc<MemorySink> {
    Arc::new(MemorySink::new(1_000_000))
}

fn try_open(directory: &Path) -> Result<SqliteJournal, OpenError> {
    SqliteJournal::open(options(directory, Durability::Strict), sink())
}

fn open(directory: &Path) -> SqliteJournal {
    try_open(directory).unwrap()
}

fn owner() -> Scope {
    scope("example.org", "a")
}

async fn create(journal: &SqliteJournal, id: &str) -> Fence {
    match journal.create(&owner(), new_task(id, id), None).await.unwrap() {
        Created::New { fence, .. } => fence,
        known @ Created::Known(_) => panic!("{known:?}"),
    }
}

async fn exists(journal: &SqliteJournal, id: &str) -> bool {
    let head = journal.head(&owner(), &contract::task_id(id)).await;
    head.unwrap().is_some()
}

/// What a kill of the process that has the store would leave now.
fn killed(directory: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    copy
}

/// As a person beside the journal would.
fn sqlite3(directory: &Path, sql: &str) {
    let connection = Connection::open(directory.join(open::FILE)).unwrap();
    connection.execute_batch(sql).unwrap();
}

/// Takes records, and never says that they are written.
#[derive(Default)]
struct Forgetful {
    submitted: Mutex<Vec<String>>,
}

impl AuditSink for Forgetful {
    fn submit(&self, record: AuditRecord) -> Result<(), AuditError> {
        let mut line = Vec::new();
        record.write_line(&mut line);
        self.submitted.lock().unwrap().push(String::from_utf8(line).unwrap());
        Ok(())
    }

    fn resubmit(&self, _line: String) -> Result<(), AuditError> {
        Ok(())
    }

    fn note(&self, _event: convoke_model::AuditEvent) -> Result<(), AuditError> {
        Ok(())
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), AuditError>> {
        Box::pin(async { Err(AuditError::Closed) })
    }

    fn waits(&self) -> bool {
        false
    }

    fn healthy(&self) -> bool {
        false
    }

    fn counts(&self) -> AuditCounts {
        AuditCounts::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_contract() {
    for durability in [Durability::Strict, Durability::Relaxed] {
        let directories = Mutex::new(Vec::new());
        let make = |sink| -> Arc<dyn Journal> {
            let directory = tempfile::tempdir().unwrap();
            let journal = SqliteJournal::open(options(directory.path(), durability), sink).unwrap();
            directories.lock().unwrap().push(directory);
            Arc::new(journal)
        };
        contract::check_all(make).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_outlives_its_process() {
    for durability in [Durability::Strict, Durability::Relaxed] {
        let directory = tempfile::tempdir().unwrap();
        let open = |sink| -> Arc<dyn Journal> {
            Arc::new(SqliteJournal::open(options(directory.path(), durability), sink).unwrap())
        };
        contract::check_restart(open).await;
    }
}
