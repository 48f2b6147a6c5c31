//! How a message names the capability that it calls.

use convoke_model::{CapabilityName, Fault, Json, Message};

use crate::headers::CAPABILITY_EXTENSION;
use crate::reader::{Kind, Reader};
use crate::write::Object;

/// The field that a fault about the name points at.
const FIELD: &str = "message.metadata.urn:convoke:ext:capability:v1.name";

/// The metadata of a message that calls `name`.
#[must_use]
pub fn capability_metadata(name: &CapabilityName) -> Json {
    let mut text = Vec::with_capacity(64);
    write_metadata(&mut text, name);
    // The writer makes JSON, and a capability's name is ASCII.
    std::str::from_utf8(&text).map_or_else(|_| Json::empty_object(), Json::from_checked)
}

pub(crate) fn write_metadata(out: &mut Vec<u8>, name: &CapabilityName) {
    let mut metadata = Object::begin(out);
    let mut extension = Object::begin(metadata.key(CAPABILITY_EXTENSION));
    extension.string("name", name.as_str());
    extension.end();
    metadata.end();
}

/// The capability that `message` names in its metadata, if it does.
///
/// # Errors
///
/// [`InvalidParams`](convoke_model::FaultCode::InvalidParams) if the extension is there and is not
/// an object with a capability's name in `name`.
pub fn named_capability(message: &Message) -> Result<Option<CapabilityName>, Fault> {
    let Some(metadata) = &message.metadata else { return Ok(None) };
    let mut reader = Reader::new(metadata.get());
    if !enter_member(&mut reader, CAPABILITY_EXTENSION) {
        return Ok(None);
    }
    let named = enter_member(&mut reader, "name").then(|| reader.string()).flatten();
    let Some(name) = named else {
        return Err(Fault::invalid_field(FIELD, "must be the capability's name, a string"));
    };
    match CapabilityName::parse(&name) {
        Ok(name) => Ok(Some(name)),
        Err(error) => Err(Fault::invalid_field(FIELD, error.to_string())),
    }
}

/// Moves to the value under `wanted`, if the next value is an object that has it.
pub(crate) fn enter_member(reader: &mut Reader<'_>, wanted: &str) -> bool {
    if reader.kind() != Kind::Object {
        return false;
    }
    reader.enter();
    while let Some(key) = reader.key() {
        if key == wanted {
            return true;
        }
        reader.skip();
    }
    false
}

#[cfg(test)]
mod tests {
    use convoke_model::{Content, MessageId, Part, Role};

    use super::*;

    fn check(metadata: Option<&str>, expected: Result<Option<&str>, &str>) {
        let mut message = Message::new(
            MessageId::parse("m").unwrap(),
            Role::User,
            vec![Part::new(Content::Text(String::new()))],
        );
        message.metadata = metadata.map(|text| Json::parse(text).unwrap());
        let found = named_capability(&message);
        let found = found.as_ref().map(|name| name.as_ref().map(CapabilityName::as_str));
        match (found, expected) {
            (Err(fault), Err(part)) => {
                assert!(fault.message.contains(part), "{}", fault.message);
                assert_eq!(fault.violations[0].field, FIELD);
            }
            (found, expected) => assert_eq!(found.ok(), expected.ok(), "{metadata:?}"),
        }
    }

    #[test]
    fn names_are_found() {
        check(None, Ok(None));
        check(Some("{}"), Ok(None));
        check(Some(r#"{"name":"x"}"#), Ok(None));
        check(Some(r#"{"a":[{}],"urn:convoke:ext:capability:v1":{"name":"x"}}"#), Ok(Some("x")));
        check(
            Some(r#" { "urn:convoke:ext:\u0063apability:v1" : { "name" : "\u0078" } } "#),
            Ok(Some("x")),
        );
        check(
            Some(r#"{"urn:convoke:ext:capability:v1":"x"}"#),
            Err("must be the capability's name"),
        );
        check(
            Some(r#"{"urn:convoke:ext:capability:v1":{}}"#),
            Err("must be the capability's name"),
        );
        check(Some(r#"{"urn:convoke:ext:capability:v1":{"name":1}}"#), Err("a string"));
        check(
            Some(r#"{"urn:convoke:ext:capability:v1":{"name":"a b"}}"#),
            Err("` ` is not allowed"),
        );
    }

    #[test]
    fn names_are_written() {
        let name = CapabilityName::parse("count_words").unwrap();
        let text = r#"{"urn:convoke:ext:capability:v1":{"name":"count_words"}}"#;
        assert_eq!(capability_metadata(&name).get(), text);
        check(Some(text), Ok(Some("count_words")));
    }
}
