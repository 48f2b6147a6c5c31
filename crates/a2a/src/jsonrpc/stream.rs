//! The answer of a streaming method: server-sent events, each a JSON-RPC response of its own.
//!
//! Many subscribers of one task get the same events, and only the id of their requests differs. So
//! an event is a [`Head`] that belongs to one answer, and then a tail that all of them share:
//!
//! ```text
//! head   data: {"jsonrpc":"2.0","id":7,"result":
//! tail   {"statusUpdate":{…}}}
//!        id: 1.12
//! ```
//!
//! `id` is a [`Cursor`] at the newest event of the task that the reader knows by then. Behind the
//! task, each event is shown, so the numbers have no gap.

use bytes::Bytes;
use convoke_model::{
    Artifact, ContextId, Cursor, Fault, Message, MessageId, Task, TaskEvent, TaskId, TaskStatus,
};
use http::HeaderValue;

use super::{RequestIdJson, encode_fault};
use crate::headers::TASK_EVENTS_EXTENSION;
use crate::write::{self, Object};

/// The media type of an answer that is a stream. Source: A2A 1.0.1 §9.4.2.
pub const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

/// A comment, which readers skip: it shows that the stream is alive while nothing happens.
pub const HEARTBEAT: Bytes = Bytes::from_static(b":\n\n");

/// The beginning of every event of one answer, which ends where the event's own tail begins.
#[derive(Debug, Clone)]
pub struct Head(Bytes);

impl Head {
    /// The beginning of the events that answer the request `id`.
    #[must_use]
    pub fn new(id: &RequestIdJson) -> Self {
        let mut out = Vec::with_capacity(48 + id.as_str().len());
        out.extend_from_slice(b"data: ");
        let mut response = Object::begin(&mut out);
        response.string("jsonrpc", "2.0");
        response.word("id", id.as_str());
        response.key("result");
        Self(out.into())
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

/// The tail of the event that shows `task`, which includes everything up to the cursor. It is the
/// first of every stream about a task that does not go on where another one stopped.
#[must_use]
pub fn task_tail(task: &Task, cursor: Cursor) -> Bytes {
    task_tail_in(task, cursor, write::task_bytes(task))
}

/// The same, in a buffer of `capacity` bytes: where [`size`](crate::size) has said how much it takes
/// at most, it does not grow beyond that.
#[must_use]
pub fn task_tail_in(task: &Task, cursor: Cursor, capacity: usize) -> Bytes {
    tail(capacity, Some(cursor), |out| {
        let mut payload = Object::begin(out);
        write::task(payload.key("task"), task);
        payload.end();
    })
}

/// The tail of the only event of a stream without a task.
#[must_use]
pub fn message_tail(message: &Message) -> Bytes {
    tail(write::message_bytes(message), None, |out| {
        let mut payload = Object::begin(out);
        write::message(payload.key("message"), message);
        payload.end();
    })
}

/// The tail of the event of a task that `cursor` is at; `current` is the status that the task had
/// come to by then. `None` if streams do not show such events: the submission, which every task
/// begins with and shows itself.
///
/// A2A has no event for a message that joined the history. It is shown as the status that the task
/// stands at anyway, with the message's name in the metadata, for readers who want to know.
#[must_use]
pub fn update_tail(
    task_id: &TaskId,
    context_id: &ContextId,
    event: &TaskEvent,
    current: &TaskStatus,
    cursor: Cursor,
) -> Option<Bytes> {
    match event {
        TaskEvent::Submitted { .. } => None,
        TaskEvent::Message(message) => {
            let said = Some(&message.message_id);
            Some(status_tail(task_id, context_id, current, said, cursor))
        }
        TaskEvent::Status(status) => Some(status_tail(task_id, context_id, status, None, cursor)),
        TaskEvent::Artifact { artifact, append, last } => {
            Some(artifact_tail(task_id, context_id, artifact, (*append, *last), cursor))
        }
    }
}

/// The event that ends a stream early, and why; there is no result in it, so it has no tail.
#[must_use]
pub fn fault_event(id: &RequestIdJson, fault: &Fault) -> Bytes {
    let response = encode_fault(Some(id), fault);
    let mut out = Vec::with_capacity(response.len() + 8);
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(&response);
    on_one_line(&mut out);
    out.extend_from_slice(b"\n\n");
    out.into()
}

fn status_tail(
    task_id: &TaskId,
    context_id: &ContextId,
    status: &TaskStatus,
    said: Option<&MessageId>,
    cursor: Cursor,
) -> Bytes {
    let said_bytes = said.map_or(0, |id| 80 + id.as_str().len());
    let payload_bytes = 160 + said_bytes + status.message.as_ref().map_or(0, write::message_bytes);
    tail(payload_bytes, Some(cursor), |out| {
        let mut payload = Object::begin(out);
        let mut update = Object::begin(payload.key("statusUpdate"));
        update.string("taskId", task_id.as_str());
        update.string("contextId", context_id.as_str());
        write::status(update.key("status"), status);
        if let Some(message_id) = said {
            let mut metadata = Object::begin(update.key("metadata"));
            let mut extension = Object::begin(metadata.key(TASK_EVENTS_EXTENSION));
            extension.string("messageId", message_id.as_str());
            extension.end();
            metadata.end();
        }
        update.end();
        payload.end();
    })
}

fn artifact_tail(
    task_id: &TaskId,
    context_id: &ContextId,
    artifact: &Artifact,
    (append, last): (bool, bool),
    cursor: Cursor,
) -> Bytes {
    tail(192 + write::artifact_bytes(artifact), Some(cursor), |out| {
        let mut payload = Object::begin(out);
        let mut update = Object::begin(payload.key("artifactUpdate"));
        update.string("taskId", task_id.as_str());
        update.string("contextId", context_id.as_str());
        write::artifact(update.key("artifact"), artifact);
        // ProtoJSON leaves out what is false, and both are false unless they are there.
        if append {
            update.word("append", "true");
        }
        if last {
            update.word("lastChunk", "true");
        }
        update.end();
        payload.end();
    })
}

fn tail(payload_bytes: usize, cursor: Option<Cursor>, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = Vec::with_capacity(payload_bytes + 96);
    write(&mut out);
    // The end of the response that the head began.
    out.push(b'}');
    on_one_line(&mut out);
    if let Some(cursor) = cursor {
        out.extend_from_slice(b"\nid: ");
        out.extend_from_slice(cursor.to_string().as_bytes());
    }
    out.extend_from_slice(b"\n\n");
    out.into()
}

/// A line break ends a field of an event. In JSON it can only stand between values, where a space
/// means the same.
fn on_one_line(json: &mut [u8]) {
    for byte in json {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

#[cfg(test)]
mod tests {
    use convoke_model::{
        ArtifactId, Content, FaultCode, Json, MessageId, Part, Role, TaskState, UnixMillis,
    };

    use super::*;

    fn message(text: &str) -> Message {
        let data = Part::new(Content::Data(Json::parse(text).unwrap()));
        Message::new(MessageId::parse("m").unwrap(), Role::Agent, vec![data])
    }

    fn check(event: &TaskEvent, expected: Option<&str>) {
        let (task, context) = (TaskId::parse("t").unwrap(), ContextId::parse("c").unwrap());
        let current =
            TaskStatus { state: TaskState::InputRequired, message: None, timestamp: UnixMillis(0) };
        let tail = update_tail(&task, &context, event, &current, Cursor { epoch: 1, seq: 12 });
        let tail = tail.as_ref().map(|tail| std::str::from_utf8(tail).unwrap());
        assert_eq!(tail, expected);
    }

    #[test]
    fn updates_are_written_as_a2a_has_them() {
        let status = TaskStatus {
            state: TaskState::Working,
            message: Some(message("1")),
            timestamp: UnixMillis(0),
        };
        check(
            &TaskEvent::Status(status),
            Some(concat!(
                r#"{"statusUpdate":{"taskId":"t","contextId":"c","status":{"#,
                r#""state":"TASK_STATE_WORKING","message":{"messageId":"m","role":"ROLE_AGENT","#,
                r#""parts":[{"data":1}]}}}}}"#,
                "\nid: 1.12\n\n"
            )),
        );
        let artifact = Artifact {
            artifact_id: ArtifactId::parse("a").unwrap(),
            name: None,
            description: None,
            parts: vec![Part::new(Content::Text("x\ny".into()))],
            metadata: None,
            extensions: Vec::new(),
            unknown: Vec::new(),
        };
        for (append, last, flags) in [
            (false, false, ""),
            (true, false, r#","append":true"#),
            (true, true, r#","append":true,"lastChunk":true"#),
        ] {
            let expected = format!(
                "{}{flags}}}}}}}\nid: 1.12\n\n",
                concat!(
                    r#"{"artifactUpdate":{"taskId":"t","contextId":"c","#,
                    r#""artifact":{"artifactId":"a","parts":[{"text":"x\ny"}]}"#
                )
            );
            let artifact = artifact.clone();
            check(&TaskEvent::Artifact { artifact, append, last }, Some(&expected));
        }
        check(
            &TaskEvent::Message(message("1")),
            Some(concat!(
                r#"{"statusUpdate":{"taskId":"t","contextId":"c","#,
                r#""status":{"state":"TASK_STATE_INPUT_REQUIRED"},"#,
                r#""metadata":{"urn:convoke:ext:task-events:v1":{"messageId":"m"}}}}}"#,
                "\nid: 1.12\n\n"
            )),
        );
        check(&TaskEvent::Submitted { message: message("1"), at: UnixMillis(0) }, None);
    }

    #[test]
    fn an_event_is_one_line_whatever_the_payload() {
        let tail = message_tail(&message("[1,\r\n2]"));
        let mut event = Head::new(&RequestIdJson::from(7)).bytes().to_vec();
        event.extend_from_slice(&tail);
        assert_eq!(
            std::str::from_utf8(&event).unwrap(),
            concat!(
                r#"data: {"jsonrpc":"2.0","id":7,"result":{"message":{"messageId":"m","#,
                r#""role":"ROLE_AGENT","parts":[{"data":[1,  2]}]}}}"#,
                "\n\n"
            )
        );
        let fault = Fault::new(FaultCode::Unavailable, "the node\nends");
        let event = fault_event(&RequestIdJson::null(), &fault);
        let event = std::str::from_utf8(&event).unwrap();
        assert_eq!(event.lines().count(), 2, "{event}");
        assert!(event.starts_with(r#"data: {"jsonrpc":"2.0","id":null,"error":{"#), "{event}");
    }
}
