//! What answers that nobody reads hold. A program of its own, because it looks at the memory of the
//! whole process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]
#![allow(clippy::disallowed_methods, reason = "these callers do what our own client never would")]

mod world;

use std::time::Duration;

use convoke_agent::{Context, Host};
use convoke_macros::agent;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use world::{World, send};

const PATIENCE: Duration = Duration::from_secs(60);

const MIB: usize = 1024 * 1024;

/// How large each answer is.
const ANSWER_BYTES: usize = 4 * MIB;

/// How many ask at once: all of their answers are far more than may be held.
const ASK: usize = 128;

struct Archive;

#[agent(crate = "convoke_agent")]
impl Archive {
    /// Give much
    #[capability]
    async fn much(&self, _context: &Context) -> Vec<String> {
        vec!["x".repeat(MIB); ANSWER_BYTES / MIB]
    }

    /// Say much
    #[capability(ephemeral)]
    async fn say(&self, _context: &Context) -> Vec<String> {
        vec!["x".repeat(MIB); ANSWER_BYTES / MIB]
    }

    /// Wait for the caller, with much to show
    #[capability]
    async fn wait(&self, context: &Context) -> String {
        let mut much = context.artifact("much");
        for _ in 0..8 * ANSWER_BYTES / MIB {
            much.text("x".repeat(MIB / 8)).await.unwrap();
        }
        much.finish().await.unwrap();
        context.ask("well?").text().await.unwrap_or_default()
    }
}

/// The most memory that the process ever had, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// Asks, and reads no more of the answer than its status.
async fn ask(world: &World, method: &str, params: Value) -> (TcpStream, u16) {
    let address = world.dev_address().strip_prefix("http://").unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    let mut socket = socket.connect(address.parse().unwrap()).await.unwrap();
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         A2A-Version: 1.0\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; "HTTP/1.1 200".len()];
    timeout(PATIENCE, socket.read_exact(&mut head)).await.expect("an answer in time").unwrap();
    (socket, std::str::from_utf8(&head[9..]).unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_room_holds_nothing_meanwhile() {
    let policy = "package agentweave.authz\ndefault allow := true\n";
    let world = World::start(Host::new(Archive).unwrap(), policy).await;
    let done = async |capability| {
        let sent = world.dev("SendMessage", send(capability, json!({}))).await;
        sent["result"]["task"]["id"].as_str().unwrap().to_owned()
    };
    let (ended, waiting) = (done("much").await, done("wait").await);
    let before = peak();
    for (method, params) in [
        ("GetTask", json!({"id": ended})),
        ("SubscribeToTask", json!({"id": waiting})),
        ("SendMessage", send("say", json!({}))),
    ] {
        let all = (0..ASK).map(|_| ask(&world, method, params.clone()));
        let (held, statuses): (Vec<_>, Vec<_>) =
            futures_util::future::join_all(all).await.into_iter().unzip();
        let shown = statuses.iter().filter(|status| **status == 200).count();
        // For want of room, or because making so many takes the processors too long.
        let refused = statuses.iter().filter(|status| [429, 503].contains(*status)).count();
        assert_eq!(shown + refused, ASK, "{method}: {statuses:?}");
        assert!((1..ASK / 2).contains(&shown), "{method}: {shown} are shown at once");
        // What one caller may have of answers, what may wait to be answered, and as much again for
        // what is being made; without room before bytes it would be all of what is asked for.
        let held_bytes = peak() - before;
        assert!(held_bytes < ASK * ANSWER_BYTES / 2, "{method}: {} MiB", held_bytes / MIB);
        drop(held);
    }
    world.abandon().await;
}
