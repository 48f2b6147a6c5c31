//! The form of the files: how long, how finished, how they end.

use super::Problem;
use super::rust_text::{code_only, lines_with};
use super::tree::Tree;

/// Most lines of a Rust file. The house aims at 100 to 400; beyond this a file tells two stories.
const LINES_MAX: usize = 600;

/// Files that may be longer, and why.
const LONG: &[(&str, &str)] = &[];

/// Macros that mark what is not finished.
const UNFINISHED: &[(&str, &str)] = &[
    ("todo!", "finish it, or leave the feature out and say so"),
    ("unimplemented!", "return an error that says what is not supported"),
    ("dbg!", "remove it, or make it a `tracing` event"),
];

/// Directories of files that must stay byte for byte as they are.
const VERBATIM: &[&str] = &["golden", "fixtures"];

/// No Rust file is longer than [`LINES_MAX`], and no exception outlives its file.
pub(crate) fn check_length(tree: &Tree) -> Vec<Problem> {
    check_length_but(tree, LONG)
}

fn check_length_but(tree: &Tree, long: &[(&str, &str)]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, text) in tree.ending(".rs") {
        let lines = text.lines().count();
        let excused = long.iter().any(|(excused, _)| *excused == path);
        if lines > LINES_MAX && !excused {
            let what = format!(
                "{lines} lines, more than {LINES_MAX}: find the second story and give it a file"
            );
            problems.push(Problem::new(path, LINES_MAX + 1, what));
        }
        if lines <= LINES_MAX && excused {
            let what = "is no longer long: take it out of the exceptions of tidy";
            problems.push(Problem::new(path, 1, what));
        }
    }
    for (path, _) in long.iter().filter(|(path, _)| tree.text(path).is_none()) {
        problems.push(Problem::new(*path, 1, "is gone: take it out of the exceptions of tidy"));
    }
    problems
}

/// No code is marked as unfinished.
pub(crate) fn check_unfinished(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, text) in tree.ending(".rs") {
        let code = code_only(text);
        for (name, cure) in UNFINISHED {
            for line in lines_with(&code, name) {
                problems.push(Problem::new(path, line, format!("`{name}`: {cure}")));
            }
        }
    }
    problems
}

/// No line ends in white space or a carriage return, and every file ends in one newline.
pub(crate) fn check_whitespace(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, text) in tree.files() {
        if path.split('/').any(|part| VERBATIM.contains(&part)) || text.is_empty() {
            continue;
        }
        for (index, line) in text.split('\n').enumerate() {
            if line.ends_with(char::is_whitespace) {
                problems.push(Problem::new(path, index + 1, "ends in white space: remove it"));
            }
        }
        let last = text.lines().count();
        if !text.ends_with('\n') {
            problems.push(Problem::new(path, last, "has no newline at its end: add one"));
        } else if text.ends_with("\n\n") {
            problems.push(Problem::new(path, last, "ends in an empty line: remove it"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(found: Vec<Problem>, expected: &[usize]) {
        let lines: Vec<usize> = found.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, expected, "{found:?}");
    }

    #[test]
    fn length() {
        let short = "x\n".repeat(LINES_MAX);
        let long = "x\n".repeat(LINES_MAX + 1);
        let tree = Tree::of(&[("a.rs", &short), ("b.rs", &long), ("c.md", &long)]);
        check(check_length_but(&tree, &[]), &[LINES_MAX + 1]);
        check(check_length_but(&tree, &[("b.rs", "a table")]), &[]);
        let stale = [("a.rs", "was long"), ("b.rs", "a table"), ("d.rs", "was there")];
        check(check_length_but(&tree, &stale), &[1, 1]);
    }

    #[test]
    fn unfinished() {
        let text = "fn a() {\n    todo!()\n}\n// todo!\nfn b() { dbg!(unimplemented!()) }\n";
        check(check_unfinished(&Tree::of(&[("a.rs", text)])), &[2, 5, 5]);
        check(check_unfinished(&Tree::of(&[("a.rs", "const A: &str = \"todo!\";\n")])), &[]);
    }

    fn check_text(path: &str, text: &str, expected: &[usize]) {
        check(check_whitespace(&Tree::of(&[(path, text)])), expected);
    }

    #[test]
    fn whitespace() {
        check_text("a.md", "one\n\ntwo\n", &[]);
        check_text("a.md", "one \n\ttwo\t\n", &[1, 2]);
        check_text("a.md", "one\r\ntwo\n", &[1]);
        check_text("a.md", "one\ntwo", &[2]);
        check_text("a.md", "one\n\n", &[2]);
        check_text("a.md", "", &[]);
        check_text("crates/a/golden/help.txt", "one ", &[]);
    }
}
