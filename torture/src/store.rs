//! The store as plain SQL shows it, without a line of the journal's code.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

/// The states that end a task, by the numbers that the schema documents.
const TERMINAL: [i64; 4] = [3, 4, 5, 7];

/// The same, by the words of A2A.
pub const TERMINAL_WORDS: [&str; 4] =
    ["TASK_STATE_COMPLETED", "TASK_STATE_FAILED", "TASK_STATE_CANCELED", "TASK_STATE_REJECTED"];

/// A task as its rows say it is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StoredTask {
    /// Its name.
    pub id: String,
    /// Whether its state is one that ends it.
    pub is_terminal: bool,
    /// The number of its newest event, as the row of the task has it.
    pub last_seq: u64,
    /// The numbers of its events and pieces, in order.
    pub seqs: Vec<u64>,
    /// The numbers of the events that end it.
    pub ends: Vec<u64>,
    /// The messages that mean it.
    pub sends: Vec<String>,
}

/// Reads the tasks of the store in `directory`, beside whoever has it open.
///
/// # Errors
///
/// If SQLite finds it damaged, or its rows are not as documented.
pub fn read(directory: &Path) -> Result<Vec<StoredTask>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(directory.join("journal.db"), flags)
        .context("the store does not open")?;
    let whole: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    anyhow::ensure!(whole == "ok", "the store is damaged: {whole}");

    let mut tasks: BTreeMap<i64, StoredTask> = BTreeMap::new();
    let mut rows = connection.prepare("SELECT task_no, task_id, state, last_seq FROM tasks")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let (state, last_seq): (i64, i64) = (row.get(2)?, row.get(3)?);
        let task = StoredTask {
            id: row.get(1)?,
            is_terminal: TERMINAL.contains(&state),
            last_seq: u64::try_from(last_seq).context("a number below zero")?,
            ..StoredTask::default()
        };
        tasks.insert(row.get(0)?, task);
    }
    let all = "SELECT task_no, seq, kind, body FROM events
               UNION ALL SELECT task_no, seq, 4, '' FROM pieces ORDER BY task_no, seq";
    let mut rows = connection.prepare(all)?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let (task_no, seq, kind, body): (i64, i64, i64, String) =
            (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        let task = tasks.get_mut(&task_no).context("an event without a task")?;
        let seq = u64::try_from(seq).context("a number below zero")?;
        task.seqs.push(seq);
        if kind == 3 {
            let body: Value = serde_json::from_str(&body).context("an event is no JSON")?;
            if TERMINAL_WORDS.iter().any(|word| body["state"] == *word) {
                task.ends.push(seq);
            }
        }
    }
    let mut rows = connection.prepare("SELECT message_id, task_no FROM sends")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let task_no: i64 = row.get(1)?;
        let task = tasks.get_mut(&task_no).context("a message without a task")?;
        task.sends.push(row.get(0)?);
    }
    Ok(tasks.into_values().collect())
}

/// Reads the marks that `quick` left: task and key.
///
/// # Errors
///
/// If the file cannot be read. That there is none is no error.
pub fn marks(file: &Path) -> Result<Vec<(String, String)>> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context("the marks cannot be read"),
    };
    // A process that was killed may have left half a line, which was no execution to its end.
    let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
    let mark = |line: &str| {
        let (task, key) = line.split_once(' ').context("a mark is none")?;
        Ok((task.to_owned(), key.to_owned()))
    };
    whole.lines().map(mark).collect()
}
