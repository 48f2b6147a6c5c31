//! The steps of `test` and `ci`, one after the other, each with a heading and its time.

use std::io::{self, Write};
use std::time::Instant;

use anyhow::Result;

use crate::args::TestOptions;
use crate::process::{Stream, Workspace};
use crate::tally::Tally;
use crate::tidy;

/// How one step ended.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    /// It could not run here, and why.
    Skipped(String),
}

/// What the steps of one command have come to.
#[derive(Default)]
struct Report {
    keep_going: bool,
    failed: Vec<&'static str>,
    /// `<step>: <why>` for every step that could not run.
    skipped: Vec<String>,
}

impl Report {
    /// Runs a step unless an earlier one has failed and that is the end.
    fn step(&mut self, name: &'static str, run: impl FnOnce() -> Result<Outcome>) -> Result<()> {
        if self.over() {
            return Ok(());
        }
        println!("\n== {name}");
        let started = Instant::now();
        let outcome = run()?;
        let seconds = started.elapsed().as_secs_f64();
        match outcome {
            Outcome::Passed => println!("== {name}: passed in {seconds:.1} s"),
            Outcome::Failed => {
                println!("== {name}: failed in {seconds:.1} s");
                self.failed.push(name);
            }
            Outcome::Skipped(why) => {
                println!("== {name}: skipped, {why}");
                self.skipped.push(format!("{name}: {why}"));
            }
        }
        Ok(())
    }

    fn over(&self) -> bool {
        !self.failed.is_empty() && !self.keep_going
    }

    /// Names what was skipped and what failed, then the tests' sum as the last line.
    fn finish(self, tally: &Tally, mut out: impl Write) -> Result<bool> {
        writeln!(out)?;
        for skipped in self.skipped.iter().map(String::as_str).chain(tally.skipped()) {
            writeln!(out, "skipped: {skipped}")?;
        }
        for name in &self.failed {
            writeln!(out, "failed: {name}")?;
        }
        if self.over() {
            writeln!(out, "stopped at the first failure; `--keep-going` runs the rest")?;
        }
        writeln!(out, "{tally}")?;
        Ok(self.failed.is_empty())
    }
}

/// Everything that needs cargo alone; `false` when a step failed.
///
/// # Errors
///
/// When a step could not even be started.
pub(crate) fn test(workspace: &Workspace, options: &TestOptions) -> Result<bool> {
    let mut tally = Tally::default();
    let report = portable(workspace, options, &mut tally)?;
    report.finish(&tally, io::stdout())
}

/// [`test()`], and the checks that need more than cargo.
///
/// # Errors
///
/// When a step could not even be started.
pub(crate) fn ci(workspace: &Workspace, options: &TestOptions) -> Result<bool> {
    let mut tally = Tally::default();
    let mut report = portable(workspace, options, &mut tally)?;
    report.step("deny", || {
        if !workspace.has_subcommand("deny") {
            let why = "cargo-deny is not installed; `cargo xtask setup` installs it";
            return Ok(Outcome::Skipped(why.to_owned()));
        }
        // Advisories need a database from the network, so that they change without a commit:
        // they are looked at by hand and at a release, not on the way to a merge.
        passed(workspace.cargo(&["deny", "--locked", "check", "bans", "licenses", "sources"]))
    })?;
    report.finish(&tally, io::stdout())
}

fn portable(workspace: &Workspace, options: &TestOptions, tally: &mut Tally) -> Result<Report> {
    let mut report = Report { keep_going: options.keep_going, ..Report::default() };
    report.step("format", || passed(workspace.cargo(&["fmt", "--all", "--check"])))?;
    report.step("clippy", || {
        let args =
            ["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"];
        passed(workspace.cargo(&args))
    })?;
    report.step("tidy", || passed(self::tidy(workspace)))?;
    report.step("tests", || {
        let mut args = vec!["test", "--workspace", "--locked"];
        if options.keep_going {
            args.push("--no-fail-fast");
        }
        args.extend(["--", "--show-output"]);
        args.extend(options.passed_on.iter().map(String::as_str));
        passed(workspace.cargo_lines(&args, |stream, line| {
            let shown = tally.line(line);
            match stream {
                Stream::Out if shown => println!("{line}"),
                Stream::Out => {}
                Stream::Err => eprintln!("{line}"),
            }
        }))
    })?;
    Ok(report)
}

/// Runs the checks of the source tree and prints what they found; `true` when it is nothing.
///
/// # Errors
///
/// When the tree cannot be read or cargo cannot describe the dependency graph.
pub(crate) fn tidy(workspace: &Workspace) -> Result<bool> {
    let problems = tidy::run(workspace)?;
    for problem in &problems {
        println!("{problem}");
    }
    match problems.len() {
        0 => println!("tidy: nothing to mend"),
        1 => println!("tidy: 1 thing to mend"),
        number => println!("tidy: {number} things to mend"),
    }
    Ok(problems.is_empty())
}

/// Builds the release profile and measures.
///
/// # Errors
///
/// When cargo cannot be started.
pub(crate) fn bench(workspace: &Workspace, passed_on: &[String]) -> Result<bool> {
    let mut args = vec!["run", "--release", "--locked", "--package", "convoke-bench", "--"];
    args.extend(passed_on.iter().map(String::as_str));
    workspace.cargo(&args)
}

/// Builds the agent that is tortured and whoever does it, and runs that; `false` when something was
/// found.
///
/// # Errors
///
/// When cargo cannot be started.
pub(crate) fn torture(workspace: &Workspace, release: bool, passed_on: &[String]) -> Result<bool> {
    let with = |command: &'static str| {
        let mut args = vec![command, "--locked", "--package", "convoke-torture"];
        args.extend(release.then_some("--release"));
        args
    };
    // `run` builds the one program that it runs, and the torture needs the other one too.
    if !workspace.cargo(&with("build"))? {
        return Ok(false);
    }
    let mut args = with("run");
    args.push("--");
    args.extend(passed_on.iter().map(String::as_str));
    workspace.cargo(&args)
}

fn passed(ended_well: Result<bool>) -> Result<Outcome> {
    Ok(if ended_well? { Outcome::Passed } else { Outcome::Failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(keep_going: bool, outcomes: &[(&'static str, bool)], ran: &[&str], failed: &[&str]) {
        let mut report = Report { keep_going, ..Report::default() };
        let mut seen = Vec::new();
        for (name, good) in outcomes {
            let run = || {
                seen.push(*name);
                Ok(if *good { Outcome::Passed } else { Outcome::Failed })
            };
            report.step(name, run).unwrap();
        }
        assert_eq!(seen, ran);
        assert_eq!(report.failed, failed);
        let good = report.finish(&Tally::default(), io::sink()).unwrap();
        assert_eq!(good, failed.is_empty());
    }

    #[test]
    fn the_first_failure_is_the_end_unless_told_otherwise() {
        let outcomes = [("one", true), ("two", false), ("three", true)];
        check(false, &outcomes, &["one", "two"], &["two"]);
        check(true, &outcomes, &["one", "two", "three"], &["two"]);
        check(false, &[("one", true), ("two", true)], &["one", "two"], &[]);
    }

    #[test]
    fn a_skipped_step_is_no_failure_and_is_named() {
        let mut report = Report::default();
        report.step("deny", || Ok(Outcome::Skipped("no tool".into()))).unwrap();
        let mut said = Vec::new();
        // Not to standard output: there it would look like a test that skipped itself.
        let good = report.finish(&Tally::default(), &mut said).unwrap();
        assert!(good);
        let said = String::from_utf8(said).unwrap();
        assert_eq!(said, "\nskipped: deny: no tool\n0 passed, 0 failed, 0 skipped\n");
    }
}
