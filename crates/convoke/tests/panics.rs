//! What a process whose log takes its panics leaves on standard error: this test's own program,
//! started again to panic.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]

use std::process::{Command, Output, Stdio};

use convoke::serve::{Format, log_to_stderr};
use convoke::testing::{Mesh, TestPolicy};
use convoke::{Context, agent};
use serde_json::{Value, json};

/// What is to go wrong in the process that is started.
const HOW: &str = "CONVOKE_TEST_PANICS";

/// Drives a terminal, begins a line of its own and forges what is on it.
const EVIL: &str =
    "\u{1b}[2J\n{\"level\":\"INFO\",\"message\":\"forged\"}\npassword=hunter2 \u{202e}";

struct Careless;

#[agent]
impl Careless {
    /// Panic with the caller's words
    #[capability(ephemeral)]
    async fn shout(&self, _context: &Context, text: String) -> String {
        panic!("secret token=abc123 {text}")
    }
}

struct PanicsWhenShown;

impl std::fmt::Debug for PanicsWhenShown {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("cannot be shown: {EVIL}")
    }
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("cannot be dropped: {EVIL}")
    }
}

/// The process that panics. It does nothing unless it is told what.
#[test]
fn broken_process() {
    let Ok(how) = std::env::var(HOW) else { return };
    let format = if how.ends_with("-pretty") { Format::Pretty } else { Format::Json };
    let guard = log_to_stderr(format, tracing::Level::INFO).unwrap();
    guard.log_panics();
    match how.trim_end_matches("-pretty") {
        "capability" => {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let mesh = Mesh::new("example.org");
                let mesh = mesh.agent("careless", Careless, TestPolicy::allow_all());
                let mesh = mesh.start().await.unwrap();
                let call = mesh.call_as("user/ann", "careless", "shout", json!({"text": EVIL}));
                call.await.unwrap_err();
                mesh.stop().await;
            });
        }
        "log" => {
            let shown = || tracing::info!(value = ?PanicsWhenShown, "not said");
            std::thread::spawn(shown).join().unwrap_err();
            tracing::info!("goes on");
        }
        "no text" => {
            std::thread::spawn(|| std::panic::panic_any(7)).join().unwrap_err();
        }
        "abort" => {
            let dropped = || {
                let _value = PanicsWhenDropped;
                panic!("first")
            };
            std::thread::spawn(dropped).join().unwrap_err();
        }
        "after the log" => {
            drop(guard);
            std::thread::spawn(|| panic!("{EVIL}")).join().unwrap_err();
        }
        other => panic!("{other}"),
    }
}

fn run(how: &str, backtrace: Option<&str>) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "broken_process", "--nocapture"]).env(HOW, how);
    command.env_remove("CONVOKE_LOG").env_remove("RUST_BACKTRACE").stdin(Stdio::null());
    if let Some(backtrace) = backtrace {
        command.env("RUST_BACKTRACE", backtrace);
    }
    command.output().unwrap()
}

/// The lines `Panicked` among those that the process wrote, all of which have to be JSON.
fn panics(how: &str, backtrace: Option<&str>) -> Vec<Value> {
    let text = String::from_utf8(run(how, backtrace).stderr).unwrap();
    let lines = text.lines().filter_map(|line| match serde_json::from_str::<Value>(line) {
        Ok(line) => Some(line),
        // The process that aborts is told of by Rust's runtime, with nothing of the panic's text.
        Err(_) if how == "abort" && (line.is_empty() || line.starts_with("thread")) => None,
        Err(error) => panic!("{error}: {line}\n{text}"),
    });
    let lines: Vec<Value> = lines.collect();
    let is_forged = |line: &Value| line["message"] == "forged";
    assert!(!lines.iter().any(is_forged) && !text.contains('\u{1b}'), "{text}");
    assert!(!text.contains("abc123") && !text.contains("hunter2"), "{text}");
    lines.into_iter().filter(|line| line["message"] == "Panicked").collect()
}

#[test]
fn a_panic_of_a_capability_is_one_line_of_the_log() {
    let lines = panics("capability", None);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let line = &lines[0];
    let said = line["error"].as_str().unwrap();
    assert!(said.starts_with("secret token=[redacted] \u{1b}[2J\n{\"level\":"), "{line}");
    assert!(said.contains("password=[redacted] \u{202e}"), "{line}");
    assert!(line["location"].as_str().unwrap().contains("tests/panics.rs:"), "{line}");
    assert!(line["thread"].is_string() && line.get("backtrace").is_none(), "{line}");
    // The request that it happened in.
    assert!(line["trace_id"].is_string(), "{line}");
}

#[test]
fn a_backtrace_is_a_field_and_only_when_it_is_asked_for() {
    assert!(panics("no text", Some("0"))[0].get("backtrace").is_none());
    let lines = panics("no text", Some("1"));
    assert_eq!(lines[0]["error"], "a value that is no text");
    assert!(lines[0]["backtrace"].as_str().unwrap().contains('\n'), "{lines:#?}");
}

#[test]
fn a_panic_inside_of_the_log_breaks_nothing() {
    let lines = panics("log", None);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0]["error"].as_str().unwrap().starts_with("cannot be shown"), "{lines:#?}");
    let text = String::from_utf8(run("log", None).stderr).unwrap();
    assert!(text.contains("goes on"), "{text}");
}

#[test]
fn the_last_words_of_a_process_that_aborts_are_heard() {
    let output = run("abort", None);
    assert!(!output.status.success());
    let said = panics("abort", None);
    let said: Vec<_> = said.iter().map(|line| line["error"].as_str().unwrap()).collect();
    assert!(said[0] == "first" && said[1].starts_with("cannot be dropped"), "{said:#?}");
    // The third is Rust's own, that a panic met another.
    assert_eq!(said.len(), 3, "{said:#?}");
}

#[test]
fn after_the_log_is_closed_a_panic_is_the_same_line() {
    let lines = panics("after the log", None);
    assert_eq!(lines.len(), 1, "{lines:#?}");
}

#[test]
fn lines_for_people_are_as_plain() {
    let text = String::from_utf8(run("log-pretty", None).stderr).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| line.contains("Panicked")).collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert!(!text.contains("hunter2") && !text.contains('\u{1b}'), "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
}
