//! Log lines: one line per event, in JSON for programs or plain for people.
//!
//! Fields of the event, then those of its spans, become top-level keys, as in the first seed:
//! `{"timestamp":"…","level":"INFO","message":"Agent server started","port":8443,"logger":"…"}`.
//! Whatever a field holds, a line stays one line, bounded, without a character that could move a
//! terminal's cursor or reorder its text, and without what looks like a secret.

mod escape;
mod export;
mod fields;
mod filter;
mod json_field;
mod layer;
mod line;
mod panics;
mod redact;
mod sampling;
mod sink;

use std::io::Write;

use tracing::Level;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::{LookupSpan, Registry};

pub(crate) use escape::push_plain;
pub use export::{LogExport, LogExporter};
pub use filter::FilterError;
pub use json_field::{JsonField, json_field};
pub(crate) use redact::{REDACTED, sounds_secret, without_secrets};
pub use sink::{FlushError, LogGuard};

/// The environment variable whose text the binary passes as [`LogOptions::filter`].
pub const FILTER_VARIABLE: &str = "CONVOKE_LOG";

/// Longest text of one value that is written, in bytes before escaping; the rest is cut, and the
/// value's length said.
pub const VALUE_BYTES_MAX: usize = 16 * 1024;

/// Length of a line, in bytes, after which no further field is written to it.
pub const LINE_BYTES_MAX: usize = 256 * 1024;

/// The shape of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object, for programs.
    Json,
    /// Time, level, message and `key=value`, for people.
    Pretty,
}

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// The shape of a line.
    pub format: Format,
    /// The least severe level that is logged. Libraries log at `WARN` and above, unless this is
    /// `DEBUG` or `TRACE`.
    pub level: Level,
    /// Overrides the rule for libraries: a list such as `info,hyper=debug`, where a bare level
    /// replaces `level` and the others hold for one target each.
    pub filter: Option<String>,
    /// Whether pretty lines are coloured.
    pub colour: bool,
    /// Which share of the lines of requests that went well is written, from 0 to 1.
    ///
    /// It is chosen by the number of a request's trace, so that all lines of a trace are written or
    /// none is, at every agent that has the same share. The lines of a request that is not chosen
    /// wait until it has ended, and are written after all if one of them is a warning or an error,
    /// or has a field `error`.
    pub sampling_rate: f64,
    /// Names of fields, beside those that are always, whose values are not written.
    pub redact: Vec<String>,
    /// Where lines are sent too.
    pub export: Option<LogExport>,
}

impl Default for LogOptions {
    /// `INFO` in JSON, everything, and nowhere else.
    fn default() -> Self {
        Self {
            format: Format::Json,
            level: Level::INFO,
            filter: None,
            colour: false,
            sampling_rate: 1.0,
            redact: Vec::new(),
            export: None,
        }
    }
}

/// Why logging did not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not a list of levels and targets.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The system gave no thread for the writer.
    #[error("the log's writer thread does not start")]
    Thread(#[source] std::io::Error),
}

/// A subscriber that writes its lines to `writer`, and the guard that gets the last of them out.
///
/// Lines pass a bounded buffer to a thread that alone touches `writer`, so a terminal or pipe
/// that nobody reads never holds up a request; lines that do not fit are counted and the count is
/// logged. Nothing global is set: the binary installs the subscriber, and calls
/// [`LogGuard::flush`] before it exits, since `std::process::exit` drops nothing.
///
/// # Errors
///
/// [`LogError`].
pub fn subscriber<W: Write + Send + 'static>(
    options: &LogOptions,
    writer: W,
) -> Result<
    (impl tracing::Subscriber + for<'a> LookupSpan<'a> + Send + Sync + use<W>, LogGuard),
    LogError,
> {
    let targets = filter::targets(options.level, options.filter.as_deref())?;
    let style = line::Style { format: options.format, colour: options.colour };
    let (sink, mut guard) = sink::start(writer, style).map_err(LogError::Thread)?;
    guard.redact.clone_from(&options.redact);
    let lines = layer::Lines {
        style,
        sink,
        redactor: redact::Redactor::new(&options.redact),
        sampling: sampling::Sampling::new(options.sampling_rate),
        export: options.export.clone(),
    };
    Ok((Registry::default().with(targets).with(lines), guard))
}

/// The subscriber of [`subscriber`], erased, for a caller that keeps it in a field.
///
/// # Errors
///
/// [`LogError`].
pub fn dispatch<W: Write + Send + 'static>(
    options: &LogOptions,
    writer: W,
) -> Result<(tracing::Dispatch, LogGuard), LogError> {
    let (subscriber, guard) = subscriber(options, writer)?;
    Ok((tracing::Dispatch::new(subscriber), guard))
}

#[cfg(test)]
mod tests;
