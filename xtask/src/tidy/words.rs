//! What no file may mention: places that exist on one machine only, and registries by host.

use super::Problem;
use super::rust_text::is_word;
use super::tree::Tree;

/// This file has to name them.
const SELF: &str = "xtask/src/tidy/words.rs";

/// Words that are wrong everywhere, and the cure.
const FORBIDDEN: &[(&str, &str)] = &[
    // Homes of the machine that somebody worked on.
    ("/root/", "use a path relative to the workspace"),
    // Which registry serves a package is the user's own configuration; a host written here
    // would override a mirror, or give one away.
    (concat!("index.", "crates.io"), "leave the registry to the user's cargo configuration"),
    (concat!("static.", "crates.io"), "leave the registry to the user's cargo configuration"),
    (concat!("files.", "pythonhosted.org"), "leave the registry to the user's pip configuration"),
    (concat!("registry.", "npmjs.org"), "leave the registry to the user's npm configuration"),
];

/// No file mentions anything of [`FORBIDDEN`].
pub(crate) fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, text) in tree.files().filter(|(path, _)| *path != SELF) {
        for (index, line) in text.lines().enumerate() {
            let lower = line.to_lowercase();
            for (word, cure) in FORBIDDEN.iter().filter(|(word, _)| mentions(&lower, word)) {
                problems.push(Problem::new(path, index + 1, format!("mentions `{word}`: {cure}")));
            }
        }
    }
    problems
}

/// A path counts only where it begins: `docs/root/` is a place in a project.
fn mentions(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let goes_on = |c: char| is_word(c) || matches!(c, '.' | '-' | '~' | '}' | ')');
        !word.starts_with('/') || !before.is_some_and(goes_on)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_line(line: &str, expected: usize) {
        let tree = Tree::of(&[("docs/a.md", line), (SELF, line)]);
        assert_eq!(check(&tree).len(), expected, "{line}");
    }

    #[test]
    fn words() {
        check_line("see /root/main/x", 1);
        check_line("cd \"/root/x\"", 1);
        check_line("docs/root/plan.md and ../root/x", 0);
        check_line("https://example.org/root/x", 0);
        check_line("the network and its root/leaf", 0);
        check_line(concat!("https://static.", "crates.io/x from https://crates.io"), 1);
        check_line("the path of a request", 0);
    }
}
