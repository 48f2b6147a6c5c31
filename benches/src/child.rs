//! Processes under test: started, ready, and gone when the bench is.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{self, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// How long a process may take until it says that it is ready.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// How long a process may take to end once it is asked to; then it is killed.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// How often a log that is waited for, or a process that is to end, is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A process that ends when its standard input does, so that it cannot outlive the bench.
pub(crate) struct Child {
    child: process::Child,
    stdin: Option<ChildStdin>,
}

impl Child {
    /// Starts `command`. Its standard input stays open for as long as the value lives.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", command.get_program().display()))?;
        let stdin = child.stdin.take();
        Ok(Self { child, stdin })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a line to its standard input.
    pub(crate) fn tell(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("the process has no input")?;
        Ok(writeln!(stdin, "{line}")?)
    }

    /// Asks it to end, as closing its standard input does.
    pub(crate) fn ask_to_end(&mut self) {
        drop(self.stdin.take());
    }

    /// Ends it where it stands, without letting it tidy up.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits until it has ended by itself.
    pub(crate) fn ended(&mut self, within: Duration) -> Result<process::ExitStatus> {
        let give_up = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            anyhow::ensure!(Instant::now() < give_up, "a process still runs after {within:?}");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// The lines that it prints, if [`Stdio::piped`] was asked for.
    pub(crate) fn lines(&mut self) -> Result<Lines> {
        let stdout = self.child.stdout.take().context("the output is not piped")?;
        Ok(Lines(BufReader::new(Box::new(stdout))))
    }

    /// The lines that it logs to standard error, if [`Stdio::piped`] was asked for.
    pub(crate) fn log_lines(&mut self) -> Result<Lines> {
        let stderr = self.child.stderr.take().context("the log is not piped")?;
        Ok(Lines(BufReader::new(Box::new(stderr))))
    }

    /// Waits until one of the JSON lines in `log` has the message `message`, and gives it.
    pub(crate) fn logged(&mut self, log: &Path, message: &str) -> Result<Value> {
        let give_up = Instant::now() + READY_WITHIN;
        loop {
            let text = std::fs::read_to_string(log)?;
            if let Some(line) = find(&text, message) {
                return Ok(line);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} belongs to a process that ended ({status}): {text}", log.display());
            }
            if Instant::now() >= give_up {
                bail!("no `{message}` in {} after {READY_WITHIN:?}", log.display());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let give_up = Instant::now() + GONE_WITHIN;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() >= give_up {
                // It may end by itself in this very moment; then there is nothing left to kill.
                let _ended = self.child.kill();
                let _reaped = self.child.wait();
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// What a process prints, line by line.
pub(crate) struct Lines(BufReader<Box<dyn Read>>);

impl Lines {
    /// The next line without its end.
    pub(crate) fn next(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line)?;
        anyhow::ensure!(read > 0, "the process ended without the line that was expected");
        line.truncate(line.trim_end().len());
        Ok(line)
    }
}

/// The file to which a process logs. It is appended to, so that it can be emptied meanwhile.
pub(crate) fn log_file(path: &Path) -> Result<File> {
    let file = File::options().append(true).create_new(true).open(path);
    file.with_context(|| format!("{}", path.display()))
}

/// The first JSON line of `text` whose message is `message`.
pub(crate) fn find(text: &str, message: &str) -> Option<Value> {
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.into_iter().find(|line| line["message"] == message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_is_found_by_its_message() {
        let text = "panic!\n{\"message\":\"one\"}\n{\"message\":\"two\",\"port\":7}\n{\"mess";
        assert_eq!(find(text, "two").unwrap()["port"], 7);
        assert_eq!(find(text, "three"), None);
    }

    #[test]
    fn a_child_ends_with_its_value() {
        let mut child = Child::start(Command::new("cat").stdout(Stdio::piped())).unwrap();
        let mut lines = child.lines().unwrap();
        child.tell("hello").unwrap();
        assert_eq!(lines.next().unwrap(), "hello");
        drop(child);
        assert!(lines.next().is_err());
    }
}
