//! The command line, and how long everything takes.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Measures what a call costs, beside programs that do the same I/O and nothing else
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) options: Options,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Keep one worker busy, so that a profiler can look at it
    Load(Load),
    /// Put an agent under load while something happens to it, and see whether anything is lost
    Trial(Trial),
    #[command(hide = true)]
    Agent { config: PathBuf },
    #[command(hide = true)]
    Collector,
    #[command(hide = true)]
    CeilHttp { answer: PathBuf },
    #[command(hide = true)]
    CeilTls { answer: PathBuf, identity: PathBuf },
    #[command(hide = true)]
    CeilDurable { answer: PathBuf, file: PathBuf, bytes: usize, identity: Option<PathBuf> },
    #[command(hide = true)]
    CeilSse { events: PathBuf, identity: PathBuf },
    #[command(hide = true)]
    Subject {
        config: PathBuf,
        #[arg(long)]
        dev: bool,
    },
    #[command(hide = true)]
    Fill { store: PathBuf, kind: Fill, count: u64 },
    #[command(hide = true)]
    Decide { rego: Rego },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Two rounds of half a second instead of five of two: to see that it works
    #[arg(long)]
    pub(crate) quick: bool,
    /// How many rounds
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) rounds: Option<u16>,
    /// Give servers a core of their own, and so one worker thread (needs taskset)
    #[arg(long)]
    pub(crate) apart: bool,
    /// Measure this alone; can be given more than once, or with commas
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    pub(crate) only: Vec<Part>,
    /// Write the tables into docs/benchmarks.md
    #[arg(long)]
    pub(crate) write_docs: bool,
    /// Also time a clean release build, in a target directory of its own
    #[arg(long)]
    pub(crate) build: bool,
    /// Measure this binary instead of building the workspace's
    #[arg(long, value_name = "PATH")]
    pub(crate) binary: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Load {
    /// Use the plaintext listener instead of mutual TLS
    #[arg(long)]
    pub(crate) plaintext: bool,
    /// Let the worker log at INFO instead of WARN
    #[arg(long)]
    pub(crate) info: bool,
    /// Send tasks that are acknowledged once they are on the disk, instead of calls
    #[arg(long)]
    pub(crate) durable: bool,
    /// Give the worker a core of its own
    #[arg(long)]
    pub(crate) apart: bool,
    /// How many connections are kept busy
    #[arg(long, value_name = "COUNT", default_value = "64", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) connections: u16,
    /// For how long
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = clap::value_parser!(u16).range(1..=600))]
    pub(crate) seconds: u16,
    /// Use this binary instead of building the workspace's
    #[arg(long, value_name = "PATH")]
    pub(crate) binary: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Trial {
    /// What happens
    #[arg(value_enum)]
    pub(crate) kind: TrialKind,
    /// For how long
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub(crate) seconds: u16,
    /// How many drains
    #[arg(long, value_name = "COUNT", default_value = "20", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) rounds: u16,
    /// Use this binary instead of building the workspace's
    #[arg(long, value_name = "PATH")]
    pub(crate) binary: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TrialKind {
    /// Identities are replaced every two seconds
    Rotation,
    /// The agent is asked to end, again and again
    Drain,
    /// Five times as much comes in as can be done
    Overload,
    /// The policy is replaced five times a second, by invalid ones among others
    Reload,
}

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Calls on both listeners, and the memory of a worker
    Unary,
    /// What policy, audit and tracing add to a call
    Costs,
    /// Policy decisions
    Policy,
    /// TLS handshakes
    Handshake,
    /// Cold starts, and the size of the binary
    Start,
    /// Durable tasks: acknowledged once they are on the disk
    Durable,
    /// Streams of events
    Streams,
    /// Memory of tasks
    Memory,
    /// Many stored tasks: starting, reading, going on
    Stored,
}

/// What a store is filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fill {
    /// Tasks that have ended
    Ended,
    /// Tasks that wait for their turn
    Waiting,
    /// Tasks that were at work
    Working,
}

/// The policies of the tutorial's worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rego {
    /// `worker_policy.rego`
    #[value(name = "tutorial")]
    Seed,
    /// `worker_policy_strict.rego`
    Strict,
    /// The same, and it reads the instant of the request, so that no decision is remembered
    Evaluated,
}

/// How long everything takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) rounds: usize,
    /// One turn of one contender; it has two in each round.
    pub(crate) run: Duration,
    /// Cold starts.
    pub(crate) starts: usize,
}

impl Options {
    pub(crate) fn pace(&self) -> Pace {
        let (rounds, run, starts) = if self.quick {
            (2, Duration::from_millis(500), 3)
        } else {
            (5, Duration::from_secs(2), 10)
        };
        Pace { rounds: self.rounds.map_or(rounds, usize::from), run, starts }
    }

    pub(crate) fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

impl Rego {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Seed => "tutorial",
            Self::Strict => "strict",
            Self::Evaluated => "evaluated",
        }
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

    #[test]
    fn parts_are_all_unless_named() {
        let wants = |args: &[&str], part| Cli::parse_from(args).options.wants(part);
        assert!(wants(&["bench"], Part::Policy));
        assert!(wants(&["bench", "--only", "policy"], Part::Policy));
        assert!(!wants(&["bench", "--only", "policy"], Part::Unary));
    }
}
