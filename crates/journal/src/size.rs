//! How much memory an event takes, closely enough for a bound.

use convoke_model::{Artifact, Content, Json, Message, Part, Task, TaskEvent, TaskState};

/// What an allocation costs beside its content: a header, a count, rounding.
const ALLOCATION_BYTES: usize = 32;

/// About how many bytes of memory `event` takes.
pub(crate) fn event_bytes(event: &TaskEvent) -> usize {
    let content = match event {
        TaskEvent::Submitted { message, .. } | TaskEvent::Message(message) => {
            message_bytes(message)
        }
        TaskEvent::Status(status) => status.message.as_ref().map_or(0, message_bytes),
        TaskEvent::Artifact { artifact, .. } => artifact_bytes(artifact),
    };
    size_of::<TaskEvent>() + content
}

/// About how many bytes of memory `task` gives back when `event` is added to it: a status that is
/// replaced, an artifact that is made anew. Without this a task that says for hours how far it is
/// would count as large.
pub(crate) fn replaced_bytes(task: &Task, event: &TaskEvent) -> usize {
    match event {
        // A question moves to the history, and the first status came with the submission.
        TaskEvent::Status(_)
            if task.status.state.is_interrupted() || task.status.state == TaskState::Submitted =>
        {
            0
        }
        TaskEvent::Status(_) => {
            size_of::<TaskEvent>() + task.status.message.as_ref().map_or(0, message_bytes)
        }
        TaskEvent::Artifact { artifact, append: false, .. } => {
            let known =
                task.artifacts.iter().find(|known| known.artifact_id == artifact.artifact_id);
            known.map_or(0, |known| size_of::<TaskEvent>() + artifact_bytes(known))
        }
        TaskEvent::Artifact { .. } | TaskEvent::Submitted { .. } | TaskEvent::Message(_) => 0,
    }
}

fn message_bytes(message: &Message) -> usize {
    let ids = message.reference_task_ids.iter().map(|id| text_bytes(id.as_str()));
    text_bytes(message.message_id.as_str())
        + message.context_id.as_ref().map_or(0, |id| text_bytes(id.as_str()))
        + message.task_id.as_ref().map_or(0, |id| text_bytes(id.as_str()))
        + message.parts.iter().map(part_bytes).sum::<usize>()
        + message.metadata.as_ref().map_or(0, json_bytes)
        + message.extensions.iter().map(|uri| text_bytes(uri)).sum::<usize>()
        + ids.sum::<usize>()
        + unknown_bytes(&message.unknown)
}

fn artifact_bytes(artifact: &Artifact) -> usize {
    text_bytes(artifact.artifact_id.as_str())
        + artifact.name.as_deref().map_or(0, text_bytes)
        + artifact.description.as_deref().map_or(0, text_bytes)
        + artifact.parts.iter().map(part_bytes).sum::<usize>()
        + artifact.metadata.as_ref().map_or(0, json_bytes)
        + artifact.extensions.iter().map(|uri| text_bytes(uri)).sum::<usize>()
        + unknown_bytes(&artifact.unknown)
}

fn part_bytes(part: &Part) -> usize {
    let content = match &part.content {
        Content::Text(text) | Content::Raw(text) | Content::Url(text) => text_bytes(text),
        Content::Data(json) => json_bytes(json),
    };
    size_of::<Part>()
        + content
        + part.metadata.as_ref().map_or(0, json_bytes)
        + part.filename.as_deref().map_or(0, text_bytes)
        + part.media_type.as_deref().map_or(0, text_bytes)
        + unknown_bytes(&part.unknown)
}

fn unknown_bytes(fields: &[(String, Json)]) -> usize {
    fields.iter().map(|(name, value)| text_bytes(name) + json_bytes(value)).sum()
}

fn json_bytes(json: &Json) -> usize {
    text_bytes(json.get())
}

fn text_bytes(text: &str) -> usize {
    size_of::<String>() + ALLOCATION_BYTES + text.len()
}

#[cfg(test)]
mod tests {
    use convoke_model::{MessageId, Role, TaskState, TaskStatus, UnixMillis};

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
}
