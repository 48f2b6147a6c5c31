//! Policies that change while requests run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use convoke_policy::{Policy, PolicyOptions, PolicySource};
use serde_json::{Value, json};

use super::wire::Wire;
use super::{EVERYBODY, held};
use crate::world::{World, send};

/// Requests that are answered while a file of rubbish lies there.
const MEANWHILE: usize = 200;

fn only(method: &str) -> String {
    format!(
        "package agentweave.authz\ndefault allow := false\n\
         allow if input.request.method == \"{method}\"\n"
    )
}

/// Each decision is that of exactly one revision, of whole policies alone, whatever is written to
/// the file in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_policy_reload() {
    let quickly = |yaml: &mut Value| yaml["authorization"]["reload_interval"] = json!("100ms");
    let (host, _gate) = held();
    let world = World::start_with(host, &only("echo"), quickly).await;
    let answered = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = ["echo", "other"]
        .map(|method| {
            let address = world.dev_address().to_owned();
            let (answered, done) = (Arc::clone(&answered), Arc::clone(&done));
            tokio::spawn(async move {
                let mut wire = Wire::connect(&address).await.unwrap();
                let mut statuses = Vec::new();
                while !done.load(Ordering::SeqCst) {
                    let params = send(method, json!({"text": "x"}));
                    statuses.push(wire.rpc("SendMessage", &params, "").await.status);
                    answered.fetch_add(1, Ordering::SeqCst);
                }
                statuses
            })
        })
        .into();
    let mut wire = Wire::connect(world.dev_address()).await.unwrap();
    let rubbish = [
        "",
        "package agentweave.authz\ndefault allow :=",
        "package other\ndefault allow := true\n",
        "package agentweave.authz\nallow if {\n",
    ];
    for (round, wrong) in rubbish.into_iter().enumerate() {
        let now = if round % 2 == 0 { "other" } else { "echo" };
        world.set_policy(&only(now));
        // Until it decides.
        while wire.rpc("SendMessage", &send(now, json!({"text": "x"})), "").await.status != 200 {}
        world.set_policy(wrong);
        let before = answered.load(Ordering::SeqCst);
        while answered.load(Ordering::SeqCst) < before + MEANWHILE {
            tokio::task::yield_now().await;
        }
        let still = wire.rpc("SendMessage", &send(now, json!({"text": "x"})), "").await;
        assert_eq!(still.status, 200, "the last good one stays");
    }
    done.store(true, Ordering::SeqCst);
    let mut statuses = Vec::new();
    for caller in callers {
        statuses.extend(caller.await.unwrap());
    }
    assert!(statuses.iter().all(|status| matches!(status, 200 | 403)));
    let revisions = ["echo", "other"].map(revision_of);
    let records = world.end().await;
    let mut seen = [0, 0];
    for record in records.iter().filter(|record| record["decision"].is_string()) {
        let revision = record["policy_revision"].as_str().unwrap();
        let which = revisions.iter().position(|known| known == revision);
        let which = which.unwrap_or_else(|| panic!("no policy of ours: {record}"));
        let allowed = record["decision"] == "allow";
        assert_eq!(allowed, record["capability"] == ["echo", "other"][which], "{record}");
        seen[which] += 1;
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

/// The revision of the policy that allows `method` alone.
fn revision_of(method: &str) -> String {
    let source = PolicySource { name: "policy.rego".to_owned(), text: only(method) };
    Policy::load(&source, &PolicyOptions::default()).unwrap().revision().0.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_policy_server_an_agent_does_nothing_and_says_so() {
    let dead = |yaml: &mut Value| {
        // A port of this machine that nobody may listen on without being root.
        let opa = json!({"enabled": true, "url": "http://127.0.0.1:1", "timeout": "1s"});
        yaml["authorization"] = json!({"opa": opa});
    };
    let (host, gate) = held();
    let world = World::start_with(host, EVERYBODY, dead).await;
    let mut wire = Wire::connect(world.dev_address()).await.unwrap();
    for _ in 0..8 {
        let refused = wire.rpc("SendMessage", &send("work", json!({})), "").await;
        assert_eq!((refused.status, refused.reason().as_deref()), (503, Some("UNAVAILABLE")));
    }
    assert_eq!(gate.begun.load(Ordering::SeqCst), 0);
    let ready = wire.get("/health/ready").await;
    assert_eq!((ready.status, &ready.json()["checks"]["policy"]), (503, &json!("unreachable")));
    let records = world.end().await;
    let denied = records.iter().filter(|record| record["reason"] == "unreachable");
    let refusals = denied.map(|record| 1 + record["repeated"].as_u64().unwrap_or(0));
    assert_eq!(refusals.sum::<u64>(), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_decision_is_logged_with_what_it_was_decided_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("decisions.jsonl");
    let logged = |yaml: &mut Value| {
        yaml["authorization"]["decision_log"] = json!({"enabled": true, "path": path});
    };
    let (host, _gate) = held();
    let world = World::start_with(host, &only("echo"), logged).await;
    let ann = world.client("/user/ann").await;
    assert!(world.call(&ann, "echo", json!({"text": "x"})).await.is_ok());
    assert!(world.call(&ann, "other", json!({"text": "x"})).await.is_err());
    world.end().await;
    let lines = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = lines.iter().map(|line| (&line["method"], &line["allowed"])).collect();
    assert_eq!(told, [(&json!("echo"), &json!(true)), (&json!("other"), &json!(false))]);
    let input = &lines[0]["input"];
    assert_eq!(input["caller"]["spiffe_id"], "spiffe://example.org/user/ann");
    assert!(input["request"].get("params").is_none(), "parameters only where it is configured");
}

/// What the policy allows and the capability's own guard does not is a refusal in the log too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guards_refusal_is_logged_as_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("decisions.jsonl");
    let logged = |yaml: &mut Value| {
        yaml["authorization"]["decision_log"] = json!({"enabled": true, "path": path});
    };
    let (host, _gate) = held();
    let world = World::start_with(host, EVERYBODY, logged).await;
    let [ann, bob] = [world.client("/user/ann").await, world.client("/user/bob").await];
    assert!(world.call(&ann, "guarded", json!({"text": "x"})).await.is_err());
    assert!(world.call(&bob, "guarded", json!({"text": "x"})).await.is_ok());
    world.end().await;
    let lines = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = lines.iter().map(|line| (&line["allowed"], &line["reason"])).collect();
    assert_eq!(told, [(&json!(false), &json!("guard")), (&json!(true), &json!("allowed"))]);
    assert_eq!(lines[0]["rule"], "spiffe://example.org/user/bob");
}
