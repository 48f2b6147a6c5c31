//! What makes a certificate an X.509-SVID of a workload.

use convoke_model::{SpiffeId, SpiffeIdError, UnixMillis};
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// Largest certificate that is looked at, in bytes. One of ours has about 500.
const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;

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
/// Source: X.509-SVID §2 and §4, and its Appendix A; `CA:FALSE` has to be present, as it has for
/// other verifiers of SPIFFE.
///
/// # Errors
///
/// The first rule that `leaf` breaks.
pub(crate) fn read(leaf: &CertificateDer<'_>) -> Result<PeerSvid, ProfileError> {
    if leaf.len() > CERTIFICATE_BYTES_MAX {
        return Err(ProfileError::TooLong { max: CERTIFICATE_BYTES_MAX });
    }
    let (rest, leaf) = X509Certificate::from_der(leaf).map_err(|_| ProfileError::Malformed)?;
    if !rest.is_empty() {
        return Err(ProfileError::Malformed);
    }
    check_constraints(&leaf).map_err(|_: X509Error| ProfileError::Malformed)??;
    let spiffe_id = read_id(&leaf).map_err(|_: X509Error| ProfileError::Malformed)??;
    let seconds = u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or(0);
    Ok(PeerSvid { spiffe_id, not_after: UnixMillis(seconds.saturating_mul(1000)) })
}

fn check_constraints(leaf: &X509Certificate<'_>) -> Result<Result<(), ProfileError>, X509Error> {
    if leaf.basic_constraints()?.is_none_or(|constraints| constraints.value.ca) {
        return Ok(Err(ProfileError::Authority));
    }
    let Some(usage) = leaf.key_usage()? else {
        return Ok(Err(ProfileError::NoDigitalSignature));
    };
    Ok(if usage.value.key_cert_sign() {
        Err(ProfileError::SigningUsage("keyCertSign"))
    } else if usage.value.crl_sign() {
        Err(ProfileError::SigningUsage("cRLSign"))
    } else if !usage.value.digital_signature() {
        Err(ProfileError::NoDigitalSignature)
    } else {
        Ok(())
    })
}

fn read_id(leaf: &X509Certificate<'_>) -> Result<Result<SpiffeId, ProfileError>, X509Error> {
    let Some(names) = leaf.subject_alternative_name()? else {
        return Ok(Err(ProfileError::UriNames(0)));
    };
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    Ok(match (uris.next(), uris.count()) {
        (Some(uri), 0) => SpiffeId::parse(uri).map_err(ProfileError::SpiffeId),
        (first, more) => Err(ProfileError::UriNames(usize::from(first.is_some()) + more)),
    })
}
