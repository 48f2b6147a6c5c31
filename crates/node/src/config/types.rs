//! What a configuration says, once it has been read and checked.

use convoke_journal::Durability;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use convoke_model::{Secret, SpiffeId, TrustDomain};

/// Who the agent is.
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
    /// `files`, when `provider` is `files`: the identity is read from files instead.
    pub files: Option<IdentityFiles>,
}

/// An identity that something else keeps in files, as PEM. They are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// `certificate`: the SVID, leaf first, with its intermediates.
    pub certificate: PathBuf,
    /// `private_key`: its key, as PKCS #8; a file that only its owner may read.
    pub private_key: PathBuf,
    /// `bundle`: the roots of the own trust domain.
    pub bundle: PathBuf,
    /// `federated`: the roots of other trust domains.
    pub federated: BTreeMap<TrustDomain, PathBuf>,
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
    /// `data_files`: JSON files whose content the policy sees as `data`, relative to `policy_path`.
    pub data_files: Vec<PathBuf>,
    /// `reload_interval`: how often the policy's files are looked at for a change; `None` never.
    pub reload_interval: Option<Duration>,
    /// `opa`, if enabled: an OPA server that decides instead of the embedded engine.
    pub opa: Option<OpaConfig>,
    /// `decision_log`, if enabled: where each decision is kept with what it was decided on.
    pub decision_log: Option<DecisionLogConfig>,
}

/// An OPA server that decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpaConfig {
    /// `url`: where the server is, as in `http://localhost:8181`. Plain HTTP is for this machine
    /// alone.
    pub url: String,
    /// `path`: what is asked below `/v1/data/`; by default the package with slashes.
    pub path: String,
    /// `timeout`: how long an answer may take; without one the call is refused.
    pub timeout: Duration,
    /// `token`: sent as a bearer token.
    pub token: Option<Secret>,
}

/// Where decisions are kept with what they were decided on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionLogConfig {
    /// `path`: the file of JSON lines; by default `decisions.jsonl` in the data directory.
    pub path: PathBuf,
    /// `params`: whether the parameters of calls are kept too.
    pub params: bool,
    /// `rotate_bytes`: size at which a new file is begun; `None` never begins one.
    pub rotate_bytes: Option<u64>,
    /// `keep`: how many old files are kept.
    pub keep: u32,
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
    /// `drain_timeout`: how long running requests and tasks may take to end when the node is asked
    /// to.
    pub drain_timeout: Duration,
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
    /// `requests_max`: most requests that are worked on at a time; further ones wait a moment and
    /// are then turned away.
    pub requests_max: usize,
    /// `queue_time_max`: how long a request waits for its turn at most.
    pub queue_time_max: Duration,
}

/// What the agent shows of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservabilityConfig {
    /// `logging`.
    pub logging: LoggingConfig,
    /// `metrics`, if enabled: where the plain HTTP listener is.
    pub metrics: Option<MetricsConfig>,
    /// `tracing`, if enabled: where spans are sent.
    pub tracing: Option<TracingConfig>,
    /// `audit`.
    pub audit: AuditConfig,
}

/// Where spans, and log lines if wished, are sent: an OpenTelemetry collector, by OTLP over gRPC.
#[derive(Debug, Clone, PartialEq)]
pub struct TracingConfig {
    /// `otlp_endpoint`: where the collector is, as in `http://localhost:4317`.
    pub otlp_endpoint: String,
    /// `sampling_rate`: which share of the traces that begin here is recorded, from 0 to 1. A trace
    /// that began elsewhere is recorded if whoever began it does.
    pub sampling_rate: f64,
    /// `service_name`: by default the agent's name.
    pub service_name: Option<String>,
    /// `headers`: sent with each export, for the collector's authentication.
    pub headers: BTreeMap<String, Secret>,
    /// `logs`: whether log lines are sent too.
    pub logs: bool,
}

/// How much is logged, and in which shape.
#[derive(Debug, Clone, PartialEq)]
pub struct LoggingConfig {
    /// `level`: the least severe level that is logged.
    pub level: tracing::Level,
    /// `format`: `json` for programs, `pretty` for people.
    pub format: crate::observe::logging::Format,
    /// `sampling_rate`: which share of the lines on requests that went well is written, from 0 to
    /// 1. Warnings and errors are always written.
    pub sampling_rate: f64,
    /// `redact`: names of fields, beside those that are always, whose values are not written.
    pub redact: Vec<String>,
}

/// Where metrics and health are served, without TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsConfig {
    /// `path`: the path of the metrics, by default `/metrics`.
    pub path: String,
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
    /// `rotate_bytes`: size at which a new file is begun; `None` never begins one.
    pub rotate_bytes: Option<u64>,
    /// `keep`: how many old files are kept.
    pub keep: u32,
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

/// Where tasks are kept, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalConfig {
    /// `durability`: what an acknowledgement is worth.
    pub durability: Durability,
    /// `path`: the directory of the store; nothing is in it where tasks are kept in memory.
    pub path: PathBuf,
    /// `keep_ended`: how long tasks are kept after their end; `None` is for ever.
    pub keep_ended: Option<Duration>,
    /// `keep_tasks`: how many ended tasks are kept.
    pub keep_tasks: u64,
}

/// How many tasks are worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TasksConfig {
    /// `concurrency_max`: how many at a time.
    pub concurrency_max: usize,
    /// `queue_max`: how many further ones wait.
    pub queue_max: usize,
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
