//! Which cores run what, and who may interrupt whom.
//!
//! On shared cores the scheduler lets a generator thread that has just been woken interrupt the
//! server that woke it. The switch counts as the server's time, and a generator that has little to
//! do, because the server is slow, is woken for every answer: a server that costs twice as much pays
//! three times as much. So generator and servers run as batch work, which waits for its turn.
//!
//! Kept apart, they do not meet at all; but then a server has one core, and so one worker thread.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// The core of servers; everything else has the others.
const SERVER_CORE: &str = "0";

/// Lets nothing that this process starts from now on, nor itself, interrupt what runs when it wakes.
///
/// # Errors
///
/// If there is no `chrt`.
pub(crate) fn take_turns() -> Result<()> {
    let own = std::process::id().to_string();
    // Batch work has no priority of its own; the tool wants one all the same.
    told(Command::new("chrt").args(["--batch", "--all-tasks", "--pid", "0", &own]), "chrt")
}

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
    let mut command = Command::new("taskset");
    told(command.args(["--all-tasks", "--cpu-list", "--pid", cores, &own]), "taskset")
}

fn told(command: &mut Command, name: &str) -> Result<()> {
    let status = command.stdout(Stdio::null()).status();
    let status = status.with_context(|| format!("{name}, of util-linux"))?;
    ensure!(status.success(), "{name} ended with {status}");
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
