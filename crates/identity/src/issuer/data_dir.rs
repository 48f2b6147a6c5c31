//! The directory in which an issuer keeps what must survive it, and what nobody else may read.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::error::IssuerError;
use crate::regular_file;

/// Locked for as long as an issuer uses the directory.
const LOCK: &str = "lock";

/// Mode of the directory.
const DIR_MODE: u32 = 0o700;

/// Mode of the files in it.
const FILE_MODE: u32 = 0o600;

/// A directory of our own that is locked for as long as this value lives.
#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    own_uid: u32,
    /// Only held: the lock goes with it.
    _lock: File,
}

impl DataDir {
    /// Makes or checks the directory, and locks it.
    pub(super) fn open(path: PathBuf, own_uid: u32) -> Result<Self, IssuerError> {
        let failed = |action| {
            let path = path.clone();
            move |source| IssuerError::File { action, path, source }
        };
        // Only the directory itself is for nobody else: workloads of other users may have to pass
        // those above it, where the socket can be too.
        if let Some(above) = path.parent() {
            fs::create_dir_all(above).map_err(failed("make the directories above"))?;
        }
        match DirBuilder::new().mode(DIR_MODE).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(failed("make directory"))?,
        }
        let found = fs::metadata(&path).map_err(failed("look at"))?;
        check_secret(&path, &found, own_uid, DIR_MODE)?;
        let lock_path = path.join(LOCK);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(FILE_MODE);
        let lock = regular_file::open_with(&lock_path, &mut options)
            .map_err(|source| file_error("open", &lock_path, source))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, own_uid, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(IssuerError::DataDirInUse { path }),
            Err(TryLockError::Error(source)) => Err(file_error("lock", &lock_path, source)),
        }
    }

    /// Where the file of this name is.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether something of this name is there, of whatever kind.
    pub(super) fn has(&self, name: &str) -> Result<bool, IssuerError> {
        let path = self.file(name);
        match fs::symlink_metadata(&path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(file_error("look at", &path, source)),
        }
    }

    /// The content of a file of ours, at most `bytes_max` long; `None` if there is no such file.
    pub(super) fn read(
        &self,
        name: &str,
        bytes_max: usize,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, IssuerError> {
        let path = self.file(name);
        let failed = |source| file_error("read", &path, source);
        // The path itself, so that a link to a file of somebody else's is not followed.
        let found = match fs::symlink_metadata(&path) {
            Ok(found) if found.is_file() => found,
            Ok(_) => return Err(IssuerError::WrongKind { path, wanted: "regular file" }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed(source)),
        };
        check_secret(&path, &found, self.own_uid, FILE_MODE)?;
        let too_large = || IssuerError::TooLarge { path: path.clone(), max: bytes_max };
        let length = usize::try_from(found.len()).ok().filter(|length| *length <= bytes_max);
        let length = length.ok_or_else(too_large)?;
        // Room for all of it at once: a buffer that grows leaves copies of the key behind.
        let mut content = Zeroizing::new(Vec::with_capacity(length + 1));
        let file = regular_file::open(&path).map_err(failed)?;
        file.take(length as u64 + 1).read_to_end(&mut content).map_err(failed)?;
        Ok(Some(content))
    }

    /// Replaces the file as a whole: at no time, not even after a loss of power, is there half of
    /// it, and when this returns the new one is on the disk.
    pub(super) fn replace(&self, name: &str, content: &[u8]) -> Result<(), IssuerError> {
        let (path, new) = (self.file(name), self.file(&format!("{name}.new")));
        let failed = |source| file_error("write", &path, source);
        // The directory is ours and locked, so what lies there is what is left of a crash.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let created = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&new);
        let mut file = created.map_err(failed)?;
        file.write_all(content).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        fs::rename(&new, &path).map_err(failed)?;
        File::open(&self.path).and_then(|dir| dir.sync_all()).map_err(failed)
    }
}

/// Refuses what belongs to another user, or has a bit that `wanted` has not.
fn check_secret(
    path: &Path,
    found: &fs::Metadata,
    own: u32,
    wanted: u32,
) -> Result<(), IssuerError> {
    if found.uid() != own {
        return Err(IssuerError::ForeignOwner { path: path.to_owned(), found: found.uid(), own });
    }
    let mode = found.mode() & 0o7777;
    if mode & 0o777 & !wanted != 0 {
        return Err(IssuerError::WideMode { path: path.to_owned(), found: mode, wanted });
    }
    Ok(())
}

fn file_error(action: &'static str, path: &Path, source: io::Error) -> IssuerError {
    IssuerError::File { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::super::error::chain;
    use super::*;
    use crate::process::own_uid;

    #[test]
    fn only_the_directory_itself_is_closed_to_others() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let mode =
            |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
        // What a directory gets here that nobody says a mode for.
        fs::create_dir(dir.path().join("plain")).unwrap();
        let own_uid = fs::metadata(dir.path()).unwrap().uid();
        for _ in 0..2 {
            let data = dir.path().join("new/above/data");
            DataDir::open(data, own_uid).unwrap();
            assert_eq!(mode("new/above/data"), DIR_MODE);
            assert_eq!((mode("new"), mode("new/above")), (mode("plain"), mode("plain")));
        }
    }

    #[test]
    fn files_are_replaced_as_a_whole_and_read_within_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let own = runtime.block_on(async { own_uid() }).unwrap();
        let data = DataDir::open(dir.path().join("a/b"), own).unwrap();
        assert!(data.read("x", 10).unwrap().is_none());
        // Left behind by a crash in the middle of writing.
        fs::write(data.file("x.new"), "half").unwrap();
        data.replace("x", b"one").unwrap();
        data.replace("x", b"0123456789").unwrap();
        assert_eq!(data.read("x", 10).unwrap().unwrap().as_slice(), b"0123456789");
        assert!(matches!(data.read("x", 9), Err(IssuerError::TooLarge { max: 9, .. })));
        let mode = |name| fs::metadata(data.file(name)).unwrap().mode() & 0o777;
        assert_eq!((mode("x"), mode(LOCK)), (0o600, 0o600));
        assert!(!data.file("x.new").exists());

        fs::set_permissions(data.file("x"), Permissions::from_mode(0o640)).unwrap();
        let error = data.read("x", 10).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
        symlink(data.file("x"), data.file("y")).unwrap();
        assert!(matches!(data.read("y", 10), Err(IssuerError::WrongKind { .. })));
        drop(data);
        let lock = dir.path().join("a/b").join(LOCK);
        fs::remove_file(&lock).unwrap();
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &lock, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let error = chain(&DataDir::open(dir.path().join("a/b"), own).unwrap_err());
        assert!(error.contains("lock`: it is a pipe and not a regular file"), "{error}");
        let other = DataDir::open(dir.path().join("a/b"), own + 1);
        assert!(matches!(other, Err(IssuerError::ForeignOwner { .. })));
    }
}
