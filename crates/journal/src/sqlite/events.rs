//! Events of a task from a place on, for whoever follows it.

use convoke_model::{Cursor, TaskId};
use rusqlite::Connection;

use super::error::StoreError;
use super::load::{Gaps, each_event};
use super::lookup::{scope_no, task_by_id, unsigned};
use crate::size::event_bytes;
use crate::{EVENTS_PAGE_BYTES, Events, Scope};

/// The events of a task behind `after`, at most about [`EVENTS_PAGE_BYTES`] of them, as they are in
/// memory; `None` if there is no such task. The caller has begun a transaction, so that all of it is
/// of one instant.
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
    // Pieces up to `folded_seq` are no longer the ones that were sent.
    let kept = unsigned(task.moving.folded_seq)..=last_seq;
    if after.epoch != epoch || !kept.contains(&after.seq) {
        return Ok(Some(Events::Lost));
    }
    let state = task.state()?;
    // It lies within the range of a column.
    let from = i64::try_from(after.seq).unwrap_or(i64::MAX);
    let (mut events, mut bytes, mut is_full) = (Vec::new(), 0, false);
    let mut gaps = Gaps::new(&task, from, true);
    each_event(connection, &task, from, true, |seq, event| {
        bytes += event_bytes(&event);
        is_full = bytes > EVENTS_PAGE_BYTES && !events.is_empty();
        if is_full {
            return Ok(false);
        }
        gaps.next(seq)?;
        events.push((unsigned(seq), event));
        Ok(true)
    })?;
    if !is_full {
        gaps.end()?;
    }
    Ok(Some(Events::Page { events, last_seq, state }))
}
