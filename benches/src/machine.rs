//! Where and when it was measured.

use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result};
use convoke_model::UnixMillis;
use serde::Serialize;

/// The machine, by what the kernel and the compiler say of themselves.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    /// When the measurements began, in UTC.
    pub(crate) date: String,
    pub(crate) cores: usize,
    pub(crate) cpu: String,
    pub(crate) kernel: String,
    pub(crate) rustc: String,
    /// The commit, marked when files differ from it.
    pub(crate) commit: String,
}

impl Machine {
    pub(crate) fn look() -> Result<Self> {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo")?;
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        Ok(Self {
            date: UnixMillis(now * 1000).to_string(),
            cores: std::thread::available_parallelism()?.get(),
            cpu: model(&cpuinfo).unwrap_or("unknown").to_owned(),
            kernel: kernel.trim().to_owned(),
            rustc: said("rustc", &["--version"])?,
            commit: said("git", &["describe", "--always", "--dirty", "--abbrev=12"])
                .unwrap_or_else(|_| "unknown".to_owned()),
        })
    }

    /// [`Machine::date`] as it can stand in a file's name.
    pub(crate) fn file_stem(&self) -> String {
        self.date.replace(".000", "").replace(':', "-")
    }
}

fn model(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

fn said(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(args)
        .current_dir(crate::workspace())
        .output()
        .with_context(|| program.to_owned())?;
    anyhow::ensure!(output.status.success(), "{program} ended with {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_called_by_its_model() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Fast CPU @ 2.60GHz\n";
        assert_eq!(model(cpuinfo), Some("Fast CPU @ 2.60GHz"));
        assert_eq!(model("processor : 0"), None);
    }
}
