//! What the engine says when something is wrong, on one line.

use std::fmt;

/// Longest text of a policy or of its engine that we hand on, in bytes: what an operator reads in
/// one line of a log, and a bound on what a policy can copy from a caller's parameters.
pub(crate) const TEXT_BYTES_MAX: usize = 512;

/// An error of the engine. Its text is several lines: a place (`--> file:line:column`), the line
/// of the policy, a mark below it, and at the end the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    /// Line and column, from 1; zeros if the engine names no place.
    pub(crate) at: (u32, u32),
    /// The message.
    pub(crate) message: String,
}

impl Said {
    pub(crate) fn of(error: &impl fmt::Display) -> Self {
        let text = error.to_string();
        let place = text.lines().find_map(|line| line.trim_start().strip_prefix("--> "));
        let at = place.and_then(|place| {
            let mut parts = place.rsplit(':');
            let column = parts.next()?.trim().parse().ok()?;
            Some((parts.next()?.parse().ok()?, column))
        });
        // One error may stand in another, whose place is then the true one.
        let said = text.lines().rev().find(|line| line.trim_start().starts_with("error: "));
        let last = || text.lines().rev().find(|line| !line.trim().is_empty());
        let last = said.or_else(last).unwrap_or("no message");
        Self {
            at: at.unwrap_or((0, 0)),
            message: tidy(last.trim().trim_start_matches("error: ").trim_end_matches(':')),
        }
    }

    /// The message, behind its place in the file `name`.
    pub(crate) fn in_file(&self, name: &str) -> String {
        format!("{}: {}", place(name, self.at.0), self.message)
    }
}

/// The name among `known` that somebody who wrote `name` probably meant.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| name.replace(['_', '-'], "").to_lowercase();
    let wrote = plain(name);
    let distance = |known: &'a str| (strsim::osa_distance(&wrote, &plain(known)), known);
    // A third of the letters may be wrong, so that a short name is not like any other.
    let (distance, known) = known.map(distance).min()?;
    (distance * 3 <= wrote.chars().count()).then_some(known)
}

/// The file, and the line unless it is 0.
pub(crate) fn place(name: &str, line: u32) -> String {
    if line == 0 { name.to_owned() } else { format!("{name}:{line}") }
}

/// At most [`TEXT_BYTES_MAX`] of `text`, without characters that a terminal would act on.
pub(crate) fn tidy(text: &str) -> String {
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, at: (u32, u32), message: &str) {
        assert_eq!(Said::of(&text), Said { at, message: message.to_owned() });
    }

    #[test]
    fn place_and_message_are_found() {
        check("\n--> a:b.rego:12:3\n   |\n12 | x\n   | ^\nerror: bad\tx\n\n", (12, 3), "bad x");
        check("not a valid rule path", (0, 0), "not a valid rule path");
        check("--> file:x:y\nerror: odd", (0, 0), "odd");
        check("", (0, 0), "no message");
        assert_eq!(Said::of(&"error: x").in_file("a.rego"), "a.rego: x");
        assert_eq!(Said::of(&"--> a.rego:2:1\nerror: x").in_file("a.rego"), "a.rego:2: x");
    }

    #[test]
    fn the_name_that_was_meant_is_found() {
        let check = |name, expected| {
            let known = ["startswith", "endswith", "spiffe_id", "path", "app", "split"];
            assert_eq!(nearest(name, known.into_iter()), expected, "{name}");
        };
        check("starts_with", Some("startswith"));
        check("endsWith", Some("endswith"));
        check("spifeid", Some("spiffe_id"));
        check("pth", Some("path"));
        check("paths", Some("path"));
        check("xyz", None);
        check("http.send", None);
    }

    #[test]
    fn texts_are_short_and_plain() {
        assert_eq!(tidy("a\nb\u{1b}[2J\u{9b}c"), "a b [2J c");
        assert_eq!(tidy(&"ä".repeat(TEXT_BYTES_MAX)), "ä".repeat(TEXT_BYTES_MAX / 2));
        assert_eq!(tidy(&format!("a{}", "ä".repeat(TEXT_BYTES_MAX))).len(), TEXT_BYTES_MAX - 1);
    }
}
