//! The command line: what can be asked, with an example for each.

mod authz;
mod config;
mod data;
mod doctor;
mod identity;
mod init;
mod logs;
mod man;
mod ping;
mod policy;
mod task;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use convoke::SpiffeId;

use crate::exit;

pub(crate) use authz::{Authz, AuthzCheck};
pub(crate) use config::{Config, ConfigMigrate, ConfigSchema, ConfigShow};
pub(crate) use data::{
    Data, DataBackup, DataCheck, DataQuery, DataRestore, DataStats, DataVacuum, Where,
};
pub(crate) use doctor::Doctor;
pub(crate) use identity::{Entry, Identity, IdentityServe, IdentityShow, Issuer};
pub(crate) use init::{Init, Template};
pub(crate) use logs::{Level, Logs};
pub(crate) use man::Man;
pub(crate) use ping::Ping;
pub(crate) use policy::{
    Policy, PolicyCheck, PolicyExplain, PolicyFile, PolicyLint, PolicyTest, Rego,
};
pub(crate) use task::{
    Content, Message, Saving, Task, TaskAt, TaskCancel, TaskGet, TaskInput, TaskList, TaskSend,
    TaskStream, TaskSubscribe, Urgency, When, word_of,
};

/// Where a Workload API is looked for when nothing names one. Source: the first seed.
pub(crate) const SOCKET_DEFAULT: &str = "/tmp/spire-agent/public/api.sock";

/// Widest help, in columns: longer lines are hard to read on any terminal.
const WIDTH_MAX: usize = 100;

/// Agents that find each other, prove who they are, are allowed or refused, and leave a trail.
#[derive(Debug, Parser)]
#[command(
    name = "convoke",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = WIDTH_MAX,
    after_help = format!(
        "Results go to standard output as JSON, words to standard error.\n\n{}",
        exit::help()
    )
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// When to colour what people read
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: Color,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(Demo),
    Serve(Serve),
    Call(Call),
    /// Send work, follow it, and find it again
    #[command(subcommand)]
    Task(Task),
    /// Read the card of an agent
    #[command(subcommand)]
    Card(Card),
    Health(Health),
    Ping(Ping),
    Doctor(Doctor),
    Validate(Validate),
    /// Look at a configuration, or make one
    #[command(subcommand)]
    Config(Config),
    Init(Init),
    /// Hand out identities, or look at one
    #[command(subcommand)]
    Identity(Identity),
    /// Look at a policy: check, lint, explain, test
    #[command(subcommand)]
    Policy(Policy),
    /// Ask what an agent would decide
    #[command(subcommand)]
    Authz(Authz),
    Logs(Logs),
    /// Look after a journal: check, back up, restore, shrink, ask, count
    #[command(subcommand)]
    Data(Data),
    Completions(Completions),
    Man(Man),
}

/// Run three agents that call each other, and look on
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  convoke demo
  echo 'A wonderful day. And a terrible night!' | convoke demo --text -

There is no --json: this is a performance for people. What it shows, each command does by itself.")]
pub(crate) struct Demo {
    /// Analyse this text as well; `-` reads standard input
    #[arg(long, value_name = "FILE|-", value_hint = ValueHint::FilePath)]
    pub(crate) text: Option<String>,
    /// Leave the agents up for `convoke call` until Ctrl-C
    #[arg(long)]
    pub(crate) keep: bool,
}

/// Serve an agent
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  convoke serve --agent document-worker config/worker.yaml
  convoke serve --agent document-worker config/worker.yaml --check --json

Your own agent is a program of its own: see \"Your first agent\" in the README.")]
pub(crate) struct Serve {
    /// The agent's configuration
    #[arg(value_name = "CONFIG")]
    pub(crate) config: PathBuf,
    /// Which of the agents that this binary has
    #[arg(long, value_enum)]
    pub(crate) agent: BuiltIn,
    /// Also answer plaintext HTTP on this loopback address; callers are anonymous
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) dev: Option<std::net::SocketAddr>,
    /// Check the configuration, the policy and the agent, and end
    #[arg(long)]
    pub(crate) check: bool,
    /// Report what --check finds as JSON
    #[arg(long, requires = "check")]
    pub(crate) json: bool,
    /// End when standard input does, so that the agent does not outlive its parent
    #[arg(long, hide = true)]
    pub(crate) until_stdin_ends: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BuiltIn {
    /// The document worker of the tutorial
    DocumentWorker,
    /// The document orchestrator of the tutorial
    DocumentOrchestrator,
    /// The summarizer that the orchestrator may know
    Summarizer,
}

/// Call a capability of an agent
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  convoke call \\
    --agent spiffe://example.org/orchestrator \\
    --address https://localhost:8444 \\
    --capability process_document \\
    --params '{\"text\": \"A wonderful document.\", \"operations\": [\"analyze\"]}'")]
pub(crate) struct Call {
    /// Who is called; anybody else at the address is refused
    #[arg(long, value_name = "SPIFFE_ID")]
    pub(crate) agent: SpiffeId,
    /// Where the agent listens
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) address: String,
    /// What the agent is asked to do
    #[arg(long, value_name = "NAME")]
    pub(crate) capability: String,
    /// The parameters, a JSON object; `@FILE` or `-` (standard input) reads them
    #[arg(long, value_name = "JSON|@FILE|-", default_value = "{}")]
    pub(crate) params: String,
    /// How long to wait for the answer, such as 500ms, 30s or 2m
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// The call may be made again when it fails halfway: doing it twice does no harm
    #[arg(long)]
    pub(crate) idempotent: bool,
    #[command(flatten)]
    pub(crate) as_who: AsWho,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// As whom a command calls.
#[derive(Debug, Args)]
pub(crate) struct AsWho {
    /// Call as this identity instead of spiffe://TRUST_DOMAIN/user/LOGIN
    #[arg(long, value_name = "SPIFFE_ID")]
    pub(crate) identity: Option<SpiffeId>,
    /// The Workload API that issues it
    #[arg(long, value_name = "PATH", env = "SPIFFE_ENDPOINT_SOCKET", hide_env_values = true,
          default_value = SOCKET_DEFAULT, value_hint = ValueHint::FilePath)]
    pub(crate) socket: String,
    /// The user id that the Workload API's server may have besides root and your own
    #[arg(long, value_name = "UID")]
    pub(crate) issuer_uid: Option<u32>,
}

/// How a result is printed.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Output {
    /// On one line, as it came
    #[arg(long, conflicts_with = "pretty")]
    pub(crate) json: bool,
    /// Indented; the default on a terminal
    #[arg(long)]
    pub(crate) pretty: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Card {
    /// Print the card of an agent
    #[command(after_help = "\
Example:
  convoke card show --agent spiffe://example.org/orchestrator https://localhost:8444
  convoke card show http://127.0.0.1:8080")]
    Show(CardShow),
}

#[derive(Debug, Args)]
pub(crate) struct CardShow {
    /// Where the agent listens
    #[arg(value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) address: String,
    /// Who is expected there; needed for https
    #[arg(long, value_name = "SPIFFE_ID")]
    pub(crate) agent: Option<SpiffeId>,
    #[command(flatten)]
    pub(crate) as_who: AsWho,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Ask an agent whether it is ready
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  convoke health --agent spiffe://example.org/orchestrator https://localhost:8444")]
pub(crate) struct Health {
    /// Where the agent listens
    #[arg(value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) address: String,
    /// Who is expected there; needed for https
    #[arg(long, value_name = "SPIFFE_ID")]
    pub(crate) agent: Option<SpiffeId>,
    #[command(flatten)]
    pub(crate) as_who: AsWho,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Check a configuration and its policy
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  convoke validate config/worker.yaml")]
pub(crate) struct Validate {
    /// The configuration
    #[arg(value_name = "CONFIG", required = true)]
    pub(crate) configs: Vec<PathBuf>,
    /// Count warnings as errors
    #[arg(long)]
    pub(crate) strict: bool,
    /// Report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Print the completion script of a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  convoke completions bash > ~/.local/share/bash-completion/completions/convoke

There is no --json: the script is the result.")]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

/// Reads `500ms`, `30s`, `2m` or `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let per_unit = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" => return Err(format!("`{text}` has no unit; write {text}s for seconds")),
        _ => return Err(format!("`{unit}` is no unit; use ms, s, m or h")),
    };
    let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(per_unit));
    match millis {
        Some(0) | None => Err(format!("`{text}` is no duration; write for example 30s")),
        Some(millis) => Ok(Duration::from_millis(millis)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Commands whose result is for people or a document by itself. Their help says so.
    const WITHOUT_JSON: [&str; 3] = ["demo", "identity serve", "completions"];

    fn leaves(command: &clap::Command, path: &str, found: &mut Vec<(String, clap::Command)>) {
        if !command.has_subcommands() {
            found.push((path.to_owned(), command.clone()));
        }
        for below in command.get_subcommands() {
            leaves(below, format!("{path} {}", below.get_name()).trim(), found);
        }
    }

    #[test]
    fn every_command_reports_as_json_or_says_why_not() {
        let mut all = Vec::new();
        leaves(&Cli::command(), "", &mut all);
        assert!(all.len() > 20, "{}", all.len());
        let mut without = Vec::new();
        for (path, command) in &all {
            match command.get_arguments().find(|arg| arg.get_long() == Some("json")) {
                Some(json) => assert!(!json.is_hide_set(), "{path}"),
                None => without.push(path.as_str()),
            }
        }
        assert_eq!(without, WITHOUT_JSON);
        for (path, command) in all.iter().filter(|(path, _)| without.contains(&path.as_str())) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("There is no --json: "), "{path}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "30", "s", "0s", "-1s", "1.5s", "30x", "99999999999999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
