//! Handshakes as no client of ours begins them: `sec_resumption`, and the first message of scripted
//! clients.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io;

use rustls::HandshakeKind;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::*;
use crate::testing::Authority;

const WORKER: &str = "spiffe://example.org/worker";
const CALLER: &str = "spiffe://other.org/caller";

type Outcome =
    (io::Result<client::TlsStream<DuplexStream>>, io::Result<server::TlsStream<DuplexStream>>);

async fn handshake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Outcome {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::clone(client));
    let (mut connected, accepted) = tokio::join!(connector.connect(name, near), async {
        let mut accepted = TlsAcceptor::from(Arc::clone(server)).accept(far).await?;
        // Tickets travel after the handshake, so something has to be read for the client to get
        // them.
        accepted.write_all(b"x").await?;
        Ok(accepted)
    });
    if let (Ok(connected), Ok(_)) = (&mut connected, &accepted) {
        connected.write_all(b"y").await.unwrap();
        connected.read_u8().await.unwrap();
    }
    (connected, accepted)
}

/// A client that keeps tickets and would send early data, a server of ours, and one that is like
/// ours but gives out tickets and takes early data.
struct Eager {
    worker: IdentitySource,
    client: Arc<ClientConfig>,
    ours: Arc<ServerConfig>,
    generous: Arc<ServerConfig>,
}

impl Eager {
    fn new(ours: &Authority, other: &Authority) -> Self {
        let worker = IdentitySource::from_material(ours.material(WORKER, &[other]));
        let caller = IdentitySource::from_material(other.material(CALLER, &[ours]));
        let expected = SpiffeId::parse(WORKER).unwrap();
        let mut client = (*client_config(&caller, &expected, &[b"h2"]).unwrap()).clone();
        client.resumption = Resumption::in_memory_sessions(8);
        client.enable_early_data = true;
        let server = server_config(&worker).unwrap();
        let mut generous = (*server).clone();
        generous.session_storage = rustls::server::ServerSessionMemoryCache::new(8);
        generous.send_tls13_tickets = 4;
        generous.max_early_data_size = 1024;
        Self { worker, client: Arc::new(client), ours: server, generous: Arc::new(generous) }
    }
}

/// The test of the test: with tickets, the second handshake is a resumed one with early data.
#[tokio::test]
async fn a_generous_server_is_resumed_at() {
    let (ours, other) = (Authority::new("example.org"), Authority::new("other.org"));
    let eager = Eager::new(&ours, &other);
    let kind = |outcome: &Outcome| outcome.0.as_ref().unwrap().get_ref().1.handshake_kind();
    let first = handshake(&eager.client, &eager.generous).await;
    assert_eq!(kind(&first), Some(HandshakeKind::Full));
    let second = handshake(&eager.client, &eager.generous).await;
    assert_eq!(kind(&second), Some(HandshakeKind::Resumed));
}

#[tokio::test]
async fn sec_resumption_is_impossible_and_early_data_is_not_taken() {
    let (ours, other) = (Authority::new("example.org"), Authority::new("other.org"));
    let eager = Eager::new(&ours, &other);
    // The client has tickets for this name, and offers them.
    handshake(&eager.client, &eager.generous).await.0.unwrap();
    for _ in 0..3 {
        let (connected, accepted) = handshake(&eager.client, &eager.ours).await;
        let (connected, accepted) = (connected.unwrap(), accepted.unwrap());
        let (client, server) = (connected.get_ref().1, accepted.get_ref().1);
        assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
        assert!(!client.is_early_data_accepted());
        assert_eq!(client.tls13_tickets_received(), 0);
        assert!(verified_peer(server.peer_certificates().unwrap()).unwrap().is_some());
    }
}

#[tokio::test]
async fn sec_resume_after_bundle_removal() {
    let (ours, other) = (Authority::new("example.org"), Authority::new("other.org"));
    let eager = Eager::new(&ours, &other);
    handshake(&eager.client, &eager.generous).await.0.unwrap();
    handshake(&eager.client, &eager.ours).await.1.unwrap();
    eager.worker.publish(ours.material(WORKER, &[])).unwrap();
    let (_, accepted) = handshake(&eager.client, &eager.ours).await;
    let error = accepted.unwrap_err();
    assert!(matches!(peer_error(&error), Some(PeerError::UntrustedDomain { .. })), "{error:?}");
}

/// What a `ClientHello` says; each part can be left out or spoiled.
#[derive(Clone)]
struct Hello {
    record: [u8; 3],
    legacy_version: [u8; 2],
    suites: Vec<u8>,
    compression: Vec<u8>,
    extensions: Vec<(u16, Vec<u8>)>,
}

const SERVER_NAME: u16 = 0;
const GROUPS: u16 = 10;
const SIGNATURES: u16 = 13;
const ALPN: u16 = 16;
const PRE_SHARED_KEY: u16 = 41;
const EARLY_DATA: u16 = 42;
const VERSIONS: u16 = 43;
const KEY_SHARE: u16 = 51;

const X25519: [u8; 2] = [0, 29];

impl Hello {
    /// One that our server goes on with.
    fn good() -> Self {
        let share = [&[0, 36][..], &X25519, &[0, 32], &[9; 32]].concat();
        Self {
            record: [22, 3, 1],
            legacy_version: [3, 3],
            suites: vec![0x13, 0x01, 0x13, 0x02],
            compression: vec![0],
            extensions: vec![
                (GROUPS, [&[0, 2][..], &X25519].concat()),
                (SIGNATURES, vec![0, 4, 4, 3, 8, 7]),
                (VERSIONS, vec![2, 3, 4]),
                (KEY_SHARE, share),
            ],
        }
    }

    fn without(mut self, kind: u16) -> Self {
        self.extensions.retain(|(found, _)| *found != kind);
        self
    }

    fn with(self, kind: u16, value: &[u8]) -> Self {
        let mut hello = self.without(kind);
        hello.extensions.push((kind, value.to_vec()));
        hello
    }

    fn twice(mut self, kind: u16) -> Self {
        let again = self.extensions.iter().find(|(found, _)| *found == kind).unwrap().clone();
        self.extensions.push(again);
        self
    }

    fn encode(&self) -> Vec<u8> {
        let two = |length: usize| u16::try_from(length).unwrap().to_be_bytes();
        let mut extensions = Vec::new();
        for (kind, value) in &self.extensions {
            extensions.extend([&kind.to_be_bytes()[..], &two(value.len()), value].concat());
        }
        let body = [
            &self.legacy_version[..],
            &[7; 32],
            &[0],
            &two(self.suites.len()),
            &self.suites,
            &[u8::try_from(self.compression.len()).unwrap()],
            &self.compression,
            &two(extensions.len()),
            &extensions,
        ]
        .concat();
        let message = [&[1, 0][..], &two(body.len()), &body].concat();
        [&self.record[..], &two(message.len()), &message].concat()
    }
}

/// What a server of ours says to `bytes` after which nothing comes: the number of its fatal alert,
/// or nothing if it waits for the rest of the handshake.
async fn alert(bytes: &[u8]) -> Option<u8> {
    let ours = Authority::new("example.org");
    let source = IdentitySource::from_material(ours.material(WORKER, &[]));
    let config = server_config(&source).unwrap();
    let (mut near, far) = tokio::io::duplex(256 * 1024);
    near.write_all(bytes).await.unwrap();
    near.shutdown().await.unwrap();
    let error = TlsAcceptor::from(config).accept(far).await.unwrap_err();
    let mut said = Vec::new();
    near.read_to_end(&mut said).await.unwrap();
    match said[..] {
        [22, ..] if error.kind() == io::ErrorKind::UnexpectedEof => None,
        [22, ..] => Some(ENCRYPTED),
        [21, 3, 3, 0, 2, 2, number] => Some(number),
        [] => Some(NOTHING),
        _ => panic!("{said:?}"),
    }
}

// What stands for an alert that comes after the server's hello, so that only the peer could read
// it, and for the end without one.
const ENCRYPTED: u8 = 254;
const NOTHING: u8 = 255;

// Numbers of alerts. Source: RFC 8446 §6.
const UNEXPECTED_MESSAGE: u8 = 10;
const HANDSHAKE_FAILURE: u8 = 40;
const ILLEGAL_PARAMETER: u8 = 47;
const DECODE_ERROR: u8 = 50;
const PROTOCOL_VERSION: u8 = 70;
const MISSING_EXTENSION: u8 = 109;

#[tokio::test]
async fn a_hello_is_taken_or_refused_by_name() {
    let good = Hello::good;
    let change = |change: fn(&mut Hello)| {
        let mut hello = good();
        change(&mut hello);
        hello
    };
    let psk = [&[0, 22, 0, 16][..], &[1; 16], &[0; 4], &[0, 33, 32], &[2; 32]].concat();
    for (what, hello, expected) in [
        ("a good one", good(), None),
        ("with both protocols", good().with(ALPN, b"\0\x0c\x02h2\x08http/1.1"), None),
        ("with a name that is nobody's", good().with(SERVER_NAME, b"\0\x07\0\0\x04host"), None),
        ("with early data and no key for it", good().with(EARLY_DATA, b""), None),
        ("with an extension that nobody knows", good().with(0x1234, b"x"), None),
        ("versions 1.2 and 1.3", good().with(VERSIONS, &[4, 3, 3, 3, 4]), None),
        ("no version", good().without(VERSIONS), Some(PROTOCOL_VERSION)),
        ("version 1.2", good().with(VERSIONS, &[2, 3, 3]), Some(PROTOCOL_VERSION)),
        ("version 1.1", good().with(VERSIONS, &[2, 3, 2]), Some(PROTOCOL_VERSION)),
        ("version 1.0", good().with(VERSIONS, &[2, 3, 1]), Some(PROTOCOL_VERSION)),
        ("version SSL 3", good().with(VERSIONS, &[2, 3, 0]), Some(PROTOCOL_VERSION)),
        ("a draft of version 1.3", good().with(VERSIONS, &[2, 0x7f, 28]), Some(PROTOCOL_VERSION)),
        ("a version to come", good().with(VERSIONS, &[2, 3, 5]), Some(PROTOCOL_VERSION)),
        ("an old form", change(|it| it.extensions.clear()), Some(HANDSHAKE_FAILURE)),
        ("suites of 1.2", change(|it| it.suites = vec![0xc0, 0x2b]), Some(HANDSHAKE_FAILURE)),
        ("a suite without keys", change(|it| it.suites = vec![0, 0]), Some(HANDSHAKE_FAILURE)),
        ("no suite", change(|it| it.suites.clear()), Some(DECODE_ERROR)),
        ("compression", change(|it| it.compression = vec![1]), Some(ILLEGAL_PARAMETER)),
        ("no group", good().without(GROUPS), Some(NOTHING)),
        ("a weak group", good().with(GROUPS, &[0, 2, 0, 1]), Some(HANDSHAKE_FAILURE)),
        ("no signature", good().without(SIGNATURES), Some(HANDSHAKE_FAILURE)),
        ("SHA-1 alone", good().with(SIGNATURES, &[0, 4, 2, 1, 2, 3]), Some(ENCRYPTED)),
        ("no share", good().without(KEY_SHARE), Some(HANDSHAKE_FAILURE)),
        ("an empty share", good().with(KEY_SHARE, &[0, 0]), None),
        ("a share of nothing", good().with(KEY_SHARE, &[0, 4, 0, 29, 0, 0]), Some(DECODE_ERROR)),
        (
            "a share of the point at zero",
            good().with(KEY_SHARE, &[&[0, 36, 0, 29, 0, 32][..], &[0; 32]].concat()),
            Some(ILLEGAL_PARAMETER),
        ),
        ("a protocol that is not ours", good().with(ALPN, b"\0\x03\x02h3"), Some(ENCRYPTED)),
        ("a protocol without a name", good().with(ALPN, b"\0\x01\0"), Some(DECODE_ERROR)),
        ("two shares", good().twice(KEY_SHARE), Some(ILLEGAL_PARAMETER)),
        ("versions twice", good().twice(VERSIONS), Some(ILLEGAL_PARAMETER)),
        ("a key of before and no mode", good().with(PRE_SHARED_KEY, &psk), Some(MISSING_EXTENSION)),
        ("a key of before that is no key", good().with(PRE_SHARED_KEY, &[0]), Some(DECODE_ERROR)),
    ] {
        assert_eq!(alert(&hello.encode()).await, expected, "{what}");
    }
}

#[tokio::test]
async fn what_is_no_hello_is_refused() {
    let good = Hello::good().encode();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    for (what, bytes, expected) in [
        ("a request of HTTP", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(), DECODE_ERROR),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), DECODE_ERROR),
        ("SSH", b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(), DECODE_ERROR),
        ("an old hello", vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10], DECODE_ERROR),
        ("zeros", vec![0; 64], DECODE_ERROR),
        ("data first", with(0, 23), UNEXPECTED_MESSAGE),
        ("another message first", with(5, 11), DECODE_ERROR),
        ("a server's hello", with(5, 2), DECODE_ERROR),
        ("a record that is too long", with(3, 0xff), DECODE_ERROR),
    ] {
        assert_eq!(alert(&bytes).await, Some(expected), "{what}");
    }
}

/// A hello in pieces of one byte is one hello, and one that never ends is none.
#[tokio::test]
async fn pieces_of_a_hello_are_put_together() {
    let good = Hello::good().encode();
    let mut pieces = Vec::new();
    for byte in &good[5..] {
        pieces.extend([22, 3, 1, 0, 1, *byte]);
    }
    assert_eq!(alert(&pieces).await, None);
}
