//! What was heard in streams that broke: without a gap, without a repeat, and the same as in one
//! piece.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Evidence, Rule, Violation, state, task_of};
use crate::history::Entry;

/// Looks at every stream of every client.
pub(super) fn check(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Vec::new();
    for control in &evidence.controls {
        found.extend(whole(control));
    }
    for history in &evidence.histories {
        let mut streams: BTreeMap<u64, Stream<'_>> = BTreeMap::new();
        for entry in history {
            match entry {
                Entry::Follows { stream, after } => {
                    let last = after.as_deref().and_then(place);
                    streams.insert(*stream, Stream { last, ..Stream::default() });
                }
                Entry::Heard { stream, cursor, reset, event } => {
                    let stream = streams.entry(*stream).or_default();
                    found.extend(stream.hears(cursor.as_deref(), *reset, event, evidence));
                }
                _ => {}
            }
        }
    }
    found
}

/// A stream as far as it was heard.
#[derive(Default)]
struct Stream<'a> {
    /// The place of the last event.
    last: Option<(u64, u64)>,
    /// The task that it is about.
    task: Option<&'a str>,
}

impl<'a> Stream<'a> {
    fn hears(
        &mut self,
        cursor: Option<&str>,
        reset: bool,
        event: &'a Value,
        evidence: &Evidence,
    ) -> Option<Violation> {
        let task = task_of(event).unwrap_or_default();
        let gap = |what: String| Some(Violation::new(Rule::Gapless, task, what));
        if self.task.is_some_and(|before| before != task) {
            return gap(format!("is told of in the stream of {:?}", self.task));
        }
        self.task = Some(task);
        let Some(cursor) = cursor else {
            // A task that had ended before anybody followed it is read, and has no place.
            let fresh = self.last.is_none() && event["task"].is_object();
            return if fresh {
                None
            } else {
                gap(format!("has an event without a place: {event}"))
            };
        };
        let Some((epoch, seq)) = place(cursor) else {
            return gap(format!("has an event at `{cursor}`, which is no place"));
        };
        let last = self.last.replace((epoch, seq));
        let control = evidence.controls.get(task);
        if event["task"].is_object() {
            // Kills lose nothing, so whoever follows is never told to begin anew.
            if reset || last.is_some() {
                return gap(format!("begins anew at {cursor} behind {last:?}"));
            }
            return control.and_then(|control| snapshot(task, seq, event, control));
        }
        if last != Some((epoch, seq.wrapping_sub(1))) {
            return gap(format!("goes on with {cursor} behind {last:?}"));
        }
        // The second event is the first of a control.
        let at = usize::try_from(seq.saturating_sub(2)).unwrap_or(usize::MAX);
        let told = control.and_then(|control| control.get(at)).filter(|(told, _)| told == cursor);
        match (control, told) {
            (None, _) => None,
            (Some(_), Some((_, told))) if told == event => None,
            (Some(_), told) => {
                let what = format!("had {event} at {cursor}, and has {told:?}");
                Some(Violation::new(Rule::Control, task, what))
            }
        }
    }
}

/// The task as it stood has the state that the events before make.
fn snapshot(task: &str, seq: u64, event: &Value, control: &[(String, Value)]) -> Option<Violation> {
    let is_before = |at: &str| place(at).is_some_and(|(_, at)| at <= seq);
    let before = control.iter().rev().filter(|(at, _)| is_before(at));
    let mut states =
        before.filter_map(|(_, event)| event["statusUpdate"]["status"]["state"].as_str());
    let expected = states.next().unwrap_or("TASK_STATE_SUBMITTED");
    let shown = state(&event["task"]);
    let what = || format!("was {shown} at {seq}, where it is {expected}");
    (shown != expected).then(|| Violation::new(Rule::Control, task, what()))
}

/// A control begins with the second event, since the task itself is the first, and has all others.
fn whole((task, control): (&String, &Vec<(String, Value)>)) -> Option<Violation> {
    let places: Vec<u64> =
        control.iter().filter_map(|(at, _)| place(at)).map(|(_, seq)| seq).collect();
    let last = 1 + control.len() as u64;
    let right = places.iter().copied().eq(2..=last);
    let what = || format!("is told as {places:?}");
    (!right).then(|| Violation::new(Rule::Gapless, task, what()))
}

/// `epoch.seq`.
fn place(cursor: &str) -> Option<(u64, u64)> {
    let (epoch, seq) = cursor.split_once('.')?;
    Some((epoch.parse().ok()?, seq.parse().ok()?))
}
