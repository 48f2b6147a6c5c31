//! What is known of a caller from its connection alone.

use std::sync::Arc;

use convoke_identity::tls::{PeerError, verified_peer};
use convoke_journal::Scope;
use convoke_model::{Caller, Principal, SpiffeId, UnixMillis};
use convoke_net::server::ConnectionInfo;
use rustls_pki_types::CertificateDer;
use tokio::time::Instant;

use crate::observe::metrics::{Metrics, OpenConnection, Peer};

/// Which of an agent's doors a connection came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listener {
    /// Mutual TLS; the caller's certificate says who it is.
    Mesh,
    /// Plaintext on loopback; callers are anonymous.
    Dev,
}

/// One connection, for all of its requests.
pub(crate) struct Connection {
    pub(crate) listener: Listener,
    pub(crate) caller: Caller,
    /// [`Caller::name`], shared with every record.
    pub(crate) caller_name: Arc<str>,
    pub(crate) remote_addr: Arc<str>,
    /// Whose tasks this connection can reach.
    pub(crate) scope: Scope,
    /// How long the caller's certificate is good from now; `None` for a caller without one.
    pub(crate) expires: Option<UnixMillis>,
    /// When the connection is cut, whatever runs on it: for its age, or because a certificate of
    /// either side ends.
    pub(crate) ends_at: Option<Instant>,
    /// What the caller presented, leaf first; looked at again when trust is withdrawn.
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    /// The caller as metrics know it.
    pub(crate) peer: Peer,
    /// Counts the connection while it is open.
    _open: OpenConnection,
}

impl Connection {
    /// Reads the caller from the certificates that the handshake verified.
    pub(crate) fn open(
        listener: Listener,
        agent: &SpiffeId,
        info: &ConnectionInfo,
        metrics: &Metrics,
    ) -> Result<Self, PeerError> {
        let certificates = match (&info.tls, listener) {
            (Some(tls), Listener::Mesh) => tls.peer_certificates.clone(),
            _ => Vec::new(),
        };
        let peer = verified_peer(&certificates)?;
        let expires = peer.as_ref().map(|peer| peer.not_after);
        let caller = match peer {
            Some(peer) => {
                Caller::Principal(Arc::new(Principal::from_verified_svid(peer.spiffe_id, agent)))
            }
            None => Caller::Anonymous,
        };
        let caller_name: Arc<str> = caller.name().into();
        let peer = metrics.peer(caller.spiffe_id());
        let scope = Scope::new(agent.clone(), &caller);
        let remote_addr = info.remote_addr.to_string().into();
        Ok(Self {
            listener,
            caller,
            caller_name,
            remote_addr,
            scope,
            expires,
            ends_at: None,
            certificates,
            peer,
            _open: metrics.connection(peer),
        })
    }
}
