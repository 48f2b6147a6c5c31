//! Pages of a list fit together while tasks come and change, and their tokens are the list's own.

use std::sync::Arc;

use convoke_model::{CapabilityName, ContextId, TaskState, UnixMillis};

use super::lists::{all, names};
use super::scopes::foreign_to;
use super::{append, create, scope, status_at, step};
use crate::{Journal, JournalError, ListQuery, Scope};

pub(super) async fn check(make: impl Fn() -> Arc<dyn Journal>) {
    pages_hold_while_tasks_come_and_change(&*make()).await;
    the_last_page_is_known_as_the_last(&*make()).await;
    a_token_is_of_one_list(&*make()).await;
}

async fn pages_hold_while_tasks_come_and_change(journal: &dyn Journal) {
    let owner = scope("example.org", "a");
    let mut fences = Vec::new();
    for n in 0..10 {
        // All of one instant, so that only the order in which they were made tells them apart.
        fences.push(create(journal, &owner, &n.to_string()).await);
    }
    let query = ListQuery { page_size: 3, ..all() };
    let first = journal.list(&owner, query.clone()).await.unwrap();
    assert_eq!((names(&first), first.total), (vec!["9", "8", "7"], 10));
    // New ones stand in front, and so do those that have come to another status: those that were
    // shown already do not come again, and those that were not are where they were.
    create(journal, &owner, "new").await;
    for n in [8, 5] {
        let to = step(1, fences[n], vec![status_at(TaskState::Working, 9)]);
        append(journal, &owner, &n.to_string(), to).await.unwrap();
    }
    let query = ListQuery { page_token: first.next, page_size: 4, ..query };
    let second = journal.list(&owner, query.clone()).await.unwrap();
    assert_eq!((names(&second), second.total), (vec!["6", "4", "3", "2"], 10));
    // The same token gives the same page, and its end is where the next begins.
    assert_eq!(journal.list(&owner, query.clone()).await.unwrap(), second);
    let query = ListQuery { page_token: second.next, ..query };
    let last = journal.list(&owner, query).await.unwrap();
    assert_eq!((names(&last), last.total, &last.next), (vec!["1", "0"], 10, &None));
    let anew = journal.list(&owner, all()).await.unwrap();
    assert_eq!(names(&anew)[..4], ["8", "5", "new", "9"]);
    assert_eq!(anew.total, 11);
}

async fn the_last_page_is_known_as_the_last(journal: &dyn Journal) {
    let owner = scope("example.org", "a");
    let nothing = journal.list(&owner, ListQuery { page_size: 1, ..all() }).await.unwrap();
    assert_eq!((nothing.tasks.len(), nothing.total, nothing.next), (0, 0, None));
    for id in ["a", "b"] {
        create(journal, &owner, id).await;
    }
    let full = journal.list(&owner, ListQuery { page_size: 2, ..all() }).await.unwrap();
    assert_eq!((full.tasks.len(), full.next), (2, None));
}

async fn a_token_is_of_one_list(journal: &dyn Journal) {
    let owner = scope("example.org", "a");
    for id in ["a", "b", "c"] {
        create(journal, &owner, id).await;
        for foreign in foreign_to(&owner) {
            create(journal, &foreign, id).await;
        }
    }
    let query = ListQuery { page_size: 1, ..all() };
    let page_token = journal.list(&owner, query.clone()).await.unwrap().next;
    let token = page_token.clone().unwrap();
    let query = ListQuery { page_token, ..query };

    // How much is shown, and how many at a time, is no other list.
    let other = ListQuery { page_size: 2, history_length: None, artifacts: true, ..query.clone() };
    assert_eq!(names(&journal.list(&owner, other).await.unwrap()), ["b", "a"]);

    let refused = async |scope: &Scope, query: ListQuery| {
        let refused = journal.list(scope, query.clone()).await;
        assert!(matches!(refused, Err(JournalError::PageToken)), "{query:?}");
    };
    for foreign in foreign_to(&owner) {
        refused(&foreign, query.clone()).await;
    }
    let state = Some(TaskState::Submitted);
    refused(&owner, ListQuery { state, ..query.clone() }).await;
    let since = Some(UnixMillis(0));
    refused(&owner, ListQuery { since, ..query.clone() }).await;
    let context_id = Some(ContextId::parse("context").unwrap());
    refused(&owner, ListQuery { context_id, ..query.clone() }).await;
    let capabilities = Some(vec![CapabilityName::parse("count_words").unwrap()]);
    refused(&owner, ListQuery { capabilities, ..query.clone() }).await;

    let wrong = [
        String::new(),
        "é".to_owned(),
        "x".repeat(1024 * 1024),
        token.to_lowercase(),
        format!("{token}A"),
        token[..token.len() - 1].to_owned(),
        token.replacen(&token[..1], "B", 1),
    ];
    for wrong in wrong {
        refused(&owner, ListQuery { page_token: Some(wrong), ..query.clone() }).await;
    }
}
