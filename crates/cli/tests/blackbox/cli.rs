//! What holds of every command: failures as JSON, pages of the manual, completions.

use serde_json::{Value, json};

use crate::world::World;

/// The one line of JSON on standard error of a command that failed.
fn failure(world: &World, args: &[&str], code: i32) -> Value {
    let done = world.run(args);
    assert_eq!(done.code, Some(code), "{done:?}");
    let mut lines = done.stderr.lines();
    let error: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!(lines.next(), None, "{done:?}");
    let error = error["error"].clone();
    assert_eq!(error["exit_code"], code, "{error}");
    assert!(!error["message"].as_str().unwrap().is_empty(), "{error}");
    error
}

#[test]
fn a_failure_is_json_where_json_was_asked_for() {
    let world = World::new();
    let agent = "spiffe://example.org/a";
    let check = |args: &[&str], code: i32, name: &str| {
        let error = failure(&world, args, code);
        assert_eq!(error["code"], name, "{args:?}: {error}");
        error
    };
    let socket = world.socket("example.org");
    let place = ["--agent", agent, "--socket", &socket, "https://localhost:9", "--json"];
    for command in [&["health"][..], &["card", "show"], &["ping"]] {
        let error = check(&[command, &place].concat(), 10, "no_identity");
        assert!(error["message"].as_str().unwrap().contains(&socket), "{error}");
    }
    let error = check(&["validate", "--json"], 2, "usage");
    assert!(error["hint"].as_str().unwrap().contains("convoke validate"), "{error}");
    let error = check(&["call", "--json", "--capabilty", "x"], 2, "usage");
    assert!(error["hint"].as_str().unwrap().contains("--capability"), "{error}");
    check(&["validate", "--json", "/no/such.yaml"], 2, "usage");
    check(&["doctor", "--json", "/no/such.yaml"], 1, "failure");
    check(&["config", "show", "--json", "/no/such.yaml"], 2, "usage");
    check(&["identity", "entry", "list", "--json", "--socket", &socket], 4, "unreachable");
}

/// Whatever a command reads, a file that is not there is named, with the cure and without the number
/// that the system has for it.
#[test]
fn a_file_that_is_not_there_is_said_in_words() {
    let world = World::new();
    world.write("a.rego", "package agentweave.authz\nallow if { false }\n");
    let checks: [&[&str]; 9] = [
        &["validate", "gone.x"],
        &["config", "show", "gone.x"],
        &["config", "migrate", "gone.x"],
        &["serve", "--agent", "summarizer", "gone.x"],
        &["doctor", "gone.x"],
        &["logs", "gone.x"],
        &["policy", "check", "gone.x"],
        &["policy", "test", "gone.x"],
        &["demo", "--text", "gone.x"],
    ];
    for args in checks {
        let done = world.run(args);
        assert!(done.code > Some(0), "{done:?}");
        let line = done.stderr.lines().find(|line| line.contains("gone.x"));
        let line = line.unwrap_or_else(|| panic!("{done:?}"));
        assert!(line.contains("there is no such file") && line.contains("; "), "{args:?}: {line}");
        assert!(!done.stderr.contains("os error"), "{args:?}: {done:?}");
    }
}

#[test]
fn nothing_is_said_of_waiting_where_nobody_looks() {
    let world = World::new();
    let done = world.run(&["health", "http://127.0.0.1:9"]);
    assert!(!done.stderr.contains("waiting"), "{done:?}");
    done.failure(4);
}

#[test]
fn every_command_has_a_page_of_the_manual() {
    let world = World::new();
    let dir = world.path("man");
    let done = world.run(&["man", "--json", dir.to_str().unwrap()]).json();
    let written = done["written"].as_array().unwrap();
    let mut found: Vec<Value> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| json!(entry.unwrap().path().to_str().unwrap()))
        .collect();
    found.sort_by_key(Value::to_string);
    let mut written = written.clone();
    written.sort_by_key(Value::to_string);
    assert_eq!(written, found);
    for name in ["convoke", "convoke-doctor", "convoke-identity-entry-add"] {
        assert!(dir.join(format!("{name}.1")).is_file(), "{name}");
    }
}

#[test]
fn completions_know_commands_and_where_files_stand() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let done = world.run(&["completions", shell]);
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{shell}");
        assert!(done.stdout.contains("doctor"), "{shell}");
    }
    let zsh = world.run(&["completions", "zsh"]).stdout;
    assert!(zsh.contains("_files"), "configurations are files");
    assert!(zsh.contains("_urls"), "addresses are URLs");
}
