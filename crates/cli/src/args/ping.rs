//! `convoke ping`: whether an agent can be reached, and where the time goes.

use std::time::Duration;

use clap::{Args, ValueHint};
use convoke::SpiffeId;

use super::{AsWho, duration};

/// Reach an agent, and show where the time goes
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  convoke ping --agent spiffe://example.org/orchestrator https://localhost:8444

Each ping is a connection of its own: TCP, TLS with both certificates, and one question that every
agent answers. Policy is not asked. Ends as a call would: 4 if nobody answers, 5 if it is somebody
else.")]
pub(crate) struct Ping {
    /// Where the agent listens
    #[arg(value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) address: String,
    /// Who is expected there
    #[arg(long, value_name = "SPIFFE_ID")]
    pub(crate) agent: SpiffeId,
    /// How often
    #[arg(long, value_name = "N", default_value_t = 4,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) count: u32,
    /// How long to wait in between
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = duration)]
    pub(crate) interval: Duration,
    #[command(flatten)]
    pub(crate) as_who: AsWho,
    /// Report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
