#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use rustls_pki_types::{CertificateDer, UnixTime};
use tempfile::TempDir;

use super::*;
use crate::jwt;
use crate::process::own_uid;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// An authority whose generations live for sixteen days, and SVIDs for four.
struct World {
    dir: TempDir,
    config: IssuerConfig,
    start: SystemTime,
}

fn world() -> World {
    let dir = TempDir::new().unwrap();
    let trust_domain = TrustDomain::parse("example.org").unwrap();
    let path = |name: &str| dir.path().join(name);
    let mut config = IssuerConfig::new(trust_domain, path("data"), path("api.sock"));
    (config.ca_ttl, config.svid_ttl) = (16 * DAY, 4 * DAY);
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    World { dir, config, start }
}

impl World {
    fn day(&self, day: u32) -> SystemTime {
        self.start + DAY * day
    }

    fn open(&self, day: u32) -> Authority {
        let dir = DataDir::open(self.config.data_dir.clone(), own_uid().unwrap()).unwrap();
        Authority::open(&self.config, Arc::new(dir), self.day(day)).unwrap()
    }

    fn issue(&self, authority: &Authority, day: u32) -> Svid {
        let id = SpiffeId::parse("spiffe://example.org/worker").unwrap();
        authority.issue(&id, authority.svid_ttl(), self.day(day)).unwrap()
    }
}

/// The certificates of a bundle.
fn roots(bundle: &[u8]) -> Vec<CertificateDer<'static>> {
    let (mut rest, mut roots) = (bundle, Vec::new());
    while !rest.is_empty() {
        let (after, _) = x509_parser::parse_x509_certificate(rest).unwrap();
        roots.push(CertificateDer::from(rest[..rest.len() - after.len()].to_vec()));
        rest = after;
    }
    roots
}

/// Whether a holder of the bundle believes the SVID at an instant.
fn verifies(svid: &Svid, bundle: &[u8], at: SystemTime) -> bool {
    use x509_parser::prelude::FromDer;

    let roots = roots(bundle);
    // webpki does not look at when an authority ends; whoever does must come to the same.
    let alive = |root: &CertificateDer<'_>| {
        let (_, root) = x509_parser::certificate::X509Certificate::from_der(root).unwrap();
        let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        root.validity().not_after.timestamp() >= i64::try_from(seconds).unwrap()
    };
    let anchors: Vec<_> = roots
        .iter()
        .filter(|root| alive(root))
        .map(|root| webpki::anchor_from_trusted_cert(root).unwrap())
        .collect();
    let leaf = CertificateDer::from(svid.certificate.to_vec());
    let leaf = webpki::EndEntityCert::try_from(&leaf).unwrap();
    let algorithms = crate::tls::provider().signature_verification_algorithms.all;
    let time = UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap());
    let usage = webpki::KeyUsage::client_auth();
    leaf.verify_for_usage(algorithms, &anchors, &[], time, usage, None, None).is_ok()
}

#[tokio::test]
async fn generations_follow_each_other_and_nothing_that_was_issued_breaks() {
    let world = world();
    let authority = world.open(0);
    let first = authority.bundle();
    // Whatever is issued on any day of two years is believed by whoever took the bundle on any day
    // of its life, also when the issuer looks at its authority only once in a day.
    let mut issued: Vec<Svid> = Vec::new();
    let mut sizes = Vec::new();
    for day in 0..720 {
        authority.tend(world.day(day)).unwrap();
        let bundle = authority.bundle();
        sizes.push(roots(&bundle).len());
        issued.push(world.issue(&authority, day));
        issued.retain(|svid| svid.ends > world.day(day));
        for svid in &issued {
            assert!(verifies(svid, &bundle, world.day(day)), "day {day}");
            // A certificate never outlives what it hangs on.
            assert!(verifies(svid, &bundle, svid.ends), "day {day}");
        }
    }
    assert_eq!(sizes[..7], [1; 7], "the first one is alone for half of its life");
    assert_eq!(sizes[8], 2);
    assert_eq!(sizes.iter().max(), Some(&2));
    assert_ne!(authority.bundle(), first);
}

#[tokio::test]
async fn the_next_generation_is_known_before_it_signs() {
    let world = world();
    let authority = world.open(0);
    let signer = |day| {
        let svid = world.issue(&authority, day);
        let known: Vec<_> = roots(&authority.bundle());
        known.iter().position(|root| verifies(&svid, root, world.day(day))).unwrap()
    };
    assert!(!authority.tend(world.day(7)).unwrap());
    assert!(authority.tend(world.day(8)).unwrap());
    assert!(!authority.tend(world.day(8)).unwrap());
    assert_eq!((signer(8), signer(11), signer(12), signer(15)), (0, 0, 1, 1));
    // The first one goes when it has ended.
    let both = authority.bundle();
    assert!(authority.tend(world.day(16)).unwrap());
    let left = roots(&authority.bundle());
    assert_eq!(left.first(), roots(&both).get(1));
}

#[tokio::test]
async fn a_restart_goes_on_where_it_was() {
    let world = world();
    drop(world.open(0));
    // In every phase, the second opening finds what the first one left.
    for day in [0, 7, 8, 9, 11, 12, 13, 15, 16, 19, 20] {
        let authority = world.open(day);
        let (bundle, jwks) = (authority.bundle(), authority.jwks());
        let svid = world.issue(&authority, day);
        drop(authority);
        let authority = world.open(day);
        assert_eq!((authority.bundle(), authority.jwks()), (bundle.clone(), jwks), "day {day}");
        assert!(verifies(&svid, &authority.bundle(), world.day(day)));
        // The same one signs.
        let again = world.issue(&authority, day);
        for root in roots(&bundle) {
            let at = world.day(day);
            assert_eq!(verifies(&svid, &root, at), verifies(&again, &root, at), "day {day}");
        }
    }
    // After a long rest there is a new one, and nothing of the old ones.
    let before = world.open(20).bundle();
    let after = world.open(2000);
    assert!(roots(&after.bundle()).iter().all(|root| !roots(&before).contains(root)));
    assert!(verifies(&world.issue(&after, 2000), &after.bundle(), world.day(2000)));
}

#[tokio::test]
async fn tokens_are_believed_across_generations() {
    let world = world();
    let authority = world.open(0);
    let id = SpiffeId::parse("spiffe://example.org/worker").unwrap();
    let audience = ["them".to_owned()];
    for day in 0..64 {
        authority.tend(world.day(day)).unwrap();
        let now = world.day(day);
        let token = authority.issue_jwt(&id, &audience, now).unwrap();
        let bundle = authority.jwt_bundle();
        let svid = jwt::validate(&token, "them", now, |_| Some(&bundle)).unwrap();
        assert_eq!(svid.expires_at, now + super::super::JWT_SVID_TTL_DEFAULT);
    }
}

#[tokio::test]
async fn a_file_of_the_time_before_tokens_gets_a_key_for_them() {
    let world = world();
    drop(world.open(0));
    let path = world.config.data_dir.join(FILE);
    let text = std::fs::read_to_string(&path).unwrap();
    let end = "-----END PRIVATE KEY-----\n";
    let mut parts = text.splitn(3, end);
    let (key, _, certificate) =
        (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let old = format!("{key}{end}{certificate}");
    std::fs::write(&path, &old).unwrap();
    let authority = world.open(1);
    assert_eq!(authority.jwt_bundle().len(), 1);
    let jwks = authority.jwks();
    drop(authority);
    // It was written down.
    assert_eq!(world.open(1).jwks(), jwks);

    for (bad, why) in [
        (String::new(), "no certificate"),
        (certificate.to_owned(), "no key before"),
        (text.replacen(certificate, "", 1), "no certificate"),
        (format!("{text}{key}{end}"), "no certificate after"),
        (format!("{key}{end}{text}"), "more than two keys"),
        (text.replace("PRIVATE KEY", "EC PRIVATE KEY"), "neither"),
        (text[..text.len() / 3].to_owned(), ""),
    ] {
        std::fs::write(&path, &bad).unwrap();
        let dir = DataDir::open(world.config.data_dir.clone(), own_uid().unwrap()).unwrap();
        let error = Authority::open(&world.config, Arc::new(dir), world.day(1)).unwrap_err();
        assert!(error.to_string().contains(why), "{why}: {error}");
        assert!(matches!(error, IssuerError::Authority { .. }), "{error}");
    }
    // Two authorities' files must not be mixed.
    let other = self::world();
    drop(other.open(0));
    let foreign = std::fs::read_to_string(other.config.data_dir.join(FILE)).unwrap();
    let mixed = foreign.rsplit_once(end).unwrap().0.to_owned() + end + certificate;
    std::fs::write(&path, mixed).unwrap();
    let dir = DataDir::open(world.config.data_dir.clone(), own_uid().unwrap()).unwrap();
    let error = Authority::open(&world.config, Arc::new(dir), world.day(1)).unwrap_err();
    assert!(error.to_string().contains("another key"), "{error}");
    drop(world.dir);
}

#[tokio::test]
async fn a_renewal_that_cannot_be_written_changes_nothing() {
    let world = world();
    let authority = world.open(0);
    let before = authority.bundle();
    // What cannot be replaced: a directory where the new file is written.
    std::fs::create_dir(world.config.data_dir.join(format!("{FILE}.new"))).unwrap();
    assert!(matches!(authority.tend(world.day(8)), Err(IssuerError::File { .. })));
    assert_eq!(authority.bundle(), before);
    // It goes on to sign until its own end, and not beyond.
    let svid = world.issue(&authority, 15);
    assert_eq!(svid.ends, world.day(16));
    let id = SpiffeId::parse("spiffe://example.org/worker").unwrap();
    let ended = authority.issue(&id, DAY, world.day(16));
    assert!(matches!(ended, Err(IssuerError::Ended)));
    assert!(matches!(authority.issue_jwt(&id, &[], world.day(17)), Err(IssuerError::Ended)));
    std::fs::remove_dir(world.config.data_dir.join(format!("{FILE}.new"))).unwrap();
    assert!(authority.tend(world.day(17)).unwrap());
    assert!(verifies(&world.issue(&authority, 17), &authority.bundle(), world.day(17)));
}

#[tokio::test]
async fn svids_are_replaced_at_half_of_their_life_or_sooner() {
    let check = |renew_after: Option<Duration>, expected: Duration| {
        let mut world = world();
        world.config.svid_renew_after = renew_after;
        assert_eq!(world.open(0).svid_renewal(4 * DAY), expected, "{renew_after:?}");
    };
    check(None, 2 * DAY);
    check(Some(DAY), DAY);
    check(Some(3 * DAY), 2 * DAY);

    let mut world = world();
    world.config.svid_renew_after = Some(Duration::from_millis(999));
    assert!(matches!(check_lives(&world.config), Err(IssuerError::SvidRenewal { .. })));
    world.config.svid_renew_after = Some(SVID_RENEW_AFTER_MIN);
    assert!(check_lives(&world.config).is_ok());
}
