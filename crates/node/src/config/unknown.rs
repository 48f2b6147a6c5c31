//! Refuses the keys that the table does not have, with the one that was probably meant.

use super::keys::{self, Entry, Key as Row, Kind, NAME};
use super::reader::Report;
use super::text::{join, nearest, quote};
use super::yaml::{Node, Value};

/// Refuses the keys of `node` that the table does not have below `pattern`.
pub(super) fn check(node: &Node, path: &str, pattern: &'static str, report: &Report) {
    let Value::Map(entries) = &node.value else { return };
    let is_open = keys::section(pattern).is_some_and(|section| section.is_open);
    for (key, value) in entries {
        let path = join(path, &quote(&key.name));
        match keys::child(pattern, &key.name) {
            Some(Entry::Section(row)) => check(value, &path, row.pattern(), report),
            Some(Entry::Key(Row { kind: Kind::Refused(cure), .. })) => {
                let message = format!("`{path}` cannot be set here");
                report.push(path, &key.at, &message, Some(cure));
            }
            Some(Entry::Key(_)) => {}
            None if is_open => {}
            None => {
                let message = format!("unknown key `{path}`");
                let cure = cure_of_unknown(&key.name, &path, pattern);
                report.push(path, &key.at, &message, Some(&cure));
            }
        }
    }
}

/// What to do about a key that the table does not have.
fn cure_of_unknown(name: &str, path: &str, pattern: &str) -> String {
    /// The words by which the other shapes can be told: sections that only they have.
    const FOREIGN: [&str; 5] = ["agent", "transport", "global", "spiffe", "opa"];
    if pattern.is_empty() && FOREIGN.contains(&name) {
        return "it is of another shape, which `convoke config migrate FILE` turns into this one"
            .to_owned();
    }
    let known = || {
        let known = keys::children(pattern).filter(|(last, entry)| {
            *last != NAME && !matches!(entry, Entry::Key(Row { kind: Kind::Refused(_), .. }))
        });
        known.map(|(last, _)| last)
    };
    if let Some(near) = nearest(name, known()) {
        return format!("did you mean `{near}`?");
    }
    if let Some(row) = keys::KEYS.iter().find(|row| row.was.contains(&path)) {
        return format!("it is `{}` here; `convoke config migrate FILE` rewrites it", row.path);
    }
    format!("known keys are {}", known().collect::<Vec<_>>().join(", "))
}
