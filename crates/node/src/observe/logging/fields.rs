//! Fields of events and spans, rendered once, as they stand in a line.

use std::error::Error;
use std::fmt::{self, Debug, Write as _};
use std::ops::Range;

use tracing::field::{Field, Visit};

use super::line::Style;
use super::redact::{REDACTED, Redactor};
use super::{Format, VALUE_BYTES_MAX, escape, json_field};

/// How far the bytes of a value that is cut are counted, to say how long it was.
const COUNTED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Names that are the line's own; a field of that name gets an underscore at its end.
const RESERVED: [&str; 3] = ["timestamp", "level", "message"];

/// Rendered fields by name, in the order in which they were first recorded.
#[derive(Default)]
pub(super) struct Fields {
    /// The fields one after the other, each as it stands in a line: `,"name":value`.
    text: String,
    entries: Vec<Entry>,
    /// A value was replaced, so there are pieces of `text` that belong to no entry.
    has_gaps: bool,
}

struct Entry {
    name: &'static str,
    /// The whole field.
    whole: Range<usize>,
    /// Where its value begins.
    value: usize,
}

impl Fields {
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.entries.clear();
        self.has_gaps = false;
    }

    /// Gives back the memory of an unusually large event.
    pub(super) fn shrink(&mut self) {
        self.text.shrink_to(VALUE_BYTES_MAX);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.name == name)
    }

    /// Whether a name is in both.
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.entries.iter().any(|entry| other.has(entry.name))
    }

    /// All fields as they stand in a line, if nothing has to be left out.
    pub(super) fn all(&self) -> Option<&str> {
        (!self.has_gaps).then_some(&self.text)
    }

    /// Each field's name, and the whole of it as it stands in a line.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.entries.iter().map(|entry| (entry.name, &self.text[entry.whole.clone()]))
    }

    /// Each field's name and value.
    pub(super) fn values(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let value = |entry: &Entry| &self.text[entry.value..entry.whole.end];
        self.entries.iter().map(move |entry| (entry.name, value(entry)))
    }

    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.values().find_map(|(known, value)| (known == name).then_some(value))
    }

    /// Takes over the values of `other`, which are later.
    pub(super) fn absorb(&mut self, other: &Self) {
        for entry in &other.entries {
            let name = entry.value - entry.whole.start;
            let start = self.text.len();
            self.text.push_str(&other.text[entry.whole.clone()]);
            self.enter(entry.name, start, start + name);
        }
    }

    /// Records one value; a later value of the same name replaces the earlier.
    pub(super) fn push(
        &mut self,
        style: Style,
        name: &'static str,
        render: impl FnOnce(&mut String),
    ) {
        // A keyword as a field's name, such as `type`, comes with Rust's own spelling.
        let name = name.strip_prefix("r#").unwrap_or(name);
        let start = self.text.len();
        let out = &mut self.text;
        let reserved = if RESERVED.contains(&name) { "_" } else { "" };
        match style.format {
            Format::Json => {
                out.push_str(",\"");
                escape::push_json(out, name);
                out.push_str(reserved);
                out.push_str("\":");
            }
            Format::Pretty => {
                let (dim, plain) = if style.colour { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
                out.push(' ');
                out.push_str(dim);
                escape::push_plain(out, name);
                out.push_str(reserved);
                out.push('=');
                out.push_str(plain);
            }
        }
        let value = out.len();
        render(out);
        self.enter(name, start, value);
    }

    fn enter(&mut self, name: &'static str, start: usize, value: usize) {
        let entry = Entry { name, whole: start..self.text.len(), value };
        match self.entries.iter_mut().find(|known| known.name == name) {
            Some(known) => {
                *known = entry;
                self.has_gaps = true;
            }
            None => self.entries.push(entry),
        }
    }
}

/// Records the fields that tracing shows it.
pub(super) struct Recorder<'a> {
    pub(super) style: Style,
    pub(super) redactor: &'a Redactor,
    pub(super) secret_names: &'a mut SecretNames,
    pub(super) fields: &'a mut Fields,
    /// Where the message of an event goes; for a span, `message` is a field like any other.
    pub(super) message: Option<&'a mut String>,
    /// Room for a text before it is escaped.
    pub(super) raw: &'a mut String,
    /// Room for a text without its secrets.
    pub(super) clean: &'a mut String,
}

impl Recorder<'_> {
    /// Records a text.
    pub(super) fn text(&mut self, name: &'static str, value: &str) {
        if !self.is_hidden(name) {
            let shown = &value[..value.floor_char_boundary(VALUE_BYTES_MAX)];
            self.shown(name, shown, Length { bytes: value.len(), is_known: true }, false);
        }
    }

    /// Records a value as it shows itself.
    pub(super) fn debug(&mut self, name: &'static str, value: &dyn Debug) {
        if self.is_hidden(name) {
            return;
        }
        let mut raw = std::mem::take(self.raw);
        raw.clear();
        let mut capped = Capped { out: &mut raw, length: Length::default() };
        let is_json = json_field::format(&mut capped, value);
        let length = capped.length;
        self.shown(name, &raw, length, is_json);
        *self.raw = raw;
    }

    /// Writes `text`, the beginning of a value that has `length` bytes in all.
    fn shown(&mut self, name: &'static str, text: &str, length: Length, is_json: bool) {
        self.clean.clear();
        let text = match self.redactor.redact(text, is_json, self.clean) {
            true => &**self.clean,
            false => text,
        };
        if name == "message"
            && let Some(message) = &mut self.message
        {
            match self.style.format {
                Format::Json => escape::push_json(message, text),
                Format::Pretty => escape::push_plain(message, text),
            }
            length.push_mark(message);
            return;
        }
        let style = self.style;
        self.fields.push(style, name, |out| match style.format {
            Format::Json if is_json => escape::push_json_text(out, text),
            Format::Pretty if is_json || (is_word(text) && !length.is_cut()) => {
                escape::push_plain(out, text);
            }
            Format::Json | Format::Pretty => {
                out.push('"');
                escape::push_json(out, text);
                length.push_mark(out);
                out.push('"');
            }
        });
    }

    fn number(&mut self, field: &Field, number: impl fmt::Display) {
        if field.name() == "message" && self.message.is_some() {
            return self.record_debug(field, &format_args!("{number}"));
        }
        self.fields.push(self.style, field.name(), |out| {
            // Writing to a string does not fail.
            let _ = write!(out, "{number}");
        });
    }

    /// Writes that the field is secret, if it is.
    fn is_hidden(&mut self, name: &'static str) -> bool {
        let is_secret = self.secret_names.is_secret(self.redactor, name);
        if is_secret {
            self.fields.push(self.style, name, |out| {
                out.push('"');
                out.push_str(REDACTED);
                out.push('"');
            });
        }
        is_secret
    }
}

impl Visit for Recorder<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.debug(field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        if !self.is_hidden(field.name()) {
            self.number(field, value);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if !self.is_hidden(field.name()) {
            self.number(field, value);
        }
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        if !self.is_hidden(field.name()) {
            self.number(field, value);
        }
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        if !self.is_hidden(field.name()) {
            self.number(field, value);
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        match serde_json::Number::from_f64(value) {
            _ if self.is_hidden(field.name()) => {}
            Some(number) => self.number(field, number),
            // JSON has no spelling for infinity.
            None => self.record_debug(field, &value),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.record_debug(field, &Chain(value));
    }
}

/// An error and what caused it, as one sentence.
struct Chain<'a>(&'a (dyn Error + 'static));

impl Debug for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// How long a value is, of which at most [`VALUE_BYTES_MAX`] bytes are shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Length {
    bytes: usize,
    /// Whether all of its bytes were counted.
    is_known: bool,
}

impl Default for Length {
    fn default() -> Self {
        Self { bytes: 0, is_known: true }
    }
}

impl Length {
    fn is_cut(self) -> bool {
        self.bytes > VALUE_BYTES_MAX
    }

    /// Says that something is missing, and of how much.
    fn push_mark(self, out: &mut String) {
        if self.is_cut() {
            let more = if self.is_known { "" } else { "more than " };
            // Writing to a string does not fail.
            let _ = write!(out, "… ({more}{} bytes)", self.bytes);
        }
    }
}

/// Keeps at most [`VALUE_BYTES_MAX`] bytes and counts the others up to [`COUNTED_BYTES_MAX`]; then it
/// stops whoever writes, so that a value without an end has one here.
pub(super) struct Capped<'a> {
    out: &'a mut String,
    length: Length,
}

impl Capped<'_> {
    pub(super) fn written(&self) -> usize {
        self.out.len()
    }
}

impl fmt::Write for Capped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if !self.length.is_cut() {
            let room = VALUE_BYTES_MAX - self.out.len().min(VALUE_BYTES_MAX);
            self.out.push_str(&text[..text.floor_char_boundary(room)]);
        }
        self.length.bytes += text.len();
        if self.length.bytes > COUNTED_BYTES_MAX {
            self.length.is_known = false;
            return Err(fmt::Error);
        }
        Ok(())
    }
}

/// Remembers which names of fields are secret. Names are texts of the program, so each is looked at
/// once for every place in memory that it has.
#[derive(Default)]
pub(super) struct SecretNames {
    /// Of which redactor the answers are.
    of: u64,
    known: Vec<Option<(&'static str, bool)>>,
}

/// How many names are remembered; further ones take the places of others.
const NAMES_REMEMBERED: usize = 64;

impl SecretNames {
    fn is_secret(&mut self, redactor: &Redactor, name: &'static str) -> bool {
        // No redactor has the number zero, with which this begins.
        if self.of != redactor.number {
            self.known.clear();
            self.known.resize(NAMES_REMEMBERED, None);
            self.of = redactor.number;
        }
        let place = &mut self.known[(name.as_ptr().addr() ^ name.len()) % NAMES_REMEMBERED];
        match place {
            Some((known, answer)) if std::ptr::eq(*known, name) => *answer,
            _ => place.insert((name, redactor.is_secret(name))).1,
        }
    }
}

/// Whether people can tell where the value ends without quotes around it.
fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '=' | '\\'))
}
