//! The routes of a listener.

use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use convoke_a2a::headers::{A2A_EXTENSIONS, activated};
use convoke_a2a::{http_status, jsonrpc};
use convoke_identity::tls::{peer_error, still_trusted};
use convoke_model::{Fault, FaultCode, OperationKind, chain};
use convoke_net::server::{Body, ConnectionInfo, Handler, Opened, Refuse, ResponseBody};
use futures_util::FutureExt;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, WWW_AUTHENTICATE,
};
use http::{Request, Response, StatusCode};
use tokio::time::Instant;
use tracing::Instrument;

use crate::connection::{Connection, Listener};
use crate::context::millis;
use crate::observe::health::LIVE_BODY;
use crate::observe::metrics::{self, Status};
use crate::observe::trace;
use crate::operations::{self, Answer};
use crate::routes::{self, AGENT_ROUTES, Document, Nothing, Target};
use crate::service::Service;
use crate::{answers, deadline, ids, intake, stream};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// One listener of one agent.
pub(crate) struct Routes {
    pub(crate) listener: Listener,
    pub(crate) service: Arc<Service>,
}

impl Handler for Routes {
    type Connection = Connection;

    fn connected(&self, info: &ConnectionInfo) -> Result<Opened<Connection>, Refuse> {
        let (agent, metrics) = (&self.service.agent.spiffe_id, &self.service.metrics);
        let mut connection = Connection::open(self.listener, agent, info, metrics)
            .map_err(|error| Refuse(error.to_string()))?;
        // The connection ends before either certificate does.
        let own =
            (self.listener == Listener::Mesh).then(|| self.service.identity.current().not_after());
        let ends = [connection.expires, own].into_iter().flatten().min();
        let now = self.service.clock.now();
        let expires_in = ends.map(|end| Duration::from_millis(end.0.saturating_sub(now.0)));
        let life = expires_in.map_or(self.service.connection_age_max, |expires_in| {
            expires_in.min(self.service.connection_age_max)
        });
        connection.ends_at = Instant::now().checked_add(life);
        Ok(Opened { connection, expires_in })
    }

    fn may_go_on(&self, connection: &Connection) -> bool {
        // Nobody in particular was let in without trust.
        if connection.certificates.is_empty() {
            return true;
        }
        let service = &self.service;
        let trusted =
            still_trusted(&service.identity, &connection.certificates, service.clock.now());
        if let Err(error) = &trusted {
            let (peer, reason) = (&*connection.caller_name, chain(error));
            tracing::warn!(peer, reason, "Connection ends: its peer is no longer trusted");
        }
        trusted.is_ok()
    }

    fn unwelcome(&self, connection: &Connection) -> Response<ResponseBody> {
        let fault = Fault::new(
            FaultCode::Unauthenticated,
            "the trust in your certificate was withdrawn, and this connection ends; connect again \
             with a certificate that is trusted",
        );
        let (metrics, peer) = (&self.service.metrics, connection.peer);
        metrics.request(None, peer, Some(&fault), Status::Denied, Duration::ZERO);
        challenge(intake::refuse(&fault, http_status(fault.code)))
    }

    fn turned_away(&self, remote_addr: SocketAddr, error: &io::Error) {
        // What is no word on a certificate is noise: scans, probes, broken connections.
        let Some(reason) = peer_error(error) else {
            return tracing::debug!(%remote_addr, %error, "TLS handshake failed");
        };
        if let Some(unsaid) = self.service.turned_away.may_say(self.service.clock.monotonic()) {
            tracing::warn!(%remote_addr, reason = chain(reason), unsaid, "Peer turned away");
        }
    }

    async fn call(
        &self,
        connection: &Arc<Connection>,
        request: Request<Body>,
    ) -> Response<ResponseBody> {
        if let Some(refused) = intake::ambiguous(request.headers()) {
            return refused;
        }
        if self.listener == Listener::Dev && !is_local_host(&request) {
            return problem(
                StatusCode::FORBIDDEN,
                "the development listener answers to localhost alone; this request's Host or \
                 Origin is another",
            );
        }
        match routes::find(AGENT_ROUTES, request.method(), request.uri().path()) {
            Ok(Target::Rpc) => self.rpc(connection, request).await,
            Ok(Target::Document(document)) => read(&self.service, document, request.headers()),
            Err(Nothing::NotAllowed(allowed)) => not_allowed(allowed),
            Err(Nothing::NotFound) => problem(
                StatusCode::NOT_FOUND,
                "nothing is here; calls go to / and the card is at /.well-known/agent-card.json",
            ),
        }
    }
}

impl Routes {
    async fn rpc(
        &self,
        connection: &Arc<Connection>,
        request: Request<Body>,
    ) -> Response<ResponseBody> {
        let service = &self.service;
        let arrived = Instant::now();
        let (head, body) = request.into_parts();
        if let Some(refused) = intake::encoded(&head.headers) {
            return refused;
        }
        let deadline = match deadline::remaining(&head.headers) {
            Ok(remaining) => remaining.and_then(|remaining| arrived.checked_add(remaining)),
            Err(fault) => return intake::refuse(&fault, StatusCode::BAD_REQUEST),
        };
        let admitted = intake::admit(service, connection, &head, body, deadline).await;
        let (_place, body, room) = match admitted {
            Ok(admitted) => admitted,
            Err(refused) => return refused,
        };
        let decoded = jsonrpc::decode(&head.headers, head.uri.query(), &body);
        // The decoded call owns what it keeps; the bytes can go.
        drop(body);
        let call = match decoded {
            Ok(call) => call,
            Err(rejection) => {
                let (peer, fault) = (connection.peer, Some(&rejection.fault));
                service.metrics.request(None, peer, fault, Status::Error, Duration::ZERO);
                let body = jsonrpc::encode_fault(rejection.id.as_ref(), &rejection.fault);
                return json(rejection.http_status, body);
            }
        };

        let kind = call.operation.kind();
        let taken_up = activated(&call.extensions);
        let arrival = service.tracer.arrive(&head.headers);
        let request = operations::Request {
            service,
            connection,
            id: ids::request(),
            at: service.clock.now(),
            deadline,
            trace: arrival.place,
            about: OnceLock::new(),
            room: Mutex::new(room),
            is_idempotent: call.wants_idempotent_send(),
        };
        let span = trace::request_span(arrival.place, &request.id, kind.as_str());
        let recorded = service.tracer.request(arrival, kind.as_str());
        let _in_flight = service.metrics.in_flight();
        let (id, operation) = (call.id, call.operation);
        async {
            let begun = service.clock.monotonic();
            // A bug of ours ends this request and nothing else, and the caller is told.
            let outcome = AssertUnwindSafe(request.perform(operation)).catch_unwind().await;
            let outcome = outcome.unwrap_or_else(|_payload| {
                tracing::error!("Request panicked");
                let text = format!("an internal error; the log has it under {}", request.id);
                Err(Fault::new(FaultCode::Internal, text).with("requestId", request.id.as_str()))
            });
            let took = service.clock.monotonic().saturating_sub(begun);
            request.completed(&outcome, took, recorded);
            // A large answer has its room before there are bytes of it, and holds it until they are
            // sent: who does not read it is bounded too.
            let encoded = match outcome {
                Ok(Answer::Follow(follow)) => return stream::answer(*follow, id),
                Ok(Answer::Task(task)) => Ok(task.encode(&id, kind)),
                Ok(Answer::List(list)) => Ok(list.encode(&id)),
                Ok(Answer::Message(message)) => {
                    let (answers, caller) = (&service.answers, &connection.caller_name);
                    let room = answers::room_for_message(answers, caller, &message).await;
                    match room {
                        Ok((room, _)) if kind == OperationKind::SendStreamingMessage => {
                            return stream::answer_message(&message, &id, room);
                        }
                        Ok((room, measure)) => Ok(room.hold(match measure.capacity() {
                            None => jsonrpc::encode_message(&id, &message),
                            Some(capacity) => jsonrpc::encode_message_in(&id, &message, capacity),
                        })),
                        Err(fault) => Err(fault),
                    }
                }
                Err(fault) => Err(fault),
            };
            match encoded {
                Ok(bytes) => json(StatusCode::OK, bytes),
                Err(fault) => {
                    let body = jsonrpc::encode_fault(Some(&id), &fault);
                    let response = json(http_status(fault.code), body);
                    if fault.code == FaultCode::Unauthenticated {
                        challenge(response)
                    } else {
                        response
                    }
                }
            }
        }
        .instrument(span)
        .map(|mut response| {
            if let Some(taken_up) = taken_up {
                response.headers_mut().insert(A2A_EXTENSIONS, taken_up);
            }
            response
        })
        .await
    }
}

impl operations::Request<'_> {
    /// Says in log and metrics how the request ended.
    fn completed(
        &self,
        outcome: &Result<Answer, Fault>,
        took: Duration,
        mut recorded: trace::Span,
    ) {
        let about = self.about.get();
        let capability = about.map(|index| self.service.host.descriptor(*index).name.as_str());
        let duration_ms = millis(took);
        recorded.set("agent.caller.spiffe_id", || self.connection.caller.name().into());
        recorded.set("agent.capability", || capability.unwrap_or_default().into());
        recorded.end(outcome.as_ref().map(drop));
        let status = match outcome {
            Ok(_) => {
                tracing::info!(capability, duration_ms, "Request completed");
                Status::Success
            }
            Err(fault) => {
                let code = fault.code.reason();
                tracing::info!(capability, duration_ms, code, error = %fault, "Request failed");
                match fault.code {
                    FaultCode::PermissionDenied | FaultCode::Unauthenticated => Status::Denied,
                    _ => Status::Error,
                }
            }
        };
        let (index, peer) = (about.map(|index| index.get()), self.connection.peer);
        self.service.metrics.request(index, peer, outcome.as_ref().err(), status, took);
    }
}

/// The challenge that RFC 9110 §11.6.1 wants with every 401. There is no scheme name for client
/// certificates; this one is widely understood.
fn challenge(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Mutual"));
    response
}

/// Whether a request on the development listener names this machine. A page of the web that a
/// rebound name led here names its own host, or is found out by its `Origin`.
fn is_local_host<B>(request: &Request<B>) -> bool {
    let host = match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => request.headers().get(HOST).and_then(|value| value.to_str().ok()),
    };
    // Of several, each has to be: whatever stands behind us may look at another one.
    let mut hosts = request.headers().get_all(HOST).iter();
    let hosts_are_local = hosts.all(|host| host.to_str().is_ok_and(is_local));
    let mut origins = request.headers().get_all(http::header::ORIGIN).iter();
    let origins_are_local = origins.all(|origin| {
        origin
            .to_str()
            .ok()
            .and_then(|text| text.split_once("://"))
            .is_some_and(|(_, h)| is_local(h))
    });
    host.is_some_and(is_local) && hosts_are_local && origins_are_local
}

fn is_local(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    host.eq_ignore_ascii_case("localhost") || host == "127.0.0.1" || host == "[::1]"
}

/// A document that anybody may read.
pub(crate) fn read(
    service: &Service,
    document: Document,
    headers: &HeaderMap,
) -> Response<ResponseBody> {
    let report = || service.health.report(service.clock.now());
    match document {
        Document::Card => match service.card.get() {
            Some(card) => card.answer(headers),
            None => problem(StatusCode::SERVICE_UNAVAILABLE, "the agent is starting"),
        },
        Document::Live => json(StatusCode::OK, LIVE_BODY),
        Document::Ready => {
            let report = report();
            let status =
                if report.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            json(status, report.ready_body())
        }
        Document::Health => {
            json(StatusCode::OK, report().health_body(&service.agent.metadata.name))
        }
        Document::Metrics => match service.metrics.encode(service.clock.now()) {
            Ok(text) => {
                let mut response = Response::new(ResponseBody::from(Bytes::from(text)));
                let media = HeaderValue::from_static(metrics::CONTENT_TYPE);
                response.headers_mut().insert(CONTENT_TYPE, media);
                response
            }
            Err(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "a metric cannot be written"),
        },
    }
}

/// A response with a JSON body that no cache keeps.
pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::from(body.into()));
    *response.status_mut() = status;
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A response outside the protocol: a status and a sentence.
pub(crate) fn problem(status: StatusCode, text: &str) -> Response<ResponseBody> {
    json(status, serde_json::json!({ "error": text }).to_string())
}

pub(crate) fn not_allowed(allowed: &'static str) -> Response<ResponseBody> {
    let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, &format!("use {allowed} here"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_local() {
        for (host, origin, expected) in [
            ("localhost:8080", None, true),
            ("127.0.0.1", None, true),
            ("[::1]:80", None, true),
            ("LOCALHOST", Some("http://localhost:3000"), true),
            ("evil.example:8080", None, false),
            ("localhost.evil.example", None, false),
            ("127.0.0.1.evil.example", None, false),
            ("localhost:8080", Some("https://evil.example"), false),
            ("localhost", Some("null"), false),
            ("localhost:80@evil.example", None, false),
        ] {
            let mut request = Request::builder().uri("/").header(HOST, host);
            if let Some(origin) = origin {
                request = request.header("origin", origin);
            }
            assert_eq!(is_local_host(&request.body(()).unwrap()), expected, "{host} {origin:?}");
        }
        assert!(!is_local_host(&Request::builder().uri("/").body(()).unwrap()));
    }
}
