//! Starts that fail halfway.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use convoke_agent::{Context, HandlerError, Host};
use convoke_identity::issuer::{Issuer, IssuerConfig};
use convoke_macros::agent;
use convoke_model::TrustDomain;
use convoke_node::config::Config;
use convoke_node::{Node, NodeOptions, StartError};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// Begins something for itself, which it ends when it is told to.
#[derive(Default)]
struct Beginner {
    begun: Arc<OnceLock<CancellationToken>>,
    stopped: Arc<AtomicBool>,
}

#[agent(crate = "convoke_agent")]
impl Beginner {
    /// Do nothing
    #[capability]
    async fn rest(&self, _context: &Context) -> bool {
        true
    }

    #[on_start]
    async fn begin(&self, context: &Context) -> Result<(), HandlerError> {
        self.begun.get_or_init(|| context.cancelled().clone());
        Ok(())
    }

    #[on_stop]
    async fn end(&self) {
        let begun = self.begun.get().unwrap();
        self.stopped.store(begun.is_cancelled(), Ordering::SeqCst);
    }
}

/// What `on_start` began is ended when the node cannot listen where it should.
#[tokio::test]
async fn a_start_that_fails_ends_what_the_agent_began() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let ended = CancellationToken::new();
    let domain = TrustDomain::parse("example.org").unwrap();
    let agent = domain.member("/agent").unwrap();
    let issuer = IssuerConfig::new(domain, path("issuer"), path("api.sock"));
    let issuer = Issuer::open(issuer).unwrap().bind().await.unwrap();
    let issuer = tokio::spawn(issuer.serve(ended.clone()));
    let yaml = json!({
        "identity": {"spiffe_id": agent, "trust_domain": "example.org",
            "spire_socket": path("api.sock")},
        "authorization": {"default_policy": "deny_all"},
        "server": {"port": 0},
        "observability": {"audit": {"path": path("audit.jsonl")}},
        "data_dir": path("data"),
    });
    let config = Config::parse(&yaml.to_string(), "test").unwrap();
    #[expect(clippy::disallowed_methods, reason = "it only keeps a port from the node")]
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dev = Some(taken.local_addr().unwrap());
    let beginner = Beginner::default();
    let (begun, stopped) = (Arc::clone(&beginner.begun), Arc::clone(&beginner.stopped));
    let host = Host::new(beginner).unwrap();
    let started = Node::start(config, host, NodeOptions { dev, ..NodeOptions::default() }).await;
    let error = started.err().unwrap();
    assert!(matches!(error, StartError::Bind { listener: "development", .. }), "{error}");
    assert!(begun.get().unwrap().is_cancelled());
    assert!(stopped.load(Ordering::SeqCst), "`on_stop` runs, once the token is cancelled");
    ended.cancel();
    issuer.await.unwrap();
}
