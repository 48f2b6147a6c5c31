//! Giving the disk back what a store no longer needs.

use std::path::Path;

use super::{Looking, MaintenanceError, beside, bytes, failed};
use crate::sqlite::lock::Lock;
use crate::sqlite::open::{FILE, connect};

/// What became smaller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VacuumReport {
    /// How large the store and its log were, in bytes.
    pub before: u64,
    /// How large they are.
    pub after: u64,
}

/// Writes the store of a data directory anew, without the room that deleted tasks have left. It takes
/// as much again on the disk while it is at it. No node may have the store.
///
/// # Errors
///
/// [`MaintenanceError`].
pub fn vacuum(directory: &Path) -> Result<VacuumReport, MaintenanceError> {
    drop(Looking::of_directory(directory)?);
    let _lock = Lock::take(directory)?;
    let file = directory.join(FILE);
    let size = || bytes(&file) + bytes(&beside(&file, "-wal"));
    let before = size();
    let connection = connect(&file).map_err(|error| failed(&file, error))?;
    connection
        .execute_batch("VACUUM")
        .and_then(|()| connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))
        .map_err(|error| failed(&file, error))?;
    drop(connection);
    Ok(VacuumReport { before, after: size() })
}
