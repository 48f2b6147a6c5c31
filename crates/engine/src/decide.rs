//! The decisions about a task.

use convoke_model::{
    Content, Fault, FaultCode, Message, MessageId, Part, Role, TaskEvent, TaskState, TaskStatus,
    UnixMillis,
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
/// - [`FaultCode::UnsupportedOperation`] for a message to a task that exists;
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
        Event::Message(message) => Err(refuse_message(state, &message)),
        Event::Cancel => cancel(state, now, effects),
        Event::HandlerStarted => {
            if stands_at(state) != Some(TaskState::Submitted) {
                return Ok(());
            }
            let working = TaskStatus { state: TaskState::Working, message: None, timestamp: now };
            record(state, effects, TaskEvent::Status(working))
        }
        // What is left are reports about the handler: stale once the task has ended.
        _ if !is_active(state) => Ok(()),
        Event::HandlerFinished(Ok(artifact)) => {
            record(state, effects, TaskEvent::Artifact { artifact, append: false, last: true })?;
            end(state, TaskState::Completed, None, now, effects)?;
            effects.actions.push(Action::Answer);
            Ok(())
        }
        Event::HandlerFinished(Err(why)) => {
            end(state, TaskState::Failed, Some(why), now, effects)?;
            effects.actions.push(Action::Answer);
            Ok(())
        }
        Event::HandlerPanicked { message_id } => {
            let text = format!("capability `{}` broke off unexpectedly", state.capability());
            end(state, TaskState::Failed, Some(say(message_id, text)), now, effects)?;
            effects.actions.push(Action::Answer);
            Ok(())
        }
        Event::DeadlinePassed { message_id } => {
            let text =
                format!("the deadline passed before capability `{}` ended", state.capability());
            end(state, TaskState::Failed, Some(say(message_id, text)), now, effects)?;
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

/// Why a message to an existing task is not taken. Conversations within one task are not supported.
fn refuse_message(state: &State, message: &Message) -> Fault {
    if let Err(fault) = check_context(state, message) {
        return fault;
    }
    let id = state.id();
    match stands_at(state) {
        None => not_found(id.as_str()),
        Some(stands) => {
            let text = if stands.is_terminal() {
                format!(
                    "task `{id}` has ended; send a new message that names it in `referenceTaskIds`"
                )
            } else {
                format!("task `{id}` is at work and takes no further messages; wait until it ends")
            };
            Fault::new(FaultCode::UnsupportedOperation, text)
                .with("taskId", id.as_str())
                .with("state", stands.as_str())
        }
    }
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
            end(state, TaskState::Canceled, None, now, effects)?;
            effects.actions.extend([Action::StopHandler, Action::Answer]);
            Ok(())
        }
    }
}

/// Records that the task ended as `ending`, and what the agent says of it.
fn end(
    state: &mut State,
    ending: TaskState,
    mut says: Option<Message>,
    timestamp: UnixMillis,
    effects: &mut Effects,
) -> Result<(), Fault> {
    if let Some(message) = &mut says {
        place(state, message);
    }
    let status = TaskStatus { state: ending, message: says, timestamp };
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
