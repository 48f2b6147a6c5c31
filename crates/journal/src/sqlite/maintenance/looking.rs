//! A store that is only read: where it is, and whether it is one.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode};

use super::{MaintenanceError, failed, obstacle, unusable};
use crate::sqlite::error::{OpenError, StoreError};
use crate::sqlite::mark::{Found, MarkFile};
use crate::sqlite::migrate::{FORMAT, Kind, kind};
use crate::sqlite::open::{FILE, GONE_EMPTY, GONE_FOREIGN};
use crate::sqlite::reader;

/// A store that is only read, of one instant as long as its transaction lasts.
pub(super) struct Looking {
    pub(super) connection: Connection,
    /// The store's file.
    pub(super) path: PathBuf,
    /// The data directory that the store is in; a backup is a file by itself.
    pub(super) directory: Option<PathBuf>,
}

impl Looking {
    /// Opens the store in a data directory, or the one that a file is, such as a backup.
    pub(super) fn at(path: &Path) -> Result<Self, MaintenanceError> {
        if !path.is_file() {
            return Self::of_directory(path);
        }
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        // Whoever names the file of a data directory means all of it.
        let is_inside = path.file_name().is_some_and(|name| name == FILE) && has_mark(directory);
        if is_inside { Self::of_directory(directory) } else { Self::file(path) }
    }

    /// Opens the store in a data directory.
    pub(super) fn of_directory(directory: &Path) -> Result<Self, MaintenanceError> {
        match directory.metadata() {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => {
                let what = "it is a file; name the journal's directory";
                return Err(unusable(directory)(std::io::Error::other(what)));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let path = obstacle(directory, &error).to_owned();
                return Err(MaintenanceError::NoDirectory { path });
            }
            Err(error) => return Err(unusable(directory)(error)),
        }
        let file = directory.join(FILE);
        // What has a mark was a store once.
        let damaged = |what: &str| match has_mark(directory) {
            true => MaintenanceError::Damaged { path: file.clone(), what: what.to_owned() },
            false => MaintenanceError::NoStore { path: directory.into() },
        };
        if file.metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            return Err(damaged("it was there, and is gone"));
        }
        let (looking, kind) = Self::open(&file)?;
        match kind {
            Kind::Empty => Err(damaged(GONE_EMPTY)),
            Kind::Foreign if has_mark(directory) => Err(damaged(GONE_FOREIGN)),
            kind => Ok(Self { directory: Some(directory.into()), ..looking.judged(kind)? }),
        }
    }

    /// Opens the store that a file is.
    pub(super) fn file(path: &Path) -> Result<Self, MaintenanceError> {
        let (looking, kind) = Self::open(path)?;
        looking.judged(kind)
    }

    fn open(path: &Path) -> Result<(Self, Kind), MaintenanceError> {
        // SQLite has one number for all that can be wrong with a file.
        match path.metadata() {
            Ok(metadata) if metadata.is_file() => {}
            Ok(metadata) if metadata.is_dir() => {
                return Err(unusable(path)(ErrorKind::IsADirectory.into()));
            }
            Ok(_) => return Err(unusable(path)(std::io::Error::other("it is no file"))),
            Err(error) => return Err(unusable(path)(error)),
        }
        let unopened = |error: StoreError| match &error {
            // To open it in another way lets go of locks on it in this process: only when there
            // are none, and the reason is still to be found.
            StoreError::Sqlite(source)
                if source.sqlite_error_code() == Some(ErrorCode::CannotOpen) =>
            {
                match File::open(path) {
                    Err(source) => unusable(path)(source),
                    Ok(_) => failed(path, error),
                }
            }
            _ => failed(path, error),
        };
        let connection = reader::open(path).map_err(unopened)?;
        let kind = kind(&connection).map_err(unopened)?;
        Ok((Self { connection, path: path.into(), directory: None }, kind))
    }

    fn judged(self, kind: Kind) -> Result<Self, MaintenanceError> {
        match kind {
            Kind::Ours { format } if format > FORMAT => {
                Err(OpenError::Newer { path: self.path, found: format, known: FORMAT }.into())
            }
            Kind::Ours { .. } => Ok(self),
            Kind::Empty => {
                let what = "it is empty".to_owned();
                Err(MaintenanceError::Damaged { path: self.path, what })
            }
            Kind::Foreign => Err(OpenError::NotOurs { path: self.path }.into()),
        }
    }

    pub(super) fn failed(&self, error: impl Into<StoreError>) -> MaintenanceError {
        failed(&self.path, error)
    }
}

fn has_mark(directory: &Path) -> bool {
    MarkFile::peek(directory) != Found::Missing
}
