//! Spans and log lines to an OpenTelemetry collector, by OTLP over gRPC.
//!
//! Whoever has something to send leaves it in a queue of bounded length and goes on; what finds no
//! room is dropped and counted. A task of its own sends batches over one connection, opened by the
//! one dialer, and tries a batch again that may be taken later.

mod connection;
mod encode;
mod message;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use convoke_agent::AgentConfig;
use convoke_model::SpiffeId;
use convoke_net::client::{Address, AddressError, Provenance};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use prost::Message;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::metrics::OtlpDrops;
use super::trace::{Collect, Ended, Tracer};
use crate::config::TracingConfig;
use crate::web_pki::{self, WebPkiError};
use connection::{Connection, ExportError};
pub(crate) use encode::LogLine;
use encode::{Item, Origin};
use message::{Exported, LOGS, TRACES};

/// How many items may wait. Source: twice OpenTelemetry's default, because a request has about four
/// spans.
const QUEUE_MAX: usize = 4096;

/// How many items are sent at a time. Source: OpenTelemetry's default.
const BATCH_MAX: usize = 512;

/// How long the first item of a batch waits for others.
const BATCH_DELAY: Duration = Duration::from_secs(1);

/// The pauses before a batch is tried again; after the last it is dropped.
const RETRIES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

/// How long the last batches may take when the node ends.
const LAST_TIME_MAX: Duration = Duration::from_secs(3);

/// Why nothing can be sent to a collector.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The endpoint is no address.
    #[error("`observability.tracing.otlp_endpoint`: {0}")]
    Endpoint(#[from] AddressError),
    /// A header is none.
    #[error("`observability.tracing.headers.{0}` is no header that gRPC can carry")]
    Header(String),
    /// There is nothing to know the collector by.
    #[error("`observability.tracing.otlp_endpoint` is https: {0}")]
    Tls(#[from] WebPkiError),
}

/// Takes items for a collector until it is closed.
pub(crate) struct Exporter<T> {
    sender: mpsc::Sender<T>,
    dropped: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

/// Where items are left. Cloning gives another handle to the same queue.
pub(crate) struct Queue<T> {
    sender: mpsc::WeakSender<T>,
    dropped: Arc<AtomicU64>,
}

/// Sends the spans of an agent until it is closed.
pub(crate) struct Spans {
    exporter: Exporter<Ended>,
    agent: SpiffeId,
    rate: f64,
}

impl Spans {
    /// Sends the spans of `agent` as `config` says.
    ///
    /// # Errors
    ///
    /// [`OtlpError`] names the key that is wrong.
    pub(crate) fn start(config: &TracingConfig, agent: &AgentConfig) -> Result<Self, OtlpError> {
        let exporter = start(config, TRACES, &agent.metadata.name, &agent.metadata.version)?;
        Ok(Self { exporter, agent: agent.spiffe_id.clone(), rate: config.sampling_rate })
    }

    /// What makes the spans.
    pub(crate) fn tracer(&self) -> Tracer {
        Tracer::new(self.agent.clone(), self.rate, Box::new(self.exporter.queue()))
    }

    /// What counts those that were dropped.
    pub(crate) fn drops(&self) -> Box<dyn OtlpDrops> {
        Box::new(self.exporter.queue())
    }

    /// Sends what is there and ends.
    pub(crate) async fn close(self) {
        self.exporter.close().await;
    }
}

/// Sends log lines of the agent `name`, of this version, as `config` says.
///
/// # Errors
///
/// [`OtlpError`] names the key that is wrong.
pub(crate) fn logs(
    config: &TracingConfig,
    name: &str,
    version: &str,
) -> Result<Exporter<LogLine>, OtlpError> {
    start(config, LOGS, name, version)
}

fn start<T: Item>(
    config: &TracingConfig,
    path: &'static str,
    name: &str,
    version: &str,
) -> Result<Exporter<T>, OtlpError> {
    let address = Address::parse_with_http(&config.otlp_endpoint, Provenance::Operator)?;
    let tls = address.is_https().then(|| web_pki::client_config("h2")).transpose()?.map(Arc::new);
    let headers = headers(config)?;
    let origin = Origin::new(config.service_name.as_deref().unwrap_or(name), version);
    let (sender, items) = mpsc::channel(QUEUE_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    let sending = Sending {
        connection: Connection::new(address, tls, headers),
        path,
        origin,
        dropped: Arc::clone(&dropped),
        failing: false,
    };
    let task = tokio::spawn(sending.run(items));
    Ok(Exporter { sender, dropped, task })
}

impl<T> Exporter<T> {
    /// A handle for those who have something to send.
    pub(crate) fn queue(&self) -> Queue<T> {
        Queue { sender: self.sender.downgrade(), dropped: Arc::clone(&self.dropped) }
    }

    /// Sends what is there and ends; what is left after a moment is dropped and counted.
    pub(crate) async fn close(self) {
        let Self { sender, dropped: _, task } = self;
        drop(sender);
        // Cut off rather than left behind, so that the process can end.
        let abort = task.abort_handle();
        if timeout(LAST_TIME_MAX, task).await.is_err() {
            abort.abort();
            tracing::warn!("The collector did not take the last spans or lines in time");
        }
    }
}

impl<T> Queue<T> {
    /// Leaves `item`, if there is room.
    pub(crate) fn leave(&self, item: T) {
        let left = self.sender.upgrade().is_some_and(|sender| sender.try_send(item).is_ok());
        if !left {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), dropped: Arc::clone(&self.dropped) }
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("dropped", &self.dropped).finish_non_exhaustive()
    }
}

impl<T: Send> OtlpDrops for Queue<T> {
    fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Collect for Queue<Ended> {
    fn collect(&self, span: Ended) {
        self.leave(span);
    }
}

/// The task that sends.
struct Sending {
    connection: Connection,
    path: &'static str,
    origin: Origin,
    dropped: Arc<AtomicU64>,
    /// The last batch was not taken, which is said once.
    failing: bool,
}

impl Sending {
    async fn run<T: Item>(mut self, mut items: mpsc::Receiver<T>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            let mut open = items.recv_many(&mut batch, BATCH_MAX).await > 0;
            let until = Instant::now() + BATCH_DELAY;
            while open && batch.len() < BATCH_MAX {
                let room = BATCH_MAX - batch.len();
                match timeout_at(until, items.recv_many(&mut batch, room)).await {
                    Ok(count) => open = count > 0,
                    Err(_elapsed) => break,
                }
            }
            if batch.is_empty() {
                return;
            }
            self.send(&mut batch, items.is_closed()).await;
        }
    }

    async fn send<T: Item>(&mut self, batch: &mut Vec<T>, last: bool) {
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let message = self.origin.export(batch.drain(..));
        let mut pauses = RETRIES.iter();
        let answer = loop {
            match self.connection.call(self.path, &message).await {
                Err(error) if error.may_pass() && !last => match pauses.next() {
                    Some(pause) => {
                        self.say(&error);
                        tokio::time::sleep(*pause).await;
                    }
                    None => break Err(error),
                },
                answer => break answer,
            }
        };
        let lost = match answer {
            Ok(answer) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("The collector takes spans and lines again");
                }
                rejected(answer)
            }
            Err(error) => {
                self.say(&error);
                count
            }
        };
        self.dropped.fetch_add(lost, Ordering::Relaxed);
    }

    /// Says that something fails, once until it works again.
    fn say(&mut self, error: &ExportError) {
        if !std::mem::replace(&mut self.failing, true) {
            let error = convoke_model::chain(error);
            tracing::warn!(
                error,
                "The collector does not take spans or lines; what it misses is counted"
            );
        }
    }
}

/// How many items of a batch the collector says that it did not take.
fn rejected(answer: Bytes) -> u64 {
    // An answer that cannot be read says nothing against the batch.
    let Ok(Exported { partial_success: Some(partial) }) = Exported::decode(answer) else {
        return 0;
    };
    if partial.rejected > 0 {
        let (count, why) = (partial.rejected, partial.error_message);
        tracing::debug!(count, why, "The collector rejected a part");
    }
    u64::try_from(partial.rejected).unwrap_or(0)
}

fn headers(config: &TracingConfig) -> Result<HeaderMap, OtlpError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &config.headers {
        let wrong = || OtlpError::Header(name.clone());
        let key = HeaderName::try_from(name).map_err(|_| wrong())?;
        // What ends in `-bin` would have to be encoded, and these are gRPC's own.
        if name.ends_with("-bin") || name.starts_with("grpc-") || name == "te" {
            return Err(wrong());
        }
        let mut value = HeaderValue::try_from(value.expose()).map_err(|_| wrong())?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}
