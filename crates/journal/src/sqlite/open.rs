//! Opening a store: nobody else has it, it is whole, it is of our format, and it is ours from now on.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, params};

use super::error::{OpenError, StoreError};
use super::lock::Lock;
use super::mark::{Found, Mark, MarkFile};
use super::migrate::{Kind, kind, migrate};
use super::outbox::{ReplayError, replay};
use super::shared::Opened;
use super::walk::check;
use super::{BUSY_WAIT, PAGE_BYTES, STATEMENTS};
use crate::{AuditSink, Durability};

/// The store's file in its directory.
pub(super) const FILE: &str = "journal.db";

/// How large a store may be to be looked at wholly before anything is answered: at some 300 MB/s a
/// start waits for that no longer than a person does.
const CHECKED_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What to do when the mark is ahead.
const CURE_MARK: &str = "restore a backup with `convoke data restore`, or run `convoke data check \
                         --accept-loss` to go on without what is missing";

/// What to do when nothing is left.
const CURE_EMPTY: &str = "move its directory away, then restore a backup with `convoke data \
                          restore`, or begin anew without what was in it";

/// What is said of a store whose file has nothing in it, or is not there.
pub(super) const GONE_EMPTY: &str = "it is empty, and was not";

/// What is said of a store in whose place is something else.
pub(super) const GONE_FOREIGN: &str = "it is no store any more";

/// A store that is ours to write.
pub(super) struct Opening {
    pub(super) lock: Lock,
    pub(super) connection: Connection,
    pub(super) mark: MarkFile,
    /// What the mark says.
    pub(super) written: Mark,
    pub(super) found: Opened,
    pub(super) file: PathBuf,
    /// Every row of it was looked at.
    pub(super) is_checked: bool,
}

/// The row of `store`.
struct Row {
    store_id: String,
    opened: i64,
    epoch: i64,
    commits: i64,
    boot_id: String,
    is_clean: bool,
}

/// Opens the store in `directory`, which is made if it is not there, for its owner alone.
///
/// # Errors
///
/// [`OpenError`].
pub(super) fn open(
    directory: &Path,
    durability: Durability,
    sink: &dyn AuditSink,
) -> Result<Opening, OpenError> {
    let unusable = |source| OpenError::Io { path: directory.into(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(unusable)?;
    let lock = Lock::take(directory)?;
    let (mark, marked) = MarkFile::open(directory)?;
    let file = directory.join(FILE);
    let is_new = make_file(&file).map_err(|source| OpenError::Io { path: file.clone(), source })?;

    let damaged = |what: &str, cure| {
        let what = what.to_owned();
        OpenError::Damaged { path: directory.into(), what, cure }
    };
    let failed = |error: StoreError| error.into_open(directory);
    // What has a mark was a store once.
    let not_ours = || match marked {
        Found::Mark(_) | Found::Unreadable => damaged(GONE_FOREIGN, CURE_EMPTY),
        Found::Missing => OpenError::NotOurs { path: file.clone() },
    };
    let mut connection = connect(&file).map_err(|error| match error {
        StoreError::Damaged(_) => not_ours(),
        error => failed(error),
    })?;
    match kind(&connection).map_err(failed)? {
        Kind::Foreign => return Err(not_ours()),
        Kind::Empty if is_whole_when_empty(&marked) => {
            migrate(&mut connection, directory, 0)?;
            // So that the file is one of ours even without its log.
            checkpoint(&connection).map_err(|error| failed(error.into()))?;
            sync_directory(directory, is_new).map_err(unusable)?;
        }
        Kind::Empty => return Err(damaged(GONE_EMPTY, CURE_EMPTY)),
        Kind::Ours { format } => migrate(&mut connection, directory, format)?,
    }
    let is_checked = size(&file) <= CHECKED_BYTES_MAX;
    if is_checked {
        check(&connection).map_err(failed)?;
    }
    let row = read_row(&connection).map_err(failed)?;
    if durability == Durability::Strict {
        check_mark(&marked, &row).map_err(|what| damaged(&what, CURE_MARK))?;
    }
    let is_unsure = matches!(&marked, Found::Mark(mark) if mark.is_unsure);
    let (found, commits) = take_over(&connection, row, is_unsure).map_err(failed)?;
    let written = Mark { store_id: found.store_id.clone(), commits, is_unsure: false };
    match marked {
        // It has its length and its name on the disk, and the rest need not be there.
        Found::Mark(_) => mark.write(&written).map_err(unusable)?,
        Found::Missing | Found::Unreadable => mark.write_synced(&written)?,
    }
    replay(&connection, sink).map_err(|error| match error {
        ReplayError::Store(error) => failed(error),
        ReplayError::Audit(source) => OpenError::Audit { path: directory.into(), source },
    })?;
    Ok(Opening { lock, connection, mark, written, found, file, is_checked })
}

/// A connection that can write, set up as the writer's and the housekeeper's have to be.
///
/// # Errors
///
/// [`StoreError`] if the file cannot be opened, or is none of SQLite's.
pub(super) fn connect(file: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(BUSY_WAIT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Checkpoints are the housekeeper's. References between tables need no look by SQLite: rows are
    // made here alone, and two look-ups for each would be a tenth of what a commit costs. Memory
    // maps would turn an I/O error into a signal. Cells are looked at before they are believed.
    connection.execute_batch(&format!(
        "PRAGMA page_size = {PAGE_BYTES};
         PRAGMA cell_size_check = ON;
         PRAGMA mmap_size = 0;
         PRAGMA foreign_keys = OFF;
         PRAGMA trusted_schema = OFF;
         PRAGMA synchronous = FULL;
         PRAGMA cache_size = -8192;",
    ))?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(StoreError::Damaged(format!("its journal mode is `{mode}`, not `wal`")));
    }
    connection.query_row("PRAGMA wal_autocheckpoint = 0", [], |_| Ok(()))?;
    Ok(connection)
}

/// Makes the file if it is not there; SQLite gives its other files the same mode.
fn make_file(file: &Path) -> io::Result<bool> {
    let mut options = OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(file) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes the names of new files survive a power cut.
fn sync_directory(directory: &Path, is_new: bool) -> io::Result<()> {
    if !is_new {
        return Ok(());
    }
    File::open(directory)?.sync_all()?;
    match directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// A store that was never written has no mark, or died before it had a commit.
fn is_whole_when_empty(marked: &Found) -> bool {
    matches!(marked, Found::Missing)
}

/// The store with its log, in bytes.
fn size(file: &Path) -> u64 {
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    bytes(file) + bytes(Path::new(&log))
}

fn read_row(connection: &Connection) -> Result<Row, StoreError> {
    Ok(connection.query_row(
        "SELECT store_id, opened, epoch, commits, boot_id, is_clean FROM store WHERE only_row = 1",
        [],
        |row| {
            Ok(Row {
                store_id: row.get(0)?,
                opened: row.get(1)?,
                epoch: row.get(2)?,
                commits: row.get(3)?,
                boot_id: row.get(4)?,
                is_clean: row.get::<_, i64>(5)? != 0,
            })
        },
    )?)
}

/// Whether the store has everything that the mark speaks of; otherwise how it shows that it has not.
fn check_mark(marked: &Found, row: &Row) -> Result<(), String> {
    match marked {
        // One that was copied has none.
        Found::Missing => Ok(()),
        Found::Unreadable => Err("its mark cannot be read, so nobody can tell whether the newest \
                                  commits are missing"
            .to_owned()),
        Found::Mark(mark) if mark.store_id != row.store_id => {
            Err("its mark is another store's".to_owned())
        }
        Found::Mark(mark) => match i64::try_from(mark.commits) {
            Ok(commits) if commits <= row.commits => Ok(()),
            _ => Err(format!(
                "commit {} was on the disk, and the newest that is there is {}",
                mark.commits, row.commits
            )),
        },
    }
}

/// Writes that the store is ours. Returns what it says of itself from now on, and its commit.
fn take_over(
    connection: &Connection,
    row: Row,
    is_unsure: bool,
) -> Result<(Opened, u64), StoreError> {
    // What was written and not synced is lost with the machine, not with the process; so places in
    // streams hold as long as the machine has run on.
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let boot_id = boot_id.trim();
    let same_run = !boot_id.is_empty() && boot_id == row.boot_id;
    let may_lack = is_unsure || !(row.is_clean || same_run);
    let (opened, commits) = (row.opened + 1, row.commits + 1);
    let epoch = row.epoch + i64::from(may_lack);
    connection.execute(
        "UPDATE store SET opened = ?, epoch = ?, commits = ?, boot_id = ?, is_clean = 0
         WHERE only_row = 1",
        params![opened, epoch, commits, boot_id],
    )?;
    let number = super::lookup::unsigned;
    let store_id = row.store_id;
    Ok((Opened { opened: number(opened), epoch: number(epoch), store_id }, number(commits)))
}
