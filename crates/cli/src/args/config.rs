//! `convoke config`: the configuration of an agent.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Print what each key comes to, and where that is from
    #[command(after_help = "\
Example:
  convoke config show config/worker.yaml
  CONVOKE_SERVER__PORT=9000 convoke config show --changed config/worker.yaml")]
    Show(ConfigShow),
    /// Print the JSON Schema of a configuration
    #[command(after_help = "\
Example:
  convoke config schema > convoke.schema.json")]
    Schema(ConfigSchema),
    /// Turn a configuration of another shape into this one
    #[command(after_help = "\
Example:
  convoke config migrate old.yaml --out config.yaml")]
    Migrate(ConfigMigrate),
}

#[derive(Debug, Args)]
pub(crate) struct ConfigShow {
    /// The configuration
    #[arg(value_name = "CONFIG")]
    pub(crate) config: PathBuf,
    /// Leave out what is as it is by default
    #[arg(long)]
    pub(crate) changed: bool,
    /// Report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigSchema {
    /// On one line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigMigrate {
    /// The configuration of another shape; `-` reads standard input
    #[arg(value_name = "FILE|-")]
    pub(crate) file: String,
    /// Where to write the result, which must not be there yet [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Report as JSON, with the result as text
    #[arg(long, conflicts_with = "out")]
    pub(crate) json: bool,
}
