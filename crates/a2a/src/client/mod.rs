//! The client half: requests to bytes, answers from bytes.

mod events;
mod list;
mod show;
mod stream;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use convoke_model::{
    Artifact, CancelTask, CapabilityName, Content, Fault, FieldViolation, GetTask, Json, Message,
    MessageId, Part, SendMessage, SubscribeToTask, Task, TaskState,
};
use http::StatusCode;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};

use crate::capability;
use crate::fault::{self, clean};
use crate::headers::{
    A2A_EXTENSIONS, A2A_VERSION, APPLICATION_JSON, CAPABILITY_EXTENSION, LAST_EVENT_ID, VERSION_1,
    is_json,
};
use crate::jsonrpc::RequestIdJson;
use crate::read;
use crate::reader::{Kind, Path, Problems, Reader};
use crate::scan::{ScanError, ScanLimits, scan};
use crate::write::{self, Object};

pub use events::{Event, EventReader, EventTooLong, is_event_stream};
pub use list::{TaskPage, build_list, parse_list};
pub use show::{event_json, message_json, page_json, task_json};
pub use stream::{StreamItem, parse_event};

/// What an agent answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A task, perhaps still running.
    Task(Task),
    /// A direct message.
    Message(Message),
}

/// Why an answer is none.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AnswerError {
    /// The agent said no, or failed.
    #[error(transparent)]
    Fault(Fault),
    /// No JSON-RPC at all; something between us and the agent may have answered.
    #[error("http status {status} without a json-rpc body{}", after_colon(.excerpt))]
    Http {
        /// The status.
        status: StatusCode,
        /// The beginning of the body, without control characters.
        excerpt: String,
    },
    /// The body is not JSON, or more of it than we read.
    #[error("the answer is refused")]
    Scan(#[source] ScanError),
    /// The answer belongs to another request: the connection is not to be used again.
    #[error("the answer is to request {found}, not to {expected}")]
    Id {
        /// The id that was sent, as JSON.
        expected: String,
        /// The id that came, as JSON.
        found: String,
    },
    /// JSON, but no answer of A2A 1.0.
    #[error("the answer is not of A2A 1.0: {}", listed(.0))]
    Shape(Vec<FieldViolation>),
}

/// Why an answer holds no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResultError {
    /// The task ended without doing what was asked.
    #[error("the task ended as {}{}", .state.as_str(), told(.text))]
    Ended {
        /// How it ended.
        state: TaskState,
        /// What the agent says of it.
        text: Option<String>,
    },
    /// The task waits for the caller.
    #[error("the task waits as {}{}", .state.as_str(), told(.text))]
    Waits {
        /// For what it waits.
        state: TaskState,
        /// What the agent says of it.
        text: Option<String>,
    },
    /// The task is not at its end.
    #[error("the task is still {}", .state.as_str())]
    Running {
        /// Where it stands.
        state: TaskState,
    },
    /// The answer has no data part.
    #[error("the answer has no data part{}", told(.text))]
    NoData {
        /// The text that it has instead.
        text: Option<String>,
    },
}

/// The request that hands `params` to a capability, or, if none is named, to the agent's only or
/// default one.
///
/// The history is not asked back: the caller has it.
#[must_use]
pub fn build_send(
    capability: Option<&CapabilityName>,
    params: &Json,
    message_id: &MessageId,
    id: &RequestIdJson,
) -> (HeaderMap, Bytes) {
    build_call("SendMessage", capability, params, message_id, id)
}

/// As [`build_send`], for an answer that is a stream of events.
#[must_use]
pub fn build_send_streaming(
    capability: Option<&CapabilityName>,
    params: &Json,
    message_id: &MessageId,
    id: &RequestIdJson,
) -> (HeaderMap, Bytes) {
    let (mut headers, body) =
        build_call("SendStreamingMessage", capability, params, message_id, id);
    accept_events(&mut headers);
    (headers, body)
}

fn build_call(
    method: &str,
    capability: Option<&CapabilityName>,
    params: &Json,
    message_id: &MessageId,
    id: &RequestIdJson,
) -> (HeaderMap, Bytes) {
    let body = request(method, id, 256 + params.get().len(), |out| {
        let mut request = Object::begin(out);
        let mut message = Object::begin(request.key("message"));
        message.string("messageId", message_id.as_str());
        message.string("role", "ROLE_USER");
        message.key("parts").extend_from_slice(b"[{\"data\":");
        message.out.extend_from_slice(params.get().as_bytes());
        message.out.extend_from_slice(b"}]");
        if let Some(name) = capability {
            capability::write_metadata(message.key("metadata"), name);
            message.strings("extensions", &[CAPABILITY_EXTENSION]);
        }
        message.end();
        request.word("configuration", "{\"historyLength\":0}");
        request.end();
    });
    let mut headers = headers();
    if capability.is_some() {
        headers.insert(A2A_EXTENSIONS, HeaderValue::from_static(CAPABILITY_EXTENSION));
    }
    (headers, body)
}

/// The request that sends any message.
#[must_use]
pub fn build_message(send: &SendMessage, id: &RequestIdJson) -> (HeaderMap, Bytes) {
    build_any("SendMessage", send, id)
}

/// As [`build_message`], for an answer that is a stream of events.
#[must_use]
pub fn build_message_streaming(send: &SendMessage, id: &RequestIdJson) -> (HeaderMap, Bytes) {
    let (mut headers, body) = build_any("SendStreamingMessage", send, id);
    accept_events(&mut headers);
    (headers, body)
}

fn build_any(method: &str, send: &SendMessage, id: &RequestIdJson) -> (HeaderMap, Bytes) {
    let body = request(method, id, 256 + write::message_bytes(&send.message), |out| {
        let mut request = Object::begin(out);
        request.optional("tenant", send.tenant.as_deref());
        write::message(request.key("message"), &send.message);
        let asked = &send.configuration;
        let mut configuration = Object::begin(request.key("configuration"));
        configuration.strings("acceptedOutputModes", &asked.accepted_output_modes);
        if let Some(length) = asked.history_length {
            configuration.word("historyLength", &length.to_string());
        }
        if asked.return_immediately {
            configuration.word("returnImmediately", "true");
        }
        configuration.end();
        request.json("metadata", send.metadata.as_ref());
        request.end();
    });
    let mut headers = headers();
    // A URI that cannot stand in the list of the header still stands in the message.
    let listable = |uri: &&String| uri.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
    for uri in send.message.extensions.iter().filter(listable) {
        if let Ok(value) = HeaderValue::from_str(uri) {
            headers.append(A2A_EXTENSIONS, value);
        }
    }
    (headers, body)
}

/// The request that reads a task.
#[must_use]
pub fn build_get(get: &GetTask, id: &RequestIdJson) -> (HeaderMap, Bytes) {
    let body = request("GetTask", id, 256, |out| {
        let mut request = Object::begin(out);
        request.optional("tenant", get.tenant.as_deref());
        request.string("id", get.id.as_str());
        if let Some(length) = get.history_length {
            request.word("historyLength", &length.to_string());
        }
        request.end();
    });
    (headers(), body)
}

/// The request that ends a task.
#[must_use]
pub fn build_cancel(cancel: &CancelTask, id: &RequestIdJson) -> (HeaderMap, Bytes) {
    let body = request("CancelTask", id, 256, |out| {
        let mut request = Object::begin(out);
        request.optional("tenant", cancel.tenant.as_deref());
        request.string("id", cancel.id.as_str());
        request.json("metadata", cancel.metadata.as_ref());
        request.end();
    });
    (headers(), body)
}

/// The request that follows a task, behind the events that the caller has seen.
#[must_use]
pub fn build_subscribe(subscribe: &SubscribeToTask, id: &RequestIdJson) -> (HeaderMap, Bytes) {
    let body = request("SubscribeToTask", id, 256, |out| {
        let mut request = Object::begin(out);
        request.optional("tenant", subscribe.tenant.as_deref());
        request.string("id", subscribe.id.as_str());
        request.end();
    });
    let mut headers = headers();
    accept_events(&mut headers);
    if let Some(cursor) = subscribe.after {
        // Digits and a dot, which a header may have.
        headers.extend(HeaderValue::try_from(cursor.to_string()).map(|at| (LAST_EVENT_ID, at)));
    }
    (headers, body)
}

/// What is refused is answered with plain JSON.
fn accept_events(headers: &mut HeaderMap) {
    headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream, application/json"));
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(CONTENT_TYPE, APPLICATION_JSON);
    headers.insert(ACCEPT, APPLICATION_JSON);
    headers.insert(A2A_VERSION, VERSION_1);
    headers
}

fn request(
    method: &str,
    id: &RequestIdJson,
    capacity: usize,
    params: impl FnOnce(&mut Vec<u8>),
) -> Bytes {
    let mut out = Vec::with_capacity(capacity);
    let mut request = Object::begin(&mut out);
    request.string("jsonrpc", "2.0");
    request.word("id", id.as_str());
    request.string("method", method);
    params(request.key("params"));
    request.end();
    out.into()
}

/// Reads the answer to request `id`.
///
/// # Errors
///
/// [`AnswerError`]; a peer's texts in it are bounded and have no control characters.
pub fn parse_response(
    id: &RequestIdJson,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Answer, AnswerError> {
    result_in(id, status, headers, body, self::result)
}

/// What `read` makes of the result in the answer to request `id`.
fn result_in<T>(
    id: &RequestIdJson,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    read: impl FnOnce(&str) -> Result<T, AnswerError>,
) -> Result<T, AnswerError> {
    let http = || AnswerError::Http { status, excerpt: excerpt(body) };
    if !is_json(headers) {
        return Err(http());
    }
    match outcome(id, status, body) {
        Ok(Some(result)) => read(result),
        // What went wrong then is what the status says, not how the body is no answer.
        Ok(None) | Err(AnswerError::Scan(_)) if !status.is_success() => Err(http()),
        Ok(None) => Err(neither()),
        Err(error) => Err(error),
    }
}

/// The result of a JSON-RPC response to request `id`; `None` if it has neither a result nor an
/// error.
fn outcome<'a>(
    id: &RequestIdJson,
    status: StatusCode,
    body: &'a [u8],
) -> Result<Option<&'a str>, AnswerError> {
    let text = scan(body, &ScanLimits::RESPONSE).map_err(AnswerError::Scan)?;
    let (mut found, mut result, mut error) = (None, None, None);
    let mut reader = Reader::new(text);
    if reader.kind() == Kind::Object {
        reader.enter();
        while let Some(key) = reader.key() {
            let value = reader.raw().filter(|text| *text != "null");
            match &*key {
                "id" => found = value,
                "result" => result = value,
                "error" => error = value,
                _ => {}
            }
        }
    }
    // A fault may come without an id, when the request was too broken to have one.
    let found_or_null = found.unwrap_or("null");
    if (result.is_some() || found.is_some()) && found_or_null != id.as_str() {
        return Err(AnswerError::Id {
            expected: id.as_str().to_owned(),
            found: excerpt(found_or_null.as_bytes()),
        });
    }
    match (result, error) {
        (Some(_), Some(_)) => Err(neither()),
        (result, None) => Ok(result),
        (None, Some(error)) => match fault::read(&mut Reader::new(error), status) {
            Some(fault) => Err(AnswerError::Fault(fault)),
            None => Err(shape("error", "must have a number in `code`")),
        },
    }
}

fn neither() -> AnswerError {
    shape("", "must have either `result` or `error`")
}

/// A task, or an object with either `task` or `message` in it.
fn result(text: &str) -> Result<Answer, AnswerError> {
    let mut reader = Reader::new(text);
    let mut payloads = Vec::new();
    if reader.kind() == Kind::Object {
        reader.enter();
        while let Some(key) = reader.key() {
            let value = reader.raw().unwrap_or_default();
            if matches!(&*key, "task" | "message") && value != "null" {
                payloads.push((key == "task", value));
            }
        }
    }
    let (is_task, text) = match payloads.as_slice() {
        [] => (true, text),
        [payload] => *payload,
        _ => return Err(shape("result", "must have either `task` or `message`")),
    };
    let mut problems = Problems::default();
    let (reader, at) = (&mut Reader::new(text), &Path::Root);
    let answer = if is_task {
        read::task(reader, at, &mut problems).map(Answer::Task)
    } else {
        read::message(reader, at, &mut problems).map(Answer::Message)
    };
    match answer {
        Some(answer) if problems.0.is_empty() => Ok(answer),
        _ => Err(AnswerError::Shape(problems.0)),
    }
}

/// The result of a call: the data part of the message, or of the last artifact of the completed task
/// that has one. Agents of ours give the result after whatever they gave before their end.
///
/// # Errors
///
/// [`ResultError`], with what the agent said if it said something.
pub fn result_of(answer: &Answer) -> Result<Json, ResultError> {
    let task = match answer {
        Answer::Message(message) => return data(&message.parts),
        Answer::Task(task) => task,
    };
    let state = task.status.state;
    if state == TaskState::Completed {
        let is_data = |part: &Part| matches!(part.content, Content::Data(_));
        let has_data = |artifact: &&Artifact| artifact.parts.iter().any(is_data);
        let result = task.artifacts.iter().rfind(has_data).or(task.artifacts.first());
        return data(result.map_or(&[], |artifact| artifact.parts.as_slice()));
    }
    let text = task.status.message.as_ref().and_then(|message| text_of(&message.parts));
    if state.is_terminal() {
        Err(ResultError::Ended { state, text })
    } else if state.is_interrupted() {
        Err(ResultError::Waits { state, text })
    } else {
        Err(ResultError::Running { state })
    }
}

fn data(parts: &[Part]) -> Result<Json, ResultError> {
    parts
        .iter()
        .find_map(|part| match &part.content {
            Content::Data(data) => Some(data.clone()),
            _ => None,
        })
        .ok_or_else(|| ResultError::NoData { text: text_of(parts) })
}

/// The text parts, joined by spaces, bounded and without control characters.
fn text_of(parts: &[Part]) -> Option<String> {
    let texts: Vec<&str> = parts
        .iter()
        .filter_map(|part| match &part.content {
            Content::Text(text) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    (!texts.is_empty()).then(|| clean(&texts.join(" ")))
}

fn shape(field: &str, description: &str) -> AnswerError {
    AnswerError::Shape(vec![FieldViolation {
        field: field.to_owned(),
        description: description.to_owned(),
    }])
}

/// The beginning of a body that is not ours to understand.
fn excerpt(body: &[u8]) -> String {
    const EXCERPT_BYTES: usize = 200;
    clean(&String::from_utf8_lossy(&body[..body.len().min(EXCERPT_BYTES)]))
}

/// What stands behind a sentence, if there is anything.
fn after_colon(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

fn listed(violations: &[FieldViolation]) -> String {
    let lines: Vec<String> = violations
        .iter()
        .map(|violation| format!("{} {}", violation.field, violation.description))
        .collect();
    lines.join("; ").trim_start().to_owned()
}

fn told(text: &Option<String>) -> String {
    text.as_ref().map(|text| format!(": {text}")).unwrap_or_default()
}
