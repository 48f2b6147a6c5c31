//! The sums of rows, which tell a damaged or misplaced row from what was written.
//!
//! A sum is a CRC-32C over the table and everything in the row but the sum itself. Texts and blobs
//! are preceded by their length, so that no byte can move from one column to the next unnoticed.

use rusqlite::Row;

use super::error::StoreError;

/// A sum on its way over the columns of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sum(u32);

impl Sum {
    /// Begins the sum of a row of the table with this number.
    fn of_table(number: u8) -> Self {
        Self(crc32c::crc32c(&[number]))
    }

    fn int(self, value: i64) -> Self {
        Self(crc32c::crc32c_append(self.0, &value.to_le_bytes()))
    }

    fn ints<const N: usize>(self, values: [i64; N]) -> Self {
        values.into_iter().fold(self, Self::int)
    }

    fn optional_int(self, value: Option<i64>) -> Self {
        match value {
            Some(value) => self.int(1).int(value),
            None => self.int(0),
        }
    }

    fn bytes(self, bytes: &[u8]) -> Self {
        // A length on this machine fits 64 bits.
        Self(crc32c::crc32c_append(self.int(bytes.len() as i64).0, bytes))
    }

    fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    fn optional_text(self, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.int(1).text(text),
            None => self.int(0),
        }
    }

    /// The number as the column has it.
    fn get(self) -> i64 {
        i64::from(self.0)
    }
}

/// The sum of a row of `scopes`; `names` are agent, tenant, app and owner.
pub(super) fn scope_sum(scope_no: i64, names: [&str; 4]) -> i64 {
    names.into_iter().fold(Sum::of_table(1).int(scope_no), Sum::text).get()
}

/// The columns of `tasks` that never change.
#[derive(Debug, Clone, Copy)]
pub(super) struct TaskFixed<'a> {
    pub(super) task_no: i64,
    pub(super) scope_no: i64,
    pub(super) task_id: &'a str,
    pub(super) context_id: &'a str,
    pub(super) capability: &'a str,
    pub(super) subject: Option<&'a str>,
    pub(super) priority: i64,
    pub(super) deadline_at: Option<i64>,
    pub(super) created_at: i64,
}

/// The columns of `tasks` that change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TaskMoving {
    pub(super) state: i64,
    pub(super) status_at: i64,
    pub(super) last_seq: i64,
    pub(super) last_record: i64,
    pub(super) folded_seq: i64,
}

impl TaskFixed<'_> {
    /// The sum so far, to be kept, so that a change of the rest needs no look at this part.
    pub(super) fn sum(&self) -> Sum {
        Sum::of_table(2)
            .ints([self.task_no, self.scope_no, self.priority, self.created_at])
            .optional_int(self.deadline_at)
            .text(self.task_id)
            .text(self.context_id)
            .text(self.capability)
            .optional_text(self.subject)
    }
}

impl TaskMoving {
    /// The sum of a row of `tasks` whose other part sums up to `fixed`.
    pub(super) fn sum(&self, fixed: Sum) -> i64 {
        let Self { state, status_at, last_seq, last_record, folded_seq } = *self;
        fixed.ints([state, status_at, last_seq, last_record, folded_seq]).get()
    }
}

/// The sum of a row of `events`.
pub(super) fn event_sum(task_no: i64, seq: i64, kind: i64, body: &str) -> i64 {
    Sum::of_table(3).ints([task_no, seq, kind]).text(body).get()
}

/// The sum of a row of `pieces`.
pub(super) fn piece_sum(task_no: i64, seq: i64, artifact_id: &str, body: &str) -> i64 {
    Sum::of_table(4).ints([task_no, seq]).text(artifact_id).text(body).get()
}

/// The sum of a row of `records`.
pub(super) fn record_sum(task_no: i64, record_no: i64, kind: i64, body: &str) -> i64 {
    Sum::of_table(5).ints([task_no, record_no, kind]).text(body).get()
}

/// The sum of a row of `sends`.
pub(super) fn send_sum(
    scope_no: i64,
    message_id: &str,
    digest: &[u8],
    task_no: i64,
    until_at: i64,
) -> i64 {
    Sum::of_table(6).ints([scope_no, task_no, until_at]).text(message_id).bytes(digest).get()
}

/// The sum of a row of `outbox`.
pub(super) fn outbox_sum(item_no: i64, kind: &str, body: &str) -> i64 {
    Sum::of_table(7).int(item_no).text(kind).text(body).get()
}

/// A row of `tasks` whose sum is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TaskRow {
    pub(super) task_no: i64,
    pub(super) scope_no: i64,
    pub(super) task_id: String,
    pub(super) context_id: String,
    pub(super) capability: String,
    pub(super) subject: Option<String>,
    pub(super) priority: i64,
    pub(super) deadline_at: Option<i64>,
    pub(super) created_at: i64,
    pub(super) moving: TaskMoving,
    /// The sum of what never changes.
    pub(super) fixed_sum: Sum,
}

impl TaskRow {
    /// The columns that [`read`](Self::read) takes, in its order.
    pub(super) const COLUMNS: &str = "task_no, scope_no, task_id, context_id, capability, subject, \
        priority, deadline_at, created_at, state, status_at, last_seq, last_record, folded_seq, sum";

    /// The task of a row that begins with [`COLUMNS`](Self::COLUMNS).
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] if its sum is wrong.
    pub(super) fn read(row: &Row<'_>) -> Result<Self, StoreError> {
        let mut task = Self {
            task_no: row.get(0)?,
            scope_no: row.get(1)?,
            task_id: row.get(2)?,
            context_id: row.get(3)?,
            capability: row.get(4)?,
            subject: row.get(5)?,
            priority: row.get(6)?,
            deadline_at: row.get(7)?,
            created_at: row.get(8)?,
            moving: TaskMoving {
                state: row.get(9)?,
                status_at: row.get(10)?,
                last_seq: row.get(11)?,
                last_record: row.get(12)?,
                folded_seq: row.get(13)?,
            },
            fixed_sum: Sum(0),
        };
        task.fixed_sum = task.fixed().sum();
        verify(row.get(14)?, task.moving.sum(task.fixed_sum), || format!("task {}", task.task_no))?;
        Ok(task)
    }

    pub(super) fn fixed(&self) -> TaskFixed<'_> {
        TaskFixed {
            task_no: self.task_no,
            scope_no: self.scope_no,
            task_id: &self.task_id,
            context_id: &self.context_id,
            capability: &self.capability,
            subject: self.subject.as_deref(),
            priority: self.priority,
            deadline_at: self.deadline_at,
            created_at: self.created_at,
        }
    }
}

/// Compares a stored sum with what the row comes to.
///
/// # Errors
///
/// [`StoreError::Damaged`] that names the `row`.
pub(super) fn verify(
    stored: i64,
    computed: i64,
    row: impl FnOnce() -> String,
) -> Result<(), StoreError> {
    if stored == computed {
        return Ok(());
    }
    Err(StoreError::Damaged(format!("the sum of {} is wrong", row())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_counts_and_none_flows_into_the_next() {
        let sums = [
            event_sum(1, 2, 3, "ab"),
            event_sum(2, 1, 3, "ab"),
            event_sum(1, 2, 4, "ab"),
            event_sum(1, 2, 3, "ac"),
            record_sum(1, 2, 3, "ab"),
            piece_sum(1, 2, "a", "bc"),
            piece_sum(1, 2, "ab", "c"),
            piece_sum(1, 3, "ab", "c"),
            send_sum(1, "a", &[1], 2, 3),
            send_sum(1, "a", &[1], 2, 4),
            send_sum(1, "a", &[2], 2, 3),
            outbox_sum(1, "audit", "{}"),
            outbox_sum(2, "audit", "{}"),
            scope_sum(1, ["a", "b", "c", "d"]),
            scope_sum(1, ["ab", "", "c", "d"]),
        ];
        let mut different = sums.to_vec();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), sums.len());
    }

    #[test]
    fn every_column_of_a_task_counts() {
        let fixed = || TaskFixed {
            task_no: 1,
            scope_no: 2,
            task_id: "t",
            context_id: "c",
            capability: "p",
            subject: None,
            priority: 1,
            deadline_at: None,
            created_at: 5,
        };
        let moving =
            TaskMoving { state: 1, status_at: 2, last_seq: 3, last_record: 4, folded_seq: 0 };
        let plain = fixed().sum();
        let others = [
            TaskFixed { task_no: 2, ..fixed() },
            TaskFixed { scope_no: 3, ..fixed() },
            TaskFixed { task_id: "u", ..fixed() },
            TaskFixed { context_id: "d", ..fixed() },
            TaskFixed { capability: "q", ..fixed() },
            TaskFixed { subject: Some(""), ..fixed() },
            TaskFixed { priority: 2, ..fixed() },
            TaskFixed { deadline_at: Some(0), ..fixed() },
            TaskFixed { created_at: 6, ..fixed() },
        ];
        assert!(others.iter().all(|other| other.sum() != plain));
        let moved = [
            TaskMoving { state: 2, ..moving },
            TaskMoving { status_at: 3, ..moving },
            TaskMoving { last_seq: 4, ..moving },
            TaskMoving { last_record: 5, ..moving },
            TaskMoving { folded_seq: 1, ..moving },
        ];
        assert!(moved.iter().all(|other| other.sum(plain) != moving.sum(plain)));
    }
}
