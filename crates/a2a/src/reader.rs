//! A walk over scanned JSON that reads fields by their A2A names and says which are wrong.
//!
//! Payloads are taken as the text that their author wrote, so this is a cursor over the text and
//! not a tree. The scan has seen the grammar, so it is not read again, here or by serde_json.
//! Nothing trusts the scan for memory safety or termination: a broken document yields problems or
//! pieces that are no JSON, never a panic.

use std::borrow::Cow;
use std::fmt;

use convoke_model::{FieldViolation, Json, limits};

use crate::extent::end_of_value;
use crate::scan::plain_run;
use crate::unescape::unescape;

/// Where in the parameters a value stands, written only when something is wrong with it.
#[derive(Clone, Copy)]
pub(crate) enum Path<'p> {
    Root,
    Field(&'p Path<'p>, &'static str),
    Item(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Path::Root, name) => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// What is wrong with a document, up to [`limits::VIOLATIONS_MAX`] fields.
#[derive(Default)]
pub(crate) struct Problems(pub(crate) Vec<FieldViolation>);

impl Problems {
    #[cold]
    pub(crate) fn add(&mut self, at: &Path<'_>, description: impl Into<String>) {
        if self.0.len() < limits::VIOLATIONS_MAX {
            self.0.push(FieldViolation { field: at.to_string(), description: description.into() });
        }
    }

    /// Notes that `field` is required if it is not there, unless something was said of it already.
    pub(crate) fn require<T>(
        &mut self,
        at: &Path<'_>,
        field: &'static str,
        value: Option<T>,
    ) -> Option<T> {
        if value.is_none() {
            let field = Path::Field(at, field);
            let name = field.to_string();
            if !self.0.iter().any(|violation| violation.field.starts_with(&name)) {
                self.add(&field, "is required");
            }
        }
        value
    }
}

/// What kind of value comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    String,
    Number,
    Bool,
    Null,
    /// None: the document has ended or is broken.
    Nothing,
}

/// A position in a document that the scan has accepted, or in a piece of one.
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(crate) fn kind(&mut self) -> Kind {
        match self.peek() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b'-' | b'0'..=b'9') => Kind::Number,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'n') => Kind::Null,
            _ => Kind::Nothing,
        }
    }

    /// The next value as it is written; the cursor moves behind it.
    pub(crate) fn raw(&mut self) -> Option<&'a str> {
        self.peek();
        let end = end_of_value(self.text.as_bytes(), self.at);
        let value = end.and_then(|end| self.text.get(self.at..end));
        self.at = end.unwrap_or(self.text.len());
        value
    }

    pub(crate) fn skip(&mut self) {
        let _moved = self.raw();
    }

    /// The next value, to be kept.
    pub(crate) fn json(&mut self) -> Option<Json> {
        self.raw().map(Json::from_checked)
    }

    /// The next value if it is a string; the cursor moves behind the value either way.
    pub(crate) fn string(&mut self) -> Option<Cow<'a, str>> {
        if self.peek() == Some(b'"') {
            // Nearly all strings have no escape and need no parser.
            let rest = self.text.get(self.at + 1..)?;
            let length = plain_run(rest.as_bytes());
            if rest.as_bytes().get(length) == Some(&b'"') {
                self.at += length + 2;
                return rest.get(..length).map(Cow::Borrowed);
            }
        }
        let text = self.raw()?;
        text.strip_prefix('"')?.strip_suffix('"').map(unescape)
    }

    /// Enters an object or array.
    pub(crate) fn enter(&mut self) {
        self.peek();
        self.at += 1;
    }

    /// The next key of the object that was entered, with its colon, or `None` behind the end.
    pub(crate) fn key(&mut self) -> Option<Cow<'a, str>> {
        if self.peek() == Some(b',') {
            self.at += 1;
        }
        if self.peek() == Some(b'"') {
            let key = self.string()?;
            if self.peek() == Some(b':') {
                self.at += 1;
                return Some(key);
            }
        }
        self.at = self.text.len().min(self.at + 1);
        None
    }

    /// Whether the array that was entered has another item.
    fn item(&mut self) -> bool {
        if self.peek() == Some(b',') {
            self.at += 1;
        }
        if self.kind() == Kind::Nothing {
            self.at = self.text.len().min(self.at + 1);
            return false;
        }
        true
    }

    /// The next byte that is no white space, which is skipped.
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(self.at) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }
}

/// Reads one object, giving every field of `names` that is there and not `null` to `on`.
///
/// Names are accepted as they are and in snake_case, but one field once. A key that differs from a
/// name only in case is refused, since some reader will take it for the field. Other keys go to
/// `unknown`, a bounded number of them. `null` means unset, except for `data`, whose value it can be. Gives false, with the
/// problem noted, if the value is no object.
pub(crate) fn object<'a>(
    reader: &mut Reader<'a>,
    at: &Path<'_>,
    problems: &mut Problems,
    names: &'static [&'static str],
    mut unknown: Option<&mut Vec<(String, Json)>>,
    mut on: impl FnMut(&'static str, &mut Reader<'a>, &Path<'_>, &mut Problems),
) -> bool {
    if reader.kind() != Kind::Object {
        problems.add(at, "must be an object");
        reader.skip();
        return false;
    }
    reader.enter();
    debug_assert!(names.len() <= 32, "one bit for each name");
    let mut seen = 0_u32;
    while let Some(key) = reader.key() {
        let exact = names.iter().position(|name| key == *name);
        let Some(index) = exact.or_else(|| in_snake_case(&key, names)) else {
            if let Some(name) = names.iter().find(|name| resembles(&key, name)) {
                problems.add(&Path::Field(at, name), "is misspelled; field names are exact");
                reader.skip();
            } else if let Some(unknown) = unknown.as_deref_mut() {
                let max = limits::UNKNOWN_FIELDS_MAX;
                if unknown.len() < max {
                    unknown.extend(reader.json().map(|value| (key.into_owned(), value)));
                } else {
                    problems.add(at, format!("has more than {max} fields that are not known here"));
                    reader.skip();
                }
            } else {
                reader.skip();
            }
            continue;
        };
        let name = names[index];
        let field = Path::Field(at, name);
        if seen & 1 << index != 0 {
            problems.add(&field, "is there twice, in camelCase and in snake_case");
            reader.skip();
        } else if reader.kind() == Kind::Null && name != "data" {
            reader.skip();
        } else {
            on(name, reader, &field, problems);
        }
        seen |= 1 << index;
    }
    true
}

/// Reads one array of at most `max` items.
pub(crate) fn array<'a, T>(
    reader: &mut Reader<'a>,
    at: &Path<'_>,
    problems: &mut Problems,
    max: usize,
    mut item: impl FnMut(&mut Reader<'a>, &Path<'_>, &mut Problems) -> Option<T>,
) -> Vec<T> {
    if reader.kind() != Kind::Array {
        problems.add(at, "must be an array");
        reader.skip();
        return Vec::new();
    }
    reader.enter();
    let mut items = Vec::new();
    let mut index = 0;
    while reader.item() {
        if index < max {
            items.extend(item(reader, &Path::Item(at, index), problems));
        } else {
            if index == max {
                problems.add(at, format!("has more than {max} items"));
            }
            reader.skip();
        }
        index += 1;
    }
    items
}

/// Which of `names`, which are in camelCase, `key` is in snake_case.
fn in_snake_case(key: &str, names: &[&str]) -> Option<usize> {
    if !key.contains('_') {
        return None;
    }
    names.iter().position(|name| is_snake_case(key, name))
}

fn is_snake_case(key: &str, name: &str) -> bool {
    let mut key = key.bytes();
    let matches = name.bytes().all(|letter| {
        let wanted = letter.to_ascii_lowercase();
        let first = key.next();
        if letter.is_ascii_uppercase() {
            first == Some(b'_') && key.next() == Some(wanted)
        } else {
            first == Some(wanted)
        }
    });
    matches && key.next().is_none()
}

/// Whether `key` differs from `name` only in case and underscores.
fn resembles(key: &str, name: &str) -> bool {
    let letters = key.bytes().filter(|byte| *byte != b'_');
    letters
        .map(|byte| byte.to_ascii_lowercase())
        .eq(name.bytes().map(|byte| byte.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_two_spellings() {
        for (key, name, same, close) in [
            ("messageId", "messageId", true, true),
            ("message_id", "messageId", true, true),
            ("MessageId", "messageId", false, true),
            ("message_Id", "messageId", false, true),
            ("message_id_", "messageId", false, true),
            ("messageI", "messageId", false, false),
            ("parts", "parts", true, true),
            ("Parts", "parts", false, true),
            ("timestamp", "parts", false, false),
        ] {
            assert_eq!(key == name || in_snake_case(key, &[name]) == Some(0), same, "{key}");
            assert_eq!(resembles(key, name), close, "{key}");
        }
    }
}
