//! What is in a store.

use std::path::Path;

use convoke_model::{TaskState, UnixMillis};
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::{Looking, MaintenanceError, beside, bytes};
use crate::sqlite::error::StoreError;
use crate::sqlite::lookup::{instant, unsigned};
use crate::stored::state_of;

/// The tables, in the order in which a store has them.
const TABLES: [&str; 9] =
    ["store", "scopes", "tasks", "events", "pieces", "records", "sends", "counts", "outbox"];

/// What is in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// The store's random name.
    pub store_id: String,
    /// The format of the store.
    pub format: u64,
    /// When it was made.
    pub created_at: UnixMillis,
    /// How often it was opened to be written.
    pub opened: u64,
    /// What stands before the dot of its cursors.
    pub epoch: u64,
    /// The number of its newest commit.
    pub commits: u64,
    /// Tasks by agent and state.
    pub tasks: Vec<TaskCount>,
    /// When the task was made that was made first of those that are there.
    pub oldest_at: Option<UnixMillis>,
    /// When the newest task was made.
    pub newest_at: Option<UnixMillis>,
    /// Rows of each table.
    pub tables: Vec<TableSize>,
    /// How large the store is, in bytes.
    pub bytes: u64,
    /// How much of it is room that deleted tasks have left, in bytes.
    pub free_bytes: u64,
    /// How large its log is, in bytes.
    pub log_bytes: u64,
}

/// How many tasks of an agent are in a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskCount {
    /// The agent's SPIFFE ID.
    pub agent: String,
    /// The state.
    pub state: TaskState,
    /// How many.
    pub tasks: u64,
}

/// How large a table is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSize {
    /// Its name.
    pub name: &'static str,
    /// How many rows it has.
    pub rows: u64,
    /// How many bytes of text its bodies have.
    pub body_bytes: u64,
}

/// What is in the store of a data directory, of one instant. A node may be at work with it.
///
/// # Errors
///
/// [`MaintenanceError`].
pub fn stats(directory: &Path) -> Result<Stats, MaintenanceError> {
    let looking = Looking::at(directory)?;
    let log_bytes = bytes(&beside(&looking.path, "-wal"));
    read(&looking.connection, log_bytes).map_err(|error| looking.failed(error))
}

fn read(connection: &Connection, log_bytes: u64) -> Result<Stats, StoreError> {
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Deferred)?;
    let number = |sql: &str| -> Result<u64, StoreError> {
        Ok(unsigned(transaction.query_row(sql, [], |row| row.get(0))?))
    };
    let made = |sql: &str| -> Result<Option<UnixMillis>, StoreError> {
        let found: Option<i64> = transaction.query_row(sql, [], |row| row.get(0))?;
        Ok(found.map(instant))
    };
    let page_bytes = number("PRAGMA page_size")?;
    let store = transaction.query_row(
        "SELECT store_id, created_at, opened, epoch, commits FROM store WHERE only_row = 1",
        [],
        |row| {
            let numbers: [i64; 4] = [row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?];
            Ok((row.get(0)?, numbers))
        },
    )?;
    let (store_id, [created_at, opened, epoch, commits]) = store;
    Ok(Stats {
        store_id,
        format: number("PRAGMA user_version")?,
        created_at: instant(created_at),
        opened: unsigned(opened),
        epoch: unsigned(epoch),
        commits: unsigned(commits),
        tasks: tasks(&transaction)?,
        oldest_at: made("SELECT created_at FROM tasks ORDER BY task_no LIMIT 1").or_else(none)?,
        newest_at: made("SELECT created_at FROM tasks ORDER BY task_no DESC LIMIT 1")
            .or_else(none)?,
        tables: tables(&transaction)?,
        bytes: number("PRAGMA page_count")? * page_bytes,
        free_bytes: number("PRAGMA freelist_count")? * page_bytes,
        log_bytes,
    })
}

/// No row is no task.
fn none(error: StoreError) -> Result<Option<UnixMillis>, StoreError> {
    match error {
        StoreError::Sqlite(source) if *source == rusqlite::Error::QueryReturnedNoRows => Ok(None),
        other => Err(other),
    }
}

fn tasks(connection: &Connection) -> Result<Vec<TaskCount>, StoreError> {
    let mut statement = connection.prepare(
        "SELECT agent, state, sum(tasks) FROM counts JOIN scopes USING (scope_no)
         WHERE scope_no <> 0 GROUP BY agent, state HAVING sum(tasks) > 0 ORDER BY agent, state",
    )?;
    let mut rows = statement.query([])?;
    let mut counts = Vec::new();
    while let Some(row) = rows.next()? {
        let (agent, number, tasks): (String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let state = state_of(number)
            .ok_or_else(|| StoreError::Damaged(format!("tasks are counted in state {number}")))?;
        counts.push(TaskCount { agent, state, tasks: unsigned(tasks) });
    }
    Ok(counts)
}

fn tables(connection: &Connection) -> Result<Vec<TableSize>, StoreError> {
    let size = |name: &'static str| {
        let has_body = matches!(name, "events" | "pieces" | "records" | "outbox");
        let bytes = if has_body { "coalesce(sum(octet_length(body)), 0)" } else { "0" };
        let sql = format!("SELECT count(*), {bytes} FROM {name}");
        let size = connection.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
        let (rows, body_bytes): (i64, i64) = size?;
        Ok(TableSize { name, rows: unsigned(rows), body_bytes: unsigned(body_bytes) })
    };
    TABLES.into_iter().map(size).collect()
}
