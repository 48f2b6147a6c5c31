//! What the optional checks need, installed by cargo itself.

use anyhow::Result;

use crate::process::Workspace;

/// A program that some check uses when it is there.
struct Tool {
    /// The package that brings it.
    package: &'static str,
    /// What cargo calls it once it is installed.
    subcommand: &'static str,
    why: &'static str,
}

const TOOLS: &[Tool] = &[Tool {
    package: "cargo-deny",
    subcommand: "deny",
    why: "`cargo xtask ci` checks bans, licences and sources with it",
}];

/// Installs the tools that are missing, or with `list` only says which they are; `false`
/// when one could not be installed.
///
/// # Errors
///
/// When cargo cannot be started.
pub(crate) fn run(workspace: &Workspace, list: bool) -> Result<bool> {
    let mut complete = true;
    for Tool { package, subcommand, why } in TOOLS {
        let installed = workspace.has_subcommand(subcommand);
        let state = if installed { "installed" } else { "missing" };
        println!("{package}: {state}; {why}");
        if !installed && !list {
            complete &= workspace.cargo(&["install", "--locked", package])?;
        }
    }
    Ok(complete)
}
