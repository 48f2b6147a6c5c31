//! What every crate owes the workspace: its lints, a word in the architecture, one set of
//! clippy settings.

use super::Problem;
use super::tree::Tree;

const ARCHITECTURE: &str = "docs/architecture.md";
const CLIPPY: &str = "clippy.toml";

/// Every package takes the workspace's lints.
pub(crate) fn check_lints(tree: &Tree) -> Vec<Problem> {
    tree.ending("Cargo.toml")
        .filter(|(_, text)| text.lines().any(|line| line.trim() == "[package]"))
        .filter(|(_, text)| !takes_lints(text))
        .map(|(path, _)| {
            Problem::new(
                path,
                1,
                "does not take the workspace's lints: add `[lints]` with `workspace = true`",
            )
        })
        .collect()
}

fn takes_lints(manifest: &str) -> bool {
    let mut table = "";
    manifest.lines().map(str::trim).any(|line| {
        if line.starts_with('[') {
            table = line;
        }
        let line: String = line.split_whitespace().collect();
        (table == "[lints]" && line.starts_with("workspace=true"))
            || (table.is_empty() && line.starts_with("lints.workspace=true"))
    })
}

/// The architecture page has a word for every crate of the house.
pub(crate) fn check_architecture(tree: &Tree) -> Vec<Problem> {
    let Some(page) = tree.text(ARCHITECTURE) else {
        let what = "missing: it says what is where and what is deliberately absent";
        return vec![Problem::new(ARCHITECTURE, 1, what)];
    };
    let explained = |name: &str| {
        page.contains(&format!("`{name}`"))
            || page.lines().any(|line| {
                line.contains(&format!("crates/{name}"))
                    || line.split_whitespace().next() == Some(name)
            })
    };
    tree.crates()
        .filter(|name| !explained(name))
        .map(|name| {
            let what =
                format!("says nothing of `crates/{name}`: write what it is and what earned it");
            Problem::new(ARCHITECTURE, 1, what)
        })
        .collect()
}

/// A crate's own `clippy.toml` repeats the workspace's switches.
///
/// Clippy reads the nearest file and that one alone, so that a switch left out would be off.
pub(crate) fn check_clippy_settings(tree: &Tree) -> Vec<Problem> {
    let Some(shared) = tree.text(CLIPPY) else { return Vec::new() };
    let switches: Vec<&str> = shared.lines().filter(|line| is_switch(line)).collect();
    let mut problems = Vec::new();
    for (path, own) in tree.ending("/clippy.toml") {
        for switch in &switches {
            if !own.lines().any(|line| line == *switch) {
                let what = format!(
                    "lacks `{switch}`: this file takes the place of the workspace's, \
                     repeat its switches"
                );
                problems.push(Problem::new(path, 1, what));
            }
        }
    }
    problems
}

fn is_switch(line: &str) -> bool {
    line.ends_with(" = true") || line.ends_with(" = false")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_lints_of(manifest: &str, expected: usize) {
        let tree = Tree::of(&[("crates/x/Cargo.toml", manifest)]);
        assert_eq!(check_lints(&tree).len(), expected, "{manifest}");
    }

    #[test]
    fn lints() {
        check_lints_of("[package]\nname = \"x\"\n\n[lints]\nworkspace = true\n", 0);
        check_lints_of("lints.workspace = true\n[package]\n", 0);
        check_lints_of("[package]\n[lints]\n# none\n[features]\nworkspace = true\n", 1);
        check_lints_of("[package]\n[dependencies]\n", 1);
        check_lints_of("[workspace]\n", 0);
    }

    fn check_page(page: &str, expected: usize) {
        let tree = Tree::of(&[(ARCHITECTURE, page), ("crates/net/Cargo.toml", "")]);
        assert_eq!(check_architecture(&tree).len(), expected, "{page}");
    }

    #[test]
    fn architecture() {
        check_page("| `net` | accept loop |\n", 0);
        check_page("  net        accept loop\n", 0);
        check_page("[crates/net](../crates/net)\n", 0);
        check_page("the internet of agents\n", 1);
        assert_eq!(check_architecture(&Tree::default()).len(), 1);
    }

    fn check_clippy(own: &str, expected: usize) {
        let shared = "allow-unwrap-in-tests = true\ndisallowed-methods = []\n";
        let tree = Tree::of(&[(CLIPPY, shared), ("crates/net/clippy.toml", own)]);
        assert_eq!(check_clippy_settings(&tree).len(), expected, "{own}");
    }

    #[test]
    fn clippy_settings() {
        check_clippy("allow-unwrap-in-tests = true\n", 0);
        check_clippy("allow-unwrap-in-tests = false\n", 1);
        check_clippy("disallowed-methods = []\n", 1);
    }
}
