//! More requests than places.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::wire::Wire;
use super::{EVERYBODY, held};
use crate::world::{World, send};

/// `places` for everybody, of which one caller has a quarter.
fn places(count: usize) -> impl FnOnce(&mut Value) {
    move |yaml| {
        yaml["server"]["limits"] = json!({"requests_max": count, "queue_time_max": "20ms"});
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_its_part_is_turned_away_and_nobody_else() {
    let (host, gate) = held();
    let world = World::start_with(host, EVERYBODY, places(8)).await;
    let address = world.dev_address().to_owned();
    let holding: Vec<_> = (0..2)
        .map(|_| {
            let address = address.clone();
            tokio::spawn(async move {
                let mut wire = Wire::connect(&address).await.unwrap();
                wire.rpc("SendMessage", &send("hold", json!({})), "").await.status
            })
        })
        .collect();
    gate.at_work(2).await;

    let mut wire = Wire::connect(&address).await.unwrap();
    let echo = send("echo", json!({"text": "x"}));
    let refused = wire.rpc("SendMessage", &echo, "").await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    assert_eq!(refused.reason().as_deref(), Some("RESOURCE_EXHAUSTED"));
    assert!(!refused.is_last(), "a new connection would cost more than the request");

    // What makes room, and what watches, does not wait.
    let missing = json!({"id": "11111111-1111-4111-8111-111111111111"});
    assert_eq!(wire.rpc("CancelTask", &missing, "").await.json()["error"]["code"], -32001);
    assert_eq!(wire.rpc("GetTask", &missing, "").await.status, 429);
    assert_eq!(wire.get("/health/ready").await.status, 200);
    assert_eq!(wire.get("/.well-known/agent-card.json").await.status, 200);
    // Another caller does not notice.
    let ann = world.client("/user/ann").await;
    assert_eq!(world.call(&ann, "echo", json!({"text": "x"})).await.unwrap().get(), r#""x""#);

    gate.open.add_permits(2);
    for held in holding {
        assert_eq!(held.await.unwrap(), 200);
    }
    assert_eq!(wire.rpc("SendMessage", &echo, "").await.status, 200);
    world.end().await;
}

/// Tasks go on without a request, so the places of requests do not bound them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_has_only_so_many_tasks_at_work() {
    const AT_WORK: usize = 50;
    const IN_LINE: usize = 25;
    const PART: usize = AT_WORK + IN_LINE;
    let (host, gate) = held();
    let few = |yaml: &mut Value| {
        yaml["tasks"] = json!({"concurrency_max": 4 * AT_WORK, "queue_max": 4 * IN_LINE});
    };
    let world = World::start_with(host, EVERYBODY, few).await;
    let mut wire = Wire::connect(world.dev_address()).await.unwrap();
    let mut task = send("hold_task", json!({}));
    task["configuration"] = json!({"returnImmediately": true});
    for _ in 0..PART {
        assert_eq!(wire.rpc("SendMessage", &task, "").await.status, 200);
    }
    let refused = wire.rpc("SendMessage", &task, "").await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.reason().as_deref(), Some("RESOURCE_EXHAUSTED"));
    assert!(refused.body.contains("25 of your tasks wait here already"), "{}", refused.body);

    // Another caller does not notice, and neither does what makes no task.
    let ann = world.client("/user/ann").await;
    let begun = world.raw(&ann, "SendMessage", task.clone()).await;
    assert!(begun["result"]["task"]["id"].is_string(), "{begun}");
    assert_eq!(wire.rpc("SendMessage", &send("echo", json!({"text": "x"})), "").await.status, 200);

    // What ends makes room; a moment after the caller can see it.
    gate.open.add_permits(PART + 1);
    gate.at_work(0).await;
    gate.open.add_permits(1);
    let mut sent = PART + 3;
    loop {
        sent += 1;
        match wire.rpc("SendMessage", &task, "").await.status {
            200 => break,
            status => assert_eq!(status, 429),
        }
    }
    assert_eq!(world.end().await.len(), sent, "all was allowed, and that is on record");
}

/// R-23 in small: five times as many callers as places, each as fast as it can. Places are never
/// exceeded and never left empty, and every request is answered one way or the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goodput_stays_under_overload() {
    const PLACES: usize = 4;
    const GOAL: usize = 200;
    let (host, gate) = held();
    let world = World::start_with(host, EVERYBODY, places(4 * PLACES)).await;
    let callers: Vec<_> = (0..5 * PLACES)
        .map(|_| {
            let (address, gate) = (world.dev_address().to_owned(), Arc::clone(&gate));
            tokio::spawn(async move {
                let mut wire = Wire::connect(&address).await.unwrap();
                let (mut served, mut refused) = (0, 0);
                while gate.begun.load(Ordering::SeqCst) < GOAL {
                    let answer = wire.rpc("SendMessage", &send("work", json!({})), "").await;
                    match answer.status {
                        200 => served += 1,
                        429 | 503 => {
                            assert_eq!(answer.header("retry-after"), Some("1"));
                            refused += 1;
                        }
                        other => panic!("{other} {}", answer.body),
                    }
                }
                (served, refused)
            })
        })
        .collect();
    let mut wire = Wire::connect(world.dev_address()).await.unwrap();
    while gate.begun.load(Ordering::SeqCst) < GOAL {
        assert_eq!(wire.get("/health/live").await.status, 200);
    }
    let (mut served, mut refused) = (0, 0);
    for caller in callers {
        let (own_served, own_refused) = caller.await.unwrap();
        served += own_served;
        refused += own_refused;
    }
    assert_eq!(gate.most.load(Ordering::SeqCst), PLACES, "all places, and no more");
    assert_eq!(served, gate.begun.load(Ordering::SeqCst), "who is let in is served");
    assert!(served >= GOAL && refused > 0, "{served} {refused}");
    world.end().await;
}

/// Places do not bound what computes. There the runtime's own queue tells, and requests are turned
/// away although there are places.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_processor_cannot_do_is_shed() {
    let (host, _gate) = held();
    let world = World::start_with(host, EVERYBODY, places(4096)).await;
    let shed = Arc::new(AtomicBool::new(false));
    // As much as the queue's 20 ms many times over.
    let callers: Vec<_> = (0..60)
        .map(|_| {
            let (address, shed) = (world.dev_address().to_owned(), Arc::clone(&shed));
            tokio::spawn(async move {
                let mut wire = Wire::connect(&address).await.unwrap();
                let mut served = 0;
                while !shed.load(Ordering::SeqCst) {
                    let answer = wire.rpc("SendMessage", &send("compute", json!({})), "").await;
                    match answer.status {
                        200 => served += 1,
                        503 => {
                            assert_eq!(answer.reason().as_deref(), Some("UNAVAILABLE"));
                            assert_eq!(answer.header("retry-after"), Some("1"));
                            shed.store(true, Ordering::SeqCst);
                        }
                        other => panic!("{other} {}", answer.body),
                    }
                }
                served
            })
        })
        .collect();
    let mut served = 0;
    for caller in callers {
        served += caller.await.unwrap();
    }
    assert!(served > 0);
    world.end().await;
}
