//! From the start of a process to its first authorised answer, and how large the binary is.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::child::{Child, find};
use crate::options::Pace;
use crate::stage::{Door, Level, Stage};
use crate::stats::percentile;
use crate::wire::{self, Exchange};

/// Lines that a worker may log before it listens.
const LINES_MAX: usize = 100;

/// Of a worker whose issuer is running.
#[derive(Debug, Serialize)]
pub(crate) struct Starts {
    pub(crate) count: usize,
    /// Until it says that it listens, in milliseconds.
    pub(crate) listening_ms: Milliseconds,
    /// Until a caller has its first authorised answer over mutual TLS, in milliseconds.
    pub(crate) answered_ms: Milliseconds,
    pub(crate) binary_bytes: u64,
}

/// The middle and the worst.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Milliseconds {
    pub(crate) p50: f64,
    pub(crate) max: f64,
}

/// Measures cold starts one after the other. The first, which brings the binary into the page
/// cache, is left out.
///
/// # Errors
///
/// If a worker does not start, or its answer is wrong.
pub(crate) fn measure(stage: &Stage, binary: &Path, pace: Pace) -> Result<Starts> {
    start(stage)?;
    let (mut listening, mut answered) = (Vec::new(), Vec::new());
    for _ in 0..pace.starts {
        let (listens, answers) = start(stage)?;
        listening.push(listens);
        answered.push(answers);
    }
    Ok(Starts {
        count: pace.starts,
        listening_ms: Milliseconds::of(&mut listening)?,
        answered_ms: Milliseconds::of(&mut answered)?,
        binary_bytes: std::fs::metadata(binary)?.len(),
    })
}

fn start(stage: &Stage) -> Result<(Duration, Duration)> {
    let request = wire::request()?;
    let mut command = stage.command("cold", Door::Mesh, Level::Info)?;
    command.stderr(Stdio::piped());
    let begun = Instant::now();
    let mut worker = Child::start(&mut command)?;
    let mut log = worker.log_lines()?;
    let mut said = String::new();
    let mut started = None;
    for _ in 0..LINES_MAX {
        let line = log.next().with_context(|| said.clone())?;
        started = find(&line, "Agent server started");
        if started.is_some() {
            break;
        }
        said.push_str(&line);
    }
    let listens = begun.elapsed();
    let target = stage.mesh(&started.context("the worker does not say that it listens")?)?;
    let answer = stage.ask(&target, &request)?;
    let answers = begun.elapsed();
    Exchange::with_answer(request, &answer)?;
    Ok((listens, answers))
}

impl Milliseconds {
    fn of(times: &mut [Duration]) -> Result<Self> {
        times.sort_unstable();
        let at = |share| -> Result<f64> {
            let time = percentile(times, share).context("nothing was started")?;
            Ok(time.as_secs_f64() * 1000.0)
        };
        Ok(Self { p50: at(0.5)?, max: at(1.0)? })
    }
}

/// Builds the binary in the release profile, unless it is fresh, and says where it is: beside this
/// program, which cargo has built into the same directory.
///
/// # Errors
///
/// If cargo fails.
pub(crate) fn build() -> Result<PathBuf> {
    cargo(None)?;
    let own = std::env::current_exe()?;
    let binary = own.with_file_name("convoke");
    ensure!(binary.is_file(), "{} is not there; name it with --binary", binary.display());
    Ok(binary)
}

/// How long a clean release build takes, in a target directory that is removed again.
///
/// # Errors
///
/// If cargo fails.
pub(crate) fn clean_build() -> Result<Duration> {
    let target = tempfile::Builder::new().prefix("convoke-bench-build-").tempdir()?;
    let begun = Instant::now();
    cargo(Some(target.path()))?;
    Ok(begun.elapsed())
}

fn cargo(target: Option<&Path>) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--release", "--locked", "--quiet", "--package", "convoke-cli"])
        .current_dir(crate::workspace());
    if let Some(target) = target {
        command.arg("--target-dir").arg(target);
    }
    let status = command.status().context("cargo")?;
    ensure!(status.success(), "cargo build ended with {status}");
    Ok(())
}
