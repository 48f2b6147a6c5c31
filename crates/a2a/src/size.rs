//! How large an answer becomes, known before a byte of it is written: whoever bounds what answers
//! hold has to ask for room first.

use convoke_model::{Artifact, Content, Json, Message, Part, Task};

use crate::jsonrpc::TaskList;
use crate::scan::plain_run;

/// What stands around a task or a message in its answer: the response with its id, or an event.
const FRAME_BYTES: usize = 1024;

/// Punctuation, names of fields and words of ours, of a task with its status.
const TASK_BYTES: usize = 256;

/// The same of a message.
const MESSAGE_BYTES: usize = 160;

/// The same of an artifact.
const ARTIFACT_BYTES: usize = 96;

/// The same of a part.
const PART_BYTES: usize = 64;

/// Quotes, a comma and a colon.
const PUNCTUATION_BYTES: usize = 4;

/// Most bytes that a byte of a text takes in a JSON string: `\u0000`.
const ESCAPED_BYTES: usize = 6;

/// At most how many bytes the answer takes that shows `task` with at most `history` of its messages;
/// `None` means all of them. Texts are looked at for escapes only if the bound is above `small`
/// without that, and then it is close.
#[must_use]
pub fn task_bytes_max(task: &Task, history: Option<u32>, small: usize) -> usize {
    bytes_max(small, |text| task_with(task, history, text))
}

/// The same for the answer that is `message`.
#[must_use]
pub fn message_bytes_max(message: &Message, small: usize) -> usize {
    bytes_max(small, |text| message_with(message, text))
}

/// The same for the answer that is `list`, with all that its tasks have.
#[must_use]
pub fn list_bytes_max(list: &TaskList<'_>, small: usize) -> usize {
    bytes_max(small, |text| {
        let task = |task: &Task| PUNCTUATION_BYTES + task_with(task, None, text);
        list.next_page_token.map_or(0, text) + list.tasks.iter().map(task).sum::<usize>()
    })
}

fn bytes_max(small: usize, of: impl Fn(&dyn Fn(&str) -> usize) -> usize) -> usize {
    let rough = FRAME_BYTES + of(&|text| PUNCTUATION_BYTES + ESCAPED_BYTES * text.len());
    if rough <= small { rough } else { FRAME_BYTES + of(&string_bytes) }
}

fn task_with(task: &Task, history: Option<u32>, text: &dyn Fn(&str) -> usize) -> usize {
    let message = |message: &Message| message_with(message, text);
    TASK_BYTES
        + text(task.id.as_str())
        + text(task.context_id.as_str())
        + task.status.message.as_ref().map_or(0, message)
        + task.artifacts.iter().map(|artifact| artifact_with(artifact, text)).sum::<usize>()
        + task.newest(history).iter().map(message).sum::<usize>()
        + task.metadata.as_ref().map_or(0, json_bytes)
}

fn message_with(message: &Message, text: &dyn Fn(&str) -> usize) -> usize {
    MESSAGE_BYTES
        + text(message.message_id.as_str())
        + message.context_id.as_ref().map_or(0, |id| text(id.as_str()))
        + message.task_id.as_ref().map_or(0, |id| text(id.as_str()))
        + message.parts.iter().map(|part| part_with(part, text)).sum::<usize>()
        + message.metadata.as_ref().map_or(0, json_bytes)
        + message.extensions.iter().map(|uri| text(uri)).sum::<usize>()
        + message.reference_task_ids.iter().map(|id| text(id.as_str())).sum::<usize>()
        + unknown_with(&message.unknown, text)
}

fn artifact_with(artifact: &Artifact, text: &dyn Fn(&str) -> usize) -> usize {
    ARTIFACT_BYTES
        + text(artifact.artifact_id.as_str())
        + artifact.name.as_deref().map_or(0, text)
        + artifact.description.as_deref().map_or(0, text)
        + artifact.parts.iter().map(|part| part_with(part, text)).sum::<usize>()
        + artifact.metadata.as_ref().map_or(0, json_bytes)
        + artifact.extensions.iter().map(|uri| text(uri)).sum::<usize>()
        + unknown_with(&artifact.unknown, text)
}

fn part_with(part: &Part, text: &dyn Fn(&str) -> usize) -> usize {
    let content = match &part.content {
        Content::Text(content) | Content::Raw(content) | Content::Url(content) => text(content),
        Content::Data(data) => json_bytes(data),
    };
    PART_BYTES
        + content
        + part.metadata.as_ref().map_or(0, json_bytes)
        + part.filename.as_deref().map_or(0, text)
        + part.media_type.as_deref().map_or(0, text)
        + unknown_with(&part.unknown, text)
}

fn unknown_with(fields: &[(String, Json)], text: &dyn Fn(&str) -> usize) -> usize {
    fields.iter().map(|(name, value)| text(name) + json_bytes(value)).sum()
}

/// JSON leaves as it came.
fn json_bytes(json: &Json) -> usize {
    PUNCTUATION_BYTES + json.get().len()
}

fn string_bytes(text: &str) -> usize {
    let mut bytes = PUNCTUATION_BYTES + text.len();
    let mut rest = text.as_bytes();
    while let Some((_plain, [byte, behind @ ..])) = rest.split_at_checked(plain_run(rest)) {
        // Of what has to be escaped, everything but control characters takes one byte more.
        bytes += match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 1,
            _ => ESCAPED_BYTES - 1,
        };
        rest = behind;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use convoke_model::{
        ArtifactId, ContextId, Cursor, MessageId, OperationKind, Role, TaskId, TaskState,
        TaskStatus, UnixMillis,
    };

    use super::*;
    use crate::jsonrpc::{RequestIdJson, encode_list, encode_message, encode_task, stream};

    /// A message in which everything is there that can be, each text `text`.
    fn message(text: &str) -> Message {
        let json = Json::of(&text).unwrap();
        let part = |content| Part {
            content,
            metadata: Some(json.clone()),
            filename: Some(text.into()),
            media_type: Some(text.into()),
            unknown: vec![(text.into(), json.clone()), (text.into(), json.clone())],
        };
        let parts = vec![
            part(Content::Text(text.into())),
            part(Content::Url(text.into())),
            part(Content::Data(json.clone())),
        ];
        let id = "i".repeat(256);
        let mut message = Message::new(MessageId::parse(&id).unwrap(), Role::Agent, parts);
        message.context_id = Some(ContextId::parse(&id).unwrap());
        message.task_id = Some(TaskId::parse(&id).unwrap());
        message.metadata = Some(json.clone());
        message.extensions = vec![text.into(); 64];
        message.reference_task_ids = vec![TaskId::parse(&id).unwrap(); 64];
        message.unknown = vec![(text.into(), json); 64];
        message
    }

    fn task(text: &str) -> Task {
        let said = message(text);
        let artifact = Artifact {
            artifact_id: ArtifactId::parse(&"a".repeat(256)).unwrap(),
            name: Some(text.into()),
            description: Some(text.into()),
            parts: said.parts.clone(),
            metadata: said.metadata.clone(),
            extensions: said.extensions.clone(),
            unknown: said.unknown.clone(),
        };
        Task {
            id: TaskId::parse(&"t".repeat(256)).unwrap(),
            context_id: ContextId::parse(&"c".repeat(256)).unwrap(),
            status: TaskStatus {
                state: TaskState::AuthRequired,
                message: Some(said.clone()),
                timestamp: UnixMillis(1_700_000_000_000),
            },
            artifacts: vec![artifact; 3],
            history: vec![said; 4],
            metadata: Some(Json::of(&text).unwrap()),
        }
    }

    /// That `bound` holds for `bytes`, and is close if `bytes` are many.
    fn check(bound: usize, bytes: usize) {
        assert!(bytes <= bound, "{bytes} bytes are more than {bound}");
        assert!(bound <= bytes + bytes / 4 + 4096, "{bound} is far above {bytes}");
    }

    #[test]
    fn no_answer_is_larger_than_its_bound() {
        let id = RequestIdJson::from(u64::MAX);
        let texts = ["", "x", "plain ".repeat(100).leak(), "\"\\\n\r\t".repeat(100).leak()];
        for text in texts.into_iter().chain([&*"\u{1}\u{7f}".repeat(100).leak(), "é\u{2028}"]) {
            let (task, message) = (task(text), message(text));
            check(message_bytes_max(&message, 0), encode_message(&id, &message).len());
            check(message_bytes_max(&message, 0), stream::message_tail(&message).len());
            let bound = task_bytes_max(&task, None, 0);
            check(bound, encode_task(&id, OperationKind::SendMessage, &task).len());
            let cursor = Cursor { epoch: u64::MAX, seq: u64::MAX };
            check(bound, stream::task_tail(&task, cursor).len());
            let tasks = vec![task.clone(); 3];
            let list = TaskList {
                tasks: &tasks,
                next_page_token: Some(text),
                page_size: u32::MAX,
                total_size: u64::MAX,
            };
            check(list_bytes_max(&list, 0), encode_list(&id, &list).len());
            // What is not looked at is taken for the worst.
            assert!(task_bytes_max(&task, None, usize::MAX) >= bound);
        }
    }

    #[test]
    fn messages_that_are_not_shown_do_not_count() {
        let task = task(&"x".repeat(1000));
        for history in [0, 1, 3, 4, 9] {
            let shown = task.showing(Some(history));
            let bytes = encode_task(&1.into(), OperationKind::GetTask, &shown).len();
            check(task_bytes_max(&task, Some(history), 0), bytes);
        }
    }
}
