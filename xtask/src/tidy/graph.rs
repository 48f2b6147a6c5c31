//! What must not be in the dependency graph, read from what cargo would build here.

use std::collections::BTreeSet;

use anyhow::Result;

use super::Problem;
use super::tree::Tree;
use crate::process::Workspace;

const LOCK: &str = "Cargo.lock";

/// Packages that must not be built, and why.
///
/// `deny.toml` bans some of them too, for every platform; this needs cargo alone.
const BANNED: &[(&str, &str)] = &[
    ("native-tls", "TLS is rustls everywhere"),
    ("openssl-sys", "TLS is rustls everywhere"),
    ("ring", "aws-lc-rs is the one provider of cryptography, and two make rustls choose neither"),
];

/// Features that must stay off, and why.
const BANNED_FEATURES: &[(&str, &str, &str)] = &[
    ("rustls", "ring", "aws-lc-rs is the one provider of cryptography"),
    ("rustls", "tls12", "the mesh speaks TLS 1.3 alone"),
    (
        "serde_json",
        "arbitrary_precision",
        "it breaks `RawValue` and flattened fields for the whole build",
    ),
];

/// The one place that packages come from, as cargo writes it into its lock file.
const SOURCE: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// A package that this platform builds, with the features it is built with.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Built {
    name: String,
    version: String,
    features: BTreeSet<String>,
}

/// Asks cargo what it would build here for the whole workspace, tests included.
///
/// # Errors
///
/// When cargo fails, for instance because the lock file is behind the manifests.
pub(crate) fn built(workspace: &Workspace) -> Result<BTreeSet<Built>> {
    let listing = workspace.cargo_output(&[
        "tree",
        "--workspace",
        "--locked",
        "--edges",
        "normal,build,dev",
        "--prefix",
        "none",
        "--format",
        "{p}|{f}",
    ])?;
    Ok(listing.lines().filter_map(read_built).collect())
}

/// Reads `rustls v0.23.46 (*)|aws_lc_rs,std`; the mark of a repeated package may also be last.
fn read_built(line: &str) -> Option<Built> {
    let (package, features) = line.split_once('|')?;
    let mut words = package.split_whitespace();
    let name = words.next()?.to_owned();
    let version = words.next()?.trim_start_matches('v').to_owned();
    let features = features.trim_end_matches("(*)").trim();
    let features = features.split(',').filter(|f| !f.is_empty()).map(str::to_owned).collect();
    Some(Built { name, version, features })
}

/// Nothing of [`BANNED`] and no feature of [`BANNED_FEATURES`] is built.
pub(crate) fn check_built(built: &BTreeSet<Built>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for Built { name, version, features } in built {
        for (_, why) in BANNED.iter().filter(|(banned, _)| banned == name) {
            let what = format!(
                "`{name}` {version} would be built: {why}; \
                 `cargo tree --invert {name}` shows who brings it"
            );
            problems.push(Problem::new(LOCK, 1, what));
        }
        for (_, feature, why) in BANNED_FEATURES
            .iter()
            .filter(|(package, feature, _)| package == name && features.contains(*feature))
        {
            let what = format!(
                "`{name}` {version} would be built with `{feature}`: {why}; \
                 `cargo tree --edges features --invert {name}` shows who asks for it"
            );
            problems.push(Problem::new(LOCK, 1, what));
        }
    }
    problems
}

/// Every package of the lock file comes from the public registry.
///
/// A mirror belongs to the machine that uses it, in its own cargo configuration.
pub(crate) fn check_lock(tree: &Tree) -> Vec<Problem> {
    let Some(lock) = tree.text(LOCK) else {
        let what = "missing: a build without it is another build, run `cargo generate-lockfile`";
        return vec![Problem::new(LOCK, 1, what)];
    };
    let foreign = |(index, line): (usize, &str)| {
        let source = line.strip_prefix("source = ")?.trim_matches('"');
        let what = || format!("`{source}` is not the public registry: take the package from there");
        (source != SOURCE).then(|| Problem::new(LOCK, index + 1, what()))
    };
    lock.lines().enumerate().filter_map(foreign).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listing: &str, expected: &[&str]) {
        let built = listing.lines().filter_map(read_built).collect();
        let problems = check_built(&built);
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        for (problem, expected) in problems.iter().zip(expected) {
            assert!(problem.what.contains(expected), "{problem}");
        }
    }

    #[test]
    fn packages_and_features() {
        check("rustls v0.23.46|aws_lc_rs,std\nserde_json v1.0.154|default,std (*)\n\n", &[]);
        check("ring v0.17.14|alloc", &["`ring` 0.17.14"]);
        check("rustls v0.23.46|std,tls12 (*)", &["with `tls12`"]);
        check("serde_json v1.0.1|arbitrary_precision", &["with `arbitrary_precision`"]);
        check("stringy v1.0.0|tls12", &[]);
    }

    fn check_source(line: &str, expected: usize) {
        let lock = format!("[[package]]\n{line}\n");
        assert_eq!(check_lock(&Tree::of(&[(LOCK, &lock)])).len(), expected, "{line}");
    }

    #[test]
    fn sources() {
        check_source(&format!("source = \"{SOURCE}\""), 0);
        check_source("name = \"source\"", 0);
        check_source("source = \"git+https://example.org/x#1\"", 1);
        check_source("source = \"sparse+https://mirror.example.org/\"", 1);
        assert_eq!(check_lock(&Tree::default()).len(), 1);
    }
}
