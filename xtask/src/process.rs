//! The workspace on disk, and cargo run inside it.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};

/// Where the workspace is and which cargo works on it.
pub(crate) struct Workspace {
    root: PathBuf,
    cargo: PathBuf,
}

/// Which of a program's two outputs a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl Workspace {
    /// Asks the environment that `cargo run` prepares.
    ///
    /// # Errors
    ///
    /// When the program was not started by cargo, so that it cannot know its workspace.
    pub(crate) fn find() -> Result<Self> {
        let manifest_dir = std::env::var_os("CARGO_MANIFEST_DIR")
            .map(PathBuf::from)
            .context("CARGO_MANIFEST_DIR is not set: start this program as `cargo xtask`")?;
        let root = manifest_dir.parent().map(Path::to_path_buf).with_context(|| {
            format!("`{}` has no parent to be the workspace", manifest_dir.display())
        })?;
        let cargo = std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
        Ok(Self { root, cargo })
    }

    /// The directory that holds the workspace's manifest.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Runs cargo with its output shown as it comes; `true` when it ended well.
    ///
    /// # Errors
    ///
    /// When cargo cannot be started.
    pub(crate) fn cargo(&self, args: &[&str]) -> Result<bool> {
        let status = self.command(args).status().with_context(|| not_started(args))?;
        Ok(status.success())
    }

    /// Runs cargo and gives what it wrote on standard output.
    ///
    /// # Errors
    ///
    /// When cargo cannot be started or fails; the error then carries what it complained of.
    pub(crate) fn cargo_output(&self, args: &[&str]) -> Result<String> {
        let output = self.command(args).output().with_context(|| not_started(args))?;
        if !output.status.success() {
            bail!(
                "`cargo {}` failed: {}",
                args.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        String::from_utf8(output.stdout).with_context(|| {
            format!("`cargo {}` wrote something that is not UTF-8", args.join(" "))
        })
    }

    /// Whether cargo knows this subcommand and can run it.
    pub(crate) fn has_subcommand(&self, name: &str) -> bool {
        self.command(&[name, "--version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    /// Runs cargo and hands each line of its two outputs to `line` as it comes; `true` when
    /// it ended well.
    ///
    /// # Errors
    ///
    /// When cargo cannot be started or its output cannot be read.
    pub(crate) fn cargo_lines(
        &self,
        args: &[&str],
        line: impl FnMut(Stream, &str) + Send,
    ) -> Result<bool> {
        let mut child = self
            .command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| not_started(args))?;
        let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
            bail!("`cargo {}` was started without its outputs", args.join(" "));
        };
        let line = Mutex::new(line);
        let read = std::thread::scope(|scope| {
            let errors = scope.spawn(|| each_line(err, Stream::Err, &line));
            let outcome = each_line(out, Stream::Out, &line);
            match errors.join() {
                Ok(errors) => outcome.and(errors),
                Err(_) => bail!("the reader of standard error panicked"),
            }
        });
        let status = child.wait().with_context(|| not_started(args))?;
        read.with_context(|| format!("cannot read the output of `cargo {}`", args.join(" ")))?;
        Ok(status.success())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.cargo);
        command.args(args).current_dir(&self.root).stdin(Stdio::null());
        command
    }
}

fn not_started(args: &[&str]) -> String {
    format!("cannot run `cargo {}`", args.join(" "))
}

/// Splits at newlines and replaces what is not UTF-8: a test may print anything.
fn each_line(
    source: impl Read,
    stream: Stream,
    line: &Mutex<impl FnMut(Stream, &str)>,
) -> Result<()> {
    let mut source = BufReader::new(source);
    let mut bytes = Vec::new();
    while source.read_until(b'\n', &mut bytes)? > 0 {
        let text = String::from_utf8_lossy(&bytes);
        match line.lock() {
            Ok(mut line) => line(stream, text.trim_end_matches(['\n', '\r'])),
            Err(_) => bail!("the other output's reader panicked"),
        }
        bytes.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &[u8], expected: &[&str]) {
        let lines = Mutex::new(Vec::new());
        let line = Mutex::new(|_: Stream, text: &str| lines.lock().unwrap().push(text.to_owned()));
        each_line(source, Stream::Out, &line).unwrap();
        assert_eq!(*lines.lock().unwrap(), expected);
    }

    #[test]
    fn lines_survive_odd_endings_and_bytes() {
        check(b"one\r\ntwo\n\nlast", &["one", "two", "", "last"]);
        check(b"bad \xff byte\n", &["bad \u{fffd} byte"]);
        check(b"", &[]);
    }
}
