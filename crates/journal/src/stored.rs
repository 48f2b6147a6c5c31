//! The stored form of events and records, format 1: JSON that a person can read in the store.
//!
//! Everything comes back as it was written, byte for byte: JSON values are copied as texts, and
//! fields that we do not know keep their order. They have an object of their own, `unknown`, so that
//! none can be taken for a field of ours.

mod read;
#[cfg(test)]
mod tests;

use convoke_model::{
    Artifact, Content, Json, Message, Part, Role, TaskEvent, TaskRecord, TaskState, TaskStatus,
    UnixMillis,
};

pub(crate) use read::{decode_event, decode_record};

/// The kind of [`TaskEvent::Submitted`].
pub(crate) const SUBMITTED: i64 = 1;
/// The kind of [`TaskEvent::Message`].
pub(crate) const MESSAGE: i64 = 2;
/// The kind of [`TaskEvent::Status`].
pub(crate) const STATUS: i64 = 3;
/// The kind of [`TaskEvent::Artifact`]. No row says it: pieces are known by their table.
pub(crate) const PIECE: i64 = 4;

/// The kind of [`TaskRecord::Started`].
pub(crate) const STARTED: i64 = 1;
/// The kind of [`TaskRecord::Checkpoint`].
pub(crate) const CHECKPOINT: i64 = 2;
/// The kind of [`TaskRecord::Retry`].
pub(crate) const RETRY: i64 = 3;

/// Every state, at the place that is its number less one.
const STATES: [TaskState; 8] = [
    TaskState::Submitted,
    TaskState::Working,
    TaskState::Completed,
    TaskState::Failed,
    TaskState::Canceled,
    TaskState::InputRequired,
    TaskState::Rejected,
    TaskState::AuthRequired,
];

/// What a body holds beside texts, in bytes, about: brackets, keys and identifiers.
const FRAME_BYTES: usize = 192;

/// The number that stands for the kind of `event` beside its body.
pub(crate) fn event_kind(event: &TaskEvent) -> i64 {
    match event {
        TaskEvent::Submitted { .. } => SUBMITTED,
        TaskEvent::Message(_) => MESSAGE,
        TaskEvent::Status(_) => STATUS,
        TaskEvent::Artifact { .. } => PIECE,
    }
}

/// The number that stands for the kind of `record` beside its body.
pub(crate) fn record_kind(record: &TaskRecord) -> i64 {
    match record {
        TaskRecord::Started { .. } => STARTED,
        TaskRecord::Checkpoint(_) => CHECKPOINT,
        TaskRecord::Retry { .. } => RETRY,
    }
}

/// The number that stands for `state` in a column: the one that A2A's protocol buffers give it.
pub(crate) fn state_number(state: TaskState) -> i64 {
    match state {
        TaskState::Submitted => 1,
        TaskState::Working => 2,
        TaskState::Completed => 3,
        TaskState::Failed => 4,
        TaskState::Canceled => 5,
        TaskState::InputRequired => 6,
        TaskState::Rejected => 7,
        TaskState::AuthRequired => 8,
    }
}

/// The state for which `number` stands.
pub(crate) fn state_of(number: i64) -> Option<TaskState> {
    let place = usize::try_from(number).ok()?.checked_sub(1)?;
    STATES.get(place).copied()
}

/// The body of `event`.
pub(crate) fn encode_event(event: &TaskEvent) -> String {
    match event {
        TaskEvent::Submitted { message, at } => {
            let mut body = String::with_capacity(message_bytes(message));
            let mut object = Object::begin(&mut body);
            object.instant("at", *at);
            write_message(object.key("message"), message);
            object.end();
            body
        }
        TaskEvent::Message(message) => {
            let mut body = String::with_capacity(message_bytes(message));
            write_message(&mut body, message);
            body
        }
        TaskEvent::Status(status) => encode_status(status),
        TaskEvent::Artifact { artifact, append, last } => {
            let mut body = String::with_capacity(FRAME_BYTES + parts_bytes(&artifact.parts));
            let mut object = Object::begin(&mut body);
            object.word("append", if *append { "true" } else { "false" });
            object.word("last", if *last { "true" } else { "false" });
            write_artifact(object.key("artifact"), artifact);
            object.end();
            body
        }
    }
}

/// The body of `record`.
pub(crate) fn encode_record(record: &TaskRecord) -> String {
    match record {
        TaskRecord::Checkpoint(checkpoint) => {
            let value = checkpoint.value.get();
            let mut body = String::with_capacity(FRAME_BYTES + value.len());
            let mut object = Object::begin(&mut body);
            object.number("heard", u64::from(checkpoint.heard));
            object.key("value").push_str(value);
            object.end();
            body
        }
        TaskRecord::Started { attempt, at } => {
            let mut body = String::with_capacity(FRAME_BYTES);
            let mut object = Object::begin(&mut body);
            object.number("attempt", u64::from(*attempt));
            object.instant("at", *at);
            object.end();
            body
        }
        TaskRecord::Retry { at } => {
            let mut body = String::with_capacity(FRAME_BYTES);
            let mut object = Object::begin(&mut body);
            object.instant("at", *at);
            object.end();
            body
        }
    }
}

fn encode_status(status: &TaskStatus) -> String {
    let bytes = FRAME_BYTES + status.message.as_ref().map_or(0, message_bytes);
    let mut body = String::with_capacity(bytes);
    let mut object = Object::begin(&mut body);
    object.string("state", status.state.as_str());
    object.instant("at", status.timestamp);
    if let Some(message) = &status.message {
        write_message(object.key("message"), message);
    }
    object.end();
    body
}

fn write_message(out: &mut String, message: &Message) {
    let mut object = Object::begin(out);
    object.string("messageId", message.message_id.as_str());
    object.optional("contextId", message.context_id.as_ref().map(|id| id.as_str()));
    object.optional("taskId", message.task_id.as_ref().map(|id| id.as_str()));
    object.string("role", role_word(message.role));
    array(object.key("parts"), &message.parts, write_part);
    object.json("metadata", message.metadata.as_ref());
    object.strings("extensions", &message.extensions, String::as_str);
    object.strings("referenceTaskIds", &message.reference_task_ids, |id| id.as_str());
    object.unknown(&message.unknown);
    object.end();
}

fn write_artifact(out: &mut String, artifact: &Artifact) {
    let mut object = Object::begin(out);
    object.string("artifactId", artifact.artifact_id.as_str());
    object.optional("name", artifact.name.as_deref());
    object.optional("description", artifact.description.as_deref());
    array(object.key("parts"), &artifact.parts, write_part);
    object.json("metadata", artifact.metadata.as_ref());
    object.strings("extensions", &artifact.extensions, String::as_str);
    object.unknown(&artifact.unknown);
    object.end();
}

fn write_part(out: &mut String, part: &Part) {
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

fn role_word(role: Role) -> &'static str {
    match role {
        Role::User => "user",
        Role::Agent => "agent",
    }
}

/// About how many bytes `message` takes, so that its body grows once. Escapes and fields that are
/// rarely there are not counted.
fn message_bytes(message: &Message) -> usize {
    FRAME_BYTES
        + message.metadata.as_ref().map_or(0, |json| json.get().len())
        + parts_bytes(&message.parts)
}

fn parts_bytes(parts: &[Part]) -> usize {
    let part = |part: &Part| {
        let content = match &part.content {
            Content::Text(text) | Content::Raw(text) | Content::Url(text) => text.len(),
            Content::Data(data) => data.get().len(),
        };
        32 + content + part.metadata.as_ref().map_or(0, |json| json.get().len())
    };
    parts.iter().map(part).sum()
}

/// An object that is being written; dropping it does not close it, [`Object::end`] does.
struct Object<'o> {
    out: &'o mut String,
    first: bool,
}

impl<'o> Object<'o> {
    fn begin(out: &'o mut String) -> Self {
        out.push('{');
        Self { out, first: true }
    }

    /// Writes a key of ours, which needs no escape; the caller writes its value.
    fn key(&mut self, key: &'static str) -> &mut String {
        self.out.push_str(if self.first { "\"" } else { ",\"" });
        self.first = false;
        self.out.push_str(key);
        self.out.push_str("\":");
        self.out
    }

    fn string(&mut self, key: &'static str, value: &str) {
        write_string(self.key(key), value);
    }

    fn optional(&mut self, key: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.string(key, value);
        }
    }

    fn json(&mut self, key: &'static str, value: Option<&Json>) {
        if let Some(value) = value {
            self.word(key, value.get());
        }
    }

    fn word(&mut self, key: &'static str, value: &str) {
        self.key(key).push_str(value);
    }

    fn number(&mut self, key: &'static str, value: u64) {
        write_number(self.key(key), value);
    }

    fn instant(&mut self, key: &'static str, value: UnixMillis) {
        self.number(key, value.0);
    }

    /// Writes an array of texts, or nothing if it has none.
    fn strings<T>(&mut self, key: &'static str, items: &[T], text: impl Fn(&T) -> &str) {
        if !items.is_empty() {
            array(self.key(key), items, |out, item| write_string(out, text(item)));
        }
    }

    /// Writes the fields that we do not know, or nothing if there are none.
    fn unknown(&mut self, fields: &[(String, Json)]) {
        if fields.is_empty() {
            return;
        }
        let out = self.key("unknown");
        out.push('{');
        for (index, (name, value)) in fields.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            write_string(out, name);
            out.push(':');
            out.push_str(value.get());
        }
        out.push('}');
    }

    fn end(self) {
        self.out.push('}');
    }
}

fn array<T>(out: &mut String, items: &[T], mut item: impl FnMut(&mut String, &T)) {
    out.push('[');
    for (index, value) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        item(out, value);
    }
    out.push(']');
}

/// Writes the decimal digits of `value` without an allocation.
fn write_number(out: &mut String, value: u64) {
    let mut divisor = 10_u64.pow(value.checked_ilog10().unwrap_or(0));
    while divisor > 0 {
        // One digit, which fits.
        out.push(char::from(b'0' + (value / divisor % 10) as u8));
        divisor /= 10;
    }
}

/// Writes `text` as a JSON string with its quotes; only what has to be escaped is.
fn write_string(out: &mut String, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let escaped = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    out.push('"');
    // Most texts need no escape. Looking at every byte without a way out is what the compiler turns
    // into vector instructions.
    if !text.bytes().fold(false, |any, byte| any | escaped(byte)) {
        out.push_str(text);
        out.push('"');
        return;
    }
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        if !escaped(byte) {
            continue;
        }
        // What is escaped is ASCII, so both ends lie between characters.
        out.push_str(&text[from..at]);
        from = at + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            byte => {
                out.push_str("\\u00");
                out.push(char::from(HEX[usize::from(byte >> 4)]));
                out.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
    out.push_str(&text[from..]);
    out.push('"');
}
