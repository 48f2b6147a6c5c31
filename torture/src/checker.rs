//! Whether what clients have asked and heard fits what the agent says in the end, and what lies in
//! its store.
//!
//! It knows the histories, the final answers and the rows, and nothing of how the agent works. Each
//! rule is a function from the evidence to the violations that it found.

mod results;
mod streams;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use crate::history::Entry;
use crate::store::{StoredTask, TERMINAL_WORDS};

/// Everything that is known after a run.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// What each client has asked and heard.
    pub histories: Vec<Vec<Entry>>,
    /// Each task as the agent shows it in the end, by name.
    pub finals: BTreeMap<String, Value>,
    /// The names of all tasks as lists give them in the end, in their order.
    pub listed: Vec<String>,
    /// All events of tasks that were followed, read from the first in one piece: place and event.
    pub controls: BTreeMap<String, Vec<(String, Value)>>,
    /// The store, if it was read.
    pub stored: Option<Vec<StoredTask>>,
    /// The marks of executions: task and key.
    pub marks: Vec<(String, String)>,
}

/// What must be true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A task that was acknowledged is there.
    Kept,
    /// It holds what was sent, and what was shown.
    Content,
    /// It has one end, which is its last event.
    OneEnd,
    /// An end that was seen stays.
    Final,
    /// Numbers have no gaps and none comes twice.
    Gapless,
    /// What was heard in pieces is what is told in one.
    Control,
    /// One message is one task.
    OneTask,
    /// One message is one execution.
    OneExecution,
    /// Nothing is at work for ever.
    Quiet,
    /// The result is the right one, whatever was killed.
    Result,
    /// What was cancelled was asked for, and what was refused had ended.
    Cancel,
    /// Lists have each task once.
    Lists,
}

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// By what: a task, a message.
    pub subject: String,
    /// How.
    pub what: String,
}

impl Violation {
    fn new(rule: Rule, subject: &str, what: impl Into<String>) -> Self {
        Self { rule, subject: subject.to_owned(), what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}: {}", self.rule, self.subject, self.what)
    }
}

/// Every rule that was broken, in order.
#[must_use]
pub fn check(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Vec::new();
    found.extend(kept(evidence));
    found.extend(shown(evidence));
    found.extend(rows(evidence));
    found.extend(sends(evidence));
    found.extend(quiet(evidence));
    found.extend(cancels(evidence));
    found.extend(lists(evidence));
    found.extend(results::check(evidence));
    found.extend(streams::check(evidence));
    found.sort();
    found.dedup();
    found
}

impl Evidence {
    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.histories.iter().flatten()
    }

    /// Every task that an answer showed.
    fn acknowledged(&self) -> BTreeSet<&str> {
        let mut ids = BTreeSet::new();
        for entry in self.entries() {
            match entry {
                Entry::Sent { task, .. } | Entry::Saw { task } | Entry::Cancelled { task } => {
                    ids.extend(task["id"].as_str());
                }
                Entry::Heard { event, .. } => ids.extend(task_of(event)),
                Entry::Listed { tasks } => ids.extend(tasks.iter().map(|(id, _)| id.as_str())),
                _ => {}
            }
        }
        ids
    }
}

/// The task that an event is about.
fn task_of(event: &Value) -> Option<&str> {
    let update = |name: &str| event[name]["taskId"].as_str();
    event["task"]["id"]
        .as_str()
        .or_else(|| update("statusUpdate"))
        .or_else(|| update("artifactUpdate"))
}

fn state(task: &Value) -> &str {
    task["status"]["state"].as_str().unwrap_or_default()
}

fn is_terminal(state: &str) -> bool {
    TERMINAL_WORDS.contains(&state)
}

/// The message that made a task.
fn made_by(task: &Value) -> &str {
    task["history"][0]["messageId"].as_str().unwrap_or_default()
}

/// Acknowledged is kept: by the agent, and in the store.
fn kept(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Vec::new();
    let stored: Option<BTreeSet<&str>> =
        evidence.stored.as_ref().map(|tasks| tasks.iter().map(|task| task.id.as_str()).collect());
    for id in evidence.acknowledged() {
        if !evidence.finals.contains_key(id) {
            found.push(Violation::new(Rule::Kept, id, "was acknowledged, and the agent lacks it"));
        }
        if stored.as_ref().is_some_and(|stored| !stored.contains(id)) {
            found.push(Violation::new(Rule::Kept, id, "was acknowledged, and the store lacks it"));
        }
    }
    found
}

/// What was shown of a task once is true in the end.
fn shown(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Vec::new();
    for entry in evidence.entries() {
        let (task, whole) = match entry {
            Entry::Sent { task, .. } | Entry::Saw { task } | Entry::Cancelled { task } => {
                (task, true)
            }
            Entry::Heard { event, .. } if event["task"].is_object() => (&event["task"], true),
            Entry::Heard { event, .. } => (&event["statusUpdate"], false),
            Entry::Listed { tasks } => {
                for (id, seen) in tasks.iter().filter(|(_, seen)| is_terminal(seen)) {
                    let last = evidence.finals.get(id).map(state);
                    if last.is_some_and(|last| last != seen) {
                        let what = format!("was listed as {seen} and is {last:?}");
                        found.push(Violation::new(Rule::Final, id, what));
                    }
                }
                continue;
            }
            _ => continue,
        };
        let id = if whole { task["id"].as_str() } else { task["taskId"].as_str() };
        let Some((id, last)) = id.and_then(|id| Some((id, evidence.finals.get(id)?))) else {
            continue;
        };
        if is_terminal(state(task)) {
            let same = if whole { task == last } else { task["status"] == last["status"] };
            if !same {
                let what = format!("had ended as {task} and is {last}");
                found.push(Violation::new(Rule::Final, id, what));
            }
        } else if whole && !is_prefix(&said(task), &said(last)) {
            let what = format!("had the messages {:?}, and has {:?}", said(task), said(last));
            found.push(Violation::new(Rule::Content, id, what));
        }
    }
    found
}

/// What the client has said in a task.
fn said(task: &Value) -> Vec<&Value> {
    let history = task["history"].as_array().map(Vec::as_slice).unwrap_or_default();
    history.iter().filter(|message| message["role"] == "ROLE_USER").collect()
}

fn is_prefix(part: &[&Value], whole: &[&Value]) -> bool {
    whole.get(..part.len()) == Some(part)
}

/// Each task in the store has all of its events and one end, and the agent shows each.
fn rows(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Vec::new();
    for task in evidence.stored.iter().flatten() {
        let gapless = task.seqs.iter().copied().eq(1..=task.last_seq);
        if !gapless {
            let what = format!("has events {:?} of {}", task.seqs, task.last_seq);
            found.push(Violation::new(Rule::Gapless, &task.id, what));
        }
        let right = match task.ends.as_slice() {
            [] => !task.is_terminal,
            [end] => task.is_terminal && *end == task.last_seq,
            _ => false,
        };
        if !right {
            let what = format!("ends at {:?} of {}", task.ends, task.last_seq);
            found.push(Violation::new(Rule::OneEnd, &task.id, what));
        }
        if !evidence.finals.contains_key(&task.id) {
            found.push(Violation::new(Rule::Kept, &task.id, "is in the store, and nobody has it"));
        }
    }
    found
}

/// One message is one task with what was sent, and `quick` ran at most once for it.
fn sends(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut tasks: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for entry in evidence.entries() {
        if let Entry::Sent { message, task } = entry {
            tasks.entry(message).or_default().extend(task["id"].as_str());
        }
    }
    for (id, task) in &evidence.finals {
        tasks.entry(made_by(task)).or_default().insert(id);
    }
    for task in evidence.stored.iter().flatten() {
        for message in &task.sends {
            tasks.entry(message).or_default().insert(&task.id);
        }
    }
    for (message, tasks) in tasks.iter().filter(|(_, tasks)| tasks.len() != 1) {
        found.push(Violation::new(Rule::OneTask, message, format!("became {tasks:?}")));
    }
    let mut marks: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (task, key) in &evidence.marks {
        marks.entry(key).or_default().push(task);
    }
    for (key, tasks) in marks.iter().filter(|(_, tasks)| tasks.len() != 1) {
        found.push(Violation::new(Rule::OneExecution, key, format!("ran for {tasks:?}")));
    }
    found
}

/// Nothing is at work in the end.
fn quiet(evidence: &Evidence) -> Vec<Violation> {
    let at_work = |task: &Value| {
        let state = state(task);
        !is_terminal(state) && state != "TASK_STATE_INPUT_REQUIRED"
    };
    let stuck = evidence.finals.iter().filter(|(_, task)| at_work(task));
    stuck.map(|(id, task)| Violation::new(Rule::Quiet, id, format!("is {}", state(task)))).collect()
}

/// Cancellations and their answers fit each other.
fn cancels(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut asked = BTreeSet::new();
    let mut wrong = |id: &str, what: String| {
        found.push(Violation::new(Rule::Cancel, id, what));
    };
    for entry in evidence.entries() {
        match entry {
            Entry::Cancels { task } => {
                asked.insert(task.as_str());
            }
            Entry::Cancelled { task } if state(task) != "TASK_STATE_CANCELED" => {
                let id = task["id"].as_str().unwrap_or_default();
                wrong(id, format!("was cancelled, and is {}", state(task)));
            }
            Entry::NotCancelable { task } => {
                let last = evidence.finals.get(task).map(state).unwrap_or_default();
                if !is_terminal(last) {
                    wrong(task, format!("could not be cancelled, and is {last}"));
                }
            }
            _ => {}
        }
    }
    for history in &evidence.histories {
        for two in history.windows(2) {
            // Nobody else cancels it, and no answer was lost in between.
            if let [Entry::Cancels { task: asked }, Entry::NotCancelable { task }] = two
                && asked == task
                && evidence.finals.get(task).map(state) == Some("TASK_STATE_CANCELED")
            {
                wrong(task, "could not be cancelled, and is".to_owned());
            }
        }
    }
    for (id, task) in &evidence.finals {
        if state(task) == "TASK_STATE_CANCELED" && !asked.contains(id.as_str()) {
            wrong(id, "is cancelled, and nobody asked".to_owned());
        }
    }
    found
}

/// Lists have every task, and each once.
fn lists(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for id in &evidence.listed {
        if !seen.insert(id) {
            found.push(Violation::new(Rule::Lists, id, "is listed twice"));
        }
    }
    for id in evidence.finals.keys().filter(|id| !seen.contains(id)) {
        found.push(Violation::new(Rule::Lists, id, "is in no list"));
    }
    found
}
