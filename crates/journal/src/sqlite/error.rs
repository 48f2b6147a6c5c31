//! What can go wrong with the store, and what follows from it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::ErrorCode;
use rusqlite::ffi;

use super::rows::TaskRow;
use crate::{AuditError, JournalError};

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum StoreError {
    /// SQLite said no.
    #[error("the store says no")]
    Sqlite(#[source] Arc<rusqlite::Error>),
    /// What is stored is not what was written.
    #[error("{0}")]
    Damaged(String),
    /// Another process has opened the store to write it.
    #[error("another process has opened the store")]
    Taken,
    /// The journal is closed, or its writer has gone.
    #[error("the journal is closed")]
    Closed,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process works on it.
    #[error(
        "the journal in `{path}` is in use by {}; stop that, or give each node a directory of its own",
        holder(.pid)
    )]
    InUse {
        /// The data directory.
        path: PathBuf,
        /// The process, if it has said.
        pid: Option<u32>,
    },
    /// What is stored is not what was written, or not all of it.
    #[error("the journal in `{path}` is damaged: {what}; {cure}")]
    Damaged {
        /// The data directory.
        path: PathBuf,
        /// How it shows.
        what: String,
        /// What to do.
        cure: &'static str,
    },
    /// A later version of Convoke wrote it.
    #[error(
        "the journal in `{path}` has format {found}, and this program knows formats up to {known}; \
         run the version that wrote it, or a later one"
    )]
    Newer {
        /// The data directory.
        path: PathBuf,
        /// The format of the store.
        found: i64,
        /// The newest that this build knows.
        known: i64,
    },
    /// A file of that name that is no journal.
    #[error("`{path}` is no journal of Convoke; move it away, or name another directory")]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// The format could not be brought up to date.
    #[error("the journal in `{path}` could not be brought to format {to}; it is as it was")]
    Migration {
        /// The data directory.
        path: PathBuf,
        /// The format that was tried.
        to: i64,
        /// What the store said.
        #[source]
        source: rusqlite::Error,
    },
    /// A file or directory cannot be used.
    #[error("`{path}` cannot be used for the journal")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store cannot be used.
    #[error("the journal in `{path}` cannot be opened: {what}")]
    Store {
        /// The data directory.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
        /// What the store said.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// Audit records that wait in the store could not be handed on.
    #[error("audit records that wait in the journal in `{path}` cannot be written")]
    Audit {
        /// The data directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: AuditError,
    },
}

/// What to do with a damaged store.
pub(super) const CURE: &str = "restore a backup with `convoke data restore`, or see with `convoke \
                               data check` what is lost";

fn holder(pid: &Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error::{
            FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error,
        };
        match &error {
            // Tables are STRICT, so a value of another type than its column's was not written.
            FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) => {
                Self::Damaged(format!("a value is none of its column: {error}"))
            }
            Utf8Error(..) => Self::Damaged("a text is no text".to_owned()),
            _ => match error.sqlite_error_code() {
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                    Self::Damaged(error.to_string())
                }
                _ => Self::Sqlite(Arc::new(error)),
            },
        }
    }
}

impl StoreError {
    /// A stored value that this build cannot have written.
    pub(super) fn unreadable(row: &TaskRow, why: &dyn std::error::Error) -> Self {
        Self::Damaged(format!("task {} cannot be read: {}", row.task_no, convoke_model::chain(why)))
    }

    /// Whether data that was written may not have reached the disk, now or ever.
    ///
    /// The kernel may have dropped what it could not write and marked it clean, so a second sync
    /// would say that all is well (PostgreSQL's "fsyncgate"). Nothing in memory can be trusted to
    /// be stored any more: the process has to end and to begin with what is on the disk.
    pub(super) fn is_failed_sync(&self) -> bool {
        let Self::Sqlite(error) = self else { return false };
        matches!(
            error.sqlite_extended_error_code(),
            Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC)
        )
    }

    /// Whether it may be over by itself.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Sqlite(_)) && !self.is_failed_sync()
    }

    /// What is wrong and what to do, as the end of a sentence that begins with the store.
    pub(super) fn what(&self) -> String {
        match self {
            Self::Sqlite(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => {
                    "is full; free space on its disk, and it goes on by itself".to_owned()
                }
                Some(ErrorCode::SystemIoFailure) => format!(
                    "cannot be read or written ({error}); look at its disk, it is tried again"
                ),
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                    "is being changed by another program; end that, it is tried again".to_owned()
                }
                Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                    "may not be written, which even who reads it has to; look at the permissions \
                     of its directory, and be the user that it belongs to"
                        .to_owned()
                }
                // SQLite says this, too, of a directory that it may not write the log's index to.
                Some(ErrorCode::CannotOpen) => "cannot be opened; look at the permissions of its \
                                                directory, where even who reads it has to write, \
                                                and be the user that it belongs to"
                    .to_owned(),
                _ => format!("cannot be used: {error}"),
            },
            Self::Damaged(what) => format!("is damaged: {what}"),
            Self::Taken => "was opened by another process, which has it now; stop one of the two \
                            and start this one anew"
                .to_owned(),
            Self::Closed => "is closed".to_owned(),
        }
    }

    /// What a caller of the journal at `path` is told.
    pub(super) fn into_journal(self, path: &Arc<Path>) -> JournalError {
        let path = Arc::clone(path);
        let what = self.what();
        match self {
            Self::Damaged(what) => JournalError::Damaged { path, what },
            Self::Sqlite(source) => JournalError::Storage { path, what, source: Some(source as _) },
            Self::Taken | Self::Closed => JournalError::Storage { path, what, source: None },
        }
    }

    /// What whoever opens the store in `path` is told.
    pub(super) fn into_open(self, path: &Path) -> OpenError {
        let what = self.what();
        let path = path.to_owned();
        match self {
            Self::Damaged(what) => OpenError::Damaged { path, what, cure: CURE },
            Self::Sqlite(source) => OpenError::Store { path, what, source },
            Self::Taken | Self::Closed => OpenError::InUse { path, pid: None },
        }
    }
}
