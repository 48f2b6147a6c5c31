//! `convoke doctor`: what is wrong with an agent, and the cure.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::question::Who;

/// Find out what is wrong with an agent, and how to cure it
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  convoke doctor config/worker.yaml
  convoke doctor config/worker.yaml config/orchestrator.yaml
  convoke doctor config/worker.yaml --caller spiffe://example.org/orchestrator \\
    --method count_words

Looks at the configuration, the policy, files, ports, the identity, the running agent, and the
agents that it calls. With several configurations it compares them: who calls whom, where, and
whether the policy there allows it. It changes nothing; to reach agents it takes the identity of
the configuration, as the agent would.

Ends with 0 if nothing is wrong, 1 if something is; warnings do not count.")]
pub(crate) struct Doctor {
    /// The agents' configurations
    #[arg(value_name = "CONFIG", required = true)]
    pub(crate) configs: Vec<PathBuf>,
    /// Where the agent of the first configuration is reached [default: its port on this machine]
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) address: Option<String>,
    /// Ask whether the agent of the first configuration allows this caller: a SPIFFE ID, or
    /// `anonymous`
    #[arg(long, value_name = "ID")]
    pub(crate) caller: Option<Who>,
    /// The capability that is asked about; may be repeated [default: those that the agent has]
    #[arg(long, value_name = "NAME")]
    pub(crate) method: Vec<String>,
    /// Report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
