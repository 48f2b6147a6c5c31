//! Looking at every row, whether it is what was written.

use rusqlite::{Connection, Row};

use super::error::StoreError;
use super::rows::{
    TaskRow, event_sum, outbox_sum, piece_sum, record_sum, scope_sum, send_sum, verify,
};

/// What looks at a row.
type Look = fn(&Row<'_>) -> Result<(), StoreError>;

/// Every table whose rows have sums, with what its rows are read by.
const TABLES: [(&str, Look); 7] = [
    ("SELECT scope_no, agent, tenant, app, owner, sum FROM scopes", scope),
    (TASKS, task),
    ("SELECT task_no, seq, kind, body, sum FROM events", event),
    ("SELECT task_no, seq, artifact_id, body, sum FROM pieces", piece),
    ("SELECT task_no, record_no, kind, body, sum FROM records", record),
    ("SELECT scope_no, message_id, digest, task_no, until_at, sum FROM sends", send),
    ("SELECT item_no, kind, body, sum FROM outbox", outbox),
];

/// The columns of [`TaskRow::COLUMNS`].
const TASKS: &str = "SELECT task_no, scope_no, task_id, context_id, capability, subject, \
    priority, deadline_at, created_at, state, status_at, last_seq, last_record, folded_seq, sum \
    FROM tasks";

/// Questions whose answers are tasks of which rows are missing, or too many.
const WHOLE: [(&str, &str); 3] = [
    (
        "SELECT task_no FROM tasks WHERE last_seq !=
             (SELECT count(*) FROM events WHERE events.task_no = tasks.task_no AND seq <= last_seq)
             + (SELECT count(*) FROM pieces
                WHERE pieces.task_no = tasks.task_no AND seq <= last_seq)
             AND folded_seq = 0",
        "has not as many events as it should",
    ),
    (
        "SELECT task_no FROM tasks WHERE last_record <
             (SELECT coalesce(max(record_no), 0) FROM records
              WHERE records.task_no = tasks.task_no)",
        "has more records than it should",
    ),
    (
        "SELECT task_no FROM tasks WHERE scope_no NOT IN (SELECT scope_no FROM scopes)",
        "has no scope",
    ),
];

/// The counts that are not what they count, as `scope_no`.
const COUNTS: &str = "
    SELECT scope_no, sum(tasks) AS off FROM (
        SELECT scope_no, capability, state, tasks FROM counts
        UNION ALL
        SELECT scope_no, capability, state, -count(*) FROM tasks
        GROUP BY scope_no, capability, state)
    GROUP BY scope_no, capability, state HAVING off != 0";

/// Tells `found` of every row that is not what was written, and of every task that is not whole.
///
/// # Errors
///
/// [`StoreError`] if the tables cannot be read on.
pub(super) fn walk(
    connection: &Connection,
    found: &mut dyn FnMut(String),
) -> Result<(), StoreError> {
    for (sql, look) in TABLES {
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            match look(row) {
                Err(StoreError::Damaged(what)) => found(what),
                looked => looked?,
            }
        }
    }
    for (sql, what) in WHOLE {
        each_number(connection, sql, |task_no| found(format!("task {task_no} {what}")))?;
    }
    each_number(connection, COUNTS, |scope_no| {
        found(format!("the tasks of scope {scope_no} are not as many as were counted"));
    })
}

/// Checks the whole store: pages, indexes, and rows.
///
/// # Errors
///
/// [`StoreError::Damaged`] names the first thing that is wrong, and how many others are.
pub(super) fn check(connection: &Connection) -> Result<(), StoreError> {
    let pages: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if pages != "ok" {
        return Err(StoreError::Damaged(pages));
    }
    let (mut first, mut others) = (None, 0);
    walk(connection, &mut |what| match first {
        None => first = Some(what),
        Some(_) => others += 1,
    })?;
    match first {
        None => Ok(()),
        Some(what) if others == 0 => Err(StoreError::Damaged(what)),
        Some(what) => Err(StoreError::Damaged(format!("{what}, and {others} more"))),
    }
}

fn each_number(
    connection: &Connection,
    sql: &str,
    mut each: impl FnMut(i64),
) -> Result<(), StoreError> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        each(row.get(0)?);
    }
    Ok(())
}

fn scope(row: &Row<'_>) -> Result<(), StoreError> {
    let scope_no: i64 = row.get(0)?;
    let names: [String; 4] = [row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?];
    let sum = scope_sum(scope_no, names.each_ref().map(String::as_str));
    verify(row.get(5)?, sum, || format!("scope {scope_no}"))
}

fn task(row: &Row<'_>) -> Result<(), StoreError> {
    TaskRow::read(row).map(|_| ())
}

fn event(row: &Row<'_>) -> Result<(), StoreError> {
    let [task_no, seq, kind]: [i64; 3] = [row.get(0)?, row.get(1)?, row.get(2)?];
    let sum = event_sum(task_no, seq, kind, &row.get::<_, String>(3)?);
    verify(row.get(4)?, sum, || format!("event {seq} of task {task_no}"))
}

fn piece(row: &Row<'_>) -> Result<(), StoreError> {
    let (task_no, seq): (i64, i64) = (row.get(0)?, row.get(1)?);
    let (artifact_id, body): (String, String) = (row.get(2)?, row.get(3)?);
    let sum = piece_sum(task_no, seq, &artifact_id, &body);
    verify(row.get(4)?, sum, || format!("event {seq} of task {task_no}"))
}

fn record(row: &Row<'_>) -> Result<(), StoreError> {
    let [task_no, record_no, kind]: [i64; 3] = [row.get(0)?, row.get(1)?, row.get(2)?];
    let sum = record_sum(task_no, record_no, kind, &row.get::<_, String>(3)?);
    verify(row.get(4)?, sum, || format!("record {record_no} of task {task_no}"))
}

fn send(row: &Row<'_>) -> Result<(), StoreError> {
    let (scope_no, message_id): (i64, String) = (row.get(0)?, row.get(1)?);
    let digest: Vec<u8> = row.get(2)?;
    let (task_no, until_at): (i64, i64) = (row.get(3)?, row.get(4)?);
    let sum = send_sum(scope_no, &message_id, &digest, task_no, until_at);
    verify(row.get(5)?, sum, || format!("what was sent for task {task_no}"))
}

fn outbox(row: &Row<'_>) -> Result<(), StoreError> {
    let item_no: i64 = row.get(0)?;
    let (kind, body): (String, String) = (row.get(1)?, row.get(2)?);
    verify(row.get(3)?, outbox_sum(item_no, &kind, &body), || format!("item {item_no}"))
}
