//! Lines to a collector, beside those that are written.

use std::time::SystemTime;

use tracing::Metadata;

use crate::config::TracingConfig;
use crate::observe::otlp::{self, Exporter, LogLine, OtlpError, Queue};

/// Sends lines to an OpenTelemetry collector until it is closed.
pub struct LogExporter(Exporter<LogLine>);

/// Where lines are left for a [`LogExporter`]. Cloning gives another handle to the same.
#[derive(Clone)]
pub struct LogExport(Queue<LogLine>);

impl LogExporter {
    /// Sends the lines of the agent `name`, of this version, as `config` says. It needs a runtime of
    /// tokio.
    ///
    /// # Errors
    ///
    /// [`OtlpError`] names the key that is wrong.
    pub fn start(config: &TracingConfig, name: &str, version: &str) -> Result<Self, OtlpError> {
        otlp::logs(config, name, version).map(Self)
    }

    /// A handle for [`LogOptions::export`](super::LogOptions::export).
    #[must_use]
    pub fn lines(&self) -> LogExport {
        LogExport(self.0.queue())
    }

    /// Sends what is there and ends.
    pub async fn close(self) {
        self.0.close().await;
    }
}

impl LogExport {
    /// Leaves a line: its message as it stands in the text of a JSON string, and its fields as JSON
    /// texts.
    pub(super) fn line(
        &self,
        at: SystemTime,
        metadata: &'static Metadata<'static>,
        message: &str,
        fields: Vec<(&'static str, String)>,
    ) {
        // What hyper and the connection below say of sending lines would be sent again.
        let is_own = ["hyper", "h2", "tokio", "rustls", "convoke_node::observe::otlp"]
            .iter()
            .any(|target| metadata.target().starts_with(target));
        if !is_own {
            let (level, logger) = (*metadata.level(), metadata.target());
            self.0.leave(LogLine { at, level, message: message.to_owned(), fields, logger });
        }
    }
}

impl std::fmt::Debug for LogExport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LogExport").finish()
    }
}
