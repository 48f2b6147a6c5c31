use convoke_model::{TaskEvent, TaskState};

use super::shelf::Held;
use super::*;
use crate::MemorySink;
use crate::contract::{artifact, audit, new_task, scope, status, step, task_id};
use crate::size::task_bytes;

/// A journal in which an owner may have so much, and all together four times that.
fn journal(tasks_max: usize, bytes_max: usize) -> MemoryJournal {
    let all = |one: usize| one.saturating_mul(OWNERS_PART);
    let limits = MemoryLimits { tasks_max: all(tasks_max), bytes_max: all(bytes_max) };
    MemoryJournal::new(limits, Arc::new(MemorySink::new(1_000_000)))
}

fn owner() -> Scope {
    scope("example.org", "a")
}

/// Adds `events` to a task whose newest event is `seq`.
async fn append(
    journal: &MemoryJournal,
    owner: &Scope,
    id: &str,
    seq: u64,
    events: Vec<TaskEvent>,
) -> Result<u64, JournalError> {
    journal.append(owner, &task_id(id), step(seq, FENCE, events), None).await
}

async fn create(journal: &MemoryJournal, id: &str) -> Result<Created, JournalError> {
    journal.create(&owner(), new_task(id, ""), Some(audit(id))).await
}

async fn end(journal: &MemoryJournal, id: &str) {
    let events = vec![status(TaskState::Completed)];
    append(journal, &owner(), id, 1, events).await.unwrap();
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
    let mut all = Held::default();
    for (scope, owner) in &shelf.owners {
        let mut own = Held::default();
        for entry in owner.tasks.values() {
            assert_eq!(entry.task_bytes, task_bytes(&entry.task));
            own.add(entry.held());
        }
        assert_eq!(own, owner.held);
        all.add(own);
        assert!(own.tasks > 0, "an owner without a task is forgotten");
        assert_eq!(owner.ended.len(), own.tasks - own.running);
        let first = owner.ended.front();
        assert!(first.is_none_or(|(number, _)| shelf.oldest.get(number) == Some(scope)));
        assert!(own.tasks <= journal.limits.of_owner().tasks_max);
        assert!(own.bytes <= journal.limits.of_owner().bytes_max);
    }
    assert_eq!(all, shelf.held);
    let with_ended = shelf.owners.values().filter(|owner| !owner.ended.is_empty()).count();
    assert_eq!(shelf.oldest.len(), with_ended);
    assert!(all.tasks <= journal.limits.tasks_max);
    assert!(all.bytes <= journal.limits.bytes_max);
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
    assert!(matches!(full, JournalError::OwnerFull { tasks_max: 3, .. }), "{full}");

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
    create(&journal, "a").await.unwrap();
    let large = "x".repeat(64 * 1024);
    let chunk = || vec![artifact("r", &large, false)];
    let full = append(&journal, &owner(), "a", 1, chunk()).await.unwrap_err();
    assert!(matches!(full, JournalError::OwnerFull { bytes_max: 65_536, .. }), "{full}");
    let full = journal.create(&owner(), new_task("b", &large), None).await.unwrap_err();
    assert!(matches!(full, JournalError::OwnerFull { .. }), "{full}");

    let mut last = chunk();
    last.push(status(TaskState::Completed));
    assert_eq!(append(&journal, &owner(), "a", 1, last).await.unwrap(), 3);
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
    assert_eq!(shelf.oldest.len(), 1);
    assert!(shelf.oldest.values().all(|scope| Arc::ptr_eq(&scope.owner, &own.owner)));
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
            let at = append(&journal, &owner(), &id, 1, working).await.unwrap();
            let ended = vec![status(TaskState::Failed)];
            append(&journal, &owner(), &id, at, ended).await.unwrap();
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
        seq = append(&journal, &owner(), "t", seq, events).await.unwrap();
        assert_sums(&journal);
    }
    let events = vec![artifact("b", &"x".repeat(64 * 1024), false)];
    let full = append(&journal, &owner(), "t", seq, events).await;
    assert!(matches!(full, Err(JournalError::OwnerFull { .. })), "what stays does count");
    let events = vec![status(TaskState::Completed)];
    append(&journal, &owner(), "t", seq, events).await.unwrap();
    assert_sums(&journal);
}

fn of(owner: &str) -> Scope {
    scope("example.org", owner)
}

async fn create_of(
    journal: &MemoryJournal,
    owner: &str,
    id: &str,
) -> Result<Created, JournalError> {
    journal.create(&of(owner), new_task(id, ""), None).await
}

async fn end_of(journal: &MemoryJournal, owner: &str, id: &str, result: &str) {
    let events = vec![artifact("r", result, false), status(TaskState::Completed)];
    append(journal, &of(owner), id, 1, events).await.unwrap();
}

async fn has(journal: &MemoryJournal, owner: &str, id: &str) -> bool {
    journal.read(&of(owner), &task_id(id)).await.unwrap().is_some()
}

#[tokio::test]
async fn who_has_more_than_its_part_loses_its_own_and_nobody_elses() {
    for (by_number, journal) in [(true, journal(5, usize::MAX)), (false, journal(100, 64 * 1024))] {
        for id in ["ended", "running"] {
            create_of(&journal, "ben", id).await.unwrap();
        }
        end_of(&journal, "ben", "ended", "").await;
        let result = if by_number { String::new() } else { "x".repeat(10_000) };
        for n in 0..100 {
            let id = n.to_string();
            create_of(&journal, "ann", &id).await.unwrap();
            end_of(&journal, "ann", &id, &result).await;
            assert!(has(&journal, "ann", &id).await, "what ended just now can be read");
            assert_sums(&journal);
        }
        assert!(has(&journal, "ben", "ended").await && has(&journal, "ben", "running").await);
        // Of its own those that ended last, and as many as fit.
        let mut kept = Vec::new();
        for n in 0..100 {
            kept.push(has(&journal, "ann", &n.to_string()).await);
        }
        assert!(kept.is_sorted());
        let count = kept.iter().filter(|kept| **kept).count();
        assert!((4..=5).contains(&count), "{count}");
    }
}

#[tokio::test]
async fn who_fills_its_part_with_work_is_refused_and_nobody_else_is() {
    let journal = journal(usize::MAX, 256 * 1024);
    create_of(&journal, "ben", "ended").await.unwrap();
    end_of(&journal, "ben", "ended", "").await;
    let mut refused = None;
    for n in 0..50 {
        let id = n.to_string();
        refused = create_of(&journal, "ann", &id).await.err();
        if refused.is_some() {
            break;
        }
        let events = vec![artifact("r", &"x".repeat(20_000), false)];
        refused = append(&journal, &of("ann"), &id, 1, events).await.err();
        if refused.is_some() {
            break;
        }
    }
    assert!(matches!(refused, Some(JournalError::OwnerFull { bytes_max: 262_144, .. })));
    assert!(has(&journal, "ben", "ended").await);
    create_of(&journal, "ben", "new").await.unwrap();
    let events = vec![artifact("r", &"x".repeat(20_000), false)];
    append(&journal, &of("ben"), "new", 1, events).await.unwrap();
    assert_sums(&journal);
}

#[tokio::test]
async fn when_all_is_full_what_ended_longest_ago_goes_and_then_new_work_is_refused() {
    let journal = journal(2, usize::MAX);
    let owners = ["ann", "ben", "cid", "dan"];
    for owner in owners {
        create_of(&journal, owner, "1").await.unwrap();
        end_of(&journal, owner, "1", "").await;
        create_of(&journal, owner, "2").await.unwrap();
    }
    create_of(&journal, "eve", "1").await.unwrap();
    assert_eq!([has(&journal, "ann", "1").await, has(&journal, "ben", "1").await], [false, true]);
    assert_sums(&journal);
    create_of(&journal, "eve", "2").await.unwrap();
    create_of(&journal, "ann", "3").await.unwrap();
    create_of(&journal, "ben", "3").await.unwrap();
    // Nothing has ended any more; it is everybody's work that fills the journal.
    let full = create_of(&journal, "fay", "1").await.unwrap_err();
    assert!(matches!(full, JournalError::Full { tasks_max: 8, .. }), "{full}");
    let full = create_of(&journal, "eve", "3").await.unwrap_err();
    assert!(matches!(full, JournalError::OwnerFull { tasks_max: 2, .. }), "{full}");
    assert_sums(&journal);
}

#[tokio::test]
async fn a_task_that_is_read_while_it_grows_counts_for_what_it_is() {
    let journal = journal(2, 1024 * 1024);
    create(&journal, "t").await.unwrap();
    let first = vec![artifact("a", &"x".repeat(100_000), false)];
    let mut seq = append(&journal, &owner(), "t", 1, first).await.unwrap();
    for _ in 0..100 {
        // Whoever reads has the task as it was; it is copied, and the copy has nothing in reserve.
        let _reader = journal.read(&owner(), &task_id("t")).await.unwrap();
        let more = vec![artifact("a", "y", true)];
        seq = append(&journal, &owner(), "t", seq, more).await.unwrap();
        assert_sums(&journal);
    }
}

/// A task at work is in memory twice, and all of it counts.
#[tokio::test]
async fn the_copy_of_who_works_on_a_task_counts() {
    let journal = journal(10, 1024 * 1024);
    create(&journal, "t").await.unwrap();
    let events = vec![artifact("a", &"x".repeat(100_000), false)];
    let at = append(&journal, &owner(), "t", 1, events).await.unwrap();
    let running = journal.lock().held.bytes;
    assert!((200_000..210_000).contains(&running), "{running}");
    let events = vec![status(TaskState::Completed)];
    append(&journal, &owner(), "t", at, events).await.unwrap();
    let ended = journal.lock().held.bytes;
    assert!((100_000..105_000).contains(&ended), "{ended}");
}
