//! Bodies: a request's as it arrives, a response's as it leaves, and reading within bounds.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use convoke_model::limits;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::server::Pulse;

/// Most that is reserved on the word of a `content-length`, in bytes. A larger body grows into its
/// buffer as it arrives, so that a claim alone costs the claimant more than it costs us.
const RESERVE_BYTES_MAX: usize = 64 * 1024;

/// Reads `body` to its end.
///
/// A `content-length` above `max` is refused without reading; other bodies are refused as soon as
/// they pass it. A body that arrives in one piece is not copied.
///
/// # Errors
///
/// [`BodyError::TooLarge`] above `max` bytes. [`BodyError::TooSlow`] when, after
/// [`limits::BODY_GRACE`], less than [`limits::BODY_BYTES_PER_SECOND_MIN`] has arrived on average.
/// [`BodyError::Broken`] when the connection or its framing fails.
pub async fn read_body<B>(body: B, max: usize) -> Result<Bytes, BodyError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    read_at_rate(body, max, limits::BODY_GRACE, limits::BODY_BYTES_PER_SECOND_MIN).await
}

/// As [`read_body`], with a minimum rate of `bytes_per_second_min` instead.
///
/// # Errors
///
/// As [`read_body`].
pub async fn read_body_at<B>(
    body: B,
    max: usize,
    bytes_per_second_min: u64,
) -> Result<Bytes, BodyError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    read_at_rate(body, max, limits::BODY_GRACE, bytes_per_second_min).await
}

/// Why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It is longer than it may be.
    #[error("the body is larger than {max} bytes")]
    TooLarge {
        /// The bound, in bytes.
        max: usize,
    },
    /// Its sender is slower than it may be.
    #[error("the body arrives too slowly")]
    TooSlow,
    /// The connection ended or its framing is wrong.
    #[error("the body broke off")]
    Broken,
}

async fn read_at_rate<B>(
    mut body: B,
    max: usize,
    grace: Duration,
    bytes_per_second_min: u64,
) -> Result<Bytes, BodyError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let started = Instant::now();
    collect(&mut body, max, |received| {
        let earned = u64::try_from(received).unwrap_or(u64::MAX).saturating_mul(1_000_000)
            / bytes_per_second_min.max(1);
        started + grace + Duration::from_micros(earned)
    })
    .await
    .map_err(|error| match error {
        CollectError::TooLarge => BodyError::TooLarge { max },
        CollectError::TimedOut => BodyError::TooSlow,
        CollectError::Broken(_) => BodyError::Broken,
    })
}

/// Why [`collect`] stopped early.
pub(crate) enum CollectError<E> {
    TooLarge,
    TimedOut,
    Broken(E),
}

/// Reads a body of at most `max` bytes; `deadline` says until when the next piece must be there,
/// given how much has arrived.
pub(crate) async fn collect<B>(
    body: &mut B,
    max: usize,
    deadline: impl Fn(usize) -> Instant,
) -> Result<Bytes, CollectError<B::Error>>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > max {
        return Err(CollectError::TooLarge);
    }
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    let mut received = 0_usize;
    while !body.is_end_stream() {
        // A frame that is already here is taken without a timer being registered.
        let frame = match tokio::time::timeout_at(deadline(received), body.frame()).await {
            Err(_elapsed) => return Err(CollectError::TimedOut),
            Ok(None) => break,
            Ok(Some(Err(error))) => return Err(CollectError::Broken(error)),
            Ok(Some(Ok(frame))) => frame,
        };
        // Trailers carry nothing that we read.
        let Ok(data) = frame.into_data() else { continue };
        received = received.saturating_add(data.len());
        if received > max {
            return Err(CollectError::TooLarge);
        }
        if first.is_empty() {
            first = data;
        } else {
            if whole.is_empty() {
                whole.reserve(announced.min(RESERVE_BYTES_MAX).max(received));
                whole.extend_from_slice(&first);
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

/// A request's body as it arrives; [`read_body`] reads it.
pub struct Body(Source);

enum Source {
    Incoming {
        body: Incoming,
        /// Told when the body is dropped before its end.
        pulse: Option<Arc<Pulse>>,
    },
    Whole(Option<Bytes>),
}

impl Body {
    pub(crate) fn incoming(body: Incoming, pulse: &Arc<Pulse>) -> Self {
        let pulse = (!body.is_end_stream()).then(|| Arc::clone(pulse));
        Self(Source::Incoming { body, pulse })
    }
}

/// A body that is already here, as a wire without HTTP has it, or a test.
impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(Source::Whole(Some(bytes)))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.0 {
            Source::Incoming { body, .. } => Pin::new(body).poll_frame(cx),
            Source::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Incoming { body, .. } => body.is_end_stream(),
            Source::Whole(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Incoming { body, .. } => body.size_hint(),
            Source::Whole(bytes) => hint(bytes.as_ref()),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Source::Incoming { body, pulse: Some(pulse) } = &self.0
            && !body.is_end_stream()
        {
            pulse.left_unread();
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("size", &self.size_hint()).finish()
    }
}

/// A response's body: bytes that are already here, which cost no allocation of their own, or a
/// stream of pieces.
pub struct ResponseBody(pub(crate) Content);

pub(crate) enum Content {
    Whole(Option<Bytes>),
    Stream(Pin<Box<dyn http_body::Body<Data = Bytes, Error = StreamError> + Send>>),
}

/// A stream's own error. The connection ends with it, since what was promised cannot be sent.
pub type StreamError = Box<dyn std::error::Error + Send + Sync>;

impl ResponseBody {
    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self(Content::Whole(None))
    }

    /// A body that comes in pieces, such as an event stream. The request that it answers counts as
    /// running until the stream ends.
    pub fn stream<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error = StreamError> + Send + 'static,
    {
        Self(Content::Stream(Box::pin(body)))
    }
}

impl From<Bytes> for ResponseBody {
    fn from(bytes: Bytes) -> Self {
        Self(Content::Whole((!bytes.is_empty()).then_some(bytes)))
    }
}

impl From<Vec<u8>> for ResponseBody {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for ResponseBody {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for ResponseBody {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        match &mut self.0 {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Stream(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Content::Whole(bytes) => bytes.is_none(),
            Content::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Content::Whole(bytes) => hint(bytes.as_ref()),
            Content::Stream(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").field("size", &self.size_hint()).finish()
    }
}

fn hint(bytes: Option<&Bytes>) -> SizeHint {
    let length = bytes.map_or(0, Bytes::len);
    SizeHint::with_exact(u64::try_from(length).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use super::*;

    /// Pieces that are there at once, then an end or a silence without end.
    struct Pieces {
        left: VecDeque<Bytes>,
        announced: u64,
        silent: bool,
    }

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.left.pop_front() {
                Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
                None if self.silent => Poll::Pending,
                None => Poll::Ready(None),
            }
        }

        fn size_hint(&self) -> SizeHint {
            let mut hint = SizeHint::new();
            hint.set_lower(self.announced);
            hint
        }
    }

    fn pieces(pieces: &[&'static str]) -> Pieces {
        let left = pieces.iter().map(|piece| Bytes::from_static(piece.as_bytes())).collect();
        Pieces { left, announced: 0, silent: false }
    }

    async fn check(body: Pieces, max: usize, expected: Result<&str, BodyError>) {
        let read = read_at_rate(body, max, Duration::from_millis(10), 1_000).await;
        assert_eq!(read, expected.map(|text| Bytes::copy_from_slice(text.as_bytes())));
    }

    #[tokio::test]
    async fn reads_within_bounds() {
        check(pieces(&[]), 0, Ok("")).await;
        check(pieces(&["abc"]), 3, Ok("abc")).await;
        check(pieces(&["", "ab", "", "c"]), 3, Ok("abc")).await;
        check(pieces(&["ab", "cd"]), 3, Err(BodyError::TooLarge { max: 3 })).await;
        let silent = Pieces { silent: true, ..pieces(&["abc"]) };
        check(silent, 30, Err(BodyError::TooSlow)).await;
    }

    #[tokio::test]
    async fn an_announced_length_over_the_bound_is_not_read() {
        let mut body = Pieces { announced: 4, ..pieces(&["ab", "cd"]) };
        let read = collect(&mut body, 3, |_| Instant::now()).await;
        assert!(matches!(read, Err(CollectError::TooLarge)));
        assert_eq!(body.left.len(), 2);
    }

    #[tokio::test]
    async fn one_piece_is_not_copied() {
        let piece = Bytes::from(vec![7; 64]);
        let read = read_body(Body::from(piece.clone()), 64).await.unwrap();
        assert_eq!(read.as_ptr(), piece.as_ptr());
    }
}
