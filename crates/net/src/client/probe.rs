//! One request over a connection of its own, with the time that each step took.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use rustls_pki_types::CertificateDer;
use tokio::time::{Instant, timeout_at};

use super::pool::{address_request, start};
use super::{Dialer, PoolLimits, Response, Route, SendError};
use crate::body::{CollectError, collect};

/// How a destination was reached, step by step.
#[derive(Debug)]
pub struct Probe {
    /// Time to find the address of the name and open a TCP connection.
    pub connect: Duration,
    /// Time of the TLS handshake; zero without TLS.
    pub tls: Duration,
    /// Time from the request to the end of the answer. With TLS 1.3 it holds the server's verdict
    /// on our certificate, which comes only after our half of the handshake.
    pub answer: Duration,
    /// Time of all of it.
    pub total: Duration,
    /// The certificates that the server presented and that passed, leaf first.
    pub peer_certificates: Vec<CertificateDer<'static>>,
    /// The answer.
    pub response: Response,
}

/// Sends `request` to `route` over a connection that nobody else uses, before `deadline`, and
/// closes it.
///
/// # Errors
///
/// As [`Pool::send`](super::Pool::send).
pub async fn probe(
    dialer: &Dialer,
    route: &Route,
    mut request: Request<Full<Bytes>>,
    deadline: Instant,
) -> Result<Probe, SendError> {
    let address = &route.address;
    if address.is_https() != route.tls.is_some() {
        return Err(SendError::SchemeMismatch { address: address.clone() });
    }
    address_request(&mut request, address);
    let begun = Instant::now();
    let tcp = dialer.dial(address, deadline).await?;
    let connected = Instant::now();
    let mut peer_certificates = Vec::new();
    let (mut sender, driver) = match &route.tls {
        None => start(address, tcp).await?,
        Some(config) => {
            let tls = dialer.secure(address, tcp, Arc::clone(config), deadline).await?;
            let (_, session) = tls.get_ref();
            let certificates = session.peer_certificates().unwrap_or_default();
            peer_certificates =
                certificates.iter().map(|certificate| certificate.clone().into_owned()).collect();
            start(address, tls).await?
        }
    };
    let secured = Instant::now();

    let late = || SendError::TimedOut { address: address.clone(), sent: true };
    let sent = timeout_at(deadline, sender.send_request(request)).await.map_err(|_| late())?;
    let response = match sent {
        Ok(response) => response,
        Err(error) => {
            // A server that refuses us ends the connection, and then that knows why.
            drop(sender);
            let why = timeout_at(deadline, driver).await.ok().and_then(Result::ok).flatten();
            return Err(SendError::of_http(address, why.unwrap_or(error), true, true));
        }
    };
    let (parts, mut body) = response.into_parts();
    let max = PoolLimits::default().response_bytes_max;
    let body = collect(&mut body, max, |_| deadline).await.map_err(|error| match error {
        CollectError::TooLarge => SendError::ResponseTooLarge { address: address.clone(), max },
        CollectError::TimedOut => late(),
        CollectError::Broken(error) => SendError::of_http(address, error, false, true),
    })?;
    let answered = Instant::now();
    Ok(Probe {
        connect: connected - begun,
        tls: secured - connected,
        answer: answered - secured,
        total: answered - begun,
        peer_certificates,
        response: http::Response::from_parts(parts, body),
    })
}
