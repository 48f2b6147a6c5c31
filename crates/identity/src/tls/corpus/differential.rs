//! The corpus before `spiffe-rustls`: whatever it refuses, we refuse.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use spiffe::X509Source;
use tokio::net::UnixListener;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::cases::{self, ACCEPTED, Keys, NOW};
use super::der::Draft;
use super::{JUDGE, judge, leaf_key, verdicts};
use crate::tls::{PROVIDER, TLS13};

/// What it accepts and we do not, and why we do not.
const DIFFERENCES: &[(&str, &str)] = &[
    ("chain-authority-with-path", "the SPIFFE ID of an authority has no path: X.509-SVID §3.2"),
    ("chain-cross-signed", "a signature of ours makes no authority of ours of another domain's"),
    ("chain-nine-intermediates", "what a peer sends is bounded"),
    ("domain-upper-case", "two spellings of one ID would be two names in policies and records"),
    ("purposes-none", "a certificate that was made for something else could pass"),
    ("scheme-upper-case", "as for the domain"),
    ("time-root-expired", "an anchor of path building has no end, and a root has"),
    ("uris-one-no-utf8", "whoever can read the other URI sees another peer"),
    ("usage-with-more", "what stands behind the value is read by some and not by others"),
];

#[tokio::test]
async fn whatever_spiffe_rustls_refuses_we_refuse() {
    let keys = Keys::read();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    let api = tokio::spawn(serve(UnixListener::bind(&socket).unwrap(), response(&keys)));
    let endpoint = format!("unix:{}", socket.display());
    let source = X509Source::builder().endpoint(endpoint).build().await.unwrap();
    let mut client = spiffe_rustls::mtls_client(source.clone()).build().unwrap();
    let mut server = spiffe_rustls::mtls_server(source).build().unwrap();
    client.time_provider = Arc::new(Then);
    server.time_provider = Arc::new(Then);
    let (client, server) = (Arc::new(client), Arc::new(server));

    let (judge, mut looser, mut stricter) = (judge(&keys), BTreeSet::new(), BTreeSet::new());
    for case in cases::cases(&keys) {
        let presented = Presented::new(case.chain.clone(), &case.name);
        let (accepted, _) = handshake(presented.client(), Arc::clone(&server)).await;
        let (_, connected) = handshake(Arc::clone(&client), presented.server()).await;
        let ours = verdicts(&judge, &case).map(|verdict| verdict == ACCEPTED);
        for (ours, theirs) in ours.into_iter().zip([accepted, connected]) {
            if ours && !theirs {
                looser.insert(case.name.clone());
            } else if theirs && !ours {
                stricter.insert(case.name.clone());
            }
        }
    }
    api.abort();
    assert!(looser.is_empty(), "accepted here and refused there: {looser:?}");
    assert!(stricter.iter().eq(DIFFERENCES.iter().map(|(name, _)| *name)), "{stricter:?}");
}

/// One handshake: whether the server accepted the client, and the client the server.
async fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> (bool, bool) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from("localhost").unwrap();
    // Each end is dropped when it is done, so the other learns of a failure.
    let (accepted, connected) =
        tokio::join!(async { TlsAcceptor::from(server).accept(far).await.map(drop) }, async {
            TlsConnector::from(client).connect(name, near).await.map(drop)
        },);
    (accepted.is_ok(), connected.is_ok())
}

#[derive(Clone, PartialEq, prost::Message)]
struct Response {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<Svid>,
    #[prost(map = "string, bytes", tag = "3")]
    federated_bundles: HashMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Svid {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    #[prost(bytes = "vec", tag = "2")]
    x509_svid: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    x509_svid_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    bundle: Vec<u8>,
}

/// What a Workload API says to the judge of the corpus.
fn response(keys: &Keys) -> Bytes {
    let mut bundles = HashMap::<String, Vec<u8>>::new();
    for (domain, root) in cases::roots(keys) {
        bundles.entry(domain.to_owned()).or_default().extend_from_slice(&root);
    }
    let svid = Svid {
        spiffe_id: JUDGE.to_owned(),
        x509_svid: Draft::leaf(JUDGE, &keys.root).sign(&keys.root).to_vec(),
        x509_svid_key: leaf_key("").secret_der().to_vec(),
        bundle: bundles.remove("example.org").unwrap(),
    };
    let response = Response { svids: vec![svid], federated_bundles: bundles };
    // A message of gRPC: not compressed, its length, itself.
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(response.encoded_len()).unwrap());
    response.encode(&mut framed).unwrap();
    framed.freeze()
}

/// Says one thing to whoever asks, and nothing after it.
async fn serve(listener: UnixListener, response: Bytes) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let response = response.clone();
        let service = hyper::service::service_fn(move |_| {
            let frame = Ok::<_, Infallible>(Frame::data(response.clone()));
            let body = StreamBody::new(stream::iter([frame]).chain(stream::pending()));
            let mut response = http::Response::new(body);
            let kind = http::HeaderValue::from_static("application/grpc");
            response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
            async move { Ok::<_, Infallible>(response) }
        });
        tokio::spawn(
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service),
        );
    }
}

/// Shows one chain to everybody and looks at nobody.
#[derive(Debug, Clone)]
struct Presented(Arc<CertifiedKey>);

impl Presented {
    fn new(chain: Vec<CertificateDer<'static>>, name: &str) -> Self {
        let signer = any_supported_type(&leaf_key(name)).unwrap();
        Self(Arc::new(CertifiedKey::new(chain, signer)))
    }

    fn client(&self) -> Arc<ClientConfig> {
        let config = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self.clone()))
            .with_client_cert_resolver(Arc::new(self.clone()));
        Arc::new(config)
    }

    fn server(&self) -> Arc<ServerConfig> {
        let config = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.clone()));
        Arc::new(config)
    }
}

impl ResolvesClientCert for Presented {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for Presented {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl ServerCertVerifier for Presented {
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
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}

/// The instant at which the corpus is looked at.
#[derive(Debug)]
struct Then;

impl TimeProvider for Then {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(NOW)))
    }
}
