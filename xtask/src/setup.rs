//! What the optional checks need, installed by cargo itself and by Python's own tools.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

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

/// Where the Python environment is, below the workspace. The tests look for it there.
const PYTHON_ENVIRONMENT: &str = "target/python";

/// A package for the Python environment.
struct PythonPackage {
    name: &'static str,
    version: &'static str,
    why: &'static str,
}

const PYTHON_PACKAGES: &[PythonPackage] = &[PythonPackage {
    name: "spiffe",
    version: "0.3.2",
    why: "the tests of `identity` let it talk to the embedded issuer",
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
    Ok(python(workspace, list)? && complete)
}

/// The same for the packages of the Python environment.
fn python(workspace: &Workspace, list: bool) -> Result<bool> {
    let environment = workspace.root().join(PYTHON_ENVIRONMENT);
    let python = environment.join("bin/python");
    let mut complete = true;
    for package in PYTHON_PACKAGES {
        let PythonPackage { name, version, why } = package;
        let installed = package.is_installed(&python);
        let state = if installed { "installed" } else { "missing" };
        println!("{name} {version} (Python): {state}; {why}");
        if !installed && !list {
            complete &= package.install(&environment, &python)?;
        }
    }
    Ok(complete)
}

impl PythonPackage {
    fn is_installed(&self, python: &Path) -> bool {
        let Self { name, version, .. } = self;
        let ask = format!(
            "import importlib.metadata, sys; \
             sys.exit(importlib.metadata.version({name:?}) != {version:?})"
        );
        let mut command = Command::new(python);
        command.args(["-c", &ask]).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    fn install(&self, environment: &Path, python: &Path) -> Result<bool> {
        if !python.exists() {
            let mut command = Command::new("python3");
            let made = command.args(["-m", "venv"]).arg(environment).status();
            let made = made.context("cannot run `python3`; install Python 3.10 or later")?;
            if !made.success() {
                return Ok(false);
            }
        }
        let wanted = format!("{}=={}", self.name, self.version);
        let mut command = Command::new(python);
        command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", &wanted]);
        let installed = command.stdin(Stdio::null()).status();
        Ok(installed.with_context(|| format!("cannot run `{}`", python.display()))?.success())
    }
}
