#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use convoke_model::{Cursor, MessageId, TaskState};

use super::*;
use crate::contract::{artifact, new_task, scope, status, step, task_id};
use crate::sqlite::open::connect;
use crate::sqlite::walk::check;
use crate::sqlite::{SqliteJournal, SqliteOptions};
use crate::{Created, Durability, Events, Journal, MemorySink, NewTask, SendKey, StoredTask};

/// Long after everything that these tests say has happened.
const NOW: UnixMillis = UnixMillis(9_000_000_000_000);

struct Store {
    directory: tempfile::TempDir,
}

impl Store {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn journal(&self) -> SqliteJournal {
        let options = SqliteOptions {
            directory: self.directory.path().into(),
            durability: Durability::Relaxed,
            retention: Retention::default(),
            fatal: Box::new(|why| panic!("{why}")),
        };
        SqliteJournal::open(options, Arc::new(MemorySink::new(10))).unwrap()
    }

    fn connection(&self) -> Connection {
        connect(&self.directory.path().join("journal.db")).unwrap()
    }

    /// Goes through everything once, at most `steps_max` times. Returns the number of steps.
    fn sweep(&self, retention: Retention, steps_max: usize) -> usize {
        let mut connection = self.connection();
        let mut sweep = Sweep::new(retention);
        for taken in 1..=steps_max {
            let before = rows(&connection);
            let transaction = connection.transaction().unwrap();
            let rest = sweep.step(&transaction, NOW).unwrap();
            transaction.commit().unwrap();
            let deleted = before - rows(&connection);
            assert!(deleted <= 2 * (ROWS_A_STEP + TASKS_A_STEP) as i64, "{deleted} in one step");
            check(&connection).unwrap();
            if !rest.is_zero() {
                return taken;
            }
        }
        steps_max
    }
}

fn rows(connection: &Connection) -> i64 {
    let sql = "SELECT (SELECT count(*) FROM tasks) + (SELECT count(*) FROM events)
        + (SELECT count(*) FROM pieces) + (SELECT count(*) FROM records)";
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn kept() -> Retention {
    Retention { ended_after: None, tasks_max: None, compact_after: Duration::from_hours(1) }
}

/// Makes a task; one that has ended has so many pieces, and two messages more than it began with.
async fn make(journal: &SqliteJournal, owner: &str, id: &str, pieces: Option<usize>) {
    let owner = scope("example.org", owner);
    let created = journal.create(&owner, new_task(id, ""), None).await.unwrap();
    let Created::New { fence, .. } = created else { panic!("{created:?}") };
    let Some(pieces) = pieces else { return };
    let mut events = vec![status(TaskState::Working)];
    events.extend((0..pieces).map(|n| artifact("r", &format!("{n} "), n > 0)));
    events.push(status(TaskState::Completed));
    journal.append(&owner, &task_id(id), step(1, fence, events), None).await.unwrap();
}

async fn read(journal: &SqliteJournal, id: &str) -> Option<StoredTask> {
    journal.read(&scope("example.org", "a"), &task_id(id)).await.unwrap()
}

#[tokio::test]
async fn what_ended_long_ago_goes_in_steps_and_nothing_that_runs() {
    let store = Store::new();
    let journal = store.journal();
    for n in 0..450 {
        let owner = if n % 2 == 0 { "a" } else { "b" };
        make(&journal, owner, &n.to_string(), (n % 9 != 0).then_some(1)).await;
    }
    drop(journal);
    let young = Retention { ended_after: Some(Duration::from_millis(NOW.0 - 1)), ..kept() };
    store.sweep(young, 100);
    assert_eq!(rows(&store.connection()), 450 + 450 + 3 * 400);
    let retention = Retention { ended_after: Some(Duration::from_hours(1)), ..kept() };
    assert!(store.sweep(retention, 100) >= 2);
    let journal = store.journal();
    for (id, is_kept) in [("0", true), ("2", false), ("18", true), ("448", false)] {
        assert_eq!(read(&journal, id).await.is_some(), is_kept, "{id}");
    }
    drop(journal);
    // The newest stays, so that its number is not given to another.
    assert_eq!(rows(&store.connection()), 2 * 50 + 5);
}

#[tokio::test]
async fn beyond_a_number_the_oldest_that_have_ended_go() {
    let store = Store::new();
    let journal = store.journal();
    for n in 0..300 {
        make(&journal, "a", &n.to_string(), (n % 10 != 0).then_some(1)).await;
    }
    drop(journal);
    let retention = Retention { tasks_max: Some(100), ..kept() };
    store.sweep(retention, 100);
    let journal = store.journal();
    let mut left = Vec::new();
    for n in 0..300 {
        if read(&journal, &n.to_string()).await.is_some() {
            left.push(n);
        }
    }
    assert_eq!(left.len(), 130);
    let (running, ended): (Vec<i32>, Vec<i32>) = left.into_iter().partition(|n| n % 10 == 0);
    assert_eq!(running.len(), 30);
    assert!(ended.iter().all(|n| *n > 180), "{ended:?}");
    drop(journal);
    // Where everything runs, nothing goes.
    store.sweep(Retention { tasks_max: Some(1), ..kept() }, 100);
    assert_eq!(rows(&store.connection()), 30 * 2 + 5);
}

#[tokio::test]
async fn pieces_fold_to_what_they_came_to() {
    const PIECES: usize = 12_000;
    let store = Store::new();
    let journal = store.journal();
    make(&journal, "a", "many", Some(PIECES)).await;
    make(&journal, "a", "one", Some(1)).await;
    make(&journal, "a", "running", None).await;
    let before = read(&journal, "many").await;
    let last_seq = before.as_ref().unwrap().last_seq;
    drop(journal);

    store.sweep(Retention { compact_after: Duration::from_millis(NOW.0 - 1), ..kept() }, 100);
    assert_eq!(rows(&store.connection()), 3 + 3 + 2 + 2 + 1 + PIECES as i64);
    // Half-way, and then to the end.
    store.sweep(kept(), 2);
    let journal = store.journal();
    assert_eq!(read(&journal, "many").await, before);
    drop(journal);
    store.sweep(kept(), 100);
    assert_eq!(rows(&store.connection()), 3 + 3 + 2 + 2 + 1 + 3);
    let journal = store.journal();
    assert_eq!(read(&journal, "many").await, before);
    let owner = scope("example.org", "a");
    for (id, seq, is_kept) in [
        ("many", 2, false),
        ("many", last_seq - 1, false),
        ("many", last_seq, true),
        ("one", 1, true),
    ] {
        let after = Cursor { epoch: journal.epoch(), seq };
        let events = journal.events(&owner, &task_id(id), after).await.unwrap().unwrap();
        assert_eq!(matches!(events, Events::Page { .. }), is_kept, "{id} after {seq}");
    }
}

#[tokio::test]
async fn a_large_task_is_gone_at_once_and_its_rows_step_by_step() {
    let store = Store::new();
    let journal = store.journal();
    make(&journal, "a", "large", Some(3 * ROWS_A_STEP)).await;
    make(&journal, "b", "large", Some(2 * ROWS_A_STEP)).await;
    make(&journal, "a", "newest", None).await;
    drop(journal);
    let retention = Retention { ended_after: Some(Duration::ZERO), ..kept() };
    let mut steps = 0;
    loop {
        // Each step is the only one of its process.
        steps += 1;
        if store.sweep(retention, 1) == 1 && rows(&store.connection()) == 2 {
            break;
        }
        let journal = store.journal();
        assert_eq!(read(&journal, "large").await, None);
        let page = journal.list(&scope("example.org", "a"), crate::contract::everything()).await;
        assert_eq!(page.unwrap().total, 1);
        assert!(steps < 20, "{} rows are left", rows(&store.connection()));
    }
    assert!(steps > 3);
    // What was its name is free.
    let journal = store.journal();
    make(&journal, "a", "large", None).await;
}

#[tokio::test]
async fn names_of_messages_go_when_their_time_is_over() {
    let store = Store::new();
    let journal = store.journal();
    let owner = scope("example.org", "a");
    for (id, until) in [("past", 1), ("now", NOW.0), ("later", NOW.0 + 1)] {
        let message_id = MessageId::parse(id).unwrap();
        let send = Some(SendKey { message_id, digest: [1; 32], until: UnixMillis(until) });
        journal.create(&owner, NewTask { send, ..new_task(id, "") }, None).await.unwrap();
    }
    drop(journal);
    store.sweep(kept(), 100);
    let names: Vec<String> = store
        .connection()
        .prepare("SELECT message_id FROM sends")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(names, ["later"]);
}
