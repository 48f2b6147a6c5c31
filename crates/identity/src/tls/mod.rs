//! The two TLS configurations of the mesh.
//!
//! TLS 1.3 alone, and no resumption, tickets or early data: a resumed session would skip the check
//! of the peer. The cryptography is given explicitly, so nothing depends on a process-wide default.

mod error;
mod verify;

use std::io;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use convoke_model::{SpiffeId, UnixMillis};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::KeyUsage;

use crate::profile::{self, PeerSvid, ProfileError};
use crate::source::{Current, IdentitySource};

pub use error::{PeerError, peer_error, refused_by_peer};

/// Protocol names of ALPN that a mesh listener answers to, the preferred one first.
const SERVER_ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What a mesh listener speaks: it presents the SVID that `source` holds at that moment, and asks
/// for the caller's.
///
/// A caller without a certificate is let in, as nobody in particular; one with a certificate that
/// does not verify fails the handshake. Once the own SVID has expired, every handshake fails.
///
/// # Errors
///
/// When the cryptography lacks TLS 1.3, which the one we build with has.
pub fn server_config(source: &IdentitySource) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verify::Callers::new(source.current_handle())))
        .with_cert_resolver(Arc::new(Own(source.current_handle())));
    config.alpn_protocols = SERVER_ALPN.iter().map(|name| name.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// What a mesh listener asks before each handshake: [`server_config`], while there is an SVID to
/// present. TLS itself could only say `access_denied` then, which a caller takes for a verdict on
/// itself; before it begins, the listener can say whose fault it is.
///
/// The function that is returned fails with [`PeerError::OwnExpired`] inside once the own SVID has
/// expired, until it is renewed.
///
/// # Errors
///
/// As [`server_config`].
pub fn listener_config(
    source: &IdentitySource,
) -> Result<impl Fn() -> io::Result<Arc<ServerConfig>> + Send + Sync + 'static, rustls::Error> {
    let (config, current) = (server_config(source)?, source.current_handle());
    Ok(move || {
        let material = current.load();
        if material.is_expired(UnixTime::now()) {
            let spiffe_id = material.spiffe_id().clone();
            return Err(io::Error::other(PeerError::OwnExpired { spiffe_id }));
        }
        Ok(Arc::clone(&config))
    })
}

/// What a caller of `expected` speaks: it presents the SVID that `source` holds at that moment,
/// and goes on with nobody but `expected`, whatever the address says. `alpn` are the protocol names
/// to offer, the preferred one first.
///
/// A configuration follows rotations, so it is made once for each callee and not for each
/// connection. Once the own SVID has expired, every handshake fails.
///
/// # Errors
///
/// As [`server_config`].
pub fn client_config(
    source: &IdentitySource,
    expected: &SpiffeId,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let callee = verify::Callee::new(source.current_handle(), expected.clone());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(callee))
        .with_client_cert_resolver(Arc::new(Own(source.current_handle())));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Who is at the other end of a connection whose handshake is done: `certs` are the certificates
/// that it presented and that one of our configurations has verified. None at all is nobody in
/// particular.
///
/// # Errors
///
/// [`PeerError::Profile`] when the first is not an X.509-SVID, which a verified one is.
pub fn verified_peer(certs: &[CertificateDer<'_>]) -> Result<Option<PeerSvid>, PeerError> {
    certs.first().map(|leaf| profile::read(leaf).map_err(PeerError::from)).transpose()
}

/// Whether the caller that presented `certs` would still be let in: trust may have been withdrawn
/// since its handshake.
///
/// # Errors
///
/// A [`PeerError`], as its handshake would fail with at `now`; also when there are no certificates.
pub fn still_trusted(
    source: &IdentitySource,
    certs: &[CertificateDer<'_>],
    now: UnixMillis,
) -> Result<(), PeerError> {
    let Some((leaf, intermediates)) = certs.split_first() else {
        return Err(PeerError::Profile(ProfileError::Malformed));
    };
    let now = UnixTime::since_unix_epoch(Duration::from_millis(now.0));
    let usage = KeyUsage::client_auth();
    verify::verify(&source.current(), leaf, intermediates, usage, now).map(drop)
}

/// How long a connection between `source` and the callee that presented `certs` may live from now
/// on: until the first of the two SVIDs ends. It is nothing when there is no SVID.
#[must_use]
pub fn lifetime(source: &IdentitySource, certs: &[CertificateDer<'_>]) -> Duration {
    let Ok(Some(peer)) = verified_peer(certs) else { return Duration::ZERO };
    let end = peer.not_after.min(source.current().not_after());
    Duration::from_millis(end.0).saturating_sub(Duration::from_secs(UnixTime::now().as_secs()))
}

/// The one implementation of cryptography.
static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));

pub(crate) fn provider() -> &'static CryptoProvider {
    &PROVIDER
}

/// Presents the own SVID, and nothing once it has expired.
#[derive(Debug)]
struct Own(Current);

impl Own {
    fn resolve(&self) -> Option<Arc<CertifiedKey>> {
        let material = self.0.load();
        (!material.is_expired(UnixTime::now())).then(|| Arc::clone(material.certified()))
    }
}

impl ResolvesServerCert for Own {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.resolve()
    }
}

impl ResolvesClientCert for Own {
    fn resolve(&self, _hints: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.resolve()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod handshakes;
#[cfg(test)]
mod tests;
