#![expect(clippy::disallowed_methods, reason = "the server that is asked is not one of ours")]

use std::sync::Mutex;

use convoke_model::{
    Caller, Decision, GetTask, Json, Operation, OperationKind, Principal, Secret, SpiffeId, TaskId,
    UnixMillis,
};
use convoke_policy::authorize_with;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// What OPA answers, as its REST API documents it, and what that means here.
const CONTRACT: [(u16, &str, &str); 8] = [
    (200, r#"{"decision_id":"b84cf736-213c-4932-a8e4-bb5c648f1b4d","result":true}"#, "allowed"),
    (200, r#"{"decision_id":"b84cf736-213c-4932-a8e4-bb5c648f1b4d","result":false}"#, "denied"),
    (200, r#"{"result":{"allow":true,"reason":"on call"}}"#, "allowed"),
    (
        200,
        r#"{"warning":{"code":"api_usage_warning","message":"'input' key missing"}}"#,
        "undefined",
    ),
    (400, r#"{"code":"invalid_parameter","message":"error(s) occurred"}"#, "unreachable"),
    (
        401,
        r#"{"code":"unauthorized","message":"request rejected by administrative policy"}"#,
        "unreachable",
    ),
    (404, r#"{"code":"resource_not_found","message":"storage_not_found_error"}"#, "unreachable"),
    (500, r#"{"code":"internal_error","message":"evaluation error"}"#, "unreachable"),
];

/// A server that gives each request the same answer and keeps what was asked.
struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(answer: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let theirs = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (asked, answer) = (Arc::clone(&theirs), answer.clone());
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !is_whole(&request) {
                        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    asked.lock().unwrap().push(String::from_utf8(request).unwrap());
                    // Nothing to answer with means silence.
                    if answer.is_empty() {
                        std::future::pending::<()>().await;
                    }
                    stream.write_all(&answer).await.unwrap_or_default();
                });
            }
        });
        Self { port, asked }
    }

    async fn answering(status: u16, body: &str) -> Self {
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
        Self::start(format!("{head}connection: close\r\n\r\n{body}").into_bytes()).await
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn policy(&self) -> PolicyServer {
        policy(&config(&format!("http://127.0.0.1:{}", self.port)))
    }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}

fn config(url: &str) -> OpaConfig {
    OpaConfig {
        url: url.to_owned(),
        path: "agentweave/authz".to_owned(),
        timeout: Duration::from_secs(10),
        token: Some(Secret::new("s3cret")),
    }
}

fn policy(config: &OpaConfig) -> PolicyServer {
    PolicyServer::new(config, &Arc::new(Health::new()), &PathMetrics::default()).unwrap()
}

async fn decide(server: &PolicyServer, params: &str) -> Decision {
    let agent = SpiffeId::parse("spiffe://example.org/worker").unwrap();
    let ann = SpiffeId::parse("spiffe://example.org/user/ann").unwrap();
    let params = Json::from_checked(params);
    let question = Question {
        caller: &Caller::Principal(Arc::new(Principal::from_verified_svid(ann, &agent))),
        agent: &agent,
        agent_name: "Worker",
        operation: OperationKind::GetTask,
        method: "count_words",
        params: Some(&params),
        at: UnixMillis(1_798_761_599_001),
        protocol: "a2a/1.0",
        remote_addr: "127.0.0.1:50000",
        request_id: "req-1",
        task_id: None,
        context_id: None,
    };
    let verdict = server.ask(&question).await;
    let id = TaskId::parse("t").unwrap();
    let operation = Operation::GetTask(GetTask { tenant: None, id, history_length: None });
    match authorize_with(verdict, operation, Duration::ZERO) {
        Ok(authorized) => authorized.into_parts().1,
        Err(refused) => refused.decision,
    }
}

#[tokio::test]
async fn the_contract_is_kept() {
    for (status, body, expected) in CONTRACT {
        let server = Server::answering(status, body).await;
        let decision = decide(&server.policy(), "{}").await;
        assert_eq!(decision.reason.as_str(), expected, "{status} {body}");
        assert_eq!(decision.is_allowed(), expected == "allowed");
        assert_eq!(&*decision.revision.0, "opa");
    }
}

#[tokio::test]
async fn the_question_is_the_whole_document() {
    let server = Server::answering(200, r#"{"result":true}"#).await;
    assert!(decide(&server.policy(), r#"{"n":42.0}"#).await.is_allowed());
    let [asked] = server.asked().try_into().unwrap();
    let (head, body) = asked.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /v1/data/agentweave/authz HTTP/1.1\r\n"), "{head}");
    for line in ["authorization: Bearer s3cret", "content-type: application/json"] {
        assert!(head.lines().any(|found| found == line), "{line}\n{head}");
    }
    assert!(body.contains(r#""params":{"n":42.0}"#), "{body}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let input = &body["input"];
    assert_eq!(input["caller"]["spiffe_id"], "spiffe://example.org/user/ann");
    assert_eq!(input["request"]["method"], "count_words");
    assert_eq!(input["action"], "count_words");
}

#[tokio::test]
async fn what_is_no_answer_in_time_refuses() {
    let huge = format!(r#"{{"result":true,"x":"{}"}}"#, "x".repeat(ANSWER_BYTES_MAX));
    let server = Server::answering(200, &huge).await;
    assert_eq!(decide(&server.policy(), "{}").await.reason.as_str(), "unreachable");
    for broken in
        ["HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"result\":true}", "nonsense\r\n\r\n"]
    {
        let server = Server::start(broken.as_bytes().to_vec()).await;
        let decision =
            decide(&PolicyServer { timeout: Duration::from_millis(200), ..server.policy() }, "{}")
                .await;
        assert!(!decision.is_allowed(), "{broken}");
    }
    let silent = Server::start(Vec::new()).await;
    let patience = PolicyServer { timeout: Duration::from_millis(20), ..silent.policy() };
    assert_eq!(decide(&patience, "{}").await.reason.as_str(), "over_time");
    let large = format!("\"{}\"", "x".repeat(limits::POLICY_INPUT_BYTES_MAX));
    assert_eq!(decide(&patience, &large).await.reason.as_str(), "input_too_large");
    assert_eq!(silent.asked().len(), 1);
}

#[tokio::test]
async fn a_dead_server_is_spared_said_and_found_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let health = Arc::new(Health::new());
    let config = config(&format!("http://localhost:{port}"));
    let server = PolicyServer::new(&config, &health, &PathMetrics::default()).unwrap();
    let policy_health = || health.report(UnixMillis(0)).policy;
    assert_eq!(policy_health(), "unreachable", "nothing is known yet");
    let mut details = Vec::new();
    for _ in 0..6 {
        let decision = decide(&server, "{}").await;
        assert!(!decision.is_allowed());
        details.push(decision.reason.detail().unwrap().to_owned());
    }
    assert!(details[0].contains("cannot connect to"), "{}", details[0]);
    assert!(details[5].contains("asked again in a moment"), "{}", details[5]);
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let answering = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !is_whole(&request) {
                assert!(stream.read_buf(&mut request).await.unwrap() > 0);
            }
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
            stream.write_all(answer).await.unwrap();
        }
    });
    let found = async {
        while policy_health() != "ok" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = server.watch() => {}
        found = tokio::time::timeout(Duration::from_secs(20), found) => found.unwrap(),
    }
    assert!(server.breaker.leave(server.began.elapsed()).is_some());
    answering.abort();
}

/// A server that does not decide, such as one that takes our token no more, is not found again by
/// being there.
#[tokio::test]
async fn a_server_is_found_again_where_it_decides() {
    for (status, body, reason) in CONTRACT {
        let server = Server::answering(status, body).await;
        let policy = server.policy();
        for _ in 0..5 {
            policy.breaker.leave(Duration::ZERO).unwrap().failed(Duration::ZERO);
        }
        let answers = reason != "unreachable";
        assert_eq!(policy.look().await.is_ok(), answers, "{status} {body}");
        assert_eq!(policy.up.load(Ordering::Relaxed), answers);
        assert_eq!(policy.breaker.leave(Duration::ZERO).is_some(), answers, "it is still spared");
        let [asked] = server.asked().try_into().unwrap();
        assert!(asked.starts_with("POST /v1/data/agentweave/authz HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("authorization: Bearer s3cret\r\n"), "{asked}");
        assert!(asked.ends_with("\r\n\r\n{\"input\":{}}"), "{asked}");
    }
}

#[test]
fn a_server_that_cannot_be_trusted_is_refused() {
    let check = |change: &dyn Fn(&mut OpaConfig), expected: &str| {
        let mut config = config("http://localhost:8181");
        change(&mut config);
        let made = PolicyServer::new(&config, &Arc::new(Health::new()), &PathMetrics::default());
        let said = made.map_or_else(|error| error.to_string(), |server| server.to_string());
        assert!(said.contains(expected), "{said}");
    };
    check(&|_| {}, "http://localhost:8181/v1/data/agentweave/authz");
    check(&|config| config.url = "http://[::1]:1/opa/".into(), "http://::1:1/opa/v1/data/");
    check(&|config| config.url = "http://opa.example:8181".into(), "plain http to opa.example");
    check(&|config| config.url = "opa:8181".into(), "`authorization.opa.url`: ");
    check(&|config| config.path = "a b".into(), "`a b` is no path");
    check(&|config| config.path = "/".into(), "`/` is no path");
    check(&|config| config.path = "a?b=c".into(), "`a?b=c` is no path");
    check(&|config| config.token = Some(Secret::new("a\nb")), "token of `authorization.opa`");
}

/// The same through a real server, where there is one.
#[tokio::test]
async fn opa_itself_decides() {
    let name = "opa_itself_decides";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("p.rego");
    let text = "package agentweave.authz\nimport rego.v1\ndefault allow := false\n\
                allow if input.request.params.n == 42\nreason := \"asked\"\n";
    std::fs::write(&file, text).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let mut command = tokio::process::Command::new("opa");
    command.args(["run", "--server", "--log-level", "error", "--addr"]);
    command.arg(format!("127.0.0.1:{port}")).arg(&file).kill_on_drop(true);
    let Ok(mut child) = command.spawn() else {
        println!("skipped: {name}: `opa` is not on PATH");
        return;
    };
    let server = policy(&config(&format!("http://127.0.0.1:{port}")));
    let up = async {
        while !server.up.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = server.watch() => {}
        up = tokio::time::timeout(Duration::from_secs(20), up) => up.unwrap(),
    }
    let allowed = decide(&server, r#"{"n":42}"#).await;
    assert_eq!((allowed.reason.as_str(), allowed.reason.detail()), ("allowed", Some("asked")));
    assert_eq!(decide(&server, r#"{"n":41}"#).await.reason.as_str(), "denied");
    child.kill().await.unwrap();
}
