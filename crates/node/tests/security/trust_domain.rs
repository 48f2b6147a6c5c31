//! `sec_trust_domain`: three trust domains in every direction.

use std::sync::Arc;
use std::time::Duration;

use convoke_client::Client;
use convoke_identity::tls::{PeerError, client_config, peer_error, server_config};
use convoke_identity::{AuthorityError, IdentitySource};
use convoke_model::SpiffeId;
use rustls_pki_types::ServerName;
use serde_json::json;
use tokio::time::Instant;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::authority::{Authority, Svid};
use crate::mesh::{AGENT, Caller, Mesh, Outcome, PATIENCE, VERSIONS, Version};

const A: &str = "spiffe://a.org/may/one";
const B: &str = "spiffe://b.org/may/one";
const C: &str = "spiffe://c.org/may/one";

/// What the caller said of the callee, and the callee of the caller; nothing if it went on.
async fn handshake(
    caller: &IdentitySource,
    callee: &IdentitySource,
    wanted: &str,
) -> (Option<PeerError>, Option<PeerError>) {
    let wanted = SpiffeId::parse(wanted).unwrap();
    let client = client_config(caller, &wanted, &[b"h2"]).unwrap();
    let server = server_config(callee).unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from("localhost").unwrap();
    let (connected, accepted) = tokio::join!(
        async { TlsConnector::from(client).connect(name, near).await.map(drop) },
        async { TlsAcceptor::from(server).accept(far).await.map(drop) },
    );
    let reason =
        |outcome: std::io::Result<()>| outcome.err().and_then(|error| peer_error(&error).cloned());
    (reason(connected), reason(accepted))
}

#[tokio::test]
async fn sec_trust_domain_in_every_direction() {
    let (a, b, c) = (Authority::new("a.org"), Authority::new("b.org"), Authority::new("c.org"));
    // A and B trust each other; C trusts A and is trusted by nobody.
    let all = [
        (A, a.source(A, &a.svid(A), &[&b]), ["a.org", "b.org"]),
        (B, b.source(B, &b.svid(B), &[&a]), ["b.org", "a.org"]),
        (C, c.source(C, &c.svid(C), &[&a]), ["c.org", "a.org"]),
    ];
    for (caller, as_caller, trusted_by_caller) in &all {
        for (callee, as_callee, trusted_by_callee) in &all {
            let (of_callee, of_caller) = handshake(as_caller, as_callee, callee).await;
            let trusts = |trusted: &[&str], id: &str| {
                trusted.contains(&SpiffeId::parse(id).unwrap().trust_domain_str())
            };
            let untrusted =
                |id: &str| PeerError::UntrustedDomain { spiffe_id: SpiffeId::parse(id).unwrap() };
            let case = format!("{caller} calls {callee}");
            if trusts(trusted_by_caller, callee) {
                assert_eq!(of_callee, None, "{case}");
                // The callee sees the caller's certificate only if the caller went on.
                let expected = (!trusts(trusted_by_callee, caller)).then(|| untrusted(caller));
                assert_eq!(of_caller, expected, "{case}");
            } else {
                assert_eq!(of_callee, Some(untrusted(callee)), "{case}");
            }
        }
    }
}

/// Presents `svid` as `id` to somebody of A who trusts B, as a caller and as a callee.
async fn check_refused(
    a: &Authority,
    b: &Authority,
    svid: &Svid,
    expected: fn(&PeerError) -> bool,
) {
    let judge = a.source("spiffe://a.org/judge", &a.svid("spiffe://a.org/judge"), &[b]);
    let forged = a.source(A, svid, &[b]);
    let (_, of_caller) = handshake(&forged, &judge, "spiffe://a.org/judge").await;
    assert!(of_caller.as_ref().is_some_and(expected), "{of_caller:?}");
    let (of_callee, _) = handshake(&judge, &forged, A).await;
    assert!(of_callee.as_ref().is_some_and(expected), "{of_callee:?}");
}

#[tokio::test]
async fn sec_trust_domain_b_cannot_make_a() {
    let (a, b) = (Authority::new("a.org"), Authority::new("b.org"));
    check_refused(&a, &b, &b.svid(A), |error| matches!(error, PeerError::UntrustedChain { .. }))
        .await;
}

#[tokio::test]
async fn sec_trust_domain_a_cross_signed_authority_makes_no_a() {
    let (a, b) = (Authority::new("a.org"), Authority::new("b.org"));
    let cross = a.cross_sign("b.org");
    check_refused(&a, &b, &cross.svid(A), |error| {
        let source = match error {
            PeerError::UnfitAuthority { source, .. } => source,
            _ => return false,
        };
        matches!(source, AuthorityError::OtherDomain { found, .. } if found == "spiffe://b.org")
    })
    .await;
    // An authority below the own root and of the own domain does.
    let judge = a.source("spiffe://a.org/judge", &a.svid("spiffe://a.org/judge"), &[]);
    let below = a.source(A, &a.cross_sign("a.org").svid(A), &[]);
    assert_eq!(handshake(&below, &judge, "spiffe://a.org/judge").await, (None, None));
}

/// The caller's side: a call that runs ends with the trust in its callee.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_trust_domain_removed_by_the_caller() {
    const ID: &str = "spiffe://partner.org/may/call";
    let partner = Authority::new("partner.org");
    let mesh = Mesh::start(&[&partner]).await;
    let svid = partner.svid(ID);
    let source = Arc::new(partner.source(ID, &svid, &[&mesh.authority]));
    let client = Client::with_source(Arc::clone(&source));
    let address = format!("https://localhost:{}", mesh.mesh.port());
    let agent = SpiffeId::parse(AGENT).unwrap();
    let call = |capability, params| {
        let call = client.call(&agent, capability, params).address(&*address);
        call.timeout(PATIENCE * 10).json()
    };
    assert_eq!(call("echo", json!({"text": "x"})).await.unwrap().get(), r#""x""#);
    let waiting = tokio::spawn(call("wait", json!({})));
    // The second call is on its way once the node has it at work.
    mesh.until_waiting().await;
    source.publish(partner.material(ID, &svid, &[])).unwrap();
    let error = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap_err();
    assert!(error.to_string().contains("trust domain `example.org` is not trusted"), "{error}");
    let error = call("echo", json!({"text": "x"})).await.unwrap_err();
    assert!(error.to_string().contains("trust domain `example.org` is not trusted"), "{error}");
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_trust_domain_removed_under_load() {
    let partner = Authority::new("partner.org");
    let mesh = Mesh::start(&[&partner]).await;
    let svid = partner.svid("spiffe://partner.org/may/call");
    let own = mesh.authority.svid("spiffe://example.org/may/call");
    let connect = |svid, version| Caller::connect(mesh.mesh, svid, version);

    let mut idle = Vec::new();
    for version in VERSIONS {
        let mut caller = connect(Some(&svid), version).await.unwrap();
        assert_eq!(caller.call("echo").await.status(), Some(200));
        idle.push(caller);
    }
    // A call that never ends by itself, one caller after another on new connections, and one who
    // keeps a connection.
    let mut waiting = connect(Some(&svid), Version::Http1).await.unwrap();
    let waiting = tokio::spawn(async move { waiting.call("wait").await });
    let mut kept = connect(Some(&svid), Version::Http2).await.unwrap();
    let mut bystander = connect(Some(&own), Version::Http2).await.unwrap();
    assert_eq!(kept.call("echo").await.status(), Some(200));

    let replaced = Instant::now();
    mesh.replace_bundle("partner.org", "");
    let mut last_success = replaced;
    while kept.call("echo").await.status() == Some(200) {
        last_success = Instant::now();
        assert!(replaced.elapsed() < PATIENCE, "the connection is never ended");
        tokio::task::yield_now().await;
    }
    // The bundle is gone for new connections as well, and the other domain sees nothing of it.
    for version in VERSIONS {
        let outcome = match connect(Some(&svid), version).await {
            Ok(mut caller) => caller.call("echo").await,
            Err(outcome) => outcome,
        };
        assert_eq!(outcome, Outcome::TurnedAway);
    }
    for caller in idle {
        caller.ended().await;
    }
    let cut = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert!(matches!(cut, Outcome::Broken(_)), "{cut:?}");
    assert_eq!(bystander.call("echo").await.status(), Some(200));
    assert!(last_success - replaced < Duration::from_secs(5), "{:?}", last_success - replaced);
    mesh.end().await;
}

/// Over HTTP/2 a caller may go on asking until it has read that the connection closes, and one who
/// is not trusted need not read it. From the review on it gets nothing but refusals.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_trust_domain_removed_refuses_what_still_comes() {
    let partner = Authority::new("partner.org");
    let mesh = Mesh::start(&[&partner]).await;
    let svid = partner.svid("spiffe://partner.org/may/call");
    let mut deaf = Caller::connect_deaf(mesh.mesh, &svid).await.unwrap();
    assert_eq!(deaf.call("echo").await.status(), Some(200));
    mesh.replace_bundle("partner.org", "");
    let begun = Instant::now();
    let refused = loop {
        let outcome = deaf.call("echo").await;
        if outcome.status() != Some(200) {
            break outcome;
        }
        assert!(begun.elapsed() < PATIENCE, "the connection is never ended");
    };
    let Outcome::Answered(status, body) = refused else { panic!("served to the cut: {refused:?}") };
    assert_eq!(status, 401);
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["error"]["data"][0]["reason"], "UNAUTHENTICATED", "{body}");
    mesh.end().await;
}
