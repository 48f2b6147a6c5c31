//! What happens to a request before it is decoded: is it one request, may it come in, and its body.
//!
//! Everything is ordered by what it costs. A request that is turned away has cost a look at its head
//! and, if it is small and already there, its bytes: reading them keeps the connection, and a new
//! connection would cost both sides more than the request.

use bytes::Bytes;
use convoke_a2a::{http_status, jsonrpc};
use convoke_model::{Fault, FaultCode, OperationKind, chain};
use convoke_net::server::{Body, BodyError, ResponseBody};
use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, HOST, HeaderMap, HeaderValue, RETRY_AFTER,
    TRANSFER_ENCODING,
};
use http::request::Parts;
use http::{Response, StatusCode};
use http_body::Body as _;
use tokio::time::{Instant, timeout_at};

use crate::admission::{Full, Place};
use crate::bodies::{self, Unread};
use crate::budget::Room;
use crate::connection::Connection;
use crate::http::{json, problem};
use crate::operations::late;
use crate::path_metrics::Rejection;
use crate::service::Service;

/// Largest body, in bytes, that is read although its request may be turned away: it may ask to end a
/// task, which makes room and so does not wait. Such a request has two hundred bytes.
const GLANCE_BYTES_MAX: u64 = 4096;

/// What a caller is told to wait before it asks again, in seconds; HTTP has no smaller unit.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

type Refused = Response<ResponseBody>;

/// Refuses a request with several hosts: we look at none, and what stands in front of us may look at
/// one or the other. Refuses any transfer coding but `chunked` alone, which others may take apart in
/// another place than we do.
///
/// Source: RFC 9112 §3.2 and §6.1. Of lengths that contradict each other hyper refuses the request,
/// and of equal ones it keeps one, which RFC 9110 §8.6 allows. Of a length beside a coding we do not
/// hear: it reads the coding, and closes the connection after the answer.
pub(crate) fn ambiguous(headers: &HeaderMap) -> Option<Refused> {
    let why = if headers.get_all(HOST).iter().nth(1).is_some() {
        "the request has several Host headers"
    } else if !is_plainly_framed(headers) {
        "send the body with Content-Length, or with `Transfer-Encoding: chunked` and no other coding"
    } else {
        return None;
    };
    Some(closing(problem(StatusCode::BAD_REQUEST, why)))
}

fn is_plainly_framed(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return true };
    coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none()
}

/// Refuses a body that would have to be decoded first: what it grows to cannot be bounded before.
pub(crate) fn encoded(headers: &HeaderMap) -> Option<Refused> {
    let plain =
        |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).iter().all(plain) {
        return None;
    }
    let fault = Fault::new(
        FaultCode::ContentTypeNotSupported,
        "bodies are read as they are; send this one without Content-Encoding",
    );
    let mut response = refuse(&fault, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    // RFC 9110 §12.5.3 has this header in an answer say what would do.
    response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    Some(response)
}

/// Gives a request its place and reads its body.
///
/// # Errors
///
/// The response to a request that has no place in time, or a body that is too large or too slow.
pub(crate) async fn admit(
    service: &Service,
    connection: &Connection,
    head: &Parts,
    body: Body,
    deadline: Option<Instant>,
) -> Result<(Place, Bytes, Room), Refused> {
    let admission = &service.admission;
    let caller = &connection.caller_name;
    let small = body.size_hint().exact().is_some_and(|bytes| bytes <= GLANCE_BYTES_MAX);
    let entered = admission.enter_now(caller);
    if let Ok(Some(place)) = entered {
        let (body, room) = read(service, connection, body, deadline).await?;
        return in_time((place, body, room), service, deadline);
    }
    if !small {
        let place = match entered {
            Err(full) => Err(full),
            Ok(_) => admission.enter(caller, deadline).await,
        };
        let place = place.map_err(|full| turned_away(service, full, true))?;
        let (body, room) = read(service, connection, body, deadline).await?;
        return in_time((place, body, room), service, deadline);
    }
    let (body, room) = read(service, connection, body, deadline).await?;
    let place = if ends_a_task(head, &body) {
        admission.enter_urgently(caller)
    } else {
        match entered {
            Err(full) => Err(full),
            Ok(_) => admission.enter(caller, deadline).await,
        }
    };
    let place = place.map_err(|full| turned_away(service, full, false))?;
    in_time((place, body, room), service, deadline)
}

/// The response that refuses a request without doing anything for it.
pub(crate) fn refuse(fault: &Fault, status: StatusCode) -> Refused {
    json(status, jsonrpc::encode_fault(None, fault))
}

async fn read(
    service: &Service,
    connection: &Connection,
    body: Body,
    deadline: Option<Instant>,
) -> Result<(Bytes, Room), Refused> {
    let reading = bodies::read(&service.bodies, service.body_bytes_max, connection, body);
    let read = match deadline {
        None => reading.await,
        Some(deadline) => match timeout_at(deadline, reading).await {
            Ok(read) => read,
            Err(_elapsed) => return Err(closing(too_late(service))),
        },
    };
    read.map_err(refuse_body)
}

/// Nobody works for a caller who has left.
#[expect(clippy::result_large_err, reason = "the response goes out as it is; a box saves nothing")]
fn in_time(
    admitted: (Place, Bytes, Room),
    service: &Service,
    deadline: Option<Instant>,
) -> Result<(Place, Bytes, Room), Refused> {
    match deadline {
        Some(deadline) if deadline <= Instant::now() => Err(too_late(service)),
        _ => Ok(admitted),
    }
}

fn too_late(service: &Service) -> Refused {
    service.metrics.path.rejected(Rejection::Late);
    let fault = late();
    refuse(&fault, http_status(fault.code))
}

/// Whether the request asks to end a task. Whoever writes the name elsewhere in a request pays for a
/// reading that comes to another result.
fn ends_a_task(head: &Parts, body: &Bytes) -> bool {
    let name = OperationKind::CancelTask.as_str().as_bytes();
    body.windows(name.len()).any(|window| window == name)
        && jsonrpc::decode(&head.headers, head.uri.query(), body)
            .is_ok_and(|call| call.operation.kind() == OperationKind::CancelTask)
}

fn turned_away(service: &Service, full: Full, unread: bool) -> Refused {
    if let Some(unsaid) = service.rejected.may_say(service.clock.monotonic()) {
        tracing::warn!(reason = chain(&full), unsaid, "Request turned away");
    }
    let fault = full.fault();
    let mut response = refuse(&fault, http_status(fault.code));
    response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
    if unread { closing(response) } else { response }
}

fn refuse_body(unread: Unread) -> Refused {
    let refusal = |code, error: BodyError| Fault::new(code, error.to_string());
    let (status, fault) = match unread {
        Unread::Body(error @ BodyError::TooLarge { .. }) => {
            (StatusCode::PAYLOAD_TOO_LARGE, refusal(FaultCode::ResourceExhausted, error))
        }
        Unread::Body(error @ BodyError::TooSlow) => {
            (StatusCode::REQUEST_TIMEOUT, refusal(FaultCode::DeadlineExceeded, error))
        }
        Unread::Body(error @ BodyError::Broken) => {
            (StatusCode::BAD_REQUEST, refusal(FaultCode::InvalidRequest, error))
        }
        Unread::Busy(fault) => (http_status(fault.code), fault),
    };
    closing(refuse(&fault, status))
}

/// The rest of the body is not read, so nothing can follow it on this connection.
fn closing(mut response: Refused) -> Refused {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn two_readings_of_one_request_are_none() {
        let check = |lines: &[(&'static str, &'static str)], expected: Option<u16>| {
            let refused = ambiguous(&headers(lines));
            assert_eq!(refused.map(|refused| refused.status().as_u16()), expected, "{lines:?}");
        };
        check(&[("host", "a")], None);
        check(&[("host", "a"), ("host", "a")], Some(400));
        let coding = "transfer-encoding";
        check(&[(coding, "Chunked")], None);
        check(&[(coding, "chunked"), (coding, "chunked")], Some(400));
        check(&[(coding, "gzip, chunked")], Some(400));
    }

    #[test]
    fn an_encoded_body_is_not_taken() {
        let check = |lines: &[(&'static str, &'static str)], expected: Option<u16>| {
            let refused = encoded(&headers(lines));
            assert_eq!(refused.map(|refused| refused.status().as_u16()), expected, "{lines:?}");
        };
        check(&[], None);
        check(&[("content-encoding", "Identity")], None);
        check(&[("content-encoding", "gzip")], Some(415));
        check(&[("content-encoding", "identity, gzip")], Some(415));
        check(&[("content-encoding", "identity"), ("content-encoding", "br")], Some(415));
        check(&[("content-encoding", "")], Some(415));
    }

    #[test]
    fn only_the_request_itself_ends_a_task() {
        let check = |body: &str, expected: bool| {
            let request = Request::post("/")
                .header("content-type", "application/json")
                .header("a2a-version", "1.0")
                .body(())
                .unwrap();
            let (head, ()) = request.into_parts();
            let body = Bytes::copy_from_slice(body.as_bytes());
            assert_eq!(ends_a_task(&head, &body), expected, "{body:?}");
        };
        check(r#"{"jsonrpc":"2.0","id":1,"method":"CancelTask","params":{"id":"t"}}"#, true);
        check(r#"{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"CancelTask"}}"#, false);
        check("CancelTask", false);
        check("", false);
    }
}
