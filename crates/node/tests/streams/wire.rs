//! An answer that goes on, read event by event from the development listener.

use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use convoke_a2a::client::{AnswerError, EventReader, StreamItem, parse_event};
use convoke_a2a::jsonrpc::RequestIdJson;
use convoke_model::{Content, Cursor, Task, TaskEvent, TaskState};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::world::World;

const PATIENCE: Duration = Duration::from_secs(20);

/// One answer, open until it is dropped.
pub(crate) struct Wire {
    socket: BufReader<TcpStream>,
    pub(crate) status: u16,
    pub(crate) content_type: String,
    events: EventReader,
    /// The newest `id` that came.
    pub(crate) cursor: String,
    /// Its number.
    pub(crate) seq: u64,
    /// Where it said that it can be followed again, if it ended early.
    pub(crate) goes_on_from: Option<String>,
    ended: bool,
    /// What is left of an answer that is there as a whole.
    whole: Option<usize>,
}

impl Wire {
    /// Asks, and reads as far as the answer's head.
    pub(crate) async fn open(world: &World, method: &str, params: Value) -> Self {
        let address = world.dev_address().strip_prefix("http://").unwrap();
        let socket = TcpStream::connect(address).await.unwrap();
        Self::open_on(socket, address, method, params).await
    }

    /// Opens it in a way that lets what is not read pile up at the server.
    pub(crate) async fn open_narrow(world: &World, method: &str, params: Value) -> Self {
        let address = world.dev_address().strip_prefix("http://").unwrap();
        Self::open_on(narrow(address).await, address, method, params).await
    }

    pub(crate) async fn open_on(
        socket: TcpStream,
        address: &str,
        method: &str,
        params: Value,
    ) -> Self {
        Self::open_at(socket, (address, "/"), method, params).await
    }

    /// Follows task `id` from behind `after`.
    pub(crate) async fn resume(socket: TcpStream, address: &str, id: &str, after: &str) -> Self {
        let target = format!("/?lastEventId={after}");
        Self::open_at(socket, (address, &target), "SubscribeToTask", json!({"id": id})).await
    }

    async fn open_at(
        mut socket: TcpStream,
        (address, target): (&str, &str),
        method: &str,
        params: Value,
    ) -> Self {
        let body = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
        let body = body.to_string();
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
             A2A-Version: 1.0\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut wire = Self {
            socket: BufReader::new(socket),
            status: 0,
            content_type: String::new(),
            events: EventReader::new(16 * 1024 * 1024),
            cursor: String::new(),
            seq: 0,
            goes_on_from: None,
            ended: false,
            whole: None,
        };
        let head = wire.line().await;
        wire.status = head.split(' ').nth(1).unwrap().parse().unwrap();
        loop {
            let line = wire.line().await;
            if line.is_empty() {
                break;
            }
            if let Some(length) = line.strip_prefix("content-length: ") {
                wire.whole = Some(length.parse().unwrap());
            }
            if let Some(value) = line.strip_prefix("content-type: ") {
                wire.content_type = value.to_owned();
            }
        }
        wire
    }

    /// The next event; `None` once the answer has ended in good order.
    pub(crate) async fn next(&mut self) -> Option<Result<StreamItem, AnswerError>> {
        timeout(PATIENCE, async {
            loop {
                if let Some(event) = self.events.next_event().unwrap() {
                    if let Some(id) = event.id {
                        self.seq = id.parse::<Cursor>().unwrap().seq;
                        self.cursor = id;
                    }
                    let item = parse_event(&RequestIdJson::from(7), &event.data);
                    if let Err(AnswerError::Fault(fault)) = &item {
                        let mut all = fault.metadata.iter();
                        let from = all.find(|(name, _)| *name == "lastEventId");
                        self.goes_on_from = from.map(|(_, cursor)| cursor.clone());
                    }
                    return Some(item);
                }
                if self.ended {
                    return None;
                }
                if let Some(length) = self.whole {
                    let mut body = vec![0; length];
                    self.socket.read_exact(&mut body).await.unwrap();
                    self.events.push(&body);
                    self.ended = true;
                    continue;
                }
                let length = usize::from_str_radix(&self.line().await, 16).unwrap();
                let mut chunk = vec![0; length + 2];
                self.socket.read_exact(&mut chunk).await.unwrap();
                self.events.push(&chunk[..length]);
                self.ended = length == 0;
            }
        })
        .await
        .expect("an event in time")
    }

    /// The first event, which is the task.
    pub(crate) async fn task(&mut self) -> Task {
        match self.next().await {
            Some(Ok(StreamItem::Task(task))) => task,
            other => panic!("the first event is no task: {other:?}"),
        }
    }

    /// The next event in short.
    pub(crate) async fn shown(&mut self) -> String {
        match self.next().await {
            Some(item) => shown(&item),
            None => "end".to_owned(),
        }
    }

    /// All that comes, in short, with the numbers.
    pub(crate) async fn numbered(&mut self) -> Vec<(u64, String)> {
        let mut all = Vec::new();
        while let Some(item) = self.next().await {
            all.push((self.seq, shown(&item)));
        }
        all
    }

    /// Waits until there is something more to read.
    pub(crate) async fn has_more(&mut self) {
        let more = timeout(PATIENCE, self.socket.fill_buf()).await;
        assert!(!more.unwrap().unwrap().is_empty(), "the connection has ended");
    }

    /// A digest of all bytes that come.
    pub(crate) async fn digest(mut self) -> Vec<u8> {
        let mut digest = Context::new(&SHA256);
        let whole = timeout(PATIENCE, async {
            loop {
                let length = usize::from_str_radix(&self.line().await, 16).unwrap();
                let mut chunk = vec![0; length + 2];
                self.socket.read_exact(&mut chunk).await.unwrap();
                digest.update(&chunk[..length]);
                if length == 0 {
                    break;
                }
            }
        });
        whole.await.expect("the end in time");
        digest.finish().as_ref().to_vec()
    }

    /// All that comes, in short.
    pub(crate) async fn rest(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(item) = self.next().await {
            all.push(shown(&item));
        }
        all
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        timeout(PATIENCE, self.socket.read_line(&mut line)).await.unwrap().unwrap();
        assert!(line.ends_with("\r\n"), "the connection broke off: {line:?}");
        line.truncate(line.len() - 2);
        line
    }
}

/// A connection of which the server can send little ahead.
pub(crate) async fn narrow(address: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    socket.connect(address.parse().unwrap()).await.unwrap()
}

fn shown(item: &Result<StreamItem, AnswerError>) -> String {
    match item {
        Ok(StreamItem::Task(task)) => format!("task {}", state(task.status.state)),
        Ok(StreamItem::Message(message)) => {
            format!("message {}", content(&message.parts[0].content))
        }
        Ok(StreamItem::Update { event: TaskEvent::Status(status), .. }) => {
            let says = status.message.as_ref().map(|said| content(&said.parts[0].content));
            format!("{} {}", state(status.state), says.unwrap_or_default()).trim_end().to_owned()
        }
        Ok(StreamItem::Update {
            event: TaskEvent::Artifact { artifact, append, last }, ..
        }) => {
            let name = artifact.name.as_deref().unwrap_or("result");
            let how = match (append, last) {
                (false, false) => "begins",
                (false, true) => "is",
                (true, false) => "goes on",
                (true, true) => "ends",
            };
            format!("{name} {how} {}", content(&artifact.parts[0].content)).trim_end().to_owned()
        }
        Ok(other) => format!("{other:?}"),
        Err(AnswerError::Fault(fault)) => format!("fault {}", fault.code.reason()),
        Err(error) => format!("error {error}"),
    }
}

fn state(state: TaskState) -> String {
    state.as_str().trim_start_matches("TASK_STATE_").to_lowercase()
}

fn content(content: &Content) -> String {
    match content {
        Content::Text(text) | Content::Raw(text) | Content::Url(text) => text.clone(),
        Content::Data(json) => json.get().to_owned(),
    }
}
