//! The pieces of an ended task's artifacts, folded to what they came to.

use std::collections::HashMap;

use convoke_model::{Artifact, TaskEvent};
use rusqlite::{Connection, params};

use super::error::StoreError;
use super::rows::{TaskMoving, TaskRow, piece_sum, verify};
use super::shown::scratch;
use crate::stored::{PIECE, decode_event, encode_event};

/// How many pieces are folded at a time. An artifact of more comes to several, one behind the other:
/// what they say together is the same, though its text may be cut into parts elsewhere.
const PIECES_MAX: usize = 5_000;

/// How many bytes of them are folded at a time.
const BYTES_MAX: usize = 8 * 1024 * 1024;

pub(super) const PIECES: &str = "SELECT seq, artifact_id, body, sum FROM pieces
     WHERE task_no = ? AND seq > ? ORDER BY seq LIMIT ?";

/// The pieces of one artifact, so far.
struct Folded {
    /// Where the first of them was, and the others are not any more.
    seqs: Vec<i64>,
    artifact_id: String,
    /// Whether they are added to what was folded before.
    append: bool,
    last: bool,
}

/// Folds the next pieces of a task that has ended; `rows` is lowered by how many were touched.
/// Returns whether all of them are folded.
///
/// # Errors
///
/// [`StoreError`]; everything has to be taken back.
pub(super) fn fold(
    connection: &Connection,
    task: &TaskRow,
    rows: &mut usize,
) -> Result<bool, StoreError> {
    let TaskMoving { folded_seq, last_seq, .. } = task.moving;
    if folded_seq >= last_seq {
        return Ok(true);
    }
    // Pieces are applied as the task's own rule has it, to a task of nothing else.
    let mut scratch = scratch(task)?;
    let mut folded: Vec<Folded> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let (mut count, mut bytes, mut through) = (0, 0, folded_seq);
    let mut statement = connection.prepare_cached(PIECES)?;
    let mut found = statement.query(params![task.task_no, folded_seq, PIECES_MAX as i64])?;
    while bytes < BYTES_MAX
        && let Some(row) = found.next()?
    {
        let (seq, artifact_id, body): (i64, String, String) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        let sum = piece_sum(task.task_no, seq, &artifact_id, &body);
        verify(row.get(3)?, sum, || format!("event {seq} of task {}", task.task_no))?;
        count += 1;
        bytes += body.len();
        through = seq;
        let decoded = decode_event(PIECE, &body);
        let decoded = decoded.map_err(|error| StoreError::unreadable(task, &error))?;
        let TaskEvent::Artifact { artifact, append, last } = decoded else { continue };
        let is_first = !places.contains_key(&artifact_id);
        let place = *places.entry(artifact_id.clone()).or_insert(folded.len());
        if is_first {
            folded.push(Folded { seqs: Vec::new(), artifact_id, append, last });
        }
        let Some(known) = folded.get_mut(place) else { continue };
        known.seqs.push(seq);
        known.last = last;
        known.append &= append;
        let event = TaskEvent::Artifact { artifact, append: append && !is_first, last };
        scratch.apply(event).map_err(|error| StoreError::unreadable(task, &error))?;
    }
    let is_over = count < PIECES_MAX && bytes < BYTES_MAX;
    *rows = rows.saturating_sub(count);
    // Most artifacts come in one piece, and then there is nothing to fold.
    if is_over && folded_seq == 0 && folded.iter().all(|known| known.seqs.len() == 1) {
        return Ok(true);
    }
    for (known, artifact) in folded.into_iter().zip(scratch.artifacts) {
        replace(connection, task.task_no, known, artifact)?;
    }
    let folded_seq = if is_over { last_seq } else { through };
    let sum = TaskMoving { folded_seq, ..task.moving }.sum(task.fixed_sum);
    connection
        .prepare_cached("UPDATE tasks SET folded_seq = ?, sum = ? WHERE task_no = ?")?
        .execute(params![folded_seq, sum, task.task_no])?;
    Ok(is_over)
}

/// Puts one piece in the place of several.
fn replace(
    connection: &Connection,
    task_no: i64,
    folded: Folded,
    artifact: Artifact,
) -> Result<(), StoreError> {
    let Folded { seqs, artifact_id, append, last } = folded;
    let [first, _, ..] = *seqs else { return Ok(()) };
    let mut delete =
        connection.prepare_cached("DELETE FROM pieces WHERE task_no = ? AND seq = ?")?;
    for seq in seqs {
        delete.execute([task_no, seq])?;
    }
    let body = encode_event(&TaskEvent::Artifact { artifact, append, last });
    let sum = piece_sum(task_no, first, &artifact_id, &body);
    connection
        .prepare_cached(
            "INSERT INTO pieces (task_no, seq, artifact_id, body, sum) VALUES (?, ?, ?, ?, ?)",
        )?
        .execute(params![task_no, first, artifact_id, body, sum])?;
    Ok(())
}
