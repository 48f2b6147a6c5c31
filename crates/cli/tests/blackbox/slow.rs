//! Clients that take their time: each is cut off by a limit of its own, and nobody waits for them.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::wire::{Request, connect, read_to_close, send_message};
use crate::world::{Setup, World};

/// How often a slow client sends its next byte.
const DRIBBLE_EVERY: Duration = Duration::from_millis(200);

/// More bytes than any limit lets a client send at that pace.
const DRIBBLE_BYTES: usize = 100;

/// Sends `first`, then a byte now and then until the other side has had enough, and gives what it
/// said to that.
fn dribble(mut stream: TcpStream, first: &[u8]) -> String {
    stream.write_all(first).unwrap();
    let mut sink = stream.try_clone().unwrap();
    let dribbling = thread::spawn(move || {
        for _ in 0..DRIBBLE_BYTES {
            if sink.write_all(b"x").is_err() {
                return;
            }
            thread::sleep(DRIBBLE_EVERY);
        }
        panic!("every byte was taken");
    });
    let said = read_to_close(&mut stream);
    dribbling.join().unwrap();
    said
}

#[test]
fn slow_senders_are_cut_off() {
    let world = World::new();
    let _issuer = world.issuer("example.org");
    let agent = world.orchestrator(&Setup { dev: true, ..Setup::default() });
    let (dev, mesh) = (agent.dev.unwrap(), agent.mesh());

    thread::scope(|scope| {
        let headers = scope.spawn(move || {
            dribble(connect(dev), b"POST / HTTP/1.1\r\nhost: localhost\r\nx-slow: ")
        });
        let body = Request::post("").header("content-length", "1000000").head();
        let body = scope.spawn(move || dribble(connect(dev), &body));
        let chunk = Request::post("").without("content-length");
        let chunk = chunk.header("transfer-encoding", "chunked").head();
        let chunk =
            scope.spawn(move || dribble(connect(dev), &[&chunk[..], b"fffff\r\n"].concat()));
        let handshake =
            scope.spawn(move || dribble(connect(mesh), &[0x16, 0x03, 0x01, 0x02, 0x00]));
        let silent = scope.spawn(move || read_to_close(&mut connect(dev)));
        let silent_tls = scope.spawn(move || read_to_close(&mut connect(mesh)));

        // The others are served meanwhile.
        let call = send_message("process_document", &json!({"text": "x", "operations": []}));
        let request = Request::post(call.to_string());
        let task = request.send(dev).result();
        assert_eq!(task["task"]["status"]["state"], "TASK_STATE_COMPLETED");

        let headers = headers.join().unwrap();
        assert!(headers.is_empty() || headers.starts_with("HTTP/1.1 408 "), "{headers}");
        for said in [body.join().unwrap(), chunk.join().unwrap()] {
            assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
            assert!(said.contains("DEADLINE_EXCEEDED"), "{said}");
        }
        handshake.join().unwrap();
        assert_eq!(silent.join().unwrap(), "");
        assert_eq!(silent_tls.join().unwrap(), "");
        request.send(dev).result();
    });
    agent.assert_sound();
}
