//! How much memory a task takes, closely enough for a bound: what its containers hold, used or in
//! reserve.

use convoke_model::{Artifact, Content, EventError, Json, Message, Part, Task, TaskEvent};

/// What an allocator adds to a block.
///
/// Source: glibc, jemalloc and mimalloc add 0 to 16 bytes to small blocks, for a header or by
/// rounding up to the next size.
const BLOCK_BYTES: usize = 16;

/// The two counts before the content of an `Arc`.
const COUNTS_BYTES: usize = 2 * size_of::<usize>();

/// What [`put`] has changed, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    /// What the event touched took this much before,
    pub(crate) freed: usize,
    /// and takes this much now.
    pub(crate) taken: usize,
}

/// Adds `event` to `task`, and says by how much its [`task_bytes`] change. It looks only at what the
/// event touches, so a task that grows by many small pieces costs no more than it has to.
///
/// # Errors
///
/// As [`Task::apply`]; nothing has changed.
pub(crate) fn put(task: &mut Task, event: TaskEvent) -> Result<Change, EventError> {
    let TaskEvent::Artifact { artifact, append, .. } = &event else {
        let old = task.history.len();
        let freed = conversation_bytes(task, old);
        task.apply(event)?;
        return Ok(Change { freed, taken: conversation_bytes(task, old) });
    };
    let known = task.artifacts.iter().position(|known| known.artifact_id == artifact.artifact_id);
    // Of an artifact that is added to, the parts stay; to the last of them text may be joined.
    let old = match known {
        Some(at) if *append => task.artifacts[at].parts.len().saturating_sub(1),
        _ => 0,
    };
    let freed = result_bytes(task, known, old);
    task.apply(event)?;
    let at = known.or(task.artifacts.len().checked_sub(1));
    Ok(Change { freed, taken: result_bytes(task, at, old) })
}

/// About how many bytes of memory `task` takes behind an `Arc`.
pub(crate) fn task_bytes(task: &Task) -> usize {
    BLOCK_BYTES
        + COUNTS_BYTES
        + size_of::<Task>()
        + text_bytes(task.id.as_str())
        + text_bytes(task.context_id.as_str())
        + conversation_bytes(task, 0)
        + list_bytes(&task.artifacts)
        + task.artifacts.iter().map(|artifact| artifact_bytes(artifact, 0)).sum::<usize>()
        + task.metadata.as_ref().map_or(0, json_bytes)
}

/// About how many bytes of memory `event` takes at most once it is part of a task that has room for
/// it in its lists.
pub(crate) fn event_bytes(event: &TaskEvent) -> usize {
    let content = match event {
        TaskEvent::Submitted { message, .. } | TaskEvent::Message(message) => {
            message_bytes(message)
        }
        TaskEvent::Status(status) => status.message.as_ref().map_or(0, message_bytes),
        TaskEvent::Artifact { artifact, .. } => artifact_bytes(artifact, 0),
    };
    size_of::<TaskEvent>() + content
}

/// What is said in `task`, from message `from` on.
fn conversation_bytes(task: &Task, from: usize) -> usize {
    let messages = task.history.iter().skip(from).map(message_bytes);
    list_bytes(&task.history)
        + messages.sum::<usize>()
        + task.status.message.as_ref().map_or(0, message_bytes)
}

/// The results of `task` as a list, and artifact `at` of it from part `from` on.
fn result_bytes(task: &Task, at: Option<usize>, from: usize) -> usize {
    let artifact = at.and_then(|at| task.artifacts.get(at));
    list_bytes(&task.artifacts) + artifact.map_or(0, |artifact| artifact_bytes(artifact, from))
}

/// What a message points to.
fn message_bytes(message: &Message) -> usize {
    let ids = message.reference_task_ids.iter().map(|id| text_bytes(id.as_str()));
    text_bytes(message.message_id.as_str())
        + message.context_id.as_ref().map_or(0, |id| text_bytes(id.as_str()))
        + message.task_id.as_ref().map_or(0, |id| text_bytes(id.as_str()))
        + list_bytes(&message.parts)
        + message.parts.iter().map(part_bytes).sum::<usize>()
        + message.metadata.as_ref().map_or(0, json_bytes)
        + extensions_bytes(&message.extensions)
        + list_bytes(&message.reference_task_ids)
        + ids.sum::<usize>()
        + unknown_bytes(&message.unknown)
}

/// What an artifact points to, of its parts those from number `from` on.
fn artifact_bytes(artifact: &Artifact, from: usize) -> usize {
    text_bytes(artifact.artifact_id.as_str())
        + artifact.name.as_ref().map_or(0, string_bytes)
        + artifact.description.as_ref().map_or(0, string_bytes)
        + list_bytes(&artifact.parts)
        + artifact.parts.iter().skip(from).map(part_bytes).sum::<usize>()
        + artifact.metadata.as_ref().map_or(0, json_bytes)
        + extensions_bytes(&artifact.extensions)
        + unknown_bytes(&artifact.unknown)
}

/// What a part points to.
fn part_bytes(part: &Part) -> usize {
    let content = match &part.content {
        Content::Text(text) | Content::Raw(text) | Content::Url(text) => string_bytes(text),
        Content::Data(json) => json_bytes(json),
    };
    content
        + part.metadata.as_ref().map_or(0, json_bytes)
        + part.filename.as_ref().map_or(0, string_bytes)
        + part.media_type.as_ref().map_or(0, string_bytes)
        + unknown_bytes(&part.unknown)
}

fn extensions_bytes(extensions: &Vec<String>) -> usize {
    list_bytes(extensions) + extensions.iter().map(string_bytes).sum::<usize>()
}

fn unknown_bytes(fields: &Vec<(String, Json)>) -> usize {
    let fields_bytes = fields.iter().map(|(name, value)| string_bytes(name) + json_bytes(value));
    list_bytes(fields) + fields_bytes.sum::<usize>()
}

fn json_bytes(json: &Json) -> usize {
    text_bytes(json.get())
}

/// A text behind an `Arc`.
pub(crate) fn text_bytes(text: &str) -> usize {
    BLOCK_BYTES + COUNTS_BYTES + text.len()
}

/// What a string points to. One that is joined from pieces has room for more of them.
fn string_bytes(text: &String) -> usize {
    block_bytes(text.capacity())
}

/// What a list points to, without what its items point to.
fn list_bytes<T>(list: &Vec<T>) -> usize {
    block_bytes(list.capacity() * size_of::<T>())
}

/// Nothing is no block.
fn block_bytes(content: usize) -> usize {
    if content == 0 { 0 } else { BLOCK_BYTES + content }
}

#[cfg(test)]
mod tests {
    use convoke_model::{ArtifactId, ContextId, MessageId, Role, TaskId};
    use convoke_model::{TaskState, TaskStatus, UnixMillis};

    use super::*;

    #[test]
    fn every_text_of_a_peer_counts() {
        const LONG: usize = 100_000;
        let long = || "x".repeat(LONG);
        let json = || Json::of(&long()).unwrap();
        let plain = || {
            let part = Part::new(Content::Text(String::new()));
            Message::new(MessageId::parse("m").unwrap(), Role::User, vec![part])
        };
        let with = |change: &dyn Fn(&mut Message)| {
            let mut message = plain();
            change(&mut message);
            message
        };
        for message in [
            with(&|m| m.parts[0].content = Content::Text(long())),
            with(&|m| m.parts[0].content = Content::Raw(long())),
            with(&|m| m.parts[0].content = Content::Url(long())),
            with(&|m| m.parts[0].content = Content::Data(json())),
            with(&|m| m.parts[0].metadata = Some(json())),
            with(&|m| m.parts[0].filename = Some(long())),
            with(&|m| m.parts[0].media_type = Some(long())),
            with(&|m| m.parts[0].unknown.push((long(), Json::empty_object()))),
            with(&|m| m.parts = vec![Part::new(Content::Text(String::new())); LONG / 100]),
            with(&|m| m.metadata = Some(json())),
            with(&|m| m.extensions.push(long())),
            with(&|m| m.unknown.push((String::new(), json()))),
        ] {
            let status = TaskStatus {
                state: TaskState::Failed,
                message: Some(message.clone()),
                timestamp: UnixMillis(1),
            };
            assert!(event_bytes(&TaskEvent::Status(status)) > LONG, "{message:?}");
            assert!(event_bytes(&TaskEvent::Message(message)) > LONG);
        }
        assert!(event_bytes(&TaskEvent::Message(plain())) < 1024);
    }

    fn message(text: &str) -> Message {
        let part = Part::new(Content::Text(text.to_owned()));
        Message::new(MessageId::parse("m").unwrap(), Role::User, vec![part])
    }

    fn status(state: TaskState, text: &str) -> TaskEvent {
        let message = Some(message(text));
        TaskEvent::Status(TaskStatus { state, message, timestamp: UnixMillis(1) })
    }

    fn piece(id: &str, content: Content, append: bool) -> TaskEvent {
        let artifact = Artifact {
            artifact_id: ArtifactId::parse(id).unwrap(),
            name: Some("name".to_owned()),
            description: None,
            parts: vec![Part::new(content)],
            metadata: Some(Json::empty_object()),
            extensions: vec!["urn:x".to_owned()],
            unknown: Vec::new(),
        };
        TaskEvent::Artifact { artifact, append, last: false }
    }

    fn task() -> Task {
        let first = TaskEvent::Submitted { message: message("begin"), at: UnixMillis(1) };
        Task::begin(TaskId::parse("t").unwrap(), ContextId::parse("c").unwrap(), first).unwrap()
    }

    /// What is said of each change, summed up, is what the whole comes to.
    #[test]
    fn changes_add_up_to_the_whole() {
        let text = |n: usize| Content::Text("x".repeat(n));
        let data = || Content::Data(Json::of(&[1, 2, 3]).unwrap());
        let mut task = task();
        let mut bytes = task_bytes(&task);
        for round in 0..200 {
            for event in [
                status(TaskState::Working, &"y".repeat(round)),
                piece("replaced", text(1000 - round), false),
                piece("joined", text(round), round != 0),
                piece("listed", data(), round != 0),
                piece("mixed", if round % 3 == 0 { data() } else { text(7) }, round != 0),
                piece(&format!("own {round}"), data(), false),
                status(TaskState::InputRequired, "what now?"),
                TaskEvent::Message(message("this")),
            ] {
                let change = put(&mut task, event).unwrap();
                bytes = bytes + change.taken - change.freed;
                assert_eq!(bytes, task_bytes(&task), "round {round}");
            }
        }
        let change = put(&mut task, status(TaskState::Completed, "")).unwrap();
        assert_eq!(bytes + change.taken - change.freed, task_bytes(&task));
        assert!(put(&mut task, TaskEvent::Message(message("late"))).is_err());
    }

    /// Room in reserve is memory too: a list of one has room for four, and a text that grew has room
    /// to grow.
    #[test]
    fn what_is_in_reserve_counts() {
        let mut task = task();
        let plain = task_bytes(&task);
        task.history.reserve_exact(100);
        assert!(task_bytes(&task) - plain >= 100 * size_of::<Message>());
        let plain = task_bytes(&task);
        task.artifacts.reserve_exact(100);
        assert!(task_bytes(&task) - plain >= 100 * size_of::<Artifact>());
        let plain = task_bytes(&task);
        let Content::Text(text) = &mut task.history[0].parts[0].content else {
            unreachable!("it is a text")
        };
        text.reserve_exact(10_000);
        assert!(task_bytes(&task) - plain >= 10_000 - "begin".len());
    }
}
