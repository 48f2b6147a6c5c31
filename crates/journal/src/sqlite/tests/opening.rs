//! Who may open what.

use std::os::unix::fs::PermissionsExt;

use super::super::mark::{Found, Mark, MarkFile};
use super::*;

#[tokio::test]
async fn a_second_opener_is_told_who_was_first() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path());
    let error = try_open(directory.path()).err().unwrap();
    assert!(matches!(error, OpenError::InUse { pid: Some(pid), .. } if pid == std::process::id()));
    // What it tried has done no harm.
    create(&journal, "t").await;
    drop(journal);
    assert!(exists(&open(directory.path()), "t").await);
}

#[test]
fn files_are_their_owners_alone_and_a_closed_store_is_one_file() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("a/b");
    let journal = open(&directory);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    let names = || {
        let entries = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
        let mut entries: Vec<PathBuf> = entries.collect();
        entries.sort();
        entries
    };
    assert!(names().len() > 3);
    assert!(names().iter().all(|path| mode(path) == 0o600), "{:?}", names());
    drop(journal);
    let expected = ["journal.db", "journal.lock", "journal.mark"].map(|name| directory.join(name));
    assert_eq!(names(), expected);
}

fn mark(directory: &Path) -> (MarkFile, Mark) {
    match MarkFile::open(directory).unwrap() {
        (file, Found::Mark(mark)) => (file, mark),
        (_, found) => panic!("{found:?}"),
    }
}

#[tokio::test]
async fn a_store_that_lacks_what_was_synced_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path());
    create(&journal, "t").await;
    drop(journal);
    let (file, mark) = mark(directory.path());
    let ahead = Mark { commits: mark.commits + 1, ..mark.clone() };
    let foreign = Mark { store_id: "another".to_owned(), ..mark.clone() };
    for wrong in [ahead, foreign] {
        file.write(&wrong).unwrap();
        let error = try_open(directory.path()).err().unwrap().to_string();
        assert!(
            error.contains("convoke data restore") && error.contains("--accept-loss"),
            "{error}"
        );
    }
    std::fs::write(directory.path().join("journal.mark"), "?").unwrap();
    assert!(matches!(try_open(directory.path()), Err(OpenError::Damaged { .. })));
    // Whoever asks for no more than a kill may leave is not kept from it, and from nothing else.
    let relaxed = SqliteJournal::open(options(directory.path(), Durability::Relaxed), sink());
    assert!(exists(&relaxed.unwrap(), "t").await);
    // One that was copied by hand comes without a mark.
    std::fs::remove_file(directory.path().join("journal.mark")).unwrap();
    assert!(exists(&open(directory.path()), "t").await);
}

#[tokio::test]
async fn the_mark_follows_what_is_synced() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path());
    let at = || mark(directory.path()).1.commits;
    let before = at();
    create(&journal, "t").await;
    // The mark is written before anybody is told of the commit.
    assert_eq!(at(), before + 1);
    drop(journal);

    let relaxed = SqliteJournal::open(options(directory.path(), Durability::Relaxed), sink());
    let before = at();
    create(relaxed.as_ref().unwrap(), "u").await;
    assert_eq!(at(), before, "nothing was synced");
}

#[test]
fn a_place_in_a_stream_holds_until_events_may_be_lost() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path()).epoch();
    assert_eq!(open(directory.path()).epoch(), first, "closed in order");
    let other_run = "UPDATE store SET boot_id = 'another'";
    sqlite3(directory.path(), other_run);
    assert_eq!(open(directory.path()).epoch(), first, "closed before the machine was stopped");

    let journal = open(directory.path());
    let same_run = killed(directory.path());
    drop(journal);
    assert_eq!(open(same_run.path()).epoch(), first, "the kernel has what was written");

    let journal = open(directory.path());
    let stopped = killed(directory.path());
    drop(journal);
    sqlite3(stopped.path(), other_run);
    assert_eq!(open(stopped.path()).epoch(), first + 1, "the machine was stopped");
    assert_eq!(open(stopped.path()).epoch(), first + 1, "and that is over");
}

#[test]
fn what_is_no_store_of_ours_is_left_alone() {
    let check = |make: &dyn Fn(&Path), expected: fn(&OpenError) -> bool| {
        let directory = tempfile::tempdir().unwrap();
        make(directory.path());
        let file = directory.path().join(open::FILE);
        let before = std::fs::read(&file).unwrap();
        let error = try_open(directory.path()).err().unwrap();
        assert!(expected(&error), "{error:?}");
        assert_eq!(std::fs::read(&file).unwrap(), before);
    };
    let not_ours: fn(&OpenError) -> bool = |error| matches!(error, OpenError::NotOurs { .. });
    check(&|at| std::fs::write(at.join(open::FILE), "some text".repeat(1000)).unwrap(), not_ours);
    check(&|at| sqlite3(at, "PRAGMA journal_mode = WAL; CREATE TABLE theirs (a)"), not_ours);
    let newer = |at: &Path| {
        drop(open(at));
        sqlite3(at, "PRAGMA user_version = 99; PRAGMA wal_checkpoint(TRUNCATE)");
    };
    check(&newer, |error| matches!(error, OpenError::Newer { found: 99, known: 1, .. }));
}

#[tokio::test]
async fn a_store_that_has_become_empty_is_not_begun_anew() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    std::fs::write(directory.path().join(open::FILE), "").unwrap();
    for durability in [Durability::Strict, Durability::Relaxed] {
        let opened = SqliteJournal::open(options(directory.path(), durability), sink());
        assert!(matches!(opened, Err(OpenError::Damaged { .. })));
    }
}
