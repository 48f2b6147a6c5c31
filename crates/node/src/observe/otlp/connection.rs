//! One connection to a collector: gRPC's unary call, and nothing more of gRPC.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use convoke_net::client::{Address, Dialer, SendError};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};

/// How long one export may take, with the connection that may have to be opened for it. Source:
/// OpenTelemetry's default for exporters.
const EXPORT_TIME_MAX: Duration = Duration::from_secs(10);

/// What stands before a message: whether it is compressed, and its length. Source: gRPC over HTTP/2,
/// "Length-Prefixed-Message".
const PREFIX_BYTES: usize = 5;

/// Largest answer of a collector, in bytes; it says a number and a sentence.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Why a collector has not taken what was sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    /// It could not be reached.
    #[error(transparent)]
    Unreachable(#[from] SendError),
    /// The connection broke.
    #[error("the connection to the collector broke: {0}")]
    Broken(#[from] hyper::Error),
    /// It did not answer in time.
    #[error("the collector gave no answer in {} s", EXPORT_TIME_MAX.as_secs())]
    TimedOut,
    /// It answered something else than gRPC.
    #[error("the collector answers {0}, not gRPC; is `otlp_endpoint` its gRPC port (4317)?")]
    NotGrpc(String),
    /// It answered with an error.
    #[error("the collector refuses: gRPC status {code}{message}")]
    Status {
        /// gRPC's number.
        code: u32,
        /// What it says, with a colon before it, or nothing.
        message: String,
    },
}

impl ExportError {
    /// Whether the same may be taken later. Source: OTLP 1.x, "Failures", the list of codes.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Broken(_) | Self::TimedOut => true,
            Self::NotGrpc(_) => false,
            // cancelled, deadline exceeded, aborted, out of range, unavailable, data loss
            Self::Status { code, .. } => matches!(code, 1 | 4 | 10 | 11 | 14 | 15),
        }
    }
}

/// Where a collector is, and the connection to it while there is one.
pub(super) struct Connection {
    address: Address,
    dialer: Dialer,
    /// For an `https` address.
    tls: Option<Arc<rustls::ClientConfig>>,
    headers: HeaderMap,
    open: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    pub(super) fn new(
        address: Address,
        tls: Option<Arc<rustls::ClientConfig>>,
        headers: HeaderMap,
    ) -> Self {
        Self { address, dialer: Dialer::default(), tls, headers, open: None }
    }

    /// Makes the unary call `path` and gives the answer's message.
    pub(super) async fn call(
        &mut self,
        path: &'static str,
        message: &impl Message,
    ) -> Result<Bytes, ExportError> {
        let deadline = Instant::now() + EXPORT_TIME_MAX;
        let result = timeout_at(deadline, self.try_call(path, message, deadline)).await;
        let result = result.unwrap_or(Err(ExportError::TimedOut));
        if matches!(result, Err(ExportError::Broken(_) | ExportError::TimedOut)) {
            self.open = None;
        }
        result
    }

    async fn try_call(
        &mut self,
        path: &'static str,
        message: &impl Message,
        deadline: Instant,
    ) -> Result<Bytes, ExportError> {
        let request = self.request(path, message)?;
        let mut sender = match self.open.take().filter(SendRequest::is_ready) {
            Some(sender) => sender,
            None => self.connect(deadline).await?,
        };
        let answer = sender.send_request(request).await?;
        self.open = Some(sender);
        let (head, body) = answer.into_parts();
        let is_grpc = head
            .headers
            .get(CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        if head.status != StatusCode::OK || !is_grpc {
            return Err(ExportError::NotGrpc(format!("with HTTP status {}", head.status)));
        }
        let broken = |error: &dyn std::fmt::Display| ExportError::NotGrpc(error.to_string());
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| broken(&error))?;
        // What has failed at once says so in the headers, all else in the trailers.
        let status = body.trailers().and_then(status_of).or_else(|| status_of(&head.headers));
        let frame = body.to_bytes();
        match status {
            Some((0, _)) => {}
            Some((code, message)) => return Err(ExportError::Status { code, message }),
            None => return Err(broken(&"without a status")),
        }
        message_of(&frame).ok_or_else(|| broken(&"with a message that is cut or compressed"))
    }

    fn request(
        &self,
        path: &'static str,
        message: &impl Message,
    ) -> Result<Request<Full<Bytes>>, ExportError> {
        let scheme = if self.address.is_https() { "https" } else { "http" };
        let host = match self.address.host() {
            host if host.contains(':') => format!("[{host}]"),
            host => host,
        };
        let authority = format!("{host}:{}", self.address.port());
        let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build();
        let length = message.encoded_len();
        let mut frame = BytesMut::with_capacity(PREFIX_BYTES + length);
        frame.put_u8(0);
        frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        frame.extend_from_slice(&message.encode_to_vec());
        let mut request = Request::new(Full::new(frame.freeze()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.map_err(|error| ExportError::NotGrpc(error.to_string()))?;
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        Ok(request)
    }

    async fn connect(&self, deadline: Instant) -> Result<SendRequest<Full<Bytes>>, ExportError> {
        match &self.tls {
            None => Ok(speak(self.dialer.dial(&self.address, deadline).await?).await?),
            Some(tls) => {
                let stream = self.dialer.dial_tls(&self.address, Arc::clone(tls), deadline).await?;
                Ok(speak(stream).await?)
            }
        }
    }
}

/// Begins HTTP/2 on `stream`.
async fn speak<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // Whoever sends next finds that it has ended, and opens another.
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to the collector ended");
        }
    });
    Ok(sender)
}

/// The only message of a unary answer.
fn message_of(frame: &Bytes) -> Option<Bytes> {
    let (prefix, message) = frame.split_at_checked(PREFIX_BYTES)?;
    let [0, length @ ..] = prefix else { return None };
    let length = u32::from_be_bytes(length.try_into().ok()?);
    (message.len() == usize::try_from(length).ok()?).then(|| frame.slice(PREFIX_BYTES..))
}

/// gRPC's status in headers or trailers, with what it says.
fn status_of(headers: &HeaderMap) -> Option<(u32, String)> {
    let code = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    let message = headers.get("grpc-message").and_then(|value| value.to_str().ok());
    Some((code, message.map_or(String::new(), |message| format!(": {message}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_whole_or_none() {
        let check = |frame: &'static [u8], expected: Option<&'static [u8]>| {
            assert_eq!(message_of(&Bytes::from_static(frame)).as_deref(), expected, "{frame:?}");
        };
        check(b"\0\0\0\0\x02ab", Some(b"ab"));
        check(b"\0\0\0\0\0", Some(b""));
        check(b"\0\0\0\0\x02a", None);
        check(b"\0\0\0\0\x02abc", None);
        check(b"\x01\0\0\0\x02ab", None);
        check(b"\0\xff\xff\xff\xffab", None);
        check(b"\0\0\0", None);
        check(b"", None);
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        let check = |code: u32, expected: bool| {
            let error = ExportError::Status { code, message: String::new() };
            assert_eq!(error.may_pass(), expected, "{code}");
        };
        check(14, true);
        check(4, true);
        check(3, false);
        check(16, false);
        check(12, false);
        assert!(ExportError::TimedOut.may_pass());
        assert!(!ExportError::NotGrpc(String::new()).may_pass());
    }
}
