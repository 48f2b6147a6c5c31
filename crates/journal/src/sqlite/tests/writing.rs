//! How many commits, and how many of them synced.

use std::sync::atomic::Ordering;
use std::sync::mpsc;

use super::super::job::JOBS_MAX;
use super::*;
use crate::contract::{artifact, audit, first_step, status, step, task_id};
use convoke_model::TaskState;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_share_a_commit() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Arc::new(open(directory.path()));
    let callers: Vec<_> = (0..64)
        .map(|caller| {
            let journal = Arc::clone(&journal);
            tokio::spawn(async move {
                for round in 0..20 {
                    create(&journal, &format!("t{caller}-{round}")).await;
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let counts = journal.counts();
    assert_eq!(counts.jobs, 64 * 20);
    assert!(counts.commits < counts.jobs / 4, "{counts:?}");
    assert!(counts.synced_commits <= counts.commits && counts.bytes > counts.jobs * 50);
}

#[tokio::test]
async fn pieces_are_synced_with_what_comes_after_them() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path());
    let synced = || journal.counts().synced_commits;
    let fence = create(&journal, "t").await;
    assert_eq!(synced(), 1);
    let append = async |at, events| {
        let step = step(at, fence, events);
        journal.append(&owner(), &task_id("t"), step, None).await.unwrap()
    };
    append(1, vec![artifact("r", "one", false)]).await;
    append(2, vec![artifact("r", "two", true)]).await;
    assert_eq!((synced(), journal.counts().commits), (1, 3));
    journal.flush().await.unwrap();
    assert_eq!(synced(), 2);
    journal.flush().await.unwrap();
    assert_eq!(synced(), 2, "there is nothing to sync");
    append(3, vec![artifact("r", "three", true)]).await;
    append(4, vec![artifact("r", "four", true), status(TaskState::Completed)]).await;
    assert_eq!(synced(), 3);
    // What was decided is recorded for good even if it did no more than a piece does.
    let fence = create(&journal, "u").await;
    let piece = first_step(fence, vec![artifact("r", "one", false)]);
    journal.append(&owner(), &task_id("u"), piece, Some(audit("1"))).await.unwrap();
    assert_eq!(synced(), 5);
}

#[tokio::test]
async fn relaxed_syncs_no_commit() {
    let directory = tempfile::tempdir().unwrap();
    let journal =
        SqliteJournal::open(options(directory.path(), Durability::Relaxed), sink()).unwrap();
    create(&journal, "t").await;
    journal.flush().await.unwrap();
    let counts = journal.counts();
    assert_eq!((counts.commits, counts.synced_commits), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn whoever_finds_no_room_is_told_after_a_second() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Arc::new(open(directory.path()));
    let (go_on, blocked) = mpsc::channel::<()>();
    let queue = Arc::clone(&journal.queue);
    let chore = std::thread::spawn(move || {
        queue.run_chore(move |_, _| {
            assert!(blocked.recv().is_err());
            Ok(())
        })
    });
    let mut waiting = Vec::new();
    for n in 0..JOBS_MAX {
        let journal = Arc::clone(&journal);
        let new = new_task(&format!("t{n}"), "");
        waiting.push(tokio::spawn(async move { journal.create(&owner(), new, None).await }));
    }
    while journal.queue.free() > 0 {
        tokio::task::yield_now().await;
    }
    let refused = journal.create(&owner(), new_task("late", ""), None).await;
    assert!(matches!(refused, Err(JournalError::Busy)), "{refused:?}");
    drop(go_on);
    chore.join().unwrap().unwrap();
    for created in waiting {
        created.await.unwrap().unwrap();
    }
    create(&journal, "later").await;
}

#[tokio::test]
async fn a_long_log_begins_anew() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path());
    create(&journal, "t").await;
    journal.shared.log_pages.store(u64::MAX / PAGE_BYTES, Ordering::Relaxed);
    create(&journal, "u").await;
    assert_eq!(journal.shared.log_pages.load(Ordering::Relaxed), 0);
    create(&journal, "v").await;
    let killed = killed(directory.path());
    let after = open(killed.path());
    for id in ["t", "u", "v"] {
        assert!(exists(&after, id).await);
    }
}

#[tokio::test]
async fn of_checkpoints_the_last_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path());
    let fence = create(&journal, "t").await;
    let checkpoint = |heard| {
        let value = convoke_model::Json::empty_object();
        convoke_model::TaskRecord::Checkpoint(convoke_model::Checkpoint { value, heard })
    };
    for records in [vec![checkpoint(1)], vec![checkpoint(2), checkpoint(3)], vec![checkpoint(4)]] {
        let step = Step { records, ..first_step(fence, Vec::<TaskEvent>::new()) };
        journal.append(&owner(), &task_id("t"), step, None).await.unwrap();
    }
    let kept = "SELECT count(*) FROM records";
    let connection = Connection::open(directory.path().join(open::FILE)).unwrap();
    assert_eq!(connection.query_row(kept, [], |row| row.get::<_, i64>(0)).unwrap(), 1);
    let work = journal.read(&owner(), &task_id("t")).await.unwrap().unwrap().work;
    assert_eq!((work.last_record, work.checkpoint.unwrap().heard), (4, 4));
}
