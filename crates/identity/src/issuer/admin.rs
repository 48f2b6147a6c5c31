//! Enrolment, over HTTP/1.1 on the admin socket.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use convoke_model::SpiffeId;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio::net::unix::UCred;

use super::{Shared, error};
use crate::enrolment::{BODY_BYTES_MAX, ENROL_PATH, EnrolRefusal, EnrolRequest, RefusalCode};
use crate::process::Process;

/// How long one connection may last: it carries one request.
const CONNECTION_MAX: Duration = Duration::from_secs(5);

/// Largest header block, in bytes; hyper asks for at least this much.
const HEADER_BYTES_MAX: usize = 8192;

/// Most header fields of a request.
const HEADERS_MAX: usize = 32;

/// Answers the one request of a connection.
pub(super) async fn serve(stream: UnixStream, peer: UCred, shared: Arc<Shared>) {
    let process = Process::of_peer(&peer);
    let service = hyper::service::service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(respond(enrol(&shared, process, request).await)) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECTION_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_MAX, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::debug!(uid = peer.uid(), error = %error::chain(&error), "connection failed");
        }
        Err(_) => tracing::debug!(uid = peer.uid(), "connection took too long"),
    }
}

/// Enrols the process at the other end under the ID that it asks for.
async fn enrol(
    shared: &Shared,
    process: Option<Process>,
    request: Request<Incoming>,
) -> Result<SpiffeId, EnrolRefusal> {
    let process = permitted(process, shared.own_uid)?;
    let bad = |message: String| EnrolRefusal { code: RefusalCode::BadRequest, message };
    if request.method() != Method::POST || request.uri().path() != ENROL_PATH {
        return Err(bad(format!("only POST {ENROL_PATH} is answered")));
    }
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
    let body = body.map_err(|error| bad(format!("the body cannot be read: {error}")))?.to_bytes();
    let asked: EnrolRequest =
        serde_json::from_slice(&body).map_err(|error| bad(format!("not an enrolment: {error}")))?;
    let spiffe_id = SpiffeId::parse(&asked.spiffe_id)
        .map_err(|error| bad(format!("`spiffe_id` is not a SPIFFE ID: {error}")))?;
    let own = shared.authority.trust_domain();
    if spiffe_id.trust_domain_str() != own.as_str() {
        let message = format!("it issues ids of `{own}` only");
        return Err(EnrolRefusal { code: RefusalCode::TrustDomain, message });
    }
    let new = shared.enrolments.add(process, spiffe_id.clone()).map_err(|error| EnrolRefusal {
        code: RefusalCode::Exhausted,
        message: error.to_string(),
    })?;
    if new {
        tracing::info!(%spiffe_id, ?process, "process enrolled itself");
        shared.tell_change();
    }
    Ok(spiffe_id)
}

/// The process at the other end, if it may enrol itself: it runs as the issuer's own user. Root is
/// no exception, because whoever may read the authority's key is meant, and root needs no favours.
fn permitted(process: Option<Process>, own_uid: u32) -> Result<Process, EnrolRefusal> {
    process.filter(|process| process.uid == own_uid).ok_or_else(|| {
        let message = format!("only processes of uid {own_uid} may enrol themselves");
        EnrolRefusal { code: RefusalCode::NotPermitted, message }
    })
}

fn respond(outcome: Result<SpiffeId, EnrolRefusal>) -> Response<Full<Bytes>> {
    let (status, body) = match outcome {
        Ok(spiffe_id) => {
            let granted = EnrolRequest { spiffe_id: spiffe_id.as_str().to_owned() };
            (StatusCode::OK, serde_json::to_vec(&granted))
        }
        Err(refusal) => {
            let status = match refusal.code {
                RefusalCode::BadRequest => StatusCode::BAD_REQUEST,
                RefusalCode::TrustDomain | RefusalCode::NotPermitted => StatusCode::FORBIDDEN,
                RefusalCode::Exhausted => StatusCode::TOO_MANY_REQUESTS,
            };
            (status, serde_json::to_vec(&refusal))
        }
    };
    // Two strings always make JSON; were it otherwise, the status alone would say what happened.
    let mut response = Response::new(Full::new(Bytes::from(body.unwrap_or_default())));
    *response.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_user_may_enrol() {
        let of = |uid| Some(Process::invented(uid, 1, 1));
        for (process, own_uid, expected) in [
            (of(1000), 1000, true),
            (of(0), 0, true),
            (of(1001), 1000, false),
            (of(0), 1000, false),
            (of(1000), 0, false),
            (None, 1000, false),
        ] {
            let permitted = permitted(process, own_uid);
            assert_eq!(permitted.is_ok(), expected, "{process:?} at {own_uid}");
            if let Err(refusal) = permitted {
                assert_eq!(refusal.code, RefusalCode::NotPermitted);
            }
        }
    }
}
