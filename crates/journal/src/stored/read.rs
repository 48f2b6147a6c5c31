//! Reading stored bodies.

use std::fmt;

use convoke_model::{
    Artifact, ArtifactId, Checkpoint, Content, ContextId, Json, Message, MessageId, Part, Role,
    TaskEvent, TaskId, TaskRecord, TaskState, TaskStatus, UnixMillis,
};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{CHECKPOINT, MESSAGE, PIECE, RETRY, STARTED, STATES, STATUS, SUBMITTED};

/// A body that this build cannot have written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoredError {
    /// The number beside the body stands for nothing.
    #[error("kind {kind} is none of format 1")]
    Kind {
        /// The number.
        kind: i64,
    },
    /// The body is not of the form that its kind has.
    #[error("the body is not of the form that kind {kind} has")]
    Body {
        /// The number beside the body.
        kind: i64,
        /// Where it shows.
        #[source]
        source: serde_json::Error,
    },
}

/// The event of a kind and a body.
///
/// # Errors
///
/// [`StoredError`] if this build cannot have written it.
pub(crate) fn decode_event(kind: i64, body: &str) -> Result<TaskEvent, StoredError> {
    match kind {
        SUBMITTED => {
            let Submitted { at, message } = form(kind, body)?;
            Ok(TaskEvent::Submitted { message: message.0, at: UnixMillis(at) })
        }
        MESSAGE => form(kind, body).map(|StoredMessage(message)| TaskEvent::Message(message)),
        STATUS => {
            let Status { state, at, message } = form(kind, body)?;
            let message = message.map(|message| message.0);
            let timestamp = UnixMillis(at);
            Ok(TaskEvent::Status(TaskStatus { state: state.0, message, timestamp }))
        }
        PIECE => {
            let Piece { append, last, artifact } = form(kind, body)?;
            Ok(TaskEvent::Artifact { artifact: artifact.0, append, last })
        }
        _ => Err(StoredError::Kind { kind }),
    }
}

/// The record of a kind and a body.
///
/// # Errors
///
/// As of [`decode_event`].
pub(crate) fn decode_record(kind: i64, body: &str) -> Result<TaskRecord, StoredError> {
    match kind {
        STARTED => {
            let Started { attempt, at } = form(kind, body)?;
            Ok(TaskRecord::Started { attempt, at: UnixMillis(at) })
        }
        CHECKPOINT => form(kind, body).map(|StoredCheckpoint { heard, value: Raw(value) }| {
            TaskRecord::Checkpoint(Checkpoint { value, heard })
        }),
        RETRY => form(kind, body).map(|Retry { at }| TaskRecord::Retry { at: UnixMillis(at) }),
        _ => Err(StoredError::Kind { kind }),
    }
}

fn form<'a, T: Deserialize<'a>>(kind: i64, body: &'a str) -> Result<T, StoredError> {
    serde_json::from_str(body).map_err(|source| StoredError::Body { kind, source })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Submitted {
    at: u64,
    message: StoredMessage,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Status {
    state: StoredState,
    at: u64,
    message: Option<StoredMessage>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Piece {
    append: bool,
    last: bool,
    artifact: StoredArtifact,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Started {
    attempt: u32,
    at: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredCheckpoint {
    heard: u32,
    value: Raw,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Retry {
    at: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct MessageForm {
    message_id: MessageId,
    context_id: Option<ContextId>,
    task_id: Option<TaskId>,
    role: StoredRole,
    parts: Vec<StoredPart>,
    #[serde(default, deserialize_with = "present")]
    metadata: Option<Raw>,
    #[serde(default)]
    extensions: Vec<String>,
    #[serde(default)]
    reference_task_ids: Vec<TaskId>,
    #[serde(default)]
    unknown: Unknown,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ArtifactForm {
    artifact_id: ArtifactId,
    name: Option<String>,
    description: Option<String>,
    parts: Vec<StoredPart>,
    #[serde(default, deserialize_with = "present")]
    metadata: Option<Raw>,
    #[serde(default)]
    extensions: Vec<String>,
    #[serde(default)]
    unknown: Unknown,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PartForm {
    text: Option<String>,
    raw: Option<String>,
    url: Option<String>,
    #[serde(default, deserialize_with = "present")]
    data: Option<Raw>,
    #[serde(default, deserialize_with = "present")]
    metadata: Option<Raw>,
    filename: Option<String>,
    media_type: Option<String>,
    #[serde(default)]
    unknown: Unknown,
}

#[derive(Deserialize)]
#[serde(from = "MessageForm")]
struct StoredMessage(Message);

#[derive(Deserialize)]
#[serde(from = "ArtifactForm")]
struct StoredArtifact(Artifact);

#[derive(Deserialize)]
#[serde(try_from = "PartForm")]
struct StoredPart(Part);

impl From<MessageForm> for StoredMessage {
    fn from(form: MessageForm) -> Self {
        Self(Message {
            message_id: form.message_id,
            context_id: form.context_id,
            task_id: form.task_id,
            role: form.role.into(),
            parts: parts(form.parts),
            metadata: form.metadata.map(|raw| raw.0),
            extensions: form.extensions,
            reference_task_ids: form.reference_task_ids,
            unknown: form.unknown.0,
        })
    }
}

impl From<ArtifactForm> for StoredArtifact {
    fn from(form: ArtifactForm) -> Self {
        Self(Artifact {
            artifact_id: form.artifact_id,
            name: form.name,
            description: form.description,
            parts: parts(form.parts),
            metadata: form.metadata.map(|raw| raw.0),
            extensions: form.extensions,
            unknown: form.unknown.0,
        })
    }
}

impl TryFrom<PartForm> for StoredPart {
    type Error = &'static str;

    fn try_from(form: PartForm) -> Result<Self, Self::Error> {
        let content = match (form.text, form.raw, form.url, form.data) {
            (Some(text), None, None, None) => Content::Text(text),
            (None, Some(base64), None, None) => Content::Raw(base64),
            (None, None, Some(url), None) => Content::Url(url),
            (None, None, None, Some(data)) => Content::Data(data.0),
            _ => return Err("a part holds exactly one of `text`, `raw`, `url`, `data`"),
        };
        Ok(Self(Part {
            content,
            metadata: form.metadata.map(|raw| raw.0),
            filename: form.filename,
            media_type: form.media_type,
            unknown: form.unknown.0,
        }))
    }
}

fn parts(stored: Vec<StoredPart>) -> Vec<Part> {
    stored.into_iter().map(|part| part.0).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum StoredRole {
    User,
    Agent,
}

impl From<StoredRole> for Role {
    fn from(role: StoredRole) -> Self {
        match role {
            StoredRole::User => Self::User,
            StoredRole::Agent => Self::Agent,
        }
    }
}

struct StoredState(TaskState);

impl<'de> Deserialize<'de> for StoredState {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let word = <&str>::deserialize(from)?;
        STATES
            .into_iter()
            .find(|state| state.as_str() == word)
            .map(Self)
            .ok_or_else(|| D::Error::custom(format_args!("`{word}` is no state")))
    }
}

/// A JSON value as its text; `null` is one too.
struct Raw(Json);

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Self(Json::from_raw(<&RawValue>::deserialize(from)?)))
    }
}

/// Takes a `null` that is there for a value, which an option does not do by itself.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Raw>, D::Error> {
    Raw::deserialize(from).map(Some)
}

/// Fields in the order in which they stand, also those whose name is there twice.
#[derive(Default)]
struct Unknown(Vec<(String, Json)>);

impl<'de> Deserialize<'de> for Unknown {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Unknown;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unknown, A::Error> {
                let mut fields = Vec::new();
                while let Some((name, Raw(value))) = map.next_entry::<String, Raw>()? {
                    fields.push((name, value));
                }
                Ok(Unknown(fields))
            }
        }

        from.deserialize_map(Fields)
    }
}
