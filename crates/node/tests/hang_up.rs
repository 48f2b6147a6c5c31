//! Callers who hang up while what they asked for is being committed. A program of its own, because
//! it holds up the thread that writes the audit trail, by the log of the whole process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]
#![allow(clippy::disallowed_methods, reason = "these callers do what our own client never would")]

mod world;

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use convoke_agent::{Context, Host};
use convoke_macros::agent;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing_subscriber::layer::{Context as Place, Layer, SubscriberExt as _};
use tracing_subscriber::registry;
use world::{World, send};

const PATIENCE: Duration = Duration::from_secs(20);

/// Holds up who says that the audit file was moved: the one who writes it.
#[derive(Clone, Default)]
struct Turnstile(Arc<Held>);

#[derive(Default)]
struct Held {
    arrived: Notify,
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Turnstile {
    /// Until a commit is under way.
    async fn arrived(&self) {
        timeout(PATIENCE, self.0.arrived.notified()).await.expect("a commit");
    }

    fn open(&self) {
        *self.0.is_open.lock().unwrap() = true;
        self.0.opened.notify_all();
    }
}

impl<S: tracing::Subscriber> Layer<S> for Turnstile {
    fn on_event(&self, _event: &tracing::Event<'_>, _place: Place<'_, S>) {
        if std::thread::current().name() != Some("convoke-audit") {
            return;
        }
        self.0.arrived.notify_one();
        let opened =
            self.0
                .opened
                .wait_timeout_while(self.0.is_open.lock().unwrap(), PATIENCE, |is_open| !*is_open);
        *opened.unwrap().0 = false;
    }
}

/// Does what it is told.
struct Worker;

#[agent(crate = "convoke_agent")]
impl Worker {
    /// Be done at once
    #[capability]
    async fn work(&self, _context: &Context) -> bool {
        true
    }

    /// Wait until cancelled
    #[capability]
    async fn wait(&self, context: &Context) {
        context.cancelled().cancelled().await;
    }
}

/// Asks, and hangs up as soon as the commit is under way, which goes on when the node has seen that.
async fn hang_up(world: &World, turnstile: &Turnstile, method: &str, params: &Value) {
    world.move_audit_away();
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    let request = format!(
        "POST / HTTP/1.1\r\nhost: localhost\r\na2a-version: 1.0\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let address = world.dev_address().strip_prefix("http://").unwrap();
    let mut caller = TcpStream::connect(address).await.unwrap();
    caller.write_all(request.as_bytes()).await.unwrap();
    turnstile.arrived().await;
    drop(caller);
    until_nothing_is_in_flight(world).await;
    turnstile.open();
}

async fn until_nothing_is_in_flight(world: &World) {
    let settled = async {
        while !world
            .metrics()
            .await
            .contains("agentweave_requests_in_flight{agent_name=\"agent\"} 0")
        {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, settled).await.expect("the request is given up");
}

/// The task that the last `operation` of the trail is about, once that is there.
async fn task_of(world: &World, operation: &str) -> Value {
    let found = async {
        loop {
            let trail = world.trail();
            let mut records = trail.iter().filter(|record| record["operation"] == operation);
            if let Some(record) = records.next_back() {
                return record["task_id"].clone();
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, found).await.expect("it is on record")
}

async fn until_it_stands_at(world: &World, id: &Value, state: &str) {
    let stands = async {
        while world.dev("GetTask", json!({"id": id})).await["result"]["status"]["state"] != state {}
    };
    timeout(PATIENCE, stands).await.expect(state);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hangs_up_during_a_commit_leaves_a_whole_task() {
    let turnstile = Turnstile::default();
    tracing::subscriber::set_global_default(registry().with(turnstile.clone())).unwrap();
    let change = |yaml: &mut Value| {
        yaml["observability"]["audit"]["sync"] = json!(true);
        yaml["observability"]["metrics"] = json!({"enabled": true, "port": 0});
    };
    let everybody = "package agentweave.authz\ndefault allow := true\n";
    let world = World::start_with(Host::new(Worker).unwrap(), everybody, change).await;
    while world.trail().is_empty() {
        tokio::task::yield_now().await;
    }
    for method in ["SendMessage", "SendStreamingMessage"] {
        hang_up(&world, &turnstile, method, &send("work", json!({}))).await;
        let id = task_of(&world, method).await;
        until_it_stands_at(&world, &id, "TASK_STATE_COMPLETED").await;
    }
    let mut params = send("wait", json!({}));
    params["configuration"] = json!({"returnImmediately": true});
    let sent = world.dev("SendMessage", params).await;
    let id = json!({"id": sent["result"]["task"]["id"]});
    hang_up(&world, &turnstile, "CancelTask", &id).await;
    until_it_stands_at(&world, &id["id"], "TASK_STATE_CANCELED").await;
    assert!(world.metrics().await.contains("agentweave_active_streams{agent_name=\"agent\"} 0"));
    let (summary, _records) = world.end_with_summary().await;
    assert_eq!((summary.cut, summary.lost_tasks), (0, 0));
}
