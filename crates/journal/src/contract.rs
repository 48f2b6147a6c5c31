//! What every journal has to do, as tests that each implementation runs.
//!
//! [`check_all`] runs them all against fresh journals; the other items make what they and other
//! tests of journals need.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "these are tests, which tell what is wrong by panicking"
)]

use std::sync::Arc;
use std::task::{Context, Waker};

use convoke_model::{
    Artifact, ArtifactId, AuditOutcome, AuditRecord, Caller, CapabilityName, Content, ContextId,
    EventError, Message, MessageId, OperationKind, Part, Principal, RequestId, Role, SpiffeId,
    TaskEvent, TaskId, TaskState, TaskStatus, UnixMillis,
};

use crate::{AuditError, AuditSink, Journal, JournalError, MemorySink, NewTask, Scope};

/// How many records the sinks of these tests take when they are meant to have room.
const RECORDS_MAX: usize = 10_000;

/// Runs the whole contract. `make` gives a fresh journal that hands its audit records to the sink.
pub async fn check_all<F>(make: F)
where
    F: Fn(Arc<dyn AuditSink>) -> Arc<dyn Journal>,
{
    commits_are_read_back(&*make(roomy())).await;
    expected_seq_has_one_winner(&make(roomy())).await;
    a_commit_is_all_or_nothing(&*make(roomy())).await;
    an_ended_task_takes_no_events(&*make(roomy())).await;
    a_foreign_task_is_a_missing_one(&*make(roomy())).await;
    a_reader_keeps_what_it_read(&*make(roomy())).await;

    let sink = Arc::new(MemorySink::new(RECORDS_MAX));
    audit_keeps_the_order(&*make(Arc::clone(&sink) as _), &sink).await;
    let sink = Arc::new(MemorySink::new(1));
    a_full_sink_fails_the_commit(&*make(Arc::clone(&sink) as _), &sink).await;
    let sink = Arc::new(MemorySink::holding(RECORDS_MAX));
    nothing_is_visible_before_its_audit(&*make(Arc::clone(&sink) as _), &sink).await;
    let sink = Arc::new(MemorySink::new(RECORDS_MAX));
    a_failed_commit_leaves_no_audit(&*make(Arc::clone(&sink) as _), &sink).await;
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
        events: vec![TaskEvent::Submitted { message: message(text), at: UnixMillis(1) }],
    }
}

/// The name of a task.
#[must_use]
pub fn task_id(id: &str) -> TaskId {
    TaskId::parse(id).unwrap()
}

/// The event by which a task comes to `state`.
#[must_use]
pub fn status(state: TaskState) -> TaskEvent {
    TaskEvent::Status(TaskStatus { state, message: None, timestamp: UnixMillis(2) })
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

fn agent() -> SpiffeId {
    SpiffeId::parse("spiffe://example.org/worker").unwrap()
}

fn message(text: &str) -> Message {
    let parts = vec![Part::new(Content::Text(text.to_owned()))];
    Message::new(MessageId::parse("message").unwrap(), Role::User, parts)
}

async fn create(journal: &dyn Journal, scope: &Scope, id: &str) {
    assert_eq!(journal.create(scope, new_task(id, id), None).await.unwrap(), 1);
}

async fn seq(journal: &dyn Journal, scope: &Scope, id: &str) -> Option<u64> {
    journal.read(scope, &task_id(id)).await.unwrap().map(|stored| stored.last_seq)
}

async fn commits_are_read_back(journal: &dyn Journal) {
    let (owner, id) = (scope("example.org", "a"), task_id("t"));
    let mut new = new_task("t", "hello");
    new.events.push(status(TaskState::Working));
    assert_eq!(journal.create(&owner, new, None).await.unwrap(), 2);
    let again = journal.create(&owner, new_task("t", "other"), None).await;
    assert!(matches!(again, Err(JournalError::Exists { id }) if id.as_str() == "t"));

    let events = vec![artifact("r", "one", false), artifact("r", "two", true)];
    assert_eq!(journal.append(&owner, &id, 2, events, None).await.unwrap(), 4);
    assert_eq!(journal.append(&owner, &id, 4, Vec::new(), None).await.unwrap(), 4);
    let end = vec![status(TaskState::Completed)];
    assert_eq!(journal.append(&owner, &id, 4, end, None).await.unwrap(), 5);
    journal.flush().await.unwrap();

    let stored = journal.read(&owner, &id).await.unwrap().unwrap();
    assert_eq!((stored.last_seq, stored.capability.as_str()), (5, "count_words"));
    assert_eq!(stored.subject.as_deref(), Some("spiffe://example.org/user/ann"));
    let task = &*stored.task;
    assert_eq!((task.id.as_str(), task.context_id.as_str()), ("t", "context"));
    assert_eq!(task.status.state, TaskState::Completed);
    assert_eq!(task.history, [message("hello")]);
    assert_eq!(task.artifacts.len(), 1);
    assert_eq!(task.artifacts[0].parts, [Part::new(Content::Text("onetwo".to_owned()))]);
}

async fn expected_seq_has_one_winner(journal: &Arc<dyn Journal>) {
    let owner = scope("example.org", "a");
    create(&**journal, &owner, "t").await;
    let racers = (0..16).map(|_| {
        let (journal, owner) = (Arc::clone(journal), owner.clone());
        tokio::spawn(async move {
            let events = vec![status(TaskState::Canceled)];
            journal.append(&owner, &task_id("t"), 1, events, None).await
        })
    });
    let mut winners = 0;
    for racer in racers.collect::<Vec<_>>() {
        match racer.await.unwrap() {
            Ok(2) => winners += 1,
            Err(JournalError::Conflict { expected: 1, actual: 2, .. }) => {}
            other => panic!("neither won nor lost: {other:?}"),
        }
    }
    assert_eq!(winners, 1);
}

async fn a_commit_is_all_or_nothing(journal: &dyn Journal) {
    let owner = scope("example.org", "a");
    create(journal, &owner, "t").await;
    let before = journal.read(&owner, &task_id("t")).await.unwrap();
    let events = vec![artifact("r", "one", false), artifact("other", "two", true)];
    let refused = journal.append(&owner, &task_id("t"), 1, events, None).await;
    assert!(matches!(refused, Err(JournalError::Event(EventError::UnknownArtifact(_)))));
    assert_eq!(journal.read(&owner, &task_id("t")).await.unwrap(), before);

    for events in [vec![], vec![status(TaskState::Working)]] {
        let refused = journal.create(&owner, NewTask { events, ..new_task("u", "") }, None).await;
        assert!(matches!(refused, Err(JournalError::Event(EventError::NotSubmitted))));
    }
    assert_eq!(seq(journal, &owner, "u").await, None);
}

async fn an_ended_task_takes_no_events(journal: &dyn Journal) {
    let (owner, id) = (scope("example.org", "a"), task_id("t"));
    create(journal, &owner, "t").await;
    let end = vec![status(TaskState::Completed)];
    assert_eq!(journal.append(&owner, &id, 1, end, None).await.unwrap(), 2);
    let end = vec![status(TaskState::Canceled)];
    let refused = journal.append(&owner, &id, 2, end, None).await;
    assert!(matches!(refused, Err(JournalError::Event(EventError::Ended))));
    assert_eq!(seq(journal, &owner, "t").await, Some(2));
}

async fn a_foreign_task_is_a_missing_one(journal: &dyn Journal) {
    let owner = scope("example.org", "a");
    create(journal, &owner, "t").await;
    let mut other_agent = owner.clone();
    other_agent.agent = SpiffeId::parse("spiffe://example.org/other").unwrap();
    let mut other_tenant = owner.clone();
    other_tenant.tenant = "other.org".into();
    let anonymous = Scope::new(agent(), &Caller::Anonymous);
    for foreign in [scope("example.org", "b"), other_agent, other_tenant, anonymous] {
        for name in ["t", "missing"] {
            let id = task_id(name);
            assert_eq!(journal.read(&foreign, &id).await.unwrap(), None);
            let cancel = vec![status(TaskState::Canceled)];
            let refused = journal.append(&foreign, &id, 1, cancel, None).await.unwrap_err();
            assert_eq!(refused.to_string(), format!("task `{name}` does not exist"));
        }
        // A name that another owner uses is as free as any, and the two tasks stay apart.
        let own = new_task("t", "mine");
        assert_eq!(journal.create(&foreign, own, None).await.unwrap(), 1);
        let stored = journal.read(&foreign, &task_id("t")).await.unwrap().unwrap();
        assert_eq!(stored.task.history, [message("mine")]);
        let end = vec![status(TaskState::Canceled)];
        assert_eq!(journal.append(&foreign, &task_id("t"), 1, end, None).await.unwrap(), 2);
    }
    let stored = journal.read(&owner, &task_id("t")).await.unwrap().unwrap();
    assert_eq!((stored.last_seq, &stored.task.history[..]), (1, &[message("t")][..]));
}

async fn a_reader_keeps_what_it_read(journal: &dyn Journal) {
    let (owner, id) = (scope("example.org", "a"), task_id("t"));
    create(journal, &owner, "t").await;
    let earlier = journal.read(&owner, &id).await.unwrap().unwrap();
    let end = vec![status(TaskState::Completed)];
    journal.append(&owner, &id, 1, end, None).await.unwrap();
    assert_eq!(earlier.task.status.state, TaskState::Submitted);
    assert_eq!(seq(journal, &owner, "t").await, Some(2));
}

fn requests(sink: &MemorySink) -> Vec<String> {
    sink.records().iter().map(|record| record.request_id.to_string()).collect()
}

async fn audit_keeps_the_order(journal: &dyn Journal, sink: &MemorySink) {
    let (owner, id) = (scope("example.org", "a"), task_id("t"));
    journal.create(&owner, new_task("t", ""), Some(audit("1"))).await.unwrap();
    journal.record(audit("2")).unwrap();
    let end = vec![status(TaskState::Canceled)];
    journal.append(&owner, &id, 1, end, Some(audit("3"))).await.unwrap();
    journal.flush().await.unwrap();
    assert_eq!(requests(sink), ["1", "2", "3"]);
}

async fn a_full_sink_fails_the_commit(journal: &dyn Journal, sink: &MemorySink) {
    let full = |error: &JournalError| matches!(error, JournalError::Audit(AuditError::Full { .. }));
    let (owner, id) = (scope("example.org", "a"), task_id("t"));
    journal.create(&owner, new_task("t", ""), Some(audit("1"))).await.unwrap();
    let refused = journal.create(&owner, new_task("u", ""), Some(audit("2"))).await.unwrap_err();
    assert!(full(&refused), "{refused}");
    let end = vec![status(TaskState::Canceled)];
    let refused = journal.append(&owner, &id, 1, end, Some(audit("3"))).await.unwrap_err();
    assert!(full(&refused), "{refused}");
    assert!(full(&journal.record(audit("4")).unwrap_err()));
    assert_eq!(seq(journal, &owner, "u").await, None);
    assert_eq!(seq(journal, &owner, "t").await, Some(1));
    assert_eq!((requests(sink), sink.counts().refused), (vec!["1".to_owned()], 3));
}

async fn nothing_is_visible_before_its_audit(journal: &dyn Journal, sink: &MemorySink) {
    let owner = scope("example.org", "a");
    create(journal, &owner, "t").await;
    let id = task_id("t");
    let mut creating = journal.create(&owner, new_task("u", ""), Some(audit("1")));
    let end = vec![status(TaskState::Canceled)];
    let mut ending = journal.append(&owner, &id, 1, end, Some(audit("2")));
    let mut context = Context::from_waker(Waker::noop());
    assert!(creating.as_mut().poll(&mut context).is_pending());
    assert!(ending.as_mut().poll(&mut context).is_pending());
    assert_eq!(seq(journal, &owner, "u").await, None);
    assert_eq!(seq(journal, &owner, "t").await, Some(1));
    sink.release();
    assert_eq!((creating.await.unwrap(), ending.await.unwrap()), (1, 2));
    assert_eq!(seq(journal, &owner, "u").await, Some(1));
    assert_eq!(seq(journal, &owner, "t").await, Some(2));
}

async fn a_failed_commit_leaves_no_audit(journal: &dyn Journal, sink: &MemorySink) {
    let (owner, id) = (scope("example.org", "a"), task_id("t"));
    create(journal, &owner, "t").await;
    journal.create(&owner, new_task("t", ""), Some(audit("1"))).await.unwrap_err();
    let end = || vec![status(TaskState::Canceled)];
    journal.append(&owner, &id, 7, end(), Some(audit("2"))).await.unwrap_err();
    journal.append(&owner, &task_id("u"), 1, end(), Some(audit("3"))).await.unwrap_err();
    journal.flush().await.unwrap();
    assert_eq!(requests(sink), Vec::<String>::new());
}
