//! The mesh listener as seen by clients that are not ours.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use convoke::SpiffeId;
use convoke::identity::{IdentitySource, WorkloadApiConfig, tls};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use serde_json::json;

use crate::wire::{Reply, Request, connect, read_reply, send_message};
use crate::world::{Setup, WORKER, World};

/// Believes every server, so that what is seen is the server's check and not the client's.
#[derive(Debug)]
struct Gullible(Arc<CryptoProvider>);

impl ServerCertVerifier for Gullible {
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

/// A client without a certificate.
fn anonymous(versions: &[&'static rustls::SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible(provider)))
        .with_no_client_auth();
    Arc::new(config)
}

/// A client that calls `callee` with the certificate of `identity`.
pub(crate) fn certified(socket: &str, identity: &str, callee: &str) -> Arc<ClientConfig> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = WorkloadApiConfig::new(socket.into(), SpiffeId::parse(identity).unwrap());
    let source = runtime.block_on(IdentitySource::connect(config)).unwrap();
    tls::client_config(&source, &SpiffeId::parse(callee).unwrap(), &[b"http/1.1"]).unwrap()
}

/// Sends a request over TLS and reads the answer.
pub(crate) fn send(config: Arc<ClientConfig>, to: SocketAddr, request: &Request) -> Reply {
    let name = ServerName::try_from("localhost").unwrap();
    let session = ClientConnection::new(config, name).unwrap();
    let mut stream = StreamOwned::new(session, connect(to));
    stream.write_all(&request.bytes()).unwrap();
    read_reply(&mut stream)
}

#[test]
fn without_a_certificate_only_card_and_health_answer() {
    let world = World::new();
    let _issuer = world.issuer("example.org");
    let mut worker = world.worker(&Setup::default());
    let config = anonymous(&[&rustls::version::TLS13]);
    let ask = |request: Request| send(Arc::clone(&config), worker.mesh(), &request);

    let card = ask(Request::get("/.well-known/agent-card.json"));
    assert_eq!(card.status, 200);
    assert_eq!(card.json()["name"], "Document Worker Agent");
    for path in ["/health", "/health/live", "/health/ready"] {
        assert_eq!(ask(Request::get(path)).status, 200, "{path}");
    }

    let call = send_message("count_words", &json!({"text": "good"}));
    let refused = ask(Request::post(call.to_string()));
    assert_eq!(refused.status, 401, "{refused:?}");
    assert_eq!(refused.error(), (-32000, "UNAUTHENTICATED".into()));
    assert!(refused.header("www-authenticate").is_some(), "{refused:?}");
    // A header is no identity.
    let claim = Request::post(call.to_string())
        .header("x-spiffe-id", "spiffe://example.org/orchestrator")
        .header("x-forwarded-client-cert", "URI=spiffe://example.org/orchestrator")
        .header("authorization", "Bearer spiffe://example.org/orchestrator");
    assert_eq!(ask(claim).status, 401);

    let records = worker.final_audit();
    assert_eq!(records.len(), 2, "{records:#?}");
    for record in records {
        assert_eq!(
            (&record["decision"], &record["reason"], &record["caller_spiffe_id"]),
            (&json!("deny"), &json!("no_credential"), &json!("anonymous")),
            "{record}"
        );
    }
    worker.assert_sound();
}

#[test]
fn strangers_certificates_fail_the_handshake() {
    let world = World::new();
    let _issuer = world.issuer("example.org");
    let _other = world.issuer("stranger.example");
    let mut worker = world.worker(&Setup::default());
    let socket = world.socket("stranger.example");
    let honest = certified(&socket, "spiffe://stranger.example/orchestrator", WORKER);
    let mut config = Arc::unwrap_or_clone(honest);
    let provider = Arc::new(aws_lc_rs::default_provider());
    config.dangerous().set_certificate_verifier(Arc::new(Gullible(provider)));

    let config = Arc::new(config);
    for request in [
        Request::post(send_message("count_words", &json!({"text": "good"})).to_string()),
        Request::get("/.well-known/agent-card.json"),
    ] {
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(Arc::clone(&config), name).unwrap();
        let mut stream = StreamOwned::new(session, connect(worker.mesh()));
        // With TLS 1.3 the server's verdict comes after the client has begun to write.
        let _may_break = stream.write_all(&request.bytes());
        let error = std::io::Read::read(&mut stream, &mut [0; 1024]).unwrap_err();
        let refused = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        assert!(matches!(refused, Some(rustls::Error::AlertReceived(_))), "{error:?}");
    }
    let said = worker.wait_for_message("Peer turned away");
    assert_eq!(said["level"], "WARN");
    assert!(said["reason"].as_str().unwrap().contains("spiffe://stranger.example"), "{said}");
    assert!(said["remote_addr"].is_string(), "{said}");
    assert_eq!(worker.final_audit(), [] as [serde_json::Value; 0]);
    worker.assert_sound();
}

#[test]
fn nothing_older_than_tls_1_3_is_spoken() {
    let world = World::new();
    let _issuer = world.issuer("example.org");
    let worker = world.worker(&Setup::default());
    // rustls here is built without TLS 1.2, so the greeting of such a client is written by hand:
    // a ClientHello of version 1.2 with one cipher suite and no extensions.
    let mut hello = vec![0x03, 0x03];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2f, 1, 0]);
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![0x16, 0x03, 0x01, 0, length + 4, 0x01, 0, 0, length];
    record.extend(hello);
    let mut stream = connect(worker.mesh());
    stream.write_all(&record).unwrap();
    let mut answer = [0; 7];
    std::io::Read::read_exact(&mut stream, &mut answer).unwrap();
    // A fatal alert, and nothing of a handshake.
    assert_eq!((answer[0], answer[5]), (0x15, 2), "{answer:?}");

    // Plain HTTP on the mesh port gets no HTTP back.
    let mut stream = connect(worker.mesh());
    stream.write_all(&Request::get("/health").bytes()).unwrap();
    let mut answer = Vec::new();
    let _reset = std::io::Read::read_to_end(&mut stream, &mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");

    let config = anonymous(&[&rustls::version::TLS13]);
    assert_eq!(send(config, worker.mesh(), &Request::get("/health/live")).status, 200);
    worker.assert_sound();
}
