//! `sec_route_matrix`: every route of every listener, for every kind of caller.

use convoke_model::OperationKind;
use convoke_node::routes::{AGENT_ROUTES, Access, METRICS_ROUTES, Methods, Route};
use http::Method;
use rcgen::{
    BasicConstraints, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
};
use serde_json::{Value, json};

use crate::authority::{Authority, Svid, self_signed, set_uris, set_validity};
use crate::mesh::{Caller, Mesh, Outcome, VERSIONS, call, rpc};

/// What a caller gets from a route: nobody in particular, somebody whom the policy refuses, and
/// somebody whom it allows. A route that is in a listener's table and not here fails the test.
const ROWS: &[(&str, &str, [u16; 3])] = &[
    ("agent", "/", [401, 403, 200]),
    ("agent", "/.well-known/agent-card.json", [200, 200, 200]),
    ("agent", "/health/live", [200, 200, 200]),
    ("agent", "/health/ready", [200, 200, 200]),
    ("agent", "/health", [200, 200, 200]),
    ("metrics", "/metrics", [200, 200, 200]),
    ("metrics", "/health/live", [200, 200, 200]),
    ("metrics", "/health/ready", [200, 200, 200]),
    ("metrics", "/health", [200, 200, 200]),
];

fn row(listener: &str, route: &Route) -> [u16; 3] {
    let row = ROWS.iter().find(|(at, path, _)| (*at, *path) == (listener, route.path));
    let Some((_, _, expected)) = row else {
        panic!("{} of the {listener} listener has no row: say who gets what from it", route.path)
    };
    // What the table of routes says of itself is what happens.
    assert_eq!(route.access == Access::Open, expected[0] == 200, "{}", route.path);
    *expected
}

/// Certificates that no handshake may accept.
fn bad(ours: &Authority) -> Vec<(&'static str, Svid)> {
    const ID: &str = "spiffe://example.org/may/call";
    let (impostor, stranger) = (Authority::new("example.org"), Authority::new("stranger.org"));
    let with = |change: &dyn Fn(&mut rcgen::CertificateParams)| ours.svid_with(ID, change);
    let only = |usage: ExtendedKeyUsagePurpose| {
        with(&|params| params.extended_key_usages = vec![usage.clone()])
    };
    vec![
        ("self-signed", self_signed(ID)),
        ("another authority of the same name", impostor.svid(ID)),
        ("a domain that is not trusted", stranger.svid("spiffe://stranger.org/may/call")),
        ("another domain's authority", stranger.svid(ID)),
        ("expired", with(&|params| set_validity(params, -200, -100))),
        ("not yet valid", with(&|params| set_validity(params, 1000, 2000))),
        ("for servers alone", only(ExtendedKeyUsagePurpose::ServerAuth)),
        ("for code", only(ExtendedKeyUsagePurpose::CodeSigning)),
        ("for no purpose", with(&|params| params.extended_key_usages.clear())),
        ("an authority", with(&|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
        ("may be one or not", with(&|params| params.is_ca = IsCa::NoCa)),
        ("signs", with(&|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign))),
        ("may not sign", with(&|params| params.key_usages.clear())),
        ("no path", with(&|params| set_uris(params, &["spiffe://example.org"]))),
        ("two names", with(&|params| set_uris(params, &[ID, "spiffe://example.org/agent"]))),
        ("another scheme", with(&|params| set_uris(params, &["https://example.org/may/call"]))),
        (
            "a DNS name",
            with(&|params| {
                params.subject_alt_names = vec![SanType::DnsName("caller".try_into().unwrap())];
            }),
        ),
        (
            "something critical",
            with(&|params| {
                let oid = &[1, 3, 6, 1, 4, 1, 1, 1];
                let mut unknown = CustomExtension::from_oid_content(oid, vec![5, 0]);
                unknown.set_criticality(true);
                params.custom_extensions.push(unknown);
            }),
        ),
    ]
}

/// A request for each way to use a route: for calls, one for each operation.
fn requests(route: &Route) -> Vec<(Method, Value)> {
    match route.methods {
        Methods::Read => vec![(Method::GET, Value::Null), (Method::HEAD, Value::Null)],
        Methods::Post => OPERATIONS.iter().map(|kind| (Method::POST, operation(*kind))).collect(),
    }
}

const OPERATIONS: &[OperationKind] = &[
    OperationKind::SendMessage,
    OperationKind::SendStreamingMessage,
    OperationKind::GetTask,
    OperationKind::ListTasks,
    OperationKind::CancelTask,
    OperationKind::SubscribeToTask,
];

/// There is no other operation: a new one does not compile here until it is among them.
fn operation(kind: OperationKind) -> Value {
    let task = json!({"id": "00000000-0000-4000-8000-000000000000"});
    match kind {
        OperationKind::SendMessage => call("echo"),
        OperationKind::SendStreamingMessage => {
            let mut request = call("echo");
            request["method"] = json!("SendStreamingMessage");
            request
        }
        OperationKind::GetTask => rpc("GetTask", &task),
        OperationKind::ListTasks => rpc("ListTasks", &json!({})),
        OperationKind::CancelTask => rpc("CancelTask", &task),
        OperationKind::SubscribeToTask => rpc("SubscribeToTask", &task),
    }
}

/// Whether a request names a task. There is none, and nobody learns more than that.
fn is_of_a_task(request: &Value) -> bool {
    request["params"]["id"].is_string()
}

/// Source: A2A §5.4, `TaskNotFoundError`.
fn is_not_found(outcome: &Outcome) -> bool {
    let Outcome::Answered(_, body) = outcome else { return false };
    serde_json::from_slice::<Value>(body).is_ok_and(|body| body["error"]["code"] == -32001)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_route_matrix() {
    let mesh = Mesh::start(&[]).await;
    let bad = bad(&mesh.authority);
    let denied = mesh.authority.svid("spiffe://example.org/not/allowed");
    let allowed = mesh.authority.svid("spiffe://example.org/may/call");
    let good = [None, Some(&denied), Some(&allowed)];
    let mut cases = 0;
    for version in VERSIONS {
        for route in AGENT_ROUTES {
            let expected = row("agent", route);
            for (method, body) in requests(route) {
                for (what, svid) in &bad {
                    let outcome = match Caller::connect(mesh.mesh, Some(svid), version).await {
                        Ok(mut caller) => caller.send(method.clone(), route.path, &body).await,
                        Err(outcome) => outcome,
                    };
                    let case = format!("{version:?} {method} {} {body}: {what}", route.path);
                    assert_eq!(outcome, Outcome::TurnedAway, "{case}");
                    cases += 1;
                }
                for (svid, expected) in good.iter().zip(expected) {
                    let mut caller = Caller::connect(mesh.mesh, *svid, version).await.unwrap();
                    let outcome = caller.send(method.clone(), route.path, &body).await;
                    let case = format!("{version:?} {method} {} {body}: {expected}", route.path);
                    if expected != 401 && is_of_a_task(&body) {
                        assert!(is_not_found(&outcome), "{case}: {outcome:?}");
                    } else {
                        assert_eq!(outcome.status(), Some(expected), "{case}: {outcome:?}");
                    }
                    cases += 1;
                }
            }
        }
    }
    assert!(cases >= 300, "{cases} cases");
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_route_matrix_of_plain_listeners() {
    let mesh = Mesh::start(&[]).await;
    for version in VERSIONS {
        for (listener, at, routes) in
            [("agent", mesh.dev, AGENT_ROUTES), ("metrics", mesh.metrics, METRICS_ROUTES)]
        {
            let mut caller = Caller::connect_plain(at, version).await.unwrap();
            for route in routes {
                let [nobody, denied, _] = row(listener, route);
                // On the development listener there is no certificate to ask for, so the policy is
                // asked about nobody, and this one refuses.
                let expected = if nobody == 401 { denied } else { nobody };
                for (method, body) in requests(route) {
                    let outcome = caller.send(method.clone(), route.path, &body).await;
                    let case = format!("{version:?} {listener} {method} {} {body}", route.path);
                    if is_of_a_task(&body) {
                        assert!(is_not_found(&outcome), "{case}: {outcome:?}");
                    } else {
                        assert_eq!(outcome.status(), Some(expected), "{case}: {outcome:?}");
                    }
                }
            }
        }
    }
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_route_is_not_there() {
    let mesh = Mesh::start(&[]).await;
    let allowed = mesh.authority.svid("spiffe://example.org/may/call");
    for version in VERSIONS {
        for svid in [None, Some(&allowed)] {
            let mut caller = Caller::connect(mesh.mesh, svid, version).await.unwrap();
            for (path, method, expected) in [
                ("/metrics", Method::GET, 404),
                ("/admin", Method::GET, 404),
                ("/.well-known/agent.json", Method::GET, 404),
                ("/health/../", Method::GET, 404),
                ("/%2e%2e/health", Method::GET, 404),
                ("/health/", Method::GET, 404),
                ("//", Method::POST, 404),
                ("/", Method::GET, 405),
                ("/", Method::PUT, 405),
                ("/", Method::OPTIONS, 405),
                ("/", Method::TRACE, 405),
                ("/health", Method::POST, 405),
                ("/health", Method::DELETE, 405),
                ("/.well-known/agent-card.json", Method::POST, 405),
            ] {
                let outcome = caller.send(method.clone(), path, &Value::Null).await;
                assert_eq!(outcome.status(), Some(expected), "{version:?} {method} {path}");
            }
        }
    }
    mesh.end().await;
}
