//! One trace over two agents, as a collector sees it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]

mod collector;

use std::net::SocketAddr;
use std::path::Path;

use collector::{Collector, text};
use convoke_agent::{Context, HandlerError, Host};
use convoke_client::{Client, ClientOptions};
use convoke_identity::issuer::{Issuer, IssuerConfig};
use convoke_macros::agent;
use convoke_model::{SpiffeId, TrustDomain};
use convoke_node::config::{Config, TracingConfig};
use convoke_node::{Node, NodeOptions};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

struct Worker;

#[agent(crate = "convoke_agent")]
impl Worker {
    /// Count the words of a text
    #[capability(ephemeral)]
    async fn count(&self, _context: &Context, text: String) -> u64 {
        text.split_whitespace().count() as u64
    }
}

struct Orchestrator;

#[agent(crate = "convoke_agent")]
impl Orchestrator {
    /// Have the words of a text counted
    #[capability]
    async fn process(&self, context: &Context, text: String) -> Result<u64, HandlerError> {
        let worker = context.config().registry("worker").map_err(failed)?;
        let call = context.call_agent(worker, "count", json!({ "text": text }));
        call.into::<u64>().await.map_err(failed)
    }
}

fn failed(error: impl std::fmt::Display) -> HandlerError {
    HandlerError::new(error.to_string())
}

const ALLOW: &str = "package agentweave.authz\nimport rego.v1\ndefault allow := true\n";

/// Starts an agent `name` of `example.org` that sends its spans to `endpoint` and has its metrics at
/// `/of/the/agent`.
async fn start(
    dir: &Path,
    name: &str,
    host: Host,
    endpoint: &str,
    registry: Value,
) -> (Node, SpiffeId) {
    std::fs::write(dir.join("policy.rego"), ALLOW).unwrap();
    let own = TrustDomain::parse("example.org").unwrap().member(&format!("/{name}")).unwrap();
    let yaml = json!({
        "identity": {"spiffe_id": own, "trust_domain": "example.org",
            "spire_socket": dir.join("api.sock")},
        "authorization": {"policy_path": dir, "policy_file": "policy.rego"},
        "server": {"port": 0},
        "observability": {"audit": {"path": dir.join(format!("{name}.jsonl"))},
            "metrics": {"port": 0, "path": "/of/the/agent"}},
        "agent_registry": registry,
        "metadata": {"name": name, "version": "1.2.3"},
        "data_dir": dir.join(name),
    });
    let mut config = Config::parse(&yaml.to_string(), "test").unwrap();
    config.observability.tracing = Some(TracingConfig {
        otlp_endpoint: endpoint.to_owned(),
        sampling_rate: 1.0,
        service_name: None,
        headers: [("x-tenant".to_owned(), convoke_model::Secret::new("t-1"))].into(),
        logs: false,
    });
    (Node::start(config, host, NodeOptions::default()).await.unwrap(), own)
}

/// The body of what is at `path` of the metrics listener.
#[allow(clippy::disallowed_methods, reason = "who looks at metrics is no agent")]
async fn page(listener: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(listener).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn one_call_over_two_agents_is_one_trace() {
    let (dir, collector) = (tempfile::tempdir().unwrap(), Collector::start().await);
    let shutdown = CancellationToken::new();
    let domain = TrustDomain::parse("example.org").unwrap();
    let socket = dir.path().join("api.sock");
    let issuer = IssuerConfig::new(domain.clone(), dir.path().join("issuer"), socket.clone());
    let issuer = Issuer::open(issuer).unwrap().bind().await.unwrap();
    let issuer = tokio::spawn(issuer.serve(shutdown.clone()));

    let endpoint = &*collector.endpoint;
    let host = Host::new(Worker).unwrap();
    let (worker, worker_id) = start(dir.path(), "worker", host, endpoint, json!({})).await;
    let address = |node: &Node| format!("https://localhost:{}", node.mesh_addr().port());
    let registry = json!({"worker": {"spiffe_id": worker_id, "address": address(&worker)}});
    let host = Host::new(Orchestrator).unwrap();
    let (orchestrator, own) = start(dir.path(), "orchestrator", host, endpoint, registry).await;
    let to = address(&orchestrator);
    let metrics = worker.metrics_addr().unwrap();
    let own_metrics = orchestrator.metrics_addr().unwrap();
    let nodes = [worker, orchestrator].map(|node| tokio::spawn(node.run(shutdown.clone())));

    let caller = domain.member("/user/ann").unwrap();
    let client = Client::connect(ClientOptions::new(caller, socket)).await.unwrap();
    let call = client.call(&own, "process", json!({"text": "a b c"})).address(&*to);
    assert_eq!(call.json().await.unwrap().get(), "3");

    let counted = page(metrics, "/of/the/agent").await;
    let caller = r#"peer_id="example.org",capability="count",decision="allow"} 1"#;
    assert!(counted.contains(caller), "{counted}");
    let counted = page(own_metrics, "/of/the/agent").await;
    for line in [
        "agentweave_tasks_total{agent_name=\"orchestrator\",status=\"completed\"} 1",
        "agentweave_task_duration_seconds_count{agent_name=\"orchestrator\"} 1",
        "agentweave_connection_pool_active{agent_name=\"orchestrator\"} 1.0",
    ] {
        assert!(counted.lines().any(|found| found == line), "{line}\n{counted}");
    }
    assert!(page(metrics, "/metrics").await.starts_with("HTTP/1.1 404"), "it is elsewhere");

    // What waits is sent when the nodes end.
    shutdown.cancel();
    for node in nodes {
        node.await.unwrap();
    }
    issuer.await.unwrap();
    let got = collector.wait_for(|got| got.all_spans().len() >= 7).await;
    let spans = got.all_spans();
    let find = |service: &str, name: &str| {
        let found = spans.iter().find(|(of, span)| of == service && span.name == name);
        found.unwrap_or_else(|| panic!("{service} has no span {name}: {spans:#?}")).1
    };
    let request = find("orchestrator", "request");
    let handling = find("orchestrator", "handle_process");
    let calling = find("orchestrator", "call_count");
    let received = find("worker", "request");
    for (parent, child) in [
        (request, find("orchestrator", "authorize")),
        (request, handling),
        (handling, calling),
        (calling, received),
        (received, find("worker", "authorize")),
        (received, find("worker", "handle_count")),
    ] {
        assert_eq!(child.parent_span_id, parent.span_id, "{} in {}", child.name, parent.name);
        assert!(child.end_time_unix_nano >= child.start_time_unix_nano);
    }
    assert_eq!(spans.len(), 7, "{spans:#?}");
    assert!(spans.iter().all(|(_, span)| span.trace_id == request.trace_id));
    assert!(request.parent_span_id.is_empty(), "the trace begins here");
    // Internal, server and client, as OTLP numbers them.
    assert_eq!([handling.kind, received.kind, calling.kind], [1, 2, 3]);
    let attribute = |name: &str| text(&received.attributes, name);
    assert_eq!(attribute("agent.caller.spiffe_id"), Some(own.to_string()));
    assert_eq!(attribute("agent.capability").as_deref(), Some("count"));
    let target = text(&calling.attributes, "agent.target.spiffe_id");
    assert_eq!(target, Some(worker_id.to_string()));
    assert!(got.headers.iter().all(|headers| headers["x-tenant"] == "t-1"));

    // The audit records of both name the same trace.
    let trace: String = request.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
    for name in ["worker", "orchestrator"] {
        let audit = std::fs::read_to_string(dir.path().join(format!("{name}.jsonl"))).unwrap();
        assert!(audit.contains(&format!(r#""trace_id":"{trace}""#)), "{name}: {audit}");
    }
}
