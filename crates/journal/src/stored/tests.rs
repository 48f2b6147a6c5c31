use convoke_model::{ArtifactId, Checkpoint, ContextId, MessageId, TaskId};
use proptest::prelude::*;

use super::read::StoredError;
use super::*;

/// The bodies of format 1 as the first release wrote them. This file never changes: a store of that
/// format opens for ever.
const FORMAT_1: &str = include_str!("../testdata/format_1.txt");

fn json(text: &str) -> Json {
    Json::parse(text).unwrap()
}

fn full_message() -> Message {
    let mut message = Message::new(MessageId::parse("m-1").unwrap(), Role::User, parts());
    message.context_id = Some(ContextId::parse("c-1").unwrap());
    message.task_id = Some(TaskId::parse("t-1").unwrap());
    message.metadata = Some(json(r#"{"z":1.0, "a":[1e2,"\u0041"]}"#));
    message.extensions = vec!["urn:x".to_owned(), "urn:\"y\"".to_owned()];
    message.reference_task_ids = vec![TaskId::parse("t-0").unwrap()];
    message.unknown = vec![
        ("zeta".to_owned(), json("18446744073709551617")),
        ("messageId".to_owned(), json("null")),
        ("zeta".to_owned(), json("[ 1 ]")),
    ];
    message
}

fn parts() -> Vec<Part> {
    let mut file = Part::new(Content::Raw("aGVsbG8".to_owned()));
    file.filename = Some("a\\b.txt".to_owned());
    file.media_type = Some("text/plain".to_owned());
    file.metadata = Some(json("{}"));
    file.unknown = vec![("text".to_owned(), json("\"not the content\""))];
    vec![
        Part::new(Content::Text("line\n\"two\"\t\u{0}\u{1f}\u{7f} é 😀".to_owned())),
        file,
        Part::new(Content::Url("https://example.org/?a=b".to_owned())),
        Part::new(Content::Data(json("null"))),
        Part::new(Content::Data(json(r#"{"b":2,"a":1}"#))),
    ]
}

fn plain_message() -> Message {
    let parts = vec![Part::new(Content::Text("hello".to_owned()))];
    Message::new(MessageId::parse("m-2").unwrap(), Role::Agent, parts)
}

fn artifact(full: bool) -> Artifact {
    Artifact {
        artifact_id: ArtifactId::parse("a-1").unwrap(),
        name: full.then(|| "name".to_owned()),
        description: full.then(|| "what it is".to_owned()),
        parts: if full { parts() } else { Vec::new() },
        metadata: full.then(|| json("{}")),
        extensions: if full { vec!["urn:x".to_owned()] } else { Vec::new() },
        unknown: if full { vec![("x".to_owned(), json("1"))] } else { Vec::new() },
    }
}

fn status(state: TaskState, message: Option<Message>) -> TaskEvent {
    TaskEvent::Status(TaskStatus { state, message, timestamp: UnixMillis(1_763_625_600_000) })
}

/// What the golden file has, in its order.
fn golden_events() -> Vec<TaskEvent> {
    let mut events = vec![
        TaskEvent::Submitted { message: full_message(), at: UnixMillis(1_763_625_600_000) },
        TaskEvent::Submitted { message: plain_message(), at: UnixMillis(0) },
        TaskEvent::Message(full_message()),
        TaskEvent::Artifact { artifact: artifact(true), append: false, last: true },
        TaskEvent::Artifact { artifact: artifact(false), append: true, last: false },
        status(TaskState::Working, Some(plain_message())),
    ];
    events.extend(STATES.into_iter().map(|state| status(state, None)));
    events
}

fn golden_records() -> Vec<TaskRecord> {
    vec![
        TaskRecord::Started { attempt: 1, at: UnixMillis(u64::MAX) },
        TaskRecord::Checkpoint(Checkpoint { value: json(r#"{"page": 7.0}"#), heard: 3 }),
        TaskRecord::Checkpoint(Checkpoint { value: json("null"), heard: 1 }),
        TaskRecord::Retry { at: UnixMillis(1_763_625_600_000) },
    ]
}

fn lines_of(word: &str) -> Vec<(i64, &'static str)> {
    let line = |line: &'static str| {
        let (kind, body) = line.strip_prefix(word)?.trim_start().split_once(' ')?;
        Some((kind.parse().unwrap(), body))
    };
    FORMAT_1.lines().filter_map(line).collect()
}

#[test]
fn format_1_is_written_and_read() {
    let events = golden_events();
    let written: Vec<String> = events.iter().map(encode_event).collect();
    let lines: Vec<(i64, &str)> =
        events.iter().map(event_kind).zip(written.iter().map(String::as_str)).collect();
    assert_eq!(lines, lines_of("event"));
    for ((kind, body), event) in lines_of("event").into_iter().zip(events) {
        assert_eq!(decode_event(kind, body).unwrap(), event);
    }

    let records = golden_records();
    let written: Vec<String> = records.iter().map(encode_record).collect();
    let lines: Vec<(i64, &str)> =
        records.iter().map(record_kind).zip(written.iter().map(String::as_str)).collect();
    assert_eq!(lines, lines_of("record"));
    for ((kind, body), record) in lines_of("record").into_iter().zip(records) {
        assert_eq!(decode_record(kind, body).unwrap(), record);
    }
}

#[test]
fn states_have_the_numbers_of_a2a() {
    for (number, state) in (1..).zip(STATES) {
        assert_eq!((state_number(state), state_of(number)), (number, Some(state)));
    }
    assert_eq!([state_of(0), state_of(9), state_of(-1), state_of(i64::MIN)], [None; 4]);
}

#[test]
fn what_this_build_cannot_have_written_is_refused() {
    let piece = |artifact: &str| format!(r#"{{"append":false,"last":true,"artifact":{artifact}}}"#);
    for (kind, body) in [
        (SUBMITTED, "{}".to_owned()),
        (MESSAGE, String::new()),
        (MESSAGE, "null".to_owned()),
        (MESSAGE, r#"{"messageId":"m","role":"user","parts":[],"more":1}"#.to_owned()),
        (MESSAGE, r#"{"messageId":"m","role":"ROLE_USER","parts":[]}"#.to_owned()),
        (MESSAGE, r#"{"messageId":"","role":"user","parts":[]}"#.to_owned()),
        (MESSAGE, r#"{"messageId":"m","role":"user","parts":[{}]}"#.to_owned()),
        (MESSAGE, r#"{"messageId":"m","role":"user","parts":[{"text":"","url":""}]}"#.to_owned()),
        (STATUS, r#"{"state":"working","at":1}"#.to_owned()),
        (STATUS, r#"{"state":"TASK_STATE_WORKING","at":-1}"#.to_owned()),
        (STATUS, r#"{"state":"TASK_STATE_WORKING","at":1} x"#.to_owned()),
        (PIECE, piece(r#"{"parts":[]}"#)),
        (PIECE, piece("1")),
    ] {
        let refused = decode_event(kind, &body);
        assert!(matches!(refused, Err(StoredError::Body { kind: told, .. }) if told == kind));
    }
    for (kind, body) in [(STARTED, r#"{"at":1}"#), (CHECKPOINT, "{"), (RETRY, "{}")] {
        assert!(matches!(decode_record(kind, body), Err(StoredError::Body { .. })));
    }
    for kind in [0, 5, -1, i64::MAX] {
        assert!(matches!(decode_event(kind, "{}"), Err(StoredError::Kind { .. })));
    }
    assert!(matches!(decode_record(4, "{}"), Err(StoredError::Kind { kind: 4 })));
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,5})?([eE][+-]?[0-9]{1,3})?",
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        Just(r#""\u0041\ud83d\ude00\/""#.to_owned()),
    ];
    let tree = leaf.prop_recursive(3, 16, 4, |inner| {
        let field = (any::<String>(), inner.clone());
        prop_oneof![
            prop::collection::vec(inner, 0..4)
                .prop_map(|items| format!("[ {} ]", items.join(" , "))),
            prop::collection::vec(field, 0..4).prop_map(|fields| {
                let field = |(name, value)| format!("{}:{value}", Json::of(&name).unwrap().get());
                let fields: Vec<String> = fields.into_iter().map(field).collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    });
    tree.prop_map(|text| json(&text))
}

fn any_unknown() -> impl Strategy<Value = Vec<(String, Json)>> {
    prop::collection::vec((any::<String>(), any_json()), 0..3)
}

fn any_part() -> impl Strategy<Value = Part> {
    let content = prop_oneof![
        any::<String>().prop_map(Content::Text),
        any::<String>().prop_map(Content::Raw),
        any::<String>().prop_map(Content::Url),
        any_json().prop_map(Content::Data),
    ];
    let optional = || prop::option::of(any::<String>());
    (content, prop::option::of(any_json()), optional(), optional(), any_unknown()).prop_map(
        |(content, metadata, filename, media_type, unknown)| Part {
            content,
            metadata,
            filename,
            media_type,
            unknown,
        },
    )
}

fn any_name() -> impl Strategy<Value = String> {
    "[ -~é😀]{1,12}"
}

fn any_message() -> impl Strategy<Value = Message> {
    let names = (any_name(), prop::option::of(any_name()), prop::option::of(any_name()));
    let lists = (
        prop::collection::vec(any_part(), 0..3),
        prop::collection::vec(any::<String>(), 0..3),
        prop::collection::vec(any_name(), 0..3),
    );
    (names, any::<bool>(), lists, prop::option::of(any_json()), any_unknown()).prop_map(
        |((id, context, task), by_user, (parts, extensions, references), metadata, unknown)| {
            let task_id = |text: String| TaskId::parse(&text).unwrap();
            Message {
                message_id: MessageId::parse(&id).unwrap(),
                context_id: context.map(|text| ContextId::parse(&text).unwrap()),
                task_id: task.map(task_id),
                role: if by_user { Role::User } else { Role::Agent },
                parts,
                metadata,
                extensions,
                reference_task_ids: references.into_iter().map(task_id).collect(),
                unknown,
            }
        },
    )
}

fn any_artifact() -> impl Strategy<Value = Artifact> {
    let optional = || prop::option::of(any::<String>());
    let parts = prop::collection::vec(any_part(), 0..3);
    let extensions = prop::collection::vec(any::<String>(), 0..3);
    let metadata = prop::option::of(any_json());
    (any_name(), optional(), optional(), parts, metadata, extensions, any_unknown()).prop_map(
        |(id, name, description, parts, metadata, extensions, unknown)| Artifact {
            artifact_id: ArtifactId::parse(&id).unwrap(),
            name,
            description,
            parts,
            metadata,
            extensions,
            unknown,
        },
    )
}

fn any_event() -> impl Strategy<Value = TaskEvent> {
    let status = (prop::sample::select(&STATES[..]), prop::option::of(any_message()), any::<u64>());
    prop_oneof![
        (any_message(), any::<u64>())
            .prop_map(|(message, at)| TaskEvent::Submitted { message, at: UnixMillis(at) }),
        any_message().prop_map(TaskEvent::Message),
        status.prop_map(|(state, message, at)| {
            TaskEvent::Status(TaskStatus { state, message, timestamp: UnixMillis(at) })
        }),
        (any_artifact(), any::<bool>(), any::<bool>())
            .prop_map(|(artifact, append, last)| TaskEvent::Artifact { artifact, append, last }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_event_comes_back(event in any_event()) {
        let body = encode_event(&event);
        prop_assert_eq!(decode_event(event_kind(&event), &body).unwrap(), event);
    }

    #[test]
    fn every_checkpoint_comes_back(value in any_json(), heard in any::<u32>()) {
        let record = TaskRecord::Checkpoint(Checkpoint { value, heard });
        let body = encode_record(&record);
        prop_assert_eq!(decode_record(record_kind(&record), &body).unwrap(), record);
    }

    #[test]
    fn numbers_are_written_as_the_formatter_would(number in any::<u64>()) {
        let mut text = String::new();
        write_number(&mut text, number);
        prop_assert_eq!(text, number.to_string());
    }
}
