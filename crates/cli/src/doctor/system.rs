//! What the kernel says of ports, locks and processes, read from `/proc`: nothing is bound or
//! locked to find out.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A process, as people name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    name: String,
}

/// A socket that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listening {
    address: IpAddr,
    port: u16,
    uid: u32,
    inode: u64,
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` (pid {})", self.name, self.pid)
    }
}

/// The socket that keeps others from listening at `address` and `port`.
pub(super) fn listener(address: IpAddr, port: u16) -> Option<Listening> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let text: String = tables.iter().filter_map(|table| fs::read_to_string(table).ok()).collect();
    text.lines().filter_map(listening).find(|socket| socket.takes(address, port))
}

impl Listening {
    fn takes(&self, address: IpAddr, port: u16) -> bool {
        let any = |ip: IpAddr| ip.is_unspecified();
        self.port == port && (self.address == address || any(self.address) || any(address))
    }

    /// Who listens, in words: the process where we may see it, else its user.
    pub(super) fn who(&self) -> String {
        match self.process() {
            Some(process) => process.to_string(),
            None => format!("a process of uid {}", self.uid),
        }
    }

    /// The process that has the socket, if we may look at it.
    pub(super) fn process(&self) -> Option<Process> {
        let wanted = format!("socket:[{}]", self.inode);
        fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let mut files = fs::read_dir(entry.path().join("fd")).ok()?.flatten();
            let has = |file: fs::DirEntry| {
                fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str())
            };
            files.any(has).then(|| Process { pid, name: name_of(pid) })
        })
    }
}

/// The process that holds a lock on the file at `path`.
pub(super) fn lock_holder(path: &Path) -> Option<Process> {
    let inode = fs::metadata(path).ok()?.ino();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let pid = locks.lines().find_map(|line| lock(line).filter(|(_, of)| *of == inode))?.0;
    Some(Process { pid, name: name_of(pid) })
}

fn name_of(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    match name.trim_end() {
        "" => "a process".to_owned(),
        name => name.to_owned(),
    }
}

/// Reads a line of `/proc/net/tcp` or `tcp6`, if its socket listens. Source: proc_net(5).
fn listening(line: &str) -> Option<Listening> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace();
    let (address, port) = fields.nth(1)?.split_once(':')?;
    if fields.nth(1)? != LISTEN {
        return None;
    }
    let uid = fields.nth(3)?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(Listening { address: ip(address)?, port, uid, inode })
}

/// Reads an address as the kernel prints it: words of 32 bits in the machine's own order.
fn ip(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

/// Reads a line of `/proc/locks`: process and inode of a lock that is held. Source:
/// proc_locks(5).
fn lock(line: &str) -> Option<(u32, u64)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    // One that is waited for has an arrow here.
    let kind = fields.next()?;
    if kind == "->" {
        return None;
    }
    let pid = fields.nth(2)?.parse().ok()?;
    let inode = fields.next()?.rsplit(':').next()?.parse().ok()?;
    Some((pid, inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn a_line_of_the_kernels_table_is_read() {
        let line = "   0: 0100007F:20FB 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1 ffff 100 0 0 10 0";
        let found = listening(line).unwrap();
        let expected =
            Listening { address: Ipv4Addr::LOCALHOST.into(), port: 8443, uid: 1000, inode: 4242 };
        assert_eq!(found, expected);
        assert_eq!(listening(&line.replace(" 0A ", " 01 ")), None);
        for wrong in ["", "sl local_address rem_address st", "0: x:y z 0A a b c 1 0 2"] {
            assert_eq!(listening(wrong), None, "{wrong}");
        }
        assert_eq!(ip("00000000000000000000000001000000"), Some(Ipv6Addr::LOCALHOST.into()));
    }

    #[test]
    fn an_address_is_taken_by_everybody_who_listens_on_it() {
        let check = |listens: &str, wanted: &str, expected: bool| {
            let address = listens.parse().unwrap();
            let socket = Listening { address, port: 1, uid: 0, inode: 0 };
            assert_eq!(socket.takes(wanted.parse().unwrap(), 1), expected, "{listens} {wanted}");
            assert!(!socket.takes(wanted.parse().unwrap(), 2));
        };
        check("127.0.0.1", "127.0.0.1", true);
        check("0.0.0.0", "127.0.0.1", true);
        check("127.0.0.1", "0.0.0.0", true);
        check("127.0.0.2", "127.0.0.1", false);
    }

    #[test]
    fn a_lock_has_a_holder() {
        assert_eq!(lock("1: FLOCK  ADVISORY  WRITE 708 08:01:262170 0 EOF"), Some((708, 262_170)));
        assert_eq!(lock("1: -> FLOCK  ADVISORY  WRITE 708 08:01:262170 0 EOF"), None);
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(lock_holder(file.path()), None);
        file.as_file().try_lock().unwrap();
        assert_eq!(lock_holder(file.path()).unwrap().pid, std::process::id());
    }
}
