//! Does what a page says, block by block, from its top to its end.

use std::process::{Command, Output};

use convoke::serve::{Config, Environment, load_policy};
use serde_json::Value;

use crate::page::{Block, Page, What};
use crate::world::World;

/// Set to have help texts and the picture written instead of compared.
pub(crate) const UPDATE: &str = "UPDATE_DOCS";

/// Plays `page` in a world of its own.
pub(crate) fn play(page: &str) -> World {
    let page = Page::read(page);
    let mut world = World::new();
    let mut printed: Option<Output> = None;
    let mut helps = Vec::new();
    for block in &page.blocks {
        let at = format!("{}:{}", page.path, block.line);
        match &block.what {
            What::Run { status } => {
                let output = world.run(&block.text);
                assert_eq!(
                    output.status.code(),
                    Some(*status),
                    "{at}: status\n{}{}\nterminals:\n{}",
                    lossy(&output.stdout),
                    lossy(&output.stderr),
                    world.screens()
                );
                printed = Some(output);
            }
            What::Terminal { until } => world.terminal(&block.text, until),
            What::File(path) => world.write(path, &block.text),
            What::Prints => check_prints(&at, &world, block, printed.as_ref()),
            What::Help(command) => {
                let help = help(command);
                if std::env::var_os(UPDATE).is_some() {
                    helps.push((block.line, help));
                } else {
                    assert_eq!(block.text, help, "{at}: set {UPDATE}=1 to have it written");
                }
            }
            What::Configuration => check_configuration(&at, &block.text),
            What::Policy => check_policy(&at, &block.text),
            What::NotRun | What::Drawing => {}
        }
        if matches!(block.what, What::Run { .. } | What::Terminal { .. }) {
            assert_eq!(block.language, "sh", "{at}: a shell runs it");
        }
    }
    if !helps.is_empty() {
        page.rewrite(&helps);
    }
    world
}

fn check_prints(at: &str, world: &World, block: &Block, printed: Option<&Output>) {
    let output = printed.unwrap_or_else(|| panic!("{at}: nothing was run before"));
    // Results go to one stream, and words to the other when there is no result.
    let bytes = if output.stdout.is_empty() { &output.stderr } else { &output.stdout };
    let (found, expected) = (lossy(bytes), world.adapt(&block.text));
    let matched = match (parse(&expected), parse(&found)) {
        (Some(expected), Some(found)) => expected == found,
        _ => matches(&expected, &found),
    };
    assert!(matched, "{at}: expected\n{expected}\nfound\n{found}");
}

fn parse(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

/// Whether `text` is `pattern`, in which `…` stands for anything.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('…') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let mut pieces: Vec<_> = rest.split('…').collect();
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let Some(at) = text.find(piece) else { return false };
        text = &text[at + piece.len()..];
    }
    text.ends_with(last)
}

/// The help of a command, without blanks at the ends of lines.
pub(crate) fn help(command: &[String]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_convoke"))
        .args(command)
        .arg("--help")
        .env_remove("SPIFFE_ENDPOINT_SOCKET")
        .env_remove("COLUMNS")
        .output()
        .unwrap();
    assert!(output.status.success(), "{command:?}");
    lossy(&output.stdout).lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// What the configurations of the pages expect of the environment.
pub(crate) fn environment() -> Environment {
    let variables = [("HOME", "/home/ann"), ("COLLECTOR_TOKEN", "x"), ("OPA_TOKEN", "y")];
    Environment::of(variables.into_iter().collect())
}

fn check_configuration(at: &str, text: &str) {
    if let Err(error) = Config::parse_in(text, at, &environment()) {
        panic!("{error}");
    }
}

fn check_policy(at: &str, text: &str) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("policy.rego"), text).unwrap();
    let config = format!(
        "identity:\n  spiffe_id: spiffe://example.org/worker\nauthorization:\n  policy_path: {}\n  \
         policy_file: policy.rego\n",
        dir.path().display()
    );
    let config = Config::parse_in(&config, at, &environment()).unwrap();
    if let Err(error) = load_policy(&config) {
        panic!("{at}: {}", convoke::chain(&error));
    }
}

pub(crate) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn an_ellipsis_stands_for_anything() {
    for (pattern, text, expected) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("a…c", "abbc", true),
        ("a…c", "abbcd", false),
        ("…b…", "abc", true),
        ("…x…", "abc", false),
        ("ab…bc", "abc", false),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
    }
}
