//! A store from its backup.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use convoke_model::UnixMillis;
use rusqlite::{Connection, OpenFlags};

use super::backup::{Unfinished, copy, finish, refuse_existing};
use super::check::{file_of, look};
use super::{Looking, MaintenanceError, Progress, failed, unusable};
use crate::sqlite::lock::Lock;
use crate::sqlite::lookup::{now, unsigned};
use crate::sqlite::mark::{Mark, MarkFile};
use crate::sqlite::open::FILE;

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreReport {
    /// How many tasks there are.
    pub tasks: u64,
    /// The number of the newest commit.
    pub commits: u64,
}

/// Makes the store of a data directory of a backup, or of the directory of another store that is not
/// in use. Streams that were followed before begin anew, because what came after the backup is gone.
///
/// # Errors
///
/// [`MaintenanceError::Exists`] if the directory has a store; [`MaintenanceError::Damaged`] if the
/// backup is not whole; [`MaintenanceError::Open`] if a node has the directory.
pub fn restore(
    from: &Path,
    directory: &Path,
    progress: Progress<'_>,
) -> Result<RestoreReport, MaintenanceError> {
    let source = Looking::file(&file_of(from))?;
    let report = look(&source, progress)?;
    if let Some(what) = report.findings.first() {
        return Err(MaintenanceError::Damaged { path: source.path, what: what.clone() });
    }
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(unusable(directory))?;
    let _lock = Lock::take(directory)?;
    for name in [FILE, "journal.db-wal", "journal.db-shm", "journal.mark"] {
        refuse_existing(&directory.join(name))?;
    }
    let unfinished = Unfinished(directory.join("journal.db.unfinished"));
    copy(&source, &unfinished.0, progress)?;
    let (store_id, commits) =
        begin_anew(&unfinished.0).map_err(|error| failed(&unfinished.0, error))?;
    finish(&unfinished.0, &directory.join(FILE))?;
    // A store without a mark is one that was copied; a mark without a store would be a loss.
    let (mark, _) = MarkFile::open(directory)?;
    mark.write_synced(&Mark { store_id, commits, is_unsure: false })?;
    Ok(RestoreReport { tasks: report.tasks, commits })
}

/// Gives the store an epoch that neither it nor the one it was copied from has had.
fn begin_anew(file: &Path) -> rusqlite::Result<(String, u64)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    // The other store has gone on, perhaps by an epoch or two; seconds since 1970 are far from that.
    let UnixMillis(now) = now();
    let seconds = i64::try_from(now / 1000).unwrap_or(i64::MAX);
    let written = connection.query_row(
        "UPDATE store SET epoch = max(epoch + 1, ?), is_clean = 1 WHERE only_row = 1
         RETURNING store_id, commits",
        [seconds],
        |row| Ok((row.get(0)?, unsigned(row.get(1)?))),
    )?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(written)
}
