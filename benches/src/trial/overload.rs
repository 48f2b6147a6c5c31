//! Five times as much comes in as can be done: what can be done is done, the rest is turned away
//! quickly, and health answers.

#![allow(clippy::disallowed_methods, reason = "the prober is a peer; it has its own sockets")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::ground::Ground;
use super::{Verdict, quantile};
use crate::cores::Apart;
use crate::load::{Connection, Target};
use crate::wire;

/// What one request costs the agent. Large beside what it costs this program to ask, which runs on
/// the same cores.
const COST_MICROS: u64 = 4000;

/// Connections that keep the agent busy when its capacity is measured.
const BUSY: usize = 8;

/// Connections over which the open loop spreads its requests.
const CONNECTIONS: usize = 600;

/// Times the capacity. Source: R-23 of the reliability reference.
const LOAD: f64 = 5.0;

#[derive(Default)]
struct Seen {
    done: u64,
    turned_away: u64,
    unanswered: u64,
    other: Vec<String>,
    done_ms: Vec<u32>,
    away_ms: Vec<u32>,
}

pub(super) fn trial(binary: &Path, time: Duration) -> Result<Verdict> {
    // Who asks five times as often takes five times as much of a shared core, which the agent then
    // lacks; so the agent has one of its own, in both measurements.
    let _apart = Apart::move_away()?;
    let ground = Ground::set(binary, &[])?;
    let agent = ground.agent_on("overload", json!({}), true)?;
    let target = ground.target(&agent)?;
    let request = Arc::new(wire::send("spin", &json!({ "micros": COST_MICROS }))?);
    let peak = ground.runtime.block_on(closed(&target, &request, Duration::from_secs(5)))?;
    let rate = peak * LOAD;
    let (mut seen, mut health) = ground.runtime.block_on(async {
        let health = tokio::spawn(probe(agent.metrics, Instant::now() + time));
        let seen = open(&target, &request, rate, time).await?;
        Ok::<_, anyhow::Error>((seen, health.await.context("the probe panicked")??))
    })?;

    #[expect(clippy::cast_precision_loss, reason = "counts of some thousands")]
    let goodput = seen.done as f64 / time.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "counts of some thousands")]
    let offered = (seen.done + seen.turned_away + seen.unanswered) as f64 / time.as_secs_f64();
    let mut verdict = Verdict::default();
    verdict.fact("seconds", time.as_secs());
    verdict.fact("peak, requests a second", format!("{peak:.0}"));
    verdict.fact("offered, × peak", format!("{:.1}", offered / peak));
    verdict.fact("goodput, × peak", format!("{:.2}", goodput / peak));
    verdict.fact("turned away", seen.turned_away);
    verdict.fact("unanswered", seen.unanswered);
    let ms = |values: &mut [u32], share| format!("{:.1} ms", quantile(values, share) / 1000.0);
    verdict.fact("done p50", ms(&mut seen.done_ms, 0.5));
    verdict.fact("done p99", ms(&mut seen.done_ms, 0.99));
    verdict.fact("turned away p50", ms(&mut seen.away_ms, 0.5));
    verdict.fact("turned away p99", ms(&mut seen.away_ms, 0.99));
    verdict.fact("health answered", health.len());
    verdict.fact("health p99", ms(&mut health, 0.99));
    verdict.rule(goodput >= 0.9 * peak, || "goodput below 0.9 of the peak".to_owned());
    verdict.rule(offered >= 4.0 * peak, || "less than 4 × the peak was offered".to_owned());
    verdict.rule(seen.other.is_empty(), || seen.other.join("; "));
    verdict.rule(!health.is_empty(), || "health did not answer".to_owned());
    Ok(verdict)
}

/// Requests a second that the agent answers when it is asked as often as it can.
async fn closed(target: &Target, request: &Arc<Vec<u8>>, time: Duration) -> Result<f64> {
    let until = Instant::now() + time;
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..BUSY {
        let (target, request) = (target.clone(), Arc::clone(request));
        all.spawn(async move {
            let mut connection = Connection::open(&target).await?;
            let mut count = 0_u32;
            while Instant::now() < until {
                connection.answer(&request).await?;
                ensure!(connection.received.starts_with(b"HTTP/1.1 200 "), "no success");
                count += 1;
            }
            Ok::<_, anyhow::Error>(count)
        });
    }
    let mut sum = 0;
    while let Some(count) = all.join_next().await {
        sum += count.context("a caller panicked")??;
    }
    Ok(f64::from(sum) / time.as_secs_f64())
}

/// Sends at `rate`, whatever comes back.
async fn open(target: &Target, request: &Arc<Vec<u8>>, rate: f64, time: Duration) -> Result<Seen> {
    let mut connections = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        connections.push(Connection::open(target).await?);
    }
    let begun = Instant::now();
    #[expect(clippy::cast_precision_loss, reason = "some hundreds")]
    let every = Duration::from_secs_f64(CONNECTIONS as f64 / rate);
    let mut all = tokio::task::JoinSet::new();
    for (index, mut connection) in connections.into_iter().enumerate() {
        let (target, request) = (target.clone(), Arc::clone(request));
        let offset = every.mul_f64(f64::from(u32::try_from(index)?) / 600.0);
        all.spawn(async move {
            let mut seen = Seen::default();
            let mut due = begun + offset;
            while due < begun + time {
                tokio::time::sleep_until(due.into()).await;
                let sent = Instant::now();
                match connection.answer(&request).await {
                    Err(_) => {
                        seen.unanswered += 1;
                        connection = Connection::open(&target).await?;
                    }
                    Ok(_) => seen.take(&connection.received, sent.elapsed()),
                }
                // Late is late: what could not be asked in time is not asked all at once later.
                due = (due + every).max(Instant::now());
            }
            Ok::<_, anyhow::Error>(seen)
        });
    }
    let mut sum = Seen::default();
    while let Some(seen) = all.join_next().await {
        sum.add(seen.context("a caller panicked")??);
    }
    Ok(sum)
}

impl Seen {
    fn take(&mut self, answer: &[u8], took: Duration) {
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        if answer.starts_with(b"HTTP/1.1 200 ") {
            self.done += 1;
            self.done_ms.push(micros);
        } else if answer.starts_with(b"HTTP/1.1 503 ") || answer.starts_with(b"HTTP/1.1 429 ") {
            self.turned_away += 1;
            self.away_ms.push(micros);
        } else if self.other.len() < 3 {
            self.other.push(String::from_utf8_lossy(answer).chars().take(300).collect());
        }
    }

    fn add(&mut self, mut other: Self) {
        self.done += other.done;
        self.turned_away += other.turned_away;
        self.unanswered += other.unanswered;
        self.other.append(&mut other.other);
        self.done_ms.append(&mut other.done_ms);
        self.away_ms.append(&mut other.away_ms);
    }
}

/// Asks for health ten times a second, each time on a connection of its own, and gives how long
/// each answer took, in microseconds.
async fn probe(metrics: std::net::SocketAddr, until: Instant) -> Result<Vec<u32>> {
    let mut took = Vec::new();
    while Instant::now() < until {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(metrics).await?;
        let request = b"GET /health/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        ensure!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
        took.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(took)
}
