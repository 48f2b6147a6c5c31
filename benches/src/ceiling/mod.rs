//! Ceiling programs: the same bytes in and out, and nothing else.
//!
//! Each is what a careful programmer would write by hand for this one exchange. They run as
//! processes of their own, so that their CPU time is theirs alone.

pub(crate) mod collector;
pub(crate) mod durable;
pub(crate) mod http;
pub(crate) mod sse;
pub(crate) mod tls;

use std::path::Path;

use ::http::header::{CONTENT_LENGTH, DATE, HeaderName, HeaderValue};
use ::http::{Request, Response};
use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::wire;

/// What a ceiling answers to everything: the bytes that our server was seen to answer.
#[derive(Clone)]
pub(crate) struct Reply(Response<Bytes>);

impl Reply {
    fn read(path: &Path) -> Result<Self> {
        let answer = std::fs::read(path).with_context(|| path.display().to_string())?;
        let wire::Extent { head, total } =
            wire::measure(&answer)?.context("the answer is not whole")?;
        let mut response = Response::new(Bytes::copy_from_slice(&answer[head..total]));
        for (name, value) in wire::fields(std::str::from_utf8(&answer[..head])?) {
            let name = HeaderName::try_from(name)?;
            // hyper writes these two itself, as it does for our server.
            if name != DATE && name != CONTENT_LENGTH {
                response.headers_mut().append(name, HeaderValue::from_str(value)?);
            }
        }
        Ok(Self(response))
    }

    fn response(&self) -> Response<Full<Bytes>> {
        self.0.clone().map(Full::new)
    }
}

/// Answers every request of one connection once its body has come.
async fn echo(stream: impl AsyncRead + AsyncWrite + Unpin, reply: Reply) {
    serve(stream, &reply, || std::future::ready(true)).await;
}

/// Answers every request of one connection once its body has come and `done` says so; the first one
/// of which it says that it is not ends the connection.
async fn serve<D: Future<Output = bool>>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    reply: &Reply,
    done: impl Fn() -> D,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let (response, done) = (reply.response(), &done);
        async move {
            // Whoever breaks off within a request does not get an answer.
            let _body = request.into_body().collect().await;
            if done().await { Ok(response) } else { Err(std::io::Error::other("not done")) }
        }
    });
    // A connection ends when the generator closes it, in the middle of nothing.
    let _closed = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// Runs `serve` on as many threads as our server has, until standard input ends.
fn until_input_ends(serve: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (ended, input_ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let read = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        // Nobody waits any more if `serve` has failed.
        let _gone = ended.send(read);
    });
    runtime.block_on(async {
        tokio::select! {
            ended = serve => ended,
            read = input_ended => {
                read??;
                Ok(())
            }
        }
    })
}
