//! The decisions about a task.

use convoke_model::{
    Artifact, Content, Fault, FaultCode, Message, MessageId, Part, Role, TaskEvent, TaskState,
    TaskStatus, UnixMillis, limits,
};

use crate::{Action, Effects, Event, State};

/// Decides what follows from `event`, which happened at `now`: changes `state` and adds to `effects`
/// what is to be committed and done. On an error neither has changed.
///
/// The first event that ends a task wins. What its handler or its timer still reports afterwards is
/// late, not wrong, and changes nothing.
///
/// # Errors
///
/// The [`Fault`] that the sender of the event is told:
///
/// - [`FaultCode::TaskNotFound`] if the event is about a task that was never submitted, or a new
///   message names another task than this;
/// - [`FaultCode::TaskNotCancelable`] if a task that has ended is to be cancelled;
/// - [`FaultCode::UnsupportedOperation`] for a message to a task that does not wait for one, and for
///   a second question of a handler whose first one is open;
/// - [`FaultCode::ResourceExhausted`] if the task would grow beyond what its readers take;
/// - [`FaultCode::InvalidParams`] for a message that names another context than the task's;
/// - [`FaultCode::Internal`] if the task is submitted a second time, which no caller can ask for.
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
        Event::HandlerStarted => {
            if stands_at(state) != Some(TaskState::Submitted) {
                return Ok(());
            }
            move_to(state, TaskState::Working, None, now, effects)
        }
        // What is left are reports about the handler: stale once the task has ended.
        _ if !is_active(state) => Ok(()),
        // While the task waits, its status says for what, and that is what the client has to see.
        Event::HandlerProgress(_) if waits(state) => Ok(()),
        Event::HandlerProgress(message) => {
            move_to(state, TaskState::Working, Some(message), now, effects)
        }
        Event::HandlerArtifact { artifact, append, last } => {
            check_growth(state, &artifact, append)?;
            record(state, effects, TaskEvent::Artifact { artifact, append, last })
        }
        Event::HandlerAsked(_) if waits(state) => {
            let text = format!("task `{}` has a question open already", state.id());
            Err(Fault::new(FaultCode::UnsupportedOperation, text))
        }
        Event::HandlerAsked(question) => {
            move_to(state, TaskState::InputRequired, Some(question), now, effects)?;
            effects.actions.push(Action::Answer);
            Ok(())
        }
        Event::HandlerResumed if waits(state) => {
            move_to(state, TaskState::Working, None, now, effects)
        }
        Event::HandlerResumed => Ok(()),
        Event::HandlerFinished(Ok(artifact)) => {
            record(state, effects, TaskEvent::Artifact { artifact, append: false, last: true })?;
            move_to(state, TaskState::Completed, None, now, effects)?;
            effects.actions.push(Action::Answer);
            Ok(())
        }
        Event::HandlerFinished(Err(why)) => {
            move_to(state, TaskState::Failed, Some(why), now, effects)?;
            effects.actions.push(Action::Answer);
            Ok(())
        }
        Event::HandlerPanicked { message_id } => {
            let text = format!("capability `{}` broke off unexpectedly", state.capability());
            move_to(state, TaskState::Failed, Some(say(message_id, text)), now, effects)?;
            effects.actions.push(Action::Answer);
            Ok(())
        }
        Event::DeadlinePassed { message_id } => {
            let text =
                format!("the deadline passed before capability `{}` ended", state.capability());
            move_to(state, TaskState::Failed, Some(say(message_id, text)), now, effects)?;
            effects.actions.extend([Action::StopHandler, Action::Answer]);
            Ok(())
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
    record(state, effects, TaskEvent::Submitted { message, at })?;
    effects.actions.push(Action::RunHandler);
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
    record(state, effects, TaskEvent::Message(message))?;
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
        Some(_) => {
            move_to(state, TaskState::Canceled, None, now, effects)?;
            effects.actions.extend([Action::StopHandler, Action::Answer]);
            Ok(())
        }
    }
}

/// Records that the task stands at `to` from now on, and what the agent says of it.
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
    record(state, effects, TaskEvent::Status(status))
}

/// Records `event` and changes the state by it. The event is copied once, because the journal keeps
/// one and the state shows the other.
fn record(state: &mut State, effects: &mut Effects, event: TaskEvent) -> Result<(), Fault> {
    state.apply(event.clone()).map_err(|error| {
        let text = format!("event {} does not follow: {}", error.seq, error.source);
        Fault::new(FaultCode::Internal, text)
    })?;
    effects.records.push(event);
    Ok(())
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
