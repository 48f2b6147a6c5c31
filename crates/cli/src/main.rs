//! `convoke`: one binary that issues identities, serves agents and calls them.

mod args;
mod authz;
mod call;
mod card;
mod config;
mod data;
mod demo;
mod doctor;
mod exit;
mod health;
mod identity;
mod init;
mod input;
mod login;
mod logs;
mod man;
mod output;
mod paint;
mod ping;
mod policy;
mod progress;
mod question;
mod serve;
mod signals;
mod task;
mod validate;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use args::{Card, Cli, Command, Config, Identity};
use exit::{Code, Failure};
use paint::Paint;
use progress::waiting;

fn main() -> ExitCode {
    let read = Cli::command().try_get_matches().and_then(|matches| {
        let as_json = output::wants_json(&matches);
        Ok((Cli::from_arg_matches(&matches)?, as_json))
    });
    let (cli, as_json) = match read {
        Ok(read) => read,
        Err(error) => return output::of_clap(&error),
    };
    let paint = Paint::for_stderr(cli.color);
    match run(cli, as_json, paint) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_seen_enough => ExitCode::SUCCESS,
        Err(failure) => {
            if as_json {
                output::failure(&failure);
            } else {
                paint::failure(paint, &failure);
            }
            ExitCode::from(failure.code as u8)
        }
    }
}

/// Does what was asked for; `quiet` if nobody is to hear of what is waited for.
fn run(cli: Cli, quiet: bool, paint: Paint) -> Result<(), Failure> {
    let color = cli.color;
    match cli.command {
        Command::Demo(options) => {
            let quiet = options.keep;
            let what = "the agents of the demo".to_owned();
            many_threads()?.block_on(waiting(what, quiet, demo::run(options, paint)))
        }
        Command::Serve(options) => until_ended(serve::run(options, paint)),
        Command::Call(options) => {
            let what = format!("{} at {}", options.agent, options.address);
            one_thread()?.block_on(waiting(what, quiet, call::run(options)))
        }
        Command::Task(command) => {
            let what = task::label(&command);
            one_thread()?.block_on(waiting(what, quiet, task::run(command, paint)))
        }
        Command::Card(Card::Show(options)) => {
            let what = format!("the card of {}", options.address);
            one_thread()?.block_on(waiting(what, quiet, card::show(options)))
        }
        Command::Health(options) => {
            let what = format!("the health of {}", options.address);
            one_thread()?.block_on(waiting(what, quiet, health::run(options)))
        }
        Command::Ping(options) => {
            let what = format!("{} at {}", options.agent, options.address);
            one_thread()?.block_on(waiting(what, quiet, ping::run(options, paint)))
        }
        Command::Doctor(options) => {
            let what = "what the configurations say".to_owned();
            one_thread()?.block_on(waiting(what, quiet, doctor::run(options, paint)))
        }
        Command::Validate(options) => validate::run(&options, paint),
        Command::Config(Config::Show(options)) => config::show(&options, paint),
        Command::Config(Config::Schema(options)) => config::print_schema(&options),
        Command::Config(Config::Migrate(options)) => config::run_migrate(&options, paint),
        Command::Init(options) => init::run(&options, paint),
        Command::Identity(Identity::Serve(options)) => until_ended(identity::serve(options)),
        Command::Identity(Identity::Show(options)) => {
            let what = format!("the Workload API at {}", options.as_who.socket);
            one_thread()?.block_on(waiting(what, quiet, identity::show(options)))
        }
        Command::Identity(Identity::Entry(command)) => {
            let what = "the issuer".to_owned();
            one_thread()?.block_on(waiting(what, quiet, identity::entry(command, paint)))
        }
        Command::Policy(command) => policy::run(command, paint),
        Command::Authz(command) => authz::run(command, paint),
        Command::Logs(options) => logs::run(&options, color),
        Command::Data(command) => {
            let what = data::label(&command);
            one_thread()?.block_on(waiting(what, quiet, data::run(command, paint)))
        }
        Command::Completions(options) => {
            let mut script = Vec::new();
            clap_complete::generate(options.shell, &mut Cli::command(), "convoke", &mut script);
            output::print_text(&String::from_utf8_lossy(&script))
        }
        Command::Man(options) => man::run(&options, paint),
    }
}

/// Serves. What a signal cut off is not waited for.
fn until_ended(serving: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = many_threads()?;
    let ended = runtime.block_on(serving);
    convoke::serve::end_runtime(runtime, ended.is_err());
    ended
}

fn many_threads() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    built.map_err(|error| Failure::of_file(Code::Failure, "runtime", &error))
}

/// A command that asks one question needs no second thread, and starts sooner without.
fn one_thread() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|error| Failure::of_file(Code::Failure, "runtime", &error))
}
