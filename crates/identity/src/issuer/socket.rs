//! The issuer's unix sockets: made with care, removed at the end.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};

use super::error::IssuerError;

/// Longest path of a socket, in bytes. Source: unix(7), `sun_path` with its closing zero byte.
const PATH_BYTES_MAX: usize = 107;

/// How long to wait after a failed accept, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listening socket; its file goes with it.
#[derive(Debug)]
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file that we made, so that nobody else's is removed.
    file: (u64, u64),
}

pub(super) fn check_length(path: &Path) -> Result<(), IssuerError> {
    if path.as_os_str().as_bytes().len() > PATH_BYTES_MAX {
        let (path, max) = (path.to_owned(), PATH_BYTES_MAX);
        return Err(IssuerError::SocketPathTooLong { path, max });
    }
    Ok(())
}

impl Socket {
    /// Listens at `path`, in a directory that is made if it is missing, with a file of `mode`.
    pub(super) async fn bind(path: PathBuf, mode: u32, own: u32) -> Result<Self, IssuerError> {
        check_length(&path)?;
        let failed = |action, source| IssuerError::File { action, path: path.clone(), source };
        if let Some(dir) = path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o755).create(dir);
            made.map_err(|source| failed("make the directory of", source))?;
        }
        make_room(&path, own).await?;
        let listener = UnixListener::bind(&path).map_err(|source| failed("listen at", source))?;
        let found = fs::symlink_metadata(&path).map_err(|source| failed("look at", source))?;
        let file = (found.dev(), found.ino());
        let socket = Self { listener, path: path.clone(), file };
        fs::set_permissions(&path, Permissions::from_mode(mode))
            .map_err(|source| failed("set the mode of", source))?;
        Ok(socket)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The next connection and who is at its other end.
    pub(super) async fn accept(&self) -> (UnixStream, UCred) {
        loop {
            let accepted = self.listener.accept().await;
            match accepted.and_then(|(stream, _)| stream.peer_cred().map(|peer| (stream, peer))) {
                Ok(connection) => return connection,
                Err(error) => {
                    tracing::warn!(socket = %self.path.display(), %error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.file);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(socket = %self.path.display(), %error, "socket file not removed");
        }
    }
}

/// Removes a socket file of ours at which nobody answers; refuses everything else that is there.
async fn make_room(path: &Path, own: u32) -> Result<(), IssuerError> {
    let failed = |action, source| IssuerError::File { action, path: path.to_owned(), source };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(failed("look at", source)),
    };
    if !found.file_type().is_socket() {
        return Err(IssuerError::WrongKind { path: path.to_owned(), wanted: "socket" });
    }
    if found.uid() != own {
        return Err(IssuerError::ForeignOwner { path: path.to_owned(), found: found.uid(), own });
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(IssuerError::SocketInUse { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|source| failed("remove stale", source))
        }
        Err(source) => Err(failed("connect to", source)),
    }
}

/// Counts what each user has of something, so that one cannot take all of it.
#[derive(Debug)]
pub(super) struct Gate {
    per_user_max: usize,
    users: Mutex<HashMap<u32, usize>>,
}

/// The right to one; it is given back when dropped.
#[derive(Debug)]
pub(super) struct Pass {
    gate: Arc<Gate>,
    uid: u32,
}

impl Gate {
    pub(super) fn new(per_user_max: usize) -> Arc<Self> {
        Arc::new(Self { per_user_max, users: Mutex::default() })
    }

    pub(super) fn pass(gate: &Arc<Self>, uid: u32) -> Option<Pass> {
        let mut users = gate.users.lock().unwrap_or_else(PoisonError::into_inner);
        let count = users.entry(uid).or_default();
        if *count >= gate.per_user_max {
            return None;
        }
        *count += 1;
        Some(Pass { gate: Arc::clone(gate), uid })
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut users = self.gate.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = users.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                users.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_cannot_take_every_connection() {
        let gate = Gate::new(256);
        let passes: Vec<_> = std::iter::from_fn(|| Gate::pass(&gate, 1)).take(10_000).collect();
        assert_eq!(passes.len(), 256);
        assert!(Gate::pass(&gate, 2).is_some());
        drop(passes);
        assert!(Gate::pass(&gate, 1).is_some());
        assert!(gate.users.lock().unwrap().is_empty());
    }
}
