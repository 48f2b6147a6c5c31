//! Events can be read from any place on, without a gap and without a repeat.

use std::sync::Arc;

use convoke_model::{Cursor, TaskEvent, TaskState};

use super::{append, artifact, create, message, scope, status, step, task_id};
use crate::{EVENTS_PAGE_BYTES, Events, Journal, Scope};

pub(super) async fn check(make: impl Fn() -> Arc<dyn Journal>) {
    every_place_goes_on_without_a_gap(&*make()).await;
    pages_are_bounded(&*make()).await;
    a_place_that_is_none_is_lost(&*make()).await;
}

async fn page(
    journal: &dyn Journal,
    owner: &Scope,
    seq: u64,
) -> (Vec<(u64, TaskEvent)>, u64, TaskState) {
    let after = Cursor { epoch: journal.epoch(), seq };
    match journal.events(owner, &task_id("t"), after).await.unwrap().unwrap() {
        Events::Page { events, last_seq, state } => (events, last_seq, state),
        Events::Lost => panic!("event {seq} is lost"),
    }
}

async fn every_place_goes_on_without_a_gap(journal: &dyn Journal) {
    let owner = scope("example.org", "a");
    let fence = create(journal, &owner, "t").await;
    let mut made = vec![
        status(TaskState::Working),
        artifact("r", "one", false),
        artifact("r", "two", true),
        status(TaskState::InputRequired),
        status(TaskState::Working),
        TaskEvent::Message(message("an answer")),
    ];
    for (seq, event) in (1..).zip(&made) {
        append(journal, &owner, "t", step(seq, fence, vec![event.clone()])).await.unwrap();
    }
    // Before the task has ended, and after that.
    for last in [7, 9] {
        let (first, ..) = page(journal, &owner, 0).await;
        assert!(
            matches!(&first[0], (1, TaskEvent::Submitted { message: it, .. }) if *it == message("t"))
        );
        for after in 1..=last {
            let (events, last_seq, state) = page(journal, &owner, after).await;
            assert_eq!(last_seq, last);
            assert_eq!(state.is_terminal(), last == 9);
            let expected = (2..).zip(made.iter().cloned()).filter(|(seq, _)| *seq > after);
            assert_eq!(events, expected.collect::<Vec<_>>(), "behind {after}");
        }
        if last == 7 {
            let end = [artifact("s", "three", false), status(TaskState::Completed)];
            append(journal, &owner, "t", step(7, fence, end.to_vec())).await.unwrap();
            made.extend(end);
        }
    }
}

async fn pages_are_bounded(journal: &dyn Journal) {
    // Each a tenth of a page, as text; more than a page together.
    const PIECES: u64 = 15;
    let owner = scope("example.org", "a");
    let fence = create(journal, &owner, "t").await;
    let text = "x".repeat(EVENTS_PAGE_BYTES / 10);
    let pieces = (0..PIECES).map(|_| artifact("r", &text, false)).collect();
    // What is followed is near the end.
    append(journal, &owner, "t", step(1, fence, pieces)).await.unwrap();
    let followed = PIECES - 5;
    let (mut at, mut pages) = (followed, 0);
    while at < PIECES + 1 {
        let (events, last_seq, _) = page(journal, &owner, at).await;
        assert_eq!(last_seq, PIECES + 1);
        assert!((1..=10).contains(&events.len()), "{}", events.len());
        for (seq, _) in events {
            assert_eq!(seq, at + 1);
            at = seq;
        }
        pages += 1;
    }
    assert!(pages >= 1);
    // One that is larger than a page comes all the same, alone, or not event by event.
    let large = artifact("large", &"x".repeat(2 * EVENTS_PAGE_BYTES), false);
    append(journal, &owner, "t", step(at, fence, vec![large.clone()])).await.unwrap();
    let after = Cursor { epoch: journal.epoch(), seq: at };
    match journal.events(&owner, &task_id("t"), after).await.unwrap().unwrap() {
        Events::Page { events, .. } => assert_eq!(events, [(at + 1, large)]),
        Events::Lost => {
            let (events, last_seq, _) = page(journal, &owner, at + 1).await;
            assert_eq!((events.len(), last_seq), (0, at + 1));
        }
    }
}

async fn a_place_that_is_none_is_lost(journal: &dyn Journal) {
    let owner = scope("example.org", "a");
    create(journal, &owner, "t").await;
    let epoch = journal.epoch();
    assert_eq!(journal.epoch(), epoch);
    for (epoch, seq) in [
        (epoch, 2),
        (epoch, u64::MAX),
        (epoch.wrapping_add(1), 1),
        (epoch.wrapping_sub(1), 1),
        (epoch.wrapping_add(1), 0),
    ] {
        let after = Cursor { epoch, seq };
        let events = journal.events(&owner, &task_id("t"), after).await.unwrap();
        assert_eq!(events, Some(Events::Lost), "{after}");
    }
}
