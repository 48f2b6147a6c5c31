//! Questions that an agent answers to anybody, asked without an identity: of a development
//! listener, in plain HTTP, on this machine.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use convoke_model::chain;
use convoke_net::client::{
    Address, AddressError, Dialer, Pool, PoolLimits, Provenance, Route, SendError,
};
use http::{Request, Uri};
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use crate::OPEN_TIMEOUT;

/// Why a question was not answered.
#[derive(Debug)]
pub enum OpenError {
    /// The address is none, or leads elsewhere than to this machine.
    Address(AddressError),
    /// Plain HTTP proves nothing, so it is for this machine alone.
    NotLoopback(String),
    /// Who listens there speaks TLS and no plain HTTP.
    SpeaksTls(String),
    /// Nobody answered.
    Send(SendError),
}

/// The way to a development listener at `address`.
///
/// # Errors
///
/// [`OpenError`] if the address is none, or not on this machine.
pub(crate) fn route(address: &str) -> Result<Route, OpenError> {
    let parsed =
        Address::parse_with_http(address, Provenance::Operator).map_err(OpenError::Address)?;
    let host = parsed.host();
    let loopback = host.eq_ignore_ascii_case("localhost")
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback());
    if !loopback {
        return Err(OpenError::NotLoopback(address.to_owned()));
    }
    Ok(Route { address: parsed, tls: None, identity: "".into(), revision: 0 })
}

/// Asks for `path` at `address`: status and body.
///
/// # Errors
///
/// [`OpenError`] if the address is not on this machine or nobody answers there.
pub async fn get(address: &str, path: &str) -> Result<(u16, Bytes), OpenError> {
    let route = route(address)?;
    let request = request(path).map_err(|_| OpenError::Address(AddressError::Path(path.into())))?;
    let pool = Pool::new(Dialer::default(), PoolLimits::default());
    match pool.send(&route, request, Instant::now() + OPEN_TIMEOUT).await {
        Ok(answer) => Ok((answer.status().as_u16(), answer.into_body())),
        Err(error) => Err(of_send(&route, address, error).await),
    }
}

/// Why `error` came of asking at `address`.
pub(crate) async fn of_send(route: &Route, address: &str, error: SendError) -> OpenError {
    let is_no_http = matches!(&error, SendError::Http { source, .. } if source.is_parse());
    if is_no_http && speaks_tls(&route.address).await {
        return OpenError::SpeaksTls(address.to_owned());
    }
    OpenError::Send(error)
}

/// Whether who listens at `address` answers plain HTTP with an alert of TLS. `false` if that is not
/// known.
async fn speaks_tls(address: &Address) -> bool {
    /// The record's type and the first byte of its version. Source: RFC 8446 §5.1.
    const ALERT: [u8; 2] = [21, 3];
    let deadline = Instant::now() + OPEN_TIMEOUT;
    let begun = async {
        let mut tcp = Dialer::default().dial(address, deadline).await.ok()?;
        tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.ok()?;
        let mut beginning = [0; ALERT.len()];
        tcp.read_exact(&mut beginning).await.ok()?;
        Some(beginning)
    };
    timeout_at(deadline, begun).await.ok().flatten() == Some(ALERT)
}

/// Opens a TCP connection to `address` and closes it: how long that took. Nothing is sent, so it
/// says that somebody listens there and not who. The address may be anywhere.
///
/// # Errors
///
/// [`OpenError`] if the address is none or nobody listens there.
pub async fn reach(address: &str) -> Result<Duration, OpenError> {
    let parsed =
        Address::parse_with_http(address, Provenance::Operator).map_err(OpenError::Address)?;
    let begun = Instant::now();
    let dialled = Dialer::default().dial(&parsed, begun + OPEN_TIMEOUT).await;
    dialled.map_err(OpenError::Send)?;
    Ok(begun.elapsed())
}

pub(crate) fn request(path: &str) -> Result<Request<Full<Bytes>>, http::uri::InvalidUri> {
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.uri_mut() = path.parse::<Uri>()?;
    Ok(request)
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(error) => error.fmt(f),
            Self::NotLoopback(address) => {
                write!(f, "{address} is plain http and not on this machine; use https")
            }
            Self::SpeaksTls(address) => {
                write!(f, "TLS is spoken at {address}, not plain http")
            }
            Self::Send(error) => f.write_str(&chain(error)),
        }
    }
}

impl std::error::Error for OpenError {}
