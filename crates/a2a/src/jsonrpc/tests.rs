mod properties;
mod tasks;

use super::*;

use convoke_model::{
    Artifact, ArtifactId, CancelTask, Content, ContextId, Cursor, GetTask, Json, ListTasks,
    MessageId, Part, Role, SendMessage, SubscribeToTask, TaskId, TaskState, TaskStatus, UnixMillis,
};
use http::header::{CONTENT_TYPE, HeaderValue};

use FaultCode as C;

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(headers::A2A_VERSION, headers::VERSION_1);
    headers
}

fn decode_text(text: &str) -> Result<Call, Rejection> {
    decode(&headers(), None, &Bytes::copy_from_slice(text.as_bytes()))
}

fn send(message: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{{"message":{message}}}}}"#)
}

/// A message with `part` as its only part.
fn with_part(part: &str) -> String {
    send(&format!(r#"{{"messageId":"m","role":"ROLE_USER","parts":[{part}]}}"#))
}

fn sent(text: &str) -> SendMessage {
    match decode_text(text).map(|call| call.operation) {
        Ok(Operation::SendMessage(send)) => send,
        other => panic!("{text}: {other:?}"),
    }
}

/// Refused with this code, and, where `field` is not empty, with this as the first field.
fn refused(text: &str, code: FaultCode, field: &str) {
    let rejection = decode_text(text).expect_err(text);
    assert_eq!(rejection.fault.code, code, "{text}: {}", rejection.fault);
    let first = rejection.fault.violations.first().map(|violation| violation.field.as_str());
    assert_eq!(first.unwrap_or_default(), field, "{text}: {:?}", rejection.fault.violations);
    assert!(!rejection.fault.message.is_empty());
}

#[test]
fn bodies_that_are_not_json_are_refused() {
    for text in [
        "",
        " ",
        "{",
        "}",
        "nope",
        "{\"jsonrpc\":\"2.0\"",
        "{'jsonrpc':'2.0'}",
        "{\"jsonrpc\":\"2.0\",}",
        "\u{feff}{}",
        "{} {}",
        "{\"jsonrpc\":\"2.0\",\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"GetTask\"}",
        r#"{"jsonrpc":"2.0","id":1,"method":"GetTask","\u006dethod":"CancelTask","params":{"id":"t"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"t","id":"u"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"\ud800"}}"#,
    ] {
        refused(text, C::Parse, "");
    }
    refused(&"[".repeat(100_000), C::Parse, "");
    refused(&with_part(&format!(r#"{{"data":{}}}"#, "9".repeat(65))), C::Parse, "");
    let wide: Vec<String> = (0..=limits::JSON_KEYS_MAX).map(|n| format!("\"{n}\":0")).collect();
    refused(&with_part(&format!(r#"{{"data":{{{}}}}}"#, wide.join(","))), C::Parse, "");
    let invalid = Bytes::from_static(b"{\"jsonrpc\":\"\xff\"}");
    assert_eq!(decode(&headers(), None, &invalid).unwrap_err().fault.code, C::Parse);
}

#[test]
fn a_body_that_is_too_large_is_413() {
    let body = Bytes::from(vec![b' '; limits::BODY_BYTES_MAX + 1]);
    let rejection = decode(&headers(), None, &body).unwrap_err();
    assert_eq!(rejection.fault.code, C::ResourceExhausted);
    assert_eq!(rejection.http_status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[test]
fn envelopes_that_are_wrong_are_refused() {
    for text in [
        "null",
        "1",
        "\"GetTask\"",
        "[]",
        r#"[{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"t"}}]"#,
        "{}",
        r#"{"id":1,"method":"GetTask","params":{"id":"t"}}"#,
        r#"{"jsonrpc":"1.0","id":1,"method":"GetTask","params":{"id":"t"}}"#,
        r#"{"jsonrpc":2.0,"id":1,"method":"GetTask","params":{"id":"t"}}"#,
        r#"{"jsonrpc":"2.0","method":"GetTask","params":{"id":"t"}}"#,
        r#"{"jsonrpc":"2.0","id":{},"method":"GetTask","params":{"id":"t"}}"#,
        r#"{"jsonrpc":"2.0","id":[1],"method":"GetTask","params":{"id":"t"}}"#,
        r#"{"jsonrpc":"2.0","id":true,"method":"GetTask","params":{"id":"t"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"params":{"id":"t"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":null,"params":{"id":"t"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":["GetTask"],"params":{"id":"t"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"GetTask","Method":"CancelTask","params":{"id":"t"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"GetTask","PARAMS":{"id":"t"}}"#,
    ] {
        refused(text, C::InvalidRequest, "");
    }
    for (text, part) in [
        ("[]", "batches are not served"),
        ("1", "has to be an object"),
        (r#"{"jsonrpc":"2.0","id":{},"method":"GetTask"}"#, "`id` has to be"),
        (r#"{"jsonrpc":"2.0","method":"GetTask"}"#, "notifications are not served"),
        (r#"{"jsonrpc":"2.0","id":1,"Method":"GetTask"}"#, "`method` is misspelled"),
        (r#"{"jsonrpc":"2","id":1,"method":"GetTask"}"#, "`jsonrpc` has to be \"2.0\""),
    ] {
        let message = decode_text(text).unwrap_err().fault.message;
        assert!(message.contains(part), "{text}: {message}");
    }
    let long = "i".repeat(limits::ID_BYTES_MAX + 1);
    let long =
        format!(r#"{{"jsonrpc":"2.0","id":"{long}","method":"GetTask","params":{{"id":"t"}}}}"#);
    refused(&long, C::InvalidRequest, "");
}

#[test]
fn methods_are_exact() {
    fn check(method: &str, code: FaultCode, part: &str) {
        let text =
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"id":"t"}}}}"#);
        let fault = decode_text(&text).expect_err(method).fault;
        assert_eq!(fault.code, code, "{method}");
        assert!(fault.message.contains(part), "{}", fault.message);
    }
    const LIST: &str = "`SendMessage`, `SendStreamingMessage`, `GetTask`, `ListTasks`, \
                        `CancelTask`, `SubscribeToTask`";
    check("", C::MethodNotFound, LIST);
    check("gettask", C::MethodNotFound, LIST);
    check("GetTask ", C::MethodNotFound, LIST);
    check("GetTask\\u0000", C::MethodNotFound, LIST);
    check("\\u0421ancelTask", C::MethodNotFound, LIST);
    check("message/send", C::MethodNotFound, "A2A before 1.0, which comes later");
    check("tasks/get", C::MethodNotFound, LIST);
    check("SendStreamingMessage", C::InvalidParams, "message");
    check("GetExtendedAgentCard", C::UnsupportedOperation, "extended card");
    check("CreateTaskPushNotificationConfig", C::PushNotificationNotSupported, "push");
    check("GetTaskPushNotificationConfig", C::PushNotificationNotSupported, "push");
    check("ListTaskPushNotificationConfigs", C::PushNotificationNotSupported, "push");
    check("DeleteTaskPushNotificationConfig", C::PushNotificationNotSupported, "push");
    let long = "é".repeat(10_000);
    let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{long}"}}"#);
    assert!(decode_text(&text).unwrap_err().fault.message.len() < 300);
    // An escape is another spelling of the same name.
    let text = r#"{"jsonrpc":"2.0","id":1,"method":"\u0047etTask","params":{"id":"t"}}"#;
    assert_eq!(decode_text(text).unwrap().operation.kind(), OperationKind::GetTask);
}

#[test]
fn versions_and_content_types_are_checked() {
    let body = Bytes::from(r#"{"jsonrpc":"2.0","id":7,"method":"GetTask","params":{"id":"t"}}"#);
    let mut without = headers();
    without.remove(headers::A2A_VERSION);
    let rejection = decode(&without, None, &body).unwrap_err();
    assert_eq!(rejection.fault.code, C::VersionNotSupported);
    assert_eq!(rejection.id, Some(7.into()));
    assert!(decode(&without, Some("A2A-Version=1.0"), &body).is_ok());
    // The names of 0.3 are told what they are, whether they say 0.3 or nothing.
    let legacy = Bytes::from(r#"{"jsonrpc":"2.0","id":7,"method":"message/send","params":{}}"#);
    assert_eq!(decode(&without, None, &legacy).unwrap_err().fault.code, C::MethodNotFound);
    let mut text = headers();
    text.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    let rejection = decode(&text, None, &body).unwrap_err();
    assert_eq!(rejection.fault.code, C::ContentTypeNotSupported);
    assert_eq!(rejection.http_status, StatusCode::OK);
    let mut extended = headers();
    extended.insert(headers::A2A_EXTENSIONS, HeaderValue::from_static("urn:a,urn:b"));
    assert_eq!(decode(&extended, None, &body).unwrap().extensions, ["urn:a", "urn:b"]);
}

#[test]
fn messages_that_are_wrong_name_the_field() {
    for (message, field) in [
        ("null", "message"),
        ("[]", "message"),
        ("\"hello\"", "message"),
        ("{}", "message.messageId"),
        (r#"{"role":"ROLE_USER","parts":[{"text":""}]}"#, "message.messageId"),
        (r#"{"messageId":"","role":"ROLE_USER","parts":[{"text":""}]}"#, "message.messageId"),
        (r#"{"messageId":1,"role":"ROLE_USER","parts":[{"text":""}]}"#, "message.messageId"),
        (r#"{"messageId":"a\n","role":"ROLE_USER","parts":[{"text":""}]}"#, "message.messageId"),
        (
            r#"{"messageId":"a","message_id":"a","role":1,"parts":[{"text":""}]}"#,
            "message.messageId",
        ),
        (r#"{"MessageId":"a","role":1,"parts":[{"text":""}]}"#, "message.messageId"),
        (r#"{"messageId":"a","parts":[{"text":""}]}"#, "message.role"),
        (r#"{"messageId":"a","role":"user","parts":[{"text":""}]}"#, "message.role"),
        (r#"{"messageId":"a","role":0,"parts":[{"text":""}]}"#, "message.role"),
        (r#"{"messageId":"a","role":"ROLE_UNSPECIFIED","parts":[{"text":""}]}"#, "message.role"),
        (r#"{"messageId":"a","role":"1","parts":[{"text":""}]}"#, "message.role"),
        (r#"{"messageId":"a","role":{},"parts":[{"text":""}]}"#, "message.role"),
        (r#"{"messageId":"a","role":1}"#, "message.parts"),
        (r#"{"messageId":"a","role":1,"parts":null}"#, "message.parts"),
        (r#"{"messageId":"a","role":1,"parts":[]}"#, "message.parts"),
        (r#"{"messageId":"a","role":1,"parts":{}}"#, "message.parts"),
        (r#"{"messageId":"a","role":1,"parts":"x"}"#, "message.parts"),
        (r#"{"messageId":"a","role":1,"parts":[null]}"#, "message.parts[0]"),
        (r#"{"messageId":"a","role":1,"parts":["x"]}"#, "message.parts[0]"),
        (r#"{"messageId":"a","role":1,"parts":[{"text":"x"},[]]}"#, "message.parts[1]"),
        (r#"{"messageId":"a","role":1,"parts":[{"text":"x"}],"contextId":5}"#, "message.contextId"),
        (r#"{"messageId":"a","role":1,"parts":[{"text":"x"}],"taskId":[]}"#, "message.taskId"),
        (r#"{"messageId":"a","role":1,"parts":[{"text":"x"}],"task_id":[]}"#, "message.taskId"),
        (r#"{"messageId":"a","role":1,"parts":[{"text":"x"}],"metadata":[]}"#, "message.metadata"),
        (
            r#"{"messageId":"a","role":1,"parts":[{"text":"x"}],"extensions":"x"}"#,
            "message.extensions",
        ),
        (
            r#"{"messageId":"a","role":1,"parts":[{"text":"x"}],"extensions":["x",1]}"#,
            "message.extensions[1]",
        ),
        (
            r#"{"messageId":"a","role":1,"parts":[{"text":"x"}],"referenceTaskIds":["x",{}]}"#,
            "message.referenceTaskIds[1]",
        ),
    ] {
        refused(&send(message), C::InvalidParams, field);
    }
    let many = vec![r#"{"text":""}"#; limits::PARTS_MAX + 1].join(",");
    refused(&with_part(&many), C::InvalidParams, "message.parts");
    let unknown: Vec<String> =
        (0..=limits::UNKNOWN_FIELDS_MAX).map(|n| format!("\"x{n}\":0")).collect();
    let part = format!(r#"{{"text":"",{}}}"#, unknown[1..].join(","));
    assert_eq!(sent(&with_part(&part)).message.parts[0].unknown.len(), limits::UNKNOWN_FIELDS_MAX);
    let part = format!(r#"{{"text":"",{}}}"#, unknown.join(","));
    refused(&with_part(&part), C::InvalidParams, "message.parts[0]");
    let names = vec!["\"x\""; limits::NAMES_MAX + 1].join(",");
    let message =
        format!(r#"{{"messageId":"a","role":1,"parts":[{{"text":""}}],"extensions":[{names}]}}"#);
    refused(&send(&message), C::InvalidParams, "message.extensions");
    let metadata =
        format!(r#"{{"text":"","metadata":{{"a":"{}"}}}}"#, "x".repeat(limits::METADATA_BYTES_MAX));
    refused(&with_part(&metadata), C::InvalidParams, "message.parts[0].metadata");
}

#[test]
fn parts_hold_exactly_one_thing() {
    for (part, field) in [
        ("{}", "message.parts[0]"),
        (r#"{"kind":"text"}"#, "message.parts[0]"),
        (r#"{"text":null}"#, "message.parts[0]"),
        (r#"{"url":""}"#, "message.parts[0]"),
        (r#"{"text":"a","data":1}"#, "message.parts[0]"),
        (r#"{"text":"a","data":null}"#, "message.parts[0]"),
        (r#"{"raw":"","url":"u"}"#, "message.parts[0]"),
        (r#"{"text":1}"#, "message.parts[0].text"),
        (r#"{"Text":"a"}"#, "message.parts[0].text"),
        (r#"{"raw":"a"}"#, "message.parts[0].raw"),
        (r#"{"raw":"ab=c"}"#, "message.parts[0].raw"),
        (r#"{"raw":"ab="}"#, "message.parts[0].raw"),
        (r#"{"raw":"a b c d "}"#, "message.parts[0].raw"),
        (r#"{"url":{}}"#, "message.parts[0].url"),
        (r#"{"text":"a","filename":1}"#, "message.parts[0].filename"),
        (r#"{"text":"a","mediaType":1}"#, "message.parts[0].mediaType"),
        (r#"{"text":"a","media_type":"b","mediaType":"b"}"#, "message.parts[0].mediaType"),
        (r#"{"text":"a","metadata":"b"}"#, "message.parts[0].metadata"),
    ] {
        refused(&with_part(part), C::InvalidParams, field);
    }
    for (part, content) in [
        (r#"{"text":""}"#, Content::Text(String::new())),
        (r#"{"raw":""}"#, Content::Raw(String::new())),
        (r#"{"raw":"aGk="}"#, Content::Raw("aGk=".into())),
        (r#"{"raw":"-_8"}"#, Content::Raw("-_8".into())),
        (r#"{"url":"https://a/b"}"#, Content::Url("https://a/b".into())),
        (r#"{"data":null}"#, Content::Data(Json::parse("null").unwrap())),
        (r#"{"data":false,"text":null}"#, Content::Data(Json::parse("false").unwrap())),
    ] {
        // In the last, `null` is an unset text and leaves the data alone: ProtoJSON's rule.
        let found = decode_text(&with_part(part));
        match found.map(|call| call.operation) {
            Ok(Operation::SendMessage(send)) => assert_eq!(send.message.parts[0].content, content),
            other => panic!("{part}: {other:?}"),
        }
    }
}

#[test]
fn parameters_that_are_wrong_name_the_field() {
    let call = |method: &str, params: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#)
    };
    for (method, params, field) in [
        ("SendMessage", "[]", "params"),
        ("SendMessage", "null", "params"),
        ("SendMessage", "\"x\"", "params"),
        ("SendMessage", "{}", "message"),
        ("SendMessage", r#"{"Message":{}}"#, "message"),
        ("GetTask", "[\"t\"]", "params"),
        ("GetTask", "{}", "id"),
        ("GetTask", r#"{"id":null}"#, "id"),
        ("GetTask", r#"{"id":""}"#, "id"),
        ("GetTask", r#"{"id":5}"#, "id"),
        ("GetTask", r#"{"ID":"t"}"#, "id"),
        ("GetTask", r#"{"id":"t","historyLength":-1}"#, "historyLength"),
        ("GetTask", r#"{"id":"t","historyLength":1.5}"#, "historyLength"),
        ("GetTask", r#"{"id":"t","historyLength":2147483648}"#, "historyLength"),
        ("GetTask", r#"{"id":"t","historyLength":"many"}"#, "historyLength"),
        ("GetTask", r#"{"id":"t","history_length":true}"#, "historyLength"),
        ("GetTask", r#"{"id":"t","tenant":1}"#, "tenant"),
        ("ListTasks", "[]", "params"),
        ("ListTasks", r#"{"contextId":"a\n"}"#, "contextId"),
        ("ListTasks", r#"{"status":"working"}"#, "status"),
        ("ListTasks", r#"{"status":"TASK_STATE_LOST"}"#, "status"),
        ("ListTasks", r#"{"status":9}"#, "status"),
        ("ListTasks", r#"{"status":["TASK_STATE_WORKING"]}"#, "status"),
        ("ListTasks", r#"{"pageSize":0}"#, "pageSize"),
        ("ListTasks", r#"{"pageSize":101}"#, "pageSize"),
        ("ListTasks", r#"{"page_size":-1}"#, "pageSize"),
        ("ListTasks", r#"{"pageToken":1}"#, "pageToken"),
        ("ListTasks", r#"{"historyLength":-1}"#, "historyLength"),
        ("ListTasks", r#"{"statusTimestampAfter":"yesterday"}"#, "statusTimestampAfter"),
        ("ListTasks", r#"{"statusTimestampAfter":1}"#, "statusTimestampAfter"),
        ("ListTasks", r#"{"includeArtifacts":"yes"}"#, "includeArtifacts"),
        ("CancelTask", "{}", "id"),
        ("CancelTask", r#"{"id":"t","metadata":1}"#, "metadata"),
    ] {
        refused(&call(method, params), C::InvalidParams, field);
    }
    for (configuration, field) in [
        ("[]", "configuration"),
        (r#"{"historyLength":-1}"#, "configuration.historyLength"),
        (r#"{"returnImmediately":"yes"}"#, "configuration.returnImmediately"),
        (r#"{"acceptedOutputModes":["a",2]}"#, "configuration.acceptedOutputModes[1]"),
    ] {
        let message = r#"{"messageId":"m","role":1,"parts":[{"text":""}]}"#;
        let params = format!(r#"{{"message":{message},"configuration":{configuration}}}"#);
        refused(&call("SendMessage", &params), C::InvalidParams, field);
    }
    let long = format!(r#"{{"pageToken":"{}"}}"#, "t".repeat(limits::PAGE_TOKEN_BYTES_MAX + 1));
    refused(&call("ListTasks", &long), C::InvalidParams, "pageToken");
    let long = format!(r#"{{"id":"{}"}}"#, "t".repeat(limits::ID_BYTES_MAX + 1));
    refused(&call("GetTask", &long), C::InvalidParams, "id");
    let push = r#"{"message":{},"configuration":{"taskPushNotificationConfig":{"url":"x"}}}"#;
    refused(&call("SendMessage", push), C::PushNotificationNotSupported, "");
}

#[test]
fn one_refusal_names_all_fields_within_its_bound() {
    let text = send(r#"{"parts":[{"text":1},{}],"taskId":1}"#);
    let fault = decode_text(&text).unwrap_err().fault;
    let fields: Vec<&str> = fault.violations.iter().map(|one| one.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "message.parts[0].text",
            "message.parts[1]",
            "message.taskId",
            "message.messageId",
            "message.role"
        ]
    );
    let many = vec!["{}"; 200].join(",");
    let fault = decode_text(&with_part(&many)).unwrap_err().fault;
    assert_eq!(fault.violations.len(), limits::VIOLATIONS_MAX);
}

#[test]
fn requests_are_read_whole() {
    let text = r#" {"params": {"metadata":{"z":1,"a":2}, "tenant":"acme", "configuration":
        {"accepted_output_modes":["text/plain"],"history_length":"3","return_immediately":true},
        "message":{"reference_task_ids":["t0"],"timestamp":"x","extensions":["urn:x"],"metadata":{ },
        "task_id":"t1","context_id":"c1","parts":[{"media_type":"text/plain","filename":"f","text":"h\u00e9",
        "metadata":{"k":null},"kind":"text"}],"role":2,"message_id":"m1","\u007a":42.0}},
        "method":"SendMessage","id":"\u0041","jsonrpc":"2.0","extra":1} "#;
    let call = decode_text(text).unwrap();
    assert_eq!(call.id.as_str(), r#""\u0041""#);
    assert_eq!(call.version, Version::V1);
    let json = |text: &str| Json::parse(text).unwrap();
    let mut part = Part::new(Content::Text("hé".into()));
    part.metadata = Some(json(r#"{"k":null}"#));
    part.filename = Some("f".into());
    part.media_type = Some("text/plain".into());
    part.unknown = vec![("kind".into(), json("\"text\""))];
    let mut message = Message::new(MessageId::parse("m1").unwrap(), Role::Agent, vec![part]);
    message.context_id = Some(ContextId::parse("c1").unwrap());
    message.task_id = Some(TaskId::parse("t1").unwrap());
    message.metadata = Some(json("{ }"));
    message.extensions = vec!["urn:x".into()];
    message.reference_task_ids = vec![TaskId::parse("t0").unwrap()];
    message.unknown = vec![("timestamp".into(), json("\"x\"")), ("z".into(), json("42.0"))];
    let Operation::SendMessage(send) = call.operation else { panic!("not a send") };
    assert_eq!(send.message, message);
    assert_eq!(send.tenant.as_deref(), Some("acme"));
    assert_eq!(send.metadata, Some(json(r#"{"z":1,"a":2}"#)));
    assert_eq!(send.configuration.accepted_output_modes, ["text/plain"]);
    assert_eq!(send.configuration.history_length, Some(3));
    assert!(send.configuration.return_immediately);
}

#[test]
fn tasks_are_asked_for() {
    let text = r#"{"jsonrpc":"2.0","id":null,"method":"GetTask","params":{"id":"t","historyLength":0,"tenant":""}}"#;
    let call = decode_text(text).unwrap();
    assert_eq!(call.id, RequestIdJson::null());
    let id = TaskId::parse("t").unwrap();
    let get = GetTask { tenant: None, id: id.clone(), history_length: Some(0) };
    assert_eq!(call.operation, Operation::GetTask(get));
    let text = r#"{"jsonrpc":"2.0","id":-1.50e1,"method":"CancelTask","params":{"metadata":{"why": 1},"id":"t"}}"#;
    let call = decode_text(text).unwrap();
    assert_eq!(call.id.as_str(), "-1.50e1");
    let metadata = Some(Json::parse(r#"{"why": 1}"#).unwrap());
    assert_eq!(call.operation, Operation::CancelTask(CancelTask { tenant: None, id, metadata }));
}

#[test]
fn payloads_come_back_as_they_were() {
    for payload in [
        "42",
        "42.0",
        "1e2",
        "-0",
        "9007199254740993",
        "18446744073709551617",
        "12345678901234567890123",
        "0.1000000000000000055511151231257827",
        r#""\u0041\/""#,
        r#"{"b":1,"a":{"timestamp":"2026-01-01","z":[1.0,1.00]},"$serde_json::private::RawValue":"x"}"#,
        r#"{ "spaced" : [ 1 , 2 ] }"#,
        r#"{"messageId":1,"parts":[]}"#,
        "null",
        "\"\u{2028}é😀\"",
    ] {
        let text = with_part(&format!(r#"{{"data": {payload} ,"timestamp":{payload}}}"#));
        let message = sent(&text).message;
        let answer = encode_message(&1.into(), &message);
        let expected = format!(
            r#"{{"jsonrpc":"2.0","id":1,"result":{{"message":{{"messageId":"m","role":"ROLE_USER","parts":[{{"data":{payload},"timestamp":{payload}}}]}}}}}}"#
        );
        assert_eq!(answer, expected);
    }
}

#[test]
fn ids_come_back_as_they_were() {
    for id in ["1", "1.0", "-7e3", "\"\\u0041/\\/\"", "null", "12345678901234567890123", "\"\""] {
        let text =
            format!(r#"{{"jsonrpc":"2.0","id": {id} ,"method":"GetTask","params":{{"id":"t"}}}}"#);
        let call = decode_text(&text).unwrap();
        assert_eq!(call.id.as_str(), id);
        let fault = Fault::new(C::TaskNotFound, "no");
        let answer = encode_fault(Some(&call.id), &fault);
        assert!(answer.starts_with(format!(r#"{{"jsonrpc":"2.0","id":{id},"error":"#).as_bytes()));
    }
    assert_eq!(RequestIdJson::string("a\"b").as_str(), r#""a\"b""#);
    // An id is known even where the rest of the envelope is wrong.
    let rejection = decode_text(r#"{"jsonrpc":"1.0","method":"x","id":"q"}"#).unwrap_err();
    assert_eq!(rejection.id, Some(RequestIdJson::string("q")));
}

#[test]
fn tasks_are_written() {
    let mut task = Task {
        id: TaskId::parse("t1").unwrap(),
        context_id: ContextId::parse("c1").unwrap(),
        status: TaskStatus {
            state: TaskState::Working,
            message: None,
            timestamp: UnixMillis(1_798_761_599_001),
        },
        artifacts: Vec::new(),
        history: Vec::new(),
        metadata: None,
    };
    let id = RequestIdJson::from(1);
    let bare = r#"{"id":"t1","contextId":"c1","status":{"state":"TASK_STATE_WORKING","timestamp":"2026-12-31T23:59:59.001Z"}}"#;
    for kind in [OperationKind::GetTask, OperationKind::CancelTask] {
        let expected = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{bare}}}"#);
        assert_eq!(encode_task(&id, kind, &task), expected);
    }
    let expected = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"task":{bare}}}}}"#);
    assert_eq!(encode_task(&id, OperationKind::SendMessage, &task), expected);

    let said = Message::new(
        MessageId::parse("m2").unwrap(),
        Role::Agent,
        vec![Part::new(Content::Text("done".into()))],
    );
    task.status = TaskStatus {
        state: TaskState::Completed,
        message: Some(said.clone()),
        timestamp: UnixMillis(0),
    };
    let mut part = Part::new(Content::Data(Json::parse("{\"n\":42.0}").unwrap()));
    part.media_type = Some("application/json".into());
    task.artifacts = vec![Artifact {
        artifact_id: ArtifactId::parse("a1").unwrap(),
        name: Some("result".into()),
        description: Some("the \"result\"".into()),
        parts: vec![
            part,
            Part::new(Content::Raw("aGk=".into())),
            Part::new(Content::Url("u".into())),
        ],
        metadata: Some(Json::parse("{}").unwrap()),
        extensions: vec!["urn:x".into()],
        unknown: vec![("index".into(), Json::parse("0").unwrap())],
    }];
    task.history = vec![said];
    task.metadata = Some(Json::parse("{\"k\":1}").unwrap());
    let expected = concat!(
        r#"{"jsonrpc":"2.0","id":1,"result":{"id":"t1","contextId":"c1","status":{"state":"TASK_STATE_COMPLETED","#,
        r#""message":{"messageId":"m2","role":"ROLE_AGENT","parts":[{"text":"done"}]}},"#,
        r#""artifacts":[{"artifactId":"a1","name":"result","description":"the \"result\"","#,
        r#""parts":[{"data":{"n":42.0},"mediaType":"application/json"},{"raw":"aGk="},{"url":"u"}],"#,
        r#""metadata":{},"extensions":["urn:x"],"index":0}],"#,
        r#""history":[{"messageId":"m2","role":"ROLE_AGENT","parts":[{"text":"done"}]}],"metadata":{"k":1}}}"#,
    );
    assert_eq!(encode_task(&id, OperationKind::GetTask, &task), expected);
}

#[test]
fn faults_are_answers_too() {
    let fault = Fault::new(C::VersionNotSupported, "no");
    assert_eq!(
        encode_fault(None, &fault),
        concat!(
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32009,"message":"no","data":[{"#,
            r#""@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"VERSION_NOT_SUPPORTED","#,
            r#""domain":"a2a-protocol.org"}]}}"#
        )
    );
}
