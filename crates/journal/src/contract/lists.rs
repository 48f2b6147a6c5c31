//! What lists show, and in which order.

use std::sync::Arc;

use convoke_model::{
    CapabilityName, ContextId, Message, TaskEvent, TaskState, TaskStatus, UnixMillis,
};

use super::{append, artifact, create, made, message, new_task, scope, status_at, step};
use crate::{Journal, ListQuery, NewTask, Scope, TaskPage};

/// Every task, on one page, with nothing beside its status.
#[must_use]
pub fn all() -> ListQuery {
    ListQuery {
        context_id: None,
        state: None,
        since: None,
        capabilities: None,
        page_size: 100,
        page_token: None,
        history_length: Some(0),
        artifacts: false,
    }
}

/// The names of the tasks of a page.
pub(super) fn names(page: &TaskPage) -> Vec<&str> {
    page.tasks.iter().map(|task| task.id.as_str()).collect()
}

pub(super) async fn check(make: impl Fn() -> Arc<dyn Journal>) {
    the_newest_status_comes_first(&*make()).await;
    filters_add_up(&*make()).await;
    as_much_is_shown_as_was_asked_for(&*make()).await;
}

async fn the_newest_status_comes_first(journal: &dyn Journal) {
    let owner = scope("example.org", "a");
    let mut fences = Vec::new();
    for id in ["a", "b", "c", "d"] {
        fences.push(create(journal, &owner, id).await);
    }
    let list = async || journal.list(&owner, all()).await.unwrap();
    // All of one instant: the task that was made last comes first.
    assert_eq!(names(&list().await), ["d", "c", "b", "a"]);
    for (id, fence, at) in [("b", fences[1], 30), ("a", fences[0], 20), ("d", fences[3], 20)] {
        let working = step(1, fence, vec![status_at(TaskState::Working, at)]);
        append(journal, &owner, id, working).await.unwrap();
    }
    assert_eq!(names(&list().await), ["b", "d", "a", "c"]);
    // What is no status moves nothing.
    let piece = step(1, fences[2], vec![artifact("r", "", false)]);
    append(journal, &owner, "c", piece).await.unwrap();
    assert_eq!(names(&list().await), ["b", "d", "a", "c"]);
    // Another state of the same instant, and several at once.
    let more = vec![status_at(TaskState::InputRequired, 25), status_at(TaskState::Failed, 30)];
    append(journal, &owner, "a", step(2, fences[0], more)).await.unwrap();
    let page = list().await;
    assert_eq!((names(&page), page.total), (vec!["b", "a", "d", "c"], 4));
    let states: Vec<TaskState> = page.tasks.iter().map(|task| task.status.state).collect();
    let [working, failed] = [TaskState::Working, TaskState::Failed];
    assert_eq!(states, [working, failed, working, TaskState::Submitted]);
}

async fn filters_add_up(journal: &dyn Journal) {
    let owner = scope("example.org", "a");
    let tasks = [
        ("a", "x", "count_words", TaskState::Working, 10),
        ("b", "x", "summarize", TaskState::Working, 20),
        ("c", "y", "count_words", TaskState::Completed, 30),
        ("d", "x", "count_words", TaskState::Completed, 40),
        ("e", "y", "summarize", TaskState::Working, 50),
    ];
    let capability = |name| CapabilityName::parse(name).unwrap();
    let context = |name| Some(ContextId::parse(name).unwrap());
    for (id, group, name, state, at) in tasks {
        let context_id = ContextId::parse(group).unwrap();
        let new = NewTask { context_id, capability: capability(name), ..new_task(id, id) };
        let fence = made(journal.create(&owner, new, None).await);
        let to = step(1, fence, vec![status_at(state, at)]);
        append(journal, &owner, id, to).await.unwrap();
    }
    let working = Some(TaskState::Working);
    let since = |at| Some(UnixMillis(at));
    let counting = Some(vec![capability("count_words")]);
    let both = Some(vec![capability("summarize"), capability("count_words")]);
    let check = async |query: ListQuery, expected: &[&str]| {
        // On one page, and on many.
        for page_size in [100, 1, 2] {
            let mut query = ListQuery { page_size, ..query.clone() };
            let mut found = Vec::new();
            loop {
                let page = journal.list(&owner, query.clone()).await.unwrap();
                assert_eq!(page.total, expected.len() as u64, "{query:?}");
                found.extend(names(&page).into_iter().map(str::to_owned));
                query.page_token = page.next;
                if query.page_token.is_none() {
                    break;
                }
                assert_eq!(page.tasks.len(), page_size as usize);
            }
            assert_eq!(found, expected, "{query:?}");
        }
    };
    check(all(), &["e", "d", "c", "b", "a"]).await;
    check(ListQuery { state: working, ..all() }, &["e", "b", "a"]).await;
    check(ListQuery { state: Some(TaskState::Rejected), ..all() }, &[]).await;
    check(ListQuery { context_id: context("x"), ..all() }, &["d", "b", "a"]).await;
    check(ListQuery { context_id: context("z"), ..all() }, &[]).await;
    check(ListQuery { since: since(30), ..all() }, &["e", "d", "c"]).await;
    check(ListQuery { since: since(51), ..all() }, &[]).await;
    check(ListQuery { since: since(u64::MAX), ..all() }, &[]).await;
    check(ListQuery { capabilities: counting.clone(), ..all() }, &["d", "c", "a"]).await;
    check(ListQuery { capabilities: both.clone(), ..all() }, &["e", "d", "c", "b", "a"]).await;
    check(ListQuery { capabilities: Some(Vec::new()), ..all() }, &[]).await;
    let query = ListQuery { state: working, context_id: context("x"), ..all() };
    check(query, &["b", "a"]).await;
    let query = ListQuery { state: working, since: since(20), ..all() };
    check(query, &["e", "b"]).await;
    let query = ListQuery { state: working, capabilities: counting.clone(), ..all() };
    check(query, &["a"]).await;
    let query = ListQuery { since: since(20), context_id: context("x"), ..all() };
    check(query.clone(), &["d", "b"]).await;
    check(ListQuery { capabilities: counting, ..query.clone() }, &["d"]).await;
    check(ListQuery { capabilities: both, state: working, ..query }, &["b"]).await;
}

async fn as_much_is_shown_as_was_asked_for(journal: &dyn Journal) {
    let owner = scope("example.org", "a");
    let fence = create(journal, &owner, "t").await;
    let says = |state, text: &str| {
        let message = Some(message(text));
        TaskEvent::Status(TaskStatus { state, message, timestamp: UnixMillis(5) })
    };
    let events = vec![
        says(TaskState::Working, "begun"),
        artifact("r", "one", false),
        artifact("r", "two", true),
        says(TaskState::InputRequired, "which?"),
        says(TaskState::Working, "on"),
        TaskEvent::Message(message("this")),
        says(TaskState::AuthRequired, "sign in"),
    ];
    append(journal, &owner, "t", step(1, fence, events)).await.unwrap();
    let whole = read(journal, &owner).await;
    let conversation = [message("t"), message("which?"), message("this")];
    assert_eq!(whole.history, conversation);
    assert_eq!(whole.artifacts.len(), 1);
    for (history_length, shown) in [
        (None, &conversation[..]),
        (Some(9), &conversation),
        (Some(2), &conversation[1..]),
        (Some(1), &conversation[2..]),
        (Some(0), &[] as &[Message]),
    ] {
        for artifacts in [false, true] {
            let query = ListQuery { history_length, artifacts, ..all() };
            let page = journal.list(&owner, query).await.unwrap();
            let [task] = &page.tasks[..] else { panic!("{page:?}") };
            assert_eq!(task.status, whole.status);
            assert_eq!(task.history, shown);
            assert_eq!(task.artifacts, if artifacts { whole.artifacts.clone() } else { vec![] });
            assert_eq!((&task.id, &task.context_id), (&whole.id, &whole.context_id));
        }
    }
}

async fn read(journal: &dyn Journal, owner: &Scope) -> convoke_model::Task {
    let stored = journal.read(owner, &super::task_id("t")).await.unwrap().unwrap();
    convoke_model::Task::clone(&stored.task)
}
