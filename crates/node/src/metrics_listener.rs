//! The plain listener for those who watch: metrics and health, and nothing else.

use std::sync::Arc;

use convoke_net::server::{Body, ConnectionInfo, Handler, Opened, Refuse, ResponseBody};
use http::{Request, Response, StatusCode};

use crate::http::{json, not_allowed, problem, read};
use crate::observe::health::Particulars;
use crate::routes::{self, Document, METRICS_ROUTES, Nothing, Target};
use crate::service::Service;

/// The routes of the metrics listener of one agent.
pub(crate) struct MetricsRoutes {
    pub(crate) service: Arc<Service>,
    /// Where the operator wants the metrics, instead of where the table has them.
    pub(crate) path: String,
}

/// Where the table of routes has the metrics.
const METRICS_PATH: &str = "/metrics";

impl Handler for MetricsRoutes {
    type Connection = ();

    fn connected(&self, _info: &ConnectionInfo) -> Result<Opened<()>, Refuse> {
        Ok(Opened { connection: (), expires_in: None })
    }

    async fn call(&self, _connection: &Arc<()>, request: Request<Body>) -> Response<ResponseBody> {
        let path = match request.uri().path() {
            path if path == self.path => METRICS_PATH,
            METRICS_PATH => "",
            path => path,
        };
        match routes::find(METRICS_ROUTES, request.method(), path) {
            // Who can come here is the operator.
            Ok(Target::Document(Document::Health)) => {
                let Service { health, agent, clock, .. } = &*self.service;
                let told = Particulars {
                    agent: &agent.metadata.name,
                    spiffe_id: &agent.spiffe_id,
                    policy: &health.policy_news(),
                    svid_valid_until: health.svid_valid_until(),
                    listens_at: health.listens_at(),
                };
                let report = health.report(clock.now());
                json(StatusCode::OK, report.health_body_for_operator(&told))
            }
            Ok(Target::Document(document)) => read(&self.service, document, request.headers()),
            Err(Nothing::NotAllowed(allowed)) => not_allowed(allowed),
            Ok(Target::Rpc) | Err(Nothing::NotFound) => {
                let text = format!("metrics are at {}, health at /health/ready", self.path);
                problem(StatusCode::NOT_FOUND, &text)
            }
        }
    }
}
