//! The Workload API, over gRPC on the API socket.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use convoke_model::SpiffeId;
use futures_util::Stream;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tokio::net::unix::UCred;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::server::Grpc;
use tonic::{Response, Status};
use tonic_prost::ProstCodec;

use super::workload::{
    FETCH_X509_BUNDLES, FETCH_X509_SVID, X509BundlesRequest, X509BundlesResponse, X509Svid,
    X509SvidRequest, X509SvidResponse,
};
use super::{Shared, error};
use crate::process::Process;

/// Largest request message, in bytes. The messages we serve are empty; a field that some later
/// version adds still fits.
const REQUEST_BYTES_MAX: usize = 4096;

/// Largest header block, in bytes.
const HEADER_BYTES_MAX: u32 = 16 * 1024;

/// Most calls of one connection at a time.
const STREAMS_MAX: u32 = 16;

/// How long a connection may take to its first byte.
const FIRST_BYTE_MAX: Duration = Duration::from_secs(5);

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
    let caller = Caller { process: Process::of_peer(&peer), shared, shutdown: shutdown.clone() };
    let service = hyper::service::service_fn(move |request| {
        let caller = caller.clone();
        async move { Ok::<_, Infallible>(answer(caller, request).await) }
    });
    // A connection that says nothing holds a place that others of its user need.
    if !matches!(timeout(FIRST_BYTE_MAX, stream.readable()).await, Ok(Ok(()))) {
        return tracing::debug!(uid = peer.uid(), "connection said nothing");
    }
    let connection = http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(uid = peer.uid(), error = %error::chain(&error), "connection failed");
    }
}

/// Who called, and everything that is needed to answer.
#[derive(Clone)]
struct Caller {
    process: Option<Process>,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
}

async fn answer(
    caller: Caller,
    request: http::Request<Incoming>,
) -> http::Response<tonic::body::Body> {
    if request.headers().get(SECURITY_HEADER).is_none_or(|value| value != "true") {
        return Status::invalid_argument("security header missing from request").into_http();
    }
    match request.uri().path() {
        FETCH_X509_SVID => {
            Grpc::new(ProstCodec::<X509SvidResponse, X509SvidRequest>::default())
                .max_decoding_message_size(REQUEST_BYTES_MAX)
                .server_streaming(Method(caller, Svids), request)
                .await
        }
        FETCH_X509_BUNDLES => {
            Grpc::new(ProstCodec::<X509BundlesResponse, X509BundlesRequest>::default())
                .max_decoding_message_size(REQUEST_BYTES_MAX)
                .server_streaming(Method(caller, Bundles), request)
                .await
        }
        _ => Status::unimplemented("this issuer serves X.509-SVIDs and X.509 bundles").into_http(),
    }
}

/// What a stream of pushes sends.
trait Push: Send + Copy + 'static {
    /// The empty message that asks for it.
    type Request: Send + 'static;
    /// The message that is sent.
    type Message: Send + 'static;
    /// Whatever the message is made of, apart from time: a new message is due when it changes.
    type Basis: PartialEq + Send + 'static;

    /// What a message would be made of now.
    fn basis(self, caller: &Caller) -> Result<Self::Basis, Status>;
    /// Makes a message, and says when it is due to be replaced.
    fn message(
        self,
        caller: &Caller,
        basis: &Self::Basis,
    ) -> Result<(Self::Message, Option<Instant>), Status>;
}

#[derive(Clone, Copy)]
struct Svids;

#[derive(Clone, Copy)]
struct Bundles;

impl Push for Svids {
    type Request = X509SvidRequest;
    type Message = X509SvidResponse;
    type Basis = (Vec<SpiffeId>, Bytes);

    fn basis(self, caller: &Caller) -> Result<Self::Basis, Status> {
        let ids = match &caller.process {
            Some(process) => caller.shared.enrolments.of(process),
            None => Vec::new(),
        };
        if ids.is_empty() {
            // SPIRE's words, by which clients know this case.
            return Err(Status::permission_denied("no identity issued"));
        }
        Ok((ids, caller.shared.authority.root()))
    }

    fn message(
        self,
        caller: &Caller,
        (ids, root): &Self::Basis,
    ) -> Result<(X509SvidResponse, Option<Instant>), Status> {
        let (authority, now) = (&caller.shared.authority, SystemTime::now());
        let rotate_at = Instant::now() + authority.rotation();
        let svids = ids.iter().map(|id| {
            let svid = authority.issue(id, now).map_err(|error| {
                tracing::error!(spiffe_id = %id, error = %error::chain(&error), "SVID not made");
                Status::internal("the SVID could not be made")
            })?;
            Ok(X509Svid {
                spiffe_id: id.as_str().to_owned(),
                x509_svid: svid.certificate,
                x509_svid_key: svid.key,
                bundle: root.clone(),
                hint: String::new(),
            })
        });
        let svids = svids.collect::<Result<_, Status>>()?;
        let (crl, federated_bundles) = (Vec::new(), HashMap::new());
        Ok((X509SvidResponse { svids, crl, federated_bundles }, Some(rotate_at)))
    }
}

impl Push for Bundles {
    type Request = X509BundlesRequest;
    type Message = X509BundlesResponse;
    type Basis = Bytes;

    /// Bundles are public, so they need no enrolment.
    fn basis(self, caller: &Caller) -> Result<Bytes, Status> {
        Ok(caller.shared.authority.root())
    }

    fn message(
        self,
        caller: &Caller,
        root: &Bytes,
    ) -> Result<(X509BundlesResponse, Option<Instant>), Status> {
        let domain = caller.shared.authority.trust_domain().uri();
        let bundles = HashMap::from([(domain, root.to_vec())]);
        Ok((X509BundlesResponse { crl: Vec::new(), bundles }, None))
    }
}

/// A streaming method as tonic wants to have it.
struct Method<P>(Caller, P);

type Pushes<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

impl<P: Push> tower_service::Service<tonic::Request<P::Request>> for Method<P> {
    type Response = Response<Pushes<P::Message>>;
    type Error = Status;
    type Future = std::future::Ready<Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: tonic::Request<P::Request>) -> Self::Future {
        let pushes = Pusher::start(self.0.clone(), self.1);
        std::future::ready(pushes.map(|pusher| Response::new(pusher.into_stream())))
    }
}

/// One open stream.
struct Pusher<P: Push> {
    caller: Caller,
    push: P,
    changes: watch::Receiver<u64>,
    basis: P::Basis,
    /// The message that is ready to go.
    ready: Option<P::Message>,
    due: Option<Instant>,
}

impl<P: Push> Pusher<P> {
    fn start(caller: Caller, push: P) -> Result<Self, Status> {
        // The subscription comes first: a change that comes while the message is made is not lost.
        let changes = caller.shared.changes.subscribe();
        let basis = push.basis(&caller)?;
        let (message, due) = push.message(&caller, &basis)?;
        Ok(Self { caller, push, changes, basis, ready: Some(message), due })
    }

    fn into_stream(self) -> Pushes<P::Message> {
        Box::pin(futures_util::stream::unfold(Some(self), async |state| {
            let mut pusher = state?;
            match pusher.next().await {
                Ok(Some(message)) => Some((Ok(message), Some(pusher))),
                Ok(None) => None,
                // An error is the last thing that is sent.
                Err(status) => Some((Err(status), None)),
            }
        }))
    }

    /// Waits until a message is due; `None` when the issuer ends.
    async fn next(&mut self) -> Result<Option<P::Message>, Status> {
        if let Some(message) = self.ready.take() {
            return Ok(Some(message));
        }
        loop {
            let rotation = async {
                match self.due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            let rotate = tokio::select! {
                () = rotation => true,
                changed = self.changes.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => return Ok(None),
                },
                () = self.caller.shutdown.cancelled() => return Ok(None),
            };
            let basis = self.push.basis(&self.caller)?;
            if rotate || basis != self.basis {
                let (message, due) = self.push.message(&self.caller, &basis)?;
                (self.basis, self.due) = (basis, due);
                return Ok(Some(message));
            }
        }
    }
}
