//! Each decision with what it was decided on, as lines of JSON, so that it can be decided again.
//!
//! The log explains; it does not prove: that is the audit's part. So it never holds a request up,
//! and what it has no room for is dropped, counted and said.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use convoke_journal::{AppendFile, AuditOpenError, LinesOptions, Rotation};
use convoke_model::{Decision, write_json_string};
use convoke_policy::Question;

use crate::clock::Clock;
use crate::config::DecisionLogConfig;
use crate::digest::sha256_hex;
use crate::path_metrics::PathMetrics;
use crate::sparse::Sparse;

/// Most lines that wait to be written.
const LINES_MAX: usize = 16 * 1024;

/// Most bytes that wait to be written: parameters, where they are kept, may be megabytes.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// About how many bytes go into one write.
const WRITE_BYTES: usize = 256 * 1024;

/// Why the decision log could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("decision log `{path}` cannot be written")]
pub struct DecisionLogError {
    /// The file.
    path: PathBuf,
    /// Why.
    #[source]
    source: io::Error,
}

/// Takes decisions and writes them on a thread of its own.
pub(super) struct DecisionLog {
    entries: SyncSender<Entry>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Bytes that wait to be written.
    waiting: Arc<AtomicUsize>,
    params: bool,
    drops: Arc<Drops>,
}

enum Entry {
    Line(Vec<u8>),
    /// Nothing comes after this.
    Close,
}

/// Counts what is not kept and says so, not too often.
struct Drops {
    said: Sparse,
    clock: Clock,
    metrics: PathMetrics,
}

impl DecisionLog {
    /// Opens the file that `config` names, readable by its owner alone if it is new.
    ///
    /// # Errors
    ///
    /// [`DecisionLogError`] if it cannot be written, or another process writes it.
    pub(super) fn open(
        config: &DecisionLogConfig,
        clock: Clock,
        metrics: &PathMetrics,
    ) -> Result<Self, DecisionLogError> {
        let wrong = |source| DecisionLogError { path: config.path.clone(), source };
        let rotation = config.rotate_bytes.map(|bytes| Rotation { bytes, keep: config.keep });
        let options = LinesOptions { what: "decision log", rotation, ..LinesOptions::default() };
        let file = AppendFile::open(&config.path, options).map_err(why).map_err(wrong)?;
        let (entries, theirs) = sync_channel(LINES_MAX);
        let waiting = Arc::new(AtomicUsize::new(0));
        let drops = Arc::new(Drops { said: Sparse::default(), clock, metrics: metrics.clone() });
        let (left, lost) = (Arc::clone(&waiting), Arc::clone(&drops));
        let writer = std::thread::Builder::new()
            .name("convoke-decisions".to_owned())
            .spawn(move || write(&theirs, file, &left, &lost))
            .map_err(wrong)?;
        tracing::info!(path = %config.path.display(), "Decision log opened");
        Ok(Self {
            entries,
            writer: Mutex::new(Some(writer)),
            waiting,
            params: config.params,
            drops,
        })
    }

    /// Keeps `decision` with the question that it answers. It never waits.
    pub(super) fn keep(&self, question: &Question<'_>, decision: &Decision) {
        let line = line(question, decision, self.params);
        let bytes = line.len();
        if self.waiting.fetch_add(bytes, Ordering::Relaxed) + bytes <= BYTES_MAX {
            match self.entries.try_send(Entry::Line(line)) {
                Ok(()) => return,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
            }
        }
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        self.drops.dropped(1, "more comes in than can be written");
    }

    /// Takes nothing more and waits until the rest is written. Closing again does nothing.
    pub(super) fn close(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(writer) = writer else { return };
        // An error means that the writer has ended, and why is told by joining it.
        let _ended = self.entries.send(Entry::Close);
        if writer.join().is_err() {
            tracing::error!("Decision log broke off");
        }
    }
}

impl Drop for DecisionLog {
    fn drop(&mut self) {
        self.close();
    }
}

impl Drops {
    fn dropped(&self, count: u64, why: &str) {
        let all = self.metrics.decision_log_dropped.inc_by(count) + count;
        if let Some(unsaid) = self.said.may_say(self.clock.monotonic()) {
            tracing::warn!(why, all, unsaid, "Decisions are missing from the decision log");
        }
    }
}

/// Why the file cannot be had, in words that are not of the audit file.
fn why(error: AuditOpenError) -> io::Error {
    match error {
        AuditOpenError::Directory { source, .. }
        | AuditOpenError::File { source, .. }
        | AuditOpenError::Thread { source } => source,
        AuditOpenError::Locked { .. } => io::Error::new(
            io::ErrorKind::ResourceBusy,
            "another process writes it; give each agent a file of its own",
        ),
    }
}

/// The line of one decision, with its newline.
fn line(question: &Question<'_>, decision: &Decision, params: bool) -> Vec<u8> {
    let shown = Question { params: question.params.filter(|_| params), ..*question };
    let input = shown.to_json();
    let mut line = Vec::with_capacity(input.len() + 512);
    let text = |line: &mut Vec<u8>, name: &str, value: &str| {
        line.push(if line.is_empty() { b'{' } else { b',' });
        line.push(b'"');
        line.extend_from_slice(name.as_bytes());
        line.extend_from_slice(b"\":");
        write_json_string(line, value);
    };
    text(&mut line, "time", &question.at.to_string());
    text(&mut line, "request_id", question.request_id);
    text(&mut line, "revision", &decision.revision.0);
    text(&mut line, "rule", &decision.rule);
    text(&mut line, "caller", question.caller.name());
    text(&mut line, "method", question.method);
    text(&mut line, "operation", question.operation.as_str());
    text(&mut line, "reason", decision.reason.as_str());
    if let Some(detail) = decision.reason.detail() {
        text(&mut line, "detail", detail);
    }
    if let Some(params) = question.params {
        text(&mut line, "params_sha256", &sha256_hex(params.get()));
    }
    let micros = decision.took.as_micros();
    // Writing to a vector cannot fail.
    let _written =
        write!(line, ",\"allowed\":{},\"took_us\":{micros},\"input\":", decision.is_allowed());
    // A caller's own JSON may be written over several lines; outside of strings, where no newline
    // can stand, white space means nothing.
    line.extend(
        input.into_iter().map(|byte| if byte == b'\n' || byte == b'\r' { b' ' } else { byte }),
    );
    line.extend_from_slice(b"}\n");
    line
}

/// Writes until it is told to close.
fn write(entries: &Receiver<Entry>, mut file: AppendFile, waiting: &AtomicUsize, drops: &Drops) {
    let mut batch = Vec::new();
    let mut closing = false;
    while !closing {
        let Ok(first) = entries.recv() else { return };
        let mut next = Some(first);
        let mut lines = 0;
        while let Some(entry) = next {
            match entry {
                Entry::Line(line) => {
                    batch.extend_from_slice(&line);
                    lines += 1;
                }
                Entry::Close => closing = true,
            }
            next =
                if closing || batch.len() >= WRITE_BYTES { None } else { entries.try_recv().ok() };
        }
        if let Err(error) = file.append(&batch) {
            drops.dropped(lines, &error.to_string());
        }
        waiting.fetch_sub(batch.len(), Ordering::Relaxed);
        batch.clear();
        // What a burst of large lines needed is given back.
        batch.shrink_to(2 * WRITE_BYTES);
    }
}

#[cfg(test)]
mod tests;
