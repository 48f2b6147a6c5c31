//! What the kernel says of a process: CPU time and memory.

use std::time::Duration;

use anyhow::{Context, Result};

/// Unit of the times in `/proc/PID/stat`, in milliseconds. Source: proc_pid_stat(5) gives them in
/// `USER_HZ`, which Linux fixes at 100 for user space.
const TICK_MS: u64 = 10;

/// CPU time that process `pid` has used so far, in user mode and in the kernel, over all of its
/// threads.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    cpu_of(&text).with_context(|| format!("{path} has another form than expected"))
}

/// Memory of process `pid` that is resident now, in bytes.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    resident_of(&text).with_context(|| format!("{path} has no VmRSS"))
}

fn cpu_of(stat: &str) -> Option<Duration> {
    // The second field is the program's name in parentheses, which may itself hold any of both.
    let (_, after) = stat.rsplit_once(')')?;
    // The rest begins with field 3; fields 14 and 15 are wanted.
    let mut fields = after.split_ascii_whitespace().skip(14 - 3);
    let user: u64 = fields.next()?.parse().ok()?;
    let kernel: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis(user.checked_add(kernel)?.checked_mul(TICK_MS)?))
}

fn resident_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        fn check(stat: &str, expected: Option<u64>) {
            assert_eq!(cpu_of(stat), expected.map(Duration::from_millis), "{stat}");
        }
        check("7 (a) S 1 7 7 0 -1 4 9 0 0 0 123 45 0 0 20 0", Some(1680));
        check("7 (a b) c) S 1 7 7 0 -1 4 9 0 0 0 1 2 0 0", Some(30));
        check("7 (a) S 1 7 7 0 -1 4 9 0 0 0 1", None);
        check("7", None);
    }

    #[test]
    fn memory_is_in_bytes() {
        assert_eq!(resident_of("VmPeak:\t 9 kB\nVmRSS:\t   20 kB\n"), Some(20 * 1024));
        assert_eq!(resident_of("VmPeak:\t 9 kB\n"), None);
    }

    #[test]
    fn this_process_can_be_looked_at() {
        assert!(resident(std::process::id()).unwrap() > 0);
        cpu(std::process::id()).unwrap();
    }
}
