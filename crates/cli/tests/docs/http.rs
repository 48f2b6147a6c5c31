//! A request and its answer over plain HTTP/1.1, by hand: what a reader would do with curl.

#![expect(clippy::disallowed_methods, reason = "this plays a client that is not ours")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    /// Code and reason of the JSON-RPC error, if it is one.
    pub(crate) fn error(&self) -> Option<(i64, String)> {
        let body: Value = serde_json::from_str(&self.body).ok()?;
        let error = body.get("error")?;
        let reason = error["data"][0]["reason"].as_str()?.to_owned();
        Some((error["code"].as_i64()?, reason))
    }
}

pub(crate) fn get(port: u16, path: &str) -> Answer {
    send(port, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
}

/// Posts `body` with these header lines beside those that HTTP needs.
pub(crate) fn post(port: u16, path: &str, headers: &[&str], body: &str) -> Answer {
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    send(
        port,
        &format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    )
}

fn send(port: u16, request: &str) -> Answer {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, body: body.to_owned() }
}
