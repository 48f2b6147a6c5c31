//! The configuration of one agent: the first seed's YAML, read once, checked whole.
//!
//! Parse, then build, then run: [`Config::load`] reports everything that is wrong with a file at
//! once, and nothing binds before it is happy. Contradictions are refused, never repaired; what
//! is legal but probably unmeant is said by [`Config::warnings`].

mod environment;
mod error;
mod foreign;
mod identity;
mod keys;
mod migrate;
mod overrides;
mod policy;
mod read;
mod reader;
pub mod reference;
mod schema;
mod settings;
#[cfg(test)]
mod tests;
mod text;
mod types;
mod unknown;
mod yaml;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use convoke_agent::{AgentConfig, CallSettings, Metadata, RegistryEntry};
use convoke_identity::regular_file;
pub use convoke_journal::Durability;
use convoke_model::system_error;

pub use environment::{Environment, Variables};
pub use error::{ConfigError, PROBLEMS_MAX, Problem};
pub use migrate::{Dropped, Migration, migrate};
pub use policy::PolicySource;
pub use schema::schema;
pub use settings::{Origin, Setting};
pub use types::{
    AuditConfig, AuthorizationConfig, DecisionLogConfig, DefaultPolicy, IdentityConfig,
    IdentityFiles, JournalConfig, LimitsConfig, LoggingConfig, MetricsConfig, ObservabilityConfig,
    OpaConfig, RegoVersion, ServerConfig, Stage, TasksConfig, TracingConfig,
};

/// Where a process finds the files that were open when it began. Standard input is one, and so is
/// what a shell makes of `<(command)`.
const HANDED_OVER: [&str; 3] = ["/dev/stdin", "/dev/fd", "/proc/self/fd"];

/// The configuration of one agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file that it came from, as the user named it.
    pub file: PathBuf,
    /// `identity`: who the agent is.
    pub identity: IdentityConfig,
    /// `authorization`: which policy decides.
    pub authorization: AuthorizationConfig,
    /// `server`: where the mesh listener is.
    pub server: ServerConfig,
    /// `agent_registry`: the agents that this one may call by a name of its own choosing.
    pub agent_registry: BTreeMap<String, RegistryEntry>,
    /// `calls`: how agents are called, unless their entry of `agent_registry` says otherwise.
    pub calls: CallSettings,
    /// `observability`: what the agent shows of itself.
    pub observability: ObservabilityConfig,
    /// `metadata`: what the agent says about itself. The name is by default the last segment of the
    /// SPIFFE ID, the version `0.0.0`; keys that we do not know are the agent's own.
    pub metadata: Metadata,
    /// `environment`: where the agent runs, if the file says so.
    pub stage: Option<Stage>,
    /// `journal`: where tasks are kept.
    pub journal: JournalConfig,
    /// `tasks`: how many are worked on.
    pub tasks: TasksConfig,
    /// The directory for what the agent writes: `data_dir`, or one below the user's state
    /// directory that no other identity shares. It is not made here.
    pub data_dir: PathBuf,
    /// Line and column of `authorization.policy_file`, for when there is no such file.
    policy_at: read::Position,
    /// The same of the keys of `identity.files`.
    files_at: identity::Positions,
    warnings: Vec<String>,
}

impl Config {
    /// Reads and checks the file at `path`, with this process's environment variables.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the file, or why it cannot be read.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Ok(Self::load_explained(path)?.0)
    }

    /// As [`Config::load`], with what each key comes to and where that is from.
    ///
    /// # Errors
    ///
    /// As [`Config::load`].
    pub fn load_explained(path: &Path) -> Result<(Self, Vec<Setting>), ConfigError> {
        let name = path.display().to_string();
        let text = read_own_text(path).map_err(|why| {
            let why = system_error(&why);
            ConfigError::of_file(&name, format!("the configuration cannot be read: {why}"), None)
        })?;
        let (mut config, settings) = Self::explain(&text, &name, &Environment::of_process())?;
        // The name is for people and may have lost bytes that are not UTF-8.
        config.file = path.to_owned();
        Ok((config, settings))
    }

    /// Checks the configuration `text`, with this process's environment variables; `name` is what
    /// messages call it.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub fn parse(text: &str, name: &str) -> Result<Self, ConfigError> {
        Self::parse_in(text, name, &Environment::of_process())
    }

    /// As [`Config::parse`], with the environment given: a function of its arguments.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub fn parse_in(text: &str, name: &str, env: &Environment) -> Result<Self, ConfigError> {
        Ok(Self::explain(text, name, env)?.0)
    }

    /// As [`Config::parse_in`], with what each key comes to and where that is from.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub fn explain(
        text: &str,
        name: &str,
        env: &Environment,
    ) -> Result<(Self, Vec<Setting>), ConfigError> {
        read::config(text, name, env)
    }

    /// What is legal but probably unmeant, one sentence each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The policy of `policy_file`; `None` if there is none, and `default_policy` decides.
    ///
    /// A relative `policy_path` starts from the working directory, as in the seed; if the file is
    /// not there, from the directory of the configuration. [`PolicySource::path`] says which.
    ///
    /// # Errors
    ///
    /// If the file is not found, too long or not readable; the message lists where we looked.
    pub fn policy(&self) -> Result<Option<PolicySource>, ConfigError> {
        policy::load(self)
    }

    /// The policy, from the very place where it was found before: other places are not looked at, so
    /// that removing it does not let another file decide.
    ///
    /// # Errors
    ///
    /// If there is no file any more, or it is too long or not readable.
    pub(crate) fn policy_again(&self, place: &Path) -> Result<PolicySource, ConfigError> {
        policy::load_again(self, place)
    }

    /// Looks for what the agent takes its identity from: that a socket is named, which may come to
    /// be later, or that the files are there and can be opened. What is in them is not looked at.
    ///
    /// # Errors
    ///
    /// Each file that cannot be opened, or the socket that is not named: the agent cannot start.
    pub fn check_identity(&self) -> Result<(), ConfigError> {
        identity::check(self)
    }

    /// What a handler may see of this.
    #[must_use]
    pub fn agent_config(&self) -> AgentConfig {
        AgentConfig {
            spiffe_id: self.identity.spiffe_id.clone(),
            metadata: self.metadata.clone(),
            agent_registry: self.agent_registry.clone(),
            calls: self.calls.clone(),
        }
    }

    /// The Workload API's socket, which every listener but the development one needs.
    ///
    /// # Errors
    ///
    /// If neither the file nor the environment names one.
    pub fn workload_socket(&self) -> Result<&Path, ConfigError> {
        self.identity.socket.as_deref().ok_or_else(|| {
            let problem = Problem::of_key(
                "identity.spire_socket",
                "`identity.spire_socket` is missing, and so is SPIFFE_ENDPOINT_SOCKET".to_owned(),
                Some("name the Workload API's socket, as `convoke identity serve` prints it"),
            );
            ConfigError::new(&self.file.display().to_string(), vec![problem])
        })
    }
}

/// Reads a text file that a configuration names, of at most [`yaml::TEXT_BYTES_MAX`] bytes.
fn read_text(path: &Path) -> std::io::Result<String> {
    regular_file::read_text(path, yaml::TEXT_BYTES_MAX)
}

/// As [`read_text`], for the configuration itself, which a shell may also hand over as a pipe: that
/// one is open already, and ends.
fn read_own_text(path: &Path) -> std::io::Result<String> {
    if HANDED_OVER.iter().any(|place| path.starts_with(place)) {
        return regular_file::text_of(File::open(path)?, yaml::TEXT_BYTES_MAX);
    }
    read_text(path)
}
