//! Streams that go on where another one stopped, while the task goes on, too.

use serde_json::json;
use tokio::net::TcpStream;

use super::Stage;
use super::wire::{Wire, narrow};

/// How many pieces there are before the reader comes back, and while it reads them.
const BEFORE: u32 = 10_000;
const MEANWHILE: u32 = 2_000;

/// Far more than a subscriber may be behind happens while it still reads what was before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_way_back_is_seen_once_and_in_order_while_the_task_goes_on() {
    let stage = Stage::set().await;
    let params = json!({"first": BEFORE, "then": MEANWHILE, "bytes": 400});
    let mut uncut = stage.stream("pour", params).await;
    let id = uncut.task().await.id;
    let after = uncut.cursor.clone();
    let mut expected = Vec::new();
    for _ in 0..BEFORE {
        let shown = uncut.shown().await;
        expected.push((uncut.seq, shown));
    }
    let address = stage.world.dev_address().strip_prefix("http://").unwrap();
    // More than can be on its way: most of it is not read from the journal before it is read here.
    let mut again = Wire::resume(narrow(address).await, address, id.as_str(), &after).await;
    let mut seen = Vec::new();
    let first = again.shown().await;
    seen.push((again.seq, first));
    stage.step.add_permits(1);
    let (rest, more) = tokio::join!(uncut.numbered(), again.numbered());
    expected.extend(rest);
    seen.extend(more);
    assert_eq!(expected.len(), usize::try_from(BEFORE + MEANWHILE + 3).unwrap());
    assert!(seen == expected, "{} events, the last {:?}", seen.len(), seen.last());

    // And once more, now that the task has ended.
    let socket = TcpStream::connect(address).await.unwrap();
    let mut late = Wire::resume(socket, address, id.as_str(), &after).await;
    assert!(late.numbered().await == expected);
    stage.world.end().await;
}
