//! The demo: shows what it promises, and leaves nothing running.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{PATIENCE, Process, run};
use crate::tutorial::{analysis, batched};
use crate::world::World;

/// The documents on standard output, one after the other.
fn documents(stdout: &str) -> Vec<Value> {
    serde_json::Deserializer::from_str(stdout).into_iter().map(Result::unwrap).collect()
}

/// The processes that work in `directory`: their numbers in `/proc`, and their command lines.
fn processes_in(directory: &Path) -> Vec<(String, String)> {
    let directory = directory.to_str().unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap());
    let processes = entries.filter_map(|entry| {
        // A process may end between the two reads; then it has no command line.
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        Some((entry.file_name().into_string().ok()?, line))
    });
    processes.filter(|(_, line)| line.contains(directory)).collect()
}

/// Waits until no process that works in `directory` has `word` on its command line.
fn wait_until_gone(directory: &Path, word: &str) {
    let deadline = Instant::now() + PATIENCE;
    while let Some(left) = processes_in(directory).iter().find(|(_, line)| line.contains(word)) {
        assert!(Instant::now() < deadline, "{left:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn check_words(stderr: &str) {
    let refused = "refused because agentweave.authz.allow does not hold";
    for word in ["allowed by agentweave.authz.allow", refused, "turned away", "Logs, audit"] {
        assert!(stderr.contains(word), "no `{word}` in {stderr}");
    }
    assert!(!stderr.contains('\u{1b}'), "colours are for terminals: {stderr}");
    assert!(!stderr.contains("error:"), "{stderr}");
}

#[test]
fn the_demo_prints_results_and_leaves_nothing_running() {
    let world = World::new();
    let done = world.run(&["demo"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    check_words(&done.stderr);
    let results = documents(&done.stdout);
    assert_eq!(results.len(), 3, "{}", done.stdout);
    let summary = &results[2]["results"]["summary"];
    assert_eq!(summary["summarized_by"], "Summarizer Agent");
    assert_eq!((&summary["sentence_count"], &summary["sentences_in_text"]), (&2.into(), &4.into()));
    assert_eq!(results[0]["results"]["analysis"], analysis());
    assert_eq!(results[0]["results"]["word_count"]["text_length"], 81);
    assert_eq!(results[1], batched());
    assert_eq!(processes_in(&world.path("")), []);

    // Where it says that logs and audit are, they are.
    let named = done
        .stderr
        .lines()
        .find_map(|line| line.strip_prefix("Logs, audit and configurations are in "));
    let directory = Path::new(named.expect("a directory"));
    let names = ["worker", "summarizer", "orchestrator"];
    let files =
        names.iter().flat_map(|name| [format!("{name}.log"), format!("{name}.audit.jsonl")]);
    for file in files {
        let text = std::fs::read_to_string(directory.join(&file)).unwrap();
        assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{file}");
        // Who was turned away at the door asked nothing, so there was nothing to decide.
        assert!(!file.contains("audit") || !text.contains("stranger.example"), "{file}");
    }
}

#[test]
fn the_demo_analyses_the_users_own_text() {
    let world = World::new();
    let mut command = world.command(&["demo", "--text", "-"]);
    let done = run(&mut command, "A wonderful day. And a terrible night!".as_bytes());
    assert_eq!(done.code, Some(0), "{done:?}");
    check_words(&done.stderr);
    let results = documents(&done.stdout);
    assert_eq!(results.len(), 4, "{}", done.stdout);
    let analysis = &results[3]["results"]["analysis"];
    assert_eq!((&analysis["word_count"], &analysis["sentence_count"]), (&7.into(), &2.into()));
    assert_eq!(analysis["sentiment"], "neutral");

    world.write("own.txt", "I love it.");
    let done = world.run(&["demo", "--text", "own.txt"]);
    assert_eq!(documents(&done.stdout)[3]["results"]["sentiment"]["sentiment"], "positive");

    let (error, _) = world.run(&["demo", "--text", "no-such-file"]).failure(2);
    assert!(error.contains("no-such-file"), "{error}");
    assert_eq!(processes_in(&world.path("")), []);
}

/// Starts a demo that stays, and gives the call that it proposes.
fn kept(world: &World) -> (Process, Vec<String>) {
    let demo = Process::start("demo", &mut world.command(&["demo", "--keep"]));
    demo.wait_for("the end of what it says", |line| line.contains("Ctrl-C ends").then_some(()));
    let lines = demo.lines();
    let proposed = lines.iter().position(|line| line.ends_with(r"convoke call \")).expect("a call");
    let words = lines[proposed + 1..].iter().map(|line| line.trim().trim_end_matches(" \\"));
    let words = words.take_while(|line| !line.is_empty()).flat_map(|line| {
        let (option, value) = line.split_once(' ').unwrap();
        [option.to_owned(), value.trim_matches('\'').to_owned()]
    });
    let mut call = vec!["call".to_owned()];
    call.extend(words);
    (demo, call)
}

#[test]
fn a_demo_that_is_kept_answers_until_it_is_interrupted() {
    let world = World::new();
    let (mut demo, call) = kept(&world);
    let args: Vec<&str> = call.iter().map(String::as_str).collect();
    let report = world.run(&args).json();
    assert_eq!(report["results"]["sentiment"]["sentiment"], "positive");

    demo.signal("INT");
    assert_eq!(demo.wait().code(), Some(0), "an interrupt is how a kept demo ends");
    assert_eq!(processes_in(&world.path("")), []);
}

#[test]
fn nothing_outlives_a_demo_that_is_killed() {
    let world = World::new();
    let (mut demo, _call) = kept(&world);
    assert!(processes_in(&world.path("")).len() >= 3);
    demo.kill();
    wait_until_gone(&world.path(""), "");
}

#[test]
fn a_second_signal_kills_what_the_demo_waits_for() {
    let world = World::new();
    let (mut demo, _call) = kept(&world);
    let running = processes_in(&world.path(""));
    let worker = running.iter().find(|(_, line)| line.contains("worker.yaml")).unwrap();
    // A worker that hangs keeps the demo from ending, which it asks after the orchestrator.
    let stop = format!("kill -s STOP {}", worker.0);
    assert!(Command::new("sh").args(["-c", &stop]).status().unwrap().success());
    demo.signal("TERM");
    wait_until_gone(&world.path(""), "orchestrator.yaml");
    demo.signal("TERM");
    assert_eq!(demo.wait().code(), Some(143));
    let lines = demo.lines();
    assert!(lines.iter().any(|line| line.starts_with("error: ended by SIGTERM")), "{lines:#?}");
    wait_until_gone(&world.path(""), "");
}
