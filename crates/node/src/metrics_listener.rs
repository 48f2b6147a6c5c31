//! The plain listener for those who watch: metrics and health, and nothing else.

use std::sync::Arc;

use bytes::Bytes;
use convoke_net::server::{Body, ConnectionInfo, Handler, Opened, Refuse, ResponseBody};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};

use crate::http::{health, problem};
use crate::observe::metrics;
use crate::service::Service;

/// The routes of the metrics listener of one agent.
pub(crate) struct MetricsRoutes(pub(crate) Arc<Service>);

impl Handler for MetricsRoutes {
    type Connection = ();

    fn connected(&self, _info: &ConnectionInfo) -> Result<Opened<()>, Refuse> {
        Ok(Opened { connection: (), expires_in: None })
    }

    async fn call(&self, _connection: &Arc<()>, request: Request<Body>) -> Response<ResponseBody> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return problem(StatusCode::METHOD_NOT_ALLOWED, "use GET here");
        }
        match request.uri().path() {
            "/metrics" => {
                let Ok(text) = self.0.metrics.encode(self.0.clock.now()) else {
                    return problem(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "a metric cannot be written",
                    );
                };
                let mut response = Response::new(ResponseBody::from(Bytes::from(text)));
                let media = HeaderValue::from_static(metrics::CONTENT_TYPE);
                response.headers_mut().insert(CONTENT_TYPE, media);
                response
            }
            path => health(&self.0, path).unwrap_or_else(|| {
                problem(StatusCode::NOT_FOUND, "metrics are at /metrics, health at /health/ready")
            }),
        }
    }
}
