use convoke_model::TaskState;

use super::*;
use crate::MemorySink;
use crate::contract::{artifact, audit, new_task, scope, status, task_id};

fn journal(tasks_max: usize, bytes_max: usize) -> MemoryJournal {
    MemoryJournal::new(MemoryLimits { tasks_max, bytes_max }, Arc::new(MemorySink::new(1_000_000)))
}

fn owner() -> Scope {
    scope("example.org", "a")
}

async fn create(journal: &MemoryJournal, id: &str) -> Result<u64, JournalError> {
    journal.create(&owner(), new_task(id, ""), Some(audit(id))).await
}

async fn end(journal: &MemoryJournal, id: &str) {
    let events = vec![status(TaskState::Completed)];
    journal.append(&owner(), &task_id(id), 1, events, None).await.unwrap();
}

async fn known(journal: &MemoryJournal, ids: &[&str]) -> Vec<bool> {
    let mut known = Vec::new();
    for id in ids {
        known.push(journal.read(&owner(), &task_id(id)).await.unwrap().is_some());
    }
    known
}

/// Sums over the entries, computed anew, equal the sums that are kept.
fn assert_sums(journal: &MemoryJournal) {
    let shelf = journal.lock();
    let entries = || shelf.owners.values().flat_map(HashMap::values);
    let running = |entry: &&Entry| !entry.task.status.state.is_terminal();
    assert_eq!(entries().count(), shelf.tasks);
    assert_eq!(entries().map(|entry| entry.bytes).sum::<usize>(), shelf.bytes);
    assert_eq!(entries().filter(running).map(|e| e.bytes).sum::<usize>(), shelf.running_bytes);
    assert_eq!(entries().filter(|entry| !running(entry)).count(), shelf.ended.len());
    assert!(shelf.owners.values().all(|tasks| !tasks.is_empty()));
    assert!(shelf.tasks <= journal.limits.tasks_max);
    assert!(shelf.bytes <= journal.limits.bytes_max);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keeps_the_contract() {
    let make = |sink| Arc::new(MemoryJournal::new(MemoryLimits::default(), sink)) as _;
    crate::contract::check_all(make).await;
}

#[tokio::test]
async fn forgets_what_ended_first_and_nothing_that_runs() {
    let journal = journal(3, usize::MAX);
    for id in ["running", "first", "second"] {
        create(&journal, id).await.unwrap();
    }
    let full = create(&journal, "new").await.unwrap_err();
    assert!(matches!(full, JournalError::Full { tasks_max: 3, .. }), "{full}");

    // The order in which they ended counts, not the order in which they were made.
    end(&journal, "second").await;
    end(&journal, "first").await;
    create(&journal, "new").await.unwrap();
    let ids = ["running", "first", "second", "new"];
    assert_eq!(known(&journal, &ids).await, [true, true, false, true]);
    create(&journal, "newer").await.unwrap();
    assert_eq!(known(&journal, &ids).await, [true, false, false, true]);
    assert!(create(&journal, "newest").await.is_err());
    assert_sums(&journal);
}

#[tokio::test]
async fn a_refused_commit_forgets_nothing() {
    let sink = Arc::new(MemorySink::new(2));
    let limits = MemoryLimits { tasks_max: 1, bytes_max: usize::MAX };
    let journal = MemoryJournal::new(limits, sink);
    create(&journal, "a").await.unwrap();
    end(&journal, "a").await;
    create(&journal, "b").await.unwrap();
    end(&journal, "b").await;
    assert!(matches!(create(&journal, "c").await, Err(JournalError::Audit(_))));
    assert_eq!(known(&journal, &["a", "b", "c"]).await, [false, true, false]);
    assert_sums(&journal);
}

#[tokio::test]
async fn bytes_are_bounded_and_a_task_can_always_end() {
    let journal = journal(usize::MAX, 64 * 1024);
    let id = task_id("a");
    create(&journal, "a").await.unwrap();
    let large = "x".repeat(64 * 1024);
    let chunk = || vec![artifact("r", &large, false)];
    let full = journal.append(&owner(), &id, 1, chunk(), None).await.unwrap_err();
    assert!(matches!(full, JournalError::Full { bytes_max: 65_536, .. }), "{full}");
    let full = journal.create(&owner(), new_task("b", &large), None).await.unwrap_err();
    assert!(matches!(full, JournalError::Full { .. }), "{full}");

    let mut last = chunk();
    last.push(status(TaskState::Completed));
    assert_eq!(journal.append(&owner(), &id, 1, last, None).await.unwrap(), 3);
    // Its result alone is more than the journal may keep, so it is forgotten.
    assert_eq!(known(&journal, &["a"]).await, [false]);
    assert_sums(&journal);
}

#[tokio::test]
async fn an_owner_is_kept_once() {
    let journal = journal(10, usize::MAX);
    for id in ["a", "b", "c"] {
        // Every call comes with a scope of its own making.
        create(&journal, id).await.unwrap();
        end(&journal, id).await;
    }
    let mut born_ended = new_task("d", "");
    born_ended.events.push(status(TaskState::Rejected));
    journal.create(&owner(), born_ended, None).await.unwrap();
    let shelf = journal.lock();
    let (own, _) = shelf.owners.iter().next().unwrap();
    assert_eq!(shelf.ended.len(), 4);
    assert!(shelf.ended.iter().all(|(scope, _)| Arc::ptr_eq(&scope.owner, &own.owner)));
    drop(shelf);
    assert_sums(&journal);
}

#[tokio::test]
async fn many_tasks_stay_within_the_bounds() {
    let journal = journal(100, 256 * 1024);
    for n in 0..2_000 {
        let id = n.to_string();
        create(&journal, &id).await.unwrap();
        if n % 3 == 0 {
            let working = vec![status(TaskState::Working), artifact("r", &"y".repeat(500), false)];
            let at = journal.append(&owner(), &task_id(&id), 1, working, None).await.unwrap();
            let ended = vec![status(TaskState::Failed)];
            journal.append(&owner(), &task_id(&id), at, ended, None).await.unwrap();
        } else {
            end(&journal, &id).await;
        }
        assert_sums(&journal);
    }
    assert_eq!(known(&journal, &["0", "1999"]).await, [false, true]);
}

#[tokio::test]
async fn what_is_replaced_does_not_count() {
    let journal = journal(2, 64 * 1024);
    create(&journal, "t").await.unwrap();
    let says = |text: String| {
        let TaskEvent::Artifact { artifact, .. } = artifact("m", &text, false) else {
            unreachable!("an artifact")
        };
        let id = convoke_model::MessageId::parse("m").unwrap();
        let message = convoke_model::Message::new(id, convoke_model::Role::Agent, artifact.parts);
        TaskEvent::Status(convoke_model::TaskStatus {
            state: TaskState::Working,
            message: Some(message),
            timestamp: convoke_model::UnixMillis(1),
        })
    };
    let mut seq = 1;
    for round in 0..1000 {
        let text = "x".repeat(round);
        let events = vec![says(text.clone()), artifact("a", &text, false), says(text)];
        seq = journal.append(&owner(), &task_id("t"), seq, events, None).await.unwrap();
        assert_sums(&journal);
    }
    let events = vec![artifact("b", &"x".repeat(64 * 1024), false)];
    let full = journal.append(&owner(), &task_id("t"), seq, events, None).await;
    assert!(matches!(full, Err(JournalError::Full { .. })), "what stays does count");
    let events = vec![status(TaskState::Completed)];
    journal.append(&owner(), &task_id("t"), seq, events, None).await.unwrap();
    assert_sums(&journal);
}
