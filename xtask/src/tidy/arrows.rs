//! Which crate may use which: the directions of the house, and how long a chain may be.
//!
//! Dev-dependencies are no arrows: a test may introduce crates to each other, as `node` does.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::Problem;
use super::tree::Tree;
use crate::process::Workspace;

/// What each package of ours may depend on, also of ours.
///
/// The crates in the middle (`identity`, `a2a`, `journal`, `agent`, `engine`, `policy`) never
/// see each other: `client`, for one who calls, and `node`, for one who serves, introduce them.
const ALLOWED: &[(&str, &[&str])] = &[
    ("convoke-model", &[]),
    ("convoke-macros", &[]),
    ("convoke-engine", &["convoke-model"]),
    ("convoke-policy", &["convoke-model"]),
    ("convoke-net", &["convoke-model"]),
    ("convoke-journal", &["convoke-model"]),
    ("convoke-agent", &["convoke-model", "convoke-macros"]),
    ("convoke-identity", &["convoke-model"]),
    ("convoke-a2a", &["convoke-model"]),
    (
        "convoke-client",
        &["convoke-model", "convoke-net", "convoke-identity", "convoke-a2a", "convoke-agent"],
    ),
    (
        "convoke-node",
        &[
            "convoke-model",
            "convoke-engine",
            "convoke-policy",
            "convoke-net",
            "convoke-journal",
            "convoke-agent",
            "convoke-identity",
            "convoke-a2a",
            "convoke-client",
        ],
    ),
    (
        "convoke",
        &[
            "convoke-model",
            "convoke-macros",
            "convoke-net",
            "convoke-agent",
            "convoke-identity",
            "convoke-a2a",
            "convoke-client",
            "convoke-node",
            // Its test utilities ask a policy without a node.
            "convoke-policy",
        ],
    ),
    (
        "convoke-cli",
        &[
            "convoke",
            "convoke-model",
            "convoke-net",
            "convoke-agent",
            "convoke-identity",
            "convoke-a2a",
            "convoke-client",
            "convoke-node",
            // A policy is checked, explained and tested without a node.
            "convoke-policy",
            // A journal is looked after without a node.
            "convoke-journal",
            // The demo runs the example, so that what it shows is what a user reads.
            "document-pipeline",
        ],
    ),
    ("document-pipeline", &["convoke"]),
    ("xtask", &[]),
];

/// Packages that measure, or torture, and may therefore look at everything.
const UNBOUND: &[&str] = &["convoke-bench", "convoke-torture"];

/// Where [`ALLOWED`] stands, for whoever has to change it.
const TABLE: &str = "xtask/src/tidy/arrows.rs";

/// Most arrows from a crate of the house to one below it, one after the other.
///
/// Source: the house's plan. Each arrow is a wait in a parallel build and a border to explain.
const CHAIN_MAX: usize = 5;

/// A package of the workspace and what it uses directly, dev-dependencies aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// From the workspace, with `/` between the parts.
    pub(crate) directory: String,
    pub(crate) dependencies: Vec<String>,
}

impl Package {
    /// The path of its manifest from the workspace.
    pub(crate) fn manifest(&self) -> String {
        format!("{}/Cargo.toml", self.directory)
    }

    /// The line of its manifest that names a dependency, or the first.
    pub(crate) fn line(&self, tree: &Tree, dependency: &str) -> usize {
        let names = |line: &str| {
            line.trim_start()
                .strip_prefix(dependency)
                .is_some_and(|rest| rest.starts_with([' ', '=', '.']))
        };
        let text = tree.text(&self.manifest()).unwrap_or_default();
        text.lines().position(names).map_or(1, |index| index + 1)
    }
}

/// Asks cargo for the packages of the workspace, with every feature on.
///
/// # Errors
///
/// When cargo fails, or says something of another form than its manual's.
pub(crate) fn packages(workspace: &Workspace) -> Result<Vec<Package>> {
    let listing = workspace.cargo_output(&[
        "tree",
        "--workspace",
        "--all-features",
        "--locked",
        "--edges",
        "normal,build",
        "--depth",
        "1",
        "--no-dedupe",
        "--prefix",
        "depth",
        "--format",
        "{p}",
    ])?;
    let root = workspace.root().to_str().context("the workspace's path is not UTF-8")?;
    read_packages(&listing, root)
}

/// Reads lines such as `0convoke-net v0.1.0 (/home/me/convoke/crates/net)`, where the digit
/// is the depth: 0 for a package of the workspace, 1 for what it uses.
fn read_packages(listing: &str, root: &str) -> Result<Vec<Package>> {
    let mut packages: Vec<Package> = Vec::new();
    for line in listing.lines() {
        let (depth, described) = match (line.strip_prefix('0'), line.strip_prefix('1')) {
            (Some(described), _) => (0, described),
            (_, Some(described)) => (1, described),
            _ => continue,
        };
        let name = described.split(' ').next().unwrap_or_default().to_owned();
        if depth == 0 {
            // A macro crate says `(proc-macro)` before its place.
            let directory = described
                .split('(')
                .find_map(|part| part.strip_prefix(root)?.strip_suffix(')'))
                .with_context(|| format!("cargo names a package without a place: `{line}`"))?;
            let directory = directory.trim_start_matches('/').to_owned();
            packages.push(Package { name, directory, dependencies: Vec::new() });
        } else {
            let package = packages.last_mut();
            let package = package.with_context(|| format!("nobody uses `{line}`"))?;
            package.dependencies.push(name);
        }
    }
    Ok(packages)
}

/// Every arrow is in the table, every package has its row, and a crate is called after its
/// directory.
pub(crate) fn check_directions(tree: &Tree, packages: &[Package]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for package in packages {
        let Package { name, directory, dependencies } = package;
        let expected = directory.strip_prefix("crates/").map(|short| format!("convoke-{short}"));
        if expected.is_some_and(|expected| *name != expected && directory != "crates/convoke") {
            let what = format!("`{name}` lives in `{directory}`: call it `convoke-<directory>`");
            problems.push(Problem::new(package.manifest(), package.line(tree, "name"), what));
        }
        if UNBOUND.contains(&name.as_str()) {
            continue;
        }
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| known == name) else {
            let what = format!(
                "`{name}` has no row in {TABLE}: say there what it may use, \
                 and in docs/architecture.md what earned it"
            );
            problems.push(Problem::new(package.manifest(), 1, what));
            continue;
        };
        for used in dependencies {
            let ours = packages.iter().any(|package| package.name == *used);
            if ours && !allowed.contains(&used.as_str()) {
                let may = if allowed.is_empty() {
                    "nothing of ours".to_owned()
                } else {
                    allowed.join(", ")
                };
                let what = format!(
                    "`{name}` may not use `{used}`, only {may}: \
                     let the crate above introduce them, or pass the value in"
                );
                problems.push(Problem::new(package.manifest(), package.line(tree, used), what));
            }
        }
    }
    problems
}

/// Every row of the table has its package.
pub(crate) fn check_rows(packages: &[Package]) -> Vec<Problem> {
    let names = ALLOWED.iter().map(|(name, _)| *name).chain(UNBOUND.iter().copied());
    names
        .filter(|name| packages.iter().all(|package| package.name != *name))
        .map(|name| {
            Problem::new(TABLE, 1, format!("`{name}` is gone: take its row out of the table"))
        })
        .collect()
}

/// No chain of arrows between the crates of the house is longer than [`CHAIN_MAX`].
pub(crate) fn check_chain(packages: &[Package]) -> Vec<Problem> {
    let house: BTreeMap<&str, &Package> = packages
        .iter()
        .filter(|package| package.directory.starts_with("crates/"))
        .map(|package| (package.name.as_str(), package))
        .collect();
    let mut known = BTreeMap::new();
    let mut longest: Vec<&str> = Vec::new();
    for name in house.keys() {
        let chain = chain(name, &house, &mut known);
        if chain.len() > longest.len() {
            longest = chain;
        }
    }
    let arrows = longest.len().saturating_sub(1);
    let Some(top) = longest.first().and_then(|name| house.get(name)) else { return Vec::new() };
    if arrows <= CHAIN_MAX {
        return Vec::new();
    }
    let what = format!(
        "the chain {} has {arrows} arrows, more than {CHAIN_MAX}: \
         drop one, or move what is shared down",
        longest.join(" → ")
    );
    vec![Problem::new(top.manifest(), 1, what)]
}

/// The longest chain that begins with this crate; cargo has made sure that there is no cycle.
fn chain<'a>(
    name: &'a str,
    house: &BTreeMap<&'a str, &'a Package>,
    known: &mut BTreeMap<&'a str, Vec<&'a str>>,
) -> Vec<&'a str> {
    if let Some(chain) = known.get(name) {
        return chain.clone();
    }
    let mut longest = Vec::new();
    let dependencies = house.get(name).map_or(&[][..], |package| &package.dependencies);
    for used in dependencies.iter().filter(|used| house.contains_key(used.as_str())) {
        let below = chain(used, house, known);
        if below.len() > longest.len() {
            longest = below;
        }
    }
    longest.insert(0, name);
    known.insert(name, longest.clone());
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, directory: &str, dependencies: &[&str]) -> Package {
        let dependencies = dependencies.iter().map(|name| (*name).to_owned()).collect();
        Package { name: name.into(), directory: directory.into(), dependencies }
    }

    fn check(packages: &[Package], expected: &[&str]) {
        let tree = Tree::of(&[(
            "crates/net/Cargo.toml",
            "[package]\nname = \"convoke-net\"\n\n[dependencies]\nconvoke-a2a.workspace = true\n",
        )]);
        let problems = check_directions(&tree, packages);
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        for (problem, expected) in problems.iter().zip(expected) {
            assert!(problem.to_string().contains(expected), "{problem}");
        }
    }

    #[test]
    fn directions() {
        let model = package("convoke-model", "crates/model", &["serde"]);
        let a2a = package("convoke-a2a", "crates/a2a", &["convoke-model"]);
        check(&[model.clone(), a2a.clone()], &[]);
        check(
            &[model, a2a, package("convoke-net", "crates/net", &["convoke-a2a", "tokio"])],
            &["crates/net/Cargo.toml:5: `convoke-net` may not use `convoke-a2a`"],
        );
    }

    #[test]
    fn examples_see_the_front_door_alone() {
        let net = package("convoke-net", "crates/net", &[]);
        let example = package("document-pipeline", "examples/document-pipeline", &["convoke-net"]);
        check(&[net, example], &["`document-pipeline` may not use `convoke-net`, only convoke"]);
    }

    #[test]
    fn every_package_has_a_row_and_its_name() {
        check(&[package("convoke-new", "crates/new", &[])], &["`convoke-new` has no row"]);
        check(&[package("convoke-net", "crates/web", &[])], &["`convoke-net` lives in"]);
        check(&[package("convoke", "crates/convoke", &[])], &[]);
        check(&[package("convoke-bench", "benches", &["convoke-net"])], &[]);
    }

    #[test]
    fn every_row_has_its_package() {
        let rows = ALLOWED.iter().map(|(name, _)| name).chain(UNBOUND);
        let mut packages: Vec<Package> = rows.map(|name| package(name, "", &[])).collect();
        assert_eq!(check_rows(&packages), []);
        let gone = packages.pop().unwrap();
        assert!(check_rows(&packages)[0].what.contains(&gone.name));
    }

    #[test]
    fn chains() {
        let mut packages: Vec<Package> = (0..=CHAIN_MAX)
            .map(|step| {
                let below = format!("c{}", step + 1);
                package(&format!("c{step}"), &format!("crates/c{step}"), &[&below])
            })
            .collect();
        assert_eq!(check_chain(&packages), []);
        packages.push(package("top", "crates/top", &["c0"]));
        let problems = check_chain(&packages);
        assert!(problems[0].what.contains("top → c0 → c1"), "{problems:?}");
        packages.pop();
        packages.push(package("top", "examples/top", &["c0"]));
        assert_eq!(check_chain(&packages), []);
    }

    #[test]
    fn the_listing_is_read() {
        let listing = "0convoke-net v0.1.0 (/home/me/x/crates/net)\n\
                       1convoke-model v0.1.0 (/home/me/x/crates/model)\n\
                       1bytes v1.10.0\n\n\
                       0macros v0.1.0 (proc-macro) (/home/me/x/crates/macros)\n";
        let packages = read_packages(listing, "/home/me/x").unwrap();
        assert_eq!(
            packages,
            [
                package("convoke-net", "crates/net", &["convoke-model", "bytes"]),
                package("macros", "crates/macros", &[]),
            ]
        );
        assert!(read_packages("1bytes v1.0.0", "/home/me/x").is_err());
        assert!(read_packages("0x v0.1.0 (/elsewhere)", "/home/me/x").is_err());
    }
}
