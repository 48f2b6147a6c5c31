//! The words of Convoke and the rules that hold for them everywhere.
//!
//! This crate has no socket, runtime, clock or random source: time, answers and identifiers come
//! in as arguments. Wire shapes are `a2a`'s, stored shapes `journal`'s; what both speak about is
//! here.

mod audit;
mod caller;
mod chain;
mod decision;
mod fault;
mod fold;
mod ids;
mod json;
pub mod limits;
mod operation;
mod secret;
mod spiffe;
mod system;
mod task;
mod time;
mod trace;
mod unique;
mod work;

pub use audit::{AuditEvent, AuditEventKind, AuditOutcome, AuditRecord, write_json_string};
pub use caller::{Caller, Principal, TrustLevel};
pub use chain::chain;
pub use decision::{Decision, Reason, Revision};
pub use fault::{Fault, FaultCode, FieldViolation};
pub use fold::EventError;
pub use ids::{ArtifactId, CapabilityName, ContextId, IdError, MessageId, RequestId, TaskId};
pub use json::{Json, JsonError};
pub use operation::{
    CancelTask, Cursor, CursorError, GetTask, ListTasks, Operation, OperationKind,
    SendConfiguration, SendMessage, SubscribeToTask,
};
pub use secret::Secret;
pub use spiffe::{SpiffeId, SpiffeIdError, TrustDomain};
pub use system::{system_error, system_words};
pub use task::{Artifact, Content, Message, Part, Role, Task, TaskEvent, TaskState, TaskStatus};
pub use time::{TimestampText, UnixMillis};
pub use trace::{TRACEPARENT, TraceContext};
pub use unique::{NotUnique, check_keys};
pub use work::{Checkpoint, Priority, TaskRecord, Terms, Work};
