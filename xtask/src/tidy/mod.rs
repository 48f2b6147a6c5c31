//! The rules of the source tree that a compiler does not know.
//!
//! Every check is a function from what it reads to the problems it found, so that its tests
//! can hand it a tree that breaks the rule.

mod arrows;
mod graph;
mod links;
mod manifests;
mod purity;
mod rust_text;
mod sources;
mod tree;
mod words;

use std::fmt;

use anyhow::Result;

use crate::process::Workspace;
use tree::Tree;

/// One finding, printed as `path:line: what and cure`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Problem {
    /// Relative to the workspace, with `/` between its parts.
    path: String,
    /// Counted from one.
    line: usize,
    what: String,
}

impl Problem {
    fn new(path: impl Into<String>, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.into(), line, what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// Runs every check and gives what they found, ordered by path and line.
///
/// # Errors
///
/// When the tree cannot be read or cargo cannot describe the dependency graph.
pub(crate) fn run(workspace: &Workspace) -> Result<Vec<Problem>> {
    let tree = Tree::read(workspace.root())?;
    let packages = arrows::packages(workspace)?;
    let built = graph::built(workspace)?;

    let mut problems = Vec::new();
    problems.extend(arrows::check_directions(&tree, &packages));
    problems.extend(arrows::check_rows(&packages));
    problems.extend(arrows::check_chain(&packages));
    problems.extend(graph::check_built(&built));
    problems.extend(graph::check_lock(&tree));
    problems.extend(links::check(&tree));
    problems.extend(manifests::check_lints(&tree));
    problems.extend(manifests::check_architecture(&tree));
    problems.extend(manifests::check_clippy_settings(&tree));
    problems.extend(purity::check_dependencies(&tree, &packages));
    problems.extend(purity::check_sources(&tree));
    problems.extend(sources::check_length(&tree));
    problems.extend(sources::check_unfinished(&tree));
    problems.extend(sources::check_whitespace(&tree));
    problems.extend(words::check(&tree));
    problems.sort();
    problems.dedup();
    Ok(problems)
}
