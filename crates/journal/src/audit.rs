//! Where audit records go.

use std::io;
use std::path::Path;
use std::sync::Arc;

use convoke_model::{AuditEvent, AuditRecord};

use crate::BoxFuture;

/// Takes audit records, in bounded memory, and never loses one without saying so.
///
/// [`submit`](Self::submit) is on the path of every request: it moves the record and returns.
pub trait AuditSink: Send + Sync + 'static {
    /// Hands `record` over; it is written soon, in the order of handing over.
    ///
    /// # Errors
    ///
    /// [`AuditError`] if the record was not taken. What it speaks of must then not be done.
    fn submit(&self, record: AuditRecord) -> Result<(), AuditError>;

    /// Hands over a record as the line that was made of it, without its end. A journal that kept the
    /// line does so when it cannot know whether the sink has written the record; so a record may be
    /// there twice, and is never missing.
    ///
    /// # Errors
    ///
    /// [`AuditError`] if the line was not taken.
    fn resubmit(&self, line: String) -> Result<(), AuditError>;

    /// Hands over what happened to the node itself, as [`submit`](Self::submit) does a decision.
    ///
    /// # Errors
    ///
    /// [`AuditError`] if the event was not taken.
    fn note(&self, event: AuditEvent) -> Result<(), AuditError>;

    /// Waits until every record taken so far is written (and synced, if the sink does that).
    ///
    /// # Errors
    ///
    /// [`AuditError::Unwritable`] or [`AuditError::Closed`] if they could not be written; a sink
    /// that recovers writes them later all the same.
    fn flush(&self) -> BoxFuture<'_, Result<(), AuditError>>;

    /// Whether an effect has to wait for [`flush`](Self::flush) after its record was submitted.
    fn waits(&self) -> bool;

    /// Whether records are taken and written at present. For health and metrics.
    fn healthy(&self) -> bool;

    /// How many records there were. For metrics.
    fn counts(&self) -> AuditCounts;
}

/// How many records a sink has seen since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AuditCounts {
    /// Records that were written.
    pub written: u64,
    /// Records that were not taken, each of which refused a call.
    pub refused: u64,
}

/// Why an audit record was not taken or not written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AuditError {
    /// Records come faster than they can be written.
    #[error("the audit queue is full ({records_max} records)")]
    Full {
        /// How many records may wait at a time.
        records_max: usize,
    },
    /// The file cannot be written; the sink keeps what it took and tries again by itself.
    #[error("audit file `{path}` cannot be written; free space or fix its permissions")]
    Unwritable {
        /// The file.
        path: Arc<Path>,
        /// What the last try said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The sink was closed before it could write what it took.
    #[error("{records} audit records were not written to `{path}`")]
    Lost {
        /// How many.
        records: usize,
        /// The file.
        path: Arc<Path>,
        /// What the last try said, if there was one.
        #[source]
        source: Option<Arc<io::Error>>,
    },
    /// The sink is closed.
    #[error("the audit log is closed")]
    Closed,
}
