//! The keys of a configuration: the one table from which the reader, the check for unknown keys,
//! the JSON Schema, the reference page and the overrides by environment variables come.

mod sections;
mod table;

use std::fmt;
use std::time::Duration;

use super::text::{duration, size};
use super::yaml::Value;

pub(super) use sections::SECTIONS;
pub(super) use table::KEYS;

/// The segment of a path that stands for a name of the user's choosing.
pub(super) const NAME: &str = "NAME";

/// One key of the table.
#[derive(Debug)]
pub(super) struct Key {
    /// Where it is written, with dots: `agent_registry.NAME.address`.
    pub(super) path: &'static str,
    pub(super) kind: Kind,
    pub(super) default: Default,
    /// What it means: part of a sentence, as the reference page prints it.
    pub(super) doc: &'static str,
    /// The first version that has it.
    pub(super) since: &'static str,
    /// What the same is called elsewhere: keys of the reference's other shapes, and the seed's
    /// environment variables, in capitals.
    pub(super) was: &'static [&'static str],
}

/// One mapping of the table.
#[derive(Debug)]
pub(super) struct SectionKey {
    pub(super) path: &'static str,
    pub(super) doc: &'static str,
    /// The section whose keys this one has too, if its own are not in the table.
    pub(super) like: Option<&'static str>,
    /// Whether keys that the table does not have are the user's own.
    pub(super) is_open: bool,
}

/// What a value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text of some form, which the reader parses; the word is for the reference page.
    Text(&'static str),
    /// One of these words; case is ignored.
    Words(&'static [&'static str]),
    /// `true` or `false`.
    Flag,
    /// A whole number in this range.
    Number(u64, u64),
    /// A number of bytes in this range, also as `4MiB`; with `never` if the flag says so.
    Size(u64, u64, bool),
    /// A time in this range of milliseconds, as `10s`; with `never` if the flag says so.
    Duration(u64, u64, bool),
    /// A number from 0 to 1.
    Share,
    /// A list of texts.
    Texts,
    /// A key of another shape that is known and refused; the text is the cure.
    Refused(&'static str),
}

/// What holds when a key is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Default {
    /// This value, as one would write it.
    Is(&'static str),
    /// The key has to be written.
    Required,
    /// Something that the reader works out, or nothing; the words are for the reference page.
    Or(&'static str),
}

/// What stands under a path of the table.
#[derive(Debug, Clone, Copy)]
pub(super) enum Entry {
    Key(&'static Key),
    Section(&'static SectionKey),
}

/// The word for "no such time" and "no such size".
pub(super) const NEVER: &str = "never";

/// The key at `path` of the table.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// What `section` has directly below it, in the order of the table; the root is the empty path.
/// A key whose name the user chooses comes as [`NAME`].
pub(super) fn children(section: &str) -> impl Iterator<Item = (&'static str, Entry)> + '_ {
    let keys = KEYS.iter().map(|key| (key.path, Entry::Key(key)));
    let sections = SECTIONS.iter().map(|section| (section.path, Entry::Section(section)));
    sections.chain(keys).filter_map(move |(path, entry)| {
        let (parent, last) = path.rsplit_once('.').unwrap_or(("", path));
        (parent == section && !last.is_empty()).then_some((last, entry))
    })
}

/// What `name` is directly below `section`: the entry of that name, else the one for any name.
pub(super) fn child(section: &str, name: &str) -> Option<Entry> {
    let mut any = None;
    for (last, entry) in children(section) {
        if last == name {
            return Some(entry);
        }
        if last == NAME {
            any = Some(entry);
        }
    }
    any
}

/// The section at `path`, whose keys are those below [`SectionKey::pattern`].
pub(super) fn section(path: &str) -> Option<&'static SectionKey> {
    SECTIONS.iter().find(|section| section.path == path)
}

impl SectionKey {
    /// The path below which the table has this section's keys.
    pub(super) fn pattern(&self) -> &'static str {
        self.like.unwrap_or(self.path)
    }
}

impl Key {
    /// Whether `value` is what holds when the key is not written.
    pub(super) fn is_default(&self, value: &Value) -> bool {
        let Default::Is(text) = self.default else { return false };
        match (self.kind, value) {
            (Kind::Words(_), Value::Text(written)) => written.eq_ignore_ascii_case(text),
            (Kind::Duration(..), Value::Text(written)) => {
                written == text || duration(written).is_some_and(|own| Some(own) == duration(text))
            }
            (Kind::Size(..), Value::Text(written)) => {
                written == text || size(written).is_some_and(|own| Some(own) == size(text))
            }
            (Kind::Size(..), Value::Number(written)) => {
                written.as_u64().is_some_and(|own| Some(own) == size(text))
            }
            (Kind::Share, Value::Number(written)) => written.as_f64() == text.parse().ok(),
            _ => value.to_json() == self.value_of(text).to_json(),
        }
    }

    /// The value that `text` stands for where there are no types: in an environment variable and
    /// in the table's own defaults. What does not fit stays text, which the reader then refuses.
    pub(super) fn value_of(&self, text: &str) -> Value {
        let text_value = || Value::Text(text.to_owned());
        match self.kind {
            Kind::Flag => match text {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                _ => text_value(),
            },
            Kind::Number(..) | Kind::Size(..) => text
                .parse::<u64>()
                .map_or_else(|_| text_value(), |number| Value::Number(number.into())),
            Kind::Share => text
                .parse::<f64>()
                .ok()
                .and_then(serde_json::Number::from_f64)
                .map_or_else(text_value, Value::Number),
            Kind::Texts => Value::List(
                text.split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(|item| super::yaml::Node::bare(Value::Text(item.to_owned())))
                    .collect(),
            ),
            Kind::Text(_) | Kind::Words(_) | Kind::Duration(..) | Kind::Refused(_) => text_value(),
        }
    }
}

impl fmt::Display for Kind {
    /// The kind as the reference page has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_never = |never: bool| if never { ", or `never`" } else { "" };
        match self {
            Self::Text(what) => f.write_str(what),
            Self::Words(words) => {
                for (index, word) in words.iter().enumerate() {
                    let between = match index {
                        0 => "",
                        _ if index + 1 == words.len() => " or ",
                        _ => ", ",
                    };
                    write!(f, "{between}`{word}`")?;
                }
                Ok(())
            }
            Self::Flag => f.write_str("`true` or `false`"),
            Self::Number(min, max) => write!(f, "{min} to {max}"),
            Self::Size(min, max, never) => {
                write!(f, "size, {} to {}{}", Bytes(*min), Bytes(*max), or_never(*never))
            }
            Self::Duration(min, max, never) => {
                write!(f, "duration, {} to {}{}", Millis(*min), Millis(*max), or_never(*never))
            }
            Self::Share => f.write_str("0.0 to 1.0"),
            Self::Texts => f.write_str("list"),
            Self::Refused(_) => f.write_str("refused"),
        }
    }
}

/// A number of bytes, written with the largest unit that divides it.
pub(super) struct Bytes(pub(super) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = SIZE_UNITS.iter().find(|(_, bytes)| self.0 > 0 && self.0.is_multiple_of(*bytes));
        match unit {
            Some((name, bytes)) => write!(f, "{}{name}", self.0 / bytes),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A number of milliseconds, written with the largest unit that divides it.
pub(super) struct Millis(pub(super) u64);

impl Millis {
    pub(super) fn of(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = TIME_UNITS.iter().find(|(_, millis)| self.0.is_multiple_of(*millis));
        match unit {
            Some((name, millis)) if self.0 > 0 => write!(f, "{}{name}", self.0 / millis),
            _ => write!(f, "{}ms", self.0),
        }
    }
}

/// The units of sizes, the largest first, in bytes.
pub(super) const SIZE_UNITS: [(&str, u64); 6] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
];

/// The units of durations, the largest first, in milliseconds.
pub(super) const TIME_UNITS: [(&str, u64); 4] =
    [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_table_is_a_tree_without_doubles() {
        let mut seen = BTreeSet::new();
        let paths = KEYS.iter().map(|key| key.path).chain(SECTIONS.iter().map(|s| s.path));
        for path in paths {
            assert!(seen.insert(path), "{path} is there twice");
        }
        for path in &seen {
            if let Some((parent, _)) = path.rsplit_once('.') {
                assert!(section(parent).is_some(), "{path} has no section above it");
            }
        }
        for section in SECTIONS {
            assert!(children(section.pattern()).next().is_some(), "{} is empty", section.path);
        }
    }

    #[test]
    fn every_row_says_what_it_is() {
        for key in KEYS {
            assert!(!key.doc.is_empty() && !key.doc.ends_with('.'), "{}", key.path);
            assert!(!key.since.is_empty(), "{}", key.path);
            assert!(!key.doc.contains('|'), "{} would break the page's table", key.path);
        }
    }

    #[test]
    fn a_default_may_be_written_in_other_words() {
        let check = |path: &str, value: Value, expected: bool| {
            assert_eq!(find(path).unwrap().is_default(&value), expected, "{path}: {value:?}");
        };
        let text = |text: &str| Value::Text(text.to_owned());
        check("server.port", Value::Number(8443.into()), true);
        check("server.port", Value::Number(8444.into()), false);
        check("authorization.engine", text("OPA"), true);
        check("authorization.engine", text("rego"), false);
        check("authorization.reload_interval", text("1000ms"), true);
        check("authorization.reload_interval", text("never"), false);
        check("calls.cache_ttl", text("never"), true);
        check("server.limits.body_bytes_max", text("4096KiB"), true);
        check("server.limits.body_bytes_max", Value::Number((4 << 20).into()), true);
        check("server.limits.body_bytes_max", text("4MB"), false);
        check("observability.logging.sampling_rate", Value::Number(1.into()), true);
        check("observability.audit.sync", Value::Bool(false), true);
        check("observability.audit.sync", Value::Bool(true), false);
        // It has no default to be compared with.
        check("authorization.policy_file", text("none"), false);
    }

    #[test]
    fn numbers_are_written_with_their_largest_unit() {
        for (millis, expected) in
            [(100, "100ms"), (75_000, "75s"), (86_400_000, "24h"), (60_000, "1m"), (0, "0ms")]
        {
            assert_eq!(Millis(millis).to_string(), expected);
        }
        for (bytes, expected) in
            [(4 << 20, "4MiB"), (1024, "1KiB"), (1000, "1KB"), (1500, "1500"), (0, "0")]
        {
            assert_eq!(Bytes(bytes).to_string(), expected);
        }
    }
}
