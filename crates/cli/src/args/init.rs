//! `convoke init`: a project to begin with.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use convoke::TrustDomain;

/// Write the project of a new agent
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  convoke init --convoke-path ~/convoke greeter
  convoke init --convoke-path ~/convoke --template full --trust-domain example.org claims

The crate `convoke` is not published yet: without --convoke-path, which names a clone of the
repository, the project is written, but does not build until its Cargo.toml names one.")]
pub(crate) struct Init {
    /// The directory, which is made or has to be empty
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The agent's name, which is its package's too [default: that of the directory]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// The trust domain of its identity
    #[arg(long, value_name = "NAME", default_value = "example.org")]
    pub(crate) trust_domain: TrustDomain,
    /// How much to begin with
    #[arg(long, value_enum, default_value_t = Template::Minimal)]
    pub(crate) template: Template,
    /// Depend on this checkout of Convoke; needed to build the project as long as no registry has
    /// the crate `convoke`
    #[arg(long, value_name = "PATH")]
    pub(crate) convoke_path: Option<PathBuf>,
    /// Report what was written as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Template {
    /// One capability, and the keys that every agent needs
    Minimal,
    /// A call to another agent, a policy with data, and all of the observability
    Full,
}
