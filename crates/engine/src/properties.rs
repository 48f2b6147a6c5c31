//! What holds for every sequence of events.

use convoke_model::{
    Artifact, ArtifactId, CapabilityName, Content, ContextId, Json, Message, MessageId, Part, Role,
    Task, TaskEvent, TaskId, TaskRecord, TaskState, Terms, UnixMillis,
};
use proptest::prelude::*;

use crate::{Action, Due, Effects, Event, State, Timer, decide, timers};

fn vacant(deadline: Option<u64>) -> State {
    State::new(
        TaskId::parse("task").unwrap(),
        ContextId::parse("context").unwrap(),
        CapabilityName::parse("work").unwrap(),
        Terms { deadline: deadline.map(UnixMillis), ..Terms::default() },
    )
}

fn message(id: u8, role: Role) -> Message {
    let parts = vec![Part::new(Content::Text(format!("text {id}")))];
    Message::new(MessageId::parse(&format!("m-{id}")).unwrap(), role, parts)
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

/// Any event. Questions, artifacts and instants are few, so that they meet again.
fn event() -> impl Strategy<Value = Event> {
    let named = |id: u8| MessageId::parse(&format!("n-{id}")).unwrap();
    let says = |id: u8| message(id, Role::Agent);
    let again = proptest::option::of((0_u64..30).prop_map(UnixMillis));
    prop_oneof![
        any::<u8>().prop_map(|id| Event::Submit(message(id, Role::User))),
        any::<u8>().prop_map(|id| Event::Message(message(id, Role::User))),
        Just(Event::HandlerStarted),
        any::<u8>().prop_map(move |id| Event::HandlerProgress(says(id))),
        (0_u8..3, any::<bool>(), any::<bool>()).prop_map(|(id, append, last)| {
            Event::HandlerArtifact { artifact: artifact(id), append, last }
        }),
        any::<u8>().prop_map(|id| Event::HandlerCheckpoint(Json::of(&id).unwrap())),
        (0_u8..2).prop_map(move |id| Event::HandlerAsked(says(id))),
        (0_u8..2).prop_map(move |id| Event::HandlerAsksAuthorization(says(id))),
        Just(Event::HandlerResumed),
        any::<u8>().prop_map(|id| Event::HandlerFinished(Ok(artifact(id)))),
        any::<u8>().prop_map(move |id| Event::HandlerFinished(Err(says(id)))),
        (any::<u8>(), again)
            .prop_map(move |(id, again_at)| Event::HandlerFailed { why: says(id), again_at }),
        any::<u8>().prop_map(move |id| Event::HandlerRejected(says(id))),
        any::<u8>().prop_map(move |id| Event::HandlerPanicked { message_id: named(id) }),
        Just(Event::RetryDue),
        (any::<bool>(), any::<u8>())
            .prop_map(move |(resumable, id)| Event::Recovered { resumable, message_id: named(id) }),
        Just(Event::Cancel),
        any::<u8>().prop_map(move |id| Event::DeadlinePassed { message_id: named(id) }),
    ]
}

fn ends(event: &TaskEvent) -> bool {
    matches!(event, TaskEvent::Status(status) if status.state.is_terminal())
}

fn stands_at(state: &State) -> Option<TaskState> {
    state.task().map(|task| task.status.state)
}

/// What [`model`] knows of a task.
#[derive(Debug, Clone, PartialEq, Default)]
struct Model {
    at: Option<TaskState>,
    /// The text of the open question.
    asks: Option<Content>,
    attempt: u32,
    retry_at: Option<UnixMillis>,
    deadline: Option<UnixMillis>,
    artifacts: Vec<ArtifactId>,
}

impl Model {
    fn of(state: &State) -> Self {
        let task = state.task();
        let asks = task.filter(|task| task.status.state.is_interrupted());
        Self {
            at: stands_at(state),
            asks: asks.and_then(|task| said(task.status.message.as_ref()?)),
            attempt: state.work().attempt,
            retry_at: state.work().retry_at,
            deadline: state.terms().deadline,
            artifacts: task.map_or_else(Vec::new, names),
        }
    }

    fn to(&self, at: TaskState, actions: &[Action]) -> Option<(Self, Vec<Action>)> {
        Some((Self { at: Some(at), asks: None, ..self.clone() }, actions.to_vec()))
    }

    /// What follows from `event`, as a table: what [`decide`] has to agree with. `None` is a refusal.
    fn after(&self, event: &Event, now: UnixMillis) -> Option<(Self, Vec<Action>)> {
        use Action::{Answer, ResumeHandler, RunHandler, StopHandler};
        use TaskState::{
            AuthRequired, Canceled, Completed, Failed, InputRequired, Rejected, Submitted, Working,
        };
        let stays = |actions: &[Action]| Some((self.clone(), actions.to_vec()));
        let asks = |wanted, question: &Message| {
            let asks = said(question);
            if self.at == Some(wanted) && self.asks == asks {
                return stays(&[]);
            }
            Some((Self { at: Some(wanted), asks, ..self.clone() }, vec![Answer]))
        };
        let Some(at) = self.at else {
            return match event {
                Event::Submit(_) => self.to(Submitted, &[RunHandler]),
                Event::Message(_) | Event::Cancel => None,
                _ => stays(&[]),
            };
        };
        match event {
            Event::Submit(_) => None,
            Event::Message(_) if at.is_interrupted() => self.to(Working, &[ResumeHandler]),
            Event::Message(_) => None,
            Event::Cancel if at.is_terminal() => None,
            Event::Cancel => self.to(Canceled, &[StopHandler, Answer]),
            _ if at.is_terminal() => stays(&[]),
            Event::DeadlinePassed { .. } => self.to(Failed, &[StopHandler, Answer]),
            Event::HandlerStarted => {
                let begun = if at == Submitted { Working } else { at };
                let attempt = self.attempt + 1;
                let after = Self { at: Some(begun), attempt, retry_at: None, ..self.clone() };
                Some((after, Vec::new()))
            }
            Event::RetryDue if self.retry_at.is_some_and(|it| it <= now) => stays(&[RunHandler]),
            Event::RetryDue => stays(&[]),
            Event::Recovered { .. } if self.retry_at.is_some() => stays(&[]),
            Event::Recovered { resumable: true, .. } => stays(&[RunHandler]),
            Event::Recovered { .. } if at == Submitted => stays(&[RunHandler]),
            Event::Recovered { .. } => self.to(Failed, &[Answer]),
            _ if self.retry_at.is_some() => stays(&[]),
            Event::HandlerProgress(_) if at.is_interrupted() => stays(&[]),
            Event::HandlerProgress(_) => self.to(Working, &[]),
            Event::HandlerArtifact { artifact, append, .. } => {
                let mut after = self.clone();
                if !after.artifacts.contains(&artifact.artifact_id) {
                    if *append {
                        return None;
                    }
                    after.artifacts.push(artifact.artifact_id.clone());
                }
                Some((after, Vec::new()))
            }
            Event::HandlerCheckpoint(_) => stays(&[]),
            Event::HandlerAsked(question) => asks(InputRequired, question),
            Event::HandlerAsksAuthorization(question) => asks(AuthRequired, question),
            Event::HandlerResumed if at.is_interrupted() => self.to(Working, &[]),
            Event::HandlerResumed => stays(&[]),
            Event::HandlerFinished(Ok(artifact)) => {
                let (mut after, actions) = self.to(Completed, &[Answer])?;
                if !after.artifacts.contains(&artifact.artifact_id) {
                    after.artifacts.push(artifact.artifact_id.clone());
                }
                Some((after, actions))
            }
            Event::HandlerFailed { again_at: Some(again), .. } => {
                let (after, actions) = self.to(Working, &[])?;
                Some((Self { retry_at: Some(*again), ..after }, actions))
            }
            Event::HandlerFinished(Err(_))
            | Event::HandlerFailed { again_at: None, .. }
            | Event::HandlerPanicked { .. } => self.to(Failed, &[Answer]),
            Event::HandlerRejected(_) => self.to(Rejected, &[Answer]),
        }
    }

    /// What has to be due.
    fn timers(&self) -> Vec<Timer> {
        if self.at.is_none_or(TaskState::is_terminal) {
            return Vec::new();
        }
        let deadline = self.deadline.map(|at| Timer { at, what: Due::Deadline });
        let retry = self.retry_at.map(|at| Timer { at, what: Due::Retry });
        deadline.into_iter().chain(retry).collect()
    }
}

fn said(message: &Message) -> Option<Content> {
    message.parts.first().map(|part| part.content.clone())
}

fn names(task: &Task) -> Vec<ArtifactId> {
    task.artifacts.iter().map(|artifact| artifact.artifact_id.clone()).collect()
}

fn count(actions: &[Action], wanted: Action) -> usize {
    actions.iter().filter(|action| **action == wanted).count()
}

proptest! {
    #[test]
    fn every_sequence_keeps_the_contract(
        events in proptest::collection::vec(event(), 0..32),
        deadline in proptest::option::of(0_u64..48),
        // Most sequences that begin with something else come to nothing.
        begins in any::<bool>(),
    ) {
        let (mut live, mut effects) = (vacant(deadline), Effects::new());
        let begin = [Event::Submit(message(0, Role::User)), Event::HandlerStarted];
        let events = begin.into_iter().filter(|_| begins).chain(events);
        for (now, event) in (1..).map(UnixMillis).zip(events) {
            let (before, events, records) =
                (live.clone(), effects.events.len(), effects.records.len());
            let acted = effects.actions.len();
            let expected = Model::of(&live).after(&event, now);
            let shown = format!("{event:?}");
            let decided = decide(&mut live, event, now, &mut effects);
            let found =
                decided.is_ok().then(|| (Model::of(&live), effects.actions[acted..].to_vec()));
            prop_assert_eq!(found, expected, "{} at {:?}", shown, stands_at(&before));
            let is_same = effects.events.len() == events && effects.records.len() == records;
            prop_assert_eq!(live == before, is_same, "what is not recorded changes nothing");
            prop_assert!(decided.is_ok() || is_same && effects.actions.len() == acted);
            prop_assert_eq!(live.last_seq(), effects.events.len() as u64, "seq has no gaps");
            prop_assert_eq!(live.work().last_record, effects.records.len() as u64);
            let due: Vec<_> = timers(&live).collect();
            prop_assert_eq!(due, Model::of(&live).timers());
        }

        let ended = usize::from(live.is_ended());
        prop_assert_eq!(effects.events.iter().filter(|event| ends(event)).count(), ended);
        prop_assert!(count(&effects.actions, Action::StopHandler) <= ended);
        if ended == 1 {
            prop_assert!(effects.events.last().is_some_and(ends), "nothing follows the end");
        }
        let attempts = effects.records.iter().filter_map(|record| match record {
            TaskRecord::Started { attempt, .. } => Some(*attempt),
            _ => None,
        });
        prop_assert!(attempts.eq(1..=live.work().attempt), "attempts are counted");

        let mut replayed = vacant(deadline);
        for event in effects.events {
            replayed.apply(event).unwrap();
        }
        for record in effects.records {
            replayed.apply_record(record);
        }
        prop_assert_eq!(&replayed, &live, "a replay stands where the live state does");

        if let Some(task) = live.task() {
            let (capability, work) = (live.capability().clone(), live.work().clone());
            let stored =
                State::of_stored(task.clone(), capability, live.terms(), work, live.last_seq());
            prop_assert_eq!(&stored, &live, "a folded task stands where the live state does");
        }
    }
}

#[test]
fn a_damaged_event_is_refused_by_number() {
    let (mut live, mut effects) = (vacant(None), Effects::new());
    for event in [Event::Submit(message(1, Role::User)), Event::Cancel] {
        decide(&mut live, event, UnixMillis(1), &mut effects).unwrap();
    }
    let last = effects.events[1].clone();
    let untouched = live.clone();
    let error = live.apply(last.clone()).unwrap_err();
    assert_eq!((error.seq, live == untouched), (3, true));
    assert_eq!(vacant(None).apply(last).unwrap_err().seq, 1);
}
