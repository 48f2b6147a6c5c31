//! Readers that do not read, beside readers that do.

use serde_json::{Value, json};

use super::wire::{Wire, narrow};
use super::{Stage, send};

const GAUGE: &str = "agentweave_stream_backlog_bytes";

/// How many bytes the agent's streams hold.
async fn backlog(stage: &Stage) -> u64 {
    let metrics = stage.world.metrics().await;
    let line = metrics.lines().find(|line| line.starts_with(GAUGE)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn with_metrics(yaml: &mut Value) {
    yaml["observability"]["metrics"] = json!({"enabled": true, "port": 0});
}

/// One reads nothing, and the 99 others see everything. It is cut, goes on from where it was told,
/// and has seen in the end what one has seen that was never cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_a_hundred_reads_nothing_and_nobody_misses_anything() {
    let stage = Stage::set_with(with_metrics).await;
    let params = json!({"first": 0, "then": 70, "bytes": 100_000});
    let id = stage.begin("pour", params).await;
    let follow = json!({"id": id});
    let mut slow = Wire::open_narrow(&stage.world, "SubscribeToTask", follow).await;
    slow.task().await;
    let mut uncut = stage.subscribe(&id).await;
    uncut.task().await;
    let mut others = Vec::new();
    for _ in 0..98 {
        let mut wire = stage.subscribe(&id).await;
        wire.task().await;
        others.push(tokio::spawn(wire.digest()));
    }
    stage.step.add_permits(1);
    let uncut = uncut.numbered().await;
    assert_eq!(uncut.last(), Some(&(uncut.last().unwrap().0, "completed".to_owned())));
    let numbers = uncut.iter().map(|(seq, _)| *seq);
    assert!(numbers.eq(uncut[0].0..uncut[0].0 + 70 + 3), "the numbers have no gap");
    let first = others.remove(0).await.unwrap();
    for other in others {
        assert_eq!(other.await.unwrap(), first, "all of them see the same");
    }
    let mut seen = slow.numbered().await;
    assert_eq!(seen.pop().unwrap().1, "fault RESOURCE_EXHAUSTED");
    assert!(seen.len() < uncut.len());
    let (address, after) = (stage.world.dev_address(), slow.goes_on_from.unwrap());
    let address = address.strip_prefix("http://").unwrap();
    let mut again = Wire::resume(narrow(address).await, address, &id, &after).await;
    seen.extend(again.numbered().await);
    assert_eq!(seen, uncut);
    while backlog(&stage).await > 0 {
        tokio::task::yield_now().await;
    }
    stage.world.end().await;
}

/// What is on its way to those who do not read fills their caller's part: the next of that caller
/// who is behind is cut, and sees the same in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_furthest_behind_is_cut_when_a_callers_streams_hold_too_much() {
    let stage = Stage::set_with(with_metrics).await;
    let vast = || send("vast", json!({"megabytes": 12}));
    let mut unread = Vec::new();
    for _ in 0..2 {
        let mut wire = Wire::open_narrow(&stage.world, "SendStreamingMessage", vast()).await;
        wire.task().await;
        wire.has_more().await;
        unread.push(wire);
    }
    assert!(backlog(&stage).await > 2 * 12_000_000);
    let mut third = stage.stream("vast", json!({"megabytes": 12})).await;
    let id = third.task().await.id;
    assert_eq!(third.rest().await, ["fault RESOURCE_EXHAUSTED"]);
    for mut wire in unread {
        let rest = wire.rest().await;
        assert!(rest[0].starts_with("result is [") && rest[1] == "completed", "{:.99}", rest[0]);
    }
    let (address, after) = (stage.world.dev_address(), third.goes_on_from.unwrap());
    let address = address.strip_prefix("http://").unwrap();
    let mut again = Wire::resume(narrow(address).await, address, id.as_str(), &after).await;
    let rest = again.rest().await;
    assert!(rest[0].starts_with("result is [") && rest[1] == "completed", "{:.99}", rest[0]);
    stage.world.end().await;
}
