//! The rows that a task and its steps are made of.

use convoke_model::TaskEvent;
use rusqlite::params;

use super::error::StoreError;
use super::heads::Head;
use super::job::Changes;
use super::lookup::millis;
use super::rows::{TaskFixed, TaskMoving, event_sum, piece_sum, record_sum};
use super::store::Store;
use crate::stored::{CHECKPOINT, event_kind, state_number};

impl Store {
    pub(super) fn insert_task(&self, fixed: TaskFixed<'_>, head: &Head) -> Result<(), StoreError> {
        let TaskMoving { state, status_at, last_seq, last_record, folded_seq } = head.moving;
        self.connection
            .prepare_cached(
                "INSERT INTO tasks (task_no, scope_no, task_id, context_id, capability, subject,
                     priority, deadline_at, created_at, state, status_at, last_seq, last_record,
                     folded_seq, sum)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                fixed.task_no,
                fixed.scope_no,
                fixed.task_id,
                fixed.context_id,
                fixed.capability,
                fixed.subject,
                fixed.priority,
                fixed.deadline_at,
                fixed.created_at,
                state,
                status_at,
                last_seq,
                last_record,
                folded_seq,
                head.moving.sum(head.fixed_sum),
            ])?;
        Ok(())
    }

    /// Writes the part of a task's row that changes, which was `before`.
    pub(super) fn update_task(&self, head: &Head, before: TaskMoving) -> Result<(), StoreError> {
        let TaskMoving { state, status_at, last_seq, last_record, .. } = head.moving;
        let (task_no, sum) = (head.task_no, head.moving.sum(head.fixed_sum));
        // A column that is named has its indexes written anew, whatever it is set to.
        if (state, status_at) == (before.state, before.status_at) {
            self.connection
                .prepare_cached(
                    "UPDATE tasks SET last_seq = ?, last_record = ?, sum = ? WHERE task_no = ?",
                )?
                .execute(params![last_seq, last_record, sum, task_no])?;
        } else {
            self.connection
                .prepare_cached(
                    "UPDATE tasks SET state = ?, status_at = ?, last_seq = ?, last_record = ?,
                         sum = ?
                     WHERE task_no = ?",
                )?
                .execute(params![state, status_at, last_seq, last_record, sum, task_no])?;
        }
        Ok(())
    }

    /// Writes events, pieces and records that follow what the task had `before`.
    pub(super) fn insert_changes(
        &self,
        head: &mut Head,
        before: TaskMoving,
        changes: &Changes,
    ) -> Result<(), StoreError> {
        let task_no = head.task_no;
        for ((event, body), seq) in
            changes.events.iter().zip(&changes.bodies).zip(before.last_seq + 1..)
        {
            if let TaskEvent::Artifact { artifact, .. } = event {
                let id = &artifact.artifact_id;
                let sum = piece_sum(task_no, seq, id.as_str(), body);
                self.connection
                    .prepare_cached(
                        "INSERT INTO pieces (task_no, seq, artifact_id, body, sum)
                         VALUES (?, ?, ?, ?, ?)",
                    )?
                    .execute(params![task_no, seq, id.as_str(), body, sum])?;
                head.learn(id);
            } else {
                let kind = event_kind(event);
                let sum = event_sum(task_no, seq, kind, body);
                self.connection
                    .prepare_cached(
                        "INSERT INTO events (task_no, seq, kind, body, sum) VALUES (?, ?, ?, ?, ?)",
                    )?
                    .execute(params![task_no, seq, kind, body, sum])?;
            }
        }
        // Of checkpoints the last is kept, so of several at a time the others need not be written.
        let last_checkpoint = changes.records.iter().rposition(|(kind, _)| *kind == CHECKPOINT);
        for (index, ((kind, body), record_no)) in
            changes.records.iter().zip(before.last_record + 1..).enumerate()
        {
            if *kind == CHECKPOINT {
                if Some(index) != last_checkpoint {
                    continue;
                }
                if let Some(old) = head.checkpoint_no.replace(record_no) {
                    self.connection
                        .prepare_cached("DELETE FROM records WHERE task_no = ? AND record_no = ?")?
                        .execute([task_no, old])?;
                }
            }
            let sum = record_sum(task_no, record_no, *kind, body);
            self.connection
                .prepare_cached(
                    "INSERT INTO records (task_no, record_no, kind, body, sum)
                     VALUES (?, ?, ?, ?, ?)",
                )?
                .execute(params![task_no, record_no, kind, body, sum])?;
        }
        Ok(())
    }
}

/// Moves `head` to where the task stands after `changes`.
pub(super) fn advance(head: &mut Head, changes: &Changes) {
    for event in &changes.events {
        if let TaskEvent::Status(status) = event {
            head.state = status.state;
            head.moving.state = state_number(status.state);
            head.moving.status_at = millis(status.timestamp);
        }
    }
    head.moving.last_seq += count(changes.events.len());
    head.moving.last_record += count(changes.records.len());
}

/// A number of things in memory, which fits.
fn count(length: usize) -> i64 {
    length as i64
}
