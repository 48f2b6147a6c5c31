//! Processes of the demo: started, watched until they are ready, and gone with it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::process::{Child, Command};

use crate::exit::{Code, Failure};

/// How long a process may take until it says that it is ready.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// How long a process may take to end once it is asked to; then it is killed.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// How often a log that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A running process of the demo. It ends when its standard input does, so it cannot outlive the
/// demo, whatever ends that.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    pub(crate) log: PathBuf,
}

impl Process {
    /// Starts this binary with `args`; what it prints goes to `log`.
    pub(crate) fn start(name: &'static str, args: &[&str], log: PathBuf) -> Result<Self, Failure> {
        let fail = |what: &str, error: std::io::Error| {
            Failure::of_file(Code::Failure, format_args!("{name}: {what}"), &error)
        };
        let binary = std::env::current_exe().map_err(|error| fail("own binary", error))?;
        let out = std::fs::File::create_new(&log).map_err(|error| fail("log", error))?;
        let err = out.try_clone().map_err(|error| fail("log", error))?;
        let child = Command::new(binary)
            .args(args)
            .arg("--until-stdin-ends")
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(err)
            .kill_on_drop(true)
            // Ctrl-C is for the demo, which then ends its processes in order.
            .process_group(0)
            .spawn()
            .map_err(|error| fail("start", error))?;
        Ok(Self { name, child, log })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// Waits for the log line whose message is `message` and gives it.
    pub(crate) async fn ready(&mut self, message: &str) -> Result<Value, Failure> {
        let give_up = Instant::now() + READY_WITHIN;
        loop {
            let text = read(&self.log);
            if let Some(line) =
                text.lines().filter_map(parse).find(|line| line["message"] == message)
            {
                return Ok(line);
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(self.failed(&format!("ended at start ({status})")));
            }
            if Instant::now() >= give_up {
                return Err(self.failed(&format!("is not ready after {READY_WITHIN:?}")));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Asks the process to end and waits until it has.
    pub(crate) async fn stop(mut self) -> Result<(), Failure> {
        drop(self.child.stdin.take());
        match tokio::time::timeout(GONE_WITHIN, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(self.failed(&format!("ended badly ({status})"))),
            Ok(Err(error)) => Err(self.failed(&error.to_string())),
            Err(_) => {
                self.child.kill().await?;
                Err(self.failed(&format!("did not end within {GONE_WITHIN:?} and was killed")))
            }
        }
    }

    fn failed(&self, what: &str) -> Failure {
        let text = read(&self.log);
        let tail: Vec<&str> = text.lines().rev().take(3).collect();
        let tail = tail.into_iter().rev().collect::<Vec<_>>().join(" | ");
        Failure::new(Code::Failure, format_args!("{} {what}: {tail}", self.name))
            .hint(format!("its log is {}", self.log.display()))
    }
}

/// The text of a log so far; nothing yet is an empty text.
fn read(path: &Path) -> String {
    std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

fn parse(line: &str) -> Option<Value> {
    serde_json::from_str(line).ok()
}
