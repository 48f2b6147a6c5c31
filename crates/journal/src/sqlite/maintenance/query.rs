//! Questions of a person, in SQL, that change nothing.

use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error, Transaction, TransactionBehavior};

use super::{Looking, MaintenanceError};

/// How many rows of an answer are given when nothing is said.
pub const ROWS_DEFAULT: usize = 1_000;

/// How a question may begin.
const WORDS: [&str; 4] = ["select", "with", "values", "explain"];

/// Tasks as people read them. It is the connection's alone, and not stored.
pub(super) const VIEW: &str = "
    CREATE TEMP VIEW task_view AS SELECT
        task_id,
        CASE state WHEN 1 THEN 'submitted' WHEN 2 THEN 'working' WHEN 3 THEN 'completed'
            WHEN 4 THEN 'failed' WHEN 5 THEN 'canceled' WHEN 6 THEN 'input_required'
            WHEN 7 THEN 'rejected' WHEN 8 THEN 'auth_required' ELSE state END AS state,
        CASE priority WHEN 0 THEN 'low' WHEN 1 THEN 'normal' WHEN 2 THEN 'high'
            WHEN 3 THEN 'urgent' ELSE priority END AS priority,
        capability,
        owner,
        strftime('%Y-%m-%dT%H:%M:%fZ', created_at / 1000.0, 'unixepoch') AS created,
        strftime('%Y-%m-%dT%H:%M:%fZ', status_at / 1000.0, 'unixepoch') AS changed,
        last_seq
    FROM main.tasks LEFT JOIN main.scopes USING (scope_no)
    WHERE scope_no <> 0";

/// The answer to a question.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The names of its columns.
    pub columns: Vec<String>,
    /// Its rows, each with a cell for every column.
    pub rows: Vec<Vec<Cell>>,
    /// Whether there are more rows.
    pub is_cut: bool,
}

/// A value of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Nothing.
    Null,
    /// A whole number.
    Integer(i64),
    /// Another number.
    Real(f64),
    /// A text; what is no UTF-8 in it is replaced.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

/// Asks the store of a data directory one question in SQL, and gives at most `rows_max` rows of the
/// answer. Beside the tables of the store there is `task_view`, in which tasks have words for their
/// numbers. A node may be at work with the store.
///
/// # Errors
///
/// [`MaintenanceError::Question`] if `sql` is not one statement that only reads.
pub fn query(directory: &Path, sql: &str, rows_max: usize) -> Result<Table, MaintenanceError> {
    let looking = Looking::at(directory)?;
    let word: String = sql.trim_start().chars().take_while(char::is_ascii_alphabetic).collect();
    if !WORDS.contains(&word.to_ascii_lowercase().as_str()) {
        let what = "a question is one SELECT; nothing else is done here";
        return Err(MaintenanceError::Question(what.to_owned()));
    }
    ask(&looking.connection, sql, rows_max).map_err(|error| match error {
        Error::MultipleStatement => {
            MaintenanceError::Question("a question is one SELECT, not several".to_owned())
        }
        Error::InvalidQuery => MaintenanceError::Question("a question changes nothing".to_owned()),
        Error::SqlInputError { msg, .. } => MaintenanceError::Question(msg),
        other => match other.sqlite_error_code() {
            // What is wrong with the question itself has no code of its own.
            Some(rusqlite::ErrorCode::Unknown) => MaintenanceError::Question(other.to_string()),
            _ => looking.failed(other),
        },
    })
}

fn ask(connection: &Connection, sql: &str, rows_max: usize) -> Result<Table, Error> {
    // The file is open to be read alone; this is the second lock on the same door.
    connection
        .execute_batch(&format!("PRAGMA temp_store = MEMORY; {VIEW}; PRAGMA query_only = ON;"))?;
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Deferred)?;
    let mut statement = transaction.prepare(sql)?;
    if !statement.readonly() || statement.column_count() == 0 {
        return Err(Error::InvalidQuery);
    }
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let width = columns.len();
    let mut table = Table { columns, rows: Vec::new(), is_cut: false };
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if table.rows.len() == rows_max {
            table.is_cut = true;
            break;
        }
        let cell = |column| row.get_ref(column).map(Cell::of);
        table.rows.push((0..width).map(cell).collect::<Result<_, _>>()?);
    }
    Ok(table)
}

impl Cell {
    fn of(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(number) => Self::Integer(number),
            ValueRef::Real(number) => Self::Real(number),
            ValueRef::Text(text) => Self::Text(String::from_utf8_lossy(text).into_owned()),
            ValueRef::Blob(bytes) => Self::Blob(bytes.to_owned()),
        }
    }
}
