//! Messages, tasks and artifacts from their JSON.
//!
//! Every function reads exactly one value. `None` means that a required field is missing or wrong
//! and that the problems say which; an optional field that is wrong leaves a problem too, so a
//! caller has to look at both.

use convoke_model::{
    Artifact, ArtifactId, Content, ContextId, Message, MessageId, Part, Role, Task, TaskId,
    TaskState, TaskStatus, limits,
};

use crate::reader::{Path, Problems, Reader, array, object};
use crate::scalar::{self, choice, id, metadata, name, names, string};

const ROLES: &[(&str, &str, Role)] =
    &[("ROLE_USER", "1", Role::User), ("ROLE_AGENT", "2", Role::Agent)];

pub(crate) const STATES: &[(&str, &str, TaskState)] = &[
    ("TASK_STATE_SUBMITTED", "1", TaskState::Submitted),
    ("TASK_STATE_WORKING", "2", TaskState::Working),
    ("TASK_STATE_COMPLETED", "3", TaskState::Completed),
    ("TASK_STATE_FAILED", "4", TaskState::Failed),
    ("TASK_STATE_CANCELED", "5", TaskState::Canceled),
    ("TASK_STATE_INPUT_REQUIRED", "6", TaskState::InputRequired),
    ("TASK_STATE_REJECTED", "7", TaskState::Rejected),
    ("TASK_STATE_AUTH_REQUIRED", "8", TaskState::AuthRequired),
];

/// Reads a message.
pub(crate) fn message(
    reader: &mut Reader<'_>,
    at: &Path<'_>,
    problems: &mut Problems,
) -> Option<Message> {
    const NAMES: &[&str] = &[
        "messageId",
        "role",
        "parts",
        "contextId",
        "taskId",
        "metadata",
        "extensions",
        "referenceTaskIds",
    ];
    let (mut message_id, mut role, mut parts) = (None, None, None);
    let (mut context_id, mut task_id, mut attached) = (None, None, None);
    let (mut extensions, mut reference_task_ids, mut unknown) =
        (Vec::new(), Vec::new(), Vec::new());
    object(reader, at, problems, NAMES, Some(&mut unknown), |field, reader, at, problems| {
        match field {
            "messageId" => message_id = id(reader, at, problems, MessageId::parse),
            "role" => role = choice(reader, at, problems, ROLES),
            "parts" => parts = self::parts(reader, at, problems, limits::PARTS_MAX),
            "contextId" => context_id = id(reader, at, problems, ContextId::parse),
            "taskId" => task_id = id(reader, at, problems, TaskId::parse),
            "metadata" => attached = metadata(reader, at, problems),
            "extensions" => extensions = names(reader, at, problems),
            _ => {
                reference_task_ids =
                    array(reader, at, problems, limits::NAMES_MAX, |reader, at, problems| {
                        id(reader, at, problems, TaskId::parse)
                    });
            }
        }
    })
    .then_some(())?;
    // All three are asked before the first `?`, so that one answer names all that is missing.
    let message_id = problems.require(at, "messageId", message_id);
    let role = problems.require(at, "role", role);
    let parts = problems.require(at, "parts", parts);
    Some(Message {
        message_id: message_id?,
        context_id,
        task_id,
        role: role?,
        parts: parts?,
        metadata: attached,
        extensions,
        reference_task_ids,
        unknown,
    })
}

/// Reads the parts of a message or artifact, of which there is at least one and at most `max`.
fn parts(
    reader: &mut Reader<'_>,
    at: &Path<'_>,
    problems: &mut Problems,
    max: usize,
) -> Option<Vec<Part>> {
    let before = problems.0.len();
    let parts = array(reader, at, problems, max, part);
    if parts.is_empty() && problems.0.len() == before {
        problems.add(at, "must have at least one part");
    }
    (!parts.is_empty()).then_some(parts)
}

fn part(reader: &mut Reader<'_>, at: &Path<'_>, problems: &mut Problems) -> Option<Part> {
    const NAMES: &[&str] = &["text", "raw", "url", "data", "metadata", "filename", "mediaType"];
    let (mut contents, mut content) = (0, None);
    let (mut attached, mut filename, mut media_type) = (None, None, None);
    let mut unknown = Vec::new();
    let before = problems.0.len();
    object(reader, at, problems, NAMES, Some(&mut unknown), |field, reader, at, problems| {
        if let "text" | "raw" | "url" | "data" = field {
            contents += 1;
        }
        match field {
            "text" => content = text(reader, at, problems).map(Content::Text),
            "raw" => content = base64(reader, at, problems).map(Content::Raw),
            "url" => content = name(reader, at, problems).map(Content::Url),
            "data" => content = reader.json().map(Content::Data),
            "metadata" => attached = metadata(reader, at, problems),
            "filename" => filename = name(reader, at, problems),
            _ => media_type = name(reader, at, problems),
        }
    })
    .then_some(())?;
    if contents > 1 || (content.is_none() && problems.0.len() == before) {
        problems.add(at, "must have exactly one of `text`, `raw`, `url`, `data`");
    }
    Some(Part { content: content?, metadata: attached, filename, media_type, unknown })
}

fn text(reader: &mut Reader<'_>, at: &Path<'_>, problems: &mut Problems) -> Option<String> {
    string(reader, at, problems, usize::MAX).map(std::borrow::Cow::into_owned)
}

/// Reads base64 as ProtoJSON allows it, standard or URL-safe, padded or not, and keeps its text.
fn base64(reader: &mut Reader<'_>, at: &Path<'_>, problems: &mut Problems) -> Option<String> {
    let text = text(reader, at, problems)?;
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    let right = digits
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_'))
        && digits.len() % 4 != 1
        && (padding == 0 || padding <= 2 && text.len() % 4 == 0);
    if !right {
        problems.add(at, "must be base64");
        return None;
    }
    Some(text)
}

/// Reads an artifact.
pub(crate) fn artifact(
    reader: &mut Reader<'_>,
    at: &Path<'_>,
    problems: &mut Problems,
) -> Option<Artifact> {
    const NAMES: &[&str] =
        &["artifactId", "name", "description", "parts", "metadata", "extensions"];
    let (mut artifact_id, mut parts) = (None, None);
    let (mut title, mut description, mut attached) = (None, None, None);
    let (mut extensions, mut unknown) = (Vec::new(), Vec::new());
    object(reader, at, problems, NAMES, Some(&mut unknown), |field, reader, at, problems| {
        match field {
            "artifactId" => artifact_id = id(reader, at, problems, ArtifactId::parse),
            "name" => title = name(reader, at, problems),
            "description" => description = text(reader, at, problems),
            // Pieces are parts, and a result may have come in many.
            "parts" => parts = self::parts(reader, at, problems, limits::JSON_ITEMS_MAX),
            "metadata" => attached = metadata(reader, at, problems),
            _ => extensions = names(reader, at, problems),
        }
    })
    .then_some(())?;
    let artifact_id = problems.require(at, "artifactId", artifact_id);
    let parts = problems.require(at, "parts", parts);
    Some(Artifact {
        artifact_id: artifact_id?,
        name: title,
        description: description.filter(|text| !text.is_empty()),
        parts: parts?,
        metadata: attached,
        extensions,
        unknown,
    })
}

/// Reads a task. Fields of a task that we do not know are left out.
pub(crate) fn task(
    reader: &mut Reader<'_>,
    at: &Path<'_>,
    problems: &mut Problems,
) -> Option<Task> {
    const NAMES: &[&str] = &["id", "contextId", "status", "artifacts", "history", "metadata"];
    let (mut task_id, mut context_id, mut status, mut attached) = (None, None, None, None);
    let (mut artifacts, mut history) = (Vec::new(), Vec::new());
    object(reader, at, problems, NAMES, None, |field, reader, at, problems| match field {
        "id" => task_id = id(reader, at, problems, TaskId::parse),
        "contextId" => context_id = id(reader, at, problems, ContextId::parse),
        "status" => status = self::status(reader, at, problems),
        "artifacts" => artifacts = array(reader, at, problems, limits::JSON_ITEMS_MAX, artifact),
        "history" => history = array(reader, at, problems, limits::JSON_ITEMS_MAX, message),
        _ => attached = metadata(reader, at, problems),
    })
    .then_some(())?;
    let task_id = problems.require(at, "id", task_id);
    let context_id = problems.require(at, "contextId", context_id);
    let status = problems.require(at, "status", status);
    Some(Task {
        id: task_id?,
        context_id: context_id?,
        status: status?,
        artifacts,
        history,
        metadata: attached,
    })
}

/// Reads a task's status.
pub(crate) fn status(
    reader: &mut Reader<'_>,
    at: &Path<'_>,
    problems: &mut Problems,
) -> Option<TaskStatus> {
    const NAMES: &[&str] = &["state", "message", "timestamp"];
    let (mut state, mut said, mut timestamp) = (None, None, None);
    object(reader, at, problems, NAMES, None, |field, reader, at, problems| match field {
        "state" => state = choice(reader, at, problems, STATES),
        "message" => said = message(reader, at, problems),
        _ => timestamp = scalar::instant(reader, at, problems),
    })
    .then_some(())?;
    let state = problems.require(at, "state", state)?;
    // A2A leaves the instant optional; a status without one reads as of 1970, and an instant of
    // 1970 is left out when it is written.
    Some(TaskStatus { state, message: said, timestamp: timestamp.unwrap_or_default() })
}
