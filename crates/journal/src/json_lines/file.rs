//! The file behind the sink.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::AuditOpenError;
use super::writer::Target;

/// A file that is only ever appended to.
pub(super) struct AppendFile {
    file: File,
    path: PathBuf,
    sync: bool,
}

impl AppendFile {
    pub(super) fn open(path: &Path, sync: bool) -> Result<Self, AuditOpenError> {
        if let Some(directory) = directory_of(path) {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)
                .map_err(|source| AuditOpenError::Directory { path: directory.into(), source })?;
        }
        let file = open_at_line_start(path, sync)
            .map_err(|source| AuditOpenError::File { path: path.into(), source })?;
        Ok(Self { file, path: path.into(), sync })
    }
}

impl Target for AppendFile {
    /// A file that somebody moved or deleted is followed by a new one: records that go where nobody
    /// looks are lost without a sign.
    fn begin(&mut self) -> io::Result<()> {
        let open = self.file.metadata()?;
        let is_there = match std::fs::metadata(&self.path) {
            Ok(named) => (named.dev(), named.ino()) == (open.dev(), open.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if !is_there {
            tracing::warn!(path = %self.path.display(), "the audit file was moved; a new one begins");
            self.reopen()?;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.file = open_at_line_start(&self.path, self.sync)?;
        Ok(())
    }
}

fn open_at_line_start(path: &Path, sync: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    // Opening a pipe that nobody reads would otherwise wait for a reader, without a word.
    let mut file = options.custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    // A terminal or a pipe has no end to look at, and none to lose.
    if !metadata.is_file() {
        return if sync {
            let why = "is no regular file, so nothing in it can be synced; turn `audit.sync` off";
            Err(io::Error::new(io::ErrorKind::InvalidInput, why))
        } else {
            Ok(file)
        };
    }
    if metadata.len() > 0 && !ends_with_newline(path)? {
        tracing::warn!(path = %path.display(), "the last audit line is torn; it is ended here");
        file.write_all(b"\n")?;
    }
    if sync && let Some(directory) = directory_of(path) {
        // The name of a new file is as durable as its content only when its directory is synced.
        file.sync_all()?;
        File::open(directory)?.sync_all()?;
    }
    Ok(file)
}

fn ends_with_newline(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

fn directory_of(path: &Path) -> Option<&Path> {
    path.parent().filter(|directory| !directory.as_os_str().is_empty())
}
