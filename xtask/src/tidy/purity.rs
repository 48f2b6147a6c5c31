//! The pure crates hold no socket, runtime or clock: time and answers come in as arguments,
//! effects go out as values, so that a simulation runs the real decisions.
//!
//! Clippy knows the clocks by their types (`crates/<pure>/clippy.toml`); this also sees the
//! modules and the dependencies.

use super::Problem;
use super::arrows::Package;
use super::rust_text::{code_only, is_word, line_of, lines_with, without_tests};
use super::tree::Tree;

/// The directories of the crates that promise it.
const PURE: &[&str] = &["crates/model", "crates/engine", "crates/policy"];

/// Packages that bring a runtime, a socket or a file.
const IMPURE_PACKAGES: &[&str] = &[
    "async-std",
    "hyper",
    "hyper-util",
    "mio",
    "reqwest",
    "rusqlite",
    "smol",
    "socket2",
    "tokio",
    "tokio-rustls",
    "tokio-util",
    "tonic",
];

/// What the code may not name, and what to do instead.
const IMPURE_NAMES: &[(&str, &str)] = &[
    ("std::fs", "let the caller read it and pass the text in"),
    ("std::net", "sockets are `convoke-net`'s; for an address as a value use `core::net`"),
    ("std::os::unix::net", "sockets are `convoke-net`'s"),
    ("std::process", "hand the effect out as a value"),
    ("tokio", "a runtime is `convoke-node`'s; hand the effect out as a value"),
    ("hyper", "wire shapes stop at `convoke-a2a`"),
    ("Instant::now", "take the instant as an argument"),
    ("SystemTime::now", "take the instant as an argument"),
];

/// No pure crate depends on something that acts; its tests may.
pub(crate) fn check_dependencies(tree: &Tree, packages: &[Package]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for package in packages.iter().filter(|package| PURE.contains(&package.directory.as_str())) {
        for used in &package.dependencies {
            if IMPURE_PACKAGES.contains(&used.as_str()) {
                let what = format!(
                    "`{}` is pure and may not use `{used}`: take what it would give as an argument",
                    package.name
                );
                problems.push(Problem::new(package.manifest(), package.line(tree, used), what));
            }
        }
    }
    problems
}

/// No pure crate names a socket, a file, a runtime or a clock outside its tests.
pub(crate) fn check_sources(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, text) in tree.ending(".rs").filter(|(path, _)| is_pure(path)) {
        let code = code_only(text);
        let code = without_tests(&code);
        for (name, cure) in IMPURE_NAMES {
            for line in lines_with(code, name) {
                problems.push(Problem::new(
                    path,
                    line,
                    format!("`{name}` in a pure crate: {cure}"),
                ));
            }
        }
        for (line, module) in grouped_imports(code) {
            let named = |(name, _): &&(&str, &str)| name.strip_prefix("std::") == Some(module);
            if let Some((name, cure)) = IMPURE_NAMES.iter().find(named) {
                problems.push(Problem::new(
                    path,
                    line,
                    format!("`{name}` in a pure crate: {cure}"),
                ));
            }
        }
    }
    problems
}

fn is_pure(path: &str) -> bool {
    let inside = PURE.iter().find_map(|directory| path.strip_prefix(directory));
    inside.is_some_and(|rest| rest.starts_with("/src/") && !rest.ends_with("/tests.rs"))
}

/// The modules that stand first in each part of `use std::{a::b, c}`, with their lines.
fn grouped_imports(code: &str) -> Vec<(usize, &str)> {
    const GROUP: &str = "std::{";
    let mut modules = Vec::new();
    for (at, _) in code.match_indices(GROUP) {
        let mut depth = 0;
        let mut start = at + GROUP.len();
        for (offset, c) in code[start..].char_indices() {
            let here = at + GROUP.len() + offset;
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    let part = &code[start..here];
                    let module = part.trim_start();
                    let line = line_of(code, start + part.len() - module.len());
                    let end = module.find(|c| !is_word(c)).unwrap_or(module.len());
                    modules.push((line, &module[..end]));
                    start = here + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    modules
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str, expected: &[usize]) {
        let problems = check_sources(&Tree::of(&[(path, text)]));
        let lines: Vec<usize> = problems.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, expected, "{text}: {problems:?}");
    }

    const INSIDE: &str = "crates/policy/src/lib.rs";

    #[test]
    fn names() {
        check(INSIDE, "use std::time::Duration;\nuse core::net::IpAddr;\n", &[]);
        check(INSIDE, "\nlet now = Instant::now();", &[2]);
        check(INSIDE, "let now = std::time::SystemTime::now();", &[1]);
        check(INSIDE, "use std::fs::File;\nuse tokio::net::TcpStream;", &[1, 2]);
        check(INSIDE, "// std::fs is not for us\nlet s = \"tokio\";", &[]);
    }

    #[test]
    fn groups() {
        check(INSIDE, "use std::{\n    fmt,\n    fs::{self, File},\n    net,\n};", &[3, 4]);
        check(INSIDE, "use std::{collections::{BTreeMap, net}, fmt};", &[]);
    }

    #[test]
    fn tests_and_other_crates_may() {
        check(INSIDE, "fn a() {}\n#[cfg(test)]\nmod tests { use std::fs; }", &[]);
        check("crates/policy/tests/seed.rs", "use std::fs;", &[]);
        check("crates/node/src/lib.rs", "use std::fs;", &[]);
    }

    fn check_uses(directory: &str, used: &str, expected: usize) {
        let package = Package {
            name: "convoke-x".into(),
            directory: directory.into(),
            dependencies: vec![used.into()],
        };
        assert_eq!(check_dependencies(&Tree::default(), &[package]).len(), expected, "{used}");
    }

    #[test]
    fn dependencies() {
        check_uses("crates/engine", "tokio", 1);
        check_uses("crates/engine", "serde", 0);
        check_uses("crates/net", "tokio", 0);
    }
}
