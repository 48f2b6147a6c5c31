//! What every journal has to do, as tests that each implementation runs.
//!
//! [`check_all`] runs them against fresh journals, and [`check_restart`] against one that is opened
//! again; the other items make what they and other tests of journals need.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "these are tests, which tell what is wrong by panicking"
)]

mod audits;
mod claims;
mod events;
mod lists;
mod pages;
mod scopes;
mod sends;
mod tasks;

use std::sync::Arc;

use convoke_model::{
    Artifact, ArtifactId, AuditOutcome, AuditRecord, Caller, CapabilityName, Content, ContextId,
    Message, MessageId, OperationKind, Part, Principal, Priority, RequestId, Role, SpiffeId,
    TaskEvent, TaskId, TaskState, TaskStatus, Terms, UnixMillis,
};

use crate::{AuditSink, Created, Fence, Journal, JournalError, MemorySink, NewTask, Scope, Step};

pub use claims::check_restart;
pub use lists::all as everything;

/// How many records the sinks of these tests take when they are meant to have room.
const RECORDS_MAX: usize = 10_000;

/// Runs what holds for any journal. `make` gives a fresh one that hands its audit records to the
/// sink.
pub async fn check_all<F>(make: F)
where
    F: Fn(Arc<dyn AuditSink>) -> Arc<dyn Journal>,
{
    let fresh = || make(roomy());
    tasks::check(fresh).await;
    scopes::check(fresh).await;
    sends::check(fresh).await;
    events::check(fresh).await;
    lists::check(fresh).await;
    pages::check(fresh).await;
    claims::check(fresh).await;
    audits::check(&make).await;
}

fn roomy() -> Arc<dyn AuditSink> {
    Arc::new(MemorySink::new(RECORDS_MAX))
}

/// The scope of the caller `name`, of trust domain `domain`, at the agent of these tests.
#[must_use]
pub fn scope(domain: &str, name: &str) -> Scope {
    let agent = agent();
    let id = SpiffeId::parse(&format!("spiffe://{domain}/{name}")).unwrap();
    let principal = Principal::from_verified_svid(id, &agent);
    Scope::new(agent, &Caller::Principal(Arc::new(principal)))
}

/// A task of that name with its submission, whose message says `text`.
#[must_use]
pub fn new_task(id: &str, text: &str) -> NewTask {
    NewTask {
        id: task_id(id),
        context_id: ContextId::parse("context").unwrap(),
        capability: CapabilityName::parse("count_words").unwrap(),
        subject: Some("spiffe://example.org/user/ann".into()),
        terms: Terms { priority: Priority::High, deadline: Some(UnixMillis(9_000_000_000_000)) },
        events: vec![TaskEvent::Submitted { message: message(text), at: UnixMillis(1) }],
        records: Vec::new(),
        send: None,
    }
}

/// The name of a task.
#[must_use]
pub fn task_id(id: &str) -> TaskId {
    TaskId::parse(id).unwrap()
}

/// `events` for a task that was just made, with nothing but its submission.
#[must_use]
pub fn first_step(fence: Fence, events: Vec<TaskEvent>) -> Step {
    step(1, fence, events)
}

/// `events` for a task whose newest event is `expected_seq`.
#[must_use]
pub fn step(expected_seq: u64, fence: Fence, events: Vec<TaskEvent>) -> Step {
    Step { expected_seq, fence, events, records: Vec::new() }
}

/// The event by which a task comes to `state`.
#[must_use]
pub fn status(state: TaskState) -> TaskEvent {
    status_at(state, 2)
}

/// The same, `at` milliseconds after 1970 began.
#[must_use]
pub fn status_at(state: TaskState, at: u64) -> TaskEvent {
    TaskEvent::Status(TaskStatus { state, message: None, timestamp: UnixMillis(at) })
}

/// The event that gives a task the artifact `id`, or adds to it.
#[must_use]
pub fn artifact(id: &str, text: &str, append: bool) -> TaskEvent {
    let artifact = Artifact {
        artifact_id: ArtifactId::parse(id).unwrap(),
        name: None,
        description: None,
        parts: vec![Part::new(Content::Text(text.to_owned()))],
        metadata: None,
        extensions: Vec::new(),
        unknown: Vec::new(),
    };
    TaskEvent::Artifact { artifact, append, last: true }
}

/// The audit record of the request `request_id`.
#[must_use]
pub fn audit(request_id: &str) -> AuditRecord {
    AuditRecord {
        at: UnixMillis(1),
        request_id: RequestId::parse(request_id).unwrap(),
        trace: convoke_model::TraceContext::root(1, 1, false),
        agent: agent(),
        caller: "spiffe://example.org/orchestrator".into(),
        remote_addr: "127.0.0.1:40000".into(),
        operation: OperationKind::SendMessage,
        capability: None,
        task_id: None,
        params_sha256: None,
        outcome: AuditOutcome::Refused("contract test"),
        repeated: 0,
    }
}

pub(crate) fn agent() -> SpiffeId {
    SpiffeId::parse("spiffe://example.org/worker").unwrap()
}

pub(crate) fn message(text: &str) -> Message {
    let parts = vec![Part::new(Content::Text(text.to_owned()))];
    Message::new(MessageId::parse("message").unwrap(), Role::User, parts)
}

/// Makes a task of that name, and expects that it is new.
async fn create(journal: &dyn Journal, scope: &Scope, id: &str) -> Fence {
    made(journal.create(scope, new_task(id, id), None).await)
}

/// The right to work on a task that was just made, with its submission alone.
fn made(created: Result<Created, JournalError>) -> Fence {
    match created.unwrap() {
        Created::New { last_seq: 1, fence } => fence,
        other => panic!("not a new task: {other:?}"),
    }
}

async fn append(
    journal: &dyn Journal,
    scope: &Scope,
    id: &str,
    step: Step,
) -> Result<u64, JournalError> {
    journal.append(scope, &task_id(id), step, None).await
}

async fn seq(journal: &dyn Journal, scope: &Scope, id: &str) -> Option<u64> {
    let read = journal.read(scope, &task_id(id)).await.unwrap().map(|stored| stored.last_seq);
    let head = journal.head(scope, &task_id(id)).await.unwrap().map(|head| head.last_seq);
    assert_eq!(read, head);
    read
}
