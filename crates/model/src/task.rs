//! Tasks, messages and artifacts: A2A's nouns, without a wire.

use crate::{ArtifactId, ContextId, Json, MessageId, TaskId, UnixMillis};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The sender's name for it.
    pub message_id: MessageId,
    /// The conversation it belongs to; the node makes one if the client gave none.
    pub context_id: Option<ContextId>,
    /// The task it belongs to.
    pub task_id: Option<TaskId>,
    /// Who says it.
    pub role: Role,
    /// What is said; never empty.
    pub parts: Vec<Part>,
    /// Whatever the sender attached; an object.
    pub metadata: Option<Json>,
    /// URIs of the extensions that shaped this message.
    pub extensions: Vec<String>,
    /// Tasks it speaks about.
    pub reference_task_ids: Vec<TaskId>,
    /// Fields that we do not know, kept in the order in which they came.
    pub unknown: Vec<(String, Json)>,
}

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The client.
    User,
    /// The agent.
    Agent,
}

/// A piece of a message or an artifact.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// What it holds.
    pub content: Content,
    /// Whatever its author attached; an object.
    pub metadata: Option<Json>,
    /// A name for it, as of a file.
    pub filename: Option<String>,
    /// Its media type.
    pub media_type: Option<String>,
    /// Fields that we do not know, kept in the order in which they came.
    pub unknown: Vec<(String, Json)>,
}

/// What a part holds: exactly one of these.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// Bytes, as the base64 text that they came in.
    Raw(String),
    /// An address where the content is.
    Url(String),
    /// Any JSON value.
    Data(Json),
}

/// A result of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Artifact {
    /// Its name within the task.
    pub artifact_id: ArtifactId,
    /// A name for people.
    pub name: Option<String>,
    /// What it is, for people.
    pub description: Option<String>,
    /// What it holds; never empty.
    pub parts: Vec<Part>,
    /// Whatever its author attached; an object.
    pub metadata: Option<Json>,
    /// URIs of the extensions that shaped it.
    pub extensions: Vec<String>,
    /// Fields that we do not know, kept in the order in which they came.
    pub unknown: Vec<(String, Json)>,
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskState {
    /// Accepted, not begun.
    Submitted,
    /// A handler is at it.
    Working,
    /// Ended with its result.
    Completed,
    /// Ended with an error.
    Failed,
    /// Ended because somebody asked.
    Canceled,
    /// Waits for a message of the client.
    InputRequired,
    /// Ended because the agent would not do it.
    Rejected,
    /// Waits for a credential.
    AuthRequired,
}

/// A task's state, since when, and what the agent says of it.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskStatus {
    /// Where the task stands.
    pub state: TaskState,
    /// What the agent says of it.
    pub message: Option<Message>,
    /// Since when.
    pub timestamp: UnixMillis,
}

/// A task as a caller sees it at one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The node's name for it.
    pub id: TaskId,
    /// The conversation it belongs to.
    pub context_id: ContextId,
    /// Where it stands.
    pub status: TaskStatus,
    /// Its results so far.
    pub artifacts: Vec<Artifact>,
    /// Its messages, oldest first.
    pub history: Vec<Message>,
    /// Whatever is attached; an object.
    pub metadata: Option<Json>,
}

/// A public event of a task. Its number within the task, `seq`, is gapless and kept beside it.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskEvent {
    /// The task exists.
    Submitted {
        /// The message that made it.
        message: Message,
        /// When.
        at: UnixMillis,
    },
    /// A message joined the history.
    Message(Message),
    /// The state changed.
    Status(TaskStatus),
    /// A result, or a piece of one.
    Artifact {
        /// The result, or the piece.
        artifact: Artifact,
        /// Whether the parts are added to the artifact of that name instead of replacing it.
        append: bool,
        /// Whether the artifact is complete with this.
        last: bool,
    },
}

impl TaskState {
    /// Whether a task in this state has ended for good.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Canceled | Self::Rejected)
    }

    /// Whether a task in this state waits for the client.
    #[must_use]
    pub fn is_interrupted(self) -> bool {
        matches!(self, Self::InputRequired | Self::AuthRequired)
    }

    /// The name that A2A 1.0 gives the state.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submitted => "TASK_STATE_SUBMITTED",
            Self::Working => "TASK_STATE_WORKING",
            Self::Completed => "TASK_STATE_COMPLETED",
            Self::Failed => "TASK_STATE_FAILED",
            Self::Canceled => "TASK_STATE_CANCELED",
            Self::InputRequired => "TASK_STATE_INPUT_REQUIRED",
            Self::Rejected => "TASK_STATE_REJECTED",
            Self::AuthRequired => "TASK_STATE_AUTH_REQUIRED",
        }
    }
}

impl Part {
    /// A part with `content` and nothing else.
    #[must_use]
    pub fn new(content: Content) -> Self {
        Self { content, metadata: None, filename: None, media_type: None, unknown: Vec::new() }
    }
}

impl Message {
    /// A message with an id, a role and parts, and nothing else.
    #[must_use]
    pub fn new(message_id: MessageId, role: Role, parts: Vec<Part>) -> Self {
        Self {
            message_id,
            context_id: None,
            task_id: None,
            role,
            parts,
            metadata: None,
            extensions: Vec::new(),
            reference_task_ids: Vec::new(),
            unknown: Vec::new(),
        }
    }
}

impl Task {
    /// At most `length` of the newest messages; `None` means all.
    #[must_use]
    pub fn newest(&self, length: Option<u32>) -> &[Message] {
        let keep =
            length.map_or(usize::MAX, |length| usize::try_from(length).unwrap_or(usize::MAX));
        self.history.get(self.history.len().saturating_sub(keep)..).unwrap_or_default()
    }

    /// A copy with at most `history` of the newest messages; the others are not copied.
    #[must_use]
    pub fn showing(&self, history: Option<u32>) -> Self {
        Self {
            id: self.id.clone(),
            context_id: self.context_id.clone(),
            status: self.status.clone(),
            artifacts: self.artifacts.clone(),
            history: self.newest(history).to_vec(),
            metadata: self.metadata.clone(),
        }
    }

    /// Keeps at most `length` of the newest messages; `None` keeps all. Zero means none.
    pub fn trim_history(&mut self, length: Option<u32>) {
        if let Some(length) = length {
            let keep = usize::try_from(length).unwrap_or(usize::MAX);
            let drop = self.history.len().saturating_sub(keep);
            self.history.drain(..drop);
        }
    }
}
