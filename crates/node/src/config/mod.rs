//! The configuration of one agent: the first seed's YAML, read once, checked whole.
//!
//! Parse, then build, then run: [`Config::load`] reports everything that is wrong with a file at
//! once, and nothing binds before it is happy. Contradictions are refused, never repaired; what
//! is legal but probably unmeant is said by [`Config::warnings`].

mod environment;
mod error;
mod policy;
mod read;
mod reader;
#[cfg(test)]
mod tests;
mod yaml;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use convoke_agent::{AgentConfig, Metadata, RegistryEntry};
use convoke_model::{SpiffeId, TrustDomain};

pub use environment::Environment;
pub use error::{ConfigError, PROBLEMS_MAX, Problem};
pub use policy::PolicySource;

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
    /// `observability`: what the agent shows of itself.
    pub observability: ObservabilityConfig,
    /// `metadata`: what the agent says about itself. The name is by default the last segment of the
    /// SPIFFE ID, the version `0.0.0`; keys that we do not know are the agent's own.
    pub metadata: Metadata,
    /// `environment`: where the agent runs, if the file says so.
    pub stage: Option<Stage>,
    /// `journal`: where tasks are kept.
    pub journal: JournalConfig,
    /// The directory for what the agent writes: `data_dir`, or one below the user's state
    /// directory that no other identity shares. It is not made here.
    pub data_dir: PathBuf,
    warnings: Vec<String>,
}

/// Who the agent is. The only provider so far is the SPIFFE Workload API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityConfig {
    /// `spiffe_id`: the agent's own ID; it refuses to start under another.
    pub spiffe_id: SpiffeId,
    /// `trust_domain`: always that of `spiffe_id`.
    pub trust_domain: TrustDomain,
    /// `spire_socket`, else `SPIFFE_ENDPOINT_SOCKET`: the Workload API's unix socket.
    pub socket: Option<PathBuf>,
    /// `issuer_uid`: the user that may own the socket's other end, beside root and our own.
    pub issuer_uid: Option<u32>,
}

/// Which policy decides. `engine` is `opa` or `rego`; both are the embedded one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationConfig {
    /// `default_policy`: the decision when no policy is loaded, and only then.
    pub default_policy: DefaultPolicy,
    /// `policy_path`: the directory of `policy_file`.
    pub policy_path: PathBuf,
    /// `policy_file`: the one policy that is loaded.
    pub policy_file: Option<PathBuf>,
    /// `package`: the Rego package whose rules decide.
    pub package: String,
    /// `rego_version`: how to parse the policy, if it is not to be found out.
    pub rego_version: Option<RegoVersion>,
}

/// The decision when no policy is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultPolicy {
    /// Refuse everything.
    DenyAll,
    /// Allow everything; refused in production.
    AllowAll,
}

/// A dialect of Rego.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegoVersion {
    /// As of OPA before 1.0.
    V0,
    /// As of OPA 1.0.
    V1,
}

/// Where the mesh listener is. It speaks SPIFFE mTLS; there is no switch for that in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// `host`: the address to listen on; by default the loopback address.
    pub host: IpAddr,
    /// `port`: 0 means any free one; by default the seed's 8443.
    pub port: u16,
    /// `advertise_address`: the `https` URL at which others reach the agent, for its card.
    pub advertise_address: Option<String>,
    /// `limits`: what one caller may take.
    pub limits: LimitsConfig,
}

/// What one caller may take. Defaults are those of [`convoke_model::limits`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsConfig {
    /// `body_bytes_max`: largest request body, in bytes.
    pub body_bytes_max: usize,
    /// `connections_max`: most connections at a time.
    pub connections_max: usize,
    /// `idle_timeout`: how long a connection may be idle between requests.
    pub idle_timeout: Duration,
    /// `connection_age_max`: longest life of a connection.
    pub connection_age_max: Duration,
}

/// What the agent shows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservabilityConfig {
    /// `logging`.
    pub logging: LoggingConfig,
    /// `metrics`, if enabled: where the plain HTTP listener is.
    pub metrics: Option<MetricsConfig>,
    /// `audit`.
    pub audit: AuditConfig,
}

/// How much is logged, and in which shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggingConfig {
    /// `level`: the least severe level that is logged.
    pub level: tracing::Level,
    /// `format`: `json` for programs, `pretty` for people.
    pub format: crate::observe::logging::Format,
}

/// Where metrics and health are served, without TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsConfig {
    /// `host`: by default the loopback address, since the listener has no authentication.
    pub host: IpAddr,
    /// `port`: 0 means any free one; by default the seed's 9090.
    pub port: u16,
}

/// Where decisions are recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditConfig {
    /// `path`: the file of JSON lines; by default `audit.jsonl` in the data directory.
    pub path: PathBuf,
    /// `sync`: whether an answer waits until its record is on disk.
    pub sync: bool,
}

/// Where the agent runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// On a developer's machine.
    Development,
    /// Where production is rehearsed.
    Staging,
    /// Where it counts: what is only for development is refused.
    Production,
}

/// Where tasks are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalConfig {
    /// `durability`: what an acknowledgement is worth.
    pub durability: Durability,
}

/// What an acknowledgement is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing survives the process.
    Memory,
}

impl Config {
    /// Reads and checks the file at `path`, with this process's environment variables.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the file, or why it cannot be read.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let text = read_text(path).map_err(|why| {
            ConfigError::of_file(&name, format!("the configuration cannot be read: {why}"), None)
        })?;
        let mut config = Self::parse_in(&text, &name, &Environment::of_process())?;
        // The name is for people and may have lost bytes that are not UTF-8.
        config.file = path.to_owned();
        Ok(config)
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

    /// What a handler may see of this.
    #[must_use]
    pub fn agent_config(&self) -> AgentConfig {
        AgentConfig {
            spiffe_id: self.identity.spiffe_id.clone(),
            metadata: self.metadata.clone(),
            agent_registry: self.agent_registry.clone(),
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

impl ServerConfig {
    /// Host and port together.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }
}

impl MetricsConfig {
    /// Host and port together.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }
}

impl Stage {
    /// The word of the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Staging => "staging",
            Self::Production => "production",
        }
    }
}

/// Reads a text file of at most [`yaml::TEXT_BYTES_MAX`] bytes.
fn read_text(path: &Path) -> std::io::Result<String> {
    use std::io::{Error, ErrorKind};
    let mut text = String::new();
    let limit = u64::try_from(yaml::TEXT_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(limit).read_to_string(&mut text)?;
    if text.len() > yaml::TEXT_BYTES_MAX {
        let why = format!("longer than {} bytes", yaml::TEXT_BYTES_MAX);
        return Err(Error::new(ErrorKind::FileTooLarge, why));
    }
    Ok(text)
}
