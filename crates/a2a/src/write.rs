//! Messages, tasks and artifacts as their JSON.
//!
//! Straight into bytes: fields that are unset are left out, required ones are there, and payloads
//! are the texts that came in.

use convoke_model::{Artifact, Content, Json, Message, Part, Role, Task, TaskStatus, UnixMillis};

use crate::scan::plain_run;
use crate::unescape::write_string;

/// An object that is being written; dropping it does not close it, [`Object::end`] does.
pub(crate) struct Object<'o> {
    pub(crate) out: &'o mut Vec<u8>,
    first: bool,
}

impl<'o> Object<'o> {
    pub(crate) fn begin(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    /// Writes a key of ours, which needs no escape; the caller writes its value.
    pub(crate) fn key(&mut self, key: &'static str) -> &mut Vec<u8> {
        debug_assert_eq!(plain_run(key.as_bytes()), key.len(), "`{key}` needs an escape");
        self.out.extend_from_slice(if self.first { b"\"" } else { b",\"" });
        self.first = false;
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// Writes a key that somebody else chose; the caller writes its value.
    pub(crate) fn foreign_key(&mut self, key: &str) -> &mut Vec<u8> {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        write_string(self.out, key);
        self.out.push(b':');
        self.out
    }

    pub(crate) fn string(&mut self, key: &'static str, value: &str) {
        write_string(self.key(key), value);
    }

    pub(crate) fn optional(&mut self, key: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.string(key, value);
        }
    }

    pub(crate) fn json(&mut self, key: &'static str, value: Option<&Json>) {
        if let Some(value) = value {
            self.key(key).extend_from_slice(value.get().as_bytes());
        }
    }

    pub(crate) fn word(&mut self, key: &'static str, value: &str) {
        self.key(key).extend_from_slice(value.as_bytes());
    }

    /// Writes an array, or nothing if it has no items.
    pub(crate) fn array<T>(
        &mut self,
        key: &'static str,
        items: &[T],
        item: impl FnMut(&mut Vec<u8>, &T),
    ) {
        if !items.is_empty() {
            array(self.key(key), items, item);
        }
    }

    pub(crate) fn strings<T: AsRef<str>>(&mut self, key: &'static str, items: &[T]) {
        self.array(key, items, |out, text| write_string(out, text.as_ref()));
    }

    fn unknown(&mut self, fields: &[(String, Json)]) {
        for (key, value) in fields {
            self.foreign_key(key).extend_from_slice(value.get().as_bytes());
        }
    }

    pub(crate) fn end(self) {
        self.out.push(b'}');
    }
}

/// Writes an array, which may be empty.
pub(crate) fn array<T>(out: &mut Vec<u8>, items: &[T], mut item: impl FnMut(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (index, value) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        item(out, value);
    }
    out.push(b']');
}

/// About how many bytes `message` takes when it is written, so that the vector grows once. Escapes
/// and fields that are rarely there are not counted.
pub(crate) fn message_bytes(message: &Message) -> usize {
    let context = message.context_id.as_ref().map_or(0, |id| id.as_str().len());
    160 + message.message_id.as_str().len()
        + context
        + parts_bytes(&message.parts)
        + message.metadata.as_ref().map_or(0, json_bytes)
}

/// The same for `task`.
pub(crate) fn task_bytes(task: &Task) -> usize {
    320 + task.artifacts.iter().map(artifact_bytes).sum::<usize>()
        + task.history.iter().map(message_bytes).sum::<usize>()
        + task.status.message.as_ref().map_or(0, message_bytes)
        + task.metadata.as_ref().map_or(0, json_bytes)
}

/// The same for `artifact`.
pub(crate) fn artifact_bytes(artifact: &Artifact) -> usize {
    128 + parts_bytes(&artifact.parts)
}

fn parts_bytes(parts: &[Part]) -> usize {
    let part = |part: &Part| {
        let content = match &part.content {
            Content::Text(text) | Content::Raw(text) | Content::Url(text) => text.len(),
            Content::Data(data) => json_bytes(data),
        };
        32 + content + part.metadata.as_ref().map_or(0, json_bytes)
    };
    parts.iter().map(part).sum()
}

fn json_bytes(json: &Json) -> usize {
    16 + json.get().len()
}

pub(crate) fn message(out: &mut Vec<u8>, message: &Message) {
    let mut object = Object::begin(out);
    object.string("messageId", message.message_id.as_str());
    object.optional("contextId", message.context_id.as_ref().map(|id| id.as_str()));
    object.optional("taskId", message.task_id.as_ref().map(|id| id.as_str()));
    object.string(
        "role",
        match message.role {
            Role::User => "ROLE_USER",
            Role::Agent => "ROLE_AGENT",
        },
    );
    array(object.key("parts"), &message.parts, part);
    object.json("metadata", message.metadata.as_ref());
    object.strings("extensions", &message.extensions);
    object.array("referenceTaskIds", &message.reference_task_ids, |out, id| {
        write_string(out, id.as_str());
    });
    object.unknown(&message.unknown);
    object.end();
}

fn part(out: &mut Vec<u8>, part: &Part) {
    let mut object = Object::begin(out);
    match &part.content {
        Content::Text(text) => object.string("text", text),
        Content::Raw(base64) => object.string("raw", base64),
        Content::Url(url) => object.string("url", url),
        Content::Data(data) => object.json("data", Some(data)),
    }
    object.json("metadata", part.metadata.as_ref());
    object.optional("filename", part.filename.as_deref());
    object.optional("mediaType", part.media_type.as_deref());
    object.unknown(&part.unknown);
    object.end();
}

pub(crate) fn artifact(out: &mut Vec<u8>, artifact: &Artifact) {
    let mut object = Object::begin(out);
    object.string("artifactId", artifact.artifact_id.as_str());
    object.optional("name", artifact.name.as_deref());
    object.optional("description", artifact.description.as_deref());
    array(object.key("parts"), &artifact.parts, part);
    object.json("metadata", artifact.metadata.as_ref());
    object.strings("extensions", &artifact.extensions);
    object.unknown(&artifact.unknown);
    object.end();
}

pub(crate) fn status(out: &mut Vec<u8>, status: &TaskStatus) {
    let mut object = Object::begin(out);
    object.string("state", status.state.as_str());
    if let Some(said) = &status.message {
        message(object.key("message"), said);
    }
    if status.timestamp != UnixMillis::default() {
        object.string("timestamp", status.timestamp.to_text().as_str());
    }
    object.end();
}

pub(crate) fn task(out: &mut Vec<u8>, task: &Task) {
    let mut object = Object::begin(out);
    object.string("id", task.id.as_str());
    object.string("contextId", task.context_id.as_str());
    status(object.key("status"), &task.status);
    object.array("artifacts", &task.artifacts, artifact);
    object.array("history", &task.history, message);
    object.json("metadata", task.metadata.as_ref());
    object.end();
}

#[cfg(test)]
mod tests {
    use convoke_model::{ArtifactId, ContextId, MessageId, TaskId, TaskState};

    use super::*;

    fn said(content: Content) -> Message {
        let mut message = Message::new(
            MessageId::parse(&"m".repeat(36)).unwrap(),
            Role::Agent,
            vec![Part::new(content)],
        );
        message.context_id = Some(ContextId::parse(&"c".repeat(36)).unwrap());
        message
    }

    fn answered(content: Content) -> Task {
        Task {
            id: TaskId::parse(&"t".repeat(36)).unwrap(),
            context_id: ContextId::parse(&"c".repeat(36)).unwrap(),
            status: TaskStatus {
                state: TaskState::Completed,
                message: Some(said(content.clone())),
                timestamp: UnixMillis(1),
            },
            artifacts: vec![Artifact {
                artifact_id: ArtifactId::parse(&"a".repeat(36)).unwrap(),
                name: None,
                description: None,
                parts: vec![Part::new(content.clone())],
                metadata: None,
                extensions: Vec::new(),
                unknown: Vec::new(),
            }],
            history: vec![said(content)],
            metadata: Some(Json::empty_object()),
        }
    }

    #[test]
    fn what_is_usual_fits_the_guess() {
        let long = "x".repeat(10_000);
        for content in [
            Content::Text("short".into()),
            Content::Text(long.clone()),
            Content::Url(long.clone()),
            Content::Data(Json::of(&long).unwrap()),
        ] {
            let mut out = Vec::new();
            message(&mut out, &said(content.clone()));
            let guess = message_bytes(&said(content.clone()));
            assert!((out.len()..out.len() + 256).contains(&guess), "{guess} for {}", out.len());

            out.clear();
            task(&mut out, &answered(content.clone()));
            let guess = task_bytes(&answered(content));
            assert!((out.len()..out.len() + 1024).contains(&guess), "{guess} for {}", out.len());
        }
    }

    #[test]
    fn keys_that_somebody_else_chose_are_escaped() {
        let mut message = said(Content::Text(String::new()));
        message.unknown = vec![("a\"b\n".into(), Json::empty_object())];
        message.parts[0].unknown = vec![("\",\"role\":\"".into(), Json::empty_object())];
        let mut out = Vec::new();
        super::message(&mut out, &message);
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with(r#","a\"b\n":{}}"#), "{text}");
        assert!(text.contains(r#"{"text":"","\",\"role\":\"":{}}"#), "{text}");
    }
}
