//! A disk whose syncs are counted, and may cost more than they do here.
//!
//! It is a small library that is loaded before the C library's functions are looked up, for our
//! server and for the ceiling alike. Without a C compiler there is none, and what needs it is left
//! out by name.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

const SOURCE: &str = include_str!("disk.c");

/// The library.
pub(crate) struct Disk {
    library: PathBuf,
    directory: PathBuf,
}

/// The count of one process.
pub(crate) struct Syncs(PathBuf);

impl Disk {
    /// Compiles the library into `directory`; nothing if there is no `cc`.
    ///
    /// # Errors
    ///
    /// If the compiler fails.
    pub(crate) fn make(directory: &Path) -> Result<Option<Self>> {
        let (source, library) = (directory.join("disk.c"), directory.join("disk.so"));
        std::fs::write(&source, SOURCE)?;
        let mut command = Command::new("cc");
        command.args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).arg(&source).arg("-ldl");
        let compiled = match command.stdout(Stdio::null()).status() {
            Ok(status) => status,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        ensure!(compiled.success(), "cc ended with {compiled}");
        Ok(Some(Self { library, directory: directory.to_owned() }))
    }

    /// Puts `command`, a server by the name `name`, on this disk, whose syncs take `extra_us`
    /// microseconds longer.
    pub(crate) fn under(&self, command: &mut Command, name: &str, extra_us: u32) -> Result<Syncs> {
        let counted = self.directory.join(format!("{name}.syncs"));
        std::fs::write(&counted, [0; 8])?;
        command
            .env("LD_PRELOAD", &self.library)
            .env("BENCH_DISK_SYNCS", &counted)
            .env("BENCH_DISK_EXTRA_US", extra_us.to_string());
        Ok(Syncs(counted))
    }
}

impl Syncs {
    /// How many there were so far.
    pub(crate) fn count(&self) -> Result<u64> {
        let bytes = std::fs::read(&self.0)?;
        Ok(u64::from_ne_bytes(bytes.as_slice().try_into()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let Some(disk) = Disk::make(directory.path()).unwrap() else { return };
        let mut command = Command::new("dd");
        let file = directory.path().join("file");
        command.arg("if=/dev/zero").arg(format!("of={}", file.display()));
        command.args(["count=1", "conv=fdatasync"]).stderr(Stdio::null());
        let syncs = disk.under(&mut command, "dd", 0).unwrap();
        assert_eq!(syncs.count().unwrap(), 0);
        assert!(command.status().unwrap().success());
        assert_eq!(syncs.count().unwrap(), 1);
    }
}
