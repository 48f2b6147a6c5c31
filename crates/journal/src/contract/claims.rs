//! Who works on a task has the right to, and whoever comes after a restart gets it.

use std::sync::Arc;

use convoke_model::{Checkpoint, Cursor, Json, SpiffeId, TaskRecord, TaskState};

use super::lists::{all, names};
use super::{
    agent, append, artifact, create, made, message, new_task, roomy, scope, seq, status, step,
    task_id,
};
use crate::{AuditSink, Created, Events, Journal, JournalError, ListQuery};

pub(super) async fn check(make: impl Fn() -> Arc<dyn Journal>) {
    what_is_worked_on_is_not_given_out(&*make()).await;
}

async fn what_is_worked_on_is_not_given_out(journal: &dyn Journal) {
    create(journal, &scope("example.org", "a"), "t").await;
    assert_eq!(journal.claim(&agent(), 10).await.unwrap(), []);
}

/// Runs what holds for journals that outlive their process. `open` opens one and the same store,
/// each time after the journal that it gave before was dropped.
pub async fn check_restart<F>(open: F)
where
    F: Fn(Arc<dyn AuditSink>) -> Arc<dyn Journal>,
{
    let owner = scope("example.org", "a");
    let other = scope("example.org", "b");
    let mut elsewhere = owner.clone();
    elsewhere.agent = SpiffeId::parse("spiffe://example.org/other").unwrap();

    let journal = open(roomy());
    let epoch = journal.epoch();
    let old = create(&*journal, &owner, "running").await;
    create(&*journal, &elsewhere, "of another agent").await;
    let ended = create(&*journal, &owner, "ended").await;
    let end = step(1, ended, vec![status(TaskState::Completed)]);
    append(&*journal, &owner, "ended", end).await.unwrap();
    create(&*journal, &other, "waiting").await;
    let checkpoint = Checkpoint { value: Json::parse(r#"{"page":7.0}"#).unwrap(), heard: 1 };
    let mut begun = step(
        1,
        old,
        vec![status(TaskState::Working), artifact("r", "one", false), artifact("r", "two", true)],
    );
    begun.records = vec![TaskRecord::Checkpoint(checkpoint.clone())];
    append(&*journal, &owner, "running", begun).await.unwrap();
    journal.flush().await.unwrap();
    let before = journal.read(&owner, &task_id("running")).await.unwrap().unwrap();
    let query = ListQuery { page_size: 1, ..all() };
    let page_token = journal.list(&owner, query.clone()).await.unwrap().next;
    assert!(page_token.is_some());
    drop(journal);

    let journal = open(roomy());
    assert_eq!(journal.epoch(), epoch, "nothing was lost, so places in streams still hold");
    let after = journal.read(&owner, &task_id("running")).await.unwrap().unwrap();
    assert_eq!(after, before);
    assert_eq!(after.work.checkpoint, Some(checkpoint));
    assert_eq!(after.task.history, [message("running")]);
    let cursor = Cursor { epoch, seq: 2 };
    let events = journal.events(&owner, &task_id("running"), cursor).await.unwrap().unwrap();
    let Events::Page { events, last_seq: 4, .. } = events else { panic!("{events:?}") };
    assert_eq!(events[0], (3, artifact("r", "one", false)));
    assert_eq!(events[1], (4, artifact("r", "two", true)));
    let page = journal.list(&owner, ListQuery { page_token, ..query }).await.unwrap();
    assert_eq!((names(&page).len(), page.total, page.next), (1, 2, None));

    // The holder has gone with its process. Until somebody claims the task, nobody works on it.
    let late = step(4, old, vec![status(TaskState::Canceled)]);
    let refused = append(&*journal, &owner, "running", late.clone()).await;
    assert!(matches!(refused, Err(JournalError::Fenced { .. })), "{refused:?}");
    assert_eq!(journal.claim(&agent(), 0).await.unwrap(), []);
    let [first] = &journal.claim(&agent(), 1).await.unwrap()[..] else { panic!("one") };
    assert_eq!((first.id.as_str(), &first.scope), ("running", &owner));
    assert_eq!((first.state, first.terms), (TaskState::Working, before.terms));
    assert_eq!(first.capability, before.capability);
    assert!(first.fence > old);
    // One made meanwhile has a holder.
    let new = made(journal.create(&owner, new_task("new", ""), None).await);
    let [second] = &journal.claim(&agent(), 10).await.unwrap()[..] else { panic!("one") };
    assert_eq!((second.id.as_str(), &second.scope), ("waiting", &other));
    assert_eq!(second.state, TaskState::Submitted);
    assert_eq!(journal.claim(&agent(), 10).await.unwrap(), []);
    let [third] = &journal.claim(&elsewhere.agent, 10).await.unwrap()[..] else { panic!("one") };
    assert_eq!((third.id.as_str(), &third.scope), ("of another agent", &elsewhere));

    let refused = append(&*journal, &owner, "running", late).await;
    assert!(matches!(refused, Err(JournalError::Fenced { .. })), "{refused:?}");
    let end = step(4, first.fence, vec![status(TaskState::Failed)]);
    assert_eq!(append(&*journal, &owner, "running", end).await.unwrap(), 5);
    assert_eq!(seq(&*journal, &owner, "running").await, Some(5));
    drop(journal);

    // What was claimed and not ended is free again once its second holder has gone.
    let journal = open(roomy());
    let claimed = journal.claim(&agent(), 10).await.unwrap();
    let ids: Vec<&str> = claimed.iter().map(|claimed| claimed.id.as_str()).collect();
    assert_eq!(ids, ["waiting", "new"]);
    assert!(claimed.iter().all(|claimed| claimed.fence > new));
    let again = journal.create(&owner, new_task("ended", ""), None).await;
    assert!(matches!(again, Err(JournalError::Exists { .. })));
    let created = journal.create(&owner, new_task("newest", ""), None).await.unwrap();
    assert!(matches!(created, Created::New { last_seq: 1, .. }));
}
