//! Everything that a listener answers, in one table: what is not in it does not exist.
//!
//! The tests read the same table, so a route cannot come to be without one that says who may reach
//! it.

use convoke_a2a::card::WELL_KNOWN_PATH as CARD_PATH;
use http::Method;

/// One path of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The whole path; there are no patterns.
    pub path: &'static str,
    /// What may be done with it.
    pub methods: Methods,
    /// Who gets an answer.
    pub access: Access,
    pub(crate) target: Target,
}

/// What may be done with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Methods {
    /// `GET` and `HEAD`.
    Read,
    /// `POST`.
    Post,
}

/// Who gets an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Whoever can connect.
    Open,
    /// Whom the policy allows to do what the request asks. On the mesh, that is nobody without a
    /// verified SVID.
    Authorised,
}

/// What answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// An operation of A2A, in JSON-RPC.
    Rpc,
    /// A document that anybody may read.
    Document(Document),
}

/// What anybody may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Document {
    Card,
    Live,
    Ready,
    Health,
    Metrics,
}

/// What the mesh and the development listener answer.
pub const AGENT_ROUTES: &[Route] = &[
    Route { path: "/", methods: Methods::Post, access: Access::Authorised, target: Target::Rpc },
    open(CARD_PATH, Document::Card),
    LIVE,
    READY,
    HEALTH,
];

/// What the metrics listener answers.
pub const METRICS_ROUTES: &[Route] = &[open("/metrics", Document::Metrics), LIVE, READY, HEALTH];

const LIVE: Route = open("/health/live", Document::Live);
const READY: Route = open("/health/ready", Document::Ready);
const HEALTH: Route = open("/health", Document::Health);

const fn open(path: &'static str, document: Document) -> Route {
    let target = Target::Document(document);
    Route { path, methods: Methods::Read, access: Access::Open, target }
}

/// Why a request reaches nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nothing {
    /// There is no such path.
    NotFound,
    /// The path is there for other methods.
    NotAllowed(&'static str),
}

/// What answers `method` at `path`.
pub(crate) fn find(
    routes: &'static [Route],
    method: &Method,
    path: &str,
) -> Result<Target, Nothing> {
    let route = routes.iter().find(|route| route.path == path).ok_or(Nothing::NotFound)?;
    let allowed = match route.methods {
        Methods::Read => matches!(*method, Method::GET | Method::HEAD),
        Methods::Post => *method == Method::POST,
    };
    if allowed { Ok(route.target) } else { Err(Nothing::NotAllowed(route.methods.as_str())) }
}

impl Methods {
    /// As the `Allow` header lists them.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "GET, HEAD",
            Self::Post => "POST",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reaches_what_the_table_says() {
        for (method, path, expected) in [
            (Method::POST, "/", Ok(Target::Rpc)),
            (Method::GET, "/", Err(Nothing::NotAllowed("POST"))),
            (Method::HEAD, "/health", Ok(Target::Document(Document::Health))),
            (Method::POST, "/health", Err(Nothing::NotAllowed("GET, HEAD"))),
            (Method::GET, "/health/", Err(Nothing::NotFound)),
            (Method::GET, "/metrics", Err(Nothing::NotFound)),
            (Method::POST, "//", Err(Nothing::NotFound)),
        ] {
            assert_eq!(find(AGENT_ROUTES, &method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn no_path_is_there_twice() {
        for routes in [AGENT_ROUTES, METRICS_ROUTES] {
            for (at, route) in routes.iter().enumerate() {
                assert!(!routes[..at].iter().any(|other| other.path == route.path), "{route:?}");
            }
        }
    }
}
