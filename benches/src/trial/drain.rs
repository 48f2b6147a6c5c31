//! An agent is asked to end under load, again and again: every request that it took is answered,
//! and every stream is brought to an end.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::Verdict;
use super::ground::Ground;
use crate::load::{Connection, Target};
use crate::wire;

/// Requests each second. Source: R-24 of the reliability reference.
const CALLS_PER_SECOND: u32 = 2000;

const CONNECTIONS: u32 = 50;

/// Open streams. Source: the issue.
const STREAMS: usize = 100;

/// How long each of their tasks works.
const WORK_MILLIS: u64 = 2000;

/// When the agent is asked to end, after the load has begun.
const AFTER: Duration = Duration::from_secs(1);

/// What became of the requests and streams of one round.
#[derive(Debug, Default)]
struct Round {
    answered: u64,
    /// The agent closed the connection without a byte of an answer.
    dropped: u64,
    streams_ended: u64,
    streams_cut: u64,
}

pub(super) fn trial(binary: &Path, rounds: u16) -> Result<Verdict> {
    let ground = Ground::set(binary, &[])?;
    let call = Arc::new(wire::send("echo", &json!({ "text": "a" }))?);
    let stream = Arc::new(streaming(&wire::send("work", &json!({ "millis": WORK_MILLIS }))?)?);
    let (mut sum, mut slowest) = (Round::default(), Duration::ZERO);
    let mut verdict = Verdict::default();
    for number in 0..rounds {
        let mut agent = ground.agent(&format!("drain-{number}"), json!({}))?;
        let target = ground.target(&agent)?;
        let (call, stream) = (Arc::clone(&call), Arc::clone(&stream));
        let (round, took) = ground.runtime.block_on(async {
            let (gone, is_gone) = watch::channel(false);
            let mut callers = tokio::task::JoinSet::new();
            for index in 0..CONNECTIONS {
                callers.spawn(calls(target.clone(), Arc::clone(&call), index, is_gone.clone()));
            }
            let mut readers = tokio::task::JoinSet::new();
            for _ in 0..STREAMS {
                readers.spawn(read(target.clone(), Arc::clone(&stream)));
            }
            tokio::time::sleep(AFTER).await;
            let begun = Instant::now();
            agent.child.ask_to_end();
            let status =
                tokio::task::block_in_place(|| agent.child.ended(Duration::from_secs(40)))?;
            let took = begun.elapsed();
            anyhow::ensure!(status.success(), "the agent ended with {status}");
            gone.send_replace(true);
            let mut round = Round::default();
            while let Some(ended) = callers.join_next().await {
                let (answered, dropped) = ended.context("a caller panicked")??;
                round.answered += answered;
                round.dropped += dropped;
            }
            while let Some(ended) = readers.join_next().await {
                match ended.context("a reader panicked")? {
                    Ok(true) => round.streams_ended += 1,
                    Ok(false) | Err(_) => round.streams_cut += 1,
                }
            }
            Ok::<_, anyhow::Error>((round, took))
        })?;
        if round.dropped + round.streams_cut > 0 {
            let why = format!("round {number}: {round:?}");
            verdict.rule(false, || why);
        }
        slowest = slowest.max(took);
        sum.answered += round.answered;
        sum.dropped += round.dropped;
        sum.streams_ended += round.streams_ended;
        sum.streams_cut += round.streams_cut;
    }
    verdict.fact("drains", rounds);
    verdict.fact("calls answered", sum.answered);
    verdict.fact("calls dropped", sum.dropped);
    verdict.fact("streams brought to an end", sum.streams_ended);
    verdict.fact("streams cut", sum.streams_cut);
    verdict.fact("slowest drain", format!("{:.1} s", slowest.as_secs_f64()));
    let least = u64::from(rounds) * u64::from(CALLS_PER_SECOND) / 2;
    verdict.rule(sum.answered >= least, || format!("fewer than {least} calls"));
    Ok(verdict)
}

/// The same message, with its task's events as the answer.
fn streaming(request: &[u8]) -> Result<Vec<u8>> {
    let text = std::str::from_utf8(request)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no body")?;
    let body = body.replace("\"SendMessage\"", "\"SendStreamingMessage\"");
    let mut out = String::new();
    for line in head.split("\r\n") {
        if line.to_ascii_lowercase().starts_with("content-length:") {
            out.push_str(&format!("content-length: {}\r\n", body.len()));
        } else {
            out.push_str(line);
            out.push_str("\r\n");
        }
    }
    out.push_str("\r\n");
    out.push_str(&body);
    Ok(out.into_bytes())
}

/// Calls at a steady pace on one connection until the agent closes it after an answer, or is gone.
async fn calls(
    target: Target,
    request: Arc<Vec<u8>>,
    index: u32,
    is_gone: watch::Receiver<bool>,
) -> Result<(u64, u64)> {
    let every = Duration::from_secs(1) * CONNECTIONS / CALLS_PER_SECOND;
    let mut connection = Connection::open(&target).await?;
    tokio::time::sleep(every * index / CONNECTIONS).await;
    let mut tick = tokio::time::interval(every);
    let mut answered = 0;
    while !*is_gone.borrow() {
        tick.tick().await;
        match connection.answer(&request).await {
            Ok(extent) => {
                answered += 1;
                let head = String::from_utf8_lossy(&connection.received[..extent.head]);
                if head.to_ascii_lowercase().contains("connection: close") {
                    return Ok((answered, 0));
                }
            }
            Err(_) => return Ok((answered, 1)),
        }
    }
    Ok((answered, 0))
}

/// Reads a stream; whether it was brought to its end.
async fn read(target: Target, request: Arc<Vec<u8>>) -> Result<bool> {
    let mut connection = Connection::open(&target).await?;
    connection.stream.write_all(&request).await?;
    connection.stream.flush().await?;
    let mut received = Vec::new();
    let deadline = Duration::from_secs(45);
    let read = connection.stream.read_to_end(&mut received);
    let ended = tokio::time::timeout(deadline, async {
        // The connection stays open after a stream that has ended, so its end is looked for.
        tokio::pin!(read);
        read.as_mut().await
    });
    // A peer that closes without TLS's own farewell has still sent what it sent.
    let _closed = ended.await.context("a stream did not end")?;
    let text = String::from_utf8_lossy(&received);
    Ok(text.contains("TASK_STATE_COMPLETED"))
}
