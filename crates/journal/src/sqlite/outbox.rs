//! What was committed with a change and has to leave the store afterwards: lines of the audit log.
//!
//! The sink takes a record before the commit that it speaks of and writes it soon after. A kill in
//! between would lose it, so its line is part of the commit as well, until the sink has written it.
//! A line may be handed over twice, and is never lost.

use rusqlite::{Connection, params};

use super::error::StoreError;
use super::lookup::AUDIT;
use super::rows::{outbox_sum, verify};
use super::store::Store;
use super::wait::wait;
use crate::{AuditError, AuditSink};

/// How many lines are read and handed over at a time when a store is opened.
const LINES: i64 = 1024;

/// Why lines could not be handed over.
pub(super) enum ReplayError {
    Store(StoreError),
    Audit(AuditError),
}

impl Store {
    /// Takes the items up to `through` out of the outbox.
    pub(super) fn delete_items(&mut self, through: i64) -> Result<(), StoreError> {
        let deleted = self
            .connection
            .prepare_cached("DELETE FROM outbox WHERE item_no <= ?")?
            .execute([through])?;
        if deleted > 0 {
            self.set_changed();
        }
        Ok(())
    }
}

/// Hands every line that waits in the store to `sink`, and takes out those that it has written.
///
/// # Errors
///
/// [`ReplayError`]; the lines that were not written are still there.
pub(super) fn replay(connection: &Connection, sink: &dyn AuditSink) -> Result<(), ReplayError> {
    loop {
        let lines = lines(connection)?;
        let Some((last, _)) = lines.last() else { return Ok(()) };
        let last = *last;
        for (_, line) in lines {
            match sink.resubmit(line.clone()) {
                Err(AuditError::Full { .. }) => {
                    wait(sink.flush()).map_err(ReplayError::Audit)?;
                    sink.resubmit(line).map_err(ReplayError::Audit)?;
                }
                taken => taken.map_err(ReplayError::Audit)?,
            }
        }
        wait(sink.flush()).map_err(ReplayError::Audit)?;
        connection.execute("DELETE FROM outbox WHERE item_no <= ?", [last])?;
    }
}

fn lines(connection: &Connection) -> Result<Vec<(i64, String)>, StoreError> {
    let mut statement = connection
        .prepare("SELECT item_no, body, sum FROM outbox WHERE kind = ? ORDER BY item_no LIMIT ?")?;
    let mut rows = statement.query(params![AUDIT, LINES])?;
    let mut lines = Vec::new();
    while let Some(row) = rows.next()? {
        let (item_no, line): (i64, String) = (row.get(0)?, row.get(1)?);
        verify(row.get(2)?, outbox_sum(item_no, AUDIT, &line), || format!("item {item_no}"))?;
        lines.push((item_no, line));
    }
    Ok(lines)
}

impl From<StoreError> for ReplayError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<rusqlite::Error> for ReplayError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}
