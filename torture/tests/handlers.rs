//! Handlers that misbehave, as the caller of a killed, cut and overworked agent sees them: each task
//! has one right end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::time::Duration;

use convoke_torture::ask::{Asker, Send, Told};
use convoke_torture::checker::check;
use convoke_torture::evidence::gather;
use convoke_torture::history::History;
use convoke_torture::random::Random;
use convoke_torture::site::Site;
use serde_json::{Value, json};
use tokio::time::Instant;

const VICTIM: &str = env!("CARGO_BIN_EXE_convoke-torture-victim");

/// Has a task of `capability` followed, cancelled if it does not end by itself, and looked at by the
/// checker; how it ended.
async fn follow(capability: &'static str, params: Value, cancels: bool) -> (Told, Value) {
    let site = Site::new(Path::new(VICTIM), &mut Random::new(1)).await.unwrap();
    let victim = site.start().await.unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    let new = || Asker::new(site.anonymous().unwrap(), History::in_memory(), until);
    let (mut first, mut second) = (new(), new());
    let send = Send { message: "m".into(), capability, params };
    let task = first.send(&send, false).await.unwrap().unwrap();
    let id = task["id"].as_str().unwrap().to_owned();
    let ended = async {
        if cancels {
            // Not before it hangs.
            while first.get(&id).await.unwrap().unwrap()["status"]["state"] != "TASK_STATE_WORKING"
            {
                tokio::task::yield_now().await;
            }
            assert_eq!(first.cancel(&id).await.unwrap(), Some(true));
        }
    };
    let (told, ()) = tokio::join!(second.stream(&send), ended);
    let told = told.unwrap().unwrap();
    let last = second.get(&id).await.unwrap().unwrap();
    let histories = vec![first.into_history().into_entries(), second.into_history().into_entries()];
    let ways = [site.anonymous().unwrap()];
    let evidence = gather(&site, &site.store(), victim, &ways, histories).await.unwrap();
    assert_eq!(check(&evidence), []);
    assert_eq!(told.task.as_deref(), Some(&*id));
    (told, last)
}

async fn check_end(capability: &'static str, params: Value, cancels: bool, state: &str) -> Value {
    let (told, last) = follow(capability, params, cancels).await;
    assert_eq!(last["status"]["state"], state, "{last}");
    assert_eq!(told.state.as_deref(), Some(state));
    let is_end = |(_, event): &&(String, Value)| {
        let state = event["statusUpdate"]["status"]["state"].as_str().unwrap_or_default();
        ["COMPLETED", "FAILED", "CANCELED", "REJECTED"].iter().any(|end| state.ends_with(end))
    };
    assert!(told.events.iter().filter(is_end).count() <= 1, "{:?}", told.events);
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_panics_fails_once() {
    let task = check_end("panics", json!({}), false, "TASK_STATE_FAILED").await;
    assert!(!task["status"].to_string().contains("it is meant to"), "{task}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_with_an_error_fails_once_and_says_why() {
    let task = check_end("errors", json!({}), false, "TASK_STATE_FAILED").await;
    assert!(task["status"].to_string().contains("it is meant to"), "{task}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_hangs_is_cancelled_once() {
    check_end("hangs", json!({}), true, "TASK_STATE_CANCELED").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_does_not_listen_is_cancelled_all_the_same() {
    check_end("deaf", json!({}), true, "TASK_STATE_CANCELED").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_says_a_hundred_thousand_things_is_heard_out() {
    let pieces = 100_000;
    let task = check_end("chatter", json!({"pieces": pieces}), false, "TASK_STATE_COMPLETED").await;
    let said = task["artifacts"][0]["parts"][0]["text"].as_str().unwrap();
    assert_eq!(said.len(), pieces);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_handler_says_after_its_end_changes_nothing() {
    let task = check_end("late", json!({}), false, "TASK_STATE_COMPLETED").await;
    let artifacts = task["artifacts"].as_array().unwrap();
    assert_eq!(artifacts[artifacts.len() - 1]["parts"][0]["data"], "ended", "{task}");
}
