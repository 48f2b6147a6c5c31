//! The check of the peer's certificate, the same for both directions.

use std::cell::Cell;

use convoke_model::{SpiffeId, TrustDomain};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, PeerIncompatible, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use super::error::PeerError;
use super::provider;
use crate::material::{Material, Roots};
use crate::profile::{self, AuthorityError};
use crate::source::Current;

/// Most certificates that a peer may send beside its SVID. SPIRE sends one or two.
const INTERMEDIATES_MAX: usize = 8;

/// Lets in callers of every trust domain that has a bundle.
#[derive(Debug)]
pub(super) struct Callers {
    current: Current,
}

/// Goes on with one callee and nobody else.
#[derive(Debug)]
pub(super) struct Callee {
    current: Current,
    expected: SpiffeId,
}

impl Callers {
    pub(super) fn new(current: Current) -> Self {
        Self { current }
    }
}

impl Callee {
    pub(super) fn new(current: Current, expected: SpiffeId) -> Self {
        Self { current, expected }
    }
}

/// Who holds the chain, if it is valid at `now` for `usage` under the roots of its own trust
/// domain and no others: the leaf chooses the roots before any path is built, so a root of one
/// domain cannot vouch for a workload of another.
pub(super) fn verify(
    material: &Material,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    usage: KeyUsage,
    now: UnixTime,
) -> Result<SpiffeId, PeerError> {
    if material.is_expired(now) {
        return Err(PeerError::OwnExpired { spiffe_id: material.spiffe_id().clone() });
    }
    if intermediates.len() > INTERMEDIATES_MAX {
        return Err(PeerError::ChainTooLong { max: INTERMEDIATES_MAX + 1 });
    }
    let spiffe_id = profile::read(leaf)?.spiffe_id;
    let trust_domain = spiffe_id.trust_domain();
    let Some(roots) = material.roots(&trust_domain) else {
        return Err(PeerError::UntrustedDomain { spiffe_id });
    };
    let algorithms = provider().signature_verification_algorithms.all;
    // Of a path whose signatures are good, and that is still no path.
    let unfit = Cell::new(None);
    let check_path = |path: &VerifiedPath<'_>| {
        check_authorities(path, roots, &trust_domain, now).map_err(|error| {
            unfit.set(Some(error));
            webpki::Error::UnknownIssuer
        })
    };
    let checked = EndEntityCert::try_from(leaf).and_then(|leaf| {
        let (anchors, check_path) = (roots.anchors(), Some(&check_path as _));
        leaf.verify_for_usage(algorithms, anchors, intermediates, now, usage, None, check_path)
            .map(drop)
    });
    if let (Err(_), Some(source)) = (&checked, unfit.take()) {
        return Err(PeerError::UnfitAuthority { spiffe_id, source });
    }
    match checked {
        Ok(()) => Ok(spiffe_id),
        Err(webpki::Error::CertExpired { .. }) => Err(PeerError::Expired { spiffe_id }),
        Err(webpki::Error::CertNotValidYet { .. }) => Err(PeerError::NotYetValid { spiffe_id }),
        Err(source) => Err(PeerError::UntrustedChain { spiffe_id, source }),
    }
}

/// Checks what path building does not: that every authority may sign for the trust domain, and that
/// the root has not expired.
fn check_authorities(
    path: &VerifiedPath<'_>,
    roots: &Roots,
    trust_domain: &TrustDomain,
    now: UnixTime,
) -> Result<(), AuthorityError> {
    for authority in path.intermediate_certificates() {
        profile::check_authority(&authority.der(), trust_domain)?;
    }
    if roots.has_expired(path.anchor(), now) { Err(AuthorityError::Expired) } else { Ok(()) }
}

impl ClientCertVerifier for Callers {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        verify(&self.current.load(), leaf, intermediates, KeyUsage::client_auth(), now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Callee {
    /// The server's name and address play no part: a SPIFFE ID is pinned instead.
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let usage = KeyUsage::server_auth();
        let found = verify(&self.current.load(), leaf, intermediates, usage, now)?;
        if found != self.expected {
            return Err(PeerError::WrongId { expected: self.expected.clone(), found }.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
