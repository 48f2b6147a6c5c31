#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use convoke_model::{TaskEvent, TaskState, UnixMillis};

use super::*;
use crate::contract::{artifact, everything, new_task, scope, status, step, task_id};
use crate::sqlite::open::connect;
use crate::{
    Created, Durability, Journal, MemorySink, Retention, SqliteJournal, SqliteOptions, StoredTask,
};

fn open(directory: &Path) -> Result<SqliteJournal, OpenError> {
    let options = SqliteOptions {
        directory: directory.into(),
        durability: Durability::Strict,
        retention: Retention::default(),
        fatal: Box::new(|why| panic!("{why}")),
    };
    SqliteJournal::open(options, Arc::new(MemorySink::new(10)))
}

async fn make(journal: &SqliteJournal, id: &str, events: Vec<TaskEvent>) {
    let owner = scope("example.org", "a");
    let created = journal.create(&owner, new_task(id, id), None).await.unwrap();
    let Created::New { fence, .. } = created else { panic!("{created:?}") };
    journal.append(&owner, &task_id(id), step(1, fence, events), None).await.unwrap();
}

/// A store with a task that runs and one that has ended.
async fn store() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path()).unwrap();
    make(&journal, "running", vec![status(TaskState::Working), artifact("r", "x", false)]).await;
    let ended = vec![
        artifact("r", "one", false),
        status(TaskState::Working),
        artifact("r", "two", true),
        status(TaskState::Completed),
    ];
    make(&journal, "ended", ended).await;
    drop(journal);
    directory
}

async fn read(journal: &SqliteJournal, id: &str) -> Option<StoredTask> {
    journal.read(&scope("example.org", "a"), &task_id(id)).await.unwrap()
}

fn silent(_: &'static str, _: u64, _: u64) {}

/// Changes the store as nobody should.
fn spoil(directory: &Path, sql: &str) {
    connect(&directory.join(FILE)).unwrap().execute_batch(sql).unwrap();
}

#[tokio::test]
async fn a_store_that_is_whole_has_no_findings() {
    let directory = store().await;
    let mut told = Vec::new();
    let report = check(directory.path(), &mut |what, _, _| told.push(what)).unwrap();
    assert_eq!(report, CheckReport { tasks: 2, ..CheckReport::default() });
    assert_eq!(told, ["pages", "rows"]);
    // Beside a node, too.
    let _journal = open(directory.path()).unwrap();
    assert!(check(directory.path(), &mut silent).unwrap().is_whole());
}

#[tokio::test]
async fn whatever_was_changed_is_found() {
    for (sql, finding) in [
        (
            "UPDATE events SET body = replace(body, 'ended', 'other') WHERE task_no = 2",
            "the sum of event",
        ),
        ("UPDATE events SET seq = 9 WHERE task_no = 2 AND seq = 3", "the sum of event 9"),
        ("UPDATE pieces SET body = '{}'", "the sum of event"),
        ("UPDATE tasks SET state = 3 WHERE task_no = 1", "the sum of task 1"),
        ("UPDATE scopes SET owner = 'x'", "the sum of scope 1"),
        ("DELETE FROM events WHERE task_no = 2 AND seq = 3", "task 2"),
        ("DELETE FROM pieces WHERE task_no = 2 AND seq = 4", "task 2"),
        ("DELETE FROM events WHERE task_no = 1 AND seq = 1", "task 1"),
        ("DELETE FROM tasks WHERE task_no = 1", "task 1, which is not there, has events"),
        ("DELETE FROM scopes", "task 1 has no scope"),
        ("UPDATE counts SET tasks = tasks + 1", "not as many as were counted"),
        ("DELETE FROM counts", "not as many as were counted"),
        // The status that the row has is another than the one that its events lead to.
        (
            "DELETE FROM events WHERE task_no = 2 AND seq = 5;
             UPDATE tasks SET last_seq = 4 WHERE task_no = 2",
            "task 2",
        ),
    ] {
        let directory = store().await;
        spoil(directory.path(), sql);
        let report = check(directory.path(), &mut silent).unwrap();
        assert!(report.findings.iter().any(|what| what.contains(finding)), "{sql}: {report:?}");
        // And nothing of it becomes a backup.
        let to = directory.path().join("backup.db");
        let refused = backup(directory.path(), &to, &mut silent).unwrap_err();
        assert!(matches!(refused, MaintenanceError::Damaged { .. }), "{refused}");
        assert!(!to.exists());
        assert!(!beside(&to, ".unfinished").exists());
    }
}

#[tokio::test]
async fn what_is_no_store_any_more_is_a_finding_and_says_how_to_go_on() {
    for (spoil, finding) in [
        (b"".as_slice(), "it is empty, and was not"),
        (b"a text in place of a database, long enough to be looked at as one ", "not a database"),
        (b"SQLite format 3\0", "not a database"),
    ] {
        let directory = store().await;
        let file = directory.path().join(FILE);
        for suffix in ["-wal", "-shm"] {
            drop(std::fs::remove_file(beside(&file, suffix)));
        }
        std::fs::write(&file, spoil.repeat(100)).unwrap();
        let report = check(directory.path(), &mut silent).unwrap();
        let [what] = &report.findings[..] else { panic!("{report:?}") };
        assert!(what.contains(finding), "{what}");
        assert!(!report.is_loss_only);
        let asked = stats(directory.path()).unwrap_err();
        assert!(matches!(asked, MaintenanceError::Damaged { .. }), "{asked}");
        // Whoever starts the node is not sent in a circle.
        let refused = open(directory.path()).err().unwrap().to_string();
        assert!(refused.contains("`convoke data restore`"), "{refused}");
        assert!(!refused.contains("data check"), "{refused}");
    }
    let directory = store().await;
    std::fs::remove_file(directory.path().join(FILE)).unwrap();
    let report = check(directory.path(), &mut silent).unwrap();
    assert_eq!(report.findings, ["it was there, and is gone"]);
    // Nothing was ever there.
    let empty = tempfile::tempdir().unwrap();
    let none = check(empty.path(), &mut silent).unwrap_err();
    assert!(matches!(none, MaintenanceError::NoStore { .. }), "{none}");
    std::fs::write(empty.path().join(FILE), "").unwrap();
    let none = check(empty.path(), &mut silent).unwrap_err();
    assert!(matches!(none, MaintenanceError::NoStore { .. }), "{none}");
}

#[tokio::test]
async fn a_store_that_was_cut_is_a_finding() {
    let directory = store().await;
    let file = directory.path().join(FILE);
    let content = std::fs::read(&file).unwrap();
    std::fs::write(&file, &content[..content.len() / 2]).unwrap();
    let report = check(directory.path(), &mut silent).unwrap();
    assert!(!report.is_whole() && !report.is_loss_only, "{report:?}");
}

#[tokio::test]
async fn a_backup_is_looked_at_where_it_lies() {
    let directory = store().await;
    let to = directory.path().join("backup.db");
    backup(directory.path(), &to, &mut silent).unwrap();
    let report = check(&to, &mut silent).unwrap();
    assert_eq!(report, CheckReport { tasks: 2, ..CheckReport::default() });
    assert_eq!(stats(&to).unwrap().tasks.len(), 2);
    assert_eq!(query(&to, "SELECT 1 FROM tasks", 9).unwrap().rows.len(), 2);
    // What is written to has a directory of its own.
    assert!(matches!(vacuum(&to), Err(MaintenanceError::Io { .. })));
    assert!(matches!(accept_loss(&to), Err(MaintenanceError::Io { .. })));
    spoil_file(&to);
    assert!(!check(&to, &mut silent).unwrap().is_whole());
    std::fs::write(&to, "").unwrap();
    assert_eq!(check(&to, &mut silent).unwrap().findings, ["it is empty"]);
    // The file of a data directory is all of the directory.
    spoil(directory.path(), "UPDATE store SET commits = 1");
    let report = check(&directory.path().join(FILE), &mut silent).unwrap();
    assert!(report.is_loss_only, "{report:?}");
}

#[test]
fn what_cannot_be_used_is_named_with_what_is_in_its_way() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path();
    let check = |path: &str, kind: io::ErrorKind, expected: &str| {
        let found = obstacle(&base.join(path), &kind.into()).to_owned();
        assert_eq!(found, base.join(expected), "{path}: {kind}");
    };
    std::fs::write(base.join("file"), "").unwrap();
    check("none/below/it", io::ErrorKind::NotFound, "none");
    check("it", io::ErrorKind::PermissionDenied, "");
    check("it", io::ErrorKind::ReadOnlyFilesystem, "");
    check("file", io::ErrorKind::PermissionDenied, "file");
    check("file/it", io::ErrorKind::NotADirectory, "file/it");
    let to = base.join("none/backup.db");
    let refused = convoke_model::chain(&backup::finish(&to, &to).unwrap_err());
    let told = format!("`{}` cannot be used: there is no such", base.join("none").display());
    assert!(refused.starts_with(&told), "{refused}");
}

#[tokio::test]
async fn findings_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path()).unwrap();
    for n in 0..150 {
        make(&journal, &n.to_string(), Vec::new()).await;
    }
    drop(journal);
    spoil(directory.path(), "UPDATE events SET sum = 1");
    let report = check(directory.path(), &mut silent).unwrap();
    // Each is found as a row and as part of its task, and told once.
    assert_eq!((report.findings.len(), report.others), (100, 50));
}

#[tokio::test]
async fn missing_commits_are_found_and_can_be_accepted() {
    let directory = store().await;
    spoil(directory.path(), "UPDATE store SET commits = 1");
    assert!(matches!(open(directory.path()), Err(OpenError::Damaged { .. })));
    let report = check(directory.path(), &mut silent).unwrap();
    let [finding] = &report.findings[..] else { panic!("{report:?}") };
    assert!(finding.ends_with("the newest that is there is 1"), "{finding}");
    assert!(report.is_loss_only);
    accept_loss(directory.path()).unwrap();
    assert!(check(directory.path(), &mut silent).unwrap().is_whole());
    let journal = open(directory.path()).unwrap();
    assert_eq!(journal.epoch(), 2);
    let refused = accept_loss(directory.path()).unwrap_err();
    assert!(matches!(refused, MaintenanceError::Open(OpenError::InUse { .. })), "{refused}");
}

#[tokio::test]
async fn a_backup_is_taken_from_a_running_node_and_becomes_a_store() {
    let directory = store().await;
    let journal = open(directory.path()).unwrap();
    let before = (read(&journal, "running").await, read(&journal, "ended").await);
    let to = directory.path().join("backup.db");
    let report = backup(directory.path(), &to, &mut silent).unwrap();
    assert_eq!((report.tasks, report.bytes), (2, bytes(&to)));
    assert!(!beside(&to, ".unfinished").exists());
    let again = backup(directory.path(), &to, &mut silent).unwrap_err();
    assert!(matches!(again, MaintenanceError::Exists { path } if path == to));
    // What comes later is not in it.
    make(&journal, "later", Vec::new()).await;
    let epoch = journal.epoch();

    let target = tempfile::tempdir().unwrap();
    let restored = restore(&to, &target.path().join("new"), &mut silent).unwrap();
    assert_eq!(restored.tasks, 2);
    let twin = open(&target.path().join("new")).unwrap();
    assert_eq!((read(&twin, "running").await, read(&twin, "ended").await), before);
    assert_eq!(read(&twin, "later").await, None);
    assert!(twin.epoch() > epoch + 1_000_000, "places of the one mean nothing to the other");
    make(&twin, "another", Vec::new()).await;
    drop(twin);
    assert!(check(&target.path().join("new"), &mut silent).unwrap().is_whole());
}

#[tokio::test]
async fn a_store_is_restored_only_where_nothing_is() {
    let directory = store().await;
    let to = directory.path().join("backup.db");
    backup(directory.path(), &to, &mut silent).unwrap();
    let refused = restore(&to, directory.path(), &mut silent).unwrap_err();
    assert!(matches!(refused, MaintenanceError::Exists { .. }), "{refused}");
    let journal = open(directory.path()).unwrap();
    let refused = restore(&to, directory.path(), &mut silent).unwrap_err();
    assert!(matches!(refused, MaintenanceError::Open(OpenError::InUse { .. })), "{refused}");
    drop(journal);
    let target = tempfile::tempdir().unwrap();
    std::fs::write(target.path().join("text"), "no store").unwrap();
    let missing = target.path().join("none");
    let none = restore(&missing, target.path(), &mut silent).unwrap_err();
    assert!(matches!(&none, MaintenanceError::Io { path, .. } if *path == missing), "{none}");
    let foreign = restore(&target.path().join("text"), target.path(), &mut silent).unwrap_err();
    assert!(matches!(foreign, MaintenanceError::Damaged { .. } | MaintenanceError::Open(_)));
    spoil_file(&to);
    let refused = restore(&to, target.path(), &mut silent).unwrap_err();
    assert!(matches!(refused, MaintenanceError::Damaged { .. }), "{refused}");
    assert!(!target.path().join(FILE).exists());
}

/// Turns bytes over in the middle of a file.
fn spoil_file(path: &Path) {
    let mut content = std::fs::read(path).unwrap();
    let needle = b"\"messageId\"";
    let at = content.windows(needle.len()).position(|window| window == needle).unwrap();
    content[at + 1] ^= 1;
    std::fs::write(path, content).unwrap();
}

#[tokio::test]
async fn the_disk_gets_back_what_is_not_needed() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path()).unwrap();
    let large = artifact("r", &"x".repeat(1024 * 1024), false);
    make(&journal, "t", vec![large.clone(), large]).await;
    let refused = vacuum(directory.path()).unwrap_err();
    assert!(matches!(refused, MaintenanceError::Open(OpenError::InUse { .. })), "{refused}");
    drop(journal);
    spoil(directory.path(), "UPDATE pieces SET body = '' WHERE seq = 2");
    let report = vacuum(directory.path()).unwrap();
    assert!(report.before > report.after + 512 * 1024, "{report:?}");
}

#[tokio::test]
async fn what_is_in_a_store_is_told() {
    let directory = store().await;
    let journal = open(directory.path()).unwrap();
    let found = stats(directory.path()).unwrap();
    let counted: Vec<(TaskState, u64)> =
        found.tasks.iter().map(|count| (count.state, count.tasks)).collect();
    assert_eq!(counted, [(TaskState::Working, 1), (TaskState::Completed, 1)]);
    assert_eq!(found.tasks[0].agent, "spiffe://example.org/worker");
    assert_eq!((found.format, found.opened), (1, 2));
    assert_eq!((found.oldest_at, found.newest_at), (Some(UnixMillis(1)), Some(UnixMillis(1))));
    let rows = |name| found.tables.iter().find(|table| table.name == name).unwrap().rows;
    assert_eq!((rows("tasks"), rows("events"), rows("pieces")), (2, 5, 3));
    assert!(found.bytes > 0 && found.commits >= 6);
    drop(journal);
    let empty = tempfile::tempdir().unwrap();
    drop(open(empty.path()).unwrap());
    let found = stats(empty.path()).unwrap();
    assert_eq!((found.tasks, found.oldest_at), (Vec::new(), None));
    let none = stats(&empty.path().join("none").join("below")).unwrap_err();
    let first = empty.path().join("none");
    assert!(matches!(&none, MaintenanceError::NoDirectory { path } if *path == first), "{none}");
}

#[tokio::test]
async fn questions_are_answered_and_change_nothing() {
    let directory = store().await;
    let ask = |sql: &str, rows_max| query(directory.path(), sql, rows_max);
    let table =
        ask(" select task_id, last_seq, NULL, 1.5, x'00' from tasks order by 1", 10).unwrap();
    assert_eq!(table.columns, ["task_id", "last_seq", "NULL", "1.5", "x'00'"]);
    let text = |text: &str| Cell::Text(text.to_owned());
    let rest = || [Cell::Null, Cell::Real(1.5), Cell::Blob(vec![0])];
    let row = |name, seq| [vec![text(name), Cell::Integer(seq)], rest().to_vec()].concat();
    assert_eq!(table.rows, [row("ended", 5), row("running", 3)]);
    assert!(!table.is_cut);
    let cut = ask("WITH t AS (SELECT 1 UNION ALL SELECT 2) SELECT * FROM t", 1).unwrap();
    assert_eq!((cut.rows.len(), cut.is_cut), (1, true));
    let words = ask("SELECT * FROM task_view ORDER BY task_id LIMIT 1", 1).unwrap();
    let [owner, made, ended] =
        ["spiffe://example.org/a", "1970-01-01T00:00:00.001Z", "1970-01-01T00:00:00.002Z"];
    let names = ["ended", "completed", "high", "count_words", owner, made, ended].map(text);
    assert_eq!(words.rows, [[names.to_vec(), vec![Cell::Integer(5)]].concat()]);
    // The words are those of A2A.
    for (number, state) in (1..=8).filter_map(|n| Some((n, crate::stored::state_of(n)?))) {
        let word = state.as_str().trim_start_matches("TASK_STATE_").to_ascii_lowercase();
        let pair = format!("WHEN {number} THEN '{word}'");
        assert!(query::VIEW.contains(&pair), "{pair}");
    }
    for wrong in [
        "",
        "DELETE FROM tasks",
        "DELETE FROM task_view",
        "SELECT 1; DELETE FROM tasks",
        "WITH t AS (SELECT 1) DELETE FROM tasks",
        "PRAGMA user_version = 7",
        "ATTACH 'other.db' AS other",
        "VACUUM INTO 'other.db'",
        "SELECT no_such_column FROM tasks",
        "SELECT",
        "-- nothing",
    ] {
        let refused = ask(wrong, 10).unwrap_err();
        assert!(matches!(refused, MaintenanceError::Question(_)), "{wrong}: {refused}");
    }
    let journal = open(directory.path()).unwrap();
    let page = journal.list(&scope("example.org", "a"), everything()).await.unwrap();
    assert_eq!(page.total, 2);
}
