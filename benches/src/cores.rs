//! Which cores run what, when servers are to be kept apart from the load generator.
//!
//! On shared cores the scheduler lets a generator thread that has just been woken interrupt the
//! server that woke it, and the switch counts as the server's time. Apart from each other they
//! cannot do that; but then a server has one core, and so one worker thread.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// The core of servers; everything else has the others.
const SERVER_CORE: &str = "0";

/// Keeps this process away from the servers' core for as long as the value lives.
pub(crate) struct Apart {
    cores: usize,
}

impl Apart {
    /// Moves every thread of this process, and what it starts from now on.
    ///
    /// # Errors
    ///
    /// If there is one core only, or no `taskset`.
    pub(crate) fn move_away() -> Result<Self> {
        let cores = std::thread::available_parallelism()?.get();
        ensure!(cores > 1, "with one core nothing can be kept apart");
        move_to(&format!("1-{}", cores - 1))?;
        Ok(Self { cores })
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // What could be moved away can be moved back; if not, the next figures are only worse.
        let _moved = move_to(&format!("0-{}", self.cores - 1));
    }
}

fn move_to(cores: &str) -> Result<()> {
    let own = std::process::id().to_string();
    let status = Command::new("taskset")
        .args(["--all-tasks", "--cpu-list", "--pid", cores, &own])
        .stdout(Stdio::null())
        .status()
        .context("taskset, of util-linux")?;
    ensure!(status.success(), "taskset ended with {status}");
    Ok(())
}

/// How a server is started: on its core if it is to be kept apart.
pub(crate) fn server(program: &Path, apart: bool) -> Command {
    if !apart {
        return Command::new(program);
    }
    // It replaces itself by the program, so that the process is the server.
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", SERVER_CORE]).arg(program);
    command
}
