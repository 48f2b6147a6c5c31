//! `rel_svid_rotation`: certificates that are replaced every two seconds, under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use convoke_agent::{Context, Host};
use convoke_client::Client;
use convoke_identity::issuer::{Issuer, IssuerConfig};
use convoke_identity::tls::{client_config, server_config, verified_peer};
use convoke_identity::{IdentitySource, WorkloadApiConfig};
use convoke_macros::agent;
use convoke_model::{TrustDomain, UnixMillis};
use convoke_node::config::Config;
use convoke_node::{Node, NodeOptions};
use rustls_pki_types::ServerName;
use serde_json::json;
use tokio::time::Instant;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

use crate::mesh::PATIENCE;

/// Says how many seconds it takes; ten if it is not there.
const SECONDS: &str = "CONVOKE_ROTATION_SECONDS";

/// How long an SVID is good, and when it is replaced.
const TTL: Duration = Duration::from_secs(6);
const RENEW_AFTER: Duration = Duration::from_secs(2);

/// Callers at a time.
const CALLERS: usize = 8;

struct Echo;

#[agent(crate = "convoke_agent")]
impl Echo {
    /// Echo a text
    #[capability(ephemeral)]
    async fn echo(&self, _context: &Context, text: String) -> String {
        text
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rel_svid_rotation() {
    let seconds = std::env::var(SECONDS).map_or(10, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let domain = TrustDomain::parse("example.org").unwrap();
    let (agent, user) = (domain.member("/agent").unwrap(), domain.member("/user").unwrap());
    let shutdown = CancellationToken::new();
    let issuer = IssuerConfig {
        svid_ttl: TTL,
        svid_renew_after: Some(RENEW_AFTER),
        ..IssuerConfig::new(domain, path("issuer"), path("api.sock"))
    };
    let issuer = Issuer::open(issuer).unwrap().bind().await.unwrap();
    let issuer = tokio::spawn(issuer.serve(shutdown.clone()));
    std::fs::write(path("policy.rego"), "package agentweave.authz\ndefault allow := true\n")
        .unwrap();
    let config = json!({
        "identity": {"spiffe_id": agent, "trust_domain": "example.org",
            "spire_socket": path("api.sock")},
        "authorization": {"policy_path": dir.path(), "policy_file": "policy.rego"},
        "server": {"port": 0},
        "observability": {"audit": {"path": path("audit.jsonl")}},
        "data_dir": path("data"),
    });
    let config = Config::parse(&config.to_string(), "test").unwrap();
    let node = Node::start(config, Host::new(Echo).unwrap(), NodeOptions::default()).await.unwrap();
    let address = format!("https://localhost:{}", node.mesh_addr().port());
    let node = tokio::spawn(node.run(shutdown.clone()));

    let connect = |id| IdentitySource::connect(WorkloadApiConfig::new(path("api.sock"), id));
    let source = Arc::new(connect(user).await.unwrap());
    let client = Client::with_source(Arc::clone(&source));
    let until = Instant::now() + Duration::from_secs(seconds);
    let calls = Arc::new(AtomicU64::new(0));
    let mut load = Vec::new();
    for _ in 0..CALLERS {
        let (client, agent, address) = (client.clone(), agent.clone(), address.clone());
        let calls = Arc::clone(&calls);
        load.push(tokio::spawn(async move {
            while Instant::now() < until {
                let call = client.call(&agent, "echo", json!({"text": "x"})).address(&*address);
                call.timeout(PATIENCE).json().await.unwrap();
                calls.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    // Handshakes without end, each of which looks at both certificates.
    let callee = Arc::new(connect(agent).await.unwrap());
    let shaking = Arc::clone(&source);
    let handshakes = tokio::spawn(async move {
        let mut count = 0_u64;
        while Instant::now() < until {
            handshake(&shaking, &callee).await;
            count += 1;
        }
        count
    });
    for load in load {
        load.await.unwrap();
    }
    let (handshakes, calls) = (handshakes.await.unwrap(), calls.load(Ordering::Relaxed));
    // At least two thirds of the rotations that there should have been: the machine may be busy.
    let (rotations, expected) = (source.current().revision() - 1, seconds / 3);
    assert!(rotations >= expected, "{rotations} rotations instead of {expected}");
    assert!(calls > seconds && handshakes > seconds, "{calls} calls, {handshakes} handshakes");
    shutdown.cancel();
    tokio::time::timeout(PATIENCE, node).await.unwrap().unwrap();
    tokio::time::timeout(PATIENCE, issuer).await.unwrap().unwrap();
}

/// One handshake that has to succeed, with certificates that are valid at its end.
async fn handshake(caller: &IdentitySource, callee: &IdentitySource) {
    let client = client_config(caller, callee.spiffe_id(), &[b"h2"]).unwrap();
    let server = server_config(callee).unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from("localhost").unwrap();
    let begun = now();
    let (connected, accepted) = tokio::join!(
        TlsConnector::from(client).connect(name, near),
        TlsAcceptor::from(server).accept(far)
    );
    let (connected, accepted) = (connected.unwrap(), accepted.unwrap());
    for certificates in
        [connected.get_ref().1.peer_certificates(), accepted.get_ref().1.peer_certificates()]
    {
        let peer = verified_peer(certificates.unwrap()).unwrap().unwrap();
        assert!(peer.not_after.0 + 999 >= begun.0, "{peer:?} at {begun}");
    }
}

fn now() -> UnixMillis {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    UnixMillis(u64::try_from(now.as_millis()).unwrap())
}
