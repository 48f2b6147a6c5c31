use super::*;

use convoke_model::{
    ArtifactId, ContextId, Cursor, FaultCode, ListTasks, Operation, OperationKind, Role,
    SendConfiguration, TaskId, TaskStatus, UnixMillis,
};

use crate::jsonrpc::{self, decode, encode_fault, encode_message, encode_task};

fn id() -> RequestIdJson {
    RequestIdJson::string("r1")
}

fn json(text: &str) -> Json {
    Json::parse(text).unwrap()
}

fn message(parts: Vec<Part>) -> Message {
    Message::new(MessageId::parse("m1").unwrap(), Role::Agent, parts)
}

fn text(text: &str) -> Part {
    Part::new(Content::Text(text.into()))
}

fn data(text: &str) -> Part {
    Part::new(Content::Data(json(text)))
}

fn task(state: TaskState, said: Option<Message>, artifacts: Vec<Vec<Part>>) -> Task {
    let artifact = |(index, parts)| Artifact {
        artifact_id: ArtifactId::parse(&format!("a{index}")).unwrap(),
        name: None,
        description: None,
        parts,
        metadata: None,
        extensions: Vec::new(),
        unknown: Vec::new(),
    };
    Task {
        id: TaskId::parse("t1").unwrap(),
        context_id: ContextId::parse("c1").unwrap(),
        status: TaskStatus { state, message: said, timestamp: UnixMillis(1_798_761_599_001) },
        artifacts: artifacts.into_iter().enumerate().map(artifact).collect(),
        history: Vec::new(),
        metadata: None,
    }
}

fn parse(status: u16, body: impl AsRef<[u8]>) -> Result<Answer, AnswerError> {
    let status = StatusCode::from_u16(status).unwrap();
    parse_response(&id(), status, &super::headers(), body.as_ref())
}

#[test]
fn a_capability_is_called_with_these_bytes() {
    let name = CapabilityName::parse("count_words").unwrap();
    let message_id = MessageId::parse("m1").unwrap();
    let (headers, body) =
        build_send(Some(&name), &json(r#"{"text":"a b","n":42.0}"#), &message_id, &id());
    assert_eq!(
        body,
        concat!(
            r#"{"jsonrpc":"2.0","id":"r1","method":"SendMessage","params":{"message":{"messageId":"m1","#,
            r#""role":"ROLE_USER","parts":[{"data":{"text":"a b","n":42.0}}],"#,
            r#""metadata":{"urn:convoke:ext:capability:v1":{"name":"count_words"}},"#,
            r#""extensions":["urn:convoke:ext:capability:v1"]},"configuration":{"historyLength":0}}}"#,
        )
    );
    let mut fields: Vec<(&str, &str)> =
        headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            ("a2a-extensions", CAPABILITY_EXTENSION),
            ("a2a-version", "1.0"),
            ("accept", "application/json"),
            ("content-type", "application/json"),
        ]
    );
    let call = decode(&headers, None, &body).unwrap();
    let Operation::SendMessage(send) = call.operation else { panic!("not a send") };
    assert_eq!(capability::named_capability(&send.message).unwrap(), Some(name));
    assert_eq!(send.message.parts[0], data(r#"{"text":"a b","n":42.0}"#));
    assert_eq!(call.extensions, [CAPABILITY_EXTENSION]);

    let (headers, body) = build_send(None, &json("null"), &message_id, &id());
    assert!(!headers.contains_key(A2A_EXTENSIONS));
    assert_eq!(
        body,
        r#"{"jsonrpc":"2.0","id":"r1","method":"SendMessage","params":{"message":{"messageId":"m1","role":"ROLE_USER","parts":[{"data":null}]},"configuration":{"historyLength":0}}}"#
    );
}

#[test]
fn every_request_is_decoded_as_what_it_was() {
    fn check(operation: Operation, (headers, body): (HeaderMap, Bytes)) {
        let call = decode(&headers, None, &body).unwrap();
        assert_eq!(call.id, id());
        assert_eq!(call.operation, operation);
    }
    let mut said = message(vec![text("hé\n"), data("[1.0]")]);
    said.extensions = vec!["urn:x".into(), "urn:\u{e9}".into(), "urn:a,b".into()];
    said.task_id = Some(TaskId::parse("t1").unwrap());
    said.unknown = vec![("x\"y".into(), json("{ }"))];
    let send = SendMessage {
        tenant: Some("acme".into()),
        message: said,
        configuration: SendConfiguration {
            accepted_output_modes: vec!["text/plain".into()],
            history_length: Some(5),
            return_immediately: true,
        },
        metadata: Some(json(r#"{"a":1}"#)),
    };
    check(Operation::SendMessage(send.clone()), build_message(&send, &id()));
    let listed = build_message(&send, &id()).0;
    assert_eq!(listed.get_all(A2A_EXTENSIONS).iter().collect::<Vec<_>>(), ["urn:x"]);
    let plain = SendMessage {
        tenant: None,
        message: message(vec![text("")]),
        configuration: SendConfiguration::default(),
        metadata: None,
    };
    check(Operation::SendMessage(plain.clone()), build_message(&plain, &id()));
    let task_id = TaskId::parse("t\"1").unwrap();
    let get = GetTask { tenant: None, id: task_id.clone(), history_length: Some(0) };
    check(Operation::GetTask(get.clone()), build_get(&get, &id()));
    let cancel = CancelTask { tenant: Some("x".into()), id: task_id, metadata: Some(json("{}")) };
    check(Operation::CancelTask(cancel.clone()), build_cancel(&cancel, &id()));
    for after in [None, Some(Cursor { epoch: 1, seq: 7 })] {
        let follow = SubscribeToTask { tenant: None, id: get.id.clone(), after };
        check(Operation::SubscribeToTask(follow.clone()), build_subscribe(&follow, &id()));
    }
    let list = ListTasks::default();
    check(Operation::ListTasks(list.clone()), build_list(&list, &id()));
    let list = ListTasks {
        tenant: Some("x".into()),
        context_id: ContextId::parse("c").ok(),
        state: Some(TaskState::Failed),
        since: Some(UnixMillis(1_798_761_599_001)),
        page_size: Some(7),
        page_token: Some("a\"b".into()),
        history_length: Some(0),
        include_artifacts: true,
    };
    check(Operation::ListTasks(list.clone()), build_list(&list, &id()));
}

#[test]
fn every_answer_reads_back() {
    use TaskState as S;
    let mut whole = task(
        S::InputRequired,
        Some(message(vec![text("which?")])),
        vec![
            vec![data("12345678901234567890123"), text("x")],
            vec![Part::new(Content::Raw("aGk".into()))],
        ],
    );
    whole.artifacts[0].name = Some("n".into());
    whole.artifacts[0].description = Some("d".into());
    whole.artifacts[0].extensions = vec!["urn:x".into()];
    whole.artifacts[0].unknown = vec![("timestamp".into(), json("\"x\""))];
    whole.history = vec![message(vec![Part::new(Content::Url("u".into()))])];
    whole.metadata = Some(json(r#"{"k":[ ]}"#));
    let states = [
        S::Submitted,
        S::Working,
        S::Completed,
        S::Failed,
        S::Canceled,
        S::Rejected,
        S::AuthRequired,
    ];
    let mut tasks: Vec<Task> = states.map(|state| task(state, None, Vec::new())).into();
    tasks.push(whole);
    for task in tasks {
        for kind in [OperationKind::SendMessage, OperationKind::GetTask, OperationKind::CancelTask]
        {
            assert_eq!(parse(200, encode_task(&id(), kind, &task)), Ok(Answer::Task(task.clone())));
        }
    }
    let said = message(vec![data(r#"{"b":1e2,"a":"\u0041"}"#)]);
    assert_eq!(parse(200, encode_message(&id(), &said)), Ok(Answer::Message(said)));
    for code in FaultCode::ALL {
        let fault = Fault::new(code, "no").with("taskId", "t");
        for id in [Some(&id()), None] {
            let body = encode_fault(id, &fault);
            let status = crate::http_status(code).as_u16();
            assert_eq!(parse(status, body), Err(AnswerError::Fault(fault.clone())));
        }
    }
}

#[test]
fn answers_of_other_agents_are_read() {
    // Numbers for names, snake_case, fields that we do not know, no timestamp, nulls.
    let body = r#"{"jsonrpc":"2.0","id":"r1","error":null,"result":{"task":{"id":"t1","context_id":"c1","kind":"task",
        "status":{"state":3,"message":null},"artifacts":[{"artifact_id":"a","parts":[{"text":"x"}],"index":0}],"history":null}}}"#;
    let Answer::Task(task) = parse(200, body).unwrap() else { panic!("not a task") };
    assert_eq!(task.status.state, TaskState::Completed);
    assert_eq!(task.status.timestamp, UnixMillis(0));
    assert_eq!(task.artifacts[0].unknown, [("index".into(), json("0"))]);
}

#[test]
fn what_is_no_answer_is_refused() {
    fn check(status: u16, body: &str, expected: &str) {
        let error = parse(status, body).expect_err(body);
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        assert_eq!(format!("{error}{}", source.unwrap_or_default()), expected);
    }
    const OF_1: &str = "the answer is not of A2A 1.0: ";
    let either = format!("{OF_1}must have either `result` or `error`");
    check(200, "", "the answer is refused: the document ends too early at byte 0");
    check(
        200,
        r#"{"id":1,"id":1}"#,
        "the answer is refused: the object has this key twice at byte 8",
    );
    check(200, "[]", &either);
    check(200, "{}", &either);
    check(200, r#"{"id":"r1","result":{},"error":{}}"#, &either);
    for (status, name) in [(307, "Temporary Redirect"), (401, "Unauthorized")] {
        check(status, "", &format!("http status {status} {name} without a json-rpc body"));
    }
    check(404, "<html>", "http status 404 Not Found without a json-rpc body: <html>");
    check(
        502,
        r#"{"detail":"upstream\u0000"}"#,
        "http status 502 Bad Gateway without a json-rpc body: {\"detail\":\"upstream\\u0000\"}",
    );
    check(200, r#"{"id":"r2","result":{}}"#, "the answer is to request \"r2\", not to \"r1\"");
    check(200, r#"{"result":{}}"#, "the answer is to request null, not to \"r1\"");
    check(
        200,
        r#"{"id":"r2","error":{"code":1}}"#,
        "the answer is to request \"r2\", not to \"r1\"",
    );
    check(
        200,
        r#"{"id":"r1","error":{"code":"x"}}"#,
        &format!("{OF_1}error must have a number in `code`"),
    );
    check(200, r#"{"id":"r1","result":3}"#, &format!("{OF_1}must be an object"));
    check(
        200,
        r#"{"id":"r1","result":{"task":{},"message":{}}}"#,
        &format!("{OF_1}result must have either `task` or `message`"),
    );
    check(
        200,
        r#"{"id":"r1","result":{"id":"t","status":{"state":9}}}"#,
        &format!(
            "{OF_1}status.state must be one of `TASK_STATE_SUBMITTED`, `TASK_STATE_WORKING`, `TASK_STATE_COMPLETED`, `TASK_STATE_FAILED`, `TASK_STATE_CANCELED`, `TASK_STATE_INPUT_REQUIRED`, `TASK_STATE_REJECTED`, `TASK_STATE_AUTH_REQUIRED`; contextId is required"
        ),
    );
    check(
        200,
        r#"{"id":"r1","result":{"id":"t","contextId":"c","status":{"state":1,"timestamp":"now"}}}"#,
        &format!("{OF_1}status.timestamp must be an RFC 3339 instant from 1970 on"),
    );
    check(
        200,
        r#"{"id":"r1","result":{"message":{"messageId":"m","role":"ROLE_AGENT","parts":[]}}}"#,
        &format!("{OF_1}parts must have at least one part"),
    );
    check(
        200,
        r#"{"id":"r1","result":{"id":"t","contextId":"c","status":{"state":1},"artifacts":[{"parts":[{"text":""}]}]}}"#,
        &format!("{OF_1}artifacts[0].artifactId is required"),
    );
    check(403, r#"{"id":"r1","error":{"code":-32000,"message":"not you"}}"#, "not you");
}

#[test]
fn a_status_without_json_is_shown_plainly() {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    let body = b"<h1>\x1b[2Jno\xff</h1>";
    let found = parse_response(&id(), StatusCode::BAD_GATEWAY, &headers, body);
    let excerpt = "<h1> [2Jno\u{fffd}</h1>".to_owned();
    assert_eq!(found, Err(AnswerError::Http { status: StatusCode::BAD_GATEWAY, excerpt }));
    let long = vec![b'x'; 10_000];
    match parse_response(&id(), StatusCode::OK, &headers, &long) {
        Err(AnswerError::Http { excerpt, .. }) => assert_eq!(excerpt.len(), 200),
        other => panic!("{other:?}"),
    }
}

#[test]
fn results_are_taken_out() {
    use TaskState as S;
    fn check(answer: Answer, expected: Result<&str, ResultError>) {
        let found = result_of(&answer);
        assert_eq!(found.as_ref().map(Json::get), expected.as_ref().copied());
    }
    let said = |words: &str| Some(message(vec![text(words), data("1"), text("\u{7}b")]));
    check(Answer::Message(message(vec![text("x"), data("42.0")])), Ok("42.0"));
    check(
        Answer::Message(message(vec![text("hello")])),
        Err(ResultError::NoData { text: Some("hello".into()) }),
    );
    // What an agent gave before its end comes before its result.
    let parts = vec![vec![data("2")], vec![data("{\"n\":1}")], vec![text("file")]];
    check(Answer::Task(task(S::Completed, None, parts)), Ok("{\"n\":1}"));
    let words = Err(ResultError::NoData { text: Some("one".into()) });
    let parts = vec![vec![text("one")], vec![text("two")]];
    check(Answer::Task(task(S::Completed, None, parts)), words);
    check(
        Answer::Task(task(S::Completed, None, Vec::new())),
        Err(ResultError::NoData { text: None }),
    );
    let told = || Some("a  b".to_owned());
    for state in [S::Failed, S::Canceled, S::Rejected] {
        let ended = task(state, said("a"), vec![vec![data("1")]]);
        check(Answer::Task(ended), Err(ResultError::Ended { state, text: told() }));
    }
    for state in [S::InputRequired, S::AuthRequired] {
        check(
            Answer::Task(task(state, said("a"), vec![])),
            Err(ResultError::Waits { state, text: told() }),
        );
    }
    for state in [S::Submitted, S::Working] {
        check(Answer::Task(task(state, None, vec![])), Err(ResultError::Running { state }));
    }
    let error = ResultError::Ended { state: S::Failed, text: Some("no disk".into()) };
    assert_eq!(error.to_string(), "the task ended as TASK_STATE_FAILED: no disk");
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn any_answer_is_survived(edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..4), fault in any::<bool>()) {
            let mut bytes = if fault {
                encode_fault(Some(&id()), &Fault::invalid_field("a", "b").with("taskId", "t")).to_vec()
            } else {
                let task = task(TaskState::Completed, Some(message(vec![text("a")])), vec![vec![data("[1]")]]);
                encode_task(&id(), OperationKind::SendMessage, &task).to_vec()
            };
            for (to, from) in edits {
                let copied = bytes[from.index(bytes.len())];
                let to = to.index(bytes.len());
                bytes[to] = copied;
            }
            if let Ok(answer) = parse(200, &bytes) {
                let _result = result_of(&answer);
                prop_assert!(!fault);
            }
        }

        /// Strings of any characters survive both ways.
        #[test]
        fn any_text_is_carried(words in any::<String>(), payload in any::<String>()) {
            let payload = Json::of(&payload).unwrap();
            let parts = vec![text(&words), Part::new(Content::Data(payload.clone()))];
            let said = message(parts);
            let answer = parse(200, jsonrpc::encode_message(&id(), &said)).unwrap();
            prop_assert_eq!(result_of(&answer).unwrap(), payload);
            prop_assert_eq!(answer, Answer::Message(said));
        }
    }
}
