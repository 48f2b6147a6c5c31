//! What a kill leaves, and who may write after it.

use super::*;
use crate::Head;
use crate::contract::{artifact, audit, first_step, status, task_id};
use convoke_model::TaskState;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_loses_nothing_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path());
    for round in 0..20 {
        let id = format!("t{round}");
        let fence = create(&journal, &id).await;
        let piece = first_step(fence, vec![artifact("r", "one", false)]);
        journal.append(&owner(), &task_id(&id), piece, None).await.unwrap();
        let killed = killed(directory.path());
        let after = open(killed.path());
        for id in (0..=round).map(|n| format!("t{n}")) {
            let head = after.head(&owner(), &task_id(&id)).await.unwrap();
            assert!(matches!(head, Some(Head { last_seq: 2, .. })), "{id}: {head:?}");
        }
    }
}

#[tokio::test]
async fn audit_lines_that_were_not_written_are_handed_over_again() {
    let directory = tempfile::tempdir().unwrap();
    let forgetful = Arc::new(Forgetful::default());
    let journal =
        SqliteJournal::open(options(directory.path(), Durability::Strict), forgetful.clone());
    let journal = journal.unwrap();
    for id in ["1", "2", "3"] {
        journal.create(&owner(), new_task(id, ""), Some(audit(id))).await.unwrap();
    }
    let expected = forgetful.submitted.lock().unwrap().clone();
    let after_kill = killed(directory.path());
    drop(journal);
    for directory in [after_kill.path(), directory.path()] {
        let sink = sink();
        drop(SqliteJournal::open(options(directory, Durability::Strict), sink.clone()).unwrap());
        let lines: Vec<String> = sink.lines().iter().map(|line| format!("{line}\n")).collect();
        assert_eq!(lines, expected);
        // Once they are written they are gone.
        let sink = self::sink();
        drop(SqliteJournal::open(options(directory, Durability::Strict), sink.clone()).unwrap());
        assert_eq!(sink.lines(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn lines_that_are_written_leave_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path());
    journal.create(&owner(), new_task("t", ""), Some(audit("1"))).await.unwrap();
    drop(journal);
    let sink = sink();
    drop(SqliteJournal::open(options(directory.path(), Durability::Strict), sink.clone()).unwrap());
    assert_eq!(sink.lines(), Vec::<String>::new());
}

#[tokio::test]
async fn whoever_lost_the_store_writes_nothing_more() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path());
    let fence = create(&journal, "t").await;
    // Another process whose lock is on another file, as when the lock was deleted.
    sqlite3(directory.path(), "UPDATE store SET opened = opened + 1");
    let end = first_step(fence, vec![status(TaskState::Completed)]);
    let refused = journal.append(&owner(), &task_id("t"), end, None).await;
    assert!(matches!(refused, Err(JournalError::Fenced { .. })), "{refused:?}");
    let refused = journal.create(&owner(), new_task("u", ""), None).await;
    assert!(matches!(refused, Err(JournalError::Fenced { .. })), "{refused:?}");
    assert!(journal.trouble().unwrap().contains("opened by another process"));
    assert!(exists(&journal, "t").await, "reads go on");
    sqlite3(directory.path(), "UPDATE store SET opened = opened - 1");
    let refused = journal.create(&owner(), new_task("u", ""), None).await;
    assert!(refused.is_err(), "for good");
}
