//! One request whose response is read piece by piece, over a connection of its own.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http::response::Parts;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use rustls_pki_types::CertificateDer;
use tokio::time::{Instant, timeout_at};

use super::pool::{address_request, start};
use super::{Dialer, PoolLimits, Provenance, Response, Route, SendError};
use crate::body::{CollectError, collect};
use crate::client::Address;

/// A response whose head has come. Dropping it closes the connection.
#[derive(Debug)]
pub struct Streamed {
    head: Parts,
    body: Incoming,
    address: Address,
    peer_certificates: Vec<CertificateDer<'static>>,
    /// What keeps the connection open.
    _sender: SendRequest<Full<Bytes>>,
}

/// Sends `request` to `route` over a connection that nobody else uses, and waits for the head of the
/// response until `deadline`. The body may take as long as its reader waits.
///
/// # Errors
///
/// As [`Pool::send`](super::Pool::send).
pub async fn open(
    dialer: &Dialer,
    route: &Route,
    mut request: Request<Full<Bytes>>,
    deadline: Instant,
) -> Result<Streamed, SendError> {
    let address = &route.address;
    if address.provenance() == Provenance::Peer {
        return Err(SendError::AddressRefused { address: address.clone() });
    }
    if address.is_https() != route.tls.is_some() {
        return Err(SendError::SchemeMismatch { address: address.clone() });
    }
    address_request(&mut request, address);
    let mut peer_certificates = Vec::new();
    let (mut sender, driver) = match &route.tls {
        None => start(address, dialer.dial(address, deadline).await?).await?,
        Some(tls) => {
            let dialled = dialer.dial_tls(address, Arc::clone(tls), deadline).await?;
            let certificates = dialled.get_ref().1.peer_certificates().unwrap_or_default();
            peer_certificates =
                certificates.iter().map(|certificate| certificate.clone().into_owned()).collect();
            start(address, dialled).await?
        }
    };
    let late = || SendError::TimedOut { address: address.clone(), sent: true };
    let sent = timeout_at(deadline, sender.send_request(request)).await.map_err(|_| late())?;
    match sent {
        Ok(response) => {
            let (head, body) = response.into_parts();
            let address = address.clone();
            Ok(Streamed { head, body, address, peer_certificates, _sender: sender })
        }
        Err(error) => {
            // A server that refuses us ends the connection, and then that knows why.
            drop(sender);
            let why = timeout_at(deadline, driver).await.ok().and_then(Result::ok).flatten();
            Err(SendError::of_http(address, why.unwrap_or(error), true, true))
        }
    }
}

impl Streamed {
    /// Status and headers.
    #[must_use]
    pub fn head(&self) -> &Parts {
        &self.head
    }

    /// The certificates that the server presented and that passed, leaf first; none without TLS.
    #[must_use]
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        &self.peer_certificates
    }

    /// The next piece of the body, if it comes before `deadline`; `None` at its end.
    ///
    /// # Errors
    ///
    /// [`SendError::TimedOut`] or [`SendError::Http`].
    pub async fn chunk(&mut self, deadline: Instant) -> Result<Option<Bytes>, SendError> {
        loop {
            match timeout_at(deadline, self.body.frame()).await {
                Err(_elapsed) => {
                    let address = self.address.clone();
                    return Err(SendError::TimedOut { address, sent: true });
                }
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => {
                    return Err(SendError::of_http(&self.address, error, false, true));
                }
                // Trailers carry nothing that we read.
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The rest of the response as a whole, as of a request that is no stream.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub async fn whole(mut self, deadline: Instant) -> Result<Response, SendError> {
        let max = PoolLimits::default().response_bytes_max;
        let address = self.address;
        let body =
            collect(&mut self.body, max, |_| deadline).await.map_err(|error| match error {
                CollectError::TooLarge => {
                    SendError::ResponseTooLarge { address: address.clone(), max }
                }
                CollectError::TimedOut => {
                    SendError::TimedOut { address: address.clone(), sent: true }
                }
                CollectError::Broken(error) => SendError::of_http(&address, error, false, true),
            })?;
        Ok(http::Response::from_parts(self.head, body))
    }
}
