//! Reads the keys of a YAML tree and collects what is wrong with them.
//!
//! A key is known because it is asked for: [`Section::finish`] refuses every key that was not, so
//! there is no second list of keys that could disagree with the code.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::error::Problem;
use super::yaml::{Key, Node, Place, Value};
use crate::observe::logging::push_plain;

/// Longest piece of the file that a message repeats, in characters.
const QUOTE_CHARS_MAX: usize = 64;

/// Shortest duration that makes sense for a limit.
const DURATION_MIN: Duration = Duration::from_millis(100);

/// Longest duration that still is a limit.
const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);

/// The problems found so far; sections of one file share them.
pub(super) type Problems = RefCell<Vec<Problem>>;

/// One mapping of the file, or an absent one, which reads as an empty one.
pub(super) struct Section<'a> {
    path: String,
    at: Place,
    entries: &'a [(Key, Node)],
    asked: Vec<&'static str>,
    /// There is something here that is not a mapping; that is the one problem to report.
    is_wrong: bool,
    problems: &'a Problems,
}

impl<'a> Section<'a> {
    /// The mapping at the top of the file.
    pub(super) fn root(node: &'a Node, problems: &'a Problems) -> Self {
        Self::of(String::new(), Some(node), problems)
    }

    fn of(path: String, node: Option<&'a Node>, problems: &'a Problems) -> Self {
        let at = node.map(|node| node.at).unwrap_or_default();
        let mut section =
            Self { path, at, entries: &[], asked: Vec::new(), is_wrong: false, problems };
        match node.map(|node| &node.value) {
            None => {}
            Some(Value::Map(entries)) => section.entries = entries,
            Some(other) => {
                section.is_wrong = true;
                let what = match section.path.as_str() {
                    "" => "the file".to_owned(),
                    path => format!("`{path}`"),
                };
                section.push("", at, format!("{what} is {}, not a mapping", other.kind()), None);
            }
        }
        section
    }

    /// The mapping under `key`.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        let node = self.node(key);
        Section::of(self.path_of(key), node, self.problems)
    }

    /// Whether something else than a mapping stands here.
    pub(super) fn is_wrong(&self) -> bool {
        self.is_wrong
    }

    /// Whether `key` is written and not empty.
    pub(super) fn has(&mut self, key: &'static str) -> bool {
        self.node(key).is_some()
    }

    /// The entries of the mapping under `key`, whose keys the user chooses.
    pub(super) fn named_sections(&mut self, key: &'static str) -> Vec<(&'a str, Section<'a>)> {
        let outer = self.section(key);
        let named = |(key, node): &'a (Key, Node)| {
            (
                key.name.as_str(),
                Section::of(outer.path_of(&quote(&key.name)), Some(node), outer.problems),
            )
        };
        outer.entries.iter().map(named).collect()
    }

    /// The text under `key`, parsed; `parse` says what the text should have been.
    pub(super) fn parsed<T, E: std::fmt::Display>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let node = self.node(key)?;
        let Value::Text(text) = &node.value else {
            let found = node.value.to_json().to_string();
            let cure = match node.value {
                Value::Number(_) | Value::Bool(_) => {
                    Some("put it in quotes to make it text".to_owned())
                }
                _ => None,
            };
            let message = match cure {
                Some(_) => {
                    format!("`{}` is {} where text is expected", self.path_of(key), quote(&found))
                }
                None => format!("`{}` is {}, not text", self.path_of(key), node.value.kind()),
            };
            self.push(key, node.at, message, cure);
            return None;
        };
        match parse(text) {
            Ok(value) => Some(value),
            Err(why) => {
                let message = format!("`{}` is `{}`: {why}", self.path_of(key), quote(text));
                self.push(key, node.at, message, None);
                None
            }
        }
    }

    /// The text under `key`; empty text and control characters are refused.
    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        self.parsed(key, |text| {
            if text.trim().is_empty() {
                Err("it has to say something")
            } else if text.chars().any(char::is_control) {
                Err("it has a control character")
            } else {
                Ok(text.to_owned())
            }
        })
    }

    /// The whole number under `key`, if it is in `range`.
    pub(super) fn number(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let node = self.node(key)?;
        let number = match &node.value {
            Value::Number(number) => number.as_u64().filter(|number| range.contains(number)),
            _ => None,
        };
        if number.is_none() {
            let found = node.value.to_json().to_string();
            let message = format!(
                "`{}` is {}, not a whole number from {} to {}",
                self.path_of(key),
                quote(&found),
                range.start(),
                range.end()
            );
            self.push(key, node.at, message, None);
        }
        number
    }

    /// The boolean under `key`.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        let node = self.node(key)?;
        if let Value::Bool(value) = node.value {
            return Some(value);
        }
        let found = node.value.to_json().to_string();
        let message = format!("`{}` is {}, not true or false", self.path_of(key), quote(&found));
        self.push(key, node.at, message, None);
        None
    }

    /// One of `words` under `key`; case is ignored.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let text = self.text(key)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(&text)) {
            return Some(*value);
        }
        let names = words.iter().map(|(word, _)| *word);
        let known = names.clone().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        let message = format!("`{}` is `{}`, not one of {known}", self.path_of(key), quote(&text));
        let cure = nearest(&text, names).map(|word| format!("did you mean `{word}`?"));
        self.problem(key, message, cure.as_deref());
        None
    }

    /// The duration under `key`, written as `10s` or `500ms`.
    pub(super) fn duration(&mut self, key: &'static str) -> Option<Duration> {
        self.parsed(key, |text| {
            let value = duration(text).ok_or_else(|| {
                "a duration is a whole number with a unit: `500ms`, `10s`, `5m`, `1h`".to_owned()
            })?;
            if (DURATION_MIN..=DURATION_MAX).contains(&value) {
                Ok(value)
            } else {
                Err(format!("a duration here is from {DURATION_MIN:?} to {DURATION_MAX:?}"))
            }
        })
    }

    /// The entries that were not asked for, as JSON; they are known from now on.
    pub(super) fn rest(self) -> Vec<(String, serde_json::Value)> {
        let rest = self.entries.iter().filter(|(key, _)| !self.asked.contains(&key.name.as_str()));
        rest.map(|(key, node)| (key.name.clone(), node.value.to_json())).collect()
    }

    /// Refuses the keys that were not asked for.
    pub(super) fn finish(self) {
        for (key, _) in self.entries {
            if self.asked.contains(&key.name.as_str()) {
                continue;
            }
            let path = self.path_of(&quote(&key.name));
            let cure = match nearest(&key.name, self.asked.iter().copied()) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("known keys are {}", self.asked.join(", ")),
            };
            let (line, column) = key.at.known();
            let message = format!("unknown key `{path}`");
            self.problems.borrow_mut().push(Problem {
                path,
                line,
                column,
                message,
                cure: Some(cure),
            });
        }
    }

    /// Says that `key` is missing.
    pub(super) fn missing(&self, key: &'static str, cure: &str) {
        if self.is_wrong {
            return;
        }
        let message = format!("`{}` is missing", self.path_of(key));
        self.push(key, self.at, message, Some(cure.to_owned()));
    }

    /// Says what is wrong with the value of `key`.
    pub(super) fn problem(&self, key: &str, message: String, cure: Option<&str>) {
        let node = self.entries.iter().find(|(found, _)| found.name == key);
        let at = node.map_or(self.at, |(_, node)| node.at);
        self.push(key, at, message, cure.map(str::to_owned));
    }

    fn push(&self, key: &str, at: Place, message: String, cure: Option<String>) {
        let path = if key.is_empty() { self.path.clone() } else { self.path_of(key) };
        let (line, column) = at.known();
        // What a parser says of a text can repeat a character of it.
        let mut plain = String::new();
        push_plain(&mut plain, &message);
        self.problems.borrow_mut().push(Problem { path, line, column, message: plain, cure });
    }

    /// The value of `key`; an empty one counts as absent, as in `policy_file:` with nothing after.
    fn node(&mut self, key: &'static str) -> Option<&'a Node> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        let (_, node) = self.entries.iter().find(|(found, _)| found.name == key)?;
        (!matches!(node.value, Value::Null)).then_some(node)
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
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
pub(super) fn nearest(
    text: &str,
    known: impl Iterator<Item = &'static str>,
) -> Option<&'static str> {
    if text.len() > QUOTE_CHARS_MAX {
        return None;
    }
    let text = text.to_ascii_lowercase();
    known
        .map(|word| (strsim::damerau_levenshtein(&text, word), word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// `500ms`, `10s`, `5m` or `1h`.
fn duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
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
}
