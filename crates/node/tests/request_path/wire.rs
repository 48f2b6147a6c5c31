//! HTTP/1.1 as bytes, so that a test can say what no client would, and sees what a client hides.

#![expect(clippy::disallowed_methods, reason = "what is tested is the other end of our dialer")]

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(20);

/// One connection that is kept.
pub(crate) struct Wire(TcpStream);

/// One response.
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Wire {
    pub(crate) async fn connect(address: &str) -> std::io::Result<Self> {
        let host = address.strip_prefix("http://").unwrap();
        TcpStream::connect(host).await.map(Self)
    }

    /// Sends an operation with further header lines, each with its end.
    pub(crate) async fn rpc(&mut self, method: &str, params: &Value, lines: &str) -> Answer {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let body = body.to_string();
        let length = body.len();
        let head = format!(
            "POST / HTTP/1.1\r\nhost: localhost\r\na2a-version: 1.0\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n{lines}\r\n"
        );
        self.exchange(&(head + &body)).await.unwrap()
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        self.exchange(&request).await.unwrap()
    }

    /// The response to `request`; an error if the connection ends without one.
    pub(crate) async fn exchange(&mut self, request: &str) -> std::io::Result<Answer> {
        tokio::time::timeout(PATIENCE, self.exchanged(request)).await.unwrap()
    }

    async fn exchanged(&mut self, request: &str) -> std::io::Result<Answer> {
        self.0.write_all(request.as_bytes()).await?;
        let mut read = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&read);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                    return Ok(Answer { status, head: head.to_owned(), body: body.to_owned() });
                }
            }
            if self.0.read_buf(&mut read).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(&*prefix))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The code of A2A's error information, by which programs tell faults apart.
    pub(crate) fn reason(&self) -> Option<String> {
        let json = self.json();
        let data = json["error"]["data"].as_array()?.clone();
        data.iter().find_map(|entry| Some(entry["reason"].as_str()?.to_owned()))
    }

    /// Whether nothing follows on this connection.
    pub(crate) fn is_last(&self) -> bool {
        self.header("connection") == Some("close")
    }
}
