use convoke_model::{Artifact, ArtifactId, CapabilityName, ContextId, Json, TaskId, Terms};

use super::*;

/// When the deadline of the tasks here passes, and a failed attempt is made again.
const DUE: UnixMillis = UnixMillis(5);

fn state() -> State {
    State::new(
        TaskId::parse("task-1").unwrap(),
        ContextId::parse("context-1").unwrap(),
        CapabilityName::parse("count_words").unwrap(),
        Terms { deadline: Some(DUE), ..Terms::default() },
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
    Event::HandlerFinished(Err(says("no words")))
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

fn asks_authorization() -> Event {
    Event::HandlerAsksAuthorization(message("q"))
}

fn says(text: &str) -> Message {
    Message::new(id("why"), Role::Agent, vec![Part::new(Content::Text(text.to_owned()))])
}

fn attempt_failed(again_at: Option<UnixMillis>) -> Event {
    Event::HandlerFailed { why: says("no words"), again_at }
}

fn rejected() -> Event {
    Event::HandlerRejected(says("not today"))
}

fn checkpoint(text: &str) -> Event {
    Event::HandlerCheckpoint(Json::from_checked(text))
}

fn recovered(resumable: bool) -> Event {
    Event::Recovered { resumable, message_id: id("restart") }
}

fn id(text: &str) -> MessageId {
    MessageId::parse(text).unwrap()
}

/// A short name for each event, and then for each record.
fn names(effects: &Effects) -> Vec<&'static str> {
    let event = |event: &TaskEvent| match event {
        TaskEvent::Submitted { .. } => "submitted",
        TaskEvent::Message(_) => "message",
        TaskEvent::Status(status) => status.state.as_str(),
        TaskEvent::Artifact { .. } => "artifact",
    };
    let record = |record: &TaskRecord| match record {
        TaskRecord::Started { .. } => "started",
        TaskRecord::Checkpoint(_) => "checkpoint",
        TaskRecord::Retry { .. } => "retry",
    };
    let events = effects.events.iter().map(event);
    events.chain(effects.records.iter().map(record)).collect()
}

/// Decides `before`, then `event` when everything is due, and compares what the last one brought.
fn check(before: Vec<Event>, event: Event, expected: Result<(&[&str], &[Action]), FaultCode>) {
    let mut state = state();
    for earlier in before {
        decide(&mut state, earlier, UnixMillis(1), &mut Effects::new()).unwrap();
    }
    let (untouched, mut effects) = (state.clone(), Effects::new());
    let decided = decide(&mut state, event, DUE, &mut effects);
    match expected {
        Ok((facts, actions)) => {
            assert_eq!(decided, Ok(()));
            assert_eq!(names(&effects), facts);
            assert_eq!(effects.actions, actions);
            assert_eq!(state.last_seq() - untouched.last_seq(), effects.events.len() as u64);
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
    check(vec![submit()], Event::HandlerStarted, Ok((&["TASK_STATE_WORKING", "started"], &[])));
    let working = || vec![submit(), Event::HandlerStarted];
    let completed: &[&str] = &["artifact", "TASK_STATE_COMPLETED"];
    check(working(), finished(), Ok((completed, &[Answer])));
    check(vec![submit()], finished(), Ok((completed, &[Answer])));
    check(working(), failed(), Ok((&["TASK_STATE_FAILED"], &[Answer])));
    check(working(), panicked(), Ok((&["TASK_STATE_FAILED"], &[Answer])));
    check(working(), deadline(), Ok((&["TASK_STATE_FAILED"], &[StopHandler, Answer])));
    check(vec![submit()], deadline(), Ok((&["TASK_STATE_FAILED"], &[StopHandler, Answer])));
    check(working(), attempt_failed(None), Ok((&["TASK_STATE_FAILED"], &[Answer])));
    check(working(), rejected(), Ok((&["TASK_STATE_REJECTED"], &[Answer])));
    check(vec![submit()], rejected(), Ok((&["TASK_STATE_REJECTED"], &[Answer])));
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
    let goes_on: &[&str] = &["TASK_STATE_WORKING", "message"];
    check(waiting(), Event::Message(message("m-2")), Ok((goes_on, &[ResumeHandler])));
    check(waiting(), Event::HandlerResumed, Ok((&["TASK_STATE_WORKING"], &[])));
    check(working(), Event::HandlerResumed, Ok((&[], &[])));
    // What it waits for stays to be seen, and what it has can be fetched.
    check(waiting(), progress(), Ok((&[], &[])));
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

/// What a handler, a timer or a restart may still report.
fn reports() -> Vec<Event> {
    let again = attempt_failed(Some(DUE));
    let mut reports = of_a_handler();
    reports.extend([Event::HandlerStarted, Event::RetryDue, deadline(), again]);
    reports.extend([recovered(true), recovered(false)]);
    reports
}

fn of_a_handler() -> Vec<Event> {
    let says = [progress(), piece(false), piece(true), checkpoint("1"), asked()];
    let goes_on = [asks_authorization(), Event::HandlerResumed];
    let ends = [finished(), failed(), panicked(), attempt_failed(None), rejected()];
    says.into_iter().chain(goes_on).chain(ends).collect()
}

#[test]
fn the_first_end_wins_and_late_reports_change_nothing() {
    for ending in
        [finished(), failed(), panicked(), attempt_failed(None), rejected(), Event::Cancel]
    {
        let ended = || vec![submit(), ending.clone()];
        for late in reports() {
            check(ended(), late, Ok((&[], &[])));
        }
        check(ended(), Event::Cancel, Err(FaultCode::TaskNotCancelable));
        check(ended(), Event::Message(message("m")), Err(FaultCode::UnsupportedOperation));
    }
}

#[test]
fn a_task_that_does_not_exist_takes_nothing() {
    for stale in reports() {
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
    let restarted = "the agent was restarted while it worked on this task, and capability \
                     `count_words` does not say how to go on; send it again";
    for (event, message_id, text) in [
        (failed(), "why", "no words"),
        (rejected(), "why", "not today"),
        (attempt_failed(Some(DUE)), "why", "no words"),
        (recovered(false), "restart", restarted),
        (panicked(), "panic", "capability `count_words` broke off unexpectedly"),
        (deadline(), "late", "the deadline passed before capability `count_words` ended"),
    ] {
        let mut state = state();
        for before in [submit(), Event::HandlerStarted] {
            decide(&mut state, before, UnixMillis(1), &mut Effects::new()).unwrap();
        }
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

#[test]
fn an_attempt_that_fails_is_made_again_when_it_is_due() {
    let again = || vec![submit(), Event::HandlerStarted, attempt_failed(Some(DUE))];
    let working = || vec![submit(), Event::HandlerStarted];
    let retries: &[&str] = &["TASK_STATE_WORKING", "retry"];
    check(working(), attempt_failed(Some(DUE)), Ok((retries, &[])));
    check(vec![submit(), asked()], attempt_failed(Some(DUE)), Ok((retries, &[])));
    check(again(), Event::RetryDue, Ok((&[], &[RunHandler])));
    check(working(), Event::RetryDue, Ok((&[], &[])));
    let late = attempt_failed(Some(DUE.plus_millis(1)));
    check(vec![submit(), late], Event::RetryDue, Ok((&[], &[])));
    check(again(), Event::HandlerStarted, Ok((&["started"], &[])));
    check([again(), vec![Event::HandlerStarted]].concat(), Event::RetryDue, Ok((&[], &[])));
    // Nobody is at work on it meanwhile, so nobody has anything to say but its owner and the time.
    for late in of_a_handler() {
        check(again(), late, Ok((&[], &[])));
    }
    check(again(), Event::Message(message("m")), Err(FaultCode::UnsupportedOperation));
    check(again(), Event::Cancel, Ok((&["TASK_STATE_CANCELED"], &[StopHandler, Answer])));
    check(again(), deadline(), Ok((&["TASK_STATE_FAILED"], &[StopHandler, Answer])));
}

#[test]
fn a_task_found_after_a_restart_goes_on_or_ends() {
    let working = || vec![submit(), Event::HandlerStarted];
    let again = || [working(), vec![attempt_failed(Some(DUE))]].concat();
    let waiting = |question| [working(), vec![question]].concat();
    let failed: &[&str] = &["TASK_STATE_FAILED"];
    for resumable in [false, true] {
        check(vec![submit()], recovered(resumable), Ok((&[], &[RunHandler])));
        check(again(), recovered(resumable), Ok((&[], &[])));
        let goes_on: (&[&str], _) =
            if resumable { (&[], &[RunHandler][..]) } else { (failed, &[Answer][..]) };
        check(working(), recovered(resumable), Ok(goes_on));
        check(waiting(asked()), recovered(resumable), Ok(goes_on));
        check(waiting(asks_authorization()), recovered(resumable), Ok(goes_on));
    }
    check(waiting(asked()), Event::HandlerStarted, Ok((&["started"], &[])));
}

#[test]
fn a_question_that_is_open_stays_open_and_another_one_replaces_it() {
    let other = || Event::HandlerAsked(says("another"));
    let waiting = || vec![submit(), Event::HandlerStarted, asked()];
    let asks: &[&str] = &["TASK_STATE_INPUT_REQUIRED"];
    check(waiting(), asked(), Ok((&[], &[])));
    check(waiting(), other(), Ok((asks, &[Answer])));
    let signs_in: &[&str] = &["TASK_STATE_AUTH_REQUIRED"];
    check(waiting(), asks_authorization(), Ok((signs_in, &[Answer])));
    check(vec![submit(), asks_authorization()], asks_authorization(), Ok((&[], &[])));
    check(vec![submit(), asks_authorization()], asked(), Ok((asks, &[Answer])));
    let mut narrower = message("q");
    narrower.metadata = Some(Json::empty_object());
    check(waiting(), Event::HandlerAsked(narrower), Ok((asks, &[Answer])));
    let goes_on: &[&str] = &["TASK_STATE_WORKING", "message"];
    let answer = Event::Message(message("m-2"));
    check(vec![submit(), asks_authorization()], answer, Ok((goes_on, &[ResumeHandler])));
}

#[test]
fn a_conversation_is_no_longer_than_its_readers_take() {
    let mut events = vec![submit()];
    let question = |n: usize| Event::HandlerAsked(says(&n.to_string()));
    for n in 1..limits::JSON_ITEMS_MAX / 2 {
        events.extend([question(n), Event::Message(message("m"))]);
    }
    check(events.clone(), question(0), Err(FaultCode::ResourceExhausted));
    events.pop();
    let goes_on: &[&str] = &["TASK_STATE_WORKING", "message"];
    check(events.clone(), Event::Message(message("m")), Ok((goes_on, &[ResumeHandler])));
    events.push(question(0));
    check(events, asked(), Err(FaultCode::ResourceExhausted));
}

#[test]
fn a_checkpoint_is_bounded_and_knows_what_was_said_before_it() {
    check(vec![submit()], checkpoint("1"), Ok((&["checkpoint"], &[])));
    let large = "1".repeat(limits::CHECKPOINT_BYTES_MAX);
    check(vec![submit()], checkpoint(&large), Ok((&["checkpoint"], &[])));
    let larger = checkpoint(&format!("{large}1"));
    check(vec![submit()], larger, Err(FaultCode::ResourceExhausted));
    let mut state = state();
    for event in [submit(), asked(), Event::Message(message("m-2")), checkpoint("1")] {
        decide(&mut state, event, UnixMillis(1), &mut Effects::new()).unwrap();
    }
    let kept = Checkpoint { value: Json::from_checked("1"), heard: 3 };
    assert_eq!(state.work().checkpoint, Some(kept));
}
