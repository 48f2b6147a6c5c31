//! An OpenTelemetry collector in this process: it reads what it is sent with the types that the
//! OpenTelemetry project generates, so that both sides cannot be wrong in the same way.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, combinators::WithTrailers};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::ResourceLogs;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Longer than any test takes; it only turns a hang into a failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// A collector and where it listens.
pub(crate) struct Collector {
    pub(crate) endpoint: String,
    got: watch::Receiver<Got>,
    /// The gRPC statuses of the next answers; then it takes everything.
    #[allow(dead_code, reason = "not every test has it refuse")]
    pub(crate) refusals: Arc<Mutex<Vec<u32>>>,
}

/// What was sent so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Got {
    pub(crate) spans: Vec<ResourceSpans>,
    pub(crate) logs: Vec<ResourceLogs>,
    pub(crate) headers: Vec<HeaderMap>,
}

impl Collector {
    #[allow(clippy::disallowed_methods, reason = "a collector is no part of the node")]
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (told, got) = watch::channel(Got::default());
        let (told, refusals) = (Arc::new(told), Arc::new(Mutex::new(Vec::new())));
        let next = Arc::clone(&refusals);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (told, next) = (Arc::clone(&told), Arc::clone(&next));
                let service = service_fn(move |request| {
                    answer(request, Arc::clone(&told), Arc::clone(&next))
                });
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { endpoint, got, refusals }
    }

    /// Waits until `enough` was sent, and gives it.
    pub(crate) async fn wait_for(&self, enough: impl FnMut(&Got) -> bool) -> Got {
        let mut got = self.got.clone();
        let waited = tokio::time::timeout(PATIENCE, got.wait_for(enough)).await;
        waited.expect("the collector is sent something").unwrap().clone()
    }
}

impl Got {
    /// All spans, with the name of the service that each is of.
    pub(crate) fn all_spans(&self) -> Vec<(String, &Span)> {
        let of = |resource: &ResourceSpans| {
            text(&resource.resource.as_ref().unwrap().attributes, "service.name").unwrap()
        };
        let flat = self.spans.iter().flat_map(|resource| {
            let spans = resource.scope_spans.iter().flat_map(|scope| &scope.spans);
            spans.map(move |span| (of(resource), span))
        });
        flat.collect()
    }
}

/// The text of the attribute `name`.
pub(crate) fn text(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text.clone()),
        other => Some(format!("{other:?}")),
    }
}

type Answered =
    WithTrailers<Full<Bytes>, std::future::Ready<Option<Result<HeaderMap, Infallible>>>>;

async fn answer(
    request: Request<Incoming>,
    told: Arc<watch::Sender<Got>>,
    refusals: Arc<Mutex<Vec<u32>>>,
) -> Result<Response<Answered>, hyper::Error> {
    let (head, body) = request.into_parts();
    assert_eq!(head.headers["content-type"], "application/grpc");
    assert_eq!(head.headers["te"], "trailers");
    let frame = body.collect().await?.to_bytes();
    let status = {
        let mut refusals = refusals.lock().unwrap();
        if refusals.is_empty() { 0 } else { refusals.remove(0) }
    };
    if status == 0 {
        let length = u32::from_be_bytes(frame[1..5].try_into().unwrap());
        assert_eq!((frame[0], length as usize), (0, frame.len() - 5));
        let message = frame.slice(5..);
        told.send_modify(|got| {
            got.headers.push(head.headers.clone());
            if head.uri.path().contains("TraceService") {
                let sent = ExportTraceServiceRequest::decode(message).unwrap();
                got.spans.extend(sent.resource_spans);
            } else {
                let sent = ExportLogsServiceRequest::decode(message).unwrap();
                got.logs.extend(sent.resource_logs);
            }
        });
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(status));
    let body = Full::new(Bytes::from_static(&[0; 5]));
    let body = body.with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc+proto"));
    Ok(response)
}
