//! Processes of this machine as the kernel names them.

use std::io;

use tokio::net::UnixStream;
use tokio::net::unix::UCred;

/// One process, told apart from a later one that was given the same number.
///
/// The kernel fills in the credentials of a unix socket when the peer connects, so a process
/// cannot lie about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    /// The effective user that it connected as.
    pub(crate) uid: u32,
    /// Its number in our PID namespace.
    pid: i32,
    /// When it started, in clock ticks since boot.
    started: u64,
}

impl Process {
    /// The process at the other end of a connection, or `None` if it cannot be named: it has
    /// ended, or it lives in a PID namespace that is not below ours.
    pub(crate) fn of_peer(peer: &UCred) -> Option<Self> {
        let pid = peer.pid().filter(|pid| *pid > 0)?;
        Some(Self { uid: peer.uid(), pid, started: started(pid)? })
    }

    /// Its number in our PID namespace, for people and for `/proc`.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// A process as the kernel would name it, for tests of who may do what.
    #[cfg(test)]
    pub(crate) fn invented(uid: u32, pid: i32, started: u64) -> Self {
        Self { uid, pid, started }
    }

    /// Whether the process still runs.
    pub(crate) fn is_alive(&self) -> bool {
        started(self.pid) == Some(self.started)
    }
}

/// The user that this process runs as.
///
/// The kernel is asked through a socket pair, which is the way without `unsafe` and without one
/// more dependency.
///
/// # Errors
///
/// When no socket pair can be made.
pub(crate) fn own_uid() -> io::Result<u32> {
    let (ours, _theirs) = UnixStream::pair()?;
    Ok(ours.peer_cred()?.uid())
}

/// When process `pid` started, in clock ticks since boot; `None` if there is no such process.
///
/// Source: proc_pid_stat(5), field 22. The second field is the command's name in parentheses and
/// may itself hold spaces and parentheses, so fields are counted from the last one.
fn started(pid: i32) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    // Field 3 is the first one after the name.
    rest.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_is_named_while_it_lives() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let process = Process::of_peer(&ours.peer_cred().unwrap()).unwrap();
        assert_eq!(process.pid, i32::try_from(std::process::id()).unwrap());
        assert_eq!(process.uid, own_uid().unwrap());
        assert!(process.is_alive());
        assert!(!Process { started: process.started + 1, ..process }.is_alive());
    }

    #[test]
    fn a_process_that_ended_has_no_start() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        // Until it is waited for, even an ended process keeps its entry.
        assert!(started(pid).is_some());
        child.wait().unwrap();
        assert_eq!(started(pid), None);
    }
}
