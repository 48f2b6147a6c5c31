//! What the victim's capabilities have to come to, by what they were asked.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Evidence, Rule, Violation, made_by, state};
use crate::history::Entry;

/// Each task holds what was sent, and came to what that has to come to.
pub(super) fn check(evidence: &Evidence) -> Vec<Violation> {
    let mut sent: BTreeMap<&str, (&str, &Value)> = BTreeMap::new();
    let mut replies: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for entry in evidence.entries() {
        match entry {
            Entry::Sends { message, capability, params } => {
                sent.insert(message, (capability, params));
            }
            Entry::Replies { task, word } => {
                replies.entry(task).or_default().insert(word);
            }
            _ => {}
        }
    }
    let mut marked: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, key) in &evidence.marks {
        *marked.entry(key).or_default() += 1;
    }
    let mut found = Vec::new();
    for (id, task) in &evidence.finals {
        let Some((capability, params)) = sent.get(made_by(task)) else {
            let what = format!("was made by `{}`, which nobody sent", made_by(task));
            found.push(Violation::new(Rule::Content, id, what));
            continue;
        };
        let first = &task["history"][0]["parts"][0]["data"];
        if first != *params {
            let what = format!("holds {first} and not {params}");
            found.push(Violation::new(Rule::Content, id, what));
        }
        let replied = replies.get(id.as_str());
        if let Err(what) = result(capability, params, task, replied) {
            found.push(Violation::new(Rule::Result, id, format!("{capability} {what}")));
        }
        let key = params["key"].as_str().unwrap_or_default();
        if *capability == "quick"
            && state(task) == "TASK_STATE_COMPLETED"
            && !marked.contains_key(key)
        {
            let what = format!("has completed and never ran for {key}");
            found.push(Violation::new(Rule::OneExecution, id, what));
        }
    }
    found
}

fn result(
    capability: &str,
    params: &Value,
    task: &Value,
    replied: Option<&BTreeSet<&str>>,
) -> Result<(), String> {
    let state = state(task);
    let completed = state == "TASK_STATE_COMPLETED";
    // Whoever asked for it; another rule looks whether anybody did.
    if state == "TASK_STATE_CANCELED" {
        return Ok(());
    }
    let wrong = |what: &str| Err(format!("is {state} {what}: {task}"));
    let failed_by_restart = || {
        let text = task["status"]["message"]["parts"][0]["text"].as_str().unwrap_or_default();
        state == "TASK_STATE_FAILED" && text.contains("restarted")
    };
    let last = last_result(task);
    match capability {
        "resumable" => {
            let to = params["to"].as_u64().unwrap_or_default();
            let sum = json!(to * (to + 1) / 2);
            if completed && *last == sum { Ok(()) } else { wrong(&format!("and not {sum}")) }
        }
        "flaky" if completed && *last == 2 => Ok(()),
        "flaky" => wrong("and not 2"),
        "panics" | "errors" if state == "TASK_STATE_FAILED" => Ok(()),
        "panics" | "errors" => wrong("and did not fail"),
        "asks" if state == "TASK_STATE_INPUT_REQUIRED" => Ok(()),
        "asks" => {
            let word = last.as_str().unwrap_or_default();
            let right = completed && replied.is_some_and(|words| words.contains(word));
            if right { Ok(()) } else { wrong("with a word that nobody said") }
        }
        "hangs" | "deaf" if failed_by_restart() => Ok(()),
        "hangs" | "deaf" => wrong("and can neither complete nor fail"),
        _ if failed_by_restart() => pieces(capability, params, task, false),
        _ if !completed => wrong("without a restart"),
        "quick" if *last == params["key"] => Ok(()),
        "count" if *last == params["to"] => pieces(capability, params, task, true),
        "chatter" if *last == params["pieces"] => pieces(capability, params, task, true),
        "late" if *last == "ended" => Ok(()),
        _ => wrong("with another result"),
    }
}

/// Whether the pieces of the artifact are the first of what they have to be, or all of it.
fn pieces(capability: &str, params: &Value, task: &Value, all: bool) -> Result<(), String> {
    let expected = match capability {
        "count" => {
            let to = params["to"].as_u64().unwrap_or_default();
            (0..to).map(|number| format!("{number} ")).collect::<String>()
        }
        "chatter" => {
            let pieces = params["pieces"].as_u64().unwrap_or_default();
            "x".repeat(usize::try_from(pieces).unwrap_or_default())
        }
        _ => return Ok(()),
    };
    let name = if capability == "count" { "numbers" } else { "said" };
    let artifacts = task["artifacts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let parts = artifacts.iter().find(|artifact| artifact["artifactId"] == name);
    let parts = parts.and_then(|artifact| artifact["parts"].as_array());
    let mut text = String::new();
    for part in parts.map(Vec::as_slice).unwrap_or_default() {
        text.push_str(part["text"].as_str().unwrap_or("?"));
    }
    let right = if all { text == expected } else { expected.starts_with(&text) };
    if right { Ok(()) } else { Err(format!("has said `{text}` of `{expected}`")) }
}

/// What the handler gave in the end: the data of the last artifact.
fn last_result(task: &Value) -> &Value {
    let last = task["artifacts"].as_array().and_then(|artifacts| artifacts.last());
    last.map_or(&Value::Null, |artifact| &artifact["parts"][0]["data"])
}
