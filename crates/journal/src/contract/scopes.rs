//! A foreign task is a missing one, whatever is asked of it.

use std::sync::Arc;

use convoke_model::{Caller, Cursor, SpiffeId, TaskState};

use super::lists::all;
use super::{agent, append, create, made, message, new_task, scope, status, step, task_id};
use crate::{Fence, Journal, JournalError, Scope};

pub(super) async fn check(make: impl Fn() -> Arc<dyn Journal>) {
    a_foreign_task_is_a_missing_one(&*make()).await;
}

/// Scopes that differ from `owner` in one thing.
pub(super) fn foreign_to(owner: &Scope) -> Vec<Scope> {
    let mut other_agent = owner.clone();
    other_agent.agent = SpiffeId::parse("spiffe://example.org/other").unwrap();
    let mut other_tenant = owner.clone();
    other_tenant.tenant = "other.org".into();
    let mut other_app = owner.clone();
    other_app.app = "other".into();
    let anonymous = Scope::new(agent(), &Caller::Anonymous);
    vec![scope("example.org", "b"), other_agent, other_tenant, other_app, anonymous]
}

async fn a_foreign_task_is_a_missing_one(journal: &dyn Journal) {
    let owner = scope("example.org", "a");
    let fence = create(journal, &owner, "t").await;
    let start = Cursor { epoch: journal.epoch(), seq: 0 };
    for foreign in foreign_to(&owner) {
        for name in ["t", "missing"] {
            let id = task_id(name);
            assert_eq!(journal.read(&foreign, &id).await.unwrap(), None);
            assert_eq!(journal.head(&foreign, &id).await.unwrap(), None);
            for epoch in [start.epoch, start.epoch.wrapping_add(1)] {
                let after = Cursor { epoch, ..start };
                assert_eq!(journal.events(&foreign, &id, after).await.unwrap(), None);
            }
            // Neither the number of its newest event nor the right to work on it makes a difference.
            for (seq, fence) in [(1, fence), (7, fence), (1, Fence(fence.0.wrapping_add(1)))] {
                let cancel = step(seq, fence, vec![status(TaskState::Canceled)]);
                let refused = append(journal, &foreign, name, cancel).await.unwrap_err();
                assert!(matches!(&refused, JournalError::NotFound { .. }), "{refused}");
                assert_eq!(refused.to_string(), format!("task `{name}` does not exist"));
            }
        }
        let page = journal.list(&foreign, all()).await.unwrap();
        assert_eq!((page.tasks.len(), page.next, page.total), (0, None, 0));

        // A name that another owner uses is as free as any, and the two tasks stay apart.
        let own = made(journal.create(&foreign, new_task("t", "mine"), None).await);
        let stored = journal.read(&foreign, &task_id("t")).await.unwrap().unwrap();
        assert_eq!(stored.task.history, [message("mine")]);
        let end = step(1, own, vec![status(TaskState::Canceled)]);
        assert_eq!(append(journal, &foreign, "t", end).await.unwrap(), 2);
        assert_eq!(journal.list(&foreign, all()).await.unwrap().total, 1);
    }
    let stored = journal.read(&owner, &task_id("t")).await.unwrap().unwrap();
    assert_eq!((stored.last_seq, &stored.task.history[..]), (1, &[message("t")][..]));
    assert_eq!(journal.list(&owner, all()).await.unwrap().total, 1);
}
