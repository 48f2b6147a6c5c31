//! On which terms a message is sent, as its metadata says.
//!
//! `priority` and `deadline` are plain words that others use for purposes of their own. So a priority
//! that is none of ours is no error: nothing is lost but the order. A deadline that is none is one,
//! since whoever gave it counts on it.

use convoke_model::{Fault, Json, Priority, SendMessage, Terms, UnixMillis};

use crate::capability::enter_member;
use crate::instant;
use crate::reader::{Kind, Reader};

/// The key of the priority: `low`, `normal`, `high` or `urgent`.
pub const PRIORITY: &str = "priority";

/// The key of the deadline: an RFC 3339 instant, or milliseconds since 1970.
pub const DEADLINE: &str = "deadline";

/// The last instant that a text could name, which bounds numbers too: the end of 9999.
const DEADLINE_MAX: u64 = 253_402_300_799_999;

/// On which terms `send` is sent: each from the metadata of the request if that has it, else from
/// the metadata of the message.
///
/// # Errors
///
/// [`InvalidParams`](convoke_model::FaultCode::InvalidParams) if there is a deadline that is none.
pub fn terms_of(send: &SendMessage) -> Result<Terms, Fault> {
    let found = |key: &str| {
        let of_request = (send.metadata.as_ref(), "metadata");
        let of_message = (send.message.metadata.as_ref(), "message.metadata");
        [of_request, of_message]
            .into_iter()
            .find_map(|(metadata, path)| Some((member(metadata?, key)?, path)))
    };
    let priority = found(PRIORITY).and_then(|(mut value, _)| Priority::of_word(&value.string()?));
    let deadline = match found(DEADLINE) {
        None => None,
        Some((mut value, path)) => Some(instant_of(&mut value).ok_or_else(|| {
            Fault::invalid_field(
                format!("{path}.{DEADLINE}"),
                "must be an RFC 3339 instant, or milliseconds since 1970, before the year 10000",
            )
        })?),
    };
    Ok(Terms { priority: priority.unwrap_or_default(), deadline })
}

/// The value under `key`, unless it is null, which is as good as none.
fn member<'a>(metadata: &'a Json, key: &str) -> Option<Reader<'a>> {
    let mut reader = Reader::new(metadata.get());
    (enter_member(&mut reader, key) && reader.kind() != Kind::Null).then_some(reader)
}

fn instant_of(value: &mut Reader<'_>) -> Option<UnixMillis> {
    match value.kind() {
        Kind::String => instant::parse(&value.string()?),
        Kind::Number => {
            let text = value.raw()?;
            let millis = match text.parse::<u64>() {
                Ok(millis) => millis,
                Err(_) => whole(text.parse().ok()?)?,
            };
            (millis <= DEADLINE_MAX).then_some(UnixMillis(millis))
        }
        _ => None,
    }
}

/// A whole number that was written another way: `1.5e12`.
fn whole(number: f64) -> Option<u64> {
    let is_whole = number.fract() == 0.0 && (0.0..=DEADLINE_MAX as f64).contains(&number);
    // The bound is far below what 53 bits hold, so the conversion is exact.
    is_whole.then_some(number as u64)
}

#[cfg(test)]
mod tests {
    use convoke_model::{Content, FaultCode, Message, MessageId, Part, Role, SendConfiguration};

    use super::*;

    fn terms(request: Option<&str>, message: Option<&str>) -> Result<Terms, Fault> {
        let mut said = Message::new(
            MessageId::parse("m").unwrap(),
            Role::User,
            vec![Part::new(Content::Text(String::new()))],
        );
        said.metadata = message.map(|text| Json::parse(text).unwrap());
        terms_of(&SendMessage {
            tenant: None,
            message: said,
            configuration: SendConfiguration::default(),
            metadata: request.map(|text| Json::parse(text).unwrap()),
        })
    }

    #[test]
    fn priorities_are_words_and_everything_else_is_normal() {
        let check = |request: Option<&str>, message: Option<&str>, expected: Priority| {
            assert_eq!(terms(request, message).unwrap().priority, expected, "{request:?}");
        };
        check(None, None, Priority::Normal);
        check(Some(r#"{"priority":"urgent"}"#), None, Priority::Urgent);
        check(None, Some(r#"{"a":1,"priority":"low"}"#), Priority::Low);
        check(Some(r#"{"priority":"high"}"#), Some(r#"{"priority":"low"}"#), Priority::High);
        check(Some(r#"{"priority":null}"#), Some(r#"{"priority":"low"}"#), Priority::Low);
        check(Some(r#"{"priority":3}"#), Some(r#"{"priority":"low"}"#), Priority::Normal);
        for other in ["\"High\"", "\"P1\"", "\"\"", "9", "{}", "[\"high\"]", "true"] {
            check(Some(&format!(r#"{{"priority":{other}}}"#)), None, Priority::Normal);
        }
    }

    #[test]
    fn deadlines_are_kept_or_refused() {
        let check = |value: &str, expected: Option<u64>| {
            let metadata = format!(r#"{{"deadline":{value}}}"#);
            let of_request = terms(Some(&metadata), None);
            let of_message = terms(None, Some(&metadata));
            if let Some(millis) = expected {
                let expected = Some(UnixMillis(millis));
                assert_eq!(of_request.unwrap().deadline, expected, "{value}");
                assert_eq!(of_message.unwrap().deadline, expected, "{value}");
                return;
            }
            for (refused, field) in
                [(of_request, "metadata.deadline"), (of_message, "message.metadata.deadline")]
            {
                let fault = refused.expect_err(value);
                assert_eq!(fault.code, FaultCode::InvalidParams);
                assert_eq!(fault.violations[0].field, field);
            }
        };
        check("\"2026-12-31T23:59:59.001Z\"", Some(1_798_761_599_001));
        check("\"2027-01-01T01:59:59+02:00\"", Some(1_798_761_599_000));
        check("1798761599001", Some(1_798_761_599_001));
        check("1.5e12", Some(1_500_000_000_000));
        check("0", Some(0));
        check("253402300799999", Some(DEADLINE_MAX));
        for wrong in [
            "\"soon\"",
            "\"\"",
            "\"1798761599001\"",
            "-1",
            "1.5",
            "1e99",
            "253402300800000",
            "true",
            "{}",
            "[]",
            "99999999999999999999999",
        ] {
            check(wrong, None);
        }
        assert_eq!(terms(Some(r#"{"deadline":null}"#), None).unwrap().deadline, None);
        let both = terms(Some(r#"{"deadline":1}"#), Some(r#"{"deadline":"wrong"}"#)).unwrap();
        assert_eq!(both.deadline, Some(UnixMillis(1)));
    }
}
