//! `cargo xtask torture`: all cases, or some, with a table of what came of them.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line talks on standard output and standard error"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use convoke_torture::args::{self, Amounts, CASES, Options};
use convoke_torture::cases::{cuts, damage, disk_full, kills, races, sends};
use convoke_torture::report::Report;

/// The program that is tortured, beside this one.
const VICTIM: &str = "convoke-torture-victim";

fn main() -> ExitCode {
    let ran = args::parse(std::env::args().skip(1)).and_then(|options| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(run(&options))
    });
    match ran {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does what is asked for; `false` means that something was found.
async fn run(options: &Options) -> Result<bool> {
    let victim = match &options.victim {
        Some(victim) => victim.clone(),
        None => beside_us()?,
    };
    let seed = match options.seed {
        Some(seed) => seed,
        None => fresh_seed()?,
    };
    println!("seed {seed}");
    let amounts = Amounts::of(options);
    let wanted = |case: &str| options.only.is_empty() || options.only.iter().any(|it| it == case);
    let mut reports = Vec::new();
    for case in CASES.into_iter().filter(|case| wanted(case)) {
        println!("{case} begins");
        let report = Box::pin(one(case, &victim, &amounts, seed)).await;
        let report = report.with_context(|| format!("{case} with seed {seed}"))?;
        print!("{}", report.told());
        if let Some(kept) = &report.kept {
            println!("{case}: the files are in {}", kept.display());
        }
        reports.push(report);
    }
    println!("\ncase  violations  seconds  what was done");
    for Report { case, runs, violations, took, skipped, .. } in &reports {
        let (count, seconds) = (violations.len(), took.as_secs_f64());
        let done = skipped.as_ref().map_or(runs.clone(), |why| format!("skipped: {why}"));
        println!("{case:<4}  {count:>10}  {seconds:>7.1}  {done}");
    }
    let found: usize = reports.iter().map(|report| report.violations.len()).sum();
    println!("\n{found} violations with seed {seed}");
    Ok(found == 0)
}

async fn one(case: &str, victim: &Path, amounts: &Amounts, seed: u64) -> Result<Report> {
    let tell = |line: String| println!("{line}");
    match case {
        "R-01" => kills::run(victim, &amounts.kills, seed, tell).await,
        "R-06" => damage::run(victim, &amounts.damage, seed, tell).await,
        "R-07" => disk_full::run(victim, &amounts.disk_full, seed, tell).await,
        "R-16" => cuts::run(victim, &amounts.cuts, seed, tell).await,
        "R-18" => sends::run(victim, &amounts.sends, seed, tell).await,
        _ => races::run(victim, &amounts.races, seed, tell).await,
    }
}

fn beside_us() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let victim = own.with_file_name(VICTIM);
    anyhow::ensure!(
        victim.exists(),
        "`{}` is not there; build it with `cargo build -p convoke-torture`",
        victim.display()
    );
    Ok(victim)
}

fn fresh_seed() -> Result<u64> {
    let now =
        SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    Ok(now.as_secs())
}
