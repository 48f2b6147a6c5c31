//! The table of keys as the reference page prints it.

use std::fmt::Write as _;

use super::keys::{Default, KEYS, Kind, SECTIONS};
use super::overrides;

/// The table of keys, in Markdown.
#[must_use]
pub fn key_table() -> String {
    let mut page =
        String::from("| key | type | default | since | meaning |\n|---|---|---|---|---|\n");
    for key in KEYS {
        if matches!(key.kind, Kind::Refused(_)) {
            continue;
        }
        let default = match key.default {
            Default::Is(text) => format!("`{text}`"),
            Default::Required => "required".to_owned(),
            Default::Or(words) => words.to_owned(),
        };
        let (path, kind, since, doc) = (key.path, key.kind, key.since, key.doc);
        // Writing to a text cannot fail.
        let _ = writeln!(page, "| `{path}` | {kind} | {default} | {since} | {doc} |");
    }
    for section in SECTIONS {
        let Some(like) = section.like else { continue };
        let (path, doc) = (section.path, section.doc);
        let _ = writeln!(page, "| `{path}` | as `{like}` | as `{like}` | 0.1 | {doc} |");
    }
    page
}

/// The table of the seed's environment variables and the keys that they stand for, in Markdown.
#[must_use]
pub fn variable_table() -> String {
    let mut page =
        String::from("| variable of the seed's | key | variable of ours |\n|---|---|---|\n");
    for key in KEYS {
        let names = key.was.iter().filter(|name| overrides::is_of_the_seed(name));
        for name in names {
            let (path, own) = (key.path, overrides::name_of(key.path));
            let _ = writeln!(page, "| `{name}` | `{path}` | `{own}` |");
        }
    }
    page
}

/// The variables that stand for keys, without those that have a name of the user's in them.
#[must_use]
pub fn variables() -> Vec<String> {
    overrides::known()
}

/// The paths of all keys that can be set; `NAME` stands for a name of the user's.
#[must_use]
pub fn paths() -> Vec<&'static str> {
    let keys = KEYS.iter().filter(|key| !matches!(key.kind, Kind::Refused(_)));
    keys.map(|key| key.path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_a_row_for_each_key() {
        let page = key_table();
        for path in paths() {
            let row = format!("| `{path}` |");
            assert_eq!(page.lines().filter(|line| line.starts_with(&row)).count(), 1, "{path}");
        }
        assert!(
            page.lines().all(|line| line.matches(" | ").count() == 4 || line.starts_with("|-"))
        );
        assert!(variable_table().contains("| `AGENTWEAVE_SERVER_PORT` | `server.port` |"));
        assert!(variables().contains(&"CONVOKE_SERVER__PORT".to_owned()));
    }
}
