//! As much of a task as a list shows, without what it does not show: history and status come from
//! the newest events on, and pieces are read for artifacts alone.

use convoke_model::{ContextId, Message, Task, TaskEvent, TaskState, TaskStatus, UnixMillis};
use rusqlite::{Connection, Row};

use super::error::StoreError;
use super::lookup::millis;
use super::rows::{TaskRow, event_sum, piece_sum, verify};
use crate::ListQuery;
use crate::stored::{PIECE, decode_event};

/// What was told of a task, the newest first.
pub(super) const EVENTS_BACK: &str =
    "SELECT seq, kind, body, sum FROM events WHERE task_no = ? AND seq < ? ORDER BY seq DESC";

/// The newest status of a task, or its submission.
pub(super) const NEWEST_STATUS: &str = "SELECT seq, kind, body, sum FROM events
     WHERE task_no = ? AND kind <> 2 ORDER BY seq DESC LIMIT 1";

/// The pieces of a task.
pub(super) const PIECES: &str =
    "SELECT seq, artifact_id, body, sum FROM pieces WHERE task_no = ? ORDER BY seq";

/// The task of a row as `query` wants to see it; what was read of bodies is added to `bytes`.
///
/// # Errors
///
/// [`StoreError`] if it cannot be read, or is not what was written.
pub(super) fn shown(
    connection: &Connection,
    row: &TaskRow,
    query: &ListQuery,
    bytes: &mut usize,
) -> Result<Task, StoreError> {
    let mut reader = Reader { connection, row, bytes };
    let history_length =
        query.history_length.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    let (status, status_seq) = reader.status()?;
    let state = row.state()?;
    if status.state != state || millis(status.timestamp) != row.moving.status_at {
        let what = format!("the status of task {} is another one than its events say", row.task_no);
        return Err(StoreError::Damaged(what));
    }
    let mut task = scratch(row)?;
    if query.artifacts {
        reader.artifacts(&mut task)?;
    }
    task.status = status;
    task.history = reader.history(history_length, status_seq)?;
    Ok(task)
}

/// A task of that name at work, of which nothing is known yet. One that has ended would take no
/// pieces.
///
/// # Errors
///
/// [`StoreError::Damaged`] if its names are none.
pub(super) fn scratch(row: &TaskRow) -> Result<Task, StoreError> {
    let timestamp = UnixMillis::default();
    Ok(Task {
        id: row.id()?,
        context_id: ContextId::parse(&row.context_id)
            .map_err(|error| StoreError::unreadable(row, &error))?,
        status: TaskStatus { state: TaskState::Working, message: None, timestamp },
        artifacts: Vec::new(),
        history: Vec::new(),
        metadata: None,
    })
}

/// Reads one task.
struct Reader<'a> {
    connection: &'a Connection,
    row: &'a TaskRow,
    bytes: &'a mut usize,
}

impl Reader<'_> {
    /// The task's status, and the number of the event that brought it.
    fn status(&mut self) -> Result<(TaskStatus, i64), StoreError> {
        let mut statement = self.connection.prepare_cached(NEWEST_STATUS)?;
        let mut rows = statement.query([self.row.task_no])?;
        let Some(row) = rows.next()? else {
            return Err(StoreError::Damaged(format!("task {} has no status", self.row.task_no)));
        };
        let (seq, event) = self.event(row)?;
        match event {
            TaskEvent::Status(status) => Ok((status, seq)),
            TaskEvent::Submitted { at, .. } => {
                let state = TaskState::Submitted;
                Ok((TaskStatus { state, message: None, timestamp: at }, seq))
            }
            TaskEvent::Message(_) | TaskEvent::Artifact { .. } => {
                let what = format!("event {seq} of task {} is no status", self.row.task_no);
                Err(StoreError::Damaged(what))
            }
        }
    }

    /// The newest `length` messages, the oldest of them first.
    ///
    /// Events are gone through from the newest back. A question joined the history with the status
    /// that followed it, behind what was said in between.
    fn history(&mut self, length: usize, status_seq: i64) -> Result<Vec<Message>, StoreError> {
        // Both have the newest in front; `between` is what was said before the status that was read
        // last.
        let (mut history, mut between) = (Vec::new(), Vec::new());
        if length == 0 {
            return Ok(history);
        }
        let mut statement = self.connection.prepare_cached(EVENTS_BACK)?;
        let mut rows = statement.query([self.row.task_no, i64::MAX])?;
        while history.len() < length
            && let Some(row) = rows.next()?
        {
            let (seq, event) = self.event(row)?;
            match event {
                TaskEvent::Message(message) | TaskEvent::Submitted { message, .. } => {
                    between.push(message);
                }
                TaskEvent::Status(status) => {
                    // The newest status is the task's own; only those before it are over.
                    let asked = status.message.filter(|_| status.state.is_interrupted());
                    history.extend(asked.filter(|_| seq != status_seq));
                    history.append(&mut between);
                }
                TaskEvent::Artifact { .. } => {}
            }
        }
        history.append(&mut between);
        history.truncate(length);
        history.reverse();
        Ok(history)
    }

    /// What the task's pieces come to.
    fn artifacts(&mut self, task: &mut Task) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare_cached(PIECES)?;
        let mut rows = statement.query([self.row.task_no])?;
        while let Some(row) = rows.next()? {
            let event = self.piece(row)?;
            task.apply(event).map_err(|error| StoreError::unreadable(self.row, &error))?;
        }
        Ok(())
    }

    /// The event of a row of `events`, with its number.
    fn event(&mut self, row: &Row<'_>) -> Result<(i64, TaskEvent), StoreError> {
        let (task_no, seq, kind): (i64, i64, i64) = (self.row.task_no, row.get(0)?, row.get(1)?);
        let body: String = row.get(2)?;
        let sum = event_sum(task_no, seq, kind, &body);
        verify(row.get(3)?, sum, || format!("event {seq} of task {task_no}"))?;
        Ok((seq, self.decode(kind, &body)?))
    }

    /// The piece of a row of `pieces`.
    fn piece(&mut self, row: &Row<'_>) -> Result<TaskEvent, StoreError> {
        let (task_no, seq): (i64, i64) = (self.row.task_no, row.get(0)?);
        let (artifact_id, body): (String, String) = (row.get(1)?, row.get(2)?);
        let sum = piece_sum(task_no, seq, &artifact_id, &body);
        verify(row.get(3)?, sum, || format!("piece {seq} of task {task_no}"))?;
        self.decode(PIECE, &body)
    }

    fn decode(&mut self, kind: i64, body: &str) -> Result<TaskEvent, StoreError> {
        *self.bytes += body.len();
        decode_event(kind, body).map_err(|error| StoreError::unreadable(self.row, &error))
    }
}
