//! Environment variables that stand for keys: they are put into the tree of the file, so that what
//! reads it reads them too and names them where they are wrong.
//!
//! `CONVOKE_SERVER__PORT` is `server.port`: levels are parted by `__`. The seed's `AGENTWEAVE_…`
//! names are those that the table of keys lists. `CONVOKE_…` goes before `AGENTWEAVE_…`, and that
//! before the file.

use std::ffi::OsStr;

use super::environment::Variables;
use super::foreign::translate;
use super::keys::{self, Entry, KEYS, Key as Row, Kind, NAME};
use super::reader::Report;
use super::text::{nearest, quote};
use super::yaml::{Key, Node, Place, Value};

/// What our variables begin with.
const OURS: &str = "CONVOKE_";

/// What the seed's variables begin with.
const SEED: &str = "AGENTWEAVE_";

/// Variables of ours that are no keys: the log's filter, the parent of data directories, and what
/// tests and documentation are told, whose processes inherit it. A test finds those that lack.
const NOT_KEYS: [&str; 6] = [
    "CONVOKE_DATA_DIR",
    "CONVOKE_DIFFERENTIAL_POLICIES",
    "CONVOKE_LOG",
    "CONVOKE_ROTATION_SECONDS",
    "CONVOKE_SEEDS",
    "CONVOKE_WRITE_CERTIFICATES",
];

/// What the names of variables begin with that only tests set.
const TESTS: &str = "CONVOKE_TEST_";

/// Puts what the variables say into `tree`, and returns what is worth a warning.
pub(super) fn apply(tree: &mut Node, variables: &Variables, report: &Report) -> Vec<String> {
    let mut notes = Vec::new();
    for (name, value) in variables.with_prefix(SEED) {
        let Some(row) = KEYS.iter().find(|row| row.was.contains(&name)) else {
            notes.push(format!("the environment variable {} has no meaning here", quote(name)));
            continue;
        };
        let Some(text) = utf8(name, value, report) else { continue };
        if name == "AGENTWEAVE_DEBUG" && matches!(text, "0" | "false" | "no") {
            continue;
        }
        match translate(row, text) {
            Ok(text) => {
                put(tree, &row.path.split('.').collect::<Vec<_>>(), name, row.value_of(text))
            }
            Err(why) => {
                let message = format!("`{}` cannot be `{}`", row.path, quote(text));
                report.push(row.path.to_owned(), &Place::variable(name), &message, Some(why));
            }
        }
    }
    for (name, value) in variables.with_prefix(OURS) {
        if NOT_KEYS.contains(&name) || name.starts_with(TESTS) || is_of_a_service(name, value) {
            continue;
        }
        let Some(text) = utf8(name, value, report) else { continue };
        match resolve(tree, &name[OURS.len()..]) {
            Some((path, row)) => {
                let value =
                    row.map_or_else(|| Value::Text(text.to_owned()), |row| row.value_of(text));
                put(tree, &path.iter().map(String::as_str).collect::<Vec<_>>(), name, value);
            }
            None => {
                let message = format!("{} is no variable that stands for a key", quote(name));
                let known = known();
                let cure = match nearest(name, known.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean {near}?"),
                    None => "CONVOKE_SERVER__PORT is `server.port`; `convoke config show FILE` \
                             lists the keys"
                        .to_owned(),
                };
                report.push(String::new(), &Place::variable(name), &message, Some(&cure));
            }
        }
    }
    notes
}

fn utf8<'v>(name: &str, value: &'v OsStr, report: &Report) -> Option<&'v str> {
    let text = value.to_str();
    if text.is_none() {
        let message = format!("the value of {} is not UTF-8", quote(name));
        report.push(String::new(), &Place::variable(name), &message, None);
    }
    text
}

/// The path in `tree` that the rest of a variable's name stands for, and its row of the table;
/// without a row it is a key of the user's own.
fn resolve(tree: &Node, rest: &str) -> Option<(Vec<String>, Option<&'static Row>)> {
    let mut path = Vec::new();
    let mut pattern = "";
    let mut here = Some(tree);
    let mut segments = rest.split("__").peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() || segment.bytes().any(|byte| byte.is_ascii_lowercase()) {
            return None;
        }
        let lower = segment.to_ascii_lowercase();
        let is_last = segments.peek().is_none();
        let entry = keys::child(pattern, &lower);
        let is_named = entry.is_some_and(|entry| last(entry) == NAME);
        let name = if is_named { existing(here, &lower).unwrap_or(lower) } else { lower };
        here = here.and_then(|node| node.entry(&name));
        path.push(name);
        match entry {
            Some(Entry::Section(row)) if !is_last => pattern = row.pattern(),
            Some(Entry::Key(row)) if is_last && !matches!(row.kind, Kind::Refused(_)) => {
                return Some((path, Some(row)));
            }
            None if is_last && keys::section(pattern).is_some_and(|row| row.is_open) => {
                return Some((path, None));
            }
            _ => return None,
        }
    }
    None
}

fn last(entry: Entry) -> &'static str {
    let path = match entry {
        Entry::Key(row) => row.path,
        Entry::Section(row) => row.path,
    };
    path.rsplit('.').next().unwrap_or(path)
}

/// The key of `node` that `lower` means: a variable's name has neither small letters nor `-`.
fn existing(node: Option<&Node>, lower: &str) -> Option<String> {
    let Value::Map(entries) = &node?.value else { return None };
    let normal = |name: &str| name.to_ascii_lowercase().replace(['-', '.'], "_");
    let found = entries.iter().find(|(key, _)| normal(&key.name) == lower);
    found.map(|(key, _)| key.name.clone())
}

/// Puts `value` at `path`, making the mappings on the way. What is no mapping is left alone: the
/// reader says what is wrong with it.
fn put(tree: &mut Node, path: &[&str], variable: &str, value: Value) {
    let at = Place::variable(variable);
    let mut here = tree;
    for (index, name) in path.iter().enumerate() {
        if matches!(here.value, Value::Null) {
            here.value = Value::Map(Vec::new());
        }
        let Value::Map(entries) = &mut here.value else { return };
        let found = entries.iter().position(|(key, _)| key.name == *name);
        let found = found.unwrap_or_else(|| {
            let key = Key { at: at.clone(), name: (*name).to_owned() };
            entries.push((key, Node { at: at.clone(), value: Value::Null }));
            entries.len() - 1
        });
        here = &mut entries[found].1;
        if index + 1 == path.len() {
            *here = Node { at: at.clone(), value: value.clone() };
        }
    }
}

/// The names of all variables that stand for keys, but for those with a name of the user's.
pub(super) fn known() -> Vec<String> {
    let is_plain = |row: &&Row| {
        !row.path.contains(NAME) && row.path != "data_dir" && !matches!(row.kind, Kind::Refused(_))
    };
    KEYS.iter().filter(is_plain).map(|row| name_of(row.path)).collect()
}

/// The variable that stands for the key at `path`.
pub(super) fn name_of(path: &str) -> String {
    format!("{OURS}{}", path.to_ascii_uppercase().replace('.', "__"))
}

/// Whether `name` is a variable of the seed's, and not a key of another shape.
pub(super) fn is_of_the_seed(name: &str) -> bool {
    name.starts_with(SEED)
}

/// Whether `name` is a variable of ours that is no key, for the test that looks for others.
#[cfg(test)]
pub(super) fn is_known_otherwise(name: &str) -> bool {
    NOT_KEYS.contains(&name) || name.starts_with(TESTS)
}

/// Whether Kubernetes made the variable, for a service whose name begins with `convoke`: it gives
/// every container `<SERVICE>_SERVICE_HOST`, `<SERVICE>_PORT` and the like.
///
/// Source: the Kubernetes documentation, "Service", section on environment variables.
fn is_of_a_service(name: &str, value: &OsStr) -> bool {
    let is_link = || {
        value.to_str().is_some_and(|text| text.starts_with("tcp://") || text.starts_with("udp://"))
    };
    let has_number = || {
        name.split("_PORT_")
            .nth(1)
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    !name.contains("__")
        && (name.ends_with("_SERVICE_HOST")
            || name.contains("_SERVICE_PORT")
            || has_number()
            || (name.ends_with("_PORT") && is_link()))
}
