//! Policies that change while requests run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use convoke_policy::{Policy, PolicyOptions, PolicySource};
use serde_json::{Value, json};

use super::held;
use super::wire::Wire;
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
