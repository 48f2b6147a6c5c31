//! What `docs/conformance.md` says is what a running agent answers.

use convoke::FaultCode;
use serde_json::json;

use crate::http::{Answer, get, post};
use crate::page::{Page, code};
use crate::world::World;

const JSON: &str = "Content-Type: application/json";
const VERSION: &str = "A2A-Version: 1.0";

/// An id that no task has.
const NO_TASK: &str = "00000000-0000-4000-8000-000000000000";

/// Parameters that are good for the method, as far as a caller without an identity can tell.
fn params(method: &str) -> serde_json::Value {
    match method {
        "SendMessage" | "SendStreamingMessage" => json!({"message": {
            "messageId": "m-1", "role": "ROLE_USER", "parts": [{"data": {"text": "x"}}],
            "metadata": {"urn:convoke:ext:capability:v1": {"name": "count_words"}},
        }}),
        _ => json!({ "id": NO_TASK }),
    }
}

fn request(method: &str) -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params(method)}).to_string()
}

/// A worker whose development listener is at the page's port 8445.
fn worker() -> World {
    let mut world = World::new();
    world.terminal("convoke identity serve --trust-domain example.org", "Issuer started");
    let serve = "cd examples/document-pipeline
        convoke serve --agent document-worker --dev 127.0.0.1:8445 config/worker.yaml";
    world.terminal(serve, "Agent server started");
    world
}

#[test]
fn the_tables_of_conformance_are_true() {
    let page = Page::read("docs/conformance.md");
    let world = worker();
    let port = world.port("8445");
    let rpc = |body: &str| post(port, "/", &[JSON, VERSION], body);

    for row in page.table("Methods") {
        let method = code(&row[0]).next().unwrap_or("NoSuchMethod");
        let (number, reason) = rpc(&request(method)).error().expect(method);
        if row[1] == "yes" {
            // Served, and refused for what this caller is or asks for.
            let names_a_task = ["GetTask", "CancelTask", "SubscribeToTask"].contains(&method);
            let expected = if names_a_task { "TASK_NOT_FOUND" } else { "PERMISSION_DENIED" };
            assert_eq!(reason, expected, "{method}");
        } else {
            let expected = (row[2].as_str(), row[3].trim_matches('`'));
            assert_eq!((number.to_string().as_str(), reason.as_str()), expected, "{method}");
        }
    }

    for path in ["/message:send", "/v1/message:send", "/lf.a2a.v1.A2AService/SendMessage"] {
        assert_eq!(post(port, path, &[JSON, VERSION], "{}").status, 404, "{path}");
    }
    for path in ["/.well-known/agent-card.json", "/health/live", "/health/ready", "/health"] {
        assert_eq!(get(port, path).status, 200, "{path}");
    }

    let faults = page.table("Faults");
    let check = |answer: Answer| {
        let (number, reason) = answer.error().expect("a fault");
        let found = [number.to_string(), answer.status.to_string(), format!("`{reason}`")];
        assert!(faults.iter().any(|row| row[1..] == found), "not in the table: {found:?}");
        reason
    };
    let long = format!("{}{}", request("GetTask"), " ".repeat(5 << 20));
    let mut seen = vec![
        check(rpc("{")),
        check(rpc("{}")),
        check(rpc("[]")),
        check(rpc(&request("Nothing"))),
        check(rpc(&request("GetTask"))),
        check(rpc(&request("SendMessage"))),
        check(rpc(&request("GetExtendedAgentCard"))),
        check(rpc(&request("GetTaskPushNotificationConfig"))),
        check(rpc(&request("GetTask").replace(NO_TASK, ""))),
        check(rpc(&request("SendMessage").replace("count_words", "count_worlds"))),
        check(post(port, "/", &[JSON], &request("GetTask"))),
        check(post(port, "/", &["Content-Type: text/plain", VERSION], &request("GetTask"))),
        check(post(port, "/", &[JSON, VERSION], &long)),
        check(post(port, "/", &[JSON, VERSION, "Content-Encoding: gzip"], &request("GetTask"))),
        check(post(port, "/", &[JSON, VERSION, "grpc-timeout: soon"], &request("GetTask"))),
        check(post(port, "/", &[JSON, VERSION, "grpc-timeout: 1n"], &request("GetTask"))),
    ];
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 13, "all the reasons that such requests can have: {seen:?}");

    // A client of ours says these two; a server of ours has no cause to.
    let of_clients = [FaultCode::InvalidAgentResponse, FaultCode::ExtensionSupportRequired];
    for fault in FaultCode::ALL {
        let listed = faults.iter().any(|row| row[3].trim_matches('`') == fault.reason());
        assert_eq!(listed, !of_clients.contains(&fault), "{}", fault.reason());
    }
}
