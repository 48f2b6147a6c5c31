//! Faults as JSON-RPC errors, and back.

use convoke_model::{Fault, FaultCode, FieldViolation, limits};
use http::StatusCode;

use crate::reader::{Kind, Path, Problems, Reader, array, object};
use crate::write::Object;

const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";
const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";

/// The domain of reasons that A2A defines.
const A2A_DOMAIN: &str = "a2a-protocol.org";
/// The domain of reasons that are ours.
const OWN_DOMAIN: &str = "convoke";

/// The names of facts that a client keeps of a peer's fault; a fault's facts have static names.
const FACTS: &[&str] = &[
    "agent",
    "callee",
    "capabilities",
    "capability",
    "contextId",
    "didYouMean",
    "expected",
    "found",
    "lastEventId",
    "limit",
    "method",
    "requestId",
    "retryAfterSeconds",
    "rule",
    "state",
    "supportedVersions",
    "taskId",
];

/// The JSON-RPC error code of a fault.
///
/// Source: A2A 1.0.1 §5.4 and JSON-RPC 2.0 §5.1. A2A gives authentication and overload no code, so
/// they share the first of JSON-RPC's codes for servers, -32000; the reason tells them apart.
#[must_use]
pub fn number(code: FaultCode) -> i32 {
    match code {
        FaultCode::TaskNotFound => -32001,
        FaultCode::TaskNotCancelable => -32002,
        FaultCode::PushNotificationNotSupported => -32003,
        FaultCode::UnsupportedOperation => -32004,
        FaultCode::ContentTypeNotSupported => -32005,
        FaultCode::InvalidAgentResponse => -32006,
        FaultCode::ExtensionSupportRequired => -32008,
        FaultCode::VersionNotSupported => -32009,
        FaultCode::Parse => -32700,
        FaultCode::InvalidRequest => -32600,
        FaultCode::MethodNotFound => -32601,
        FaultCode::InvalidParams | FaultCode::CapabilityNotFound => -32602,
        FaultCode::Internal | FaultCode::CapabilityFailed => -32603,
        FaultCode::Unauthenticated
        | FaultCode::PermissionDenied
        | FaultCode::ResourceExhausted
        | FaultCode::DeadlineExceeded
        | FaultCode::Unavailable => -32000,
    }
}

/// The HTTP status of a JSON-RPC answer that is this fault.
///
/// Faults of the protocol are 200, as JSON-RPC over HTTP has it: clients read the body of nothing
/// else. Authentication (401, 403; A2A 1.0.1 §7.4) and overload (429, 503, 504) speak to what stands
/// between client and agent too, which reads only the status. A body that is too large is 413; that
/// refusal comes with its own status, [`Rejection::http_status`](crate::jsonrpc::Rejection).
#[must_use]
pub fn http_status(code: FaultCode) -> StatusCode {
    match code {
        FaultCode::Unauthenticated => StatusCode::UNAUTHORIZED,
        FaultCode::PermissionDenied => StatusCode::FORBIDDEN,
        FaultCode::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        FaultCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        FaultCode::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::OK,
    }
}

fn domain(code: FaultCode) -> &'static str {
    match code {
        FaultCode::CapabilityNotFound
        | FaultCode::CapabilityFailed
        | FaultCode::Unauthenticated
        | FaultCode::PermissionDenied
        | FaultCode::ResourceExhausted
        | FaultCode::DeadlineExceeded
        | FaultCode::Unavailable => OWN_DOMAIN,
        _ => A2A_DOMAIN,
    }
}

/// Writes the `error` object of a JSON-RPC response.
pub(crate) fn write(out: &mut Vec<u8>, fault: &Fault) {
    let mut error = Object::begin(out);
    error.word("code", &number(fault.code).to_string());
    error.string("message", &fault.message);
    let data = error.key("data");
    data.push(b'[');
    let mut info = Object::begin(data);
    info.string("@type", ERROR_INFO);
    info.string("reason", fault.code.reason());
    info.string("domain", domain(fault.code));
    if !fault.metadata.is_empty() {
        let mut metadata = Object::begin(info.key("metadata"));
        for (index, &(key, ref value)) in fault.metadata.iter().enumerate() {
            // Later facts of the same name would make a duplicate key.
            if !fault.metadata[..index].iter().any(|(before, _)| *before == key) {
                metadata.string(key, value);
            }
        }
        metadata.end();
    }
    info.end();
    if !fault.violations.is_empty() {
        error.out.push(b',');
        let mut bad = Object::begin(error.out);
        bad.string("@type", BAD_REQUEST);
        bad.array("fieldViolations", &fault.violations, |out, violation| {
            let mut object = Object::begin(out);
            object.string("field", &violation.field);
            object.string("description", &violation.description);
            object.end();
        });
        bad.end();
    }
    error.out.push(b']');
    error.end();
}

/// Reads the `error` object of a JSON-RPC response. `None` if it is none.
///
/// The reason decides if its domain is one that we know, else the number; the numbers that say too
/// little are helped by the HTTP status.
pub(crate) fn read(reader: &mut Reader<'_>, status: StatusCode) -> Option<Fault> {
    let (mut number, mut message) = (None, None);
    let mut details = Details::default();
    // What is wrong inside an error is left out rather than reported: the error is the news.
    let problems = &mut Problems::default();
    let names = &["code", "message", "data"];
    object(reader, &Path::Root, problems, names, None, |field, reader, at, problems| match field {
        "code" => number = reader.raw().and_then(|raw| raw.parse::<i64>().ok()),
        "message" => message = reader.string().map(|text| clean(&text)),
        _ if reader.kind() == Kind::Array => {
            array(reader, at, problems, DETAILS_MAX, |reader, at, problems| {
                details.read(reader, at, problems);
                None::<()>
            });
        }
        _ => reader.skip(),
    })
    .then_some(())?;
    let number = number?;
    let code = details.code.or_else(|| code_of(number, status));
    let mut fault = Fault::new(code.unwrap_or(FaultCode::Internal), message.unwrap_or_default());
    if fault.message.is_empty() {
        fault.message = format!("the agent answered with error {number} and no message");
    }
    fault.metadata = details.facts;
    if code.is_none() {
        fault.metadata.push(("code", number.to_string()));
    }
    fault.violations = details.violations;
    Some(fault)
}

/// Most entries of an error's `data` that are looked at.
const DETAILS_MAX: usize = 16;

#[derive(Default)]
struct Details {
    code: Option<FaultCode>,
    facts: Vec<(&'static str, String)>,
    violations: Vec<FieldViolation>,
}

impl Details {
    fn read(&mut self, reader: &mut Reader<'_>, at: &Path<'_>, problems: &mut Problems) {
        let (mut reason, mut ours) = (None, false);
        let (facts, violations) = (&mut self.facts, &mut self.violations);
        let names = &["reason", "domain", "metadata", "fieldViolations"];
        object(reader, at, problems, names, None, |field, reader, at, problems| match field {
            "reason" => reason = reader.string().as_deref().and_then(FaultCode::from_reason),
            "domain" => {
                ours = matches!(reader.string().as_deref(), Some(A2A_DOMAIN | OWN_DOMAIN));
            }
            "metadata" => {
                object(reader, at, problems, FACTS, None, |fact, reader, _, _| {
                    facts.extend(reader.string().map(|text| (fact, clean(&text))));
                });
            }
            _ => violations.extend(array(reader, at, problems, limits::VIOLATIONS_MAX, violation)),
        });
        violations.truncate(limits::VIOLATIONS_MAX);
        if ours {
            self.code = self.code.or(reason);
        }
    }
}

fn violation(
    reader: &mut Reader<'_>,
    at: &Path<'_>,
    problems: &mut Problems,
) -> Option<FieldViolation> {
    let (mut wrong, mut description) = (None, None);
    let names = &["field", "description"];
    object(reader, at, problems, names, None, |name, reader, _, _| match name {
        "field" => wrong = reader.string().map(|text| clean(&text)),
        _ => description = reader.string().map(|text| clean(&text)),
    });
    Some(FieldViolation { field: wrong.unwrap_or_default(), description: description? })
}

fn code_of(number: i64, status: StatusCode) -> Option<FaultCode> {
    match (number, status) {
        (-32001, _) => Some(FaultCode::TaskNotFound),
        (-32002, _) => Some(FaultCode::TaskNotCancelable),
        (-32003, _) => Some(FaultCode::PushNotificationNotSupported),
        // -32007 is ExtendedAgentCardNotConfiguredError: an operation that is not to be had here.
        (-32004 | -32007, _) => Some(FaultCode::UnsupportedOperation),
        (-32005, _) => Some(FaultCode::ContentTypeNotSupported),
        (-32006, _) => Some(FaultCode::InvalidAgentResponse),
        (-32008, _) => Some(FaultCode::ExtensionSupportRequired),
        (-32009, _) => Some(FaultCode::VersionNotSupported),
        (-32700, _) => Some(FaultCode::Parse),
        (-32600, _) => Some(FaultCode::InvalidRequest),
        (-32601, _) => Some(FaultCode::MethodNotFound),
        (-32602, _) => Some(FaultCode::InvalidParams),
        (-32603, _) => Some(FaultCode::Internal),
        (_, StatusCode::UNAUTHORIZED) => Some(FaultCode::Unauthenticated),
        (_, StatusCode::FORBIDDEN) => Some(FaultCode::PermissionDenied),
        (_, StatusCode::TOO_MANY_REQUESTS | StatusCode::PAYLOAD_TOO_LARGE) => {
            Some(FaultCode::ResourceExhausted)
        }
        (_, StatusCode::SERVICE_UNAVAILABLE) => Some(FaultCode::Unavailable),
        (_, StatusCode::GATEWAY_TIMEOUT) => Some(FaultCode::DeadlineExceeded),
        _ => None,
    }
}

/// A peer's text, bounded, without the characters that would move a terminal's cursor or turn its
/// text around.
pub(crate) fn clean(text: &str) -> String {
    let mut kept = String::with_capacity(text.len().min(limits::FAULT_TEXT_BYTES_MAX));
    for character in text.chars() {
        let hidden = character.is_control()
            || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let character = if hidden { ' ' } else { character };
        if kept.len() + character.len_utf8() > limits::FAULT_TEXT_BYTES_MAX {
            break;
        }
        kept.push(character);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(fault: &Fault) -> String {
        let mut out = Vec::new();
        write(&mut out, fault);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn faults_are_written() {
        assert_eq!(
            written(&Fault::new(FaultCode::TaskNotFound, "no task `t`").with("taskId", "t")),
            r#"{"code":-32001,"message":"no task `t`","data":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"TASK_NOT_FOUND","domain":"a2a-protocol.org","metadata":{"taskId":"t"}}]}"#
        );
        assert_eq!(
            written(&Fault::invalid_field("message.parts", "is required")),
            r#"{"code":-32602,"message":"message.parts: is required","data":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"INVALID_PARAMS","domain":"a2a-protocol.org"},{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"message.parts","description":"is required"}]}]}"#
        );
        let twice =
            Fault::new(FaultCode::PermissionDenied, "no").with("rule", "a").with("rule", "b");
        assert!(written(&twice).ends_with(r#""domain":"convoke","metadata":{"rule":"a"}}]}"#));
    }

    #[test]
    fn every_fault_reads_back() {
        for code in FaultCode::ALL {
            let mut fault = Fault::new(code, "what \"happened\"\u{e9}").with("taskId", "t\\");
            fault.violations.push(FieldViolation { field: "/a".into(), description: "b".into() });
            let text = written(&fault);
            crate::scan(text.as_bytes(), &crate::ScanLimits::RESPONSE).unwrap();
            assert_eq!(read(&mut Reader::new(&text), http_status(code)), Some(fault));
        }
    }

    #[test]
    fn foreign_faults_are_read() {
        fn check(text: &str, status: u16, expected: Option<(FaultCode, &str)>) {
            let status = StatusCode::from_u16(status).unwrap();
            let fault = read(&mut Reader::new(text), status);
            let found = fault.as_ref().map(|fault| (fault.code, fault.message.as_str()));
            assert_eq!(found, expected, "{text}");
        }
        use FaultCode as C;
        check(r#"{"code":-32001,"message":"m"}"#, 200, Some((C::TaskNotFound, "m")));
        check(r#"{"code":-32007,"message":"m"}"#, 200, Some((C::UnsupportedOperation, "m")));
        check(r#"{"code":-32000,"message":"m"}"#, 200, Some((C::Internal, "m")));
        check(r#"{"code":-32000,"message":"m"}"#, 403, Some((C::PermissionDenied, "m")));
        check(r#"{"code":-32000,"message":"m","data":"x"}"#, 401, Some((C::Unauthenticated, "m")));
        check(r#"{"code":-32000,"message":"m","data":{"x":1}}"#, 503, Some((C::Unavailable, "m")));
        check(
            r#"{"code":7}"#,
            200,
            Some((C::Internal, "the agent answered with error 7 and no message")),
        );
        check(
            r#"{"code":-32602,"message":"m","data":[3,{"reason":"CAPABILITY_NOT_FOUND","domain":"convoke"}]}"#,
            200,
            Some((C::CapabilityNotFound, "m")),
        );
        check(
            r#"{"code":-32602,"message":"m","data":[{"reason":"PERMISSION_DENIED","domain":"evil"}]}"#,
            200,
            Some((C::InvalidParams, "m")),
        );
        check(
            r#"{"code":-32001,"message":"a\u001b[2Jb\u202ec"}"#,
            200,
            Some((C::TaskNotFound, "a [2Jb c")),
        );
        check(r#"{"message":"m"}"#, 200, None);
        check(r#"{"code":"x","message":"m"}"#, 200, None);
        check("[]", 200, None);
    }

    #[test]
    fn foreign_texts_are_bounded() {
        let long = "é".repeat(limits::FAULT_TEXT_BYTES_MAX);
        assert_eq!(clean(&long).len(), limits::FAULT_TEXT_BYTES_MAX);
        assert_eq!(clean("a\tb"), "a b");
    }
}
