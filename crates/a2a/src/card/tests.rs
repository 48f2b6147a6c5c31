use convoke_model::{CapabilityName, Json, UnixMillis, limits};
use http::header::{
    CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, LAST_MODIFIED,
};

use super::*;
use crate::ScanErrorKind;

fn skill(name: &str) -> Skill {
    Skill {
        name: CapabilityName::parse(name).unwrap(),
        description: "counts".into(),
        tags: Vec::new(),
        input_schema: Json::parse(r#"{"type":"object","maximum":42.0}"#).unwrap(),
        output_schema: None,
        ephemeral: false,
    }
}

fn description() -> Description {
    let mut tagged = skill("sum");
    tagged.tags = vec!["math".into()];
    tagged.output_schema = Some(Json::parse("true").unwrap());
    tagged.ephemeral = true;
    Description {
        name: "worker".into(),
        description: "does \"work\"".into(),
        version: "1.2.0".into(),
        urls: vec!["https://localhost:8443/".into()],
        mutual_tls: true,
        skills: vec![skill("Count_words.v2-count"), tagged],
    }
}

fn document(description: &Description) -> Document {
    Document::new(description, UnixMillis(1_798_761_599_001)).unwrap()
}

#[test]
fn the_card_is_written() {
    let expected = concat!(
        r#"{"name":"worker","description":"does \"work\"","version":"1.2.0","#,
        r#""supportedInterfaces":[{"url":"https://localhost:8443/","protocolBinding":"JSONRPC","protocolVersion":"1.0"}],"#,
        r#""capabilities":{"streaming":true,"pushNotifications":false,"extensions":[{"#,
        r#""uri":"urn:convoke:ext:capability:v1","description":"a message names the capability it calls in its metadata; params has the JSON Schemas of each","#,
        r#""required":false,"params":{"capabilities":{"#,
        r#""Count_words.v2-count":{"inputSchema":{"type":"object","maximum":42.0}},"#,
        r#""sum":{"inputSchema":{"type":"object","maximum":42.0},"outputSchema":true,"ephemeral":true}}}},"#,
        r#"{"uri":"urn:convoke:ext:idempotent-send:v1","description":"a request that asks for this in A2A-Extensions may be sent again: the same messageId with the same content is the same task, with another content an error","required":false},"#,
        r#"{"uri":"urn:convoke:ext:task-events:v1","description":"a status update of a stream that only repeats the status names in its metadata the message that joined the task","required":false}]},"#,
        r#""defaultInputModes":["application/json"],"defaultOutputModes":["application/json"],"#,
        r#""skills":[{"id":"Count_words.v2-count","name":"Count_words.v2-count","description":"counts","tags":["count","words","v2"],"#,
        r#""inputModes":["application/json"],"outputModes":["application/json"]},"#,
        r#"{"id":"sum","name":"sum","description":"counts","tags":["math"],"#,
        r#""inputModes":["application/json"],"outputModes":["application/json"]}],"#,
        r#""securitySchemes":{"mtls":{"mtlsSecurityScheme":{"description":"client certificate with a SPIFFE ID (X.509-SVID)"}}},"#,
        r#""securityRequirements":[{"schemes":{"mtls":{"list":[]}}}]}"#,
    );
    assert_eq!(document(&description()).json(), expected);
    let open = Description { mutual_tls: false, skills: Vec::new(), ..description() };
    let text = document(&open).json().clone();
    assert!(text.ends_with(br#""defaultOutputModes":["application/json"],"skills":[]}"#));
}

#[test]
fn descriptions_that_make_no_card_are_refused() {
    fn check(description: Description, expected: ScanErrorKind) {
        match Document::new(&description, UnixMillis(0)) {
            Err(CardError::Refused { name, source }) => {
                assert_eq!(name, "worker");
                assert_eq!(source.kind, expected);
            }
            other => panic!("{other:?}"),
        }
    }
    let none = Description { urls: Vec::new(), ..description() };
    let none = Document::new(&none, UnixMillis(0)).unwrap_err();
    assert_eq!(none, CardError::NoUrl("worker".into()));
    let twice = Description { skills: vec![skill("a"), skill("a")], ..description() };
    check(twice, ScanErrorKind::DuplicateKey);
    let max = limits::CARD_BYTES_MAX;
    check(
        Description { description: "x".repeat(max), ..description() },
        ScanErrorKind::TooLong { max },
    );
}

#[test]
fn readers_that_have_the_card_are_told_so() {
    let served = document(&description());
    let first = served.answer(&HeaderMap::new());
    assert_eq!(first.status(), 200);
    assert_eq!(first.body(), served.json());
    assert_eq!(first.headers()[CONTENT_TYPE], "application/json");
    assert_eq!(first.headers()[CACHE_CONTROL], "public, max-age=60");
    assert_eq!(first.headers()[LAST_MODIFIED], "Thu, 31 Dec 2026 23:59:59 GMT");
    let etag = first.headers()[ETAG].to_str().unwrap();
    assert_eq!(etag.len(), 34);
    assert!(etag.starts_with('"') && etag.ends_with('"'));
    let other = document(&Description { version: "1.2.1".into(), ..description() });
    assert_ne!(other.answer(&HeaderMap::new()).headers()[ETAG], etag);

    let check = |fields: &[(HeaderName, &str)], status: u16| {
        let mut request = HeaderMap::new();
        for (name, value) in fields {
            request.append(name, HeaderValue::from_str(value).unwrap());
        }
        let answer = served.answer(&request);
        assert_eq!(answer.status(), status, "{fields:?}");
        assert_eq!(answer.body().is_empty(), status == 304);
        assert_eq!(answer.headers()[ETAG], etag);
        assert_eq!(answer.headers().contains_key(CONTENT_TYPE), status == 200);
    };
    let date = "Thu, 31 Dec 2026 23:59:59 GMT";
    check(&[(IF_NONE_MATCH, etag)], 304);
    check(&[(IF_NONE_MATCH, &format!("\"x\", W/{etag}"))], 304);
    check(&[(IF_NONE_MATCH, "\"x\""), (IF_NONE_MATCH, etag)], 304);
    check(&[(IF_NONE_MATCH, "*")], 304);
    check(&[(IF_NONE_MATCH, "\"x\"")], 200);
    check(&[(IF_NONE_MATCH, etag.trim_matches('"'))], 200);
    check(&[(IF_MODIFIED_SINCE, date)], 304);
    check(&[(IF_MODIFIED_SINCE, "Thu, 31 Dec 2026 23:59:58 GMT")], 200);
    // The tag is the stronger word of the two.
    check(&[(IF_NONE_MATCH, "\"x\""), (IF_MODIFIED_SINCE, date)], 200);
}

#[test]
fn our_card_reads_back() {
    let served = document(&description());
    let card = Card::read(served.json()).unwrap();
    assert_eq!(card.json.get().as_bytes(), served.json());
    assert_eq!(card.name, "worker");
    assert_eq!(card.description.as_deref(), Some("does \"work\""));
    assert_eq!(card.version.as_deref(), Some("1.2.0"));
    let interface = card.jsonrpc().unwrap();
    assert_eq!(interface.url, "https://localhost:8443/");
    let skill = &card.skills[0];
    assert_eq!(
        (skill.id.as_str(), skill.tags.as_slice()),
        ("Count_words.v2-count", ["count", "words", "v2"].map(String::from).as_slice())
    );
    let schema = |schema: &Option<Json>| schema.as_ref().map(|schema| schema.get().to_owned());
    assert_eq!(schema(&skill.input_schema).as_deref(), Some(r#"{"type":"object","maximum":42.0}"#));
    assert_eq!(schema(&skill.output_schema), None);
    assert_eq!(schema(&card.skills[1].output_schema).as_deref(), Some("true"));
}

#[test]
fn foreign_cards_are_read_as_far_as_they_go() {
    let text = r#" {"name":"x","description":5,"url":"u","skills":[{"id":"a","tags":"no"},{"name":"no id"},7],
        "supported_interfaces":[{"url":"u","protocolBinding":"GRPC","protocolVersion":"1.0"},{"url":"v"},
        {"url":"w","protocol_binding":"JSONRPC","protocolVersion":"0.3"},
        {"url":"y","protocolBinding":"JSONRPC","protocolVersion":"1.0.1","tenant":"t"}],
        "capabilities":{"extensions":[3,{"uri":"urn:other","params":1},{"uri":"urn:convoke:ext:capability:v1","params":{"capabilities":{"a":7,"b":{}}}}]}} "#;
    let card = Card::read(text.as_bytes()).unwrap();
    assert_eq!((card.name.as_str(), card.description, card.version), ("x", None, None));
    assert_eq!(card.skills.len(), 1);
    assert_eq!((card.skills[0].id.as_str(), card.skills[0].name.as_str()), ("a", "a"));
    let urls: Vec<&str> = card.interfaces.iter().map(|one| one.url.as_str()).collect();
    assert_eq!(urls, ["u", "w", "y"]);
    assert_eq!(card.json.get(), text.trim());
    let chosen = Card::read(text.as_bytes()).unwrap();
    let chosen = chosen.jsonrpc().unwrap();
    assert_eq!((chosen.url.as_str(), chosen.tenant.as_deref()), ("y", Some("t")));
}

#[test]
fn what_is_no_card_is_refused() {
    fn check(bytes: &[u8], expected: &str) {
        assert_eq!(Card::read(bytes).unwrap_err().to_string(), expected);
    }
    check(b"", "the card is refused");
    check(b"<html>", "the card is refused");
    check(&vec![b' '; limits::CARD_BYTES_MAX + 1], "the card is refused");
    check(b"[]", "the card is none: must be an object");
    check(b"{}", "the card is none: name is required");
    check(br#"{"name":""}"#, "the card is none: name is required");
    check(br#"{"name":3}"#, "the card is none: name must be a string");
    check(br#"{"Name":"x"}"#, "the card is none: name is misspelled; field names are exact");
}
