//! One generation of the authority: its two keys and its certificate, from its making to its end.

use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use convoke_model::{SpiffeId, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer as Signer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::{PemObject, SectionKind};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use super::error::IssuerError;
use crate::jwt::SigningKey;
use crate::pem_words::pem_words;

/// How far before its making a certificate becomes valid, for clocks that are a little behind.
const BACKDATED: Duration = Duration::from_secs(60);

/// The keys and the certificate that an authority has for a part of its life.
pub(super) struct Generation {
    /// The certificate, DER.
    pub(super) root: Bytes,
    created: SystemTime,
    /// The last instant at which the certificate is valid.
    pub(super) ends: SystemTime,
    /// Signs X.509-SVIDs.
    key: Zeroizing<KeyPair>,
    /// Signs JWT-SVIDs.
    jwt_key: Zeroizing<KeyPair>,
    pub(super) jwt: SigningKey,
}

/// An SVID with its key, as the Workload API sends it.
pub(super) struct Svid {
    /// The certificate, DER.
    pub(super) certificate: Bytes,
    /// Its key, PKCS#8 DER.
    pub(super) key: Bytes,
    /// The last instant at which it is valid.
    pub(super) ends: SystemTime,
}

impl Generation {
    pub(super) fn make(
        trust_domain: &TrustDomain,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Self, IssuerError> {
        let key = Zeroizing::new(KeyPair::generate()?);
        let mut params = root_params(trust_domain)?;
        set_validity(&mut params, now, now + ttl);
        // By default the number follows from the key; the time tells people which one is newer.
        let nanos = u64::try_from(since_epoch(now).as_nanos()).unwrap_or(u64::MAX);
        params.serial_number = Some(SerialNumber::from(nanos));
        let root = Bytes::copy_from_slice(params.self_signed(&*key)?.der());
        let jwt_key = Zeroizing::new(KeyPair::generate()?);
        let jwt = SigningKey::of(&jwt_key).ok_or(IssuerError::JwtKey)?;
        Ok(Self { root, created: now, ends: now + ttl, key, jwt_key, jwt })
    }

    fn life(&self) -> Duration {
        self.ends.duration_since(self.created).unwrap_or_default()
    }

    /// When the next generation has to be there and be known to everybody.
    pub(super) fn prepare_next_at(&self) -> SystemTime {
        self.created + self.life() / 2
    }

    /// When the next generation takes over. What this one has signed until then ends before it
    /// does, because no SVID lives longer than the quarter that is left.
    pub(super) fn hand_over_at(&self) -> SystemTime {
        self.created + self.life() / 4 * 3
    }

    /// Makes an SVID for `spiffe_id`, whose trust domain has been checked. It ends with this
    /// generation at the latest.
    ///
    /// Source of the profile: X.509-SVID §4 and Appendix A; verifiers that ask for more than it
    /// get `CA:FALSE` and both extended usages.
    pub(super) fn issue(
        &self,
        trust_domain: &TrustDomain,
        spiffe_id: &SpiffeId,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Svid, IssuerError> {
        let ends = self.ends.min(now + ttl);
        if ends <= now {
            return Err(IssuerError::Ended);
        }
        let key = Zeroizing::new(KeyPair::generate()?);
        let mut params = params(trust_domain, "workload", spiffe_id.as_str())?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, ends);
        let signer = Signer::new(root_params(trust_domain)?, &*self.key);
        let certificate = params.signed_by(&*key, &signer)?;
        Ok(Svid {
            certificate: Bytes::copy_from_slice(certificate.der()),
            key: Bytes::copy_from_slice(key.serialized_der()),
            ends,
        })
    }

    /// Appends both keys and the certificate.
    pub(super) fn write_pem(&self, to: &mut Zeroizing<String>) {
        for key in [&self.key, &self.jwt_key] {
            to.push_str(&Zeroizing::new(key.serialize_pem()));
        }
        to.push_str(&certificate_pem(&self.root));
    }
}

impl std::fmt::Debug for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { created, ends, .. } = self;
        f.debug_struct("Generation").field("created", created).field("ends", ends).finish()
    }
}

/// Reads the generations in a file: for each the key of its certificate, the key of its tokens, and
/// the certificate, oldest first. Before there were tokens the second key was missing; it is made
/// then, and `true` says that the file has to be written again.
pub(super) fn parse_pem(
    path: &Path,
    pem: &[u8],
    trust_domain: &TrustDomain,
) -> Result<(Vec<Generation>, bool), IssuerError> {
    let bad =
        |reason: &str| IssuerError::Authority { path: path.to_owned(), reason: reason.to_owned() };
    let (mut generations, mut keys, mut incomplete) = (Vec::new(), Vec::new(), false);
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        let (kind, der) = section.map_err(|error| bad(&pem_words(&error)))?;
        match kind {
            SectionKind::PrivateKey => {
                let der = Zeroizing::new(der);
                let key = PrivatePkcs8KeyDer::from(der.as_slice());
                let key = KeyPair::try_from(&key).map_err(|error| bad(&error.to_string()))?;
                keys.push(Zeroizing::new(key));
            }
            SectionKind::Certificate => {
                let mut keys = keys.drain(..);
                let key = keys.next().ok_or_else(|| bad("a certificate has no key before it"))?;
                let jwt_key = match keys.next() {
                    Some(key) => key,
                    None => {
                        incomplete = true;
                        Zeroizing::new(KeyPair::generate()?)
                    }
                };
                if keys.next().is_some() {
                    return Err(bad("a certificate has more than two keys before it"));
                }
                generations.push(read_root(path, &der, key, jwt_key, trust_domain)?);
            }
            _ => return Err(bad("it has a section that is neither key nor certificate")),
        }
    }
    if generations.is_empty() {
        return Err(bad("it has no certificate"));
    }
    if !keys.is_empty() {
        return Err(bad("a key has no certificate after it"));
    }
    Ok((generations, incomplete))
}

fn read_root(
    path: &Path,
    der: &[u8],
    key: Zeroizing<KeyPair>,
    jwt_key: Zeroizing<KeyPair>,
    trust_domain: &TrustDomain,
) -> Result<Generation, IssuerError> {
    let bad = |reason: String| IssuerError::Authority { path: path.to_owned(), reason };
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| bad(error.to_string()))?;
    if certificate.public_key().raw != key.subject_public_key_info() {
        return Err(bad("a certificate is of another key".to_owned()));
    }
    let names = certificate.subject_alternative_name().map_err(|error| bad(error.to_string()))?;
    let uri = names.and_then(|names| match names.value.general_names.as_slice() {
        [GeneralName::URI(uri)] => Some(*uri),
        _ => None,
    });
    let found = uri.ok_or_else(|| bad("a certificate names no trust domain".to_owned()))?;
    if found != trust_domain.uri() {
        let (found, expected) = (found.to_owned(), trust_domain.uri());
        return Err(IssuerError::OtherTrustDomain { path: path.to_owned(), found, expected });
    }
    let seconds = |at: i64| Duration::from_secs(u64::try_from(at).unwrap_or(0));
    let validity = certificate.validity();
    let created = SystemTime::UNIX_EPOCH + seconds(validity.not_before.timestamp()) + BACKDATED;
    let ends = SystemTime::UNIX_EPOCH + seconds(validity.not_after.timestamp());
    let jwt = SigningKey::of(&jwt_key)
        .ok_or_else(|| bad("the key of tokens is not of the curve P-256".to_owned()))?;
    let root = Bytes::copy_from_slice(der);
    Ok(Generation { root, created, ends, key, jwt_key, jwt })
}

/// The certificate as rcgen would write it.
fn certificate_pem(der: &[u8]) -> String {
    use base64::Engine;

    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for (at, character) in text.char_indices() {
        // Source of the length of lines: RFC 7468 §2.
        if at > 0 && at % 64 == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push_str("\n-----END CERTIFICATE-----\n");
    pem
}

/// Everything of the authority's certificate that never changes.
fn root_params(trust_domain: &TrustDomain) -> Result<CertificateParams, IssuerError> {
    let mut params = params(trust_domain, "authority", &trust_domain.uri())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn params(
    trust_domain: &TrustDomain,
    role: &str,
    uri: &str,
) -> Result<CertificateParams, IssuerError> {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Convoke");
    name.push(DnType::CommonName, common_name(trust_domain, role));
    params.distinguished_name = name;
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    Ok(params)
}

/// A name for people, cut where X.509 ends a common name: at 64 characters (RFC 5280, appendix A).
/// Nothing is decided by it.
fn common_name(trust_domain: &TrustDomain, role: &str) -> String {
    format!("{role} of {}", trust_domain.as_str()).chars().take(64).collect()
}

fn set_validity(params: &mut CertificateParams, now: SystemTime, ends: SystemTime) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(now).saturating_sub(BACKDATED);
    params.not_after = epoch + since_epoch(ends);
}

fn since_epoch(at: SystemTime) -> Duration {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
