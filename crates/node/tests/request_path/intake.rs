//! Requests that are not taken as they are, and deadlines.

use std::sync::atomic::Ordering;

use serde_json::json;

use super::wire::Wire;
use super::{EVERYBODY, held};
use crate::world::{World, send};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_be_read_in_two_ways_is_not_read() {
    let (host, _gate) = held();
    let world = World::start(host, EVERYBODY).await;
    let check = |lines: &'static str, status: u16| {
        let address = world.dev_address().to_owned();
        async move {
            let mut wire = Wire::connect(&address).await.unwrap();
            let params = send("echo", json!({"text": "x"}));
            let answer = wire.rpc("SendMessage", &params, lines).await;
            assert_eq!(answer.status, status, "{lines} {}", answer.body);
        }
    };
    check("", 200).await;
    check("content-encoding: identity\r\n", 200).await;
    check("content-encoding: gzip\r\n", 415).await;
    check("host: localhost\r\n", 400).await;
    check("grpc-timeout: soon\r\n", 400).await;
    let mut wire = Wire::connect(world.dev_address()).await.unwrap();
    let differ = "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\
                  content-length: 3\r\n\r\n{} ";
    assert_eq!(wire.exchange(differ).await.unwrap().status, 400);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_works_for_who_has_left() {
    let (host, gate) = held();
    let world = World::start(host, EVERYBODY).await;
    let mut wire = Wire::connect(world.dev_address()).await.unwrap();
    let params = send("hold", json!({}));
    let late = wire.rpc("SendMessage", &params, "grpc-timeout: 0S\r\n").await;
    assert_eq!((late.status, late.reason().as_deref()), (504, Some("DEADLINE_EXCEEDED")));
    assert_eq!(gate.begun.load(Ordering::SeqCst), 0, "it was over before it began");

    let late = wire.rpc("SendMessage", &params, "grpc-timeout: 30m\r\n").await;
    assert_eq!((late.status, late.reason().as_deref()), (504, Some("DEADLINE_EXCEEDED")));
    gate.at_work(0).await;
    assert_eq!(gate.begun.load(Ordering::SeqCst), 1, "its handler was dropped");

    gate.open.add_permits(2);
    let in_time = wire.rpc("SendMessage", &params, "grpc-timeout: 1M\r\n").await;
    let left = in_time.json()["result"]["message"]["parts"][0]["data"].as_u64();
    assert!(left.is_some_and(|left| left <= 60_000), "{left:?}");
    let no_limit = wire.rpc("SendMessage", &params, "").await;
    assert!(no_limit.json()["result"]["message"]["parts"][0]["data"].is_null());
    world.end().await;
}

/// Only who waits has a deadline; the task goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_ends_the_wait_for_a_task_and_not_the_task() {
    let (host, gate) = held();
    let world = World::start(host, EVERYBODY).await;
    let mut wire = Wire::connect(world.dev_address()).await.unwrap();
    let params = send("hold_task", json!({}));
    let answer = wire.rpc("SendMessage", &params, "grpc-timeout: 30m\r\n").await;
    let task = &answer.json()["result"]["task"];
    assert_eq!(task["status"]["state"], "TASK_STATE_WORKING", "{}", answer.body);
    gate.at_work(1).await;
    gate.open.add_permits(1);
    gate.at_work(0).await;
    let done = loop {
        let got = wire.rpc("GetTask", &json!({"id": task["id"]}), "").await.json();
        if got["result"]["status"]["state"] == "TASK_STATE_COMPLETED" {
            break got;
        }
    };
    assert_eq!(done["result"]["artifacts"][0]["parts"][0]["data"], false, "no deadline of its own");
    world.end().await;
}
