//! HTTP by hand, so that a test can say what no client would.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use crate::process::PATIENCE;

/// A request in the making: by default what a good client sends to `/`.
#[derive(Clone)]
pub(crate) struct Request {
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn post(body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let length = body.len().to_string();
        Self { line: "POST / HTTP/1.1".into(), headers: Vec::new(), body }
            .header("host", "localhost")
            .header("content-type", "application/json")
            .header("a2a-version", "1.0")
            .header("content-length", &length)
            .header("connection", "close")
    }

    pub(crate) fn get(path: &str) -> Self {
        Self { line: format!("GET {path} HTTP/1.1"), headers: Vec::new(), body: Vec::new() }
            .header("host", "localhost")
            .header("connection", "close")
    }

    /// Sets a header field.
    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        let mut request = self.without(name);
        request.headers.push((name.into(), value.into()));
        request
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    pub(crate) fn head(&self) -> Vec<u8> {
        let mut head = format!("{}\r\n", self.line);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Sends the request on a connection of its own and reads the answer.
    pub(crate) fn send(&self, to: SocketAddr) -> Reply {
        let mut stream = connect(to);
        stream.write_all(&self.bytes()).unwrap();
        read_reply(&mut stream)
    }
}

/// The `SendMessage` that calls `capability`.
pub(crate) fn send_message(capability: &str, params: &Value) -> Value {
    json!({
        "jsonrpc": "2.0", "id": 1, "method": "SendMessage",
        "params": {"message": {
            "messageId": "m-1", "role": "ROLE_USER", "parts": [{"data": params}],
            "metadata": {"urn:convoke:ext:capability:v1": {"name": capability}},
        }},
    })
}

/// A request about a task.
pub(crate) fn about_task(method: &str, id: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": {"id": id}})
}

pub(crate) fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Reads one answer: its head, and as much body as that announces.
pub(crate) fn read_reply(stream: &mut impl Read) -> Reply {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        let read = read_some(stream, &mut bytes);
        assert!(read > 0, "no answer but {:?}", String::from_utf8_lossy(&bytes));
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let mut reply = Reply { status: status.expect("a status"), head, body: String::new() };
    let length: usize = reply.header("content-length").map_or(0, |text| text.parse().unwrap());
    while bytes.len() < head_end + length {
        assert!(read_some(stream, &mut bytes) > 0, "the answer breaks off: {reply:?}");
    }
    assert_eq!(bytes.len(), head_end + length, "more than the answer: {reply:?}");
    reply.body = String::from_utf8(bytes[head_end..].to_vec()).unwrap();
    reply
}

fn read_some(stream: &mut impl Read, into: &mut Vec<u8>) -> usize {
    let mut piece = [0; 16 * 1024];
    let read = stream.read(&mut piece).expect("an answer in time");
    into.extend_from_slice(&piece[..read]);
    read
}

/// Reads until the peer closes the connection, by which it has to say nothing or a whole answer.
pub(crate) fn read_to_close(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => bytes.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("the connection is not closed: {error}"),
        }
    }
    String::from_utf8(bytes).unwrap()
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The status line and header fields without the date, in their order.
    pub(crate) fn head_but_date(&self) -> Vec<&str> {
        self.head.lines().filter(|line| !line.to_lowercase().starts_with("date:")).collect()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The result of an answer that is one.
    pub(crate) fn result(&self) -> Value {
        let json = self.json();
        assert_eq!((self.status, json.get("error")), (200, None), "{self:?}");
        json["result"].clone()
    }

    /// Number and reason of an answer that is an error.
    pub(crate) fn error(&self) -> (i64, String) {
        let json = self.json();
        let error = &json["error"];
        assert_eq!(json.get("result"), None, "{self:?}");
        assert_eq!(
            error["data"][0]["@type"], "type.googleapis.com/google.rpc.ErrorInfo",
            "{self:?}"
        );
        let reason = error["data"][0]["reason"].as_str().unwrap_or_default();
        (error["code"].as_i64().expect("a number"), reason.to_owned())
    }
}
