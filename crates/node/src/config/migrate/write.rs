//! Writes a configuration as text, with comments.

use super::super::keys::KEYS;
use super::super::text::quote;
use super::super::yaml::Value;
use super::{Mapped, Shape, Work};

/// Column at which the text of comments ends.
const WIDTH: usize = 96;

pub(super) fn text(work: &Work, name: &str) -> String {
    let mut text = String::new();
    let name = quote(name);
    comment(
        &mut text,
        "",
        &match work.shape {
            Shape::Ours => format!("Made by `convoke config migrate` of {name}."),
            shape => {
                format!("Made by `convoke config migrate` of {name}, which has {}.", shape.words())
            }
        },
    );
    list(&mut text, "To be decided by a person:", work.decisions.iter().cloned());
    let dropped = work.dropped.iter().map(|dropped| {
        let line = dropped.line.map(|line| format!("line {line}, ")).unwrap_or_default();
        format!("{line}`{}`: {}", quote(&dropped.path), dropped.why)
    });
    list(&mut text, "Without a meaning here:", dropped);
    keys(&mut text, &work.mapped);
    text
}

fn list(text: &mut String, head: &str, items: impl Iterator<Item = String>) {
    for (index, item) in items.enumerate() {
        if index == 0 {
            text.push_str("#\n");
            comment(text, "", head);
        }
        comment(text, "- ", &item);
    }
}

/// Writes `sentence` as comment lines, the first of which begins with `mark`.
fn comment(text: &mut String, mark: &str, sentence: &str) {
    let indent = " ".repeat(mark.len());
    let mut line = format!("# {mark}");
    let mut is_empty = true;
    for word in sentence.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = format!("# {indent}");
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    text.push_str(&line);
    text.push('\n');
}

/// Writes the keys, in the order in which they came, each section once.
fn keys(text: &mut String, mapped: &[Mapped]) {
    let mut open: Vec<String> = Vec::new();
    let mut rest: Vec<&Mapped> = mapped.iter().collect();
    // Keys of one mapping stand together even if the table has others between them.
    rest.sort_by_key(|mapped| {
        let segments: Vec<_> = mapped.path.split('.').collect();
        let place = |prefix: &str| {
            let is_at = |path: &str| {
                path == prefix
                    || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.'))
            };
            KEYS.iter().position(|row| is_at(row.path)).unwrap_or(usize::MAX)
        };
        let own = mapped.row.and_then(|own| KEYS.iter().position(|row| row.path == own.path));
        let mut prefix = String::new();
        segments
            .iter()
            .map(|segment| {
                prefix = super::join(&prefix, segment);
                let is_last = prefix.len() == mapped.path.len();
                let place = own.filter(|_| is_last).unwrap_or_else(|| place(&prefix));
                (place, (*segment).to_owned())
            })
            .collect::<Vec<_>>()
    });
    for mapped in rest {
        let segments: Vec<&str> = mapped.path.split('.').collect();
        let Some((last, sections)) = segments.split_last() else { continue };
        let same = open.iter().zip(sections).take_while(|(one, other)| one == *other).count();
        open.truncate(same);
        for section in &sections[same..] {
            if open.is_empty() {
                text.push('\n');
            }
            let indent = "  ".repeat(open.len());
            text.push_str(&format!("{indent}{}:\n", scalar(section)));
            open.push((*section).to_owned());
        }
        if open.is_empty() {
            text.push('\n');
        }
        let indent = "  ".repeat(open.len());
        text.push_str(&format!("{indent}{}: {}", scalar(last), value(&mapped.value)));
        if !mapped.note.is_empty() {
            text.push_str(&format!("  # {}", mapped.note));
        }
        text.push('\n');
    }
}

/// A value on one line. Lists and mappings are written as JSON, which is YAML too.
fn value(value: &Value) -> String {
    match value {
        Value::Text(text) => scalar(text),
        other => other.to_json().to_string(),
    }
}

/// A text, in quotes unless every reader of YAML takes it as text without.
fn scalar(text: &str) -> String {
    const WORDS: [&str; 10] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "~"];
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    let is_time = text.starts_with(|c: char| c.is_ascii_digit())
        && text.ends_with(['s', 'm', 'h'])
        && text.chars().all(|c| c.is_ascii_alphanumeric());
    if is_plain || is_time { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}
