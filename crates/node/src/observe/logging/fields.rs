//! Fields of events and spans, rendered once into one buffer.

use std::error::Error;
use std::fmt::{self, Debug, Write as _};
use std::ops::Range;

use tracing::field::{Field, Visit};

use super::line::Style;
use super::{Format, VALUE_BYTES_MAX, escape, json_field};

/// Rendered fields by name, in the order in which they were first recorded.
#[derive(Default)]
pub(super) struct Fields {
    text: String,
    entries: Vec<(&'static str, Range<usize>)>,
}

impl Fields {
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.entries.clear();
    }

    /// Gives back the memory of an unusually large event.
    pub(super) fn shrink(&mut self) {
        self.text.shrink_to(VALUE_BYTES_MAX);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(known, _)| *known == name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.entries.iter().map(|(name, range)| (*name, &self.text[range.clone()]))
    }

    /// Takes over the values of `other`, which are later.
    pub(super) fn absorb(&mut self, other: &Self) {
        for (name, value) in other.iter() {
            self.push(name, |out| out.push_str(value));
        }
    }

    /// Records one value; a later value of the same name replaces the earlier.
    fn push(&mut self, name: &'static str, render: impl FnOnce(&mut String)) {
        let start = self.text.len();
        render(&mut self.text);
        let range = start..self.text.len();
        // A keyword as a field's name, such as `type`, comes with Rust's own spelling.
        let name = name.strip_prefix("r#").unwrap_or(name);
        match self.entries.iter_mut().find(|(known, _)| *known == name) {
            Some(entry) => entry.1 = range,
            None => self.entries.push((name, range)),
        }
    }
}

/// Records the fields that tracing shows it.
pub(super) struct Recorder<'a> {
    pub(super) style: Style,
    pub(super) fields: &'a mut Fields,
    /// Where the message of an event goes; for a span, `message` is a field like any other.
    pub(super) message: Option<&'a mut String>,
    /// Room for a text before it is escaped.
    pub(super) raw: &'a mut String,
}

impl Recorder<'_> {
    fn text(&mut self, field: &Field, text: &str) {
        let (shown, cut) = cap(text);
        self.shown(field, shown, cut, false);
    }

    fn shown(&mut self, field: &Field, text: &str, cut: bool, is_json: bool) {
        let mark = if cut { "…" } else { "" };
        if field.name() == "message"
            && let Some(message) = &mut self.message
        {
            match self.style.format {
                Format::Json => escape::push_json(message, text),
                Format::Pretty => escape::push_plain(message, text),
            }
            message.push_str(mark);
            return;
        }
        let format = self.style.format;
        self.fields.push(field.name(), |out| match format {
            Format::Json if is_json => escape::push_json_text(out, text),
            Format::Pretty if is_json || (is_word(text) && !cut) => escape::push_plain(out, text),
            Format::Json | Format::Pretty => {
                out.push('"');
                escape::push_json(out, text);
                out.push_str(mark);
                out.push('"');
            }
        });
    }

    fn number(&mut self, field: &Field, number: impl fmt::Display) {
        if field.name() == "message" && self.message.is_some() {
            return self.record_debug(field, &format_args!("{number}"));
        }
        self.fields.push(field.name(), |out| {
            // Writing to a string does not fail.
            let _ = write!(out, "{number}");
        });
    }
}

impl Visit for Recorder<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut raw = std::mem::take(self.raw);
        raw.clear();
        let mut capped = Capped { out: &mut raw, cut: false };
        let is_json = json_field::format(&mut capped, value);
        let cut = capped.cut;
        self.shown(field, &raw, cut, is_json);
        *self.raw = raw;
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.number(field, value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.number(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        match serde_json::Number::from_f64(value) {
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

/// Takes at most [`VALUE_BYTES_MAX`] bytes and then stops whoever writes, so that a huge value
/// costs no more than a large one.
pub(super) struct Capped<'a> {
    out: &'a mut String,
    cut: bool,
}

impl Capped<'_> {
    pub(super) fn written(&self) -> usize {
        self.out.len()
    }
}

impl fmt::Write for Capped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = VALUE_BYTES_MAX - self.out.len().min(VALUE_BYTES_MAX);
        if text.len() <= room {
            self.out.push_str(text);
            return Ok(());
        }
        self.out.push_str(&text[..text.floor_char_boundary(room)]);
        self.cut = true;
        Err(fmt::Error)
    }
}

fn cap(text: &str) -> (&str, bool) {
    let end = text.floor_char_boundary(VALUE_BYTES_MAX);
    (&text[..end], end < text.len())
}

/// Whether people can tell where the value ends without quotes around it.
fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '=' | '\\'))
}
