//! The look at a store that is open.

use super::*;

/// Looks at a store in which `sql` was done, and tells what the journal then says.
async fn check(sql: &str, expected: Option<&str>) {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path());
    create(&journal, "t").await;
    sqlite3(directory.path(), sql);
    let connection = reader::open(&directory.path().join(open::FILE)).unwrap();
    let mut inspector = Inspector::new(connection, Arc::clone(&journal.shared));
    inspector.start = Duration::ZERO;
    inspector.run();
    let trouble = journal.trouble();
    match (trouble.as_deref(), expected) {
        (None, None) => {}
        (Some(found), Some(expected)) => assert!(found.contains(expected), "{sql}: {found}"),
        (found, _) => panic!("{sql}: {found:?}"),
    }
    let next = journal.create(&owner(), new_task("u", "u"), None).await;
    assert_eq!(next.is_ok(), expected.is_none(), "{sql}: {next:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_or_was_changed_is_found() {
    check("", None).await;
    check("UPDATE events SET sum = sum + 1", Some("event 1")).await;
    check("DELETE FROM events", Some("as many events")).await;
    // An index that hides its table.
    let hidden = "PRAGMA writable_schema = ON;
         DELETE FROM sqlite_schema WHERE name = 'tasks_by_context';
         INSERT INTO sqlite_schema SELECT type, 'tasks_by_context', tbl_name,
             (SELECT rootpage FROM sqlite_schema WHERE name = 'tasks_by_status'),
             'CREATE INDEX tasks_by_context ON tasks (scope_no, context_id)'
             FROM sqlite_schema WHERE name = 'tasks_by_status'";
    check(hidden, Some("damaged")).await;
}
