//! `convoke`: one binary that issues identities, serves agents and calls them.

mod args;
mod authz;
mod call;
mod card;
mod config;
mod demo;
mod exit;
mod health;
mod identity;
mod init;
mod input;
mod login;
mod logs;
mod paint;
mod policy;
mod question;
mod serve;
mod signals;
mod validate;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Card, Cli, Command, Config, Identity};
use exit::{Code, Failure};
use paint::Paint;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let paint = Paint::for_stderr(cli.color);
    match run(cli, paint) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            paint::failure(paint, &failure);
            ExitCode::from(failure.code as u8)
        }
    }
}

fn run(cli: Cli, paint: Paint) -> Result<(), Failure> {
    let color = cli.color;
    match cli.command {
        Command::Demo(options) => many_threads()?.block_on(demo::run(options, paint)),
        Command::Serve(options) => many_threads()?.block_on(serve::run(options, paint)),
        Command::Call(options) => one_thread()?.block_on(call::run(options)),
        Command::Card(Card::Show(options)) => one_thread()?.block_on(card::show(options)),
        Command::Health(options) => one_thread()?.block_on(health::run(options)),
        Command::Validate(options) => validate::run(&options, paint),
        Command::Config(Config::Show(options)) => config::show(&options, paint),
        Command::Config(Config::Schema(_)) => config::print_schema(),
        Command::Config(Config::Migrate(options)) => config::run_migrate(&options, paint),
        Command::Init(options) => init::run(&options, paint),
        Command::Identity(Identity::Serve(options)) => {
            many_threads()?.block_on(identity::serve(options))
        }
        Command::Identity(Identity::Show(options)) => {
            one_thread()?.block_on(identity::show(options))
        }
        Command::Identity(Identity::Entry(command)) => {
            one_thread()?.block_on(identity::entry(command))
        }
        Command::Policy(command) => policy::run(command, paint),
        Command::Authz(command) => authz::run(command, paint),
        Command::Logs(options) => logs::run(&options, color),
        Command::Completions(options) => {
            let mut script = Vec::new();
            clap_complete::generate(options.shell, &mut Cli::command(), "convoke", &mut script);
            std::io::Write::write_all(&mut std::io::stdout(), &script)?;
            Ok(())
        }
    }
}

fn many_threads() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    built.map_err(|error| Failure::new(Code::Failure, format_args!("runtime: {error}")))
}

/// A command that asks one question needs no second thread, and starts sooner without.
fn one_thread() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|error| Failure::new(Code::Failure, format_args!("runtime: {error}")))
}
