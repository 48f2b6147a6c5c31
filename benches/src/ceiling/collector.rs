//! A collector of spans that takes everything and keeps nothing, so that what is measured is the
//! worker that sends them.

#![allow(clippy::disallowed_methods, reason = "a collector is a peer; it has its own sockets")]

use std::convert::Infallible;
use std::net::Ipv4Addr;

use anyhow::Result;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use super::until_input_ends;

type Frames = StreamBody<
    futures_util::stream::Iter<std::array::IntoIter<Result<Frame<Bytes>, Infallible>, 2>>,
>;

/// Prints its address and serves until standard input ends.
pub(crate) fn run() -> Result<()> {
    until_input_ends(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        crate::say(&listener.local_addr()?.to_string())?;
        loop {
            let (stream, _) = listener.accept().await?;
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service_fn(take));
            tokio::spawn(connection);
        }
    })
}

/// Answers any gRPC call with an empty message: an export that was taken as a whole.
async fn take(request: Request<Incoming>) -> Result<Response<Frames>, hyper::Error> {
    request.into_body().collect().await?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames =
        [Ok(Frame::data(Bytes::from_static(&[0, 0, 0, 0, 0]))), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}
