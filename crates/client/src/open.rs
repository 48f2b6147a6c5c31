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
use tokio::time::Instant;

use crate::OPEN_TIMEOUT;

/// Why a question was not answered.
#[derive(Debug)]
pub enum OpenError {
    /// The address is none, or leads elsewhere than to this machine.
    Address(AddressError),
    /// Plain HTTP proves nothing, so it is for this machine alone.
    NotLoopback(String),
    /// Nobody answered.
    Send(SendError),
}

/// Asks for `path` at `address`: status and body.
///
/// # Errors
///
/// [`OpenError`] if the address is not on this machine or nobody answers there.
pub async fn get(address: &str, path: &str) -> Result<(u16, Bytes), OpenError> {
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
    let request = request(path).map_err(|_| OpenError::Address(AddressError::Path(path.into())))?;
    let route = Route { address: parsed, tls: None, identity: "".into(), revision: 0 };
    let pool = Pool::new(Dialer::default(), PoolLimits::default());
    let sent = pool.send(&route, request, Instant::now() + OPEN_TIMEOUT).await;
    let answer = sent.map_err(OpenError::Send)?;
    Ok((answer.status().as_u16(), answer.into_body()))
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
            Self::Send(error) => f.write_str(&chain(error)),
        }
    }
}

impl std::error::Error for OpenError {}
