//! `ceil_sse`: hyper over TLS, and a stream whose events were made before: a task hands them one by
//! one to the body, as a handler would.

#![allow(clippy::disallowed_methods, reason = "a ceiling is what `net` is measured against")]

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::tls::server_config;
use super::until_input_ends;
use crate::authority::Leaf;

/// How many events may wait for a reader. Source: as many as a handler may be ahead of its task.
const AHEAD: usize = 256;

/// Serves the events in the file `events` on a free port, which it prints, under the identity that
/// [`Leaf::save`] left in the directory `identity`.
pub(crate) fn run(events: &Path, identity: &Path) -> Result<()> {
    let whole = Bytes::from(std::fs::read(events)?);
    let mut ends = vec![0];
    let blank = whole.windows(2).enumerate().filter(|(_, window)| *window == b"\n\n");
    ends.extend(blank.map(|(at, _)| at + 2));
    let events: Arc<[Bytes]> = ends.windows(2).map(|end| whole.slice(end[0]..end[1])).collect();
    let (own, root) = Leaf::load(identity)?;
    let acceptor = TlsAcceptor::from(server_config(&own, &root)?);
    until_input_ends(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        crate::say(&listener.local_addr()?.to_string())?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (acceptor, events) = (acceptor.clone(), Arc::clone(&events));
            tokio::spawn(async move {
                // A caller that fails here finds out by itself, and the run is void.
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(|request: Request<Incoming>| {
                    let events = Arc::clone(&events);
                    async move {
                        // Whoever breaks off within a request does not get an answer.
                        let _body = request.into_body().collect().await;
                        Ok::<_, Infallible>(answer(events))
                    }
                });
                // A connection ends when the generator closes it, in the middle of nothing.
                let _closed = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    })
}

type Frames = futures_util::stream::BoxStream<'static, Result<Frame<Bytes>, Infallible>>;

fn answer(events: Arc<[Bytes]>) -> Response<StreamBody<Frames>> {
    let (sender, receiver) = mpsc::channel::<Bytes>(AHEAD);
    tokio::spawn(async move {
        for event in events.iter() {
            if sender.send(event.clone()).await.is_err() {
                return;
            }
        }
    });
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let event = receiver.recv().await?;
        Some((Ok(Frame::data(event)), receiver))
    });
    let frames: Frames = Box::pin(frames);
    let mut response = Response::new(StreamBody::new(frames));
    let kind = http::HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert("content-type", kind);
    response
}
