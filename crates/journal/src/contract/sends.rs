//! What is sent twice under one name is one task.

use std::sync::Arc;

use convoke_model::{EventError, MessageId, TaskState, UnixMillis};

use super::lists::all;
use super::scopes::foreign_to;
use super::{append, audit, made, new_task, scope, seq, status, step, task_id};
use crate::{Created, Journal, JournalError, NewTask, SendKey};

/// Far enough from any clock.
const LATER: UnixMillis = UnixMillis(9_000_000_000_000);

pub(super) async fn check(make: impl Fn() -> Arc<dyn Journal>) {
    many_copies_are_one_task(&make()).await;
    another_content_is_a_conflict(&*make()).await;
    a_known_task_may_have_ended(&*make()).await;
    names_are_the_owners(&*make()).await;
    a_name_is_free_after_its_time(&*make()).await;
    a_refused_task_takes_no_name(&*make()).await;
}

/// The task `id`, sent under `name` with a content of that digest.
fn sent(id: &str, name: &str, digest: u8, until: UnixMillis) -> NewTask {
    let message_id = MessageId::parse(name).unwrap();
    NewTask { send: Some(SendKey { message_id, digest: [digest; 32], until }), ..new_task(id, id) }
}

async fn many_copies_are_one_task(journal: &Arc<dyn Journal>) {
    let owner = scope("example.org", "a");
    let copies = (0..100).map(|n| {
        let (journal, owner) = (Arc::clone(journal), owner.clone());
        let name = format!("t{n}");
        tokio::spawn(async move {
            let record = Some(audit(&name));
            let created = journal.create(&owner, sent(&name, "m", 1, LATER), record).await;
            (name, created.unwrap())
        })
    });
    let (mut new, mut known) = (Vec::new(), Vec::new());
    for copy in copies.collect::<Vec<_>>() {
        match copy.await.unwrap() {
            (name, Created::New { last_seq: 1, .. }) => new.push(name),
            (_, Created::Known(id)) => known.push(id.to_string()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((new.len(), known.len()), (1, 99));
    assert!(known.iter().all(|id| *id == new[0]));
    assert_eq!(journal.list(&owner, all()).await.unwrap().total, 1);
}

async fn another_content_is_a_conflict(journal: &dyn Journal) {
    let owner = scope("example.org", "a");
    made(journal.create(&owner, sent("t", "m", 1, LATER), None).await);
    let refused = journal.create(&owner, sent("u", "m", 2, LATER), None).await.unwrap_err();
    assert!(
        matches!(&refused, JournalError::SendConflict { message_id } if message_id.as_str() == "m"),
        "{refused}"
    );
    assert_eq!(seq(journal, &owner, "u").await, None);
    // Without a key the same name is no name.
    made(journal.create(&owner, new_task("u", "u"), None).await);
    made(journal.create(&owner, sent("v", "other", 2, LATER), None).await);
}

async fn a_known_task_may_have_ended(journal: &dyn Journal) {
    let owner = scope("example.org", "a");
    let fence = made(journal.create(&owner, sent("t", "m", 1, LATER), None).await);
    let end = step(1, fence, vec![status(TaskState::Failed)]);
    append(journal, &owner, "t", end).await.unwrap();
    let again = journal.create(&owner, sent("u", "m", 1, LATER), None).await.unwrap();
    assert_eq!(again, Created::Known(task_id("t")));
}

async fn names_are_the_owners(journal: &dyn Journal) {
    let owner = scope("example.org", "a");
    made(journal.create(&owner, sent("t", "m", 1, LATER), None).await);
    for foreign in foreign_to(&owner) {
        for digest in [1, 2] {
            let name = format!("t{digest}");
            let created = journal.create(&foreign, sent(&name, "m", 1, LATER), None).await;
            match created.unwrap() {
                Created::New { last_seq: 1, .. } => assert_eq!(digest, 1),
                Created::Known(id) => assert_eq!((digest, id.as_str()), (2, "t1")),
                other => panic!("{other:?}"),
            }
        }
    }
}

async fn a_name_is_free_after_its_time(journal: &dyn Journal) {
    let owner = scope("example.org", "a");
    let long_ago = UnixMillis(1);
    made(journal.create(&owner, sent("t", "m", 1, long_ago), None).await);
    made(journal.create(&owner, sent("u", "m", 1, long_ago), None).await);
    made(journal.create(&owner, sent("v", "m", 2, LATER), None).await);
    let again = journal.create(&owner, sent("w", "m", 2, LATER), None).await.unwrap();
    assert_eq!(again, Created::Known(task_id("v")));
}

async fn a_refused_task_takes_no_name(journal: &dyn Journal) {
    let owner = scope("example.org", "a");
    let refused = NewTask { events: Vec::new(), ..sent("t", "m", 1, LATER) };
    let refused = journal.create(&owner, refused, None).await;
    assert!(matches!(refused, Err(JournalError::Event(EventError::NotSubmitted))));
    made(journal.create(&owner, sent("t", "m", 2, LATER), None).await);
}
