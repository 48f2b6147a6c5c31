//! Agents in the test's own process, with throw-away identities, real mTLS and real policies.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use convoke_agent::{Agent, CallError, Host, HostError};
use convoke_client::Client;
use convoke_identity::IdentitySource;
use convoke_model::{Json, SpiffeId, SpiffeIdError, TrustDomain};
use convoke_node::config::{Config, ConfigError, Environment};
use convoke_node::{Node, NodeOptions, StartError, Summary};
use serde::Serialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::MockCallee;
use super::authority::Authority;
use super::door::{Cutter, Door};

/// Agents of one trust domain that are about to run in this process.
///
/// Each knows all others: in its registry, an agent's key is its path with `_` in place of `-`, `.`
/// and `/`. An agent is called by its path, such as `document-worker`.
#[must_use = "a mesh runs once it is started"]
#[derive(Default)]
pub struct Mesh {
    trust_domain: String,
    agents: Vec<Planned>,
    changes: Vec<(String, Change)>,
}

/// Something that a test wants otherwise in a configuration.
type Change = Box<dyn FnOnce(&mut Config) + Send>;

struct Planned {
    path: String,
    policy: TestPolicy,
    cutter: Cutter,
    host: Result<Host, HostError>,
}

/// Who may call an agent of a [`Mesh`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestPolicy(Source);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    AllowAll,
    DenyAll,
    Rego(String),
    File(PathBuf),
}

/// A mesh whose agents answer. Dropped, it ends at once; [`stop`](RunningMesh::stop) drains it.
pub struct RunningMesh {
    trust_domain: TrustDomain,
    authority: Authority,
    agents: BTreeMap<String, Running>,
    /// One for each identity that has called, so that their connections are used again.
    clients: Mutex<BTreeMap<SpiffeId, Client>>,
    shutdown: CancellationToken,
    /// What the agents write; goes with the mesh.
    _dir: TempDir,
}

struct Running {
    spiffe_id: SpiffeId,
    address: String,
    audit: PathBuf,
    identity: Arc<IdentitySource>,
    door: Door,
    node: AbortOnDropHandle<Summary>,
}

/// Why a mesh does not start, or has not got what is asked of it.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// A trust domain or path that is none.
    #[error("`{name}`: {problem}")]
    Name {
        /// The trust domain or the path.
        name: String,
        /// What is wrong with it.
        problem: SpiffeIdError,
    },
    /// No agent of the mesh has this path.
    #[error("no agent of the mesh has the path `{path}`; there are {}", known.join(", "))]
    Unknown {
        /// The path that was asked for.
        path: String,
        /// The paths that there are.
        known: Vec<String>,
    },
    /// Two agents of one path.
    #[error("two agents of the mesh have the path `{0}`")]
    Twice(String),
    /// The agent's capabilities are wrong.
    #[error("agent `{path}`: {problem}")]
    Agent {
        /// Its path.
        path: String,
        /// What is wrong.
        problem: HostError,
    },
    /// What the test changed makes no configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The agent's node did not start.
    #[error("agent `{path}` does not start: {problem}")]
    Start {
        /// Its path.
        path: String,
        /// Why.
        problem: Box<StartError>,
    },
    /// No identity could be made.
    #[error("no identity: {0}")]
    Identity(String),
    /// The machine has no port, or no room for what agents write.
    #[error("the machine: {0}")]
    Io(#[from] io::Error),
    /// A record of the audit trail cannot be read.
    #[error("an audit record cannot be read: {0}")]
    Record(#[from] serde_json::Error),
}

impl TestPolicy {
    /// Everybody may call everything.
    #[must_use]
    pub fn allow_all() -> Self {
        Self(Source::AllowAll)
    }

    /// Nobody may call anything.
    #[must_use]
    pub fn deny_all() -> Self {
        Self(Source::DenyAll)
    }

    /// This Rego decides.
    #[must_use]
    pub fn rego(text: impl Into<String>) -> Self {
        Self(Source::Rego(text.into()))
    }

    /// The Rego in this file decides.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Source::File(path.into()))
    }
}

/// Rego text.
impl From<&str> for TestPolicy {
    fn from(text: &str) -> Self {
        Self::rego(text)
    }
}

impl Mesh {
    /// A mesh of this trust domain, without agents.
    pub fn new(trust_domain: &str) -> Self {
        Self { trust_domain: trust_domain.to_owned(), ..Self::default() }
    }

    /// Adds `agent` under `path`; its SPIFFE ID is `spiffe://<trust domain>/<path>`.
    pub fn agent<A: Agent>(self, path: &str, agent: A, policy: impl Into<TestPolicy>) -> Self {
        let host = Host::new(agent);
        self.with(Planned {
            path: path.to_owned(),
            policy: policy.into(),
            cutter: Cutter::default(),
            host,
        })
    }

    /// Adds a stand-in under `path`.
    pub fn mock(self, path: &str, mock: MockCallee) -> Self {
        let (policy, cutter) = (mock.policy(), Cutter::default());
        let host = mock.host(&cutter);
        self.with(Planned { path: path.to_owned(), policy, cutter, host })
    }

    /// Changes the configuration of the agent at `path`, such as how it calls others. What the mesh
    /// needs itself (identity, port, policy, audit) is better left alone.
    pub fn configure(
        mut self,
        path: &str,
        change: impl FnOnce(&mut Config) + Send + 'static,
    ) -> Self {
        self.changes.push((path.to_owned(), Box::new(change)));
        self
    }

    fn with(mut self, planned: Planned) -> Self {
        self.agents.push(planned);
        self
    }

    /// Starts all agents, each with an identity of its own and on a free port.
    ///
    /// # Errors
    ///
    /// [`MeshError`] names what is wrong with which agent.
    pub async fn start(self) -> Result<RunningMesh, MeshError> {
        let Self { trust_domain, agents, mut changes } = self;
        let trust_domain = TrustDomain::parse(&trust_domain)
            .map_err(|problem| MeshError::Name { name: trust_domain, problem })?;
        let authority = Authority::new(&trust_domain).map_err(identity)?;
        let dir = tempfile::tempdir()?;
        let shutdown = CancellationToken::new();

        // Addresses come first, because each agent is configured with those of all others.
        let mut doors = Vec::new();
        let mut registry = BTreeMap::new();
        for planned in &agents {
            let door = Door::open(planned.cutter.clone()).await?;
            let id = member(&trust_domain, &planned.path)?;
            let entry = json!({"spiffe_id": id, "address": format!("https://{}", door.address())});
            if registry.insert(planned.path.clone(), entry).is_some() {
                return Err(MeshError::Twice(planned.path.clone()));
            }
            doors.push((id, door));
        }
        let known: Vec<String> = registry.keys().cloned().collect();

        let mut running = BTreeMap::new();
        for (place, (planned, (id, door))) in agents.into_iter().zip(doors).enumerate() {
            let Planned { path, policy, host, .. } = planned;
            let host = host.map_err(|problem| MeshError::Agent { path: path.clone(), problem })?;
            let own_dir = dir.path().join(place.to_string());
            std::fs::create_dir(&own_dir)?;
            let mut config = configuration(&own_dir, &id, &path, &policy, &registry)?;
            for (_, change) in changes.extract_if(.., |(of, _)| *of == path) {
                change(&mut config);
            }
            let own = Arc::new(authority.identity(&id).map_err(identity)?);
            let options =
                NodeOptions { identity: Some(Arc::clone(&own)), ..NodeOptions::default() };
            let audit = config.observability.audit.path.clone();
            let node = Node::start(config, host, options).await.map_err(|problem| {
                MeshError::Start { path: path.clone(), problem: problem.into() }
            })?;
            door.lead_to(node.mesh_addr());
            let address = format!("https://{}", door.address());
            let node = AbortOnDropHandle::new(tokio::spawn(node.run(shutdown.clone())));
            let agent = Running { spiffe_id: id, address, audit, identity: own, door, node };
            running.insert(path, agent);
        }
        if let Some((path, _)) = changes.into_iter().next() {
            return Err(MeshError::Unknown { path, known });
        }
        let clients = Mutex::default();
        Ok(RunningMesh { trust_domain, authority, agents: running, clients, shutdown, _dir: dir })
    }
}

impl RunningMesh {
    /// Calls `capability` of the agent at path `agent` as the identity at path `caller`, which need
    /// not be an agent.
    ///
    /// # Errors
    ///
    /// As calls have them; a name that the mesh does not know is a test's mistake.
    ///
    /// # Panics
    ///
    /// If `caller` is no path, or no agent has the path `agent`.
    pub async fn call_as(
        &self,
        caller: &str,
        agent: &str,
        capability: &str,
        params: impl Serialize,
    ) -> Result<Json, CallError> {
        let (client, callee) = match (self.client(caller), self.find(agent)) {
            (Ok(client), Ok(callee)) => (client, callee),
            (Err(error), _) | (_, Err(error)) => panic!("{error}"),
        };
        let call = client.call(&callee.spiffe_id, capability, params);
        call.address(&*callee.address).json().await
    }

    /// A client that calls as the identity at `path`.
    ///
    /// # Errors
    ///
    /// [`MeshError::Name`] if it is no path.
    pub fn client(&self, path: &str) -> Result<Client, MeshError> {
        let id = member(&self.trust_domain, path)?;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&id) {
            return Ok(client.clone());
        }
        let source = Arc::new(self.authority.identity(&id).map_err(identity)?);
        let client = Client::with_source(source);
        clients.insert(id, client.clone());
        Ok(client)
    }

    /// Where the agent at `path` is, as an `https` URL.
    ///
    /// # Errors
    ///
    /// [`MeshError::Unknown`].
    pub fn address(&self, path: &str) -> Result<&str, MeshError> {
        Ok(&self.find(path)?.address)
    }

    /// Who the agent at `path` is.
    ///
    /// # Errors
    ///
    /// [`MeshError::Unknown`].
    pub fn spiffe_id(&self, path: &str) -> Result<&SpiffeId, MeshError> {
        Ok(&self.find(path)?.spiffe_id)
    }

    /// The audit records of the agent at `path` so far. The record of a call that has been answered
    /// is among them.
    ///
    /// # Errors
    ///
    /// [`MeshError`] if there is no such agent, or its file cannot be read.
    pub fn audit(&self, path: &str) -> Result<Vec<Value>, MeshError> {
        let text = std::fs::read_to_string(&self.find(path)?.audit)?;
        Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    }

    /// Renews the certificate of the agent at `path`, as its issuer would in time.
    ///
    /// # Errors
    ///
    /// [`MeshError::Unknown`], or why there is no certificate.
    pub fn renew(&self, path: &str) -> Result<(), MeshError> {
        let agent = self.find(path)?;
        let material = self.authority.material(&agent.spiffe_id).map_err(identity)?;
        agent.identity.publish(material).map_err(identity)?;
        Ok(())
    }

    /// Takes the agent at `path` off the network: its connections are cut, and new ones are closed
    /// at once.
    ///
    /// # Errors
    ///
    /// [`MeshError::Unknown`].
    pub fn unplug(&self, path: &str) -> Result<(), MeshError> {
        let cutter = self.find(path)?.door.cutter();
        cutter.shut(true);
        cutter.cut();
        Ok(())
    }

    /// Brings the agent at `path` back.
    ///
    /// # Errors
    ///
    /// [`MeshError::Unknown`].
    pub fn plug_in(&self, path: &str) -> Result<(), MeshError> {
        self.find(path)?.door.cutter().shut(false);
        Ok(())
    }

    /// Drains all agents and waits until they have ended.
    pub async fn stop(self) {
        self.shutdown.cancel();
        for (_, agent) in self.agents {
            // A node that panicked has said so on standard error.
            let _ended = agent.node.await;
        }
    }

    fn find(&self, path: &str) -> Result<&Running, MeshError> {
        self.agents.get(path).ok_or_else(|| MeshError::Unknown {
            path: path.to_owned(),
            known: self.agents.keys().cloned().collect(),
        })
    }
}

fn identity(error: impl std::error::Error) -> MeshError {
    MeshError::Identity(convoke_model::chain(&error))
}

fn member(trust_domain: &TrustDomain, path: &str) -> Result<SpiffeId, MeshError> {
    trust_domain
        .member(&format!("/{path}"))
        .map_err(|problem| MeshError::Name { name: path.to_owned(), problem })
}

fn configuration(
    dir: &Path,
    id: &SpiffeId,
    path: &str,
    policy: &TestPolicy,
    registry: &BTreeMap<String, Value>,
) -> Result<Config, MeshError> {
    let authorization = match &policy.0 {
        Source::AllowAll => json!({"default_policy": "allow_all"}),
        Source::DenyAll => json!({"default_policy": "deny_all"}),
        Source::Rego(text) => {
            std::fs::write(dir.join("policy.rego"), text)?;
            json!({"policy_path": dir, "policy_file": "policy.rego"})
        }
        Source::File(file) => {
            std::fs::copy(file, dir.join("policy.rego"))?;
            json!({"policy_path": dir, "policy_file": "policy.rego"})
        }
    };
    let key = |path: &str| path.replace(['-', '.', '/'], "_");
    let others: BTreeMap<String, &Value> = registry
        .iter()
        .filter(|(other, _)| *other != path)
        .map(|(other, entry)| (key(other), entry))
        .collect();
    let text = json!({
        "identity": {"spiffe_id": id, "trust_domain": id.trust_domain_str()},
        "authorization": authorization,
        "server": {"host": "127.0.0.1", "port": 0},
        "agent_registry": others,
        "observability": {"audit": {"path": dir.join("audit.jsonl"), "sync": true}},
        "metadata": {"name": path},
        "data_dir": dir,
    });
    // JSON is YAML. Nothing of the environment of whoever runs the test counts.
    Ok(Config::parse_in(&text.to_string(), path, &Environment::default())?)
}
