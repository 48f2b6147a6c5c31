//! JSON-RPC 2.0 with A2A 1.0: a request's bytes to a [`Call`], results and faults to bytes.

mod list;
mod operation;
pub mod stream;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use convoke_model::{Fault, FaultCode, Message, Operation, OperationKind, Task, limits};
use http::{HeaderMap, StatusCode};

use crate::fault;
use crate::headers::{self, Version};
use crate::reader::{Kind, Reader};
use crate::scan::{ScanErrorKind, ScanLimits, scan};
use crate::unescape::write_string;
use crate::write::{self, Object};

pub use list::{TaskList, encode_list, encode_list_in};

/// One request, decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// What the answer has to carry.
    pub id: RequestIdJson,
    /// Which version of A2A the caller speaks.
    pub version: Version,
    /// URIs of the extensions that the caller asks for.
    pub extensions: Vec<String>,
    /// What the caller asks.
    pub operation: Operation,
}

/// A request that was refused before it became a [`Call`].
#[derive(Debug, Clone, PartialEq)]
pub struct Rejection {
    /// The request's id, if one was readable.
    pub id: Option<RequestIdJson>,
    /// Why.
    pub fault: Fault,
    /// The HTTP status of the answer.
    pub http_status: StatusCode,
}

impl Call {
    /// Whether the caller asks that the same message, sent again, is the same task.
    #[must_use]
    pub fn wants_idempotent_send(&self) -> bool {
        self.extensions.iter().any(|uri| uri == headers::IDEMPOTENT_SEND_EXTENSION)
    }
}

/// The id of a JSON-RPC request (string, number or null) as its author wrote it: `1.0` comes back
/// as `1.0`.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestIdJson(Box<str>);

impl RequestIdJson {
    /// The id `null`, for answers to requests whose id could not be read.
    #[must_use]
    pub fn null() -> Self {
        Self("null".into())
    }

    /// The string `text` as an id.
    #[must_use]
    pub fn string(text: &str) -> Self {
        let mut out = Vec::with_capacity(text.len() + 2);
        write_string(&mut out, text);
        Self(String::from_utf8_lossy(&out).into())
    }

    /// The JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<u64> for RequestIdJson {
    fn from(number: u64) -> Self {
        Self(number.to_string().into())
    }
}

impl fmt::Debug for RequestIdJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Decodes one request from its header fields, its query and its body.
///
/// # Errors
///
/// [`Rejection`] with the fault, its HTTP status and the request's id if there is one. What is
/// looked at first wins: content type, length, JSON, envelope, version, method, parameters. All
/// parameters that are wrong are named, up to [`limits::VIOLATIONS_MAX`].
pub fn decode(headers: &HeaderMap, query: Option<&str>, body: &Bytes) -> Result<Call, Rejection> {
    if !headers::is_json(headers) {
        let message = "the content type has to be `application/json`";
        return Err(Rejection::new(None, Fault::new(FaultCode::ContentTypeNotSupported, message)));
    }
    let text = match scan(body, &ScanLimits::REQUEST) {
        Ok(text) => text,
        Err(error) => {
            let too_long = matches!(error.kind, ScanErrorKind::TooLong { .. });
            let code = if too_long { FaultCode::ResourceExhausted } else { FaultCode::Parse };
            let mut rejection = Rejection::new(None, Fault::new(code, error.to_string()));
            if too_long {
                rejection.http_status = StatusCode::PAYLOAD_TOO_LARGE;
            }
            return Err(rejection);
        }
    };
    let Envelope { id, method, params } = envelope(text)?;
    let decoded = (|| {
        if let Some(fault) = operation::legacy_method(&method) {
            return Err(fault);
        }
        let version = headers::version(headers, query)?;
        let extensions = headers::extensions(headers)?;
        let operation =
            operation::operation(&method, params, || headers::last_event(headers, query))?;
        Ok((version, extensions, operation))
    })();
    match decoded {
        Ok((version, extensions, operation)) => Ok(Call { id, version, extensions, operation }),
        Err(fault) => Err(Rejection::new(Some(id), fault)),
    }
}

/// The answer of an operation that ended in a task: wrapped for `SendMessage`, bare otherwise.
#[must_use]
pub fn encode_task(id: &RequestIdJson, kind: OperationKind, task: &Task) -> Bytes {
    encode_task_in(id, kind, task, write::task_bytes(task))
}

/// The same, in a buffer of `capacity` bytes: where [`size`](crate::size) has said how much it takes
/// at most, it does not grow beyond that.
#[must_use]
pub fn encode_task_in(
    id: &RequestIdJson,
    kind: OperationKind,
    task: &Task,
    capacity: usize,
) -> Bytes {
    result(id, capacity, |out| match kind {
        OperationKind::SendMessage | OperationKind::SendStreamingMessage => {
            let mut payload = Object::begin(out);
            write::task(payload.key("task"), task);
            payload.end();
        }
        OperationKind::GetTask
        | OperationKind::ListTasks
        | OperationKind::CancelTask
        | OperationKind::SubscribeToTask => write::task(out, task),
    })
}

/// The answer of a `SendMessage` that ended in a message.
#[must_use]
pub fn encode_message(id: &RequestIdJson, message: &Message) -> Bytes {
    encode_message_in(id, message, write::message_bytes(message))
}

/// The same, in a buffer of `capacity` bytes.
#[must_use]
pub fn encode_message_in(id: &RequestIdJson, message: &Message, capacity: usize) -> Bytes {
    result(id, capacity, |out| {
        let mut payload = Object::begin(out);
        write::message(payload.key("message"), message);
        payload.end();
    })
}

/// The answer of what went wrong; without an id where none was readable.
#[must_use]
pub fn encode_fault(id: Option<&RequestIdJson>, fault: &Fault) -> Bytes {
    let mut out = Vec::with_capacity(512);
    let mut response = Object::begin(&mut out);
    response.string("jsonrpc", "2.0");
    response.word("id", id.map_or("null", RequestIdJson::as_str));
    fault::write(response.key("error"), fault);
    response.end();
    out.into()
}

fn result(id: &RequestIdJson, payload_bytes: usize, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    const FRAME_BYTES: usize = 64;
    let mut out = Vec::with_capacity(FRAME_BYTES + id.as_str().len() + payload_bytes);
    let mut response = Object::begin(&mut out);
    response.string("jsonrpc", "2.0");
    response.word("id", id.as_str());
    write(response.key("result"));
    response.end();
    out.into()
}

impl Rejection {
    fn new(id: Option<RequestIdJson>, fault: Fault) -> Self {
        Self { id, http_status: fault::http_status(fault.code), fault }
    }

    fn invalid(id: Option<RequestIdJson>, message: impl Into<String>) -> Self {
        Self::new(id, Fault::new(FaultCode::InvalidRequest, message))
    }
}

struct Envelope<'a> {
    id: RequestIdJson,
    method: Cow<'a, str>,
    /// The parameters as they stand; `None` if they are missing or `null`.
    params: Option<&'a str>,
}

fn envelope(text: &str) -> Result<Envelope<'_>, Rejection> {
    const NAMES: &[&str] = &["jsonrpc", "id", "method", "params"];
    let mut reader = Reader::new(text);
    match reader.kind() {
        Kind::Object => {}
        Kind::Array => {
            return Err(Rejection::invalid(None, "batches are not served; send one request each"));
        }
        _ => return Err(Rejection::invalid(None, "the request has to be an object")),
    }
    let (mut version_is_2, mut method, mut params) = (false, None, None);
    let (mut id, mut id_is_wrong) = (None, false);
    reader.enter();
    let mut misspelled = None;
    while let Some(key) = reader.key() {
        match &*key {
            "jsonrpc" => version_is_2 = reader.string().as_deref() == Some("2.0"),
            "id" => {
                let scalar = matches!(reader.kind(), Kind::String | Kind::Number | Kind::Null);
                let raw = reader.raw().unwrap_or_default();
                // Two more than the bound for the quotes.
                if scalar && raw.len() <= limits::ID_BYTES_MAX + 2 {
                    id = Some(RequestIdJson(raw.into()));
                } else {
                    id_is_wrong = true;
                }
            }
            "method" => method = reader.string(),
            "params" if reader.kind() == Kind::Null => reader.skip(),
            "params" => params = reader.raw(),
            other => {
                // A reader that ignores case would take it for the real one.
                misspelled = NAMES.iter().find(|name| name.eq_ignore_ascii_case(other));
                reader.skip();
            }
        }
    }
    let wrong = |id, message: String| Err(Rejection::invalid(id, message));
    if let Some(name) = misspelled {
        return wrong(id, format!("`{name}` is misspelled; names are exact"));
    }
    if id_is_wrong {
        let max = limits::ID_BYTES_MAX;
        return wrong(None, format!("`id` has to be a string, number or null of {max} bytes"));
    }
    if !version_is_2 {
        return wrong(id, "`jsonrpc` has to be \"2.0\"".into());
    }
    let Some(method) = method else {
        return wrong(id, "`method` has to be a string".into());
    };
    let Some(id) = id else {
        return wrong(None, "notifications are not served; give the request an `id`".into());
    };
    Ok(Envelope { id, method, params })
}
