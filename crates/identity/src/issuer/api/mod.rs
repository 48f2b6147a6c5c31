//! The Workload API, over gRPC on the API socket.

mod jwt;
mod push;
mod x509;

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tokio::net::unix::UCred;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::server::Grpc;
use tonic_prost::ProstCodec;

use super::attestation::Workload;
use super::repair::Repaired;
use super::socket::{Gate, Pass};
use super::{DRAIN_MAX, Shared, error, messages};

/// Largest request message, in bytes: a token that is to be validated, and its audience.
const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// Largest header block, in bytes.
const HEADER_BYTES_MAX: u32 = 16 * 1024;

/// Most calls of one connection at a time.
const STREAMS_MAX: u32 = 16;

/// How long a connection may take to its first byte.
const FIRST_BYTE_MAX: Duration = Duration::from_secs(5);

/// How long a connection may be without an open call: it holds a place that others of its user
/// may need, and a client that has something to ask connects again by itself.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Every call has to carry this with the value `true`, so that no browser or proxy can be talked
/// into making one. Source: SPIFFE Workload Endpoint §5.
const SECURITY_HEADER: &str = "workload.spiffe.io";

/// Answers one connection until it or the issuer ends.
pub(super) async fn serve(
    stream: UnixStream,
    peer: UCred,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
) {
    let (open_calls, calls_opened) = watch::channel(0);
    let caller = Caller {
        workload: Workload::of_peer(&peer),
        uid: peer.uid(),
        shared,
        shutdown: shutdown.clone(),
    };
    let service = hyper::service::service_fn(move |request| {
        let (caller, open) = (caller.clone(), OpenCall::of(&open_calls));
        async move {
            let response = answer(caller, request).await;
            Ok::<_, Infallible>(response.map(|body| Counted { body, _open: open }))
        }
    });
    // A connection that says nothing holds a place that others of its user need.
    if !matches!(timeout(FIRST_BYTE_MAX, stream.readable()).await, Ok(Ok(()))) {
        return tracing::debug!(uid = peer.uid(), "connection said nothing");
    }
    let connection = http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(Repaired::new(stream)), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = idle(calls_opened) => {
            tracing::debug!(uid = peer.uid(), "connection has had no call for long");
            connection.as_mut().graceful_shutdown();
            // A client that does not answer the farewell is not waited for.
            timeout(DRAIN_MAX, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(uid = peer.uid(), error = %error::chain(&error), "connection failed");
    }
}

/// Ends when there has been no open call for too long.
async fn idle(mut open_calls: watch::Receiver<usize>) {
    loop {
        let open = *open_calls.borrow_and_update() > 0;
        let changed = open_calls.changed();
        let ended = if open {
            changed.await.is_err()
        } else {
            match timeout(IDLE_MAX, changed).await {
                Ok(changed) => changed.is_err(),
                Err(_) => return,
            }
        };
        if ended {
            // The connection is ending by itself.
            return std::future::pending().await;
        }
    }
}

/// A call for as long as its answer is being sent.
struct OpenCall(watch::Sender<usize>);

impl OpenCall {
    fn of(open_calls: &watch::Sender<usize>) -> Self {
        open_calls.send_modify(|open| *open += 1);
        Self(open_calls.clone())
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

/// The body of an answer, with the call that it belongs to.
struct Counted {
    body: tonic::body::Body,
    _open: OpenCall,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Who called, and everything that is needed to answer.
#[derive(Clone)]
struct Caller {
    /// The process, unless it cannot be named.
    workload: Option<Workload>,
    uid: u32,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
}

impl Caller {
    /// The identities of the caller; refused if it has none.
    fn identities(&self) -> Result<Vec<super::Identity>, Status> {
        let identities = self.workload.as_ref().map(|workload| self.shared.identities(workload));
        // SPIRE's words, by which clients know this case.
        identities
            .filter(|identities| !identities.is_empty())
            .ok_or_else(|| Status::permission_denied("no identity issued"))
    }

    /// The right to one more watching call; it is given back when dropped.
    fn watch(&self) -> Result<Pass, Status> {
        Gate::pass(&self.shared.watches, self.uid).ok_or_else(|| {
            tracing::warn!(uid = self.uid, "too many watching calls of one user; refused one");
            Status::resource_exhausted("too many watching calls of this user")
        })
    }
}

async fn answer(
    caller: Caller,
    request: http::Request<Incoming>,
) -> http::Response<tonic::body::Body> {
    if request.headers().get(SECURITY_HEADER).is_none_or(|value| value != "true") {
        return Status::invalid_argument("security header missing from request").into_http();
    }
    // Each call has messages of its own, so each has a codec of its own.
    macro_rules! call {
        ($kind:ident, $method:expr) => {
            Grpc::new(ProstCodec::default())
                .max_decoding_message_size(REQUEST_BYTES_MAX)
                .$kind($method, request)
                .await
        };
    }
    match request.uri().path() {
        messages::FETCH_X509_SVID => call!(server_streaming, push::Method(caller, x509::Svids)),
        messages::FETCH_X509_BUNDLES => {
            call!(server_streaming, push::Method(caller, x509::Bundles))
        }
        messages::FETCH_JWT_BUNDLES => call!(server_streaming, push::Method(caller, jwt::Bundles)),
        messages::FETCH_JWT_SVID => call!(unary, jwt::Fetch(caller)),
        messages::VALIDATE_JWT_SVID => call!(unary, jwt::Validate(caller)),
        _ => Status::unimplemented("this issuer serves the SPIFFE Workload API").into_http(),
    }
}
