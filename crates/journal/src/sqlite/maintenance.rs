//! Looking after a store without a node: checking, copying, and asking it things.
//!
//! What only reads works beside a running node. What writes takes the directory for itself, and is
//! refused while a node has it. Everything here blocks.

mod backup;
mod check;
mod looking;
mod query;
mod restore;
mod stats;
#[cfg(test)]
mod tests;
mod vacuum;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{OpenError, StoreError};
#[cfg(test)]
use super::open::FILE;
use looking::Looking;

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
    /// A directory that is there has no store.
    #[error("there is no journal in `{path}`")]
    NoStore {
        /// The directory.
        path: PathBuf,
    },
    /// There is no such directory.
    #[error("there is no directory `{path}`")]
    NoDirectory {
        /// The first that is not there.
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
    #[error("`{path}` cannot be used")]
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

/// What is told of a file or directory that cannot be used: it, or what is in the way to it.
fn unusable(path: &Path) -> impl FnOnce(io::Error) -> MaintenanceError {
    move |source| MaintenanceError::Io { path: obstacle(path, &source).to_owned(), source }
}

/// The file or directory because of which `path` cannot be used: the first above it that is not
/// there, or that does not let this user do what it takes.
fn obstacle<'p>(path: &'p Path, error: &io::Error) -> &'p Path {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    let mut names: Vec<&Path> = path.ancestors().collect();
    names.retain(|name| !name.as_os_str().is_empty());
    let refused = names.into_iter().rev().find_map(|name| Some((name, name.metadata().err()?)));
    let Some((name, why)) = refused else { return path };
    let is_closed =
        |error: &io::Error| matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem);
    if !is_closed(error) && !is_closed(&why) {
        return name;
    }
    // What may not be entered, or written to, is the directory that it is in.
    match name.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
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
