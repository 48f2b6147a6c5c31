//! What holds for every sequence of events.

use convoke_model::{
    Artifact, ArtifactId, CapabilityName, Content, ContextId, Message, MessageId, Part, Role,
    TaskEvent, TaskId, UnixMillis,
};
use proptest::prelude::*;

use crate::{Action, Effects, Event, State, decide};

fn vacant() -> State {
    State::new(
        TaskId::parse("task").unwrap(),
        ContextId::parse("context").unwrap(),
        CapabilityName::parse("work").unwrap(),
    )
}

fn message(id: u8) -> Message {
    let parts = vec![Part::new(Content::Text(format!("text {id}")))];
    Message::new(MessageId::parse(&format!("m-{id}")).unwrap(), Role::User, parts)
}

fn artifact(id: u8) -> Artifact {
    Artifact {
        artifact_id: ArtifactId::parse(&format!("a-{id}")).unwrap(),
        name: None,
        description: None,
        parts: vec![Part::new(Content::Text(format!("result {id}")))],
        metadata: None,
        extensions: Vec::new(),
        unknown: Vec::new(),
    }
}

fn event() -> impl Strategy<Value = Event> {
    let named = |id: u8| MessageId::parse(&format!("n-{id}")).unwrap();
    prop_oneof![
        any::<u8>().prop_map(|id| Event::Submit(message(id))),
        any::<u8>().prop_map(|id| Event::Message(message(id))),
        Just(Event::HandlerStarted),
        any::<u8>().prop_map(|id| Event::HandlerFinished(Ok(artifact(id)))),
        any::<u8>().prop_map(|id| Event::HandlerFinished(Err(message(id)))),
        any::<u8>().prop_map(move |id| Event::HandlerPanicked { message_id: named(id) }),
        Just(Event::Cancel),
        any::<u8>().prop_map(move |id| Event::DeadlinePassed { message_id: named(id) }),
    ]
}

fn ends(record: &TaskEvent) -> bool {
    matches!(record, TaskEvent::Status(status) if status.state.is_terminal())
}

fn count(actions: &[Action], wanted: Action) -> usize {
    actions.iter().filter(|action| **action == wanted).count()
}

proptest! {
    #[test]
    fn every_sequence_keeps_the_contract(events in proptest::collection::vec(event(), 0..24)) {
        let (mut live, mut effects) = (vacant(), Effects::new());
        for (at, event) in (1..).zip(events) {
            let (before, recorded) = (live.clone(), effects.records.len());
            let acted = effects.actions.len();
            let decided = decide(&mut live, event, UnixMillis(at), &mut effects);
            if decided.is_err() || effects.records.len() == recorded {
                prop_assert_eq!(&live, &before, "a refused or late event changes nothing");
                prop_assert_eq!(effects.records.len(), recorded);
                prop_assert_eq!(effects.actions.len(), acted);
            }
            prop_assert_eq!(live.last_seq(), effects.records.len() as u64, "seq has no gaps");
        }

        let ended = usize::from(live.is_ended());
        prop_assert_eq!(effects.records.iter().filter(|record| ends(record)).count(), ended);
        prop_assert_eq!(count(&effects.actions, Action::Answer), ended);
        prop_assert!(count(&effects.actions, Action::StopHandler) <= ended);
        let submitted = usize::from(live.task().is_some());
        prop_assert_eq!(count(&effects.actions, Action::RunHandler), submitted);
        if ended == 1 {
            prop_assert!(effects.records.last().is_some_and(ends), "nothing follows the end");
        }

        let mut replayed = vacant();
        for record in effects.records {
            replayed.apply(record).unwrap();
        }
        prop_assert_eq!(&replayed, &live, "a replay stands where the live state does");

        if let Some(task) = live.task() {
            let stored =
                State::of_stored(task.clone(), live.capability().clone(), live.last_seq());
            prop_assert_eq!(&stored, &live, "a folded task stands where the live state does");
        }
    }
}

#[test]
fn a_damaged_record_is_refused_by_number() {
    let (mut live, mut effects) = (vacant(), Effects::new());
    for event in [Event::Submit(message(1)), Event::Cancel] {
        decide(&mut live, event, UnixMillis(1), &mut effects).unwrap();
    }
    let last = effects.records[1].clone();
    let untouched = live.clone();
    let error = live.apply(last.clone()).unwrap_err();
    assert_eq!((error.seq, live == untouched), (3, true));
    assert_eq!(vacant().apply(last).unwrap_err().seq, 1);
}
