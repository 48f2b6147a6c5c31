//! `convoke policy`: looking at a policy without an agent.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use convoke::SpiffeId;
use convoke_model::{OperationKind, UnixMillis};

use crate::question::{Who, instant, operation};

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Check that a policy loads
    #[command(after_help = "\
Example:
  convoke policy check policies/worker_policy.rego")]
    Check(PolicyCheck),
    /// Find what a policy surely does not mean
    #[command(after_help = "\
Example:
  convoke policy lint policies/worker_policy.rego --strict")]
    Lint(PolicyLint),
    /// Say what a policy decides, by which rule, and why not by the others
    #[command(after_help = "\
Example:
  convoke policy explain policies/worker_policy.rego \\
    --caller spiffe://example.org/orchestrator \\
    --agent spiffe://example.org/document-worker \\
    --method count_words")]
    Explain(PolicyExplain),
    /// Run the tests of policies, in Rego or as tables of cases
    #[command(after_help = "\
Example:
  convoke policy test policies/
  convoke policy test policies/worker_policy.rego policies/worker.cases.yaml")]
    Test(PolicyTest),
}

/// How a policy is read.
#[derive(Debug, Args)]
pub(crate) struct PolicyFile {
    /// A JSON file that the policy reads as `data`; may be given again
    #[arg(long, value_name = "FILE")]
    pub(crate) data: Vec<PathBuf>,
    /// The package whose rules decide
    #[arg(long, value_name = "NAME", default_value = convoke_policy::PACKAGE_DEFAULT)]
    pub(crate) package: String,
    /// The language, if it is not to be found out
    #[arg(long, value_enum, value_name = "VERSION")]
    pub(crate) rego_version: Option<Rego>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rego {
    V0,
    V1,
}

#[derive(Debug, Args)]
pub(crate) struct PolicyCheck {
    /// The policies, each by itself
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) read: PolicyFile,
    /// Report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PolicyLint {
    /// The policies, each by itself
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) read: PolicyFile,
    /// End with 1 if there are warnings
    #[arg(long)]
    pub(crate) strict: bool,
    /// Report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PolicyExplain {
    /// The policy
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) read: PolicyFile,
    /// The input document, in the place of the options that follow; `@FILE` or `-` reads it
    #[arg(long, value_name = "JSON|@FILE|-", conflicts_with_all = ["caller", "agent", "method", "params", "operation", "at"])]
    pub(crate) input: Option<String>,
    /// Who asks: a SPIFFE ID, or `anonymous`
    #[arg(long, value_name = "SPIFFE_ID", required_unless_present = "input")]
    pub(crate) caller: Option<Who>,
    /// Who is asked
    #[arg(long, value_name = "SPIFFE_ID", required_unless_present = "input")]
    pub(crate) agent: Option<SpiffeId>,
    #[command(flatten)]
    pub(crate) asked: Asked,
    /// Report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is asked.
#[derive(Debug, Args)]
pub(crate) struct Asked {
    /// The capability that is called
    #[arg(long, value_name = "NAME", required_unless_present = "input")]
    pub(crate) method: Option<String>,
    /// Its parameters, a JSON object; `@FILE` or `-` (standard input) reads them
    #[arg(long, value_name = "JSON|@FILE|-")]
    pub(crate) params: Option<String>,
    /// What is done with the capability or its task
    #[arg(long, value_name = "NAME", default_value = "SendMessage", value_parser = operation)]
    pub(crate) operation: OperationKind,
    /// The instant of the request, such as 2026-12-31T23:59:59Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub(crate) at: Option<UnixMillis>,
}

#[derive(Debug, Args)]
pub(crate) struct PolicyTest {
    /// Policies, tests in Rego, tables of cases, or directories of them
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) read: PolicyFile,
    /// Report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
