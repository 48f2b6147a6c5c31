use convoke_model::{Artifact, ArtifactId, CapabilityName, ContextId, Json, TaskId};

use super::*;

fn state() -> State {
    State::new(
        TaskId::parse("task-1").unwrap(),
        ContextId::parse("context-1").unwrap(),
        CapabilityName::parse("count_words").unwrap(),
    )
}

fn message(id: &str) -> Message {
    let content = Content::Data(Json::parse(r#"{"text":"42.0"}"#).unwrap());
    Message::new(MessageId::parse(id).unwrap(), Role::User, vec![Part::new(content)])
}

fn result() -> Artifact {
    Artifact {
        artifact_id: ArtifactId::parse("result").unwrap(),
        name: None,
        description: None,
        parts: vec![Part::new(Content::Data(Json::parse("2").unwrap()))],
        metadata: None,
        extensions: Vec::new(),
        unknown: Vec::new(),
    }
}

fn submit() -> Event {
    Event::Submit(message("m-1"))
}

fn finished() -> Event {
    Event::HandlerFinished(Ok(result()))
}

fn failed() -> Event {
    let why = Part::new(Content::Text("no words".to_owned()));
    Event::HandlerFinished(Err(Message::new(id("why"), Role::Agent, vec![why])))
}

fn panicked() -> Event {
    Event::HandlerPanicked { message_id: id("panic") }
}

fn deadline() -> Event {
    Event::DeadlinePassed { message_id: id("late") }
}

fn progress() -> Event {
    Event::HandlerProgress(message("p"))
}

fn piece(append: bool) -> Event {
    Event::HandlerArtifact { artifact: result(), append, last: false }
}

fn asked() -> Event {
    Event::HandlerAsked(message("q"))
}

fn id(text: &str) -> MessageId {
    MessageId::parse(text).unwrap()
}

/// A short name for each recorded event.
fn names(records: &[TaskEvent]) -> Vec<&'static str> {
    records
        .iter()
        .map(|record| match record {
            TaskEvent::Submitted { .. } => "submitted",
            TaskEvent::Message(_) => "message",
            TaskEvent::Status(status) => status.state.as_str(),
            TaskEvent::Artifact { .. } => "artifact",
        })
        .collect()
}

/// Decides `before`, then `event`, and compares what the last one brought.
fn check(before: Vec<Event>, event: Event, expected: Result<(&[&str], &[Action]), FaultCode>) {
    let mut state = state();
    for earlier in before {
        decide(&mut state, earlier, UnixMillis(1), &mut Effects::new()).unwrap();
    }
    let (untouched, mut effects) = (state.clone(), Effects::new());
    let decided = decide(&mut state, event, UnixMillis(2), &mut effects);
    match expected {
        Ok((records, actions)) => {
            assert_eq!(decided, Ok(()));
            assert_eq!(names(&effects.records), records);
            assert_eq!(effects.actions, actions);
            assert_eq!(state.last_seq() - untouched.last_seq(), records.len() as u64);
        }
        Err(code) => {
            assert_eq!(decided.map_err(|fault| fault.code), Err(code));
            assert!(effects.is_empty());
            assert_eq!(state, untouched);
        }
    }
}

use Action::{Answer, ResumeHandler, RunHandler, StopHandler};

#[test]
fn a_task_walks_from_submission_to_its_end() {
    check(vec![], submit(), Ok((&["submitted"], &[RunHandler])));
    check(vec![submit()], Event::HandlerStarted, Ok((&["TASK_STATE_WORKING"], &[])));
    let working = || vec![submit(), Event::HandlerStarted];
    let completed: &[&str] = &["artifact", "TASK_STATE_COMPLETED"];
    check(working(), finished(), Ok((completed, &[Answer])));
    check(vec![submit()], finished(), Ok((completed, &[Answer])));
    check(working(), failed(), Ok((&["TASK_STATE_FAILED"], &[Answer])));
    check(working(), panicked(), Ok((&["TASK_STATE_FAILED"], &[Answer])));
    check(working(), deadline(), Ok((&["TASK_STATE_FAILED"], &[StopHandler, Answer])));
    check(working(), Event::Cancel, Ok((&["TASK_STATE_CANCELED"], &[StopHandler, Answer])));
    check(vec![submit()], Event::Cancel, Ok((&["TASK_STATE_CANCELED"], &[StopHandler, Answer])));
}

#[test]
fn a_handler_says_how_far_it_is_and_what_it_has() {
    let working = || vec![submit(), Event::HandlerStarted];
    check(working(), progress(), Ok((&["TASK_STATE_WORKING"], &[])));
    check(vec![submit()], progress(), Ok((&["TASK_STATE_WORKING"], &[])));
    check(working(), piece(false), Ok((&["artifact"], &[])));
    let begun = || vec![submit(), Event::HandlerStarted, piece(false)];
    check(begun(), piece(true), Ok((&["artifact"], &[])));
    check(begun(), finished(), Ok((&["artifact", "TASK_STATE_COMPLETED"], &[Answer])));
    check(working(), piece(true), Err(FaultCode::Internal));
}

#[test]
fn a_task_waits_for_an_answer_and_goes_on() {
    let waiting = || vec![submit(), Event::HandlerStarted, asked()];
    let working = || vec![submit(), Event::HandlerStarted];
    check(working(), asked(), Ok((&["TASK_STATE_INPUT_REQUIRED"], &[Answer])));
    check(waiting(), asked(), Err(FaultCode::UnsupportedOperation));
    let goes_on: &[&str] = &["TASK_STATE_WORKING", "message"];
    check(waiting(), Event::Message(message("m-2")), Ok((goes_on, &[ResumeHandler])));
    check(waiting(), Event::HandlerResumed, Ok((&["TASK_STATE_WORKING"], &[])));
    check(working(), Event::HandlerResumed, Ok((&[], &[])));
    // What it waits for stays to be seen, and what it has can be fetched.
    check(waiting(), progress(), Ok((&[], &[])));
    check(waiting(), Event::HandlerStarted, Ok((&[], &[])));
    check(waiting(), piece(false), Ok((&["artifact"], &[])));
    // Every end is open to a task that waits.
    check(waiting(), finished(), Ok((&["artifact", "TASK_STATE_COMPLETED"], &[Answer])));
    check(waiting(), failed(), Ok((&["TASK_STATE_FAILED"], &[Answer])));
    check(waiting(), deadline(), Ok((&["TASK_STATE_FAILED"], &[StopHandler, Answer])));
    check(waiting(), Event::Cancel, Ok((&["TASK_STATE_CANCELED"], &[StopHandler, Answer])));
    let answered = vec![submit(), Event::HandlerStarted, asked(), Event::Message(message("m-2"))];
    check(answered.clone(), Event::Message(message("m")), Err(FaultCode::UnsupportedOperation));
    check(answered, asked(), Ok((&["TASK_STATE_INPUT_REQUIRED"], &[Answer])));
}

#[test]
fn a_conversation_is_in_order_and_belongs_to_the_task() {
    let mut state = state();
    for event in [submit(), asked(), Event::Message(message("m-2"))] {
        decide(&mut state, event, UnixMillis(1), &mut Effects::new()).unwrap();
    }
    let task = state.task().unwrap();
    let history: Vec<_> = task.history.iter().map(|said| said.message_id.as_str()).collect();
    assert_eq!(history, ["m-1", "q", "m-2"]);
    for said in &task.history {
        assert_eq!(said.task_id.as_ref(), Some(&task.id));
        assert_eq!(said.context_id.as_ref(), Some(&task.context_id));
    }
    assert_eq!(task.status.message, None);
}

#[test]
fn a_task_grows_no_larger_than_its_readers_take() {
    let named = |id: usize, parts: usize| {
        let artifact_id = ArtifactId::parse(&id.to_string()).unwrap();
        let parts = vec![result().parts[0].clone(); parts];
        let artifact = Artifact { artifact_id, parts, ..result() };
        Event::HandlerArtifact { artifact, append: false, last: true }
    };
    let mut wide = vec![submit(), named(0, limits::JSON_ITEMS_MAX)];
    check(vec![submit()], named(0, limits::JSON_ITEMS_MAX + 1), Err(FaultCode::ResourceExhausted));
    let Event::HandlerArtifact { artifact, .. } = named(0, 1) else { unreachable!() };
    let one_more = Event::HandlerArtifact { artifact, append: true, last: true };
    check(wide.clone(), one_more, Err(FaultCode::ResourceExhausted));
    check(wide.clone(), named(0, 1), Ok((&["artifact"], &[])));
    wide.truncate(1);
    wide.extend((1..limits::JSON_ITEMS_MAX).map(|id| named(id, 1)));
    check(wide.clone(), named(0, 1), Err(FaultCode::ResourceExhausted));
    check(wide, finished(), Ok((&["artifact", "TASK_STATE_COMPLETED"], &[Answer])));
}

#[test]
fn the_first_end_wins_and_late_reports_change_nothing() {
    for ending in [finished(), failed(), panicked(), deadline(), Event::Cancel] {
        let asks = [progress(), piece(false), piece(true), asked(), Event::HandlerResumed];
        let ends = [Event::HandlerStarted, finished(), failed(), panicked(), deadline()];
        for late in asks.into_iter().chain(ends) {
            check(vec![submit(), ending.clone()], late, Ok((&[], &[])));
        }
        let ended = || vec![submit(), ending.clone()];
        check(ended(), Event::Cancel, Err(FaultCode::TaskNotCancelable));
        check(ended(), Event::Message(message("m")), Err(FaultCode::UnsupportedOperation));
    }
    check(vec![submit(), Event::HandlerStarted], Event::HandlerStarted, Ok((&[], &[])));
}

#[test]
fn a_task_that_does_not_exist_takes_nothing() {
    let asks = [progress(), piece(false), asked(), Event::HandlerResumed];
    let ends = [Event::HandlerStarted, finished(), failed(), panicked(), deadline()];
    for stale in asks.into_iter().chain(ends) {
        check(vec![], stale, Ok((&[], &[])));
    }
    check(vec![], Event::Cancel, Err(FaultCode::TaskNotFound));
    check(vec![], Event::Message(message("m")), Err(FaultCode::TaskNotFound));
}

#[test]
fn a_message_selects_neither_task_nor_context() {
    let names = |task: Option<&str>, context: Option<&str>| Message {
        task_id: task.map(|id| TaskId::parse(id).unwrap()),
        context_id: context.map(|id| ContextId::parse(id).unwrap()),
        ..message("m")
    };
    let submitted: &[&str] = &["submitted"];
    let own = Event::Submit(names(None, Some("context-1")));
    check(vec![], own, Ok((submitted, &[RunHandler])));
    let foreign = Event::Submit(names(Some("task-2"), None));
    check(vec![], foreign, Err(FaultCode::TaskNotFound));
    let other = Event::Submit(names(None, Some("context-2")));
    check(vec![], other, Err(FaultCode::InvalidParams));
    let other = Event::Message(names(Some("task-1"), Some("context-2")));
    check(vec![submit()], other, Err(FaultCode::InvalidParams));
    let running = Event::Message(names(Some("task-1"), Some("context-1")));
    check(vec![submit()], running, Err(FaultCode::UnsupportedOperation));
    let waiting = || vec![submit(), asked()];
    let other = Event::Message(names(Some("task-1"), Some("context-2")));
    check(waiting(), other, Err(FaultCode::InvalidParams));
    let foreign = Event::Message(names(Some("task-2"), None));
    check(waiting(), foreign, Err(FaultCode::TaskNotFound));
    check(vec![submit()], submit(), Err(FaultCode::Internal));
}

#[test]
fn what_the_agent_says_belongs_to_the_task() {
    for (event, message_id, text) in [
        (failed(), "why", "no words"),
        (panicked(), "panic", "capability `count_words` broke off unexpectedly"),
        (deadline(), "late", "the deadline passed before capability `count_words` ended"),
    ] {
        let mut state = state();
        decide(&mut state, submit(), UnixMillis(1), &mut Effects::new()).unwrap();
        decide(&mut state, event, UnixMillis(7), &mut Effects::new()).unwrap();
        let task = state.into_task().unwrap();
        assert_eq!(task.status.timestamp, UnixMillis(7));
        let says = task.status.message.unwrap();
        assert_eq!((says.message_id.as_str(), says.role), (message_id, Role::Agent));
        assert_eq!(says.parts, [Part::new(Content::Text(text.to_owned()))]);
        assert_eq!((says.task_id, says.context_id), (Some(task.id), Some(task.context_id)));
    }
}

#[test]
fn payloads_and_names_reach_the_task() {
    let mut state = state();
    assert_eq!(state.task(), None);
    for event in [submit(), finished()] {
        decide(&mut state, event, UnixMillis(1), &mut Effects::new()).unwrap();
    }
    let task = state.task().unwrap();
    let mut sent = message("m-1");
    sent.task_id = Some(task.id.clone());
    sent.context_id = Some(task.context_id.clone());
    assert_eq!(task.history, [sent]);
    assert_eq!(task.artifacts, [result()]);
    assert!(state.is_ended());
}
