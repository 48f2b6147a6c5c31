//! A stream that is open when a certificate ends, with an issuer that renews both.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use bytes::Bytes;
use convoke_a2a::client::{AnswerError, EventReader, StreamItem, parse_event};
use convoke_a2a::jsonrpc::RequestIdJson;
use convoke_agent::{Context, HandlerError, Host};
use convoke_identity::issuer::{AdminClient, Issuer, IssuerConfig, Registration, Selector};
use convoke_identity::tls::{client_config, verified_peer};
use convoke_identity::{IdentitySource, WorkloadApiConfig};
use convoke_macros::agent;
use convoke_model::{FaultCode, SpiffeId, TaskEvent, TaskState, TrustDomain, UnixMillis};
use convoke_node::config::Config;
use convoke_node::{Node, NodeOptions};
use http::{Method, StatusCode};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::mesh::{Caller, Outcome, PATIENCE, VERSIONS, Version, rpc};

/// How long the SVID is good that ends first; it is renewed at half of that.
const SHORT: Duration = Duration::from_secs(4);

/// How long the other one is.
const LONG: Duration = Duration::from_secs(3600);

/// How often the handler says something.
const EVERY: Duration = Duration::from_millis(20);

/// Talks until it is told to stop.
struct Talker(CancellationToken);

#[agent(crate = "convoke_agent")]
impl Talker {
    /// Talk
    #[capability]
    async fn talk(&self, context: &Context) -> Result<(), HandlerError> {
        while !self.0.is_cancelled() {
            context.progress("more").await?;
            let _told = tokio::time::timeout(EVERY, self.0.cancelled()).await;
        }
        Ok(())
    }
}

/// Opens a stream, reads it to its end, and follows the task again with the renewed certificate.
/// The SVIDs of the agent and of its caller are good for as long as it says.
async fn check(of_agent: Duration, of_caller: Duration, version: Version) {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let domain = TrustDomain::parse("example.org").unwrap();
    let (agent, user) = (domain.member("/agent").unwrap(), domain.member("/user").unwrap());
    let shutdown = CancellationToken::new();
    let issuer = IssuerConfig::new(domain, path("issuer"), path("api.sock"));
    let issuer = Issuer::open(issuer).unwrap().bind().await.unwrap();
    let admin = AdminClient::new(issuer.socket(), None);
    let issuer = tokio::spawn(issuer.serve(shutdown.clone()));
    let own_uid = std::fs::metadata(dir.path()).unwrap().uid();
    for (id, ttl) in [(&agent, of_agent), (&user, of_caller)] {
        let (spiffe_id, selectors) = (id.clone(), vec![Selector::Uid(own_uid)]);
        admin.add(&Registration { spiffe_id, selectors, ttl: Some(ttl) }).await.unwrap();
    }
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
    let stop = CancellationToken::new();
    let host = Host::new(Talker(stop.clone())).unwrap();
    let node = Node::start(config, host, NodeOptions::default()).await.unwrap();
    let address = node.mesh_addr();
    let node = tokio::spawn(node.run(shutdown.clone()));
    let source = IdentitySource::connect(WorkloadApiConfig::new(path("api.sock"), user));
    let source = source.await.unwrap();

    let (mut caller, ends_at) = connect(&source, &agent, address, version).await;
    let message = json!({"message": {
        "messageId": "m1", "role": "ROLE_USER", "parts": [{"data": {}}],
    }});
    let items = events(&ask(&mut caller, "SendStreamingMessage", &message).await);
    let Some(Ok(StreamItem::Task(task))) = items.first() else { panic!("no task: {items:?}") };
    let Some(Err(AnswerError::Fault(last))) = items.last() else {
        panic!("the caller is not told why: {:?}", items.last())
    };
    assert_eq!(last.code, FaultCode::Unauthenticated, "{last}");
    // The handler never pauses, so what is shown last says until when there was somebody to show it.
    let shown: Vec<_> = items.iter().filter_map(said_at).collect();
    assert!(shown.len() > 1, "it was open for a while");
    assert!(shown.iter().all(|at| *at < ends_at), "{:?} is after {ends_at}", shown.last());

    // The task goes on, and whoever proves anew who it is sees it.
    let mut caller = loop {
        let (caller, ends_later) = connect(&source, &agent, address, version).await;
        if ends_later > ends_at {
            break caller;
        }
    };
    let stored = ask(&mut caller, "GetTask", &json!({"id": task.id})).await;
    let stored: Value = serde_json::from_slice(&stored).unwrap();
    assert_eq!(stored["result"]["status"]["state"], TaskState::Working.as_str(), "{stored}");
    stop.cancel();
    shutdown.cancel();
    tokio::time::timeout(PATIENCE, node).await.unwrap().unwrap();
    tokio::time::timeout(PATIENCE, issuer).await.unwrap().unwrap();
}

/// A connection with what both have now, and when the first of it ends.
async fn connect(
    source: &IdentitySource,
    agent: &SpiffeId,
    address: SocketAddr,
    version: Version,
) -> (Caller, UnixMillis) {
    let alpn: &[u8] = match version {
        Version::Http1 => b"http/1.1",
        Version::Http2 => b"h2",
    };
    // What is presented is looked up in the handshake, and may be newer than this.
    let own = source.current().not_after();
    let tls = TlsConnector::from(client_config(source, agent, &[alpn]).unwrap());
    let tcp = TcpStream::connect(address).await.unwrap();
    let stream = tls.connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap();
    let certificates = stream.get_ref().1.peer_certificates().unwrap();
    let others = verified_peer(certificates).unwrap().unwrap().not_after;
    (Caller::speak(stream, address, version).await.unwrap(), own.min(others))
}

/// The whole answer.
async fn ask(caller: &mut Caller, method: &str, params: &Value) -> Bytes {
    match caller.send(Method::POST, "/", &rpc(method, params)).await {
        Outcome::Answered(StatusCode::OK, body) => body,
        other => panic!("{other:?}"),
    }
}

fn events(stream: &Bytes) -> Vec<Result<StreamItem, AnswerError>> {
    let mut reader = EventReader::new(stream.len());
    reader.push(stream);
    let mut items = Vec::new();
    while let Some(event) = reader.next_event().unwrap() {
        items.push(parse_event(&RequestIdJson::from(1), &event.data));
    }
    items
}

/// When the agent said it.
fn said_at(item: &Result<StreamItem, AnswerError>) -> Option<UnixMillis> {
    match item {
        Ok(StreamItem::Update { event: TaskEvent::Status(status), .. }) => Some(status.timestamp),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_open_stream_ends_before_either_svid() {
    let [http1, http2] = VERSIONS;
    tokio::join!(
        check(SHORT, LONG, http1),
        check(SHORT, LONG, http2),
        check(LONG, SHORT, http1),
        check(LONG, SHORT, http2),
    );
}
