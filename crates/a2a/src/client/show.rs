//! What came back, as JSON for somebody who reads it elsewhere: A2A's names and shapes, payloads as
//! they came.

use convoke_model::{Cursor, Json, Message, Task, TaskEvent};

use super::{StreamItem, TaskPage};
use crate::headers::TASK_EVENTS_EXTENSION;
use crate::write::{self, Object, array};

/// A task as A2A writes it.
#[must_use]
pub fn task_json(task: &Task) -> Json {
    json(|out| write::task(out, task))
}

/// A message as A2A writes it.
#[must_use]
pub fn message_json(message: &Message) -> Json {
    json(|out| write::message(out, message))
}

/// A page of tasks as A2A writes it, but for the size of the page, which whoever asked knows.
#[must_use]
pub fn page_json(page: &TaskPage) -> Json {
    json(|out| {
        let mut object = Object::begin(out);
        array(object.key("tasks"), &page.tasks, write::task);
        object.string("nextPageToken", page.next.as_deref().unwrap_or_default());
        object.word("totalSize", &page.total.to_string());
        object.end();
    })
}

/// An event of a stream: the object that A2A has for it, with `cursor` beside it, and `reset` where
/// the event is the task as it stands and what came before is in it or lost.
#[must_use]
pub fn event_json(item: &StreamItem, cursor: Option<Cursor>, reset: bool) -> Json {
    json(|out| {
        let mut object = Object::begin(out);
        object.optional("cursor", cursor.map(|cursor| cursor.to_string()).as_deref());
        if reset {
            object.word("reset", "true");
        }
        match item {
            StreamItem::Task(task) => write::task(object.key("task"), task),
            StreamItem::Message(message) => write::message(object.key("message"), message),
            StreamItem::Update { task_id, context_id, event, said } => {
                let mut update = Object::begin(object.key(match event {
                    TaskEvent::Artifact { .. } => "artifactUpdate",
                    _ => "statusUpdate",
                }));
                update.string("taskId", task_id.as_str());
                update.string("contextId", context_id.as_str());
                match event {
                    TaskEvent::Status(status) => write::status(update.key("status"), status),
                    TaskEvent::Artifact { artifact, append, last } => {
                        write::artifact(update.key("artifact"), artifact);
                        if *append {
                            update.word("append", "true");
                        }
                        if *last {
                            update.word("lastChunk", "true");
                        }
                    }
                    // No stream has an event that is one of these.
                    TaskEvent::Submitted { .. } | TaskEvent::Message(_) => {}
                }
                if let Some(message_id) = said {
                    let mut metadata = Object::begin(update.key("metadata"));
                    let mut extension = Object::begin(metadata.key(TASK_EVENTS_EXTENSION));
                    extension.string("messageId", message_id.as_str());
                    extension.end();
                    metadata.end();
                }
                update.end();
            }
        }
        object.end();
    })
}

fn json(write: impl FnOnce(&mut Vec<u8>)) -> Json {
    let mut out = Vec::with_capacity(1024);
    write(&mut out);
    // The writer makes JSON of texts and of payloads that are JSON.
    std::str::from_utf8(&out).map_or_else(|_| Json::empty_object(), Json::from_checked)
}

#[cfg(test)]
mod tests {
    use convoke_model::{ContextId, MessageId, Role, TaskId, TaskState, TaskStatus, UnixMillis};

    use super::*;

    #[test]
    fn events_have_their_place_beside_them() {
        let status =
            TaskStatus { state: TaskState::Working, message: None, timestamp: UnixMillis(0) };
        let task = Task {
            id: TaskId::parse("t").unwrap(),
            context_id: ContextId::parse("c").unwrap(),
            status: status.clone(),
            artifacts: Vec::new(),
            history: Vec::new(),
            metadata: None,
        };
        let shown = r#"{"id":"t","contextId":"c","status":{"state":"TASK_STATE_WORKING"}}"#;
        assert_eq!(task_json(&task).get(), shown);
        let check = |item: StreamItem, seq: Option<u64>, reset: bool, expected: &str| {
            let cursor = seq.map(|seq| Cursor { epoch: 1, seq });
            assert_eq!(event_json(&item, cursor, reset).get(), expected);
        };
        let expected = format!(r#"{{"cursor":"1.2","reset":true,"task":{shown}}}"#);
        check(StreamItem::Task(task.clone()), Some(2), true, &expected);
        let update = StreamItem::Update {
            task_id: task.id.clone(),
            context_id: task.context_id.clone(),
            event: TaskEvent::Status(status),
            said: MessageId::parse("m").ok(),
        };
        check(
            update,
            Some(3),
            false,
            concat!(
                r#"{"cursor":"1.3","statusUpdate":{"taskId":"t","contextId":"c","#,
                r#""status":{"state":"TASK_STATE_WORKING"},"#,
                r#""metadata":{"urn:convoke:ext:task-events:v1":{"messageId":"m"}}}}"#
            ),
        );
        let message = Message::new(MessageId::parse("m").unwrap(), Role::Agent, Vec::new());
        let shown = r#"{"messageId":"m","role":"ROLE_AGENT","parts":[]}"#;
        assert_eq!(message_json(&message).get(), shown);
        check(StreamItem::Message(message), None, false, &format!(r#"{{"message":{shown}}}"#));
        let page = TaskPage { tasks: vec![task], next: Some("x".into()), total: 7 };
        let text = page_json(&page);
        assert!(text.get().ends_with(r#"}],"nextPageToken":"x","totalSize":7}"#), "{text:?}");
    }
}
