//! Events of a task from a place on, for whoever follows it.

use convoke_model::{Cursor, TaskId};
use rusqlite::{CachedStatement, Connection, Row, Rows};

use super::error::StoreError;
use super::lookup::{scope_no, task_by_id, unsigned};
use super::rows::{TaskRow, event_sum, piece_sum, verify};
use crate::stored::{PIECE, decode_event};
use crate::{EVENTS_PAGE_BYTES, Events, Scope};

pub(super) const EVENTS_AFTER: &str =
    "SELECT seq, kind, body, sum FROM events WHERE task_no = ? AND seq > ? ORDER BY seq";

pub(super) const PIECES_AFTER: &str =
    "SELECT seq, artifact_id, body, sum FROM pieces WHERE task_no = ? AND seq > ? ORDER BY seq";

/// The events of a task behind `after`, at most about [`EVENTS_PAGE_BYTES`] of them; `None` if there
/// is no such task. The caller has begun a transaction, so that all of it is of one instant.
///
/// # Errors
///
/// [`StoreError`] if they cannot be read, or are not what was written.
pub(super) fn events(
    connection: &Connection,
    epoch: u64,
    scope: &Scope,
    id: &TaskId,
    after: Cursor,
) -> Result<Option<Events>, StoreError> {
    let Some(scope_no) = scope_no(connection, scope)? else { return Ok(None) };
    let Some(task) = task_by_id(connection, scope_no, id)? else { return Ok(None) };
    let last_seq = unsigned(task.moving.last_seq);
    let is_kept = after.epoch == epoch
        && after.seq <= last_seq
        // Pieces up to there are no longer the ones that were sent.
        && after.seq >= unsigned(task.moving.folded_seq);
    if !is_kept {
        return Ok(Some(Events::Lost));
    }
    let state = task.state()?;
    let mut events = Vec::new();
    let mut bytes = 0;
    let (mut told, mut pieces) =
        (connection.prepare_cached(EVENTS_AFTER)?, connection.prepare_cached(PIECES_AFTER)?);
    let mut merged = Merged::new(&task, after.seq, &mut told, &mut pieces)?;
    for seq in after.seq + 1..=last_seq {
        let Some(stored) = merged.next(seq)? else {
            return Err(StoreError::Damaged(format!("task {} lacks event {seq}", task.task_no)));
        };
        bytes += stored.body.len();
        if bytes > EVENTS_PAGE_BYTES && !events.is_empty() {
            break;
        }
        let event = decode_event(stored.kind, &stored.body)
            .map_err(|error| StoreError::unreadable(&task, &error))?;
        events.push((seq, event));
    }
    Ok(Some(Events::Page { events, last_seq, state }))
}

/// A row of `events` or of `pieces` whose sum is right.
pub(super) struct StoredEvent {
    pub(super) seq: u64,
    pub(super) kind: i64,
    pub(super) body: String,
}

/// The rows of both tables in the order of their numbers.
struct Merged<'s> {
    task_no: i64,
    events: Rows<'s>,
    pieces: Rows<'s>,
    /// What comes next of each.
    event: Option<StoredEvent>,
    piece: Option<StoredEvent>,
}

impl<'s> Merged<'s> {
    fn new(
        task: &TaskRow,
        after: u64,
        events: &'s mut CachedStatement<'_>,
        pieces: &'s mut CachedStatement<'_>,
    ) -> Result<Self, StoreError> {
        let task_no = task.task_no;
        // It is at most the number of the newest event, which came from a column.
        let range = [task_no, i64::try_from(after).unwrap_or(i64::MAX)];
        let mut merged = Self {
            task_no,
            events: events.query(range)?,
            pieces: pieces.query(range)?,
            event: None,
            piece: None,
        };
        merged.next_event()?;
        merged.next_piece()?;
        Ok(merged)
    }

    /// The event of that number, if it is the next.
    fn next(&mut self, seq: u64) -> Result<Option<StoredEvent>, StoreError> {
        if self.event.as_ref().is_some_and(|event| event.seq == seq) {
            let event = self.event.take();
            self.next_event()?;
            return Ok(event);
        }
        if self.piece.as_ref().is_some_and(|piece| piece.seq == seq) {
            let piece = self.piece.take();
            self.next_piece()?;
            return Ok(piece);
        }
        Ok(None)
    }

    fn next_event(&mut self) -> Result<(), StoreError> {
        self.event = self.events.next()?.map(|row| event_of(self.task_no, row)).transpose()?;
        Ok(())
    }

    fn next_piece(&mut self) -> Result<(), StoreError> {
        self.piece = self.pieces.next()?.map(|row| piece_of(self.task_no, row)).transpose()?;
        Ok(())
    }
}

/// The event of a row that begins as [`EVENTS_AFTER`] does.
///
/// # Errors
///
/// [`StoreError::Damaged`] if its sum is wrong.
pub(super) fn event_of(task_no: i64, row: &Row<'_>) -> Result<StoredEvent, StoreError> {
    let (seq, kind): (i64, i64) = (row.get(0)?, row.get(1)?);
    let body: String = row.get(2)?;
    let computed = event_sum(task_no, seq, kind, &body);
    verify(row.get(3)?, computed, || format!("event {seq} of task {task_no}"))?;
    Ok(StoredEvent { seq: unsigned(seq), kind, body })
}

/// The piece of a row that begins as [`PIECES_AFTER`] does.
///
/// # Errors
///
/// [`StoreError::Damaged`] if its sum is wrong.
pub(super) fn piece_of(task_no: i64, row: &Row<'_>) -> Result<StoredEvent, StoreError> {
    let seq: i64 = row.get(0)?;
    let (artifact_id, body): (String, String) = (row.get(1)?, row.get(2)?);
    let computed = piece_sum(task_no, seq, &artifact_id, &body);
    verify(row.get(3)?, computed, || format!("piece {seq} of task {task_no}"))?;
    Ok(StoredEvent { seq: unsigned(seq), kind: PIECE, body })
}
