//! A place where one node after the other lives, on the same data.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use convoke_a2a::headers::{A2A_VERSION, IDEMPOTENT_SEND_EXTENSION, VERSION_1};
use convoke_agent::Host;
use convoke_identity::issuer::{Issuer, IssuerConfig};
use convoke_model::{SpiffeId, TrustDomain};
use convoke_net::client::{Address, Dialer, Pool, PoolLimits, Provenance, Route};
use convoke_node::config::Config;
use convoke_node::{Node, NodeOptions};
use http::Request;
use http::header::CONTENT_TYPE;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

/// The data, and who gives out identities.
pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    agent: SpiffeId,
    ending: CancellationToken,
    issuer: JoinHandle<()>,
}

/// A node while it lives. It has a runtime of its own, so that all of it goes at once.
pub(crate) struct Life {
    runtime: Runtime,
    dev: String,
    shutdown: CancellationToken,
    node: JoinHandle<convoke_node::Summary>,
    pool: Arc<Pool>,
}

impl Site {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ending = CancellationToken::new();
        let domain = TrustDomain::parse("example.org").unwrap();
        let agent = domain.member("/agent").unwrap();
        let socket = dir.path().join("api.sock");
        let issuer = IssuerConfig::new(domain, dir.path().join("issuer"), socket);
        let issuer = Issuer::open(issuer).unwrap().bind().await.unwrap();
        let issuer = tokio::spawn(issuer.serve(ending.clone()));
        Self { dir, agent, ending, issuer }
    }

    /// A node of `host`, with a configuration that `change` has changed.
    pub(crate) async fn live(&self, host: Host, change: impl FnOnce(&mut Value)) -> Life {
        let path = |name: &str| self.dir.path().join(name);
        let mut yaml = json!({
            "identity": {"spiffe_id": self.agent, "spire_socket": path("api.sock")},
            "authorization": {"default_policy": "allow_all"},
            "server": {"port": 0, "drain_timeout": "1s"},
            "data_dir": path("data"),
        });
        change(&mut yaml);
        let config = Config::parse(&yaml.to_string(), "test").unwrap();
        let dev = Some("127.0.0.1:0".parse().unwrap());
        let options = NodeOptions { dev, ..NodeOptions::default() };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.unwrap();
        let starting = runtime.spawn(async move { Node::start(config, host, options).await });
        let node = starting.await.unwrap().unwrap();
        let dev = format!("http://{}", node.dev_addr().unwrap());
        let shutdown = CancellationToken::new();
        let node = runtime.spawn(node.run(shutdown.clone()));
        let pool = Arc::new(Pool::new(Dialer::default(), PoolLimits::default()));
        Life { runtime, dev, shutdown, node, pool }
    }

    pub(crate) async fn end(self) {
        self.ending.cancel();
        tokio::time::timeout(PATIENCE, self.issuer).await.unwrap().unwrap();
    }
}

impl Life {
    /// Ends the node where it stands: nothing is drained, nobody is told.
    pub(crate) async fn kill(self) {
        let Self { runtime, node, .. } = self;
        node.abort();
        spawn_blocking(move || runtime.shutdown_timeout(PATIENCE)).await.unwrap();
    }

    /// Ends the node in good order.
    pub(crate) async fn drain(self) -> convoke_node::Summary {
        self.shutdown.cancel();
        let summary = tokio::time::timeout(PATIENCE, self.node).await.unwrap().unwrap();
        spawn_blocking(move || self.runtime.shutdown_timeout(PATIENCE)).await.unwrap();
        summary
    }

    /// The answer to an operation, as nobody, with further header fields.
    pub(crate) async fn ask_with(
        &self,
        method: &str,
        params: Value,
        fields: &[(&str, &str)],
    ) -> (u16, Bytes) {
        ask(&self.pool, &self.dev, method, params, fields).await
    }

    pub(crate) async fn ask(&self, method: &str, params: Value) -> Value {
        let (_, body) = self.ask_with(method, params, &[]).await;
        serde_json::from_slice(&body).unwrap()
    }

    /// Sends a message that may be sent again, in the background.
    pub(crate) fn send_again(&self, params: Value) -> JoinHandle<Value> {
        let (pool, dev) = (Arc::clone(&self.pool), self.dev.clone());
        tokio::spawn(async move {
            let wanted = [("a2a-extensions", IDEMPOTENT_SEND_EXTENSION)];
            let (_, body) = ask(&pool, &dev, "SendMessage", params, &wanted).await;
            serde_json::from_slice(&body).unwrap()
        })
    }

    /// Makes a task without waiting for it, and gives its name.
    pub(crate) async fn begin(&self, capability: &str, params: Value, more: Value) -> String {
        let mut request = crate::send(capability, params);
        request["configuration"] = json!({"returnImmediately": true});
        request["metadata"] = more;
        let answer = self.ask("SendMessage", request).await;
        answer["result"]["task"]["id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    pub(crate) async fn get(&self, id: &str) -> Value {
        let answer = self.ask("GetTask", json!({"id": id})).await;
        assert!(answer["result"]["id"].is_string(), "{answer}");
        answer["result"].clone()
    }

    /// The task once it has come to `state`.
    pub(crate) async fn comes_to(&self, id: &str, state: &str) -> Value {
        let begun = Instant::now();
        loop {
            let task = self.get(id).await;
            if task["status"]["state"] == format!("TASK_STATE_{state}") {
                return task;
            }
            assert!(begun.elapsed() < PATIENCE, "not {state}: {task}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// All events of the stream that follows a task from behind `after`, each with its `id`.
    pub(crate) async fn rest_of(&self, id: &str, after: &str) -> Vec<(String, Value)> {
        let params = json!({"id": id});
        let (status, body) =
            self.ask_with("SubscribeToTask", params, &[("Last-Event-ID", after)]).await;
        assert_eq!(status, 200, "{body:?}");
        let text = String::from_utf8(body.to_vec()).unwrap();
        let event = |event: &str| {
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
            let data: Value = serde_json::from_str(field("data: ")?).unwrap();
            let id = field("id: ").unwrap_or_default().to_owned();
            Some((id, data.get("result").unwrap_or(&data).clone()))
        };
        text.split("\n\n").filter_map(event).collect()
    }
}

async fn ask(
    pool: &Pool,
    dev: &str,
    method: &str,
    params: Value,
    fields: &[(&str, &str)],
) -> (u16, Bytes) {
    let address = Address::parse_with_http(dev, Provenance::Operator).unwrap();
    let route = Route { address, tls: None, identity: "".into(), revision: 0 };
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let mut request =
        Request::post("/").header(CONTENT_TYPE, "application/json").header(A2A_VERSION, VERSION_1);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body.to_string()))).unwrap();
    let answer = pool.send(&route, request, Instant::now() + PATIENCE).await.unwrap();
    (answer.status().as_u16(), answer.into_body())
}
