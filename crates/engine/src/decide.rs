//! The decisions about a task.

use convoke_model::{
    Artifact, Checkpoint, Content, Fault, FaultCode, Json, Message, MessageId, Part, Role,
    TaskEvent, TaskRecord, TaskState, TaskStatus, UnixMillis, limits,
};

use crate::answers::is_open;
use crate::{Action, Effects, Event, State};

/// Decides what follows from `event`, which happened at `now`: changes `state` and adds to `effects`
/// what is to be committed and done. On an error neither has changed.
///
/// The first event that ends a task wins. What its handler or its timer still reports afterwards is
/// late, not wrong, and changes nothing. So is what a handler reports between two attempts: the one
/// that could say it has failed.
///
/// A question of a handler replaces the one that is open. If it is the same one, because the handler
/// was run again and has come back to it, it stays open and nothing changes; either way the task
/// waits for the answer to it.
///
/// # Errors
///
/// The [`Fault`] that the sender of the event is told:
///
/// - [`FaultCode::TaskNotFound`] if the event is about a task that was never submitted, or a new
///   message names another task than this;
/// - [`FaultCode::TaskNotCancelable`] if a task that has ended is to be cancelled;
/// - [`FaultCode::UnsupportedOperation`] for a message to a task that does not wait for one;
/// - [`FaultCode::ResourceExhausted`] if the task would grow beyond what its readers take, or a
///   checkpoint is larger than [`limits::CHECKPOINT_BYTES_MAX`];
/// - [`FaultCode::InvalidParams`] for a message that names another context than the task's;
/// - [`FaultCode::Internal`] if the task is submitted a second time, or a piece is added to an
///   artifact that does not exist, which no caller can ask for.
pub fn decide(
    state: &mut State,
    event: Event,
    now: UnixMillis,
    effects: &mut Effects,
) -> Result<(), Fault> {
    match event {
        Event::Submit(message) => submit(state, message, now, effects),
        Event::Message(message) => take_message(state, message, now, effects),
        Event::Cancel => cancel(state, now, effects),
        // What is left are reports: stale once the task has ended.
        _ if !is_active(state) => Ok(()),
        Event::HandlerStarted => start(state, now, effects),
        Event::RetryDue => {
            if state.work().retry_at.is_some_and(|at| at <= now) {
                effects.actions.push(Action::RunHandler);
            }
            Ok(())
        }
        Event::Recovered { resumable, message_id } => {
            recover(state, resumable, message_id, now, effects)
        }
        Event::DeadlinePassed { message_id } => {
            let text =
                format!("the deadline passed before capability `{}` ended", state.capability());
            let why = Some(say(message_id, text));
            end(state, TaskState::Failed, why, now, effects, &[Action::StopHandler])
        }
        // What is left are reports of a handler, and between two attempts there is none.
        _ if state.work().retry_at.is_some() => Ok(()),
        // While the task waits, its status says for what, and that is what the client has to see.
        Event::HandlerProgress(_) if waits(state) => Ok(()),
        Event::HandlerProgress(message) => {
            move_to(state, TaskState::Working, Some(message), now, effects)
        }
        Event::HandlerArtifact { artifact, append, last } => {
            check_growth(state, &artifact, append)?;
            publish(state, effects, TaskEvent::Artifact { artifact, append, last })
        }
        Event::HandlerCheckpoint(value) => checkpoint(state, value, effects),
        Event::HandlerAsked(question) => {
            ask(state, TaskState::InputRequired, question, now, effects)
        }
        Event::HandlerAsksAuthorization(question) => {
            ask(state, TaskState::AuthRequired, question, now, effects)
        }
        Event::HandlerResumed if waits(state) => {
            move_to(state, TaskState::Working, None, now, effects)
        }
        Event::HandlerResumed => Ok(()),
        Event::HandlerFinished(Ok(artifact)) => {
            publish(state, effects, TaskEvent::Artifact { artifact, append: false, last: true })?;
            end(state, TaskState::Completed, None, now, effects, &[])
        }
        Event::HandlerFailed { why, again_at: Some(at) } => {
            move_to(state, TaskState::Working, Some(why), now, effects)?;
            record(state, effects, TaskRecord::Retry { at });
            Ok(())
        }
        Event::HandlerFinished(Err(why)) | Event::HandlerFailed { why, again_at: None } => {
            end(state, TaskState::Failed, Some(why), now, effects, &[])
        }
        Event::HandlerRejected(why) => {
            end(state, TaskState::Rejected, Some(why), now, effects, &[])
        }
        Event::HandlerPanicked { message_id } => {
            let text = format!("capability `{}` broke off unexpectedly", state.capability());
            end(state, TaskState::Failed, Some(say(message_id, text)), now, effects, &[])
        }
    }
}

fn submit(
    state: &mut State,
    mut message: Message,
    at: UnixMillis,
    effects: &mut Effects,
) -> Result<(), Fault> {
    if state.task().is_some() {
        let text = format!("task `{}` is already submitted", state.id());
        return Err(Fault::new(FaultCode::Internal, text));
    }
    // A client names only tasks that exist; the server makes the names of new ones.
    if message.task_id.as_ref().is_some_and(|named| named != state.id()) {
        return Err(not_found(message.task_id.as_ref().map_or("", |named| named.as_str())));
    }
    check_context(state, &message)?;
    place(state, &mut message);
    publish(state, effects, TaskEvent::Submitted { message, at })?;
    effects.actions.push(Action::RunHandler);
    Ok(())
}

/// Counts an attempt. The task is at work from the first one on, and what it waits for stays open
/// to a handler that is run again.
fn start(state: &mut State, at: UnixMillis, effects: &mut Effects) -> Result<(), Fault> {
    if stands_at(state) == Some(TaskState::Submitted) {
        move_to(state, TaskState::Working, None, at, effects)?;
    }
    let attempt = state.work().attempt.saturating_add(1);
    record(state, effects, TaskRecord::Started { attempt, at });
    Ok(())
}

/// Decides what becomes of a task that nobody works on any more. What has not begun begins now, and
/// an attempt that is to be made again is made when it is due; neither has anything to go on with.
fn recover(
    state: &mut State,
    resumable: bool,
    message_id: MessageId,
    now: UnixMillis,
    effects: &mut Effects,
) -> Result<(), Fault> {
    if state.work().retry_at.is_some() {
        return Ok(());
    }
    if resumable || stands_at(state) == Some(TaskState::Submitted) {
        effects.actions.push(Action::RunHandler);
        return Ok(());
    }
    let text = format!(
        "the agent was restarted while it worked on this task, and capability `{}` does not say \
         how to go on; send it again",
        state.capability()
    );
    end(state, TaskState::Failed, Some(say(message_id, text)), now, effects, &[])
}

/// Keeps from where a handler can go on.
fn checkpoint(state: &mut State, value: Json, effects: &mut Effects) -> Result<(), Fault> {
    let (bytes, max) = (value.get().len(), limits::CHECKPOINT_BYTES_MAX);
    if bytes > max {
        let text = format!("a checkpoint may have {max} bytes, and this has {bytes}");
        return Err(Fault::new(FaultCode::ResourceExhausted, text));
    }
    // A history has as many messages as readers take items, so the count always fits.
    let heard = u32::try_from(messages(state)).unwrap_or(u32::MAX);
    record(state, effects, TaskRecord::Checkpoint(Checkpoint { value, heard }));
    Ok(())
}

/// Puts a question, in the state that says what kind of answer it wants.
fn ask(
    state: &mut State,
    wanted: TaskState,
    question: Message,
    now: UnixMillis,
    effects: &mut Effects,
) -> Result<(), Fault> {
    if is_open(state, wanted, &question) {
        return Ok(());
    }
    // The one that is open, this one and its answer join the history.
    if messages(state) + usize::from(waits(state)) + 2 > limits::JSON_ITEMS_MAX {
        return Err(too_large(state, "messages"));
    }
    move_to(state, wanted, Some(question), now, effects)?;
    effects.actions.push(Action::Answer);
    Ok(())
}

/// Takes a message to a task that waits for one; any other task takes none.
fn take_message(
    state: &mut State,
    mut message: Message,
    now: UnixMillis,
    effects: &mut Effects,
) -> Result<(), Fault> {
    let id = state.id().as_str();
    if message.task_id.as_ref().is_some_and(|named| named != state.id()) {
        return Err(not_found(message.task_id.as_ref().map_or("", |named| named.as_str())));
    }
    check_context(state, &message)?;
    let Some(task) = state.task() else { return Err(not_found(id)) };
    let stands = task.status.state;
    if !waits(state) {
        let text = if stands.is_terminal() {
            format!("task `{id}` has ended; send a new message that names it in `referenceTaskIds`")
        } else {
            format!("task `{id}` is at work and takes no further messages; wait until it ends")
        };
        return Err(Fault::new(FaultCode::UnsupportedOperation, text)
            .with("taskId", id)
            .with("state", stands.as_str()));
    }
    // The question joins the history too.
    if task.history.len() + 2 > limits::JSON_ITEMS_MAX {
        return Err(too_large(state, "messages"));
    }
    place(state, &mut message);
    // The question is moved to the history by what follows it, so the answer comes second.
    move_to(state, TaskState::Working, None, now, effects)?;
    publish(state, effects, TaskEvent::Message(message))?;
    effects.actions.push(Action::ResumeHandler);
    Ok(())
}

/// Holds a task to what a reader takes of one list. Texts that follow each other are one part by
/// then, so an artifact of ten thousand of them is far from the bound.
fn check_growth(state: &State, artifact: &Artifact, append: bool) -> Result<(), Fault> {
    let artifacts = state.task().map_or(&[][..], |task| &task.artifacts);
    let known = artifacts.iter().find(|known| known.artifact_id == artifact.artifact_id);
    let before = known.filter(|_| append).map_or(0, |known| known.parts.len());
    if before + artifact.parts.len() > limits::JSON_ITEMS_MAX {
        return Err(too_large(state, "parts in one artifact"));
    }
    // One is left for the result.
    if known.is_none() && artifacts.len() + 1 >= limits::JSON_ITEMS_MAX {
        return Err(too_large(state, "artifacts"));
    }
    Ok(())
}

fn too_large(state: &State, what: &str) -> Fault {
    let text = format!("task `{}` has as many {what} as its readers take", state.id());
    Fault::new(FaultCode::ResourceExhausted, text)
}

fn cancel(state: &mut State, now: UnixMillis, effects: &mut Effects) -> Result<(), Fault> {
    let id = state.id();
    match stands_at(state) {
        None => Err(not_found(id.as_str())),
        Some(stands) if stands.is_terminal() => {
            let text = format!("task `{id}` has ended and cannot be cancelled");
            Err(Fault::new(FaultCode::TaskNotCancelable, text)
                .with("taskId", id.as_str())
                .with("state", stands.as_str()))
        }
        Some(_) => end(state, TaskState::Canceled, None, now, effects, &[Action::StopHandler]),
    }
}

/// Ends the task for good; `first` is done before those who wait for it are answered.
fn end(
    state: &mut State,
    to: TaskState,
    says: Option<Message>,
    now: UnixMillis,
    effects: &mut Effects,
    first: &[Action],
) -> Result<(), Fault> {
    move_to(state, to, says, now, effects)?;
    effects.actions.extend_from_slice(first);
    effects.actions.push(Action::Answer);
    Ok(())
}

/// Says that the task stands at `to` from now on, and what the agent says of it.
fn move_to(
    state: &mut State,
    to: TaskState,
    mut says: Option<Message>,
    timestamp: UnixMillis,
    effects: &mut Effects,
) -> Result<(), Fault> {
    if let Some(message) = &mut says {
        place(state, message);
    }
    let status = TaskStatus { state: to, message: says, timestamp };
    publish(state, effects, TaskEvent::Status(status))
}

/// Adds a public event and changes the state by it. The event is copied once, because the journal
/// keeps one and the state shows the other.
fn publish(state: &mut State, effects: &mut Effects, event: TaskEvent) -> Result<(), Fault> {
    state.apply(event.clone()).map_err(|error| {
        let text = format!("event {} does not follow: {}", error.seq, error.source);
        Fault::new(FaultCode::Internal, text)
    })?;
    effects.events.push(event);
    Ok(())
}

/// Adds a record and changes the state by it.
fn record(state: &mut State, effects: &mut Effects, record: TaskRecord) {
    state.apply_record(record.clone());
    effects.records.push(record);
}

/// How many messages the history has.
fn messages(state: &State) -> usize {
    state.task().map_or(0, |task| task.history.len())
}

fn stands_at(state: &State) -> Option<TaskState> {
    state.task().map(|task| task.status.state)
}

fn is_active(state: &State) -> bool {
    stands_at(state).is_some_and(|stands| !stands.is_terminal())
}

/// Whether the task waits for a message.
fn waits(state: &State) -> bool {
    stands_at(state).is_some_and(TaskState::is_interrupted)
}

fn say(id: MessageId, text: String) -> Message {
    Message::new(id, Role::Agent, vec![Part::new(Content::Text(text))])
}

/// Writes into `message` which task and context it belongs to.
fn place(state: &State, message: &mut Message) {
    message.task_id = Some(state.id().clone());
    message.context_id = Some(state.context_id().clone());
}

/// A context that contradicts the task's is refused, never replaced.
fn check_context(state: &State, message: &Message) -> Result<(), Fault> {
    match &message.context_id {
        Some(named) if named != state.context_id() => Err(Fault::invalid_field(
            "message.contextId",
            "is not the context of the task; leave it out or send the task's own",
        )),
        _ => Ok(()),
    }
}

fn not_found(id: &str) -> Fault {
    Fault::new(FaultCode::TaskNotFound, format!("task `{id}` does not exist")).with("taskId", id)
}

#[cfg(test)]
mod tests;
