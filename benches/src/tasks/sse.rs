//! Streams of events as they are read and checked: the bytes first, what they say once they are all
//! there, so that checking costs nothing while it is measured.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use convoke_a2a::client::{EventReader, StreamItem, parse_event};
use convoke_a2a::jsonrpc::RequestIdJson;
use convoke_model::TaskEvent;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::load::Connection;
use crate::wire;

/// How a stream ends that has ended as it should: the last chunk of the body.
const END: &[u8] = b"0\r\n\r\n";

/// Longest event that is read, in bytes.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// How long a stream may take.
const WITHIN: Duration = Duration::from_secs(60);

/// What came of a stream.
pub(crate) struct Followed {
    /// The body, without its chunks.
    pub(crate) body: Vec<u8>,
    pub(crate) took: Duration,
}

/// Sends `request` and reads the stream to its end.
pub(crate) async fn follow(connection: &mut Connection, request: &[u8]) -> Result<Followed> {
    let begun = Instant::now();
    begin(connection, request).await?;
    rest(connection).await?;
    let took = begun.elapsed();
    Ok(Followed { body: body(&connection.received)?, took })
}

/// Sends `request` and waits for the first of the events.
pub(crate) async fn begin(connection: &mut Connection, request: &[u8]) -> Result<()> {
    connection.received.clear();
    connection.stream.write_all(request).await?;
    connection.stream.flush().await?;
    while !connection.received.windows(3).any(|window| window == b"\n\n\r") {
        more(connection).await?;
    }
    Ok(())
}

/// Reads a stream that has begun to its end.
pub(crate) async fn rest(connection: &mut Connection) -> Result<()> {
    let whole = async {
        while !connection.received.ends_with(END) {
            more(connection).await?;
        }
        Ok(())
    };
    tokio::time::timeout(WITHIN, whole).await.context("a stream did not end")?
}

async fn more(connection: &mut Connection) -> Result<()> {
    connection.received.reserve(1 << 16);
    let read = connection.stream.read_buf(&mut connection.received).await?;
    let text = || String::from_utf8_lossy(&connection.received).into_owned();
    ensure!(read > 0, "the server closed a connection: {}", text());
    let is_stream = connection.received.starts_with(b"HTTP/1.1 200 ");
    ensure!(is_stream, "no stream: {}", text());
    Ok(())
}

/// The body of an answer in chunks.
pub(crate) fn body(answer: &[u8]) -> Result<Vec<u8>> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").context("no head")?;
    let head = std::str::from_utf8(&answer[..end])?;
    let mut kinds = wire::fields(head).filter(|(name, _)| *name == "content-type");
    let kind = kinds.next().map(|(_, value)| value);
    ensure!(kind.is_some_and(|kind| kind.starts_with("text/event-stream")), "no stream: {head}");
    let (mut rest, mut body) = (&answer[end + 4..], Vec::with_capacity(answer.len()));
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n").context("half a chunk")?;
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end])?, 16)?;
        rest = &rest[end + 2..];
        if length == 0 {
            return Ok(body);
        }
        let (chunk, behind) = rest.split_at_checked(length).context("half a chunk")?;
        body.extend_from_slice(chunk);
        rest = behind.strip_prefix(b"\r\n").context("a chunk without an end")?;
    }
}

/// What a stream has said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// Events, the first task included.
    pub(crate) events: u64,
    /// Pieces of artifacts.
    pub(crate) pieces: u64,
}

/// Reads a stream thoroughly: a task, events without a gap, the end.
///
/// # Errors
///
/// If it is anything else.
pub(crate) fn check(body: &[u8]) -> Result<Said> {
    let mut reader = EventReader::new(EVENT_BYTES_MAX);
    reader.push(body);
    let id = RequestIdJson::from(1);
    let mut said = Said { events: 0, pieces: 0 };
    let (mut last_seq, mut has_ended) = (0, false);
    while let Some(event) = reader.next_event()? {
        let cursor = event.id.context("an event without a number")?;
        let (_, seq) = cursor.split_once('.').context("a number of another form")?;
        let seq: u64 = seq.parse()?;
        ensure!(!has_ended, "an event behind the end");
        let item = parse_event(&id, &event.data)?;
        has_ended = item.is_last();
        match item {
            StreamItem::Task(_) => ensure!(said.events == 0, "a task within a stream"),
            StreamItem::Message(_) => bail!("a message instead of a task"),
            StreamItem::Update { event, .. } => {
                ensure!(seq == last_seq + 1, "event {seq} follows event {last_seq}");
                said.pieces += u64::from(matches!(event, TaskEvent::Artifact { .. }));
            }
        }
        last_seq = seq;
        said.events += 1;
    }
    ensure!(has_ended, "a stream without an end");
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_put_together() {
        fn check(chunks: &str, expected: Option<&str>) {
            let answer =
                format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{chunks}");
            let body = body(answer.as_bytes()).ok();
            assert_eq!(body.as_deref(), expected.map(str::as_bytes), "{chunks:?}");
        }
        check("3\r\nabc\r\na\r\n0123456789\r\n0\r\n\r\n", Some("abc0123456789"));
        check("0\r\n\r\n", Some(""));
        check("3\r\nabc\r\n", None);
        check("3\r\nab", None);
        check("3\r\nabcd\r\n0\r\n\r\n", None);
    }

    #[test]
    fn a_stream_without_an_end_is_none() {
        assert!(check(b"").is_err());
        assert!(check(b"data: {}\n\n").is_err());
    }
}
