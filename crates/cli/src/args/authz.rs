//! `convoke authz`: what an agent, as it is configured, would decide.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use convoke_model::{OperationKind, UnixMillis};

use crate::question::{Who, instant, operation};

#[derive(Debug, Subcommand)]
pub(crate) enum Authz {
    /// Say whether an agent would let a caller in, by which rule, and why not by the others
    #[command(after_help = "\
Example:
  convoke authz check --config config/worker.yaml \\
    --caller spiffe://example.org/orchestrator --method count_words

Ends with 0 if the caller is allowed, 3 if it is refused.")]
    Check(AuthzCheck),
}

#[derive(Debug, Args)]
pub(crate) struct AuthzCheck {
    /// The agent's configuration
    #[arg(long, value_name = "CONFIG")]
    pub(crate) config: PathBuf,
    /// Who asks: a SPIFFE ID, or `anonymous`
    #[arg(long, value_name = "SPIFFE_ID")]
    pub(crate) caller: Who,
    /// The capability that is called
    #[arg(long, value_name = "NAME")]
    pub(crate) method: String,
    /// Its parameters, a JSON object; `@FILE` or `-` (standard input) reads them
    #[arg(long, value_name = "JSON|@FILE|-")]
    pub(crate) params: Option<String>,
    /// What is done with the capability or its task
    #[arg(long, value_name = "NAME", default_value = "SendMessage", value_parser = operation)]
    pub(crate) operation: OperationKind,
    /// The instant of the request, such as 2026-12-31T23:59:59Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub(crate) at: Option<UnixMillis>,
    /// Report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
