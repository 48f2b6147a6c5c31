//! Where a trial takes place: an issuer, agents, callers, in a directory that goes with the value.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result};
use convoke_identity::{IdentitySource, WorkloadApiConfig, tls};
use convoke_model::SpiffeId;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::child::{Child, log_file};
use crate::cores;
use crate::load::Target;

pub(crate) const AGENT: &str = "spiffe://example.org/exerciser";
const CALLER: &str = "spiffe://example.org/caller";

/// Lets the caller do everything.
pub(crate) const POLICY: &str = r#"package agentweave.authz

default allow := false

allow if input.caller.spiffe_id == "spiffe://example.org/caller"
"#;

/// An issuer and the identity of a caller.
pub(crate) struct Ground {
    // In this order they go: sockets and files last.
    pub(crate) runtime: Runtime,
    pub(crate) source: Arc<IdentitySource>,
    _issuer: Child,
    directory: TempDir,
}

/// An agent at work.
pub(crate) struct Agent {
    pub(crate) child: Child,
    pub(crate) addr: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) audit: PathBuf,
    pub(crate) policy: PathBuf,
    pub(crate) log: PathBuf,
}

impl Ground {
    /// Starts the issuer of `binary` with `arguments` beside the usual ones.
    pub(crate) fn set(binary: &Path, arguments: &[&str]) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("convoke-trial-").tempdir()?;
        let at = |name: &str| directory.path().join(name);
        let (socket, log) = (at("api.sock"), at("issuer.log"));
        let mut command = Command::new(binary);
        command
            .args(["identity", "serve", "--until-stdin-ends", "--trust-domain", "example.org"])
            .arg("--socket")
            .arg(&socket)
            .arg("--data-dir")
            .arg(at("issuer"))
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(log_file(&log)?);
        let mut issuer = Child::start(&mut command)?;
        issuer.logged(&log, "Issuer started")?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let config = WorkloadApiConfig::new(socket, SpiffeId::parse(CALLER)?);
        let source = Arc::new(runtime.block_on(IdentitySource::connect(config))?);
        Ok(Self { runtime, source, _issuer: issuer, directory })
    }

    /// Starts the trial's agent; `more` is merged into its configuration.
    pub(crate) fn agent(&self, name: &str, more: Value) -> Result<Agent> {
        self.agent_on(name, more, false)
    }

    /// As [`Self::agent`], on a core of its own if it is to be kept apart.
    pub(crate) fn agent_on(&self, name: &str, more: Value, apart: bool) -> Result<Agent> {
        let at = |suffix: &str| self.directory.path().join(format!("{name}.{suffix}"));
        let (config, policy) = (at("yaml"), at("rego"));
        let (audit, log) = (at("audit.jsonl"), at("log"));
        std::fs::write(&policy, POLICY)?;
        let mut text = json!({
            "identity": { "spiffe_id": AGENT, "spire_socket": self.directory.path().join("api.sock") },
            "authorization": { "policy_file": policy },
            "server": { "host": "127.0.0.1", "port": 0 },
            "observability": {
                "logging": { "level": "info", "format": "json" },
                "metrics": { "enabled": true, "port": 0 },
                "audit": { "path": audit },
            },
        });
        merge(&mut text, more);
        // JSON is YAML too.
        std::fs::write(&config, text.to_string())?;
        let mut command = cores::server(&std::env::current_exe()?, apart);
        command.arg("agent").arg(&config).stdout(Stdio::null()).stderr(log_file(&log)?);
        command.env("CONVOKE_LOG", "warn,convoke_node::node=info,convoke_node::policy=info");
        let mut child = Child::start(&mut command)?;
        let port = |line: &Value| -> Result<SocketAddr> {
            let port = u16::try_from(line["port"].as_u64().context("no port")?)?;
            Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        };
        let metrics = port(&child.logged(&log, "Metrics server started")?)?;
        let addr = port(&child.logged(&log, "Agent server started")?)?;
        Ok(Agent { child, addr, metrics, audit, policy, log })
    }

    /// Where the caller's requests to `agent` go.
    pub(crate) fn target(&self, agent: &Agent) -> Result<Target> {
        let tls = tls::client_config(&self.source, &SpiffeId::parse(AGENT)?, &[b"http/1.1"])?;
        Ok(Target { addr: agent.addr, tls: Some(tls) })
    }
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}
