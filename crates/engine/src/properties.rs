//! What holds for every sequence of events.

use convoke_model::{
    Artifact, ArtifactId, CapabilityName, Content, ContextId, Message, MessageId, Part, Role,
    TaskEvent, TaskId, TaskState, UnixMillis,
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
        any::<u8>().prop_map(|id| Event::HandlerProgress(message(id))),
        (0_u8..3, any::<bool>(), any::<bool>()).prop_map(|(id, append, last)| {
            Event::HandlerArtifact { artifact: artifact(id), append, last }
        }),
        any::<u8>().prop_map(|id| Event::HandlerAsked(message(id))),
        Just(Event::HandlerResumed),
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

fn asks(record: &TaskEvent) -> bool {
    matches!(record, TaskEvent::Status(status) if status.state.is_interrupted())
}

fn stands_at(state: &State) -> Option<TaskState> {
    state.task().map(|task| task.status.state)
}

/// Where a task comes to, and what it then does, as a table without payloads: what [`decide`] has to
/// agree with. `None` is a refusal; the artifacts that exist are the caller's to know.
fn model(
    at: Option<TaskState>,
    event: &Event,
    appends_to_known: bool,
) -> Option<(Option<TaskState>, Vec<Action>)> {
    use Action::{Answer, ResumeHandler, RunHandler, StopHandler};
    use TaskState::{Canceled, Completed, Failed, InputRequired, Submitted, Working};
    let to = |state, actions: &[Action]| Some((Some(state), actions.to_vec()));
    let stays = Some((at, Vec::new()));
    match (at, event) {
        (None, Event::Submit(_)) => to(Submitted, &[RunHandler]),
        (Some(_), Event::Submit(_)) | (None, Event::Message(_) | Event::Cancel) => None,
        (None, _) => stays,
        (Some(InputRequired), Event::Message(_)) => to(Working, &[ResumeHandler]),
        (Some(_), Event::Message(_)) => None,
        (Some(Completed | Failed | Canceled), Event::Cancel) => None,
        (Some(_), Event::Cancel) => to(Canceled, &[StopHandler, Answer]),
        (Some(Completed | Failed | Canceled), _) => stays,
        (Some(Submitted), Event::HandlerStarted) => to(Working, &[]),
        (Some(_), Event::HandlerStarted) => stays,
        (Some(InputRequired), Event::HandlerProgress(_)) => stays,
        (Some(_), Event::HandlerProgress(_)) => to(Working, &[]),
        (Some(_), Event::HandlerArtifact { append, .. }) => {
            (!append || appends_to_known).then_some((at, Vec::new()))
        }
        (Some(InputRequired), Event::HandlerAsked(_)) => None,
        (Some(_), Event::HandlerAsked(_)) => to(InputRequired, &[Answer]),
        (Some(InputRequired), Event::HandlerResumed) => to(Working, &[]),
        (Some(_), Event::HandlerResumed) => stays,
        (Some(_), Event::HandlerFinished(Ok(_))) => to(Completed, &[Answer]),
        (Some(_), Event::HandlerFinished(Err(_)) | Event::HandlerPanicked { .. }) => {
            to(Failed, &[Answer])
        }
        (Some(_), Event::DeadlinePassed { .. }) => to(Failed, &[StopHandler, Answer]),
    }
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
            let known = match &event {
                Event::HandlerArtifact { artifact, .. } => {
                    let made = |task: &convoke_model::Task| {
                        task.artifacts.iter().any(|it| it.artifact_id == artifact.artifact_id)
                    };
                    live.task().is_some_and(made)
                }
                _ => false,
            };
            let expected = model(stands_at(&live), &event, known);
            let shown = format!("{event:?}");
            let decided = decide(&mut live, event, UnixMillis(at), &mut effects);
            let found = decided.is_ok().then(|| {
                (stands_at(&live), effects.actions[acted..].to_vec())
            });
            prop_assert_eq!(found, expected, "{} at {:?}", shown, stands_at(&before));
            if decided.is_err() || effects.records.len() == recorded {
                prop_assert_eq!(&live, &before, "a refused or late event changes nothing");
                prop_assert_eq!(effects.records.len(), recorded);
                prop_assert_eq!(effects.actions.len(), acted);
            }
            prop_assert_eq!(live.last_seq(), effects.records.len() as u64, "seq has no gaps");
        }

        let ended = usize::from(live.is_ended());
        prop_assert_eq!(effects.records.iter().filter(|record| ends(record)).count(), ended);
        let questions = effects.records.iter().filter(|record| asks(record)).count();
        prop_assert_eq!(count(&effects.actions, Action::Answer), ended + questions);
        prop_assert!(count(&effects.actions, Action::ResumeHandler) <= questions);
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
