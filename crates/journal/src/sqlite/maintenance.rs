//! Looking after a store without a node: checking, copying, and asking it things.
//!
//! What only reads works beside a running node. What writes takes the directory for itself, and is
//! refused while a node has it. Everything here blocks.

mod backup;
mod check;
mod query;
mod restore;
mod stats;
#[cfg(test)]
mod tests;
mod vacuum;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;

use super::error::{OpenError, StoreError};
use super::migrate::{FORMAT, Kind, kind};
use super::open::FILE;
use super::reader;

pub use backup::{BackupReport, backup};
pub use check::{CheckReport, accept_loss, check};
pub use query::{Cell, ROWS_DEFAULT, Table, query};
pub use restore::{RestoreReport, restore};
pub use stats::{Stats, TableSize, TaskCount, stats};
pub use vacuum::{VacuumReport, vacuum};

/// Is told what is being done, how much of it is done, and of how much; a total of zero is unknown.
pub type Progress<'a> = &'a mut dyn FnMut(&'static str, u64, u64);

/// Why a store could not be looked after.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// There is no store.
    #[error("`{path}` is no store; name the data directory of a node whose journal is kept")]
    NoStore {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Something is there that would be lost.
    #[error("`{path}` is there already; move it away, or name another place")]
    Exists {
        /// What is there.
        path: PathBuf,
    },
    /// What is to be kept or used is not whole.
    #[error("`{path}` is damaged: {what}")]
    Damaged {
        /// The store.
        path: PathBuf,
        /// The first thing that is wrong.
        what: String,
    },
    /// A question that is not answered here.
    #[error("{0}")]
    Question(String),
    /// A file cannot be used.
    #[error("`{path}` cannot be used: {}", convoke_model::system_error(.source))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store did not do what it was asked.
    #[error("the store at `{path}` {what}")]
    Store {
        /// The store.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
        /// What the store said.
        #[source]
        source: Option<Arc<rusqlite::Error>>,
    },
}

/// A store that is only read, of one instant as long as its transaction lasts.
struct Looking {
    connection: Connection,
    path: PathBuf,
}

impl Looking {
    /// Opens the store in a data directory.
    fn at(directory: &Path) -> Result<Self, MaintenanceError> {
        Self::file(&directory.join(FILE))
    }

    /// Opens a store's file.
    fn file(path: &Path) -> Result<Self, MaintenanceError> {
        if !path.is_file() {
            return Err(MaintenanceError::NoStore { path: path.into() });
        }
        let connection = reader::open(path).map_err(|error| failed(path, error))?;
        match kind(&connection).map_err(|error| failed(path, error))? {
            Kind::Ours { format } if format > FORMAT => {
                let (path, found, known) = (path.into(), format, FORMAT);
                Err(OpenError::Newer { path, found, known }.into())
            }
            Kind::Ours { .. } => Ok(Self { connection, path: path.into() }),
            Kind::Empty | Kind::Foreign => Err(OpenError::NotOurs { path: path.into() }.into()),
        }
    }

    fn failed(&self, error: impl Into<StoreError>) -> MaintenanceError {
        failed(&self.path, error)
    }
}

/// What is told of an error of the store at `path`.
fn failed(path: &Path, error: impl Into<StoreError>) -> MaintenanceError {
    let error = error.into();
    let (path, what) = (path.to_owned(), error.what());
    match error {
        StoreError::Damaged(what) => MaintenanceError::Damaged { path, what },
        StoreError::Sqlite(source) => MaintenanceError::Store { path, what, source: Some(source) },
        _ => MaintenanceError::Store { path, what, source: None },
    }
}

fn unusable(path: &Path) -> impl FnOnce(io::Error) -> MaintenanceError {
    move |source| MaintenanceError::Io { path: path.to_owned(), source }
}

/// A file's length in bytes; nothing is zero.
fn bytes(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// The file that SQLite has beside another, such as `-wal`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
