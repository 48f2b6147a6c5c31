//! Tasks as their rows make them.

use std::sync::Arc;

use convoke_model::{ContextId, Task, TaskEvent, Work};
use rusqlite::{Connection, Row};

use super::error::StoreError;
use super::lookup::unsigned;
use super::rows::{TaskRow, event_sum, piece_sum, record_sum, verify};
use crate::stored::{PIECE, decode_event, decode_record};
use crate::{Head, StoredTask};

/// The events of a task from a number on, and its pieces, merged in their order.
const EVENTS_AND_PIECES: &str = "
    SELECT seq, kind, body, sum, NULL AS artifact_id FROM events WHERE task_no = ?1 AND seq > ?2
    UNION ALL
    SELECT seq, NULL, body, sum, artifact_id FROM pieces WHERE task_no = ?1 AND seq > ?2
    ORDER BY seq";

/// The same without pieces.
const EVENTS: &str = "
    SELECT seq, kind, body, sum, NULL FROM events WHERE task_no = ?1 AND seq > ?2 ORDER BY seq";

/// Where the task of a row stands.
///
/// # Errors
///
/// [`StoreError::Damaged`] if the row is none of format 1.
pub(super) fn head(row: &TaskRow) -> Result<Head, StoreError> {
    let last_seq = unsigned(row.moving.last_seq);
    Ok(Head { capability: row.capability()?, state: row.state()?, last_seq })
}

/// The task of a row with everything that is known of it.
///
/// # Errors
///
/// [`StoreError`] if it cannot be read, or is not whole.
pub(super) fn stored(connection: &Connection, row: &TaskRow) -> Result<StoredTask, StoreError> {
    Ok(StoredTask {
        task: Arc::new(task(connection, row, true)?),
        capability: row.capability()?,
        subject: row.subject.as_deref().map(Arc::from),
        terms: row.terms()?,
        work: work(connection, row)?,
        last_seq: unsigned(row.moving.last_seq),
    })
}

/// The task of a row as its events make it; without its artifacts if they are not wanted.
///
/// # Errors
///
/// As [`stored`].
pub(super) fn task(
    connection: &Connection,
    row: &TaskRow,
    with_artifacts: bool,
) -> Result<Task, StoreError> {
    let unreadable = |why: &dyn std::error::Error| StoreError::unreadable(row, why);
    let id = row.id()?;
    let context_id = ContextId::parse(&row.context_id).map_err(|error| unreadable(&error))?;
    let mut first = Some((id, context_id));
    let mut task = None;
    let mut gaps = Gaps::new(row, 0, with_artifacts);
    each_event(connection, row, 0, with_artifacts, |seq, event| {
        gaps.next(seq)?;
        match (&mut task, first.take()) {
            (None, Some((id, context_id))) => {
                task =
                    Some(Task::begin(id, context_id, event).map_err(|error| unreadable(&error))?);
            }
            (Some(task), _) => task.apply(event).map_err(|error| unreadable(&error))?,
            (None, None) => {}
        }
        Ok(true)
    })?;
    gaps.end()?;
    match task {
        Some(task) if task.status.state == row.state()? => Ok(task),
        _ => Err(StoreError::Damaged(format!("task {} is not in its state", row.task_no))),
    }
}

/// What the records of a task come to.
fn work(connection: &Connection, row: &TaskRow) -> Result<Work, StoreError> {
    let task_no = row.task_no;
    let mut statement = connection.prepare_cached(
        "SELECT record_no, kind, body, sum FROM records WHERE task_no = ? ORDER BY record_no",
    )?;
    let mut rows = statement.query([task_no])?;
    let mut work = Work::default();
    while let Some(record) = rows.next()? {
        let (record_no, kind): (i64, i64) = (record.get(0)?, record.get(1)?);
        let body = text(record, 2)?;
        let sum = record_sum(task_no, record_no, kind, body);
        verify(record.get(3)?, sum, || format!("record {record_no} of task {task_no}"))?;
        let decoded = decode_record(kind, body);
        work.apply(decoded.map_err(|error| StoreError::unreadable(row, &error))?);
    }
    // Checkpoints that others have replaced had numbers, too.
    work.last_record = unsigned(row.moving.last_record);
    Ok(work)
}

/// Gives `each` the events of a task behind `after`, with their numbers, until it says `false`.
/// Whether they are without a gap is seen with [`Gaps`].
///
/// # Errors
///
/// [`StoreError`] if one cannot be read, or whatever `each` says.
pub(super) fn each_event(
    connection: &Connection,
    row: &TaskRow,
    after: i64,
    with_pieces: bool,
    mut each: impl FnMut(i64, TaskEvent) -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    let sql = if with_pieces { EVENTS_AND_PIECES } else { EVENTS };
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([row.task_no, after])?;
    while let Some(found) = rows.next()? {
        let (seq, event) = event(row, found)?;
        if !each(seq, event)? {
            break;
        }
    }
    Ok(())
}

fn event(row: &TaskRow, found: &Row<'_>) -> Result<(i64, TaskEvent), StoreError> {
    let (task_no, seq): (i64, i64) = (row.task_no, found.get(0)?);
    let kind: Option<i64> = found.get(1)?;
    let body = text(found, 2)?;
    let sum = match kind {
        Some(kind) => event_sum(task_no, seq, kind, body),
        None => piece_sum(task_no, seq, text(found, 4)?, body),
    };
    verify(found.get(3)?, sum, || format!("event {seq} of task {task_no}"))?;
    let event = decode_event(kind.unwrap_or(PIECE), body);
    Ok((seq, event.map_err(|error| StoreError::unreadable(row, &error))?))
}

/// A text of a row, where it lies.
fn text<'r>(row: &'r Row<'_>, column: usize) -> Result<&'r str, StoreError> {
    row.get_ref(column)?.as_str().map_err(|error| StoreError::Damaged(format!("{error}")))
}

/// Watches that no event is missing.
pub(super) struct Gaps {
    task_no: i64,
    seen: i64,
    last: i64,
    /// Up to here, pieces are missing, because they are kept as what they came to.
    missing_to: i64,
}

impl Gaps {
    /// For the events of a task behind `after`; pieces may have been left out.
    pub(super) fn new(row: &TaskRow, after: i64, with_pieces: bool) -> Self {
        let last = row.moving.last_seq;
        let missing_to = if with_pieces { row.moving.folded_seq } else { i64::MAX };
        Self { task_no: row.task_no, seen: after, last, missing_to }
    }

    /// Sees an event.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] if one is missing before it.
    pub(super) fn next(&mut self, seq: i64) -> Result<(), StoreError> {
        let before = seq - 1;
        if self.seen.max(self.missing_to.min(before)) != before || seq > self.last {
            let (after, task_no) = (self.seen, self.task_no);
            return Err(StoreError::Damaged(format!(
                "after event {after} of task {task_no} comes event {seq}"
            )));
        }
        self.seen = seq;
        Ok(())
    }

    /// Sees the end.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] if events are missing before it.
    pub(super) fn end(self) -> Result<(), StoreError> {
        let Self { task_no, seen, last, missing_to } = self;
        if seen.max(missing_to.min(last)) == last {
            return Ok(());
        }
        Err(StoreError::Damaged(format!("event {last} of task {task_no} is missing")))
    }
}
