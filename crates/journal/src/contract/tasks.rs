//! Tasks are what their committed events and records make of them.

use std::sync::Arc;

use convoke_model::{Checkpoint, Content, EventError, Json, Part, TaskRecord, TaskState};
use convoke_model::{Priority, Terms, UnixMillis, Work};

use super::{append, artifact, create, message, new_task, scope, seq, status, step, task_id};
use crate::{Created, Fence, Head, Journal, JournalError, NewTask, Step};

pub(super) async fn check(make: impl Fn() -> Arc<dyn Journal>) {
    commits_are_read_back(&*make()).await;
    records_are_read_back(&*make()).await;
    expected_seq_has_one_winner(&make()).await;
    a_commit_is_all_or_nothing(&*make()).await;
    an_ended_task_takes_no_events(&*make()).await;
    another_fence_is_refused(&*make()).await;
    a_reader_keeps_what_it_read(&*make()).await;
}

async fn commits_are_read_back(journal: &dyn Journal) {
    let (owner, id) = (scope("example.org", "a"), task_id("t"));
    let mut new = new_task("t", "hello");
    new.events.push(status(TaskState::Working));
    let created = journal.create(&owner, new, None).await.unwrap();
    let Created::New { last_seq: 2, fence } = created else { panic!("{created:?}") };
    let again = journal.create(&owner, new_task("t", "other"), None).await;
    assert!(matches!(again, Err(JournalError::Exists { id }) if id.as_str() == "t"));

    let events = vec![artifact("r", "one", false), artifact("r", "two", true)];
    assert_eq!(append(journal, &owner, "t", step(2, fence, events)).await.unwrap(), 4);
    assert_eq!(append(journal, &owner, "t", step(4, fence, Vec::new())).await.unwrap(), 4);
    let end = vec![status(TaskState::Completed)];
    assert_eq!(append(journal, &owner, "t", step(4, fence, end)).await.unwrap(), 5);
    journal.flush().await.unwrap();

    let stored = journal.read(&owner, &id).await.unwrap().unwrap();
    assert_eq!((stored.last_seq, stored.capability.as_str()), (5, "count_words"));
    assert_eq!(stored.subject.as_deref(), Some("spiffe://example.org/user/ann"));
    let deadline = Some(UnixMillis(9_000_000_000_000));
    assert_eq!(stored.terms, Terms { priority: Priority::High, deadline });
    assert_eq!(stored.work, Work::default());
    let task = &*stored.task;
    assert_eq!((task.id.as_str(), task.context_id.as_str()), ("t", "context"));
    assert_eq!(task.status.state, TaskState::Completed);
    assert_eq!(task.history, [message("hello")]);
    assert_eq!(task.artifacts.len(), 1);
    assert_eq!(task.artifacts[0].parts, [Part::new(Content::Text("onetwo".to_owned()))]);

    let head = journal.head(&owner, &id).await.unwrap().unwrap();
    let expected = Head { capability: stored.capability, state: TaskState::Completed, last_seq: 5 };
    assert_eq!(head, expected);
}

async fn records_are_read_back(journal: &dyn Journal) {
    let (owner, id) = (scope("example.org", "a"), task_id("t"));
    let checkpoint = |heard: u32| Checkpoint { value: Json::of(&heard).unwrap(), heard };
    let started = |attempt| TaskRecord::Started { attempt, at: UnixMillis(1) };
    let new = NewTask { records: vec![started(1)], ..new_task("t", "") };
    let created = journal.create(&owner, new, None).await.unwrap();
    let Created::New { last_seq: 1, fence } = created else { panic!("{created:?}") };
    let mut expected = Work { attempt: 1, last_record: 1, ..Work::default() };
    let work = async || journal.read(&owner, &id).await.unwrap().unwrap().work;
    assert_eq!(work().await, expected);

    // Records alone do not count as events, and the newest checkpoint is the one that counts.
    for heard in 1..4 {
        let records = vec![TaskRecord::Checkpoint(checkpoint(heard))];
        let step = Step { expected_seq: 1, fence, events: Vec::new(), records };
        assert_eq!(append(journal, &owner, "t", step).await.unwrap(), 1);
        expected.last_record += 1;
    }
    expected.checkpoint = Some(checkpoint(3));
    assert_eq!(work().await, expected);

    let retry = TaskRecord::Retry { at: UnixMillis(77) };
    let events = vec![status(TaskState::Working)];
    let step = Step { expected_seq: 1, fence, events, records: vec![retry] };
    assert_eq!(append(journal, &owner, "t", step).await.unwrap(), 2);
    (expected.last_record, expected.retry_at) = (5, Some(UnixMillis(77)));
    assert_eq!(work().await, expected);

    let records = vec![TaskRecord::Checkpoint(checkpoint(9)), started(2)];
    let step = Step { expected_seq: 2, fence, events: Vec::new(), records };
    assert_eq!(append(journal, &owner, "t", step).await.unwrap(), 2);
    expected = Work { attempt: 2, retry_at: None, checkpoint: Some(checkpoint(9)), last_record: 7 };
    assert_eq!(work().await, expected);

    // A step that is refused leaves no record either.
    let records = vec![started(3)];
    let step = Step { expected_seq: 1, fence, events: Vec::new(), records };
    append(journal, &owner, "t", step).await.unwrap_err();
    assert_eq!(work().await, expected);
}

async fn expected_seq_has_one_winner(journal: &Arc<dyn Journal>) {
    let owner = scope("example.org", "a");
    let fence = create(&**journal, &owner, "t").await;
    let racers = (0..16).map(|_| {
        let (journal, owner) = (Arc::clone(journal), owner.clone());
        tokio::spawn(async move {
            let events = vec![status(TaskState::Canceled)];
            append(&*journal, &owner, "t", step(1, fence, events)).await
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
    let fence = create(journal, &owner, "t").await;
    let before = journal.read(&owner, &task_id("t")).await.unwrap();
    let events = vec![artifact("r", "one", false), artifact("other", "two", true)];
    let refused = append(journal, &owner, "t", step(1, fence, events)).await;
    assert!(matches!(refused, Err(JournalError::Event(EventError::UnknownArtifact(_)))));
    let events = vec![artifact("r", "one", false), status(TaskState::Submitted)];
    let refused = append(journal, &owner, "t", step(1, fence, events)).await;
    assert!(matches!(refused, Err(JournalError::Event(EventError::SubmittedAgain))));
    let events = vec![status(TaskState::Failed), artifact("r", "one", false)];
    let refused = append(journal, &owner, "t", step(1, fence, events)).await;
    assert!(matches!(refused, Err(JournalError::Event(EventError::Ended))));
    assert_eq!(journal.read(&owner, &task_id("t")).await.unwrap(), before);

    for events in [vec![], vec![status(TaskState::Working)]] {
        let refused = journal.create(&owner, NewTask { events, ..new_task("u", "") }, None).await;
        assert!(matches!(refused, Err(JournalError::Event(EventError::NotSubmitted))));
    }
    assert_eq!(seq(journal, &owner, "u").await, None);
    // What was refused is in nobody's way.
    assert_eq!(append(journal, &owner, "t", step(1, fence, Vec::new())).await.unwrap(), 1);
    create(journal, &owner, "u").await;
}

async fn an_ended_task_takes_no_events(journal: &dyn Journal) {
    let owner = scope("example.org", "a");
    let fence = create(journal, &owner, "t").await;
    let end = vec![status(TaskState::Completed)];
    assert_eq!(append(journal, &owner, "t", step(1, fence, end)).await.unwrap(), 2);
    for late in [status(TaskState::Canceled), artifact("r", "", false)] {
        let refused = append(journal, &owner, "t", step(2, fence, vec![late])).await;
        assert!(matches!(refused, Err(JournalError::Event(EventError::Ended))));
    }
    assert_eq!(seq(journal, &owner, "t").await, Some(2));
}

async fn another_fence_is_refused(journal: &dyn Journal) {
    let owner = scope("example.org", "a");
    let Fence(fence) = create(journal, &owner, "t").await;
    for other in [fence.wrapping_sub(1), fence.wrapping_add(1)] {
        let late = vec![status(TaskState::Canceled)];
        let refused = append(journal, &owner, "t", step(1, Fence(other), late)).await;
        assert!(matches!(refused, Err(JournalError::Fenced { .. })), "{refused:?}");
    }
    assert_eq!(seq(journal, &owner, "t").await, Some(1));
}

async fn a_reader_keeps_what_it_read(journal: &dyn Journal) {
    let (owner, id) = (scope("example.org", "a"), task_id("t"));
    let fence = create(journal, &owner, "t").await;
    let earlier = journal.read(&owner, &id).await.unwrap().unwrap();
    let end = vec![status(TaskState::Completed)];
    append(journal, &owner, "t", step(1, fence, end)).await.unwrap();
    assert_eq!(earlier.task.status.state, TaskState::Submitted);
    assert_eq!(seq(journal, &owner, "t").await, Some(2));
}
