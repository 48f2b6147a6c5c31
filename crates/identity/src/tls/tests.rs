#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io;

use rcgen::{BasicConstraints, CertificateParams, CustomExtension, IsCa, KeyUsagePurpose, SanType};
use rustls::HandshakeKind;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::*;
use crate::material::Material;
use crate::profile::ProfileError;
use crate::testing::{Authority, set_validity};

const WORKER: &str = "spiffe://example.org/worker";
const CALLER: &str = "spiffe://example.org/caller";

fn source(material: Material) -> IdentitySource {
    IdentitySource::from_material(material)
}

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

type Outcome =
    (io::Result<client::TlsStream<DuplexStream>>, io::Result<server::TlsStream<DuplexStream>>);

/// One handshake, both ends to their end.
async fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Outcome {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from("localhost").unwrap();
    let (connected, accepted) =
        tokio::join!(TlsConnector::from(client).connect(name, near), async {
            TlsAcceptor::from(server).accept(far).await
        });
    (connected, accepted)
}

async fn between(client: &IdentitySource, server: &IdentitySource) -> Outcome {
    let config = client_config(client, server.spiffe_id(), &[b"http/1.1"]).unwrap();
    handshake(config, server_config(server).unwrap()).await
}

fn reason<T: std::fmt::Debug>(outcome: io::Result<T>) -> PeerError {
    let error = outcome.expect_err("the handshake should have failed");
    peer_error(&error).unwrap_or_else(|| panic!("no peer error in {error:?}")).clone()
}

#[tokio::test]
async fn both_ends_know_each_other() {
    let ours = Authority::new("example.org");
    let (caller, worker) = (source(ours.material(CALLER, &[])), source(ours.material(WORKER, &[])));
    let config = client_config(&caller, &id(WORKER), &[b"h2", b"http/1.1"]).unwrap();
    let (connected, accepted) = handshake(config, server_config(&worker).unwrap()).await;
    let (mut connected, mut accepted) = (connected.unwrap(), accepted.unwrap());

    let (_, session) = connected.get_ref();
    assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    let peer = verified_peer(session.peer_certificates().unwrap()).unwrap().unwrap();
    assert_eq!(peer, PeerSvid { spiffe_id: id(WORKER), not_after: worker.current().not_after() });

    let (_, session) = accepted.get_ref();
    let peer = verified_peer(session.peer_certificates().unwrap()).unwrap().unwrap();
    assert_eq!(peer.spiffe_id, id(CALLER));

    connected.write_all(b"ping").await.unwrap();
    let mut heard = [0; 4];
    accepted.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"ping");
}

#[tokio::test]
async fn the_callee_is_pinned() {
    let ours = Authority::new("example.org");
    let (caller, worker) = (source(ours.material(CALLER, &[])), source(ours.material(WORKER, &[])));
    let expected = id("spiffe://example.org/worker2");
    let config = client_config(&caller, &expected, &[b"h2"]).unwrap();
    let (connected, accepted) = handshake(config, server_config(&worker).unwrap()).await;
    assert_eq!(reason(connected), PeerError::WrongId { expected, found: id(WORKER) });
    let accepted = accepted.unwrap_err();
    assert!(refused_by_peer(&accepted), "{accepted:?}");
    assert!(peer_error(&accepted).is_none());
}

#[tokio::test]
async fn nobody_in_particular_is_let_in() {
    let ours = Authority::new("example.org");
    let (caller, worker) = (source(ours.material(CALLER, &[])), source(ours.material(WORKER, &[])));
    let mut config = (*client_config(&caller, &id(WORKER), &[b"h2"]).unwrap()).clone();
    config.client_auth_cert_resolver = Arc::new(NoCertificate);
    let (connected, accepted) = handshake(Arc::new(config), server_config(&worker).unwrap()).await;
    connected.unwrap();
    let accepted = accepted.unwrap();
    let certs = accepted.get_ref().1.peer_certificates().unwrap_or_default();
    assert_eq!(verified_peer(certs), Ok(None));
}

#[derive(Debug)]
struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }
    fn has_certs(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn roots_vouch_for_their_own_domain_only() {
    let (ours, foreign) = (Authority::new("example.org"), Authority::new("other.org"));
    let imposter = Authority::new("example.org");
    let alice = "spiffe://other.org/alice";
    let worker = source(ours.material(WORKER, &[]));
    let open_worker = source(ours.material(WORKER, &[&foreign]));

    // A domain without a bundle.
    let (_, accepted) = between(&source(foreign.material(alice, &[&ours])), &worker).await;
    assert_eq!(reason(accepted), PeerError::UntrustedDomain { spiffe_id: id(alice) });
    let (connected, _) = between(&worker, &source(foreign.material(alice, &[&ours]))).await;
    assert_eq!(reason(connected), PeerError::UntrustedDomain { spiffe_id: id(alice) });

    // A domain with one.
    let (connected, accepted) =
        between(&source(foreign.material(alice, &[&ours])), &open_worker).await;
    connected.unwrap();
    accepted.unwrap();

    // A trusted foreign root that signs for our domain.
    let leaf = foreign.leaf(CALLER, |_| {});
    let forged = source(ours.material_of(CALLER, &[], leaf));
    let (_, accepted) = between(&forged, &open_worker).await;
    assert!(matches!(reason(accepted), PeerError::UntrustedChain { spiffe_id, .. }
        if spiffe_id == id(CALLER)));

    // Another authority under our domain's name.
    let caller = source(imposter.material(CALLER, &[&ours]));
    let (_, accepted) = between(&caller, &worker).await;
    assert!(matches!(reason(accepted), PeerError::UntrustedChain { .. }));
    let fake_worker = source(imposter.material(WORKER, &[&ours]));
    let (connected, _) = between(&source(ours.material(CALLER, &[])), &fake_worker).await;
    assert!(matches!(reason(connected), PeerError::UntrustedChain { .. }));
}

#[tokio::test]
async fn nothing_is_resumed() {
    let ours = Authority::new("example.org");
    let (caller, worker) = (source(ours.material(CALLER, &[])), source(ours.material(WORKER, &[])));
    let client = client_config(&caller, &id(WORKER), &[b"h2"]).unwrap();
    let server = server_config(&worker).unwrap();
    // A server of ours against a client that would resume if it were given a ticket.
    let mut eager = (*client).clone();
    eager.resumption = Resumption::in_memory_sessions(8);
    for client in [client, Arc::new(eager)] {
        for _ in 0..2 {
            let (connected, accepted) = handshake(Arc::clone(&client), Arc::clone(&server)).await;
            let (mut connected, mut accepted) = (connected.unwrap(), accepted.unwrap());
            // Tickets travel after the handshake, so something is read before the next one.
            accepted.write_all(b"x").await.unwrap();
            connected.read_u8().await.unwrap();
            assert_eq!(connected.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
            assert_eq!(accepted.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
            assert_eq!(connected.get_ref().1.tls13_tickets_received(), 0);
        }
    }
}

/// A ClientHello as a client that knows nothing above TLS 1.2 sends it: two of the suites of
/// TLS 1.2, and no `supported_versions`.
#[tokio::test]
async fn tls_1_2_is_not_spoken() {
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0]);
    let extensions = [
        [0, 10, 0, 4, 0, 2, 0, 23].as_slice(),
        &[0, 13, 0, 6, 0, 4, 4, 3, 8, 4],
        &[0, 11, 0, 2, 1, 0],
    ]
    .concat();
    hello.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    hello.extend(extensions);
    let length = u16::try_from(hello.len()).unwrap();
    let mut record = vec![22, 3, 1];
    record.extend((length + 4).to_be_bytes());
    record.extend([1, 0]);
    record.extend(length.to_be_bytes());
    record.extend(hello);

    let ours = Authority::new("example.org");
    let config = server_config(&source(ours.material(WORKER, &[]))).unwrap();
    let (mut near, far) = tokio::io::duplex(4096);
    near.write_all(&record).await.unwrap();
    let error = TlsAcceptor::from(config).accept(far).await.unwrap_err();
    let error = error.get_ref().unwrap().downcast_ref::<rustls::Error>().unwrap();
    let expected = rustls::PeerIncompatible::SupportedVersionsExtensionRequired;
    assert_eq!(*error, rustls::Error::PeerIncompatible(expected));
    let mut alert = Vec::new();
    near.read_to_end(&mut alert).await.unwrap();
    // A fatal alert of type `protocol_version`.
    assert_eq!(alert[0], 21);
    assert_eq!(alert[5..], [2, 70]);
}

#[tokio::test]
async fn an_expired_identity_goes_on_with_nobody() {
    let ours = Authority::new("example.org");
    let expired = |name: &str| {
        let leaf = ours.leaf(name, |params| set_validity(params, -200, -100));
        source(ours.material_of(name, &[], leaf))
    };
    let worker = source(ours.material(WORKER, &[]));

    // As caller: the callee is good, the caller stops.
    let (connected, _) = between(&expired(CALLER), &worker).await;
    assert_eq!(reason(connected), PeerError::OwnExpired { spiffe_id: id(CALLER) });
    // As callee: there is nothing to present.
    let (connected, accepted) =
        between(&source(ours.material(CALLER, &[])), &expired(WORKER)).await;
    assert!(connected.is_err());
    assert!(accepted.is_err());
}

#[test]
fn a_listener_says_before_the_handshake_that_it_has_no_identity() {
    let ours = Authority::new("example.org");
    let leaf = ours.leaf(WORKER, |params| set_validity(params, -200, -100));
    let worker = source(ours.material_of(WORKER, &[], leaf));
    let listener = listener_config(&worker).unwrap();
    assert_eq!(reason(listener()), PeerError::OwnExpired { spiffe_id: id(WORKER) });
    worker.publish(ours.material(WORKER, &[])).unwrap();
    listener().unwrap();
}

#[tokio::test]
async fn configurations_follow_rotations() {
    let (ours, next) = (Authority::new("example.org"), Authority::new("example.org"));
    let (caller, worker) = (source(ours.material(CALLER, &[])), source(ours.material(WORKER, &[])));
    let client = client_config(&caller, &id(WORKER), &[b"h2"]).unwrap();
    let server = server_config(&worker).unwrap();
    let mut changes = caller.changes();

    assert_eq!(worker.publish(next.material(WORKER, &[&ours])).unwrap(), 2);
    let (connected, _) = handshake(Arc::clone(&client), Arc::clone(&server)).await;
    assert!(matches!(reason(connected), PeerError::UntrustedChain { .. }));

    assert_eq!(caller.publish(ours.material(CALLER, &[&next])).unwrap(), 2);
    assert_eq!(*changes.borrow_and_update(), 2);
    let (connected, accepted) = handshake(client, server).await;
    connected.unwrap();
    accepted.unwrap();

    assert!(caller.publish(ours.material(WORKER, &[])).is_err());
    assert_eq!(caller.current().revision(), 2);
}

/// Presents `leaf` to a worker of the same authority, as caller and as callee, and compares why it
/// was refused.
async fn check(
    what: &str,
    name: &str,
    change: impl Fn(&mut CertificateParams),
    expected: impl Fn(&PeerError) -> bool,
) {
    let ours = Authority::new("example.org");
    let leaf = ours.leaf(name, change);
    let good = source(ours.material(WORKER, &[]));
    // Not `from_der`, which would already refuse some of them.
    let key = provider().key_provider.load_private_key(leaf.key).unwrap();
    let bad = Arc::new(Fixed(Arc::new(CertifiedKey::new(vec![leaf.certificate], key))));

    let mut client = (*client_config(&good, &id(WORKER), &[b"h2"]).unwrap()).clone();
    client.client_auth_cert_resolver = bad.clone();
    let (_, accepted) = handshake(Arc::new(client), server_config(&good).unwrap()).await;
    let found = reason(accepted);
    assert!(expected(&found), "{what}, as caller: {found:?}");

    let mut server = (*server_config(&good).unwrap()).clone();
    server.cert_resolver = bad;
    let client = client_config(&good, &id(WORKER), &[b"h2"]).unwrap();
    let (connected, _) = handshake(client, Arc::new(server)).await;
    let found = reason(connected);
    assert!(expected(&found), "{what}, as callee: {found:?}");
}

#[derive(Debug)]
struct Fixed(Arc<CertifiedKey>);

impl ResolvesClientCert for Fixed {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for Fixed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[tokio::test]
async fn what_is_no_svid_is_refused() {
    use ProfileError as P;
    type Change = fn(&mut CertificateParams);
    fn uris(params: &mut CertificateParams, uris: &[&str]) {
        params.subject_alt_names =
            uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    }
    let profile: [(&str, Change, P); 9] = [
        ("authority", |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained), P::Authority),
        ("no basic constraints", |p| p.is_ca = IsCa::NoCa, P::Authority),
        ("no key usage", |p| p.key_usages.clear(), P::NoDigitalSignature),
        (
            "no digital signature",
            |p| p.key_usages = vec![KeyUsagePurpose::KeyEncipherment],
            P::NoDigitalSignature,
        ),
        (
            "signs certificates",
            |p| p.key_usages.push(KeyUsagePurpose::KeyCertSign),
            P::SigningUsage("keyCertSign"),
        ),
        (
            "signs revocations",
            |p| p.key_usages.push(KeyUsagePurpose::CrlSign),
            P::SigningUsage("cRLSign"),
        ),
        ("no names", |p| p.subject_alt_names.clear(), P::UriNames(0)),
        (
            "a DNS name only",
            |p| p.subject_alt_names = vec![SanType::DnsName("worker".try_into().unwrap())],
            P::UriNames(0),
        ),
        ("two URI names", |p| uris(p, &[WORKER, "https://example.org/worker"]), P::UriNames(2)),
    ];
    for (what, change, expected) in profile {
        check(what, WORKER, change, |found| *found == PeerError::Profile(expected.clone())).await;
    }
    for name in [
        "https://example.org/worker",
        "spiffe://example.org",
        "spiffe://example.org/",
        "spiffe://Example.org/worker",
        "spiffe://example.org:8443/worker",
        "spiffe://user@example.org/worker",
        "spiffe://example.org/worker?x=1",
        "spiffe://example.org/worker#x",
        "spiffe://example.org/%2e%2e/worker",
        "spiffe://example.org/../worker",
        "spiffe://example.org/a//worker",
    ] {
        check(name, name, |_| {}, |found| matches!(found, PeerError::Profile(P::SpiffeId(_))))
            .await;
    }
    check(
        "expired",
        WORKER,
        |p| set_validity(p, -200, -100),
        |found| *found == PeerError::Expired { spiffe_id: id(WORKER) },
    )
    .await;
    check(
        "not yet valid",
        WORKER,
        |p| set_validity(p, 1000, 2000),
        |found| *found == PeerError::NotYetValid { spiffe_id: id(WORKER) },
    )
    .await;
    let unknown = |p: &mut CertificateParams| {
        let mut extension =
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 1, 1], vec![5, 0]);
        extension.set_criticality(true);
        p.custom_extensions.push(extension);
    };
    check("unknown critical extension", WORKER, unknown, |found| {
        matches!(found, PeerError::UntrustedChain { .. })
    })
    .await;
    let code_signing = |p: &mut CertificateParams| {
        p.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::CodeSigning];
    };
    check("other extended usage", WORKER, code_signing, |found| {
        matches!(found, PeerError::UntrustedChain { .. })
    })
    .await;
}

#[test]
fn garbage_is_no_certificate() {
    for bytes in [&b""[..], &[0x30], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &[0xff; 64]] {
        let found = verified_peer(&[CertificateDer::from(bytes)]);
        assert_eq!(found, Err(PeerError::Profile(ProfileError::Malformed)));
    }
    let long = vec![0x30; 17 * 1024];
    let found = verified_peer(&[CertificateDer::from(long)]).unwrap_err();
    assert!(matches!(found, PeerError::Profile(ProfileError::TooLong { .. })));
    // Every cut and every flipped byte of a good one is read without a panic.
    let leaf = Authority::new("example.org").leaf(WORKER, |_| {}).certificate;
    for at in 0..leaf.len() {
        assert!(verified_peer(&[CertificateDer::from(&leaf[..at])]).is_err());
        let mut flipped = leaf.to_vec();
        flipped[at] ^= 0xff;
        drop(verified_peer(&[CertificateDer::from(flipped)]));
    }
    assert_eq!(verified_peer(&[]), Ok(None));
}
