//! A node whose identity lies in files, and callers who present whatever they like.

use std::error::Error;
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use convoke_agent::{Context, Host};
use convoke_identity::tls::refused_by_peer;
use convoke_macros::agent;
use convoke_node::config::Config;
use convoke_node::{Node, NodeOptions, Summary};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, sign::any_supported_type};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::authority::{Authority, Svid};

/// How long anything may take that has to come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How long the end of a connection may take whose request has failed.
const ENDING: Duration = Duration::from_secs(1);

/// Who the node is.
pub(crate) const AGENT: &str = "spiffe://example.org/agent";

/// Lets in whose path begins with `/may`, of any trusted domain.
const POLICY: &str = r#"package agentweave.authz
default allow := false
allow if contains(input.caller.spiffe_id, "/may")
"#;

/// Calls of `wait` are told of.
struct Quiet(Arc<Notify>);

#[agent(crate = "convoke_agent")]
impl Quiet {
    /// Echo a text
    #[capability(ephemeral)]
    async fn echo(&self, _context: &Context, text: String) -> String {
        text
    }

    /// Wait for ever
    #[capability(ephemeral)]
    async fn wait(&self, _context: &Context) -> String {
        self.0.notify_one();
        std::future::pending().await
    }
}

/// A running node of `example.org`, with the files of its identity.
pub(crate) struct Mesh {
    pub(crate) authority: Authority,
    pub(crate) mesh: SocketAddr,
    pub(crate) dev: SocketAddr,
    pub(crate) metrics: SocketAddr,
    waiting: Arc<Notify>,
    dir: tempfile::TempDir,
    shutdown: CancellationToken,
    node: JoinHandle<Summary>,
}

impl Mesh {
    /// A node that also trusts `federated`.
    pub(crate) async fn start(federated: &[&Authority]) -> Self {
        let (authority, dir) = (Authority::new("example.org"), tempfile::tempdir().unwrap());
        let svid = authority.svid(AGENT);
        let path = |name: &str| dir.path().join(name);
        fs::write(path("policy.rego"), POLICY).unwrap();
        fs::write(path("svid.pem"), &svid.chain).unwrap();
        fs::write(path("key.pem"), &svid.key).unwrap();
        fs::set_permissions(path("key.pem"), Permissions::from_mode(0o600)).unwrap();
        fs::write(path("bundle.pem"), &authority.root).unwrap();
        for other in federated {
            fs::write(path(other.domain.as_str()), &other.root).unwrap();
        }
        let federated: serde_json::Map<_, _> = federated
            .iter()
            .map(|other| (other.domain.to_string(), json!(path(other.domain.as_str()))))
            .collect();
        let files = json!({"certificate": path("svid.pem"), "private_key": path("key.pem"),
            "bundle": path("bundle.pem"), "federated": federated});
        let config = json!({
            "identity": {"spiffe_id": AGENT, "trust_domain": "example.org", "provider": "files",
                "files": files},
            "authorization": {"policy_path": dir.path(), "policy_file": "policy.rego"},
            "server": {"port": 0},
            "observability": {"audit": {"path": path("audit.jsonl")},
                "metrics": {"enabled": true, "port": 0}},
            "data_dir": path("data"),
        });
        let config = Config::parse(&config.to_string(), "test").unwrap();
        let dev = Some("127.0.0.1:0".parse().unwrap());
        let options = NodeOptions { dev, ..Default::default() };
        let waiting = Arc::new(Notify::new());
        let host = Host::new(Quiet(Arc::clone(&waiting))).unwrap();
        let node = Node::start(config, host, options).await.unwrap();
        let (mesh, dev) = (node.mesh_addr(), node.dev_addr().unwrap());
        let metrics = node.metrics_addr().unwrap();
        let shutdown = CancellationToken::new();
        let node = tokio::spawn(node.run(shutdown.clone()));
        Self { authority, mesh, dev, metrics, waiting, dir, shutdown, node }
    }

    /// Puts another bundle in the place of that of `domain`, as a whole.
    pub(crate) fn replace_bundle(&self, domain: &str, roots: &str) {
        let new: PathBuf = self.dir.path().join("new");
        fs::write(&new, roots).unwrap();
        fs::rename(new, self.dir.path().join(domain)).unwrap();
    }

    /// Until a call of `wait` is at work.
    pub(crate) async fn until_waiting(&self) {
        tokio::time::timeout(PATIENCE, self.waiting.notified()).await.unwrap();
    }

    pub(crate) async fn end(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.node).await.unwrap().unwrap();
    }
}

/// Which HTTP a caller speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

pub(crate) const VERSIONS: [Version; 2] = [Version::Http1, Version::Http2];

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered(StatusCode, Bytes),
    /// The node refused the certificate with an alert.
    TurnedAway,
    /// The connection ended in another way.
    Broken(String),
}

impl Outcome {
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Answered(status, _) => Some(status.as_u16()),
            Self::TurnedAway | Self::Broken(_) => None,
        }
    }
}

/// A connection that takes one request after another.
pub(crate) struct Caller {
    sender: Sender,
    connection: JoinHandle<hyper::Result<()>>,
    authority: String,
}

enum Sender {
    Http1(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    Http2(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
}

impl Caller {
    /// Connects with TLS, presenting `svid`, and believes whoever answers.
    pub(crate) async fn connect(
        to: SocketAddr,
        svid: Option<&Svid>,
        version: Version,
    ) -> Result<Self, Outcome> {
        Self::speak(secure(to, svid, version).await?, to, version).await
    }

    /// Connects over HTTP/2 and never hears that the connection closes.
    pub(crate) async fn connect_deaf(to: SocketAddr, svid: &Svid) -> Result<Self, Outcome> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let stream = secure(to, Some(svid), Version::Http2).await?;
        tokio::spawn(carry_but_the_end(far, stream));
        Self::speak(near, to, Version::Http2).await
    }

    /// Connects without TLS.
    pub(crate) async fn connect_plain(to: SocketAddr, version: Version) -> Result<Self, Outcome> {
        let tcp = TcpStream::connect(to).await.unwrap();
        Self::speak(tcp, to, version).await
    }

    /// Speaks over a stream that is connected.
    pub(crate) async fn speak<S>(
        stream: S,
        to: SocketAddr,
        version: Version,
    ) -> Result<Self, Outcome>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (io, authority) = (TokioIo::new(stream), format!("localhost:{}", to.port()));
        let (sender, connection) = match version {
            Version::Http1 => {
                let (sender, connection) =
                    hyper::client::conn::http1::handshake(io).await.map_err(|e| ended(&e))?;
                (Sender::Http1(sender), tokio::spawn(connection))
            }
            Version::Http2 => {
                let (sender, connection) =
                    hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                        .await
                        .map_err(|e| ended(&e))?;
                (Sender::Http2(sender), tokio::spawn(connection))
            }
        };
        Ok(Self { sender, connection, authority })
    }

    /// Sends one request and reads its whole answer.
    pub(crate) async fn send(&mut self, method: Method, path: &str, body: &Value) -> Outcome {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = Request::builder()
            .method(method)
            .header("content-type", "application/json")
            .header("a2a-version", "1.0");
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                let request = request.uri(path).header("host", &self.authority);
                drop(sender.ready().await);
                sender.send_request(request.body(Full::new(body)).unwrap()).await
            }
            Sender::Http2(sender) => {
                let request = request.uri(format!("https://{}{path}", self.authority));
                drop(sender.ready().await);
                sender.send_request(request.body(Full::new(body)).unwrap()).await
            }
        };
        let response = match response {
            Ok(response) => response,
            // Only the connection itself knows of an alert, if it has ended and not the request.
            Err(error) => {
                let ending = tokio::time::timeout(ENDING, &mut self.connection).await;
                let ending = ending.ok().and_then(|ending| ending.unwrap().err());
                return ended(&ending.unwrap_or(error));
            }
        };
        let (head, body) = response.into_parts();
        match tokio::time::timeout(PATIENCE, body.collect()).await.unwrap() {
            Ok(body) => Outcome::Answered(head.status, body.to_bytes()),
            Err(error) => ended(&error),
        }
    }

    /// Calls a capability.
    pub(crate) async fn call(&mut self, capability: &str) -> Outcome {
        self.send(Method::POST, "/", &call(capability)).await
    }

    /// Waits until the node ends the connection.
    pub(crate) async fn ended(self) {
        let Self { sender, connection, .. } = self;
        drop(tokio::time::timeout(PATIENCE, connection).await.unwrap().unwrap());
        drop(sender);
    }
}

/// A request that calls `capability`.
pub(crate) fn call(capability: &str) -> Value {
    rpc(
        "SendMessage",
        &json!({"message": {
            "messageId": "m1", "role": "ROLE_USER", "parts": [{"data": {"text": "x"}}],
            "metadata": {"urn:convoke:ext:capability:v1": {"name": capability}},
        }}),
    )
}

pub(crate) fn rpc(method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
}

fn ended(error: &(dyn Error + 'static)) -> Outcome {
    let text = format!("{error:?}");
    // Of an error of HTTP/2 there is no more than the text.
    if refused_by_peer(error) || text.contains("received fatal alert") {
        return Outcome::TurnedAway;
    }
    Outcome::Broken(text)
}

async fn secure(
    to: SocketAddr,
    svid: Option<&Svid>,
    version: Version,
) -> Result<TlsStream<TcpStream>, Outcome> {
    let tcp = TcpStream::connect(to).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(config(svid, version));
    connector.connect(name, tcp).await.map_err(|error| ended(&error))
}

/// Carries HTTP/2 between a client and the node, but not the node's word that the connection closes:
/// GOAWAY, and the PING whose answer would end it for good (RFC 9113 §6.7 and §6.8).
async fn carry_but_the_end(client: DuplexStream, node: TlsStream<TcpStream>) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_node, mut to_node) = tokio::io::split(node);
    let out = tokio::io::copy(&mut from_client, &mut to_node);
    let back = async {
        let mut frame = vec![0; 9];
        loop {
            frame.truncate(9);
            from_node.read_exact(&mut frame).await?;
            let length = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]);
            frame.resize(9 + usize::try_from(length).unwrap(), 0);
            from_node.read_exact(&mut frame[9..]).await?;
            if !matches!(frame[3], 6 | 7) {
                to_client.write_all(&frame).await?;
            }
        }
    };
    let ended: std::io::Result<u64> = tokio::select! {
        ended = out => ended,
        ended = back => ended,
    };
    drop(ended);
}

fn config(svid: Option<&Svid>, version: Version) -> Arc<ClientConfig> {
    let provider = Arc::new(default_provider());
    let presented = svid.map(|svid| {
        let chain = CertificateDer::pem_slice_iter(svid.chain.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(svid.key.as_bytes()).unwrap();
        let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
        Arc::new(CertifiedKey::new(chain, any_supported_type(&key).unwrap()))
    });
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous(provider)))
        .with_client_cert_resolver(Arc::new(Presents(presented)));
    config.alpn_protocols = vec![match version {
        Version::Http1 => b"http/1.1".to_vec(),
        Version::Http2 => b"h2".to_vec(),
    }];
    Arc::new(config)
}

#[derive(Debug)]
struct Presents(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for Presents {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }
    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

/// Believes whoever answers.
#[derive(Debug)]
struct Credulous(Arc<CryptoProvider>);

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
