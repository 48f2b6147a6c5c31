//! A copy of a store, as of one instant, while a node goes on with it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::check::look;
use super::{Looking, MaintenanceError, Progress, beside, bytes, failed, unusable};

/// How many pages are copied between two words on how far it is: 4 MiB.
const PAGES_A_STEP: i32 = 1024;

/// What a backup is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupReport {
    /// How large it is, in bytes.
    pub bytes: u64,
    /// How many tasks are in it.
    pub tasks: u64,
}

/// Copies the store of a data directory to a file of its own, which is checked before it has its
/// name. A node may be at work with the store; its log grows meanwhile.
///
/// # Errors
///
/// [`MaintenanceError::Exists`] rather than writing over anything; [`MaintenanceError::Damaged`] if
/// the copy is not whole.
pub fn backup(
    directory: &Path,
    to: &Path,
    progress: Progress<'_>,
) -> Result<BackupReport, MaintenanceError> {
    let looking = Looking::at(directory)?;
    refuse_existing(to)?;
    let unfinished = Unfinished(beside(to, ".unfinished"));
    copy(&looking, &unfinished.0, progress)?;
    let copied = Looking::file(&unfinished.0)?;
    let report = look(&copied, progress)?;
    if let Some(what) = report.findings.first() {
        return Err(MaintenanceError::Damaged { path: looking.path, what: what.clone() });
    }
    drop(copied);
    finish(&unfinished.0, to)?;
    Ok(BackupReport { bytes: bytes(to), tasks: report.tasks })
}

/// # Errors
///
/// [`MaintenanceError::Exists`].
pub(super) fn refuse_existing(path: &Path) -> Result<(), MaintenanceError> {
    // A link to nothing is something, too.
    if path.symlink_metadata().is_ok() {
        return Err(MaintenanceError::Exists { path: path.into() });
    }
    Ok(())
}

/// Copies every page of a store to a new file, which has no log.
pub(super) fn copy(
    from: &Looking,
    to: &Path,
    progress: Progress<'_>,
) -> Result<(), MaintenanceError> {
    // What an earlier attempt has left was never finished.
    Unfinished(to.to_owned()).remove();
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(to).map_err(unusable(to))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut target = Connection::open_with_flags(to, flags).map_err(|error| failed(to, error))?;
    // As of one instant: without it each commit of the node would have the copy begin anew.
    let transaction = Transaction::new_unchecked(&from.connection, TransactionBehavior::Deferred)
        .map_err(|error| from.failed(error))?;
    transaction
        .query_row("SELECT commits FROM store", [], |row| row.get::<_, i64>(0))
        .map_err(|error| from.failed(error))?;
    {
        let copying = Backup::new(&transaction, &mut target).map_err(|error| failed(to, error))?;
        loop {
            let step = copying.step(PAGES_A_STEP).map_err(|error| failed(to, error))?;
            let pages = copying.progress();
            let total = u64::try_from(pages.pagecount).unwrap_or_default();
            let left = u64::try_from(pages.remaining).unwrap_or_default();
            progress("copy", total.saturating_sub(left), total);
            match step {
                StepResult::Done => break,
                // Whoever holds the store lets it go again.
                StepResult::Busy | StepResult::Locked => {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                _ => {}
            }
        }
    }
    // One file is easier to carry than three.
    target
        .query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))
        .map_err(|error| failed(to, error))?;
    target.close().map_err(|(_, error)| failed(to, error))?;
    Ok(())
}

/// Gives a file that is whole its name, for good.
pub(super) fn finish(from: &Path, to: &Path) -> Result<(), MaintenanceError> {
    File::open(from).and_then(|file| file.sync_all()).map_err(unusable(from))?;
    // A link, unlike a new name, never takes the place of what is there.
    match std::fs::hard_link(from, to) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(MaintenanceError::Exists { path: to.into() });
        }
        // Some file systems have no links.
        Err(_) => {
            refuse_existing(to)?;
            std::fs::rename(from, to).map_err(unusable(to))?;
        }
    }
    let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    File::open(directory).and_then(|file| file.sync_all()).map_err(unusable(directory))
}

/// A file that goes away unless it was given its name; with it what SQLite has beside it.
pub(super) struct Unfinished(pub(super) std::path::PathBuf);

impl Unfinished {
    fn remove(&self) {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            // What is not there need not be removed.
            drop(std::fs::remove_file(beside(&self.0, suffix)));
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.remove();
    }
}
