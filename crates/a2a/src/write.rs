//! Messages, tasks and artifacts as their JSON.
//!
//! Straight into bytes: fields that are unset are left out, required ones are there, and payloads
//! are the texts that came in.

use std::io::Write as _;

use convoke_model::{Artifact, Content, Json, Message, Part, Role, Task, TaskStatus, UnixMillis};

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

    /// Writes a key; the caller writes its value.
    pub(crate) fn key(&mut self, key: &str) -> &mut Vec<u8> {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        write_string(self.out, key);
        self.out.push(b':');
        self.out
    }

    pub(crate) fn string(&mut self, key: &str, value: &str) {
        write_string(self.key(key), value);
    }

    pub(crate) fn optional(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.string(key, value);
        }
    }

    pub(crate) fn json(&mut self, key: &str, value: Option<&Json>) {
        if let Some(value) = value {
            self.key(key).extend_from_slice(value.get().as_bytes());
        }
    }

    pub(crate) fn word(&mut self, key: &str, value: &str) {
        self.key(key).extend_from_slice(value.as_bytes());
    }

    /// Writes an array, or nothing if it has no items.
    pub(crate) fn array<T>(&mut self, key: &str, items: &[T], item: impl FnMut(&mut Vec<u8>, &T)) {
        if !items.is_empty() {
            array(self.key(key), items, item);
        }
    }

    pub(crate) fn strings<T: AsRef<str>>(&mut self, key: &str, items: &[T]) {
        self.array(key, items, |out, text| write_string(out, text.as_ref()));
    }

    fn unknown(&mut self, fields: &[(String, Json)]) {
        for (key, value) in fields {
            self.json(key, Some(value));
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

fn artifact(out: &mut Vec<u8>, artifact: &Artifact) {
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

fn status(out: &mut Vec<u8>, status: &TaskStatus) {
    let mut object = Object::begin(out);
    object.string("state", status.state.as_str());
    if let Some(said) = &status.message {
        message(object.key("message"), said);
    }
    if status.timestamp != UnixMillis::default() {
        // Writing to a vector cannot fail.
        let _written = write!(object.key("timestamp"), "\"{}\"", status.timestamp);
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
