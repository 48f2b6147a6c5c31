//! Rights that are taken away while a stream is open, or before it is.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::wire::{Wire, narrow};
use super::{Stage, send};
use crate::world::World;

const DENIED: &str = "fault PERMISSION_DENIED";

/// Allows everything but `denied`, which is Rego; and not to call `echo`, by which a test sees that
/// the policy decides.
fn all_but(denied: &str) -> String {
    format!(
        "package agentweave.authz\ndefault allow := false\n\
         denied if input.request.method == \"echo\"\n{denied}\nallow if not denied\n"
    )
}

async fn set() -> Stage {
    Stage::set_with(|yaml| yaml["authorization"]["reload_interval"] = json!("100ms")).await
}

/// Puts `policy` in force, which does not allow `echo`.
async fn decide_by(world: &World, policy: &str) {
    world.set_policy(policy);
    let echo = || world.dev("SendMessage", send("echo", json!({"text": "x"})));
    tokio::time::timeout(Duration::from_secs(20), async {
        while !echo().await["error"].is_object() {}
    })
    .await
    .unwrap();
}

/// All streams are decided again with each policy: those who may go on do, without a record, and
/// each of the others ends. However many of one caller's end, they do not fill the trail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_decided_again_and_refused_as_often() {
    const MANY: usize = 20;
    let stage = set().await;
    let mut sender = stage.stream("steps", json!({"count": 2})).await;
    let id = sender.task().await.id;
    let mut watchers = Vec::new();
    for _ in 0..MANY {
        let mut watcher = stage.subscribe(id.as_str()).await;
        watcher.task().await;
        watchers.push(watcher);
    }
    let (mut quiet, mut others) = (Vec::new(), Vec::new());
    for _ in 1..MANY {
        let mut stream = stage.stream("tidy", json!({})).await;
        others.push(stream.task().await.id);
        quiet.push(stream);
    }
    decide_by(&stage.world, &all_but("")).await;
    stage.step.add_permits(1);
    for wire in watchers.iter_mut().chain([&mut sender]) {
        assert_eq!(wire.shown().await, "working step 1");
    }
    let operations = r#"{"SendStreamingMessage", "SubscribeToTask"}"#;
    let denied = format!("denied if input.request.operation in {operations}");
    let denied = all_but(&denied).replace("authz\n", "authz\n# again\n");
    stage.world.set_policy(&denied);
    for wire in watchers.iter_mut().chain([&mut sender]).chain(&mut quiet) {
        assert_eq!(wire.rest().await, [DENIED]);
    }
    stage.step.add_permits(1);
    for id in others {
        stage.world.dev("CancelTask", json!({"id": id})).await;
    }
    // By operation and decision: how many records, and how many times it was said.
    let mut said = BTreeMap::new();
    for record in stage.world.end().await {
        let text = |field: &str| record[field].as_str().unwrap().to_owned();
        let (records, times) = said.entry((text("operation"), text("decision"))).or_insert((0, 0));
        *records += 1;
        *times += 1 + usize::try_from(record["repeated"].as_u64().unwrap_or(0)).unwrap();
    }
    let of = |operation: &str, decision: &str| said[&(operation.to_owned(), decision.to_owned())];
    assert_eq!(of("SendStreamingMessage", "allow"), (MANY, MANY), "once for each stream");
    assert_eq!(of("SubscribeToTask", "allow"), (MANY, MANY));
    let (records, times) = of("SendStreamingMessage", "deny");
    assert!(times == MANY && records < MANY / 2, "{records} records of {times}");
    assert_eq!(of("SubscribeToTask", "deny"), (MANY, MANY), "those about a task stand alone");
}

/// A policy that comes between the decision and the first event is asked before the second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_comes_before_the_stream_begins_is_asked() {
    let stage = set().await;
    // Answers that nobody reads take all the room there is for the caller's large ones, so the
    // stream, whose first event is large, is decided and does not begin.
    let text = json!({"pieces": 105, "bytes": 100_000});
    let large = stage.world.dev("SendMessage", send("flood", text)).await;
    let large = json!({"id": large["result"]["task"]["id"]});
    let mut unread = Vec::new();
    for _ in 0..3 {
        unread.push(Wire::open_narrow(&stage.world, "GetTask", large.clone()).await);
    }
    let much = "x".repeat(1_000_000);
    let params = send("steps", json!({"count": 1, "a": much, "b": much, "c": much}));
    let opening = Wire::open(&stage.world, "SendStreamingMessage", params);
    let changing = async {
        let is_allowed = |record: &Value| record["operation"] == "SendStreamingMessage";
        while !stage.world.trail().iter().any(is_allowed) {
            tokio::task::yield_now().await;
        }
        let denied = "denied if input.request.operation == \"SendStreamingMessage\"";
        decide_by(&stage.world, &all_but(denied)).await;
        drop(unread);
    };
    let (mut wire, ()) = tokio::join!(opening, changing);
    assert_eq!(wire.rest().await, [DENIED]);
    stage.step.add_permits(1);
    stage.world.end().await;
}

/// A right that is gone ends a stream also while it shows what was before, of which no more is shown
/// than was on its way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_comes_while_a_reader_catches_up_is_asked() {
    let stage = set().await;
    let mut first = stage.stream("flood", json!({"pieces": 150, "bytes": 100_000})).await;
    let id = first.task().await.id;
    let after = first.cursor.clone();
    let all = first.rest().await;
    let address = stage.world.dev_address().strip_prefix("http://").unwrap();
    let mut again = Wire::resume(narrow(address).await, address, id.as_str(), &after).await;
    assert_eq!(again.shown().await, all[0]);
    let denied = "denied if input.request.operation == \"SubscribeToTask\"";
    decide_by(&stage.world, &all_but(denied)).await;
    let mut rest = again.rest().await;
    assert_eq!(rest.pop().as_deref(), Some(DENIED));
    assert!(rest.len() + 1 < all.len(), "{} of {}", rest.len(), all.len());
    assert!(rest == all[1..=rest.len()], "what it saw is what was there");
    assert_eq!(again.goes_on_from, Some(again.cursor));
    stage.world.end().await;
}
