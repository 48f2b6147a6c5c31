//! The one place that opens outbound connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use convoke_model::limits;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Address, Provenance, SendError};
use crate::socket::tune;

/// Opens every outbound connection of the process, and refuses addresses that a peer gave.
#[derive(Debug, Clone)]
pub struct Dialer {
    /// Time to open a TCP connection, over all addresses of a name.
    pub connect_timeout: Duration,
    /// Time for a TLS handshake.
    pub handshake_timeout: Duration,
}

impl Default for Dialer {
    fn default() -> Self {
        Self {
            connect_timeout: limits::CONNECT_TIMEOUT,
            handshake_timeout: limits::HANDSHAKE_TIMEOUT,
        }
    }
}

impl Dialer {
    /// Opens a TCP connection, trying all addresses of a name in the resolver's order.
    ///
    /// # Errors
    ///
    /// [`SendError::AddressRefused`], [`SendError::Resolve`], [`SendError::Connect`] with the last
    /// attempt's error, [`SendError::TimedOut`] when `deadline` passes first.
    pub async fn dial(&self, address: &Address, deadline: Instant) -> Result<TcpStream, SendError> {
        if address.provenance() == Provenance::Peer {
            return Err(SendError::AddressRefused { address: address.clone() });
        }
        let own_deadline = Instant::now() + self.connect_timeout;
        match timeout_at(deadline.min(own_deadline), connect(address, own_deadline)).await {
            Ok(connected) => connected,
            Err(_) if deadline <= own_deadline => {
                Err(SendError::TimedOut { address: address.clone(), sent: false })
            }
            Err(_) => Err(SendError::Connect {
                address: address.clone(),
                source: io::ErrorKind::TimedOut.into(),
            }),
        }
    }

    /// Opens a TLS connection. Whom to trust is `config`'s matter; the address gives the name that
    /// is asked for.
    ///
    /// # Errors
    ///
    /// As [`Self::dial`], and [`SendError::Tls`], [`SendError::PeerRefusedUs`].
    pub async fn dial_tls(
        &self,
        address: &Address,
        config: Arc<rustls::ClientConfig>,
        deadline: Instant,
    ) -> Result<TlsStream<TcpStream>, SendError> {
        let tcp = self.dial(address, deadline).await?;
        self.secure(address, tcp, config, deadline).await
    }

    /// Makes a TLS connection of one that [`Self::dial`] has opened.
    pub(super) async fn secure(
        &self,
        address: &Address,
        tcp: TcpStream,
        config: Arc<rustls::ClientConfig>,
        deadline: Instant,
    ) -> Result<TlsStream<TcpStream>, SendError> {
        let own_deadline = Instant::now() + self.handshake_timeout;
        let connecting = TlsConnector::from(config).connect(address.server_name(), tcp);
        match timeout_at(deadline.min(own_deadline), connecting).await {
            Ok(connected) => connected.map_err(|error| SendError::of_handshake(address, error)),
            Err(_) if deadline <= own_deadline => {
                Err(SendError::TimedOut { address: address.clone(), sent: false })
            }
            Err(_) => Err(SendError::Connect {
                address: address.clone(),
                source: io::Error::new(io::ErrorKind::TimedOut, "tls handshake took too long"),
            }),
        }
    }
}

async fn connect(address: &Address, deadline: Instant) -> Result<TcpStream, SendError> {
    let found: Vec<SocketAddr> = match address.ip() {
        Some(ip) => vec![SocketAddr::new(ip, address.port())],
        None => tokio::net::lookup_host((address.host(), address.port()))
            .await
            .map_err(|source| SendError::Resolve { address: address.clone(), source })?
            .collect(),
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (tried, to) in found.iter().enumerate() {
        // An address that does not answer leaves the others their share of the time.
        let left = u32::try_from(found.len() - tried).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        match tokio::time::timeout(share, TcpStream::connect(to)).await {
            Ok(Ok(tcp)) => match tune(&tcp) {
                Ok(()) => return Ok(tcp),
                Err(error) => last = error,
            },
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(SendError::Connect { address: address.clone(), source: last })
}
