//! What the kernel says of a process that asks for its identity.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use tokio::net::unix::UCred;

use super::selector::Selector;
use crate::process::Process;

/// Longest path of a program that is looked at, in bytes. Source: Linux' PATH_MAX.
const PATH_BYTES_MAX: usize = 4096;

/// The process at the other end of a connection, as it was when the connection came.
///
/// Its program is remembered because a process may become another program: what it was allowed as
/// the first one, it is not as the second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Workload {
    pub(super) process: Process,
    gid: u32,
    program: Option<Program>,
}

/// The file that a process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Program {
    /// As the kernel names it.
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Workload {
    /// The process at the other end, or `None` if it cannot be named.
    pub(super) fn of_peer(peer: &UCred) -> Option<Self> {
        let process = Process::of_peer(peer)?;
        let program = Program::of(&process);
        // Had the process ended and its number been given away, the program would be another's.
        process.is_alive().then_some(Self { process, gid: peer.gid(), program })
    }

    /// Whether the process still runs, and still runs the same program.
    pub(super) fn is_same(&self) -> bool {
        // The program is looked at before the number: what was seen was then of this process.
        Program::of(&self.process) == self.program && self.process.is_alive()
    }

    /// Whether a selector holds for it.
    pub(super) fn has(&self, selector: &Selector) -> bool {
        match selector {
            Selector::Uid(uid) => self.process.uid == *uid,
            Selector::Gid(gid) => self.gid == *gid,
            Selector::Path(path) => self
                .program
                .as_ref()
                .is_some_and(|program| program.path == *path && program.is_there()),
        }
    }
}

impl Program {
    /// The program of a process; `None` if the kernel does not tell us, as it does not of other
    /// users' processes unless we are root.
    fn of(process: &Process) -> Option<Self> {
        let link = format!("/proc/{}/exe", process.pid());
        let path = std::fs::read_link(&link).ok()?;
        // Follows to the very file, whatever is at its path.
        let file = std::fs::metadata(&link).ok()?;
        (path.as_os_str().len() <= PATH_BYTES_MAX).then(|| Self {
            path,
            device: file.dev(),
            inode: file.ino(),
        })
    }

    /// Whether its path leads to it. A process may have a view of the file system of its own, in
    /// which any path is what it wants it to be; we believe in ours.
    fn is_there(&self) -> bool {
        std::fs::metadata(&self.path)
            .is_ok_and(|file| (file.dev(), file.ino()) == (self.device, self.inode))
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn the_kernel_s_word_is_what_selectors_are_held_against() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = ours.peer_cred().unwrap();
        let workload = Workload::of_peer(&peer).unwrap();
        let here = std::env::current_exe().unwrap();
        for (selector, expected) in [
            (Selector::Uid(peer.uid()), true),
            (Selector::Uid(peer.uid() + 1), false),
            (Selector::Gid(peer.gid()), true),
            (Selector::Gid(peer.gid() + 1), false),
            (Selector::Path(here), true),
            (Selector::Path("/bin/sh".into()), false),
        ] {
            assert_eq!(workload.has(&selector), expected, "{selector}");
        }
        assert!(workload.is_same());
    }

    #[tokio::test]
    async fn a_path_is_that_of_the_very_file() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut workload = Workload::of_peer(&ours.peer_cred().unwrap()).unwrap();
        let selector = Selector::Path(std::env::current_exe().unwrap());
        assert!(workload.has(&selector));
        // Of the same name in another view of the file system.
        workload.program.as_mut().unwrap().inode += 1;
        assert!(!workload.has(&selector));
        // It has become another program since.
        assert!(!workload.is_same());
        workload.program = None;
        assert!(!workload.has(&selector) && !workload.is_same());
    }
}
