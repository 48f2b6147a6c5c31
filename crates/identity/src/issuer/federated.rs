//! The bundles of other trust domains, so that workloads can verify their peers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use convoke_model::TrustDomain;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::IssuerError;
use crate::jwt::JwtBundle;

/// Largest bundle file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Most other trust domains.
const DOMAINS_MAX: usize = 256;

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

/// Reads the bundles.
pub(super) fn read(
    files: &[(TrustDomain, PathBuf)],
    own: &TrustDomain,
) -> Result<BTreeMap<TrustDomain, Federated>, IssuerError> {
    let mut bundles = BTreeMap::new();
    for (trust_domain, path) in files {
        let bad = |reason: String| IssuerError::Federated {
            path: path.clone(),
            trust_domain: trust_domain.to_string(),
            reason,
        };
        if trust_domain == own {
            return Err(bad("that is the issuer's own domain".to_owned()));
        }
        let text = read_file(path)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(bad(format!("it has more than {FILE_BYTES_MAX} bytes")));
        }
        let bundle = parse(&text).map_err(bad)?;
        if bundles.insert(trust_domain.clone(), bundle).is_some() {
            return Err(bad("the domain is named twice".to_owned()));
        }
        if bundles.len() > DOMAINS_MAX {
            return Err(bad(format!("more than {DOMAINS_MAX} domains")));
        }
    }
    Ok(bundles)
}

fn read_file(path: &Path) -> Result<Vec<u8>, IssuerError> {
    let failed = |source| IssuerError::File { action: "read", path: path.to_owned(), source };
    let mut text = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(failed)?;
    Ok(text)
}

fn parse(text: &[u8]) -> Result<Federated, String> {
    let (roots, keys) = match text.trim_ascii_start().first() {
        Some(b'{') => parse_document(text)?,
        _ => {
            let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
            (roots.map_err(|error| error.to_string())?, Vec::new())
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
        assert_eq!(read(std::slice::from_ref(&one), &own).unwrap().len(), 1);
        for files in [vec![one.clone(), one.clone()], vec![(own.clone(), path)]] {
            let error = read(&files, &own).unwrap_err();
            assert!(matches!(error, IssuerError::Federated { .. }), "{error}");
        }
        let missing = (one.0, dir.path().join("missing"));
        assert!(matches!(read(&[missing], &own), Err(IssuerError::File { .. })));
    }
}
