//! What is asked about tasks, beside one task by its name.

use super::*;

#[test]
fn lists_are_asked_for() {
    let check = |params: &str, expected: ListTasks| {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ListTasks"{params}}}"#);
        assert_eq!(decode_text(&text).unwrap().operation, Operation::ListTasks(expected));
    };
    check("", ListTasks::default());
    check(r#","params":null"#, ListTasks::default());
    check(
        r#","params":{"tenant":"","contextId":"","pageToken":"","status":"TASK_STATE_UNSPECIFIED","pageSize":null}"#,
        ListTasks::default(),
    );
    check(r#","params":{"status":0,"includeArtifacts":false}"#, ListTasks::default());
    check(
        r#","params":{"status":6}"#,
        ListTasks { state: Some(TaskState::InputRequired), ..ListTasks::default() },
    );
    check(
        concat!(
            r#","params":{"tenant":"acme","contextId":"c","status":"TASK_STATE_WORKING","#,
            r#""pageSize":100,"pageToken":"x\u0041","historyLength":0,"#,
            r#""statusTimestampAfter":"2027-01-01T01:59:59.1+02:00","includeArtifacts":true}"#
        ),
        ListTasks {
            tenant: Some("acme".into()),
            context_id: Some(ContextId::parse("c").unwrap()),
            state: Some(TaskState::Working),
            since: Some(UnixMillis(1_798_761_599_100)),
            page_size: Some(100),
            page_token: Some("xA".into()),
            history_length: Some(0),
            include_artifacts: true,
        },
    );
}

#[test]
fn a_stream_goes_on_where_the_caller_stopped() {
    let decode_with = |method: &str, last: &'static str, query: Option<&str>| {
        let mut headers = headers();
        headers.insert(headers::LAST_EVENT_ID, HeaderValue::from_static(last));
        let text =
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"id":"t"}}}}"#);
        decode(&headers, query, &Bytes::from(text))
    };
    let id = TaskId::parse("t").unwrap();
    let follow =
        |after| Operation::SubscribeToTask(SubscribeToTask { tenant: None, id: id.clone(), after });
    let cursor = Cursor { epoch: 3, seq: 12 };
    let call = decode_with("SubscribeToTask", "3.12", Some("lastEventId=1.1")).unwrap();
    assert_eq!(call.operation, follow(Some(cursor)));
    let call = decode_with("SubscribeToTask", "", None).unwrap();
    assert_eq!(call.operation, follow(None));
    let fault = decode_with("SubscribeToTask", "12", None).unwrap_err().fault;
    assert_eq!((fault.code, &*fault.violations[0].field), (C::InvalidParams, "Last-Event-ID"));
    // It means something to this method alone.
    assert!(decode_with("GetTask", "12", None).is_ok());
}

#[test]
fn a_caller_says_that_it_may_send_again() {
    let body = Bytes::from(with_part(r#"{"text":""}"#));
    assert!(!decode(&headers(), None, &body).unwrap().wants_idempotent_send());
    let mut asking = headers();
    let value = HeaderValue::from_static("urn:a, urn:convoke:ext:idempotent-send:v1");
    asking.insert(headers::A2A_EXTENSIONS, value);
    assert!(decode(&asking, None, &body).unwrap().wants_idempotent_send());
}
