//! A whole node in one process: an issuer, an agent with every way to misbehave, real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]

mod request_path;
mod streams;
mod world;

use std::time::Duration;

use convoke_agent::{AgentCallError, CallError, Context, HandlerError, Host};
use convoke_macros::agent;
use convoke_model::{FaultCode, TaskState};
use serde_json::{Value, json};
use world::{World, send};

/// Does what it is told, as agents of other people do.
struct Moody;

#[agent(crate = "convoke_agent")]
impl Moody {
    /// Echo a text
    #[capability(ephemeral)]
    async fn echo(&self, _context: &Context, text: String) -> String {
        text
    }

    /// Panic within a request
    #[capability(ephemeral)]
    async fn explode(&self, _context: &Context) -> String {
        panic!("as asked")
    }

    /// Panic within a task
    #[capability]
    async fn explode_later(&self, _context: &Context) -> String {
        tokio::task::yield_now().await;
        panic!("as asked")
    }

    /// Fail with a sentence
    #[capability]
    async fn fail(&self, _context: &Context, why: String) -> Result<String, HandlerError> {
        Err(HandlerError::new(why))
    }

    /// Promise a number and give a text
    #[capability(output_schema = a_number)]
    async fn lie(&self, _context: &Context) -> String {
        "not a number".to_owned()
    }

    /// Wait until cancelled
    #[capability]
    async fn wait(&self, context: &Context) -> String {
        context.cancelled().cancelled().await;
        std::future::pending().await
    }

    /// Wait for a while
    #[capability]
    async fn rest(&self, _context: &Context, millis: u64) -> u64 {
        tokio::time::sleep(Duration::from_millis(millis)).await;
        millis
    }

    /// Want what the schema does not say
    #[capability(ephemeral)]
    async fn pick(&self, _context: &Context, colour: String) -> Result<String, HandlerError> {
        let secret = std::io::Error::other("the cause");
        Err(HandlerError::invalid_field("/colour", format!("is no colour: {colour}"))
            .caused_by(secret))
    }

    /// Say who asks
    #[capability(ephemeral)]
    async fn who(&self, context: &Context) -> Option<String> {
        context.caller_spiffe_id().map(ToString::to_string)
    }
}

fn a_number() -> Value {
    json!({"type": "number"})
}

const EVERYBODY: &str = "package agentweave.authz\ndefault allow := true\n";

async fn world(policy: &str) -> World {
    World::start(Host::new(Moody).unwrap(), policy).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_is_who_its_certificate_says() {
    let world = world(EVERYBODY).await;
    let ann = world.client("/user/ann").await;
    let answer = world.call(&ann, "who", json!({})).await.unwrap();
    assert_eq!(answer.get(), r#""spiffe://example.org/user/ann""#);
    let nobody = world.dev("SendMessage", send("who", json!({}))).await;
    assert_eq!(nobody["result"]["message"]["parts"][0]["data"], Value::Null);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_ends_one_call_and_nothing_else() {
    let world = world(EVERYBODY).await;
    let ann = world.client("/user/ann").await;
    for capability in ["explode", "explode_later"] {
        match world.call(&ann, capability, json!({})).await.unwrap_err() {
            CallError::Failed(AgentCallError::Remote { code, message, .. }) => {
                assert_eq!(code, FaultCode::CapabilityFailed);
                assert!(message.contains("broke off"), "{message}");
                assert!(!message.contains("as asked"), "a panic's words are not the caller's");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(world.call(&ann, "echo", json!({"text": "ok"})).await.unwrap().get(), r#""ok""#);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_breaks_its_promise_does_not_leave() {
    let world = world(EVERYBODY).await;
    let ann = world.client("/user/ann").await;
    match world.call(&ann, "lie", json!({})).await.unwrap_err() {
        CallError::Failed(AgentCallError::Remote { message, .. }) => {
            assert!(message.contains("output schema"), "{message}");
            assert!(!message.contains("not a number"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_may_find_fault_with_a_field() {
    let world = world(EVERYBODY).await;
    let ann = world.client("/user/ann").await;
    match world.call(&ann, "pick", json!({"colour": "loud"})).await.unwrap_err() {
        CallError::Failed(AgentCallError::InvalidParams { violations, message, .. }) => {
            assert_eq!(violations[0].field, "/colour");
            assert!(message.contains("is no colour: loud"), "{message}");
            assert!(!message.contains("the cause"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_task_keeps_the_agents_words() {
    let world = world(EVERYBODY).await;
    let sent = world.dev("SendMessage", send("fail", json!({"why": "no paper"}))).await;
    let task = &sent["result"]["task"];
    assert_eq!(task["status"]["state"], TaskState::Failed.as_str());
    assert_eq!(task["status"]["message"]["parts"][0]["text"], "no paper");
    let got = world.dev("GetTask", json!({"id": task["id"]})).await;
    assert_eq!(got["result"]["status"], task["status"]);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_followed_and_cancelled_by_its_owner_alone() {
    let world = world(EVERYBODY).await;
    let mut params = send("wait", json!({}));
    params["configuration"] = json!({"returnImmediately": true});
    let sent = world.dev("SendMessage", params).await;
    let id = sent["result"]["task"]["id"].clone();
    assert_eq!(sent["result"]["task"]["status"]["state"], TaskState::Working.as_str());

    // Somebody else's task and no task at all look the same.
    let ann = world.client("/user/ann").await;
    let foreign = world.raw(&ann, "GetTask", json!({"id": id})).await;
    let missing = world.raw(&ann, "GetTask", json!({"id": "11111111-1111-4111-8111-111111111111"}));
    let text = |answer: &Value, id: &str| answer["error"].to_string().replace(id, "ID");
    let missing = text(&missing.await, "11111111-1111-4111-8111-111111111111");
    assert_eq!(text(&foreign, id.as_str().unwrap()), missing);
    let cancelled = world.raw(&ann, "CancelTask", json!({"id": id})).await;
    assert_eq!(cancelled["error"]["code"], -32001);

    let cancelled = world.dev("CancelTask", json!({"id": id})).await;
    assert_eq!(cancelled["result"]["status"]["state"], TaskState::Canceled.as_str());
    let again = world.dev("CancelTask", json!({"id": id})).await;
    assert_eq!(again["error"]["code"], -32002);
    let more = json!({"message": {"messageId": "m2", "taskId": id, "role": "ROLE_USER",
        "parts": [{"text": "go on"}]}});
    let more = world.dev("SendMessage", more).await;
    assert_eq!(more["error"]["code"], -32004);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hangs_up_leaves_no_half_task() {
    let synced = |yaml: &mut Value| yaml["observability"]["audit"]["sync"] = json!(true);
    let world = World::start_with(Host::new(Moody).unwrap(), EVERYBODY, synced).await;
    let mut endless = send("wait", json!({}));
    endless["configuration"] = json!({"returnImmediately": true});
    let mut ids = Vec::new();
    for _ in 0..40 {
        let sent = world.dev("SendMessage", endless.clone()).await;
        ids.push(sent["result"]["task"]["id"].clone());
    }
    // Some hang up before the request is read, some while its commit waits for the disk.
    for (index, id) in ids.iter().enumerate() {
        let patience = Duration::from_micros(100 * u64::try_from(index).unwrap());
        world.hang_up("CancelTask", json!({"id": id}), patience).await;
        world.hang_up("SendMessage", endless.clone(), patience).await;
    }
    for id in &ids {
        let cancelled = world.dev("CancelTask", json!({"id": id})).await;
        let state = &cancelled["result"]["status"]["state"];
        let was_cancelled = cancelled["error"]["code"] == -32002;
        assert!(was_cancelled || state == TaskState::Canceled.as_str(), "{cancelled}");
        let got = world.dev("GetTask", json!({"id": id})).await;
        assert_eq!(got["result"]["status"]["state"], TaskState::Canceled.as_str());
    }
    world.abandon().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_policy_refuses_is_not_done_and_is_on_record() {
    let policy = "package agentweave.authz\ndefault allow := false\n\
                  allow if { input.request.method == \"echo\"; input.request.operation == \"SendMessage\" }\n\
                  reason := \"only echo\"\n";
    let world = world(policy).await;
    let ann = world.client("/user/ann").await;
    assert!(world.call(&ann, "echo", json!({"text": "x"})).await.is_ok());
    match world.call(&ann, "who", json!({})).await.unwrap_err() {
        CallError::Refused(refusal) => {
            assert!(!refusal.message.contains("only echo"), "a policy's words stay in the audit");
        }
        other => panic!("{other:?}"),
    }
    let records = world.end().await;
    let decisions: Vec<_> = records
        .iter()
        .map(|r| (r["capability"].as_str().unwrap(), r["decision"].as_str().unwrap()))
        .collect();
    assert_eq!(decisions, [("echo", "allow"), ("who", "deny")]);
    assert_eq!(records[1]["detail"], "only echo");
    assert_eq!(records[1]["caller_spiffe_id"], "spiffe://example.org/user/ann");
    assert!(records.iter().all(|record| record["params_sha256"].as_str().unwrap().len() == 64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_refused_over_and_over_does_not_fill_the_trail() {
    const CALLS: u64 = 100;
    for sync in [false, true] {
        let synced = |yaml: &mut Value| yaml["observability"]["audit"]["sync"] = json!(sync);
        let nobody = "package agentweave.authz\ndefault allow := false\n";
        let world = World::start_with(Host::new(Moody).unwrap(), nobody, synced).await;
        for _ in 0..CALLS {
            let refused = world.dev("SendMessage", send("echo", json!({"text": "x"}))).await;
            assert!(refused["error"].is_object(), "{refused}");
        }
        let records = world.end().await;
        let of = |record: &Value| 1 + record["repeated"].as_u64().unwrap_or(0);
        assert_eq!(records.iter().map(of).sum::<u64>(), CALLS);
        assert!(records.len() < 50, "{}", records.len());
        assert!(records[0].get("repeated").is_none(), "the first is on record by itself");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_matches_and_never_selects() {
    let world = world(EVERYBODY).await;
    let ann = world.client("/user/ann").await;
    let mut own = send("echo", json!({"text": "x"}));
    own["tenant"] = json!("example.org");
    assert_eq!(
        world.raw(&ann, "SendMessage", own).await["result"]["message"]["role"],
        "ROLE_AGENT"
    );
    let mut foreign = send("echo", json!({"text": "x"}));
    foreign["tenant"] = json!("other.example");
    assert_eq!(world.raw(&ann, "SendMessage", foreign).await["error"]["code"], -32602);
    let task = json!({"id": "11111111-1111-4111-8111-111111111111", "tenant": "other.example"});
    assert_eq!(world.raw(&ann, "GetTask", task).await["error"]["code"], -32001);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_nobody_waits_for_still_ends_before_the_node_does() {
    let world = world(EVERYBODY).await;
    let mut params = send("rest", json!({"millis": 300}));
    params["configuration"] = json!({"returnImmediately": true});
    let sent = world.dev("SendMessage", params).await;
    assert_eq!(sent["result"]["task"]["status"]["state"], TaskState::Working.as_str());
    assert_eq!(world.end_with_summary().await.0.lost_tasks, 0);
}
