//! Disks that are full, fail, or forget.

use std::sync::mpsc;

use super::*;
use crate::contract::{artifact, first_step, status, task_id};
use convoke_model::TaskState;
use rusqlite::ffi;

async fn on_writer(
    journal: &SqliteJournal,
    work: impl FnOnce(&Connection) -> Result<(), StoreError> + Send + 'static,
) -> Result<(), StoreError> {
    let queue = Arc::clone(&journal.queue);
    let chore = move || queue.run_chore(move |connection, _| work(connection));
    tokio::task::spawn_blocking(chore).await.unwrap()
}

#[tokio::test]
async fn a_full_disk_refuses_changes_and_nothing_else_and_it_passes() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path());
    create(&journal, "before").await;
    // A file system that has no more pages than there are.
    on_writer(&journal, |connection| {
        let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        Ok(connection.pragma_update(None, "max_page_count", pages)?)
    })
    .await
    .unwrap();
    let large = || new_task("large", &"x".repeat(100_000));
    let owner = owner();
    let (one, other) =
        tokio::join!(journal.create(&owner, large(), None), journal.create(&owner, large(), None));
    for refused in [one, other] {
        let error = refused.unwrap_err();
        let JournalError::Storage { what, .. } = &error else { panic!("{error:?}") };
        assert!(what.starts_with("is full; free space"), "{what}");
    }
    assert!(journal.trouble().unwrap().contains("is full"));
    assert!(exists(&journal, "before").await && !exists(&journal, "large").await);

    // Nobody asks for anything, and health sees that it is over.
    on_writer(&journal, |connection| {
        Ok(connection.pragma_update(None, "max_page_count", 1_000_000)?)
    })
    .await
    .unwrap();
    while journal.trouble().is_some() {
        tokio::task::yield_now().await;
    }
    create(&journal, "large").await;
    drop(journal);
    assert!(exists(&open(directory.path()), "large").await);
}

#[tokio::test]
async fn a_failed_sync_ends_the_process_and_places_in_streams() {
    let directory = tempfile::tempdir().unwrap();
    let (told, fatal) = mpsc::channel();
    let told = Mutex::new(told);
    let fatal_options = SqliteOptions {
        fatal: Box::new(move |why| told.lock().unwrap().send(why.to_owned()).unwrap()),
        ..options(directory.path(), Durability::Strict)
    };
    let journal = SqliteJournal::open(fatal_options, sink()).unwrap();
    let epoch = journal.epoch();
    create(&journal, "t").await;
    let failed = on_writer(&journal, |_| {
        let error = ffi::Error::new(ffi::SQLITE_IOERR_FSYNC);
        Err(rusqlite::Error::SqliteFailure(error, None).into())
    })
    .await;
    assert!(failed.is_err());
    assert!(fatal.try_recv().unwrap().contains("could not be synced"));
    // Until it has ended, nothing is written.
    assert!(journal.create(&owner(), new_task("u", ""), None).await.is_err());
    let after = killed(directory.path());
    drop(journal);
    for directory in [after.path(), directory.path()] {
        let journal = open(directory);
        assert_eq!(journal.epoch(), epoch + 1);
        assert!(exists(&journal, "t").await);
    }
}

#[tokio::test]
async fn a_damaged_row_is_never_served() {
    for damage in [
        "UPDATE events SET body = replace(body, 'hello', 'hullo')",
        "UPDATE events SET seq = 7 WHERE seq = 1",
        "UPDATE pieces SET body = replace(body, 'one', 'two')",
        "UPDATE pieces SET artifact_id = 'other'",
        "UPDATE records SET body = '{}'",
        "UPDATE tasks SET last_seq = 1",
        "UPDATE tasks SET state = 3",
        "DELETE FROM pieces",
        "DELETE FROM events",
    ] {
        let directory = tempfile::tempdir().unwrap();
        let journal = open(directory.path());
        let new = NewTask {
            records: vec![convoke_model::TaskRecord::Started { attempt: 1, at: UnixMillis(1) }],
            events: vec![
                new_task("t", "hello").events.remove(0),
                artifact("r", "one", false),
                status(TaskState::Working),
            ],
            ..new_task("t", "hello")
        };
        journal.create(&owner(), new, None).await.unwrap();
        sqlite3(directory.path(), damage);
        let error = journal.read(&owner(), &task_id("t")).await.unwrap_err();
        assert!(matches!(error, JournalError::Damaged { .. }), "{damage}: {error}");
        let refused = journal.create(&owner(), new_task("u", ""), None).await;
        assert!(matches!(refused, Err(JournalError::Damaged { .. })), "{refused:?}");
        assert!(journal.trouble().unwrap().contains("is damaged"));
        drop(journal);
        let error = try_open(directory.path()).err().unwrap();
        assert!(matches!(error, OpenError::Damaged { .. }), "{damage}: {error}");
    }
}

/// Numbers without a pattern, the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

async fn task(journal: &SqliteJournal, id: &str) -> Result<Option<StoredTask>, JournalError> {
    journal.read(&owner(), &task_id(id)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_or_a_cut_is_refused_or_without_effect() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path());
    let ids: Vec<String> = (0..40).map(|n| format!("t{n}")).collect();
    let mut expected = Vec::new();
    for id in &ids {
        let fence = create(&journal, id).await;
        let step = first_step(fence, vec![artifact("r", id, false), status(TaskState::Working)]);
        journal.append(&owner(), &task_id(id), step, None).await.unwrap();
        expected.push(task(&journal, id).await.unwrap());
    }
    // Half of it in the file and half in the log.
    let stopped = killed(directory.path());
    drop(journal);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut refused, mut unharmed) = (0, 0);
    for round in 0..90 {
        let source = if round % 2 == 0 { stopped.path() } else { directory.path() };
        let damaged = killed(source);
        let files = ["journal.db", "journal.db-wal", "journal.mark"];
        let file = damaged.path().join(files[random.below(files.len())]);
        let Ok(mut bytes) = std::fs::read(&file) else { continue };
        let at = random.below(bytes.len());
        match round % 5 {
            4 => bytes.truncate(at),
            _ => bytes[at] ^= 1 << random.below(8),
        }
        std::fs::write(&file, bytes).unwrap();
        match try_open(damaged.path()) {
            Err(OpenError::InUse { .. }) => panic!("nobody has it"),
            Err(_) => refused += 1,
            Ok(journal) => {
                for (id, expected) in ids.iter().zip(&expected) {
                    assert_eq!(&task(&journal, id).await.unwrap(), expected, "{}", file.display());
                }
                unharmed += 1;
            }
        }
    }
    assert!(refused > 30 && unharmed > 0, "{refused} refused, {unharmed} unharmed");
}
