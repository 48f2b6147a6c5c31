//! Why a peer was not accepted, and how to find that out of an I/O error.

use std::error::Error;
use std::io;
use std::sync::Arc;

use convoke_model::{SpiffeId, TrustDomain};
use rustls::{AlertDescription, CertificateError, OtherError};

use crate::profile::{AuthorityError, ProfileError};

/// Why a peer was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Verified, but somebody else.
    #[error("the peer is `{found}`, not `{expected}`")]
    WrongId {
        /// Whom the caller wanted.
        expected: SpiffeId,
        /// Who answered.
        found: SpiffeId,
    },
    /// There are no roots for the peer's trust domain.
    #[error("the peer `{spiffe_id}` is of a trust domain that is not trusted here")]
    UntrustedDomain {
        /// Who the peer says it is, unverified.
        spiffe_id: SpiffeId,
    },
    /// The certificate does not lead to a root of the trust domain that it names.
    #[error("the certificate of `{spiffe_id}` does not lead to a root of its trust domain")]
    UntrustedChain {
        /// Who the peer says it is, unverified.
        spiffe_id: SpiffeId,
        /// What the verifier said.
        source: webpki::Error,
    },
    /// A certificate above the SVID may not vouch for it.
    #[error("a certificate above that of `{spiffe_id}` may not vouch for it")]
    UnfitAuthority {
        /// Who the peer says it is, unverified.
        spiffe_id: SpiffeId,
        /// Why not.
        source: AuthorityError,
    },
    /// The peer sent more certificates than are looked at.
    #[error("the peer sent more than {max} certificates")]
    ChainTooLong {
        /// The limit that was passed.
        max: usize,
    },
    /// The certificate is no X.509-SVID.
    #[error("the peer's certificate is not an X.509-SVID")]
    Profile(#[from] ProfileError),
    /// A certificate of the peer's chain is no longer valid.
    #[error("the certificate of `{spiffe_id}` has expired")]
    Expired {
        /// Who the peer says it is.
        spiffe_id: SpiffeId,
    },
    /// A certificate of the peer's chain is not valid yet.
    #[error("the certificate of `{spiffe_id}` is not valid yet; compare the clocks")]
    NotYetValid {
        /// Who the peer says it is.
        spiffe_id: SpiffeId,
    },
    /// The own SVID has expired and no new one came.
    #[error("the own certificate of `{spiffe_id}` has expired; is the Workload API running?")]
    OwnExpired {
        /// Who we are.
        spiffe_id: SpiffeId,
    },
}

impl PeerError {
    /// The trust domain that the peer claims, when the peer is the reason.
    #[must_use]
    pub fn trust_domain(&self) -> Option<TrustDomain> {
        match self {
            Self::WrongId { found: spiffe_id, .. }
            | Self::UntrustedDomain { spiffe_id }
            | Self::UntrustedChain { spiffe_id, .. }
            | Self::UnfitAuthority { spiffe_id, .. }
            | Self::Expired { spiffe_id }
            | Self::NotYetValid { spiffe_id } => Some(spiffe_id.trust_domain()),
            Self::ChainTooLong { .. } | Self::Profile(_) | Self::OwnExpired { .. } => None,
        }
    }
}

impl From<PeerError> for rustls::Error {
    fn from(error: PeerError) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
    }
}

/// Finds the reason for which *we* did not accept the peer, in the error of a handshake or a
/// connection and its sources.
#[must_use]
pub fn peer_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a PeerError> {
    find(error, |error| {
        if let Some(found) = error.downcast_ref::<PeerError>() {
            return Some(found);
        }
        match error.downcast_ref::<rustls::Error>() {
            Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(why)))) => {
                why.downcast_ref::<PeerError>()
            }
            _ => None,
        }
    })
}

/// Whether the *peer* did not accept our certificate: it said so with a TLS alert. With TLS 1.3 a
/// caller learns of it only when it reads, after its own side of the handshake is done.
#[must_use]
pub fn refused_by_peer(error: &(dyn Error + 'static)) -> bool {
    find(error, |error| match error.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::AlertReceived(
            alert @ (AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired),
        )) => Some(alert),
        _ => None,
    })
    .is_some()
}

/// The first of `error` and its sources in which `pick` finds something.
fn find<'a, T>(
    mut error: &'a (dyn Error + 'static),
    pick: impl Fn(&'a (dyn Error + 'static)) -> Option<&'a T>,
) -> Option<&'a T> {
    loop {
        if let Some(found) = pick(error) {
            return Some(found);
        }
        // An I/O error gives the source of what it wraps and skips what it wraps.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        error = match wrapped {
            Some(wrapped) => wrapped,
            None => error.source()?,
        };
    }
}
