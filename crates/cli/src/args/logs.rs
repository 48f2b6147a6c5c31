//! `convoke logs`: reading what agents have written.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::duration;

/// Read logs and audit trails of agents, and pick lines from them
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  convoke logs worker.log audit.jsonl --level warn --since 10m
  convoke logs audit.jsonl --caller spiffe://example.org/orchestrator --follow
  my-agent config.yaml 2>&1 | convoke logs

Several files are read as one, by time; with a file come those that were put aside from it, as
FILE.1. Times are UTC. Lines that are no log lines are shown as they are, unless lines are picked.")]
pub(crate) struct Logs {
    /// Logs or audit trails; `-` is standard input, and the default
    #[arg(value_name = "FILE|-")]
    pub(crate) files: Vec<PathBuf>,
    /// Go on with what is written from now on, until Ctrl-C
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Lines of this level or a more severe one; a refusal on record counts as a warning
    #[arg(long, value_enum, ignore_case = true)]
    pub(crate) level: Option<Level>,
    /// Lines of this agent: its SPIFFE ID, or the end of it
    #[arg(long, value_name = "SPIFFE_ID")]
    pub(crate) agent: Option<String>,
    /// Lines on requests of this caller: its SPIFFE ID, or the end of it
    #[arg(long, value_name = "SPIFFE_ID")]
    pub(crate) caller: Option<String>,
    /// Lines on this capability
    #[arg(long, value_name = "NAME")]
    pub(crate) capability: Option<String>,
    /// Lines of this request; the beginning of its name is enough
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
    /// Lines of this trace; the beginning of its number is enough
    #[arg(long, value_name = "ID")]
    pub(crate) trace_id: Option<String>,
    /// Lines of the last while, such as 30s, 10m or 2h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) since: Option<Duration>,
    /// Print the lines as they were written
    #[arg(long)]
    pub(crate) json: bool,
}

/// How severe a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Level {
    Trace,
    Debug,
    Info,
    #[value(alias = "warning")]
    Warn,
    Error,
}
