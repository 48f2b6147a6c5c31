//! What a developer and CI run: `cargo xtask <command>`.
//!
//! It has one small dependency and reads cargo's own output, so that it builds in a second
//! and a fresh machine needs cargo alone.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line talks on standard output and standard error"
)]

mod args;
mod process;
mod setup;
mod steps;
mod tally;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;

use args::Command;
use process::Workspace;

/// Exit status when the command line cannot be understood, as `sysexits.h` numbers it.
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let command = match args::parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(problem) => {
            eprintln!("error: {problem}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match run(command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one command; `false` means that it worked and what it looked at is not in order.
fn run(command: Command) -> Result<bool> {
    let help = match command {
        Command::Help(text) => text,
        Command::Ci(options) => return steps::ci(&Workspace::find()?, &options),
        Command::Test(options) => return steps::test(&Workspace::find()?, &options),
        Command::Tidy => return steps::tidy(&Workspace::find()?),
        Command::Setup { list } => return setup::run(&Workspace::find()?, list),
        Command::Bench(passed_on) => return steps::bench(&Workspace::find()?, &passed_on),
        Command::Torture { release, passed_on } => {
            return steps::torture(&Workspace::find()?, release, &passed_on);
        }
    };
    print!("{help}");
    Ok(true)
}
