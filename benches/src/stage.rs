//! What the measurements of a server need: an issuer, workers, ceilings, and a caller's identity.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result};
use convoke_identity::{IdentitySource, WorkloadApiConfig, tls};
use convoke_model::SpiffeId;
use rustls::ClientConfig;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::authority::Authority;
use crate::ceiling::tls::client_config;
use crate::child::{Child, log_file};
use crate::contender::Contender;
use crate::cores::{self, Apart};
use crate::load::{Target, once};
use crate::wire::{self, Exchange};

pub(crate) const TRUST_DOMAIN: &str = "example.org";
pub(crate) const WORKER: &str = "spiffe://example.org/document-worker";
pub(crate) const CALLER: &str = "spiffe://example.org/orchestrator";

/// The tutorial's strict policy: the orchestrator alone, by its SPIFFE ID, and three methods.
pub(crate) const STRICT_POLICY: &str =
    include_str!("../../examples/document-pipeline/policies/worker_policy_strict.rego");

/// The tutorial's policy of the worker.
pub(crate) const SEED_POLICY: &str =
    include_str!("../../examples/document-pipeline/policies/worker_policy.rego");

/// The strict policy without its line about the caller, who is anonymous on a plaintext listener.
const ANONYMOUS_POLICY: &str = "package agentweave.authz

default allow = false

allow {
    input.request.method in [\"analyze_document\", \"count_words\", \"detect_sentiment\"]
}
";

/// Keeps the lines by which a worker says where it listens, whatever its level is.
const START_LINES: &str = "convoke_node::node=info";

/// What a worker says once its development listener is open.
pub(crate) const DEV_STARTED: &str =
    "Development listener started: plaintext, and every caller is anonymous";

/// How much a worker logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Warn,
    Info,
}

/// What a worker does beside answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Duties<'a> {
    /// Evaluates a policy; without, everything is allowed.
    pub(crate) policy: bool,
    /// Keeps a record on disk; without, records are made and written to nowhere.
    pub(crate) audit: bool,
    /// Sends a span of each request to this collector.
    pub(crate) collector: Option<&'a str>,
}

impl Default for Duties<'_> {
    fn default() -> Self {
        Self { policy: true, audit: true, collector: None }
    }
}

/// Which listener of a worker is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// Mutual TLS.
    Mesh,
    /// Plaintext.
    Dev,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Warn => "WARN",
            Self::Info => "INFO",
        }
    }
}

/// A directory with an issuer and the identity of a caller.
pub(crate) struct Stage {
    // In this order they go: sockets and files last.
    runtime: Runtime,
    source: IdentitySource,
    _issuer: Child,
    directory: TempDir,
    binary: PathBuf,
    /// Whether servers that are started now get a core of their own.
    apart: Cell<bool>,
}

impl Stage {
    /// Starts the issuer, and takes the caller's identity from it.
    pub(crate) fn set(binary: &Path) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("convoke-bench-").tempdir()?;
        let at = |name: &str| directory.path().join(name);
        let (socket, log) = (at("api.sock"), at("issuer.log"));
        let mut command = Command::new(binary);
        command
            .args(["identity", "serve", "--until-stdin-ends", "--trust-domain", TRUST_DOMAIN])
            .arg("--socket")
            .arg(&socket)
            .arg("--data-dir")
            .arg(at("issuer"))
            .env_remove("CONVOKE_LOG")
            .stdout(Stdio::null())
            .stderr(log_file(&log)?);
        let mut issuer = Child::start(&mut command)?;
        issuer.logged(&log, "Issuer started")?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let config = WorkloadApiConfig::new(socket, SpiffeId::parse(CALLER)?);
        let source = runtime.block_on(IdentitySource::connect(config))?;
        let binary = binary.to_owned();
        let apart = Cell::new(false);
        Ok(Self { runtime, source, _issuer: issuer, directory, binary, apart })
    }

    /// Does `measure` with servers on a core of their own, away from this process.
    pub(crate) fn apart<T>(&self, measure: impl FnOnce() -> Result<T>) -> Result<T> {
        let _apart = Apart::move_away()?;
        self.apart.set(true);
        let measured = measure();
        self.apart.set(false);
        measured
    }

    /// Whether servers that are started now get a core of their own.
    pub(crate) fn is_apart(&self) -> bool {
        self.apart.get()
    }

    /// Does `work` where the generator's own connections live.
    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Waits for the answer of `target` to the request, and gives the exchange.
    pub(crate) fn first_answer(&self, target: &Target) -> Result<(Exchange, Vec<u8>)> {
        let request = wire::request()?;
        let answer = self.ask(target, &request)?;
        Ok((Exchange::with_answer(request, &answer)?, answer))
    }

    /// Sends `request` to `target` and gives the answer as it came.
    pub(crate) fn ask(&self, target: &Target, request: &[u8]) -> Result<Vec<u8>> {
        self.runtime.block_on(once(target, request))
    }

    /// Starts a worker and waits until it listens.
    pub(crate) fn worker(&self, name: &'static str, door: Door, level: Level) -> Result<Contender> {
        self.worker_with(name, door, level, Duties::default())
    }

    /// As [`Self::worker`], with other duties than the usual ones.
    pub(crate) fn worker_with(
        &self,
        name: &'static str,
        door: Door,
        level: Level,
        duties: Duties<'_>,
    ) -> Result<Contender> {
        let (log, audit) =
            (self.path(&format!("{name}.log")), self.path(&format!("{name}.audit.jsonl")));
        let mut command = self.command_with(name, door, level, duties)?;
        command.stderr(log_file(&log)?);
        let mut child = Child::start(&mut command)?;
        let started = child.logged(&log, "Agent server started")?;
        let target = match door {
            Door::Mesh => self.mesh(&started)?,
            Door::Dev => {
                let line = child.logged(&log, DEV_STARTED)?;
                let addr = line["address"].as_str().context("no address")?.parse()?;
                Target { addr, tls: None }
            }
        };
        Ok(match duties.audit {
            true => Contender::worker(name, target, child, audit, log),
            // What it does not keep cannot be compared with what it answered.
            false => Contender::ceiling(name, target, child),
        })
    }

    /// How a worker is started; where its log goes is left open.
    pub(crate) fn command(&self, name: &str, door: Door, level: Level) -> Result<Command> {
        self.command_with(name, door, level, Duties::default())
    }

    fn command_with(
        &self,
        name: &str,
        door: Door,
        level: Level,
        duties: Duties<'_>,
    ) -> Result<Command> {
        let policy = match door {
            Door::Mesh => STRICT_POLICY,
            Door::Dev => ANONYMOUS_POLICY,
        };
        let policy_file = format!("{name}.rego");
        std::fs::write(self.path(&policy_file), policy)?;
        let config = self.path(&format!("{name}.yaml"));
        let audit = match duties.audit {
            true => self.path(&format!("{name}.audit.jsonl")),
            false => PathBuf::from("/dev/null"),
        };
        let authorization = match duties.policy {
            true => json!({
                "default_policy": "deny_all",
                "policy_path": self.directory.path(),
                "policy_file": policy_file,
            }),
            false => json!({ "default_policy": "allow_all" }),
        };
        // JSON is YAML too.
        let mut text = json!({
            "identity": { "spiffe_id": WORKER, "spire_socket": self.path("api.sock") },
            "authorization": authorization,
            "server": { "host": "127.0.0.1", "port": 0 },
            "observability": {
                "logging": { "level": level.as_str(), "format": "json" },
                "metrics": { "enabled": true, "port": 0 },
                "audit": { "path": audit },
            },
            "metadata": { "name": "Document Worker Agent", "version": "1.0.0" },
        });
        if let Some(endpoint) = duties.collector {
            text["observability"]["tracing"] =
                json!({ "enabled": true, "otlp_endpoint": endpoint, "sampling_rate": 1.0 });
        }
        std::fs::write(&config, text.to_string())?;
        let mut command = cores::server(&self.binary, self.apart.get());
        command.args(["serve", "--agent", "document-worker", "--until-stdin-ends"]);
        if door == Door::Dev {
            command.args(["--dev", "127.0.0.1:0"]);
        }
        if level == Level::Warn {
            command.env("CONVOKE_LOG", format!("warn,{START_LINES}"));
        } else {
            command.env_remove("CONVOKE_LOG");
        }
        command.arg(config).stdout(Stdio::null());
        Ok(command)
    }

    /// The mesh listener that a worker's line `Agent server started` tells of.
    pub(crate) fn mesh(&self, started: &Value) -> Result<Target> {
        let port = started["port"].as_u64().context("no port")?;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port)?));
        let worker = SpiffeId::parse(WORKER)?;
        let tls = tls::client_config(&self.source, &worker, &[b"http/1.1"])?;
        Ok(Target { addr, tls: Some(tls) })
    }

    /// Starts a collector that takes spans and forgets them; gives it and its address.
    pub(crate) fn collector(&self) -> Result<(Child, String)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("collector").stdout(Stdio::piped());
        let mut child = Child::start(&mut command)?;
        let endpoint = format!("http://{}", child.lines()?.next()?);
        Ok((child, endpoint))
    }

    /// Starts `ceil_http`, which answers `answer`.
    pub(crate) fn ceiling_http(&self, answer: &[u8]) -> Result<Contender> {
        self.ceiling("ceil_http", answer, None)
    }

    /// Starts `ceil_tls`, which answers `answer`.
    pub(crate) fn ceiling_tls(&self, answer: &[u8]) -> Result<Contender> {
        self.ceiling("ceil_tls", answer, Some(&Authority::new(TRUST_DOMAIN)?))
    }

    fn ceiling(
        &self,
        name: &'static str,
        answer: &[u8],
        authority: Option<&Authority>,
    ) -> Result<Contender> {
        let path = self.path(&format!("{name}.answer"));
        std::fs::write(&path, answer)?;
        let mut command = cores::server(&std::env::current_exe()?, self.apart.get());
        command.arg(name.replace('_', "-")).arg(path).stdout(Stdio::piped());
        let tls = match authority {
            None => None,
            Some(authority) => {
                command.arg(self.directory.path());
                Some(self.save_identity(authority)?)
            }
        };
        let mut child = Child::start(&mut command)?;
        let addr = child.lines()?.next()?.parse()?;
        Ok(Contender::ceiling(name, Target { addr, tls }, child))
    }

    /// Leaves the identity of a ceiling in the stage's directory, and gives the caller's side of it.
    pub(crate) fn save_identity(&self, authority: &Authority) -> Result<Arc<ClientConfig>> {
        let server = authority.leaf(&SpiffeId::parse(WORKER)?)?;
        server.save(&authority.root, self.directory.path())?;
        let caller = authority.leaf(&SpiffeId::parse(CALLER)?)?;
        client_config(&caller, &authority.root)
    }

    /// The directory with the identity that [`save_identity`](Self::save_identity) left.
    pub(crate) fn identity(&self) -> &Path {
        self.directory.path()
    }
}
