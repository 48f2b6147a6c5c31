//! The bundles of other trust domains, so that workloads can verify their peers.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use convoke_model::TrustDomain;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use super::error::{self, IssuerError};
use crate::jwt::JwtBundle;
use crate::look::Look;
use crate::pem_words::pem_words;
use crate::regular_file;

/// Largest bundle file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Most other trust domains.
const DOMAINS_MAX: usize = 256;

/// How often the files are looked at. Looking is a `stat` of each.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The bundle of another trust domain.
#[derive(Debug)]
pub(super) struct Federated {
    /// Its authorities, one after another, DER.
    pub(super) x509: Bytes,
    /// Its keys of tokens, as a JWK set.
    pub(super) jwks: Bytes,
    /// The same keys, ready for use.
    pub(super) jwt: JwtBundle,
}

impl PartialEq for Federated {
    fn eq(&self, other: &Self) -> bool {
        // The third is made of the second.
        self.x509 == other.x509 && self.jwks == other.jwks
    }
}

/// The bundles at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// Counts the changes.
    revision: u64,
    pub(super) bundles: BTreeMap<TrustDomain, Arc<Federated>>,
}

/// Of one issuer, those of the same revision are the same.
impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        self.revision == other.revision
    }
}

/// The bundles of other trust domains, as their files have them.
#[derive(Debug)]
pub(super) struct Federation {
    files: Vec<(TrustDomain, PathBuf)>,
    current: ArcSwap<Snapshot>,
}

impl Federation {
    /// Reads the bundles; all of them have to be good.
    pub(super) fn open(
        files: Vec<(TrustDomain, PathBuf)>,
        own: &TrustDomain,
    ) -> Result<Self, IssuerError> {
        let mut bundles = BTreeMap::new();
        for (trust_domain, path) in &files {
            let bad = |reason: &str| refused(trust_domain, path, reason.to_owned());
            if trust_domain == own {
                return Err(bad("that is the issuer's own domain"));
            }
            if bundles.insert(trust_domain.clone(), Arc::new(read(trust_domain, path)?)).is_some() {
                return Err(bad("the domain is named twice"));
            }
            if bundles.len() > DOMAINS_MAX {
                return Err(bad(&format!("more than {DOMAINS_MAX} domains")));
            }
        }
        let current = ArcSwap::from_pointee(Snapshot { revision: 0, bundles });
        Ok(Self { files, current })
    }

    /// The bundles as they are now.
    pub(super) fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    fn look(&self) -> Look {
        Look::at(self.files.iter().map(|(_, path)| path.as_path()))
    }

    /// Reads the files again. A domain whose file cannot be used keeps the bundle that it has, so
    /// that half of a change, or a file that goes away, takes no trust and gives none.
    ///
    /// Whether a bundle is another one now, and what is wrong with which domains' files.
    fn read_again(&self) -> (bool, Vec<IssuerError>) {
        let held = self.current();
        let (mut bundles, mut wrong) = (held.bundles.clone(), Vec::new());
        for (trust_domain, path) in &self.files {
            match read(trust_domain, path) {
                Ok(bundle) if bundles.get(trust_domain).is_some_and(|held| **held == bundle) => {}
                Ok(bundle) => {
                    tracing::info!(%trust_domain, path = %path.display(), "federated bundle was read again");
                    bundles.insert(trust_domain.clone(), Arc::new(bundle));
                }
                Err(error) => wrong.push(error),
            }
        }
        let is_same = bundles.iter().all(|(domain, bundle)| {
            held.bundles.get(domain).is_some_and(|held| Arc::ptr_eq(held, bundle))
        });
        if !is_same {
            self.current.store(Arc::new(Snapshot { revision: held.revision + 1, bundles }));
        }
        (!is_same, wrong)
    }
}

/// Reads the files of `federation` whenever they have changed, and says so by `tell`. It never ends.
pub(super) async fn watch(federation: &Arc<Federation>, tell: impl Fn()) {
    if federation.files.is_empty() {
        return std::future::pending().await;
    }
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen: Option<Look> = None;
    let mut trouble = Vec::new();
    loop {
        tick.tick().await;
        let (theirs, before, failing) = (Arc::clone(federation), seen.clone(), !trouble.is_empty());
        // The files may lie on a network.
        let looked = tokio::task::spawn_blocking(move || {
            let look = theirs.look();
            let is_due =
                failing || Some(&look) != before.as_ref() || !look.is_settled(SystemTime::now());
            (is_due.then(|| theirs.read_again()), look)
        });
        let Ok((Some((has_changed, wrong)), look)) = looked.await else { continue };
        seen = Some(look);
        if has_changed {
            tell();
        }
        let wrong: Vec<String> = wrong.iter().map(|error| error::chain(error)).collect();
        if trouble != wrong {
            for error in &wrong {
                tracing::warn!(
                    error,
                    "federated bundle cannot be used; the one that is held stays"
                );
            }
            if wrong.is_empty() {
                tracing::info!("federated bundles can be used again");
            }
            trouble = wrong;
        }
    }
}

fn refused(trust_domain: &TrustDomain, path: &Path, reason: String) -> IssuerError {
    IssuerError::Federated { path: path.to_owned(), trust_domain: trust_domain.to_string(), reason }
}

fn read(trust_domain: &TrustDomain, path: &Path) -> Result<Federated, IssuerError> {
    let failed = |source| IssuerError::File { action: "read", path: path.to_owned(), source };
    let bad = |reason| refused(trust_domain, path, reason);
    let file = regular_file::open(path).map_err(failed)?;
    // Who can write it can make everybody of that domain.
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o002 != 0 {
        return Err(bad(format!("everybody may write it (mode {mode:04o}); `chmod o-w` it")));
    }
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(bad(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    parse(&text).map_err(bad)
}

fn parse(text: &[u8]) -> Result<Federated, String> {
    let (roots, keys) = match text.trim_ascii_start().first() {
        Some(b'{') => parse_document(text)?,
        _ => {
            let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
            (roots.map_err(|error| pem_words(&error))?, Vec::new())
        }
    };
    if roots.is_empty() {
        return Err("it has no certificate".to_owned());
    }
    for (position, root) in (1..).zip(&roots) {
        webpki::anchor_from_trusted_cert(root)
            .map_err(|error| format!("certificate {position} is no authority's: {error}"))?;
    }
    let jwks = json!({ "keys": keys }).to_string();
    let jwt = JwtBundle::from_jwks(jwks.as_bytes()).map_err(|error| error.to_string())?;
    let x509: Vec<u8> = roots.iter().flat_map(|root| root.iter().copied()).collect();
    Ok(Federated { x509: x509.into(), jwks: jwks.into(), jwt })
}

/// Source: SPIFFE Trust Domain and Bundle §4.
fn parse_document(text: &[u8]) -> Result<(Vec<CertificateDer<'static>>, Vec<Value>), String> {
    #[derive(Deserialize)]
    struct Document {
        keys: Vec<Value>,
    }
    let document: Document = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let (mut roots, mut keys) = (Vec::new(), Vec::new());
    for (position, key) in (1..).zip(document.keys) {
        match key.get("use").and_then(Value::as_str) {
            Some("x509-svid") => {
                let chain = key.get("x5c").and_then(Value::as_array).map(Vec::as_slice);
                let Some([Value::String(root)]) = chain else {
                    return Err(format!("key {position} has not one certificate in `x5c`"));
                };
                let root = STANDARD
                    .decode(root)
                    .map_err(|_| format!("the certificate of key {position} is not base64"))?;
                roots.push(root.into());
            }
            Some("jwt-svid") => keys.push(key),
            // Source: the same §4.2.2, keys of other uses are passed over.
            _ => {}
        }
    }
    Ok((roots, keys))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::testing::Authority;

    fn pem(authority: &Authority) -> String {
        let text = STANDARD.encode(&authority.certificate);
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    }

    fn check(text: &str, expected: Result<(usize, usize), &str>) {
        match (parse(text.as_bytes()), expected) {
            (Ok(found), Ok((x509_bytes, keys))) => {
                assert_eq!((found.x509.len(), found.jwt.len()), (x509_bytes, keys), "{text}");
            }
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (found, expected) => panic!("{text}: {found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn certificates_and_bundle_documents_are_read() {
        let (one, two) = (Authority::new("one.org"), Authority::new("one.org"));
        let both = one.certificate.len() + two.certificate.len();
        check(&(pem(&one) + &pem(&two)), Ok((both, 0)));
        let key = rcgen::KeyPair::generate().unwrap();
        let key = crate::jwt::SigningKey::of(&key).unwrap();
        let root = |authority: &Authority| json!({"use": "x509-svid", "kty": "EC", "x5c": [STANDARD.encode(&authority.certificate)]});
        let document = |keys: Value| json!({"spiffe_sequence": 1, "keys": keys}).to_string();
        check(
            &document(json!([root(&one), key.jwk(), {"use": "later"}])),
            Ok((one.certificate.len(), 1)),
        );
        check(&document(json!([key.jwk()])), Err("no certificate"));
        check(&document(json!([{"use": "x509-svid"}])), Err("key 1"));
        check(&document(json!([{"use": "x509-svid", "x5c": ["!"]}])), Err("not base64"));
        check(&document(json!([{"use": "x509-svid", "x5c": ["AAAA"]}])), Err("certificate 1"));
        check("{", Err("EOF"));
        check("", Err("no certificate"));
        check("-----BEGIN CERTIFICATE-----\nAAAA\n", Err(""));
    }

    #[test]
    fn a_domain_has_one_bundle_and_the_own_one_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bundle.pem");
        std::fs::write(&path, pem(&Authority::new("one.org"))).unwrap();
        let own = TrustDomain::parse("example.org").unwrap();
        let one = (TrustDomain::parse("one.org").unwrap(), path.clone());
        let federation = Federation::open(vec![one.clone()], &own).unwrap();
        assert_eq!(federation.current().bundles.len(), 1);
        for files in [vec![one.clone(), one.clone()], vec![(own.clone(), path)]] {
            let error = Federation::open(files, &own).unwrap_err();
            assert!(matches!(error, IssuerError::Federated { .. }), "{error}");
        }
        let missing = (one.0, dir.path().join("missing"));
        let error = Federation::open(vec![missing], &own).unwrap_err();
        assert!(matches!(error, IssuerError::File { .. }), "{error}");
    }

    #[test]
    fn what_anybody_may_write_and_what_is_no_file_is_no_bundle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bundle.pem");
        let (own, one) =
            (TrustDomain::parse("example.org").unwrap(), TrustDomain::parse("one.org").unwrap());
        std::fs::write(&path, pem(&Authority::new("one.org"))).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o646)).unwrap();
        let check = |path: &Path, expected: &str| {
            let error = Federation::open(vec![(one.clone(), path.to_owned())], &own).unwrap_err();
            let error = error::chain(&error);
            assert!(error.contains(expected), "{error}");
        };
        check(&path, "everybody may write it (mode 0646)");
        check(dir.path(), "is a directory");
        let pipe = dir.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        check(&pipe, "it is a pipe and not a regular file");
    }

    #[test]
    fn a_file_that_cannot_be_used_leaves_the_bundle_that_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (Authority::new("one.org"), Authority::new("one.org"));
        let (path, other) = (dir.path().join("one.pem"), dir.path().join("two.pem"));
        std::fs::write(&path, pem(&first)).unwrap();
        std::fs::write(&other, pem(&Authority::new("two.org"))).unwrap();
        let domain = |name: &str| TrustDomain::parse(name).unwrap();
        let files = vec![(domain("one.org"), path.clone()), (domain("two.org"), other.clone())];
        let federation = Federation::open(files, &domain("example.org")).unwrap();
        let held = || {
            let current = federation.current();
            (current.revision, current.bundles[&domain("one.org")].x509.to_vec())
        };
        let check = |changed: bool, wrong: usize, expected: (u64, &Authority)| {
            let (has_changed, errors) = federation.read_again();
            assert_eq!((has_changed, errors.len()), (changed, wrong), "{errors:?}");
            assert_eq!(held(), (expected.0, expected.1.certificate.to_vec()));
        };
        check(false, 0, (0, &first));
        std::fs::write(&path, "half of").unwrap();
        check(false, 1, (0, &first));
        std::fs::remove_file(&path).unwrap();
        // What is wrong with one domain is no matter of another.
        std::fs::write(&other, pem(&Authority::new("two.org"))).unwrap();
        check(true, 1, (1, &first));
        std::fs::write(&path, pem(&second)).unwrap();
        check(true, 0, (2, &second));
        check(false, 0, (2, &second));
    }
}
