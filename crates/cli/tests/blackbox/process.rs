//! Processes under test: started, listened to, and gone with the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The longest wait for anything. Nothing here takes a tenth of it on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A process that runs beside the test. It is killed when this is dropped, and ends by itself when
/// the test's process does, because its standard input ends then.
pub(crate) struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    log: Arc<Log>,
}

/// The lines that a process wrote to standard error.
#[derive(Default)]
struct Log {
    state: Mutex<LogState>,
    grown: Condvar,
}

#[derive(Default)]
struct LogState {
    lines: Vec<String>,
    ended: bool,
}

impl Process {
    pub(crate) fn start(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let stderr = child.stderr.take().unwrap();
        let log = Arc::new(Log::default());
        let filled = Arc::clone(&log);
        thread::spawn(move || filled.fill(stderr));
        Self { name: name.to_owned(), stdin: child.stdin.take(), child, log }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the first line that `found` says something of.
    pub(crate) fn wait_for<T>(&self, what: &str, found: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.log.state.lock().unwrap();
        let mut seen = 0;
        loop {
            if let Some(value) = state.lines[seen..].iter().find_map(|line| found(line)) {
                return value;
            }
            seen = state.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                let how = if state.ended { "ended" } else { "did not say it in time" };
                drop(state);
                panic!("waiting for {what}: {} {how}", self.name);
            }
            state = self.log.grown.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Waits for the JSON log line with this message.
    pub(crate) fn wait_for_message(&self, message: &str) -> Value {
        self.wait_for(&format!("`{message}`"), |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == message).then_some(line)
        })
    }

    /// Everything that it wrote so far, by line.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.log.state.lock().unwrap().lines.clone()
    }

    /// Everything that it wrote so far, each line one JSON object.
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        let lines = self.lines();
        lines.iter().map(|line| json_object(line)).collect()
    }

    /// Sends a signal by name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        // The shell's own `kill`, since small systems have no other.
        let kill = format!("kill -s {name} {}", self.pid());
        let sent = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(sent.success(), "{kill}: {}", self.name);
    }

    /// Kills it as the kernel does, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.wait();
    }

    /// Ends its standard input and waits until it has ended.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        drop(self.stdin.take());
        self.wait()
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.log.state.lock().unwrap();
        while !state.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(state);
                panic!("{} does not end", self.name);
            }
            state = self.log.grown.wait_timeout(state, left).unwrap().0;
        }
        drop(state);
        // Its standard error has ended, so the process has, or is about to.
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail if it has ended already, which is just as well.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        if thread::panicking() {
            eprintln!("--- log of {}", self.name);
            for line in
                self.log.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).lines.iter()
            {
                eprintln!("{line}");
            }
        }
    }
}

impl Log {
    fn fill(&self, from: impl Read) {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while matches!(from.read_until(b'\n', &mut line), Ok(read) if read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
            line.clear();
            self.state.lock().unwrap().lines.push(text);
            self.grown.notify_all();
        }
        self.state.lock().unwrap().ended = true;
        self.grown.notify_all();
    }
}

/// What a command left behind that ran to its end.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end, with `input` on its standard input.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Done {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let (sender, outputs) = mpsc::channel();
    let stdout = child.stdout.take().unwrap();
    let stderr = child.stderr.take().unwrap();
    let to_end = |mut from: Box<dyn Read + Send>, name: &'static str| {
        let sender = sender.clone();
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let read = from.read_to_end(&mut bytes).map(|_| bytes);
            let _test_is_over = sender.send((name, read));
        });
    };
    to_end(Box::new(stdout), "stdout");
    to_end(Box::new(stderr), "stderr");
    // A command that does not read its input may be gone already.
    let _unread = stdin.write_all(input);
    drop(stdin);

    let deadline = Instant::now() + PATIENCE;
    let mut done = Done { code: None, stdout: String::new(), stderr: String::new() };
    for _ in 0..2 {
        match outputs.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok((name, bytes)) => {
                let text = String::from_utf8(bytes.unwrap()).expect("output is UTF-8");
                let place = if name == "stdout" { &mut done.stdout } else { &mut done.stderr };
                *place = text;
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                let _ended = child.kill();
                let _reaped = child.wait();
                panic!("{command:?} does not end; so far it wrote {done:?}");
            }
        }
    }
    done.code = child.wait().unwrap().code();
    done
}

impl Done {
    /// The one JSON document on standard output of a command that succeeded and said nothing else.
    pub(crate) fn json(&self) -> Value {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        assert!(self.stdout.ends_with('\n'), "{self:?}");
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("one JSON document: {error}: {self:?}"))
    }

    /// The error of a command that failed as it should: one line, and perhaps one with the cure, or
    /// one object with both.
    pub(crate) fn failure(&self, code: i32) -> (String, String) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""), "{self:?}");
        if self.stderr.starts_with('{') {
            let error = &json_object(self.stderr.trim_end())["error"];
            assert_eq!(error["exit_code"], code, "{self:?}");
            let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
            return (text("message"), text("hint"));
        }
        let mut lines = self.stderr.lines();
        let error = lines.next().and_then(|line| line.strip_prefix("error: "));
        let error = error.unwrap_or_else(|| panic!("no `error:` line: {self:?}")).to_owned();
        let mut rest = lines.filter(|line| !line.starts_with("call: "));
        let mut hint = rest.next().map(|line| {
            line.strip_prefix("hint: ").unwrap_or_else(|| panic!("no hint: {self:?}")).to_owned()
        });
        // Commands in a hint stand on lines of their own, below its words.
        for line in rest {
            let more = line.strip_prefix("      ").unwrap_or_else(|| panic!("{self:?}"));
            hint.as_mut().unwrap_or_else(|| panic!("{self:?}")).push_str(&format!("\n{more}"));
        }
        (error, hint.unwrap_or_default())
    }
}

/// Reads a line that has to be one JSON object.
pub(crate) fn json_object(line: &str) -> Value {
    let value: Value =
        serde_json::from_str(line).unwrap_or_else(|error| panic!("no JSON: {error}: {line}"));
    assert!(value.is_object(), "no object: {line}");
    value
}
