//! What can happen to a task.

use convoke_model::{Artifact, Json, Message, MessageId, UnixMillis};

/// Something that happened to a task. Payloads are carried, never looked into.
///
/// Where an event makes the agent say something, the caller of [`crate::decide`] gives the new
/// message's identifier, because the engine has no source of random numbers.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A caller sent the message that makes the task.
    Submit(Message),
    /// A caller sent a message that names the task, which exists.
    Message(Message),
    /// The capability's handler has begun: for the first time, another time, or again after a
    /// restart.
    HandlerStarted,
    /// The capability's handler says how far it is.
    HandlerProgress(Message),
    /// The capability's handler gave a result, or a piece of one, before its end.
    HandlerArtifact {
        /// The result, or the piece.
        artifact: Artifact,
        /// Whether the parts are added to the artifact of that name instead of replacing it.
        append: bool,
        /// Whether the artifact is complete with this.
        last: bool,
    },
    /// The capability's handler can go on from here, should it be run again.
    HandlerCheckpoint(Json),
    /// The capability's handler wants to be told something before it goes on.
    HandlerAsked(Message),
    /// The capability's handler wants the client to sign in somewhere before it goes on.
    HandlerAsksAuthorization(Message),
    /// The capability's handler goes on without the answer that it asked for.
    HandlerResumed,
    /// The capability's handler gave its result, or the agent's own words on why it has none.
    HandlerFinished(Result<Artifact, Message>),
    /// This attempt of the capability's handler has failed.
    HandlerFailed {
        /// Why, in the agent's own words.
        why: Message,
        /// When another attempt is made at the earliest; without one, the task has failed.
        again_at: Option<UnixMillis>,
    },
    /// The agent will not do it.
    HandlerRejected(Message),
    /// The capability's handler panicked.
    HandlerPanicked {
        /// Names the status message that says so.
        message_id: MessageId,
    },
    /// The next attempt is due.
    RetryDue,
    /// A node found the task after a restart, with nobody at work on it.
    Recovered {
        /// Whether the capability's handler can go on where an earlier one was broken off.
        resumable: bool,
        /// Names the status message that says so if it cannot.
        message_id: MessageId,
    },
    /// The owner wants the task to end.
    Cancel,
    /// The task's deadline passed.
    DeadlinePassed {
        /// Names the status message that says so.
        message_id: MessageId,
    },
}
