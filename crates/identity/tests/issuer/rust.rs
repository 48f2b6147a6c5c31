//! The `spiffe` crate, as its own users use it.

use std::time::Duration;

use convoke_identity::issuer::JWT_SVID_TTL_DEFAULT;
use futures_util::StreamExt;
use spiffe::{JwtSource, JwtSvid, TrustDomain, WorkloadApiError, X509Source};

use crate::world::{CALLER, WORKER, World, our_program, our_uid};

#[tokio::test]
async fn an_x509_source_follows_rotations_and_entries() {
    let world = World::short_lived().await;
    let worker = world.entry(WORKER, &[our_uid()]).await;
    let source = X509Source::builder().endpoint(world.endpoint()).build().await.unwrap();
    let first = source.svid().unwrap();
    assert_eq!(first.spiffe_id().to_string(), WORKER);
    let mut updates = source.updated();
    updates.changed().await.unwrap();
    assert_ne!(first.leaf().as_bytes(), source.svid().unwrap().leaf().as_bytes());

    world.entry(CALLER, &[our_uid(), our_program()]).await;
    world.admin().remove(worker.id).await.unwrap();
    while source.svid().unwrap().spiffe_id().to_string() != CALLER {
        updates.changed().await.unwrap();
    }
    source.shutdown().await;
    world.stop().await;
}

#[tokio::test]
async fn tokens_are_made_and_validated_here_and_elsewhere() {
    let world = World::start().await;
    world.entry(WORKER, &[our_uid()]).await;
    world.entry(CALLER, &[our_program()]).await;
    let source = JwtSource::builder().endpoint(world.endpoint()).build().await.unwrap();
    let svid = source.fetch_jwt_svid(["them", "others"]).await.unwrap();
    assert_eq!(svid.spiffe_id().to_string(), WORKER);
    assert_eq!(svid.audience(), ["them", "others"]);
    let left = svid.expiry().unix_timestamp() - time_now();
    let ttl = i64::try_from(JWT_SVID_TTL_DEFAULT.as_secs()).unwrap();
    assert!((ttl - 30..=ttl).contains(&left), "{left}");

    // By the bundle, without the issuer.
    let bundles = source.bundle_set().unwrap();
    let validated = JwtSvid::parse_and_validate(svid.token(), bundles.as_ref(), &["them"]).unwrap();
    assert_eq!(validated.spiffe_id().to_string(), WORKER);
    assert!(JwtSvid::parse_and_validate(svid.token(), bundles.as_ref(), &["us"]).is_err());

    // By the issuer.
    let client = world.client().await;
    let validated = client.validate_jwt_token("them", svid.token()).await.unwrap();
    assert_eq!(validated.spiffe_id().to_string(), WORKER);
    for (audience, token) in [
        ("us", svid.token().to_owned()),
        ("them", format!("{}x", svid.token())),
        ("them", ".".repeat(9000)),
    ] {
        let error = client.validate_jwt_token(audience, &token).await.unwrap_err();
        assert!(!matches!(error, WorkloadApiError::PermissionDenied(_)), "{error:?}");
    }

    // Another of our identities, and one that is not ours.
    let caller = spiffe::SpiffeId::new(CALLER).unwrap();
    let svid = client.fetch_jwt_svid(["them"], Some(&caller)).await.unwrap();
    assert_eq!(svid.spiffe_id().to_string(), CALLER);
    let foreign = spiffe::SpiffeId::new("spiffe://example.org/foreign").unwrap();
    assert!(client.fetch_jwt_svid(["them"], Some(&foreign)).await.is_err());
    assert_eq!(client.fetch_all_jwt_svids(["them"], None).await.unwrap().len(), 2);
    for audience in [vec![String::new()], vec!["a".repeat(3000)], vec!["a".to_owned(); 17]] {
        assert!(client.fetch_jwt_svid(audience, None).await.is_err());
    }
    source.shutdown().await;
    world.stop().await;
}

fn time_now() -> i64 {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

#[tokio::test]
async fn bundles_are_public_and_those_of_federated_domains_come_along() {
    let other = World::start().await;
    let other_bundle = other.client().await.fetch_x509_bundles().await.unwrap();
    let example = TrustDomain::new("example.org").unwrap();
    let root = other_bundle.get(&example).unwrap().authorities()[0].as_bytes().to_vec();
    let file = other.dir.path().join("bundle.pem");
    std::fs::write(&file, pem(&root)).unwrap();

    let federated = convoke_model::TrustDomain::parse("other.org").unwrap();
    let world = World::with(|config| config.federate = vec![(federated, file)]).await;
    let client = world.client().await;
    let bundles = client.fetch_x509_bundles().await.unwrap();
    let other_domain = TrustDomain::new("other.org").unwrap();
    assert_eq!(bundles.len(), 2);
    assert_eq!(bundles.get(&other_domain).unwrap().authorities()[0].as_bytes(), root);
    let mut keys = Box::pin(client.stream_jwt_bundles().await.unwrap());
    let keys = keys.next().await.unwrap().unwrap();
    assert!(keys.get(&example).is_some());

    let source = world.source(WORKER).await.unwrap();
    let trusted: Vec<_> = source.current().trust_domains().map(ToString::to_string).collect();
    assert!(trusted.contains(&"other.org".to_owned()), "{trusted:?}");
    world.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_bundle_that_changes_is_pushed_to_every_holder() {
    let (first, second) = (root_of_another().await, root_of_another().await);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bundle.pem");
    std::fs::write(&file, pem(&first)).unwrap();
    let federated = convoke_model::TrustDomain::parse("other.org").unwrap();
    let federate = vec![(federated, file.clone())];
    let world = World::with(|config| config.federate = federate).await;
    world.entry(WORKER, &[our_uid()]).await;
    let (client, other) = (world.client().await, TrustDomain::new("other.org").unwrap());
    let mut bundles = Box::pin(client.stream_x509_bundles().await.unwrap());
    let mut contexts = Box::pin(client.stream_x509_contexts().await.unwrap());
    let mut keys = Box::pin(client.stream_jwt_bundles().await.unwrap());
    let foreign = X509Source::builder().endpoint(world.endpoint()).build().await.unwrap();
    let own = world.source(WORKER).await.unwrap();
    let (before, mut changes) = (own.current(), own.changes());
    let held =
        |set: &spiffe::X509BundleSet| set.get(&other).unwrap().authorities()[0].as_bytes().to_vec();
    assert_eq!(held(&bundles.next().await.unwrap().unwrap()), first);
    assert_eq!(held(contexts.next().await.unwrap().unwrap().bundle_set()), first);
    assert!(keys.next().await.unwrap().is_ok());
    let mut updates = foreign.updated();

    // Half of a change is none.
    std::fs::write(&file, "-----BEGIN").unwrap();
    let whole = dir.path().join("whole.pem");
    std::fs::write(&whole, pem(&second)).unwrap();
    std::fs::rename(&whole, &file).unwrap();
    let pushed = tokio::time::timeout(Duration::from_secs(30), bundles.next()).await;
    let pushed = pushed.expect("a bundle that changes is pushed");
    assert_eq!(held(&pushed.unwrap().unwrap()), second);
    assert_eq!(held(contexts.next().await.unwrap().unwrap().bundle_set()), second);
    assert!(keys.next().await.unwrap().is_ok());
    while held(&foreign.bundle_set().unwrap()) != second {
        updates.changed().await.unwrap();
    }
    changes.changed().await.unwrap();
    assert!(!own.current().keeps_roots_of(&before));
    foreign.shutdown().await;
    world.stop().await;
}

/// The root of an issuer that has ended.
pub(crate) async fn root_of_another() -> Vec<u8> {
    let world = World::start().await;
    let bundles = world.client().await.fetch_x509_bundles().await.unwrap();
    let example = TrustDomain::new("example.org").unwrap();
    let root = bundles.get(&example).unwrap().authorities()[0].as_bytes().to_vec();
    world.stop().await;
    root
}

pub(crate) fn pem(root: &[u8]) -> String {
    use base64::Engine;

    let text = base64::engine::general_purpose::STANDARD.encode(root);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}
