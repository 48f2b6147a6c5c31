//! The file behind the sink.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::writer::Target;
use super::{AuditOpenError, LinesOptions, Rotation};

/// A file that is only ever appended to, by one process at a time; it is put aside when it is large
/// enough, and followed by a new one when somebody moved it.
pub struct AppendFile {
    file: File,
    path: PathBuf,
    options: LinesOptions,
    /// Its size, in bytes.
    size: u64,
    /// The size at which it is put aside next; a rotation that failed is tried again later.
    rotate_at: Option<u64>,
    /// The last line may have no end, because [`AppendFile::append`] broke off.
    is_torn: bool,
    /// Held as long as the file is ours; the kernel lets go of it however the process ends. `None`
    /// for what is no file.
    _lock: Option<File>,
}

impl AppendFile {
    /// Opens `path`, readable by its owner alone if it is new, as are the directories above it that
    /// have to be made. A torn last line is ended.
    ///
    /// # Errors
    ///
    /// [`AuditOpenError`] names what cannot be opened or made; [`AuditOpenError::Locked`] if another
    /// process writes the file.
    pub fn open(path: &Path, options: LinesOptions) -> Result<Self, AuditOpenError> {
        if let Some(directory) = directory_of(path) {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)
                .map_err(|source| AuditOpenError::Directory { path: directory.into(), source })?;
        }
        // Before the file is looked at: an end that seems torn may be a line that is being written.
        let lock = lock(path)?;
        let unusable = |source| AuditOpenError::File { path: path.into(), source };
        let (file, size) = open_at_line_start(path, options).map_err(unusable)?;
        let rotate_at = options.rotation.filter(|_| lock.is_some()).map(|rotation| rotation.bytes);
        let path = path.into();
        Ok(Self { file, path, options, size, rotate_at, is_torn: false, _lock: lock })
    }

    /// Appends `lines`, each of which has its end, to one file: a rotation comes before them or
    /// after.
    ///
    /// # Errors
    ///
    /// Why they were not written, or not all of them; then the next ones begin a line of their own.
    pub fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.is_torn {
            Target::reopen(self)?;
        }
        self.is_torn = true;
        self.begin()?;
        self.file.write_all(lines)?;
        self.size += lines.len() as u64;
        self.is_torn = false;
        Ok(())
    }

    /// Puts the file aside under the next number and begins another.
    fn rotate(&mut self, rotation: Rotation) -> io::Result<()> {
        put_aside(&self.path, rotation.keep)?;
        self.reopen()?;
        self.rotate_at = Some(rotation.bytes);
        Ok(())
    }
}

impl Target for AppendFile {
    /// A file that somebody moved or deleted is followed by a new one: records that go where nobody
    /// looks are lost without a sign. A file that is large enough is put aside.
    fn begin(&mut self) -> io::Result<()> {
        let open = self.file.metadata()?;
        let is_there = match std::fs::metadata(&self.path) {
            Ok(named) => (named.dev(), named.ino()) == (open.dev(), open.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        let path = self.path.display();
        if !is_there {
            tracing::warn!(%path, "the {} was moved; a new one begins", self.options.what);
            return self.reopen();
        }
        if let Some(rotation) = self.options.rotation
            && self.rotate_at.is_some_and(|at| self.size >= at)
        {
            // A file that cannot be put aside is better than records that are not written.
            if let Err(error) = self.rotate(rotation) {
                let path = self.path.display();
                tracing::error!(%path, %error, "the {} cannot be rotated", self.options.what);
                self.rotate_at = Some(self.size.saturating_add(rotation.bytes));
            }
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.size += written as u64;
        Ok(written)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn reopen(&mut self) -> io::Result<()> {
        (self.file, self.size) = open_at_line_start(&self.path, self.options)?;
        Ok(())
    }
}

/// Renames `name` to `name.1` after having moved each older file up by one.
///
/// From the highest number down, so that each step leaves every file under some name: whoever is
/// killed in between leaves a gap in the numbers, which the next rotation fills. Only the last of
/// `keep` files is ever replaced.
fn put_aside(path: &Path, keep: u32) -> io::Result<()> {
    if keep == 0 {
        return std::fs::remove_file(path);
    }
    let mut free = 1;
    while free < keep && numbered(path, free).try_exists()? {
        free += 1;
    }
    for number in (1..free).rev() {
        std::fs::rename(numbered(path, number), numbered(path, number + 1))?;
    }
    std::fs::rename(path, numbered(path, 1))
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    with_suffix(path, &format!(".{number}"))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Keeps other processes from writing to `path`; `None` if that is there and no file, such as a
/// terminal, which anybody may share.
///
/// The lock is on a file of its own, which stays when the other is rotated. Where there is none and
/// none can be made, which also rules out rotation, it is on the file itself.
fn lock(path: &Path) -> Result<Option<File>, AuditOpenError> {
    let mut options = OpenOptions::new();
    // A pipe in its place that nobody reads would otherwise be waited for.
    options.append(true).create(true).mode(0o600).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    lock_with(path, |path| options.open(path))
}

/// As [`lock`], with what opens a file or makes it, since what it may do is the user's.
fn lock_with(
    path: &Path,
    open: impl Fn(&Path) -> io::Result<File>,
) -> Result<Option<File>, AuditOpenError> {
    let unusable = |source| AuditOpenError::File { path: path.into(), source };
    match std::fs::metadata(path) {
        Ok(there) if !there.is_file() => return Ok(None),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(unusable(error)),
    }
    let held = |file: File| match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(AuditOpenError::Locked { path: path.into() }),
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    };
    // Two users may differ in whether they can make a file here. Each takes its own kind of lock
    // before it looks for the other kind, so that of two at the same time at least one gives way.
    let beside = with_suffix(path, ".lock");
    match open(&beside) {
        Ok(file) => {
            let lock = held(file)?;
            let probe = held(open(path).map_err(unusable)?)?;
            // Said, not left to its end: a process that is being forked may have it open too.
            probe.unlock().map_err(unusable)?;
            Ok(Some(lock))
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let lock = held(open(path).map_err(unusable)?)?;
            match std::fs::symlink_metadata(&beside) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(lock)),
                Err(error) => Err(unusable(error)),
                Ok(_) => Err(unusable(io::Error::new(
                    error.kind(),
                    format!(
                        "its lock `{}` cannot be opened by this user; run as its owner, or remove \
                         it if no process writes the file",
                        beside.display()
                    ),
                ))),
            }
        }
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Err(unusable(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("its lock `{}` is a pipe or a socket, no file; remove it", beside.display()),
        ))),
        Err(error) => Err(unusable(error)),
    }
}

/// The file, at the beginning of a line, and its size in bytes.
fn open_at_line_start(path: &Path, options: LinesOptions) -> io::Result<(File, u64)> {
    let LinesOptions { what, sync, .. } = options;
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
            Ok((file, 0))
        };
    }
    let mut size = metadata.len();
    if size > 0 && !ends_with_newline(path)? {
        tracing::warn!(path = %path.display(), "the last line of the {what} is torn; it is ended here");
        file.write_all(b"\n")?;
        size += 1;
    }
    if sync && let Some(directory) = directory_of(path) {
        // The name of a new file is as durable as its content only when its directory is synced.
        file.sync_all()?;
        File::open(directory)?.sync_all()?;
    }
    Ok((file, size))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens like a user who can make no file beside `path` and open none that another user made.
    fn lock_as_another_user(path: &Path) -> Result<Option<File>, AuditOpenError> {
        lock_with(path, |opened| match opened == path {
            true => OpenOptions::new().append(true).open(path),
            false => Err(io::ErrorKind::PermissionDenied.into()),
        })
    }

    fn written() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        std::fs::write(&path, "{}\n").unwrap();
        (directory, path)
    }

    #[test]
    fn a_lock_that_cannot_be_opened_is_not_passed_by() {
        let check = |path: &Path| {
            let error = lock_as_another_user(path).unwrap_err();
            let AuditOpenError::File { path: named, source } = &error else { panic!("{error}") };
            assert_eq!((named.as_path(), source.kind()), (path, io::ErrorKind::PermissionDenied));
            assert!(source.to_string().contains("audit.jsonl.lock` cannot be opened"), "{source}");
        };
        let (_directory, path) = written();
        let held = lock(&path).unwrap();
        check(&path);
        drop(held);
        // Who cannot open it does not know that it is only left behind.
        let (_directory, path) = written();
        std::fs::write(with_suffix(&path, ".lock"), "").unwrap();
        check(&path);
    }

    #[test]
    fn a_pipe_in_place_of_the_lock_is_not_waited_for() {
        let (_directory, path) = written();
        let pipe = with_suffix(&path, ".lock");
        assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
        let error = lock(&path).unwrap_err();
        let AuditOpenError::File { source, .. } = &error else { panic!("{error}") };
        let expected = "audit.jsonl.lock` is a pipe or a socket, no file; remove it";
        assert!(source.to_string().contains(expected), "{source}");
    }

    #[test]
    fn a_file_beside_which_no_lock_can_be_made_has_one_writer_too() {
        let (_directory, path) = written();
        let held = lock_as_another_user(&path).unwrap();
        assert!(held.is_some());
        for second in [lock_as_another_user(&path), lock(&path)] {
            assert!(matches!(second, Err(AuditOpenError::Locked { .. })), "{second:?}");
        }
    }
}
