//! The small values: strings, identifiers, counts, choices.
//!
//! As everywhere, each function reads exactly one value and notes what is wrong with it.

use std::borrow::Cow;

use convoke_model::{IdError, Json, UnixMillis, limits};

use crate::instant;
use crate::reader::{Kind, Path, Problems, Reader, array};
use crate::unescape::unescape;

/// Reads a string of at most `max` bytes.
pub(crate) fn string<'a>(
    reader: &mut Reader<'a>,
    at: &Path<'_>,
    problems: &mut Problems,
    max: usize,
) -> Option<Cow<'a, str>> {
    let Some(text) = reader.string() else {
        problems.add(at, "must be a string");
        return None;
    };
    if text.len() > max {
        problems.add(at, format!("is longer than {max} bytes"));
        return None;
    }
    Some(text)
}

/// Reads a name (a URI, a media type, a file's name); an empty one is an unset one.
pub(crate) fn name(
    reader: &mut Reader<'_>,
    at: &Path<'_>,
    problems: &mut Problems,
) -> Option<String> {
    string(reader, at, problems, limits::NAME_BYTES_MAX)
        .filter(|text| !text.is_empty())
        .map(Cow::into_owned)
}

/// Reads an array of names.
pub(crate) fn names(
    reader: &mut Reader<'_>,
    at: &Path<'_>,
    problems: &mut Problems,
) -> Vec<String> {
    array(reader, at, problems, limits::NAMES_MAX, name)
}

/// Reads an identifier; an empty one is an unset one.
pub(crate) fn id<T>(
    reader: &mut Reader<'_>,
    at: &Path<'_>,
    problems: &mut Problems,
    parse: fn(&str) -> Result<T, IdError>,
) -> Option<T> {
    let text = string(reader, at, problems, usize::MAX)?;
    if text.is_empty() {
        return None;
    }
    parse(&text).map_err(|error| problems.add(at, error.to_string())).ok()
}

/// Reads an object that is kept as it is, within the bound of metadata.
pub(crate) fn metadata(
    reader: &mut Reader<'_>,
    at: &Path<'_>,
    problems: &mut Problems,
) -> Option<Json> {
    if reader.kind() != Kind::Object {
        problems.add(at, "must be an object");
        reader.skip();
        return None;
    }
    let raw = reader.raw()?;
    if raw.len() > limits::METADATA_BYTES_MAX {
        problems.add(at, format!("is larger than {} bytes", limits::METADATA_BYTES_MAX));
        return None;
    }
    Some(Json::from_checked(raw))
}

/// Reads `true` or `false`.
pub(crate) fn boolean(reader: &mut Reader<'_>, at: &Path<'_>, problems: &mut Problems) -> bool {
    match reader.raw() {
        Some("true") => true,
        Some("false") => false,
        _ => {
            problems.add(at, "must be true or false");
            false
        }
    }
}

/// Reads an int32 that is not negative: a number without a fraction (`5`, `5.0`, `5e0`) or, as
/// ProtoJSON allows, the same in a string.
pub(crate) fn count(
    reader: &mut Reader<'_>,
    at: &Path<'_>,
    problems: &mut Problems,
) -> Option<u32> {
    let text = reader.raw().unwrap_or_default();
    let digits = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let number = match digits.bytes().next() {
        Some(b'-' | b'0'..=b'9') => digits.parse::<f64>().ok(),
        _ => None,
    };
    match number {
        Some(number) if number < 0.0 => {
            problems.add(at, "must not be negative");
            None
        }
        // Checked on both sides, so the conversion is exact.
        Some(number) if number.fract() == 0.0 && number <= f64::from(i32::MAX) => {
            Some(number as u32)
        }
        _ => {
            problems.add(at, "must be a whole number below 2147483648");
            None
        }
    }
}

/// Reads an instant.
pub(crate) fn instant(
    reader: &mut Reader<'_>,
    at: &Path<'_>,
    problems: &mut Problems,
) -> Option<UnixMillis> {
    let instant = reader.string().as_deref().and_then(instant::parse);
    if instant.is_none() {
        problems.add(at, "must be an RFC 3339 instant from 1970 on");
    }
    instant
}

/// One value of an enumeration, by name or by number.
pub(crate) fn choice<T: Copy>(
    reader: &mut Reader<'_>,
    at: &Path<'_>,
    problems: &mut Problems,
    choices: &[(&str, &str, T)],
) -> Option<T> {
    let text = reader.raw().unwrap_or_default();
    let name = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).map(unescape);
    let found = choices.iter().find(|(word, number, _)| match &name {
        Some(name) => name == word,
        None => text == *number,
    });
    if found.is_none() {
        let mut words = String::from("must be one of");
        for (index, (word, ..)) in choices.iter().enumerate() {
            words.push_str(if index == 0 { " `" } else { ", `" });
            words.push_str(word);
            words.push('`');
        }
        problems.add(at, words);
    }
    found.map(|choice| choice.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_int32() {
        for (text, expected) in [
            ("0", Some(0)),
            ("5.0", Some(5)),
            ("5e0", Some(5)),
            ("\"7\"", Some(7)),
            ("2147483647", Some(2_147_483_647)),
            ("-0", Some(0)),
            ("2147483648", None),
            ("1e99", None),
            ("-1", None),
            ("1.5", None),
            ("\"\"", None),
            ("\"inf\"", None),
            ("true", None),
            ("[]", None),
        ] {
            let mut problems = Problems::default();
            assert_eq!(
                count(&mut Reader::new(text), &Path::Root, &mut problems),
                expected,
                "{text}"
            );
            assert_eq!(problems.0.is_empty(), expected.is_some(), "{text}");
        }
    }
}
