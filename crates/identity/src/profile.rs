//! What makes a certificate an X.509-SVID of a workload.

use convoke_model::{SpiffeId, SpiffeIdError, TrustDomain, UnixMillis};
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521,
    OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519, OID_X509_EXT_KEY_USAGE,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

/// Largest certificate that is looked at, in bytes. One of ours has about 500.
const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;

/// Smallest RSA key, in bits. Source: the smallest that rustls verifies handshakes with.
const RSA_BITS_MIN: usize = 2048;

/// Who a certificate says its holder is, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSvid {
    /// The one SPIFFE ID in it.
    pub spiffe_id: SpiffeId,
    /// The last instant at which it is valid.
    pub not_after: UnixMillis,
}

/// Why a certificate is not an X.509-SVID of a workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// Longer than is looked at.
    #[error("certificate is longer than {max} bytes")]
    TooLong {
        /// The limit that was passed, in bytes.
        max: usize,
    },
    /// Not one certificate in DER, or one whose extensions cannot be read.
    #[error("certificate cannot be read")]
    Malformed,
    /// It may sign other certificates, or does not say that it may not.
    #[error("certificate does not say `CA:FALSE`")]
    Authority,
    /// No key usage extension, or one without `digitalSignature`.
    #[error("key usage lacks `digitalSignature`")]
    NoDigitalSignature,
    /// The key usage has `keyCertSign` or `cRLSign`.
    #[error("key usage has `{0}`, which is an authority's")]
    SigningUsage(&'static str),
    /// No extended key usage extension, so nothing says that it is meant for TLS.
    #[error("certificate does not say in an extended key usage that it is for TLS")]
    NoExtendedUsage,
    /// The key is of a kind or a size that no handshake would take.
    #[error("its key is not ECDSA on P-256, P-384 or P-521, Ed25519, or RSA of 2048 bits or more")]
    Key,
    /// Not exactly one URI name.
    #[error("certificate has {0} URI names instead of one")]
    UriNames(usize),
    /// The URI name is not a workload's SPIFFE ID.
    #[error("its URI name is not a workload's SPIFFE ID")]
    SpiffeId(#[from] SpiffeIdError),
}

/// Reads the SPIFFE ID and the expiry of `leaf`, if it keeps the profile.
///
/// Signature, validity and chain are not looked at here.
///
/// Source: X.509-SVID §2 and §4, and its Appendix A. Two extensions that should be there have to be:
/// `CA:FALSE`, as for other verifiers of SPIFFE, and the extended key usage, without which a
/// certificate that was made for something else could pass.
///
/// # Errors
///
/// The first rule that `leaf` breaks.
pub(crate) fn read(leaf: &CertificateDer<'_>) -> Result<PeerSvid, ProfileError> {
    let leaf = parse(leaf)?;
    check_constraints(&leaf).map_err(|_: X509Error| ProfileError::Malformed)??;
    check_key(&leaf)?;
    let spiffe_id = read_id(&leaf).map_err(|_: X509Error| ProfileError::Malformed)??;
    let seconds = u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or(0);
    Ok(PeerSvid { spiffe_id, not_after: UnixMillis(seconds.saturating_mul(1000)) })
}

/// The first instant at which `leaf` is valid; `None` if it cannot be read.
pub(crate) fn not_before(leaf: &CertificateDer<'_>) -> Option<UnixMillis> {
    let seconds = parse(leaf).ok()?.validity().not_before.timestamp();
    Some(UnixMillis(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)))
}

fn check_constraints(leaf: &X509Certificate<'_>) -> Result<Result<(), ProfileError>, X509Error> {
    if leaf.basic_constraints()?.is_none_or(|constraints| constraints.value.ca) {
        return Ok(Err(ProfileError::Authority));
    }
    let Some(usage) = leaf.key_usage()? else {
        return Ok(Err(ProfileError::NoDigitalSignature));
    };
    // The parser does not look behind the value. The other extensions are read again by path
    // building, which does.
    let raw = leaf.get_extension_unique(&OID_X509_EXT_KEY_USAGE)?;
    if raw.is_none_or(|raw| !is_one_short_value(raw.value)) {
        return Ok(Err(ProfileError::Malformed));
    }
    Ok(if usage.value.key_cert_sign() {
        Err(ProfileError::SigningUsage("keyCertSign"))
    } else if usage.value.crl_sign() {
        Err(ProfileError::SigningUsage("cRLSign"))
    } else if !usage.value.digital_signature() {
        Err(ProfileError::NoDigitalSignature)
    } else if leaf.extended_key_usage()?.is_none() {
        Err(ProfileError::NoExtendedUsage)
    } else {
        Ok(())
    })
}

/// Whether `der` is one value of less than 128 bytes and nothing after it.
fn is_one_short_value(der: &[u8]) -> bool {
    matches!(der, [_, length, value @ ..] if usize::from(*length) == value.len())
}

/// Refuses keys that the handshake itself would refuse later, with less to say about it.
fn check_key(leaf: &X509Certificate<'_>) -> Result<(), ProfileError> {
    let key = leaf.public_key();
    let algorithm = &key.algorithm.algorithm;
    let good = if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = key.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
        curve
            .is_some_and(|curve| [OID_EC_P256, OID_NIST_EC_P384, OID_NIST_EC_P521].contains(&curve))
    } else if *algorithm == OID_PKCS1_RSAENCRYPTION {
        matches!(key.parsed(), Ok(PublicKey::RSA(key)) if key.key_size() >= RSA_BITS_MIN)
    } else {
        *algorithm == OID_SIG_ED25519
    };
    if good { Ok(()) } else { Err(ProfileError::Key) }
}

fn read_id(leaf: &X509Certificate<'_>) -> Result<Result<SpiffeId, ProfileError>, X509Error> {
    let Some(names) = leaf.subject_alternative_name()? else {
        return Ok(Err(ProfileError::UriNames(0)));
    };
    // A name that cannot be read may be a second URI for whoever can read it.
    if names.value.general_names.iter().any(is_unreadable) {
        return Ok(Err(ProfileError::Malformed));
    }
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    Ok(match (uris.next(), uris.count()) {
        (Some(uri), 0) => SpiffeId::parse(uri).map_err(ProfileError::SpiffeId),
        (first, more) => Err(ProfileError::UriNames(usize::from(first.is_some()) + more)),
    })
}

fn is_unreadable(name: &GeneralName<'_>) -> bool {
    matches!(name, GeneralName::Invalid(..))
}

/// Why a certificate may not vouch for an SVID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// Longer than is looked at, or it cannot be read.
    #[error("it cannot be read")]
    Malformed,
    /// Its key usage does not let it sign certificates.
    #[error("its key usage lacks `keyCertSign`")]
    NoCertSign,
    /// It names a SPIFFE ID, which is not that of the SVID's trust domain.
    #[error("it is an authority of `{found}`, not of `{expected}`")]
    OtherDomain {
        /// The trust domain of the SVID.
        expected: TrustDomain,
        /// The SPIFFE ID in the authority's certificate.
        found: String,
    },
    /// It is a root that has expired.
    #[error("it is a root that has expired")]
    Expired,
}

/// Checks what a signature does not show of an authority between an SVID of `trust_domain` and its
/// root: whether it may sign certificates, and those of this domain.
///
/// An authority may come without a SPIFFE ID. One that has an ID of another domain is what
/// cross-signing makes, and would otherwise turn whoever holds it into an authority of this one.
///
/// Source: RFC 5280 §4.2.1.3; X.509-SVID §3.2, narrowed to one domain.
///
/// # Errors
///
/// The first rule that it breaks.
pub(crate) fn check_authority(
    certificate: &[u8],
    trust_domain: &TrustDomain,
) -> Result<(), AuthorityError> {
    let authority = parse(certificate).map_err(|_| AuthorityError::Malformed)?;
    let malformed = |_: X509Error| AuthorityError::Malformed;
    if authority.key_usage().map_err(malformed)?.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Err(AuthorityError::NoCertSign);
    }
    let Some(names) = authority.subject_alternative_name().map_err(malformed)? else {
        return Ok(());
    };
    let expected = trust_domain.uri();
    for name in &names.value.general_names {
        match name {
            GeneralName::URI(uri) if is_spiffe(uri) && **uri != *expected => {
                let (expected, found) = (trust_domain.clone(), (*uri).to_owned());
                return Err(AuthorityError::OtherDomain { expected, found });
            }
            // It may be a SPIFFE ID for whoever can read it.
            name if is_unreadable(name) => return Err(AuthorityError::Malformed),
            _ => {}
        }
    }
    Ok(())
}

fn is_spiffe(uri: &str) -> bool {
    uri.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:"))
}

/// The last second of Unix time at which a root is valid; nothing if the certificate does not say
/// that it is an authority's.
pub(crate) fn read_root(certificate: &[u8]) -> Result<Option<u64>, ProfileError> {
    let root = parse(certificate)?;
    let constraints = root.basic_constraints().map_err(|_| ProfileError::Malformed)?;
    let seconds = u64::try_from(root.validity().not_after.timestamp()).unwrap_or(0);
    Ok(constraints.is_some_and(|constraints| constraints.value.ca).then_some(seconds))
}

/// One certificate and nothing after it.
fn parse(certificate: &[u8]) -> Result<X509Certificate<'_>, ProfileError> {
    if certificate.len() > CERTIFICATE_BYTES_MAX {
        return Err(ProfileError::TooLong { max: CERTIFICATE_BYTES_MAX });
    }
    match X509Certificate::from_der(certificate) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(ProfileError::Malformed),
    }
}
