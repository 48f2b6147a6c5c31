//! Why a call did not get its answer, and whether the request may have arrived.

use std::error::Error;
use std::io;

use rustls::AlertDescription;

use super::Address;

/// Why a call did not get its answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The address came from a peer.
    #[error("{address} came from a peer; only configured addresses can be called")]
    AddressRefused {
        /// Which.
        address: Address,
    },
    /// An `https` address without a TLS configuration, or the reverse.
    #[error("the tls configuration does not fit {address}")]
    SchemeMismatch {
        /// Which.
        address: Address,
    },
    /// The host name has no address.
    #[error("cannot resolve {address}")]
    Resolve {
        /// Which.
        address: Address,
        /// What the resolver said.
        source: io::Error,
    },
    /// No connection could be opened.
    #[error("cannot connect to {address}")]
    Connect {
        /// Where to.
        address: Address,
        /// The last attempt's error.
        source: io::Error,
    },
    /// The peer did not pass our verification, or TLS failed otherwise before the peer saw our
    /// certificate, by an alert of the peer for example.
    ///
    /// A verifier's own error is inside `source`, as
    /// `rustls::Error::InvalidCertificate(CertificateError::Other(_))`.
    #[error("the tls handshake with {address} failed")]
    Tls {
        /// Where to.
        address: Address,
        /// What failed.
        source: rustls::Error,
    },
    /// The peer ended TLS with an alert after our half of the handshake. On a fresh connection that is its answer to our
    /// certificate: with TLS 1.3 it comes only after our half of the handshake is over.
    #[error("{address} refused the connection with the tls alert {alert:?}")]
    PeerRefusedUs {
        /// Which.
        address: Address,
        /// What it said.
        alert: AlertDescription,
        /// Whether the request may have arrived.
        sent: bool,
    },
    /// The deadline passed.
    #[error("no answer from {address} in time")]
    TimedOut {
        /// Where to.
        address: Address,
        /// Whether the request may have arrived.
        sent: bool,
    },
    /// The connection broke or its HTTP is wrong.
    #[error("the connection to {address} failed")]
    Http {
        /// Where to.
        address: Address,
        /// Whether the request may have arrived.
        sent: bool,
        /// What failed.
        source: hyper::Error,
    },
    /// The response is larger than we read.
    #[error("the response of {address} is larger than {max} bytes")]
    ResponseTooLarge {
        /// Where from.
        address: Address,
        /// The bound, in bytes.
        max: usize,
    },
}

impl SendError {
    /// Whether the request may have arrived. `false` is a proof that it did not, so sending it
    /// again cannot do its work twice.
    #[must_use]
    pub fn was_sent(&self) -> bool {
        match self {
            Self::AddressRefused { .. }
            | Self::SchemeMismatch { .. }
            | Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::Tls { .. } => false,
            Self::PeerRefusedUs { sent, .. }
            | Self::TimedOut { sent, .. }
            | Self::Http { sent, .. } => *sent,
            Self::ResponseTooLarge { .. } => true,
        }
    }

    /// Names the address in an error of the HTTP layer, and finds the TLS alert inside it.
    ///
    /// `fresh` says that nothing had come from the peer on this connection before: an alert of the
    /// handshake is then the end of it, and before its end a server reads no request.
    pub(super) fn of_http(
        address: &Address,
        source: hyper::Error,
        fresh: bool,
        sent: bool,
    ) -> Self {
        let address = address.clone();
        match find_tls(&source) {
            Some(rustls::Error::AlertReceived(alert)) => Self::PeerRefusedUs {
                address,
                alert: *alert,
                sent: sent && !(fresh && is_of_handshake(*alert)),
            },
            _ => Self::Http { address, sent, source },
        }
    }

    /// Names the address in an error of the TLS handshake.
    ///
    /// An alert in it is no answer to our certificate: with TLS 1.3, ours goes out only when our half
    /// of the handshake is over.
    pub(super) fn of_handshake(address: &Address, source: io::Error) -> Self {
        let address = address.clone();
        match find_tls(&source) {
            Some(error) => Self::Tls { address, source: error.clone() },
            None => Self::Connect { address, source },
        }
    }
}

/// Whether an alert belongs to the handshake: a verdict on our certificate or on our proof of it.
///
/// Source: RFC 8446 §6.2.
fn is_of_handshake(alert: AlertDescription) -> bool {
    use AlertDescription as A;
    matches!(
        alert,
        A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::UnknownCA
            | A::AccessDenied
            | A::CertificateRequired
            | A::DecryptError
            | A::HandshakeFailure
    )
}

/// The TLS error inside `error`, which I/O errors keep where `source` does not lead.
fn find_tls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}
