//! The durable record behind tasks and audit.
//!
//! [`Journal`] is what the node asks of it; [`MemoryJournal`] keeps everything in the process and
//! says so. [`AuditSink`] is where audit records go; [`JsonLinesSink`] writes them to a file.
//!
//! Two rules hold for every implementation. Every method is scoped by owner, so that a foreign task
//! looks exactly like a missing one. And an audit record is handed over before the change that it
//! speaks of can be seen; where it cannot be, nothing changes.

mod audit;
#[cfg(any(test, feature = "test-util"))]
pub mod contract;
mod journal;
mod json_lines;
mod memory;
#[cfg(any(test, feature = "test-util"))]
mod memory_sink;
mod page;
mod size;
mod sqlite;
mod stored;

use std::pin::Pin;

pub use audit::{AuditCounts, AuditError, AuditSink};
pub use journal::{
    Claimed, Created, Durability, EVENTS_PAGE_BYTES, Events, Fence, Head, Journal, JournalError,
    ListQuery, NewTask, Scope, SendKey, Step, StoredTask, TaskPage,
};
pub use json_lines::{
    AppendFile, AuditEntry, AuditOpenError, JsonLines, JsonLinesSink, Line, LinesOptions,
    RECORDS_MAX_DEFAULT, Rotation,
};
pub use memory::{MemoryJournal, MemoryLimits};
#[cfg(any(test, feature = "test-util"))]
pub use memory_sink::MemorySink;
pub use sqlite::maintenance;
pub use sqlite::{Fatal, OpenError, Retention, SqliteJournal, SqliteOptions, WriterCounts};

/// A future behind a pointer, so that the traits here can be used as objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
