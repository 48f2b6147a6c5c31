//! Audit records are kept before the change that they speak of can be seen, and with it or not at
//! all.

use std::sync::Arc;
use std::task::{Context, Waker};

use convoke_model::{MessageId, TaskState, UnixMillis};

use super::{
    RECORDS_MAX, append, audit, create, first_step, made, new_task, scope, seq, status, step,
    task_id,
};
use crate::{
    AuditError, AuditSink, Created, Fence, Journal, JournalError, MemorySink, NewTask, SendKey,
};

pub(super) async fn check<F>(make: &F)
where
    F: Fn(Arc<dyn AuditSink>) -> Arc<dyn Journal>,
{
    let sink = Arc::new(MemorySink::new(RECORDS_MAX));
    audit_keeps_the_order(&*make(Arc::clone(&sink) as _), &sink).await;
    let sink = Arc::new(MemorySink::new(RECORDS_MAX));
    a_second_sending_is_recorded(&*make(Arc::clone(&sink) as _), &sink).await;
    let sink = Arc::new(MemorySink::new(1));
    a_full_sink_fails_the_commit(&*make(Arc::clone(&sink) as _), &sink).await;
    let sink = Arc::new(MemorySink::holding(RECORDS_MAX));
    nothing_is_visible_before_its_audit(&*make(Arc::clone(&sink) as _), &sink).await;
    let sink = Arc::new(MemorySink::new(RECORDS_MAX));
    a_failed_commit_leaves_no_audit(&*make(Arc::clone(&sink) as _), &sink).await;
}

fn requests(sink: &MemorySink) -> Vec<String> {
    sink.records().iter().map(|record| record.request_id.to_string()).collect()
}

async fn audit_keeps_the_order(journal: &dyn Journal, sink: &MemorySink) {
    let (owner, id) = (scope("example.org", "a"), task_id("t"));
    let fence = made(journal.create(&owner, new_task("t", ""), Some(audit("1"))).await);
    journal.record(audit("2")).unwrap();
    let end = first_step(fence, vec![status(TaskState::Canceled)]);
    journal.append(&owner, &id, end, Some(audit("3"))).await.unwrap();
    journal.flush().await.unwrap();
    assert_eq!(requests(sink), ["1", "2", "3"]);
}

async fn a_second_sending_is_recorded(journal: &dyn Journal, sink: &MemorySink) {
    let owner = scope("example.org", "a");
    let sent = |id: &str, digest: u8| {
        let message_id = MessageId::parse("m").unwrap();
        let until = UnixMillis(9_000_000_000_000);
        let send = Some(SendKey { message_id, digest: [digest; 32], until });
        NewTask { send, ..new_task(id, "") }
    };
    made(journal.create(&owner, sent("t", 1), Some(audit("1"))).await);
    let again = journal.create(&owner, sent("u", 1), Some(audit("2"))).await.unwrap();
    assert_eq!(again, Created::Known(task_id("t")));
    journal.create(&owner, sent("v", 2), Some(audit("3"))).await.unwrap_err();
    journal.flush().await.unwrap();
    assert_eq!(requests(sink), ["1", "2"]);
}

async fn a_full_sink_fails_the_commit(journal: &dyn Journal, sink: &MemorySink) {
    let full = |error: &JournalError| matches!(error, JournalError::Audit(AuditError::Full { .. }));
    let (owner, id) = (scope("example.org", "a"), task_id("t"));
    let fence = made(journal.create(&owner, new_task("t", ""), Some(audit("1"))).await);
    let refused = journal.create(&owner, new_task("u", ""), Some(audit("2"))).await.unwrap_err();
    assert!(full(&refused), "{refused}");
    let end = first_step(fence, vec![status(TaskState::Canceled)]);
    let refused = journal.append(&owner, &id, end, Some(audit("3"))).await.unwrap_err();
    assert!(full(&refused), "{refused}");
    assert!(full(&journal.record(audit("4")).unwrap_err()));
    assert_eq!(seq(journal, &owner, "u").await, None);
    assert_eq!(seq(journal, &owner, "t").await, Some(1));
    assert_eq!((requests(sink), sink.counts().refused), (vec!["1".to_owned()], 3));
    // What needs no record goes on, and nothing of what was refused stands in its way.
    let end = first_step(fence, vec![status(TaskState::Failed)]);
    assert_eq!(append(journal, &owner, "t", end).await.unwrap(), 2);
    create(journal, &owner, "u").await;
}

async fn nothing_is_visible_before_its_audit(journal: &dyn Journal, sink: &MemorySink) {
    let owner = scope("example.org", "a");
    let fence = create(journal, &owner, "t").await;
    let id = task_id("t");
    let mut creating = journal.create(&owner, new_task("u", ""), Some(audit("1")));
    let end = first_step(fence, vec![status(TaskState::Canceled)]);
    let mut ending = journal.append(&owner, &id, end, Some(audit("2")));
    let mut context = Context::from_waker(Waker::noop());
    assert!(creating.as_mut().poll(&mut context).is_pending());
    assert!(ending.as_mut().poll(&mut context).is_pending());
    assert_eq!(seq(journal, &owner, "u").await, None);
    assert_eq!(seq(journal, &owner, "t").await, Some(1));
    sink.release();
    made(creating.await);
    assert_eq!(ending.await.unwrap(), 2);
    assert_eq!(seq(journal, &owner, "u").await, Some(1));
    assert_eq!(seq(journal, &owner, "t").await, Some(2));
}

async fn a_failed_commit_leaves_no_audit(journal: &dyn Journal, sink: &MemorySink) {
    let (owner, id) = (scope("example.org", "a"), task_id("t"));
    let fence = create(journal, &owner, "t").await;
    journal.create(&owner, new_task("t", ""), Some(audit("1"))).await.unwrap_err();
    let end = |seq, fence| step(seq, fence, vec![status(TaskState::Canceled)]);
    journal.append(&owner, &id, end(7, fence), Some(audit("2"))).await.unwrap_err();
    let missing = task_id("u");
    journal.append(&owner, &missing, end(1, fence), Some(audit("3"))).await.unwrap_err();
    let late = end(1, Fence(fence.0.wrapping_add(1)));
    journal.append(&owner, &id, late, Some(audit("4"))).await.unwrap_err();
    journal.flush().await.unwrap();
    assert_eq!(requests(sink), Vec::<String>::new());
}
