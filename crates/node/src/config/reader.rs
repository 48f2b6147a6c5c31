//! Reads the values of a YAML tree by the table of keys, and collects what is wrong with them.
//!
//! A [`Section`] finds the row of each key that it is asked for: its type, range and default. What
//! the table does not have is refused by `unknown` before anything is read, and a key that is
//! asked for but not in the table is a problem too, so reader and table cannot part.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::Display;
use std::time::Duration;

use super::error::Problem;
use super::keys::{self, Bytes, Default as Fallback, Key as Row, Kind, Millis, NAME, NEVER};
use super::settings::{Origin, Setting};
use super::text::{duration, join, nearest, plain_text, quote, shown, size};
use super::yaml::{Key, Node, Place, Value};
use crate::observe::logging::push_plain;

/// What reading has found so far; the sections of one file share it.
#[derive(Default)]
pub(super) struct Report {
    problems: RefCell<Vec<Problem>>,
    settings: RefCell<Vec<Setting>>,
}

/// One mapping of the file, or an absent one, which reads as an empty one.
pub(super) struct Section<'a> {
    path: String,
    /// The same in the table, where names of the user's choosing are [`NAME`].
    pattern: &'static str,
    at: Place,
    entries: &'a [(Key, Node)],
    is_written: bool,
    /// There is something here that is not a mapping; that is the one problem to report.
    is_wrong: bool,
    /// Whether the table's defaults hold here; if not, what is not written comes from elsewhere.
    has_defaults: bool,
    report: &'a Report,
}

/// A value, from the file, a variable or the table.
struct Found<'a> {
    row: &'static Row,
    value: Cow<'a, Value>,
    at: Place,
}

impl Report {
    /// Adds a problem with the value or the key at `at`.
    pub(super) fn push(&self, path: String, at: &Place, message: &str, cure: Option<&str>) {
        let (line, column) = at.known();
        // What a parser says of a text can repeat a character of it.
        let mut plain = String::new();
        push_plain(&mut plain, message);
        self.problems.borrow_mut().push(Problem {
            path,
            line,
            column,
            variable: at.variable.as_deref().map(str::to_owned),
            message: plain,
            cure: cure.map(str::to_owned),
        });
    }

    /// Everything that was found.
    pub(super) fn into_parts(self) -> (Vec<Problem>, Vec<Setting>) {
        (self.problems.into_inner(), self.settings.into_inner())
    }
}

impl<'a> Section<'a> {
    /// The mapping at the top of the file.
    pub(super) fn root(node: &'a Node, report: &'a Report) -> Self {
        Self::of(String::new(), "", Some(node), true, report)
    }

    fn of(
        path: String,
        pattern: &'static str,
        node: Option<&'a Node>,
        has_defaults: bool,
        report: &'a Report,
    ) -> Self {
        let at = node.map(|node| node.at.clone()).unwrap_or_default();
        let (mut entries, mut is_written, mut is_wrong) = (&[][..], false, false);
        match node.map(|node| &node.value) {
            None | Some(Value::Null) => {}
            Some(Value::Map(written)) => (entries, is_written) = (written, true),
            Some(other) => {
                is_wrong = true;
                let what = match path.as_str() {
                    "" => "the file".to_owned(),
                    path => format!("`{path}`"),
                };
                let message = format!("{what} is {}, not a mapping", other.kind());
                report.push(path.clone(), &at, &message, None);
            }
        }
        Self { path, pattern, at, entries, is_written, is_wrong, has_defaults, report }
    }

    /// The mapping under `key`.
    pub(super) fn section(&self, key: &'static str) -> Section<'a> {
        let node = self.entry(key);
        match keys::section(&join(self.pattern, key)) {
            Some(row) => {
                let has_defaults = self.has_defaults && row.like.is_none();
                let path = join(&self.path, key);
                Section::of(path, row.pattern(), node, has_defaults, self.report)
            }
            None => {
                self.not_in_the_table(key);
                Section::of(join(&self.path, key), "", None, false, self.report)
            }
        }
    }

    /// The entries of the mapping under `key`, whose keys the user chooses and whose values are
    /// mappings.
    pub(super) fn named_sections(&self, key: &'static str) -> Vec<(&'a str, Section<'a>)> {
        let outer = self.section(key);
        let Some(row) = keys::section(&join(outer.pattern, NAME)) else {
            self.not_in_the_table(key);
            return Vec::new();
        };
        let named = |(key, node): &'a (Key, Node)| {
            let path = join(&outer.path, &quote(&key.name));
            (key.name.as_str(), Section::of(path, row.pattern(), Some(node), true, outer.report))
        };
        outer.entries.iter().map(named).collect()
    }

    /// The entries of this mapping, whose keys the user chooses and whose values are texts.
    pub(super) fn named_texts(&self) -> Vec<(&'a Key, Option<String>)> {
        let text = |key: &'a Key| self.text_of(&key.name, self.read(&key.name, NAME)?);
        self.entries.iter().map(|(key, _)| (key, text(key))).collect()
    }

    /// Whether something else than a mapping stands here.
    pub(super) fn is_wrong(&self) -> bool {
        self.is_wrong
    }

    /// Whether the mapping is written, even if empty: a section that is written is meant.
    pub(super) fn is_written(&self) -> bool {
        self.is_written
    }

    /// Whether `key` is written and not empty.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// The text under `key`, parsed; `parse` says what the text should have been.
    pub(super) fn parsed<T, E: Display>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let found = self.read(key, key)?;
        self.parse_found(key, found, parse)
    }

    fn parse_found<T, E: Display>(
        &self,
        key: &str,
        found: Found<'_>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let path = join(&self.path, key);
        let Value::Text(text) = &*found.value else {
            let is_scalar = matches!(*found.value, Value::Number(_) | Value::Bool(_));
            let (message, cure) = if is_scalar {
                let written = quote(&found.value.to_json().to_string());
                let message = format!("`{path}` is {written} where text is expected");
                (message, Some("put it in quotes to make it text"))
            } else {
                (format!("`{path}` is {}, not text", found.value.kind()), None)
            };
            self.report.push(path, &found.at, &message, cure);
            return None;
        };
        match parse(text) {
            Ok(value) => Some(value),
            Err(why) => {
                let message = format!("`{path}` is `{}`: {why}", quote(text));
                self.report.push(path, &found.at, &message, None);
                None
            }
        }
    }

    /// The text under `key`; empty text and control characters are refused.
    pub(super) fn text(&self, key: &'static str) -> Option<String> {
        let found = self.read(key, key)?;
        self.text_of(key, found)
    }

    fn text_of(&self, key: &str, found: Found<'_>) -> Option<String> {
        self.parse_found(key, found, |text| plain_text(text).map(str::to_owned))
    }

    /// The list of texts under `key`, at most `most`; absent ones read as none.
    pub(super) fn texts(&self, key: &'static str, most: usize) -> Option<Vec<String>> {
        let Some(found) = self.read(key, key) else { return Some(Vec::new()) };
        let path = join(&self.path, key);
        let Value::List(items) = &*found.value else {
            let message = format!("`{path}` is {}, not a list", found.value.kind());
            self.report.push(path, &found.at, &message, Some("write `[one, two]`"));
            return None;
        };
        if items.len() > most {
            let message = format!("`{path}` has more than {most} entries");
            self.report.push(path, &found.at, &message, None);
            return None;
        }
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let at = if item.at.line == 0 { &found.at } else { &item.at };
            let path = format!("{path}[{index}]");
            match &item.value {
                Value::Text(text) => match plain_text(text) {
                    Ok(text) => texts.push(text.to_owned()),
                    Err(why) => {
                        let message = format!("`{path}` is `{}`: {why}", quote(text));
                        self.report.push(path, at, &message, None);
                    }
                },
                other => {
                    let message = format!("`{path}` is {}, not text", other.kind());
                    self.report.push(path, at, &message, None);
                }
            }
        }
        (texts.len() == items.len()).then_some(texts)
    }

    /// The whole number under `key`, if it is in the table's range.
    pub(super) fn number<T: TryFrom<u64>>(&self, key: &'static str) -> Option<T> {
        let found = self.read(key, key)?;
        let Kind::Number(min, max) = found.row.kind else { return self.mistyped(key) };
        let number = match &*found.value {
            Value::Number(number) => number.as_u64().filter(|number| (min..=max).contains(number)),
            _ => None,
        };
        let number = number.and_then(|number| T::try_from(number).ok());
        if number.is_none() {
            self.not(key, &found, &format!("a whole number from {min} to {max}"));
        }
        number
    }

    /// The number of bytes under `key`, written as `4194304` or `4MiB`; the inner `None` is
    /// `never`.
    pub(super) fn size<T: TryFrom<u64>>(&self, key: &'static str) -> Option<Option<T>> {
        let found = self.read(key, key)?;
        let Kind::Size(min, max, never) = found.row.kind else { return self.mistyped(key) };
        let bytes = match &*found.value {
            Value::Text(text) if never && text == NEVER => return Some(None),
            Value::Text(text) => size(text),
            Value::Number(number) => number.as_u64(),
            _ => None,
        };
        let bytes = bytes.filter(|bytes| (min..=max).contains(bytes));
        let bytes = bytes.and_then(|bytes| T::try_from(bytes).ok());
        if bytes.is_none() {
            let or = if never { ", or `never`" } else { "" };
            let (min, max) = (Bytes(min), Bytes(max));
            self.not(key, &found, &format!("a size from {min} to {max}, as in `4MiB`{or}"));
        }
        bytes.map(Some)
    }

    /// The number from 0 to 1 under `key`.
    pub(super) fn share(&self, key: &'static str) -> Option<f64> {
        let found = self.read(key, key)?;
        let number = match &*found.value {
            Value::Number(number) => number.as_f64().filter(|number| (0.0..=1.0).contains(number)),
            _ => None,
        };
        if number.is_none() {
            self.not(key, &found, "a number from 0.0 to 1.0");
        }
        number
    }

    /// The boolean under `key`.
    pub(super) fn flag(&self, key: &'static str) -> Option<bool> {
        let found = self.read(key, key)?;
        if let Value::Bool(value) = *found.value {
            return Some(value);
        }
        self.not(key, &found, "true or false");
        None
    }

    /// One of `words` under `key`; case is ignored. The table has the same words.
    pub(super) fn word<T: Copy>(
        &self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let found = self.read(key, key)?;
        let Kind::Words(known) = found.row.kind else { return self.mistyped(key) };
        let at = found.at.clone();
        let text = self.text_of(key, found)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(&text)) {
            return Some(*value);
        }
        let names = known.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        let path = join(&self.path, key);
        let message = format!("`{path}` is `{}`, not one of {names}", quote(&text));
        let cure = nearest(&text, known.iter().copied());
        let cure = cure.map(|word| format!("did you mean `{word}`?"));
        self.report.push(path, &at, &message, cure.as_deref());
        None
    }

    /// The duration under `key`, written as `10s` or `500ms`.
    pub(super) fn duration(&self, key: &'static str) -> Option<Duration> {
        self.duration_or_never(key).flatten()
    }

    /// The duration under `key`; the inner `None` is `never`.
    pub(super) fn duration_or_never(&self, key: &'static str) -> Option<Option<Duration>> {
        let found = self.read(key, key)?;
        let Kind::Duration(min, max, never) = found.row.kind else { return self.mistyped(key) };
        if let Value::Number(number) = &*found.value {
            let path = join(&self.path, key);
            let message = format!("`{path}` is {number}, without a unit");
            let seconds = number.as_u64().filter(|number| {
                number.checked_mul(1000).is_some_and(|millis| (min..=max).contains(&millis))
            });
            let cure = match seconds {
                Some(seconds) => format!("write `{seconds}s`"),
                None => "write it as in `500ms`, `10s`, `5m` or `1h`".to_owned(),
            };
            self.report.push(path, &found.at, &message, Some(&cure));
            return None;
        }
        self.parse_found(key, found, |text| {
            if never && text == NEVER {
                return Ok(None);
            }
            let or = if never { ", or `never`" } else { "" };
            let value = duration(text).ok_or_else(|| {
                format!("a duration is a whole number with a unit: `500ms`, `10s`, `5m`, `1h`{or}")
            })?;
            let range = Duration::from_millis(min)..=Duration::from_millis(max);
            if range.contains(&value) {
                Ok(Some(value))
            } else {
                let (min, max) = (Millis(min), Millis(max));
                Err(format!("a duration here is from {min} to {max}{or}"))
            }
        })
    }

    /// The entries that are not in the table, as JSON.
    pub(super) fn rest(&self) -> Vec<(String, serde_json::Value)> {
        let rest = self.entries.iter();
        let rest = rest.filter(|(key, _)| keys::child(self.pattern, &key.name).is_none());
        rest.map(|(key, node)| {
            self.record(&key.name, Some(shown(&key.name, &node.value)), &node.at, false);
            (key.name.clone(), node.value.to_json())
        })
        .collect()
    }

    /// What `key` is when it is not written, for the list of settings.
    pub(super) fn worked_out(&self, key: &str, value: impl Display) {
        let path = join(&self.path, key);
        let mut settings = self.report.settings.borrow_mut();
        let setting = settings.iter_mut().find(|setting| setting.path == path);
        if let Some(setting) = setting.filter(|setting| setting.value.is_none()) {
            setting.value = Some(value.to_string());
        }
    }

    /// Whether the mapping, which is written, does not say `enabled: false`.
    pub(super) fn enabled(&self) -> Option<bool> {
        let written = self.flag("enabled");
        if self.has("enabled") {
            return written;
        }
        self.worked_out("enabled", self.is_written);
        Some(self.is_written)
    }

    /// Refuses the entries that are not mappings, without repeating them, and says whether there
    /// are any.
    pub(super) fn refuse_texts(&self, message: &str, cure: &str) -> bool {
        let mut any = false;
        for (key, node) in self.entries {
            if !matches!(node.value, Value::Map(_)) {
                any = true;
                let path = join(&self.path, &quote(&key.name));
                self.report.push(
                    path.clone(),
                    &node.at,
                    &format!("`{path}` {message}"),
                    Some(cure),
                );
            }
        }
        any
    }

    /// Says that `key` is missing.
    pub(super) fn missing(&self, key: &str, cure: &str) {
        if !self.is_wrong {
            let path = join(&self.path, key);
            let message = format!("`{path}` is missing");
            self.report.push(path, &self.at, &message, Some(cure));
        }
    }

    /// Says what is wrong with the value of `key`.
    pub(super) fn problem(&self, key: &str, message: &str, cure: Option<&str>) {
        let at = self.entry(key).map_or(&self.at, |node| &node.at);
        let path = if key.is_empty() { self.path.clone() } else { join(&self.path, key) };
        self.report.push(path, at, message, cure);
    }

    /// Says what is wrong with a key of the user's choosing.
    pub(super) fn problem_of_key(&self, key: &Key, message: &str, cure: Option<&str>) {
        self.report.push(join(&self.path, &quote(&key.name)), &key.at, message, cure);
    }

    /// Where the value of `key` stands, if it is written.
    pub(super) fn place(&self, key: &str) -> Option<&'a Place> {
        self.below(key).map(|node| &node.at)
    }

    /// As [`Section::place`], of a key that may have dots of its own.
    pub(super) fn place_of(&self, key: &str) -> Option<&'a Place> {
        self.entry(key).map(|node| &node.at)
    }

    /// What is written below `path`, in which dots part the keys.
    pub(super) fn below(&self, path: &str) -> Option<&'a Node> {
        match path.split_once('.') {
            Some((key, rest)) => self.entry(key)?.below(rest),
            None => self.entry(path),
        }
    }

    /// The value of `key`, whose row in the table is below this section under `row`.
    fn read(&self, key: &str, row: &str) -> Option<Found<'a>> {
        let Some(row) = keys::find(&join(self.pattern, row)) else {
            self.not_in_the_table(key);
            return None;
        };
        if let Some(node) = self.entry(key) {
            let is_default = self.has_defaults && row.is_default(&node.value);
            self.record(key, Some(shown(key, &node.value)), &node.at, is_default);
            return Some(Found { row, value: Cow::Borrowed(&node.value), at: node.at.clone() });
        }
        if !self.has_defaults {
            return None;
        }
        let Fallback::Is(text) = row.default else {
            self.record(key, None, &Place::default(), true);
            return None;
        };
        self.record(key, Some(text.to_owned()), &Place::default(), true);
        Some(Found { row, value: Cow::Owned(row.value_of(text)), at: self.at.clone() })
    }

    /// The node of `key`; an empty one counts as absent, as in `policy_file:` with nothing after.
    fn entry(&self, key: &str) -> Option<&'a Node> {
        let (_, node) = self.entries.iter().find(|(found, _)| found.name == key)?;
        (!matches!(node.value, Value::Null)).then_some(node)
    }

    fn record(&self, key: &str, value: Option<String>, at: &Place, is_default: bool) {
        let origin = match (&at.variable, at.line) {
            (Some(name), _) => Origin::Variable(name.to_string()),
            (None, 0) => Origin::Default,
            (None, line) => Origin::File { line },
        };
        let path = join(&self.path, &quote(key));
        self.report.settings.borrow_mut().push(Setting { path, value, origin, is_default });
    }

    fn not(&self, key: &str, found: &Found<'_>, expected: &str) {
        let path = join(&self.path, key);
        let written = quote(&found.value.to_json().to_string());
        let message = format!("`{path}` is {written}, not {expected}");
        self.report.push(path, &found.at, &message, None);
    }

    fn not_in_the_table(&self, key: &str) {
        let path = join(&self.path, key);
        let message = format!("`{path}` is not in the table of keys");
        self.report.push(path, &self.at, &message, Some("this is a fault of Convoke's; report it"));
    }

    /// As [`Self::not_in_the_table`]: the table has another type for `key` than the reader.
    fn mistyped<T>(&self, key: &str) -> Option<T> {
        self.not_in_the_table(key);
        None
    }
}
