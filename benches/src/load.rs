//! The load generator: keep-alive connections in a closed loop, every answer checked.
//!
//! It is as thin as it can be, because it takes its CPU from the server under test: the request is
//! made once, each thread drives its connections alone, and an answer is compared, not parsed.

#![allow(clippy::disallowed_methods, reason = "the generator is a peer; it has its own sockets")]

use std::net::SocketAddr;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::authority::HOST;
use crate::contender::Contender;
use crate::procfs;
use crate::stats::Sample;
use crate::wire::{self, Exchange, Extent, Said};

/// Threads of the generator. Source: the servers under test have one for each of two cores.
const THREADS: usize = 2;

/// Longest time that an answer may take, beyond the time of the run.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Where to send requests.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) addr: SocketAddr,
    /// Nothing for plaintext.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// What came of one run.
pub(crate) struct Run {
    pub(crate) sample: Sample,
    /// How long each right answer took, in nanoseconds; without order.
    pub(crate) latencies_ns: Vec<u32>,
    /// Requests that policy refused because its decision was over time, and those that were turned
    /// away because the processors were behind.
    pub(crate) refused: u64,
}

/// Sends requests to `contender` on `connections` connections for `time`.
///
/// A twentieth of that time goes before, unmeasured, on the same connections.
///
/// # Errors
///
/// On the first answer that is wrong or does not come, and if the server did not put every request
/// on record as it was answered.
pub(crate) fn run(
    contender: &Contender,
    exchange: &Arc<Exchange>,
    connections: usize,
    time: Duration,
) -> Result<Run> {
    let until = Until::Over(time);
    let pushed = push(&contender.target, contender.pid(), exchange, connections, until)
        .context(contender.name)?;
    contender.settle(pushed.answered(), pushed.refused())?;
    pushed.run(contender.pid())
}

/// When it is enough.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    /// After some time, a twentieth of which goes before, unmeasured.
    Over(Duration),
    /// When so many requests were sent, give or take one for each connection.
    Sent(u64),
    /// After some time, with so many requests a second, whether or not the earlier ones were
    /// answered in time; an answer takes as long as from when its request was due.
    Paced(f64, Duration),
}

/// What came back of what was pushed, warm-up and measurement.
pub(crate) struct Pushed {
    warm: Driven,
    measured: Driven,
    elapsed: Duration,
    server_before: Duration,
    generator_cpu: Duration,
}

impl Pushed {
    /// Right answers, those of the warm-up included.
    pub(crate) fn answered(&self) -> u64 {
        self.warm.right() + self.measured.right()
    }

    /// Refusals that are on record, those of the warm-up included.
    pub(crate) fn refused(&self) -> u64 {
        self.warm.refused + self.measured.refused
    }

    /// What was measured, with what process `pid` spent on it up to now.
    pub(crate) fn run(self, pid: u32) -> Result<Run> {
        let server_cpu = procfs::cpu(pid)?.saturating_sub(self.server_before);
        let count = self.measured.right();
        let Driven { latencies_ns, refused, turned_away } = self.measured;
        let refused = refused + turned_away;
        let (elapsed, generator_cpu) = (self.elapsed, self.generator_cpu);
        Ok(Run {
            sample: Sample { count, elapsed, server_cpu, generator_cpu },
            latencies_ns,
            refused,
        })
    }
}

/// Sends requests to the process `pid`, which listens at `target`, on `connections` connections.
///
/// # Errors
///
/// On the first answer that is wrong or does not come.
pub(crate) fn push(
    target: &Target,
    pid: u32,
    exchange: &Arc<Exchange>,
    connections: usize,
    until: Until,
) -> Result<Pushed> {
    let threads = THREADS.min(connections);
    let ready = Arc::new(Barrier::new(threads + 1));
    let workers: Vec<_> = (0..threads)
        .map(|index| {
            let share = connections / threads + usize::from(index < connections % threads);
            let (target, exchange) = (target.clone(), Arc::clone(exchange));
            let ready = Arc::clone(&ready);
            let until = until.of(share, connections);
            std::thread::spawn(move || thread(&target, &exchange, share, until, &ready))
        })
        .collect();
    ready.wait();
    let (server_before, generator) = (procfs::cpu(pid)?, procfs::cpu(std::process::id())?);

    let (mut warm, mut elapsed) = (Driven::default(), Duration::ZERO);
    let mut measured = Driven::default();
    let mut outcome = Ok(());
    for worker in workers {
        match worker.join() {
            Ok(Ok(done)) => {
                warm.add(done.warm);
                elapsed = elapsed.max(done.elapsed);
                measured.add(done.measured);
            }
            Ok(Err(error)) => outcome = Err(error),
            Err(_) => outcome = Err(anyhow::anyhow!("a thread of the generator panicked")),
        }
    }
    outcome?;
    let generator_cpu = procfs::cpu(std::process::id())?.saturating_sub(generator);
    Ok(Pushed { warm, measured, elapsed, server_before, generator_cpu })
}

impl Until {
    /// The part of `share` of `connections`.
    fn of(self, share: usize, connections: usize) -> Self {
        let part = share as f64 / connections as f64;
        match self {
            Self::Over(time) => Self::Over(time),
            Self::Sent(count) => Self::Sent((count as f64 * part).ceil() as u64),
            Self::Paced(per_second, time) => Self::Paced(per_second * part, time),
        }
    }

    /// What goes before, unmeasured.
    fn warm_up(self) -> Self {
        match self {
            Self::Over(time) => Self::Over(time / 20),
            Self::Sent(_) => Self::Sent(0),
            Self::Paced(per_second, time) => Self::Paced(per_second, time / 20),
        }
    }
}

/// One request on a connection of its own: its answer as it came.
pub(crate) async fn once(target: &Target, request: &[u8]) -> Result<Vec<u8>> {
    let mut connection = Connection::open(target).await?;
    let extent = connection.answer(request).await?;
    connection.received.truncate(extent.total);
    Ok(connection.received)
}

/// What one thread did.
struct Done {
    warm: Driven,
    elapsed: Duration,
    measured: Driven,
}

/// What came back while connections were kept busy.
#[derive(Default)]
struct Driven {
    latencies_ns: Vec<u32>,
    refused: u64,
    turned_away: u64,
}

impl Driven {
    fn right(&self) -> u64 {
        self.latencies_ns.len() as u64
    }

    fn add(&mut self, mut other: Self) {
        self.latencies_ns.append(&mut other.latencies_ns);
        self.refused += other.refused;
        self.turned_away += other.turned_away;
    }
}

fn thread(
    target: &Target,
    exchange: &Exchange,
    connections: usize,
    until: Until,
    ready: &Barrier,
) -> Result<Done> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let prepared = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let open = async {
            let mut open = Vec::with_capacity(connections);
            for _ in 0..connections {
                open.push(Connection::open(target).await?);
            }
            let warm = drive(&mut open, exchange, until.warm_up()).await?;
            Ok::<_, anyhow::Error>((open, warm))
        };
        let (open, warm) = runtime.block_on(open)?;
        Ok((runtime, open, warm))
    });
    // Whoever fails comes here too, or the others would wait for ever.
    ready.wait();
    let (runtime, mut open, warm) = prepared?;
    let begun = Instant::now();
    let measured = runtime.block_on(drive(&mut open, exchange, until))?;
    Ok(Done { warm, elapsed: begun.elapsed(), measured })
}

/// When one connection sends.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    until: Instant,
    left: u64,
    /// When the next request is due, and how long after it the one that follows; without, it is when
    /// the last one was answered.
    due: Option<(Instant, Duration)>,
}

impl Schedule {
    /// Of connection `index` of `connections`, from `now` on.
    fn of(until: Until, index: usize, connections: usize, now: Instant) -> Self {
        let endless = now + ANSWER_WITHIN * 30;
        match until {
            Until::Over(time) => Self { until: now + time, left: u64::MAX, due: None },
            Until::Sent(count) => {
                Self { until: endless, left: count.div_ceil(connections as u64), due: None }
            }
            Until::Paced(per_second, time) => {
                let gap = Duration::from_secs_f64(connections as f64 / per_second);
                let first = now + gap.mul_f64(index as f64 / connections as f64);
                Self { until: now + time, left: u64::MAX, due: Some((first, gap)) }
            }
        }
    }

    /// Waits until the next request is to be sent, and gives when it was due; nothing if it is over.
    async fn next(&mut self, now: Instant) -> Option<Instant> {
        let due = match &mut self.due {
            None => now,
            Some((next, gap)) => {
                let due = *next;
                *next += *gap;
                due
            }
        };
        if self.left == 0 || due >= self.until {
            return None;
        }
        self.left -= 1;
        if due > now {
            tokio::time::sleep_until(due.into()).await;
        }
        Some(due)
    }

    /// How long all of it may take.
    fn patience(until: Until) -> Duration {
        match until {
            Until::Over(time) | Until::Paced(_, time) => time + ANSWER_WITHIN,
            Until::Sent(_) => ANSWER_WITHIN * 30,
        }
    }
}

/// Keeps every connection busy until it is enough.
async fn drive(
    connections: &mut [Connection],
    exchange: &Exchange,
    until: Until,
) -> Result<Driven> {
    let (begun, count) = (Instant::now(), connections.len());
    let all = try_join_all(connections.iter_mut().enumerate().map(|(index, connection)| {
        let mut schedule = Schedule::of(until, index, count, begun);
        async move {
            let latencies_ns = Vec::with_capacity(1 << 16);
            let mut driven = Driven { latencies_ns, ..Driven::default() };
            let mut now = begun;
            while let Some(due) = schedule.next(now).await {
                let Extent { head, total } = connection.answer(&exchange.request).await?;
                ensure!(total == connection.received.len(), "bytes behind the answer");
                let said = exchange.check(head, &connection.received)?;
                now = Instant::now();
                match said {
                    Said::Right => {
                        let took = u32::try_from((now - due).as_nanos()).unwrap_or(u32::MAX);
                        driven.latencies_ns.push(took);
                    }
                    Said::Refused => driven.refused += 1,
                    Said::TurnedAway => driven.turned_away += 1,
                }
            }
            Ok::<_, anyhow::Error>(driven)
        }
    }));
    let all = tokio::time::timeout(Schedule::patience(until), all).await;
    let mut joined = Driven::default();
    for driven in all.context("an answer did not come")?? {
        joined.add(driven);
    }
    Ok(joined)
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A keep-alive connection, and what came on it last.
pub(crate) struct Connection {
    pub(crate) stream: Box<dyn Stream>,
    pub(crate) received: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(target: &Target) -> Result<Self> {
        let tcp = TcpStream::connect(target.addr).await?;
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &target.tls {
            None => Box::new(tcp),
            Some(tls) => {
                let connector = TlsConnector::from(Arc::clone(tls));
                Box::new(connector.connect(ServerName::try_from(HOST)?, tcp).await?)
            }
        };
        Ok(Self { stream, received: Vec::with_capacity(4096) })
    }

    /// Sends `request` and waits until its answer has been received.
    pub(crate) async fn answer(&mut self, request: &[u8]) -> Result<Extent> {
        self.received.clear();
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        loop {
            let read = self.stream.read_buf(&mut self.received).await?;
            ensure!(read > 0, "the server closed a connection");
            if let Some(found) = wire::measure(&self.received)? {
                return Ok(found);
            }
        }
    }
}
