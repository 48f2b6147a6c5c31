//! An issuer and a node on free ports, in a directory that goes with them.

#![allow(dead_code, reason = "programs of tests share it, and each uses a part")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use convoke_a2a::headers::{A2A_VERSION, VERSION_1};
use convoke_agent::{CallError, Host};
use convoke_client::{Client, ClientOptions};
use convoke_identity::issuer::{Issuer, IssuerConfig};
use convoke_model::{Json, SpiffeId, TrustDomain};
use convoke_net::client::{Address, Dialer, Pool, PoolLimits, Provenance, Route};
use convoke_node::config::Config;
use convoke_node::{Node, NodeOptions, Summary};
use http::Request;
use http::header::CONTENT_TYPE;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

/// One node and what it needs.
pub(crate) struct World {
    dir: tempfile::TempDir,
    mesh: String,
    dev: String,
    metrics: Option<String>,
    agent: SpiffeId,
    shutdown: CancellationToken,
    node: JoinHandle<Summary>,
    issuer: JoinHandle<()>,
    pool: Pool,
}

impl World {
    pub(crate) async fn start(host: Host, policy: &str) -> Self {
        Self::start_with(host, policy, |_| {}).await
    }

    /// As [`World::start`], with a configuration that `change` has changed.
    pub(crate) async fn start_with(
        host: Host,
        policy: &str,
        change: impl FnOnce(&mut Value),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let shutdown = CancellationToken::new();
        let domain = TrustDomain::parse("example.org").unwrap();
        let agent = domain.member("/agent").unwrap();
        let issuer = IssuerConfig::new(domain, path("issuer"), path("api.sock"));
        let issuer = Issuer::open(issuer).unwrap().bind().await.unwrap();
        let issuer = tokio::spawn(issuer.serve(CancellationToken::clone(&shutdown)));
        std::fs::write(path("policy.rego"), policy).unwrap();
        let mut yaml = json!({
            "identity": {"spiffe_id": agent, "trust_domain": "example.org",
                "spire_socket": path("api.sock")},
            "authorization": {"policy_path": dir.path(), "policy_file": "policy.rego"},
            "server": {"port": 0},
            "observability": {"audit": {"path": path("audit.jsonl")}},
            "data_dir": path("data"),
        });
        change(&mut yaml);
        // JSON is YAML.
        let config = Config::parse(&yaml.to_string(), "test").unwrap();
        let dev = Some("127.0.0.1:0".parse().unwrap());
        let options = NodeOptions { dev, ..NodeOptions::default() };
        let node = Node::start(config, host, options).await.unwrap();
        let mesh = format!("https://localhost:{}", node.mesh_addr().port());
        let dev = format!("http://{}", node.dev_addr().unwrap());
        let metrics = node.metrics_addr().map(|address| format!("http://{address}"));
        let node = tokio::spawn(node.run(shutdown.clone()));
        let pool = Pool::new(Dialer::default(), PoolLimits::default());
        Self { dir, mesh, dev, metrics, agent, shutdown, node, issuer, pool }
    }

    /// Where the development listener is.
    pub(crate) fn dev_address(&self) -> &str {
        &self.dev
    }

    /// Writes another policy.
    pub(crate) fn set_policy(&self, policy: &str) {
        std::fs::write(self.dir.path().join("policy.rego"), policy).unwrap();
    }

    /// What is in the audit trail so far.
    pub(crate) fn trail(&self) -> Vec<Value> {
        // It may just have been moved, and the last line may be half there.
        let audit =
            std::fs::read_to_string(self.dir.path().join("audit.jsonl")).unwrap_or_default();
        audit.lines().map_while(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Moves the file of the audit trail, as people do who rotate files themselves.
    pub(crate) fn move_audit_away(&self) {
        let path = |name: &str| self.dir.path().join(name);
        std::fs::rename(path("audit.jsonl"), path("audit.moved")).unwrap();
    }

    /// What the metrics listener says, which the configuration has to name.
    pub(crate) async fn metrics(&self) -> String {
        let address = self.metrics.as_deref().unwrap();
        let address = Address::parse_with_http(address, Provenance::Operator).unwrap();
        let route = Route { address, tls: None, identity: "".into(), revision: 0 };
        let request = Request::get("/metrics").body(Full::default()).unwrap();
        let answer = self.pool.send(&route, request, Instant::now() + PATIENCE).await.unwrap();
        String::from_utf8(answer.body().to_vec()).unwrap()
    }

    /// A client that the issuer knows under `path`.
    pub(crate) async fn client(&self, path: &str) -> Client {
        let identity = self.agent.trust_domain().member(path).unwrap();
        let socket: PathBuf = self.dir.path().join("api.sock");
        Client::connect(ClientOptions::new(identity, socket)).await.unwrap()
    }

    /// Calls a capability over the mesh.
    pub(crate) async fn call(
        &self,
        client: &Client,
        capability: &str,
        params: Value,
    ) -> Result<Json, CallError> {
        client
            .call(&self.agent, capability, params)
            .address(&*self.mesh)
            .timeout(PATIENCE)
            .json()
            .await
    }

    /// Sends an operation through the development listener, as nobody.
    pub(crate) async fn dev(&self, method: &str, params: Value) -> Value {
        let address = Address::parse_with_http(&self.dev, Provenance::Operator).unwrap();
        let route = Route { address, tls: None, identity: "".into(), revision: 0 };
        exchange(&self.pool, &route, method, params).await
    }

    /// Sends an operation through the development listener and hangs up after `patience`.
    pub(crate) async fn hang_up(&self, method: &str, params: Value, patience: Duration) {
        let pool = Pool::new(Dialer::default(), PoolLimits::default());
        let address = Address::parse_with_http(&self.dev, Provenance::Operator).unwrap();
        let route = Route { address, tls: None, identity: "".into(), revision: 0 };
        // Whether an answer came first does not matter.
        let _answered =
            tokio::time::timeout(patience, exchange(&pool, &route, method, params)).await;
    }

    /// Sends an operation over the mesh, as `client`.
    pub(crate) async fn raw(&self, client: &Client, method: &str, params: Value) -> Value {
        let path = self.dir.path().join("api.sock");
        let config = convoke_identity::WorkloadApiConfig::new(path, client.spiffe_id().clone());
        let source = convoke_identity::IdentitySource::connect(config).await.unwrap();
        let tls = convoke_identity::tls::client_config(&source, &self.agent, &[b"http/1.1"]);
        let address = Address::parse(&self.mesh, Provenance::Operator).unwrap();
        let identity: Arc<str> = self.agent.as_str().into();
        let route = Route { address, tls: Some(tls.unwrap()), identity, revision: 0 };
        exchange(&self.pool, &route, method, params).await
    }

    /// Ends everything and gives the audit records.
    pub(crate) async fn end(self) -> Vec<Value> {
        self.end_with_summary().await.1
    }

    /// Ends without waiting for tasks that never would.
    pub(crate) async fn abandon(self) {
        self.shutdown.cancel();
        self.node.abort();
        tokio::time::timeout(PATIENCE, self.issuer).await.unwrap().unwrap();
    }

    pub(crate) async fn end_with_summary(self) -> (Summary, Vec<Value>) {
        let (summary, mut records) = self.end_with_trail().await;
        records.retain(|record| record["event_type"] == "authorization");
        (summary, records)
    }

    /// As [`World::end_with_summary`], with what the node noted of itself among the decisions.
    pub(crate) async fn end_with_trail(self) -> (Summary, Vec<Value>) {
        self.shutdown.cancel();
        let summary = tokio::time::timeout(PATIENCE, self.node).await.unwrap().unwrap();
        tokio::time::timeout(PATIENCE, self.issuer).await.unwrap().unwrap();
        let audit = std::fs::read_to_string(self.dir.path().join("audit.jsonl")).unwrap();
        (summary, audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }
}

/// The parameters of a `SendMessage` that calls `capability`.
pub(crate) fn send(capability: &str, params: Value) -> Value {
    json!({"message": {
        "messageId": "m1", "role": "ROLE_USER", "parts": [{"data": params}],
        "metadata": {"urn:convoke:ext:capability:v1": {"name": capability}},
    }})
}

async fn exchange(pool: &Pool, route: &Route, method: &str, params: Value) -> Value {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let request = Request::post("/")
        .header(CONTENT_TYPE, "application/json")
        .header(A2A_VERSION, VERSION_1)
        .body(Full::new(Bytes::from(body.to_string())))
        .unwrap();
    let answer = pool.send(route, request, Instant::now() + PATIENCE).await.unwrap();
    serde_json::from_slice(answer.body()).unwrap()
}
