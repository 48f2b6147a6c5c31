//! What the events of a stream say.

use convoke_model::{
    Artifact, ContextId, Json, Message, MessageId, Task, TaskEvent, TaskId, TaskStatus,
};
use http::StatusCode;

use super::{AnswerError, neither, outcome, shape};
use crate::capability::enter_member;
use crate::headers::TASK_EVENTS_EXTENSION;
use crate::jsonrpc::RequestIdJson;
use crate::read;
use crate::reader::{Kind, Path, Problems, Reader, object};
use crate::scalar::{boolean, id, metadata};

/// What one event of a stream says.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamItem {
    /// The task as it stands: the first event of a stream about a task.
    Task(Task),
    /// A direct message, the only event of a stream without a task.
    Message(Message),
    /// Something happened to the task.
    Update {
        /// To which.
        task_id: TaskId,
        /// The conversation that the task belongs to.
        context_id: ContextId,
        /// What: a [`TaskEvent::Status`] or a [`TaskEvent::Artifact`].
        event: TaskEvent,
        /// The message that joined the task, if that is what happened; the event is then the status
        /// that the task stands at anyway. Agents of ours say so.
        said: Option<MessageId>,
    },
}

impl StreamItem {
    /// Whether nothing can come after this.
    #[must_use]
    pub fn is_last(&self) -> bool {
        match self {
            Self::Task(task) => task.status.state.is_terminal(),
            Self::Message(_) => true,
            Self::Update { event: TaskEvent::Status(status), .. } => status.state.is_terminal(),
            Self::Update { .. } => false,
        }
    }
}

/// Reads the data of one event of the answer to request `id`.
///
/// # Errors
///
/// [`AnswerError`]; a peer's texts in it are bounded and have no control characters. After any of
/// them the stream has nothing more to say.
pub fn parse_event(id: &RequestIdJson, data: &[u8]) -> Result<StreamItem, AnswerError> {
    let result = outcome(id, StatusCode::OK, data)?.ok_or_else(neither)?;
    let mut reader = Reader::new(result);
    let mut payloads = Vec::new();
    if reader.kind() == Kind::Object {
        reader.enter();
        while let Some(key) = reader.key() {
            let value = reader.raw().unwrap_or_default();
            let what = match &*key {
                "task" => What::Task,
                "message" => What::Message,
                "statusUpdate" => What::Status,
                "artifactUpdate" => What::Artifact,
                _ => continue,
            };
            if value != "null" {
                payloads.push((what, value));
            }
        }
    }
    let [(what, text)] = payloads.as_slice() else {
        return Err(shape(
            "result",
            "must have exactly one of `task`, `message`, `statusUpdate`, `artifactUpdate`",
        ));
    };
    let mut problems = Problems::default();
    let (reader, at) = (&mut Reader::new(text), &Path::Root);
    let item = match what {
        What::Task => read::task(reader, at, &mut problems).map(StreamItem::Task),
        What::Message => read::message(reader, at, &mut problems).map(StreamItem::Message),
        What::Status => status_update(reader, at, &mut problems),
        What::Artifact => artifact_update(reader, at, &mut problems),
    };
    match item {
        Some(item) if problems.0.is_empty() => Ok(item),
        _ => Err(AnswerError::Shape(problems.0)),
    }
}

#[derive(Clone, Copy)]
enum What {
    Task,
    Message,
    Status,
    Artifact,
}

fn status_update(
    reader: &mut Reader<'_>,
    at: &Path<'_>,
    problems: &mut Problems,
) -> Option<StreamItem> {
    const NAMES: &[&str] = &["taskId", "contextId", "status", "metadata"];
    let (mut task_id, mut context_id, mut said) = (None, None, None);
    let mut status: Option<TaskStatus> = None;
    object(reader, at, problems, NAMES, None, |field, reader, at, problems| match field {
        "taskId" => task_id = id(reader, at, problems, TaskId::parse),
        "contextId" => context_id = id(reader, at, problems, ContextId::parse),
        "status" => status = read::status(reader, at, problems),
        _ => said = metadata(reader, at, problems).as_ref().and_then(said_in),
    })
    .then_some(())?;
    let status = problems.require(at, "status", status);
    update(at, problems, (task_id, context_id), status.map(TaskEvent::Status), said)
}

/// The message that an update stands for. What is none is nobody's loss.
fn said_in(metadata: &Json) -> Option<MessageId> {
    let mut reader = Reader::new(metadata.get());
    let named =
        enter_member(&mut reader, TASK_EVENTS_EXTENSION) && enter_member(&mut reader, "messageId");
    named.then(|| reader.string()).flatten().and_then(|id| MessageId::parse(&id).ok())
}

fn artifact_update(
    reader: &mut Reader<'_>,
    at: &Path<'_>,
    problems: &mut Problems,
) -> Option<StreamItem> {
    const NAMES: &[&str] = &["taskId", "contextId", "artifact", "append", "lastChunk"];
    let (mut task_id, mut context_id) = (None, None);
    let mut artifact: Option<Artifact> = None;
    let (mut append, mut last) = (false, false);
    object(reader, at, problems, NAMES, None, |field, reader, at, problems| match field {
        "taskId" => task_id = id(reader, at, problems, TaskId::parse),
        "contextId" => context_id = id(reader, at, problems, ContextId::parse),
        "artifact" => artifact = read::artifact(reader, at, problems),
        "append" => append = boolean(reader, at, problems),
        _ => last = boolean(reader, at, problems),
    })
    .then_some(())?;
    let artifact = problems.require(at, "artifact", artifact);
    let event = artifact.map(|artifact| TaskEvent::Artifact { artifact, append, last });
    update(at, problems, (task_id, context_id), event, None)
}

fn update(
    at: &Path<'_>,
    problems: &mut Problems,
    (task_id, context_id): (Option<TaskId>, Option<ContextId>),
    event: Option<TaskEvent>,
    said: Option<MessageId>,
) -> Option<StreamItem> {
    let task_id = problems.require(at, "taskId", task_id);
    let context_id = problems.require(at, "contextId", context_id);
    Some(StreamItem::Update { task_id: task_id?, context_id: context_id?, event: event?, said })
}

#[cfg(test)]
mod tests {
    use convoke_model::{
        ArtifactId, Content, Cursor, Fault, FaultCode, MessageId, Part, Role, TaskState, UnixMillis,
    };

    use super::*;
    use crate::client::EventReader;
    use crate::jsonrpc::stream::{Head, fault_event, message_tail, task_tail, update_tail};

    fn id() -> RequestIdJson {
        RequestIdJson::from(7)
    }

    fn names() -> (TaskId, ContextId) {
        (TaskId::parse("t").unwrap(), ContextId::parse("c").unwrap())
    }

    /// Reads events as the server half writes them.
    fn reads(bytes: &[u8], expected: Result<StreamItem, AnswerError>, seq: Option<&str>) {
        let mut reader = EventReader::new(10_000);
        reader.push(bytes);
        let event = reader.next_event().unwrap().unwrap();
        assert_eq!(event.id.as_deref(), seq);
        assert_eq!(parse_event(&id(), &event.data), expected);
        assert_eq!(reader.next_event(), Ok(None));
    }

    #[test]
    fn what_the_server_half_writes_is_read() {
        let (task_id, context_id) = names();
        let parts = vec![Part::new(Content::Text("a\nb".into()))];
        let message = Message::new(MessageId::parse("m").unwrap(), Role::Agent, parts.clone());
        let status = TaskStatus {
            state: TaskState::Working,
            message: Some(message.clone()),
            timestamp: UnixMillis(1_000),
        };
        let artifact = Artifact {
            artifact_id: ArtifactId::parse("a").unwrap(),
            name: None,
            description: None,
            parts,
            metadata: None,
            extensions: Vec::new(),
            unknown: Vec::new(),
        };
        let head = Head::new(&id());
        let check = |tail: &[u8], item: StreamItem, seq: Option<&str>| {
            reads(&[head.bytes(), tail].concat(), Ok(item), seq);
        };
        check(&message_tail(&message), StreamItem::Message(message.clone()), None);
        let task = Task {
            id: task_id.clone(),
            context_id: context_id.clone(),
            status: status.clone(),
            artifacts: vec![artifact.clone()],
            history: vec![message.clone()],
            metadata: None,
        };
        let at = |seq| Cursor { epoch: 1, seq };
        check(&task_tail(&task, at(3)), StreamItem::Task(task), Some("1.3"));
        for event in [
            TaskEvent::Status(status.clone()),
            TaskEvent::Artifact { artifact: artifact.clone(), append: false, last: false },
            TaskEvent::Artifact { artifact, append: true, last: true },
        ] {
            let tail = update_tail(&task_id, &context_id, &event, &status, at(4)).unwrap();
            let (task_id, context_id) = names();
            let said = None;
            check(&tail, StreamItem::Update { task_id, context_id, event, said }, Some("1.4"));
        }
        let (task_id, context_id) = names();
        let joined = TaskEvent::Message(message);
        let tail = update_tail(&task_id, &context_id, &joined, &status, at(5)).unwrap();
        let (event, said) = (TaskEvent::Status(status), MessageId::parse("m").ok());
        check(&tail, StreamItem::Update { task_id, context_id, event, said }, Some("1.5"));
        let fault = Fault::new(FaultCode::Unavailable, "the node ends");
        reads(&fault_event(&id(), &fault), Err(AnswerError::Fault(fault.clone())), None);
    }

    #[test]
    fn what_is_none_of_them_is_refused() {
        let check = |data: &str, expected: &str| {
            let error = parse_event(&id(), data.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        let with = |result: &str| format!(r#"{{"jsonrpc":"2.0","id":7,"result":{result}}}"#);
        check("{", "refused");
        check(r#"{"jsonrpc":"2.0","id":8,"result":{}}"#, "to request 8");
        check(r#"{"jsonrpc":"2.0","id":7}"#, "either `result` or `error`");
        check(&with("{}"), "exactly one of");
        check(&with(r#"{"task":{},"message":{}}"#), "exactly one of");
        check(&with(r#"{"statusUpdate":{}}"#), "status is required");
        check(
            &with(r#"{"artifactUpdate":{"taskId":"t","contextId":"c"}}"#),
            "artifact is required",
        );
        check(&with(r#"{"artifactUpdate":7}"#), "must be an object");
    }
}
