//! Stores that earlier builds wrote.
//!
//! `testdata/store_N.sql` is a store of format N as statements, so that what changes in it can be
//! read. It is written once, by the build that made the format, and never changed.

use convoke_model::{CapabilityName, ContextId, Json, MessageId, Priority, TaskRecord, TaskState};
use rusqlite::types::ValueRef;

use super::*;
use crate::contract::{artifact, first_step, message, status, step, task_id};
use crate::{ListQuery, SendKey};

const STORE_1: &str = include_str!("../../testdata/store_1.sql");

/// A store in `directory`, made of `statements`.
fn restore(directory: &Path, statements: &str) {
    let connection = Connection::open(directory.join(open::FILE)).unwrap();
    connection.execute_batch(statements).unwrap();
    connection.pragma_update(None, "journal_mode", "wal").unwrap();
}

/// What the tasks of the golden stores look like from outside.
async fn check(journal: &SqliteJournal) {
    let ended = journal.read(&owner(), &task_id("ended")).await.unwrap().unwrap();
    assert_eq!((ended.last_seq, ended.task.status.state), (5, TaskState::Completed));
    assert_eq!(ended.task.history, [message("ended")]);
    assert_eq!(ended.task.artifacts[0].parts.len(), 1, "{:?}", ended.task.artifacts);
    assert_eq!(ended.subject.as_deref(), Some("spiffe://example.org/user/ann"));

    let open = journal.read(&owner(), &task_id("open")).await.unwrap().unwrap();
    assert_eq!((open.last_seq, open.task.status.state), (2, TaskState::Working));
    assert_eq!(open.terms.priority, Priority::High);
    assert_eq!(open.terms.deadline, Some(UnixMillis(4_102_444_800_000)));
    let checkpoint = open.work.checkpoint.unwrap();
    assert_eq!((open.work.attempt, checkpoint.value.get(), checkpoint.heard), (1, "[2,3]", 1));

    let claimed = journal.claim(&contract::agent(), 10).await.unwrap();
    assert_eq!(claimed.len(), 1, "{claimed:?}");
    let fence = claimed[0].fence;
    let end = step(2, fence, vec![status(TaskState::Completed)]);
    assert_eq!(journal.append(&owner(), &task_id("open"), end, None).await.unwrap(), 3);

    let again = NewTask { send: Some(send_key()), ..new_task("other", "sent") };
    let known = journal.create(&owner(), again, None).await.unwrap();
    assert_eq!(known, Created::Known(task_id("ended")));
    let query = ListQuery {
        context_id: Some(ContextId::parse("context").unwrap()),
        state: Some(TaskState::Completed),
        since: None,
        capabilities: Some(vec![CapabilityName::parse("count_words").unwrap()]),
        page_size: 10,
        page_token: None,
        history_length: Some(0),
        artifacts: false,
    };
    let page = journal.list(&owner(), query).await.unwrap();
    assert_eq!((page.total, page.tasks.len()), (2, 2));
}

fn send_key() -> SendKey {
    let message_id = MessageId::parse("sent").unwrap();
    SendKey { message_id, digest: [7; 32], until: UnixMillis(4_102_444_800_000) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_format_1_opens() {
    let directory = tempfile::tempdir().unwrap();
    restore(directory.path(), STORE_1);
    let journal = open(directory.path());
    check(&journal).await;
}

/// Writes the golden store of the newest format. Run it by name, once, when a format is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes the golden store of a new format"]
async fn write_the_golden_store() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path());
    let new = NewTask { send: Some(send_key()), ..new_task("ended", "ended") };
    let made = journal.create(&owner(), new, Some(contract::audit("1"))).await.unwrap();
    let Created::New { fence, .. } = made else { panic!("{made:?}") };
    let first = first_step(fence, vec![status(TaskState::Working)]);
    journal.append(&owner(), &task_id("ended"), first, None).await.unwrap();
    let rest = vec![
        artifact("a", "one ", false),
        artifact("a", "two", true),
        status(TaskState::Completed),
    ];
    journal.append(&owner(), &task_id("ended"), step(2, fence, rest), None).await.unwrap();
    let mut new = new_task("open", "open");
    new.terms.priority = Priority::High;
    new.terms.deadline = Some(UnixMillis(4_102_444_800_000));
    new.events.push(status(TaskState::Working));
    new.records.push(TaskRecord::Started { attempt: 1, at: UnixMillis(1) });
    let value = Json::parse("[2,3]").unwrap();
    new.records.push(TaskRecord::Checkpoint(convoke_model::Checkpoint { value, heard: 1 }));
    journal.create(&owner(), new, None).await.unwrap();
    drop(journal);

    let connection = Connection::open(directory.path().join(open::FILE)).unwrap();
    let to = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/testdata/store_1.sql");
    std::fs::write(to, dump(&connection)).unwrap();
}

/// A store as statements.
fn dump(connection: &Connection) -> String {
    let number = |pragma: &str| -> i64 {
        connection.pragma_query_value(None, pragma, |row| row.get(0)).unwrap()
    };
    let mut out = format!(
        "PRAGMA page_size = 4096;\nPRAGMA application_id = {};\nPRAGMA user_version = {};\n",
        number("application_id"),
        number("user_version")
    );
    let list = |sql: &str| -> Vec<(String, String)> {
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    };
    let things = list(
        "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type = 'index', rowid",
    );
    for (_, sql) in &things {
        out += &format!("{sql};\n");
    }
    let tables = list("SELECT name, '' FROM sqlite_schema WHERE type = 'table' ORDER BY rowid");
    for (table, _) in tables {
        let mut statement = connection.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let values: Vec<String> =
                (0..columns).map(|column| literal(row.get_ref(column).unwrap())).collect();
            out += &format!("INSERT INTO {table} VALUES ({});\n", values.join(", "));
        }
    }
    out
}

fn literal(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) => {
            format!("'{}'", std::str::from_utf8(text).unwrap().replace('\'', "''"))
        }
        ValueRef::Blob(bytes) => {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("x'{digits}'")
        }
    }
}
