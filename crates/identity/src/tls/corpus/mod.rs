//! A corpus of certificates, each with the verdict that it has to get (`sec_svid_corpus`), and the
//! same certificates before another verifier.
//!
//! The certificates lie in `tests/certificates`; they are made by the code here, byte for byte the
//! same each time, so what is checked in can be read by other tools and cannot drift. After a
//! change, `CONVOKE_WRITE_CERTIFICATES=1 cargo test -p convoke-identity corpus` writes them anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cases;
mod der;
mod differential;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use convoke_model::{SpiffeId, TrustDomain};
use rustls::client::danger::ServerCertVerifier as _;
use rustls::server::danger::ClientCertVerifier as _;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivateKeyDer, ServerName, UnixTime};

use super::verify::{Callee, Callers};
use super::{PeerError, peer_error, verified_peer};
use crate::material::{Bundle, Material};
use crate::profile::ProfileError;
use crate::source::IdentitySource;
use crate::testing::pem;
use cases::{ACCEPTED, AGENT, Case, Keys, NOW};
use der::{Draft, directory};

/// Who looks at the corpus: somebody of `example.org` who trusts `other.org` too.
const JUDGE: &str = "spiffe://example.org/judge";

fn judge(keys: &Keys) -> IdentitySource {
    let bundles = cases::roots(keys).into_iter().map(|(domain, root)| Bundle {
        trust_domain: TrustDomain::parse(domain).unwrap(),
        authorities: vec![root],
    });
    let chain = vec![Draft::leaf(JUDGE, &keys.root).sign(&keys.root)];
    let id = SpiffeId::parse(JUDGE).unwrap();
    IdentitySource::from_material(Material::from_der(id, chain, leaf_key(""), bundles).unwrap())
}

/// The key of a good leaf; most have the first.
fn leaf_key(name: &str) -> PrivateKeyDer<'static> {
    let file = match name {
        "good-p384" => "p384",
        "good-p521" => "p521",
        "good-rsa2048" => "rsa2048",
        "good-ed25519" => "second",
        _ => "p256",
    };
    PrivateKeyDer::from_pem_file(directory().join(format!("keys/{file}.pem"))).unwrap()
}

/// What our verifiers say of a chain: as a caller's, and as a callee's.
fn verdicts(judge: &IdentitySource, case: &Case) -> [&'static str; 2] {
    let (leaf, above) = case.chain.split_first().unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW));
    // A callee is pinned; here it is whoever the certificate names.
    let wanted = match verified_peer(&case.chain) {
        Ok(Some(peer)) => peer.spiffe_id,
        _ => SpiffeId::parse(AGENT).unwrap(),
    };
    let callers = Callers::new(judge.current_handle());
    let callee = Callee::new(judge.current_handle(), wanted);
    let server = ServerName::try_from("localhost").unwrap();
    [
        verdict(callers.verify_client_cert(leaf, above, now).map(drop)),
        verdict(callee.verify_server_cert(leaf, above, &server, &[], now).map(drop)),
    ]
}

fn verdict(outcome: Result<(), rustls::Error>) -> &'static str {
    let Err(error) = outcome else { return ACCEPTED };
    match peer_error(&error).unwrap_or_else(|| panic!("{error:?}")) {
        PeerError::Profile(error) => match error {
            ProfileError::TooLong { .. } => "too-long",
            ProfileError::Malformed => "malformed",
            ProfileError::Authority => "authority",
            ProfileError::NoDigitalSignature => "no-digital-signature",
            ProfileError::SigningUsage(_) => "signing-usage",
            ProfileError::NoExtendedUsage => "no-extended-usage",
            ProfileError::Key => "key",
            ProfileError::UriNames(_) => "uri-names",
            ProfileError::SpiffeId(_) => "spiffe-id",
        },
        PeerError::UntrustedDomain { .. } => "untrusted-domain",
        PeerError::UntrustedChain { .. } => "untrusted-chain",
        PeerError::UnfitAuthority { .. } => "unfit-authority",
        PeerError::ChainTooLong { .. } => "chain-too-long",
        PeerError::Expired { .. } => "expired",
        PeerError::NotYetValid { .. } => "not-yet-valid",
        PeerError::WrongId { .. } => "wrong-id",
        PeerError::OwnExpired { .. } => "own-expired",
    }
}

#[test]
fn sec_svid_corpus() {
    let keys = Keys::read();
    let judge = judge(&keys);
    let mut wrong = String::new();
    let (mut accepted, mut refused) = (0, 0);
    for case in cases::cases(&keys) {
        let found = verdicts(&judge, &case);
        if found != case.expected {
            writeln!(wrong, "{}: {found:?} instead of {:?}", case.name, case.expected).unwrap();
        }
        if case.expected.contains(&ACCEPTED) { accepted += 1 } else { refused += 1 }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(accepted >= 12 && refused >= 60, "{accepted} accepted, {refused} refused");
}

/// What is in the directory, made anew: each chain, the roots, and the list of verdicts.
fn files(keys: &Keys) -> BTreeMap<String, String> {
    let mut verdicts = String::from("# chain\tas a caller's\tas a callee's\n");
    let mut files = BTreeMap::new();
    for Case { name, chain, expected: [caller, callee] } in cases::cases(keys) {
        writeln!(verdicts, "{name}\t{caller}\t{callee}").unwrap();
        let text = chain.iter().map(|certificate| pem("CERTIFICATE", certificate)).collect();
        assert!(files.insert(format!("{name}.pem"), text).is_none(), "{name} is there twice");
    }
    for (domain, root) in cases::roots(keys) {
        let roots: &mut String = files.entry(format!("roots.{domain}.pem")).or_default();
        roots.push_str(&pem("CERTIFICATE", &root));
    }
    files.insert("verdicts.tsv".to_owned(), verdicts);
    files
}

fn names_on_disk() -> Vec<String> {
    let entries = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap());
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    let names = files.map(|entry| entry.file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name != "README.md").collect();
    names.sort();
    names
}

#[test]
fn the_corpus_on_disk_is_what_is_made() {
    let made = files(&Keys::read());
    if std::env::var_os("CONVOKE_WRITE_CERTIFICATES").is_some() {
        for name in names_on_disk() {
            fs::remove_file(directory().join(name)).unwrap();
        }
        for (name, text) in &made {
            fs::write(directory().join(name), text).unwrap();
        }
    }
    assert!(names_on_disk().iter().eq(made.keys()), "there are other files than are made");
    for (name, text) in made {
        assert!(fs::read_to_string(directory().join(&name)).unwrap() == text, "{name} differs");
    }
}
