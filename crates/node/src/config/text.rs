//! Pieces of text: as a value has them, and as a message may repeat them.

use std::time::Duration;

use super::keys::{SIZE_UNITS, TIME_UNITS};
use super::yaml::Value;
use crate::observe::logging::push_plain;
pub(super) use crate::observe::logging::{REDACTED, sounds_secret, without_secrets};

/// Longest piece of the file that a message repeats, in characters.
const QUOTE_CHARS_MAX: usize = 64;

/// Most letters by which a word differs from the one that was meant.
const DISTANCE_MAX: usize = 4;

/// A value as the list of settings shows it: without its secrets, which are found as in the log.
pub(super) fn shown(key: &str, value: &Value) -> String {
    if sounds_secret(key) {
        return REDACTED.to_owned();
    }
    match value {
        Value::Text(text) => quote(&without_secrets(text)),
        Value::List(items) => {
            let items = items.iter().map(|item| shown("", &item.value)).collect::<Vec<_>>();
            format!("[{}]", items.join(", "))
        }
        Value::Map(entries) => {
            let entries = entries.iter().map(|(key, node)| {
                format!("{}: {}", quote(&key.name), shown(&key.name, &node.value))
            });
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        other => quote(&other.to_json().to_string()),
    }
}

/// `text`, if it says something and has no control character.
pub(super) fn plain_text(text: &str) -> Result<&str, &'static str> {
    if text.trim().is_empty() {
        Err("it has to say something")
    } else if text.chars().any(char::is_control) {
        Err("it has a control character")
    } else {
        Ok(text)
    }
}

/// Two parts of a path, with a dot between them if there are two.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A piece of the file as a message may repeat it: short and without control characters.
pub(super) fn quote(text: &str) -> String {
    let end = text.char_indices().nth(QUOTE_CHARS_MAX).map_or(text.len(), |(at, _)| at);
    let mut quoted = String::new();
    push_plain(&mut quoted, &text[..end]);
    if end < text.len() {
        quoted.push('…');
    }
    quoted
}

/// The one of `known` that was probably meant by `text`.
pub(super) fn nearest<'k>(text: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    if text.len() > QUOTE_CHARS_MAX {
        return None;
    }
    let text = text.to_ascii_lowercase();
    known
        .map(|word| (strsim::damerau_levenshtein(&text, &word.to_ascii_lowercase()), word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).clamp(1, DISTANCE_MAX))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// `500ms`, `10s`, `5m` or `1h`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    with_unit(text, &TIME_UNITS).map(Duration::from_millis)
}

/// `512KiB`, `4MiB` or a bare number of bytes.
pub(super) fn size(text: &str) -> Option<u64> {
    text.parse().ok().or_else(|| with_unit(text, &SIZE_UNITS))
}

/// A whole number directly followed by one of `units`, in the smallest unit.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(duration(text), expected.map(Duration::from_millis), "{text}");
        };
        check("500ms", Some(500));
        check("10s", Some(10_000));
        check("5m", Some(300_000));
        check("1h", Some(3_600_000));
        check("10", None);
        check("s", None);
        check("-1s", None);
        check("1.5s", None);
        check("1 s", None);
        check("99999999999999999999s", None);
        check("18446744073709551615h", None);
    }

    #[test]
    fn sizes_may_have_a_unit() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(size(text), expected, "{text}");
        check("1024", Some(1024));
        check("4MiB", Some(4 << 20));
        check("1GiB", Some(1 << 30));
        check("2KB", Some(2000));
        check("4 MiB", None);
        check("4mib", None);
        check("MiB", None);
        check("1.5MiB", None);
        check("18446744073709551615KiB", None);
    }

    #[test]
    fn only_near_words_are_suggested() {
        let check = |text: &str, expected: Option<&str>| {
            let known = ["spiffe_id", "port", "trust_domain"];
            assert_eq!(nearest(text, known.into_iter()), expected, "{text}");
        };
        check("spife_id", Some("spiffe_id"));
        check("Port", Some("port"));
        check("prot", Some("port"));
        check("trust-domain", Some("trust_domain"));
        check("host", None);
        check(&"p".repeat(10_000), None);
    }

    #[test]
    fn quotes_are_short_and_plain() {
        assert_eq!(quote("a\u{1b}[31m\nb\"'\\"), "a\\u001b[31m\\nb\"'\\");
        assert_eq!(quote(&"é".repeat(65)).chars().count(), 65);
    }

    #[test]
    fn secrets_are_not_shown() {
        let check = |key: &str, value: &str, expected: &str| {
            assert_eq!(shown(key, &Value::Text(value.into())), expected, "{key}");
        };
        for key in [
            "password",
            "db_Password",
            "api_key",
            "token",
            "my_passphrase",
            "auth",
            "private_key",
            "authorization",
            "cookie",
            "dsn",
            "pwd",
        ] {
            check(key, "hunter2", "[redacted]");
        }
        for key in ["token_file", "token_env", "name", "author", "author_name"] {
            check(key, "hunter2", "hunter2");
        }
        check("db_url", "postgres://u:hunter2@h/db", "postgres://[redacted]@h/db");
        // What is cut off at the end must not take the mark of a secret along.
        let long = format!("{}password=hunter2", "x".repeat(QUOTE_CHARS_MAX - 12));
        assert!(!shown("note", &Value::Text(long)).contains("hun"));
    }
}
