//! The end of a node under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::sync::Notify;

use super::wire::Wire;
use super::{EVERYBODY, held};
use crate::world::{World, send};

/// Every request that is sent on a connection that was never said to be the last one is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_drops_nothing() {
    for _ in 0..5 {
        let (host, _gate) = held();
        let world = World::start(host, EVERYBODY).await;
        let answered = Arc::new(AtomicUsize::new(0));
        let warm = Arc::new(Notify::new());
        let callers: Vec<_> = (0..8)
            .map(|number: u64| {
                let address = world.dev_address().to_owned();
                let (answered, warm) = (Arc::clone(&answered), Arc::clone(&warm));
                tokio::spawn(async move {
                    let mut wire = Wire::connect(&address).await.unwrap();
                    loop {
                        let params = if number.is_multiple_of(2) {
                            send("work", json!({}))
                        } else {
                            send("echo", json!({"text": "x"}))
                        };
                        let answer = wire.rpc("SendMessage", &params, "").await;
                        assert_eq!(answer.status, 200, "{}", answer.body);
                        if answered.fetch_add(1, Ordering::SeqCst) == 200 {
                            warm.notify_one();
                        }
                        if answer.is_last() {
                            return;
                        }
                    }
                })
            })
            .collect();
        warm.notified().await;
        let (summary, _audit) = world.end_with_summary().await;
        assert_eq!(summary.cut, 0);
        for caller in callers {
            caller.await.unwrap();
        }
    }
}
