//! One process at a time works on a data directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::error::OpenError;

/// Held as long as the directory is ours; the kernel lets go of it however the process ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the directory, whose lock is a file of its own: SQLite closes its files when it likes.
    ///
    /// # Errors
    ///
    /// [`OpenError::InUse`] names the process that has it.
    pub(super) fn take(directory: &Path) -> Result<Self, OpenError> {
        let path = directory.join("journal.lock");
        let unusable = |source| OpenError::Io { path: path.clone(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        // A pipe in its place that nobody reads would otherwise be waited for.
        options.custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW);
        let mut file = options.open(&path).map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::InUse { path: directory.into(), pid: holder(&file) });
            }
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        // What stands there helps the next one who comes; a full disk is no reason not to begin.
        if let Err(error) = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()))
        {
            tracing::warn!(path = %path.display(), %error, "the lock cannot say whose it is");
        }
        Ok(Self { _file: file })
    }
}

/// The process that has written its number there.
fn holder(mut file: &File) -> Option<u32> {
    let mut text = [0; 16];
    let read = file.read(&mut text).ok()?;
    std::str::from_utf8(&text[..read]).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_told_who_was_first() {
        let directory = tempfile::tempdir().unwrap();
        let first = Lock::take(directory.path()).unwrap();
        let error = Lock::take(directory.path()).unwrap_err();
        let pid = std::process::id();
        assert!(matches!(error, OpenError::InUse { pid: Some(named), .. } if named == pid));
        assert!(error.to_string().contains(&format!("in use by process {pid};")), "{error}");
        drop(first);
        Lock::take(directory.path()).unwrap();
    }
}
