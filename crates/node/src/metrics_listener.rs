//! The plain listener for those who watch: metrics and health, and nothing else.

use std::sync::Arc;

use convoke_net::server::{Body, ConnectionInfo, Handler, Opened, Refuse, ResponseBody};
use http::{Request, Response, StatusCode};

use crate::http::{json, not_allowed, problem, read};
use crate::routes::{self, Document, METRICS_ROUTES, Nothing, Target};
use crate::service::Service;

/// The routes of the metrics listener of one agent.
pub(crate) struct MetricsRoutes(pub(crate) Arc<Service>);

impl Handler for MetricsRoutes {
    type Connection = ();

    fn connected(&self, _info: &ConnectionInfo) -> Result<Opened<()>, Refuse> {
        Ok(Opened { connection: (), expires_in: None })
    }

    async fn call(&self, _connection: &Arc<()>, request: Request<Body>) -> Response<ResponseBody> {
        match routes::find(METRICS_ROUTES, request.method(), request.uri().path()) {
            // Who can come here is the operator.
            Ok(Target::Document(Document::Health)) => {
                let Service { health, agent, clock, .. } = &*self.0;
                let (report, policy) = (health.report(clock.now()), health.policy_news());
                let body = report.health_body_for_operator(&agent.metadata.name, &policy);
                json(StatusCode::OK, body)
            }
            Ok(Target::Document(document)) => read(&self.0, document, request.headers()),
            Err(Nothing::NotAllowed(allowed)) => not_allowed(allowed),
            Ok(Target::Rpc) | Err(Nothing::NotFound) => {
                problem(StatusCode::NOT_FOUND, "metrics are at /metrics, health at /health/ready")
            }
        }
    }
}
