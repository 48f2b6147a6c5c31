//! The checker finds each kind of violation in a history that has it, and nothing in one that has
//! none.

use serde_json::json;

use super::*;

/// A task with one end, seen by two clients, followed, and cancelled too late.
fn good() -> Evidence {
    let params = json!({"to": 2, "pause_us": 0});
    let message = json!({
        "messageId": "m1", "role": "ROLE_USER", "parts": [{"data": params}],
    });
    let task = json!({
        "id": "t", "status": {"state": "TASK_STATE_COMPLETED"}, "history": [message],
        "artifacts": [
            {"artifactId": "numbers", "parts": [{"text": "0 1 "}]},
            {"artifactId": "result", "parts": [{"data": 2}]},
        ],
    });
    let begun = json!({
        "id": "t", "status": {"state": "TASK_STATE_SUBMITTED"}, "history": [message],
    });
    let moved = |state: &str| json!({"statusUpdate": {"taskId": "t", "status": {"state": state}}});
    let piece = |text: &str| json!({"artifactUpdate": {"taskId": "t", "text": text}});
    let events = vec![
        ("1.2".to_owned(), moved("TASK_STATE_WORKING")),
        ("1.3".to_owned(), piece("0 ")),
        ("1.4".to_owned(), piece("1 ")),
        ("1.5".to_owned(), moved("TASK_STATE_COMPLETED")),
    ];
    let heard = |stream, cursor: &str, event: &Value| Entry::Heard {
        stream,
        cursor: Some(cursor.to_owned()),
        reset: false,
        event: event.clone(),
    };
    let mut first = vec![
        Entry::Sends { message: "m1".into(), capability: "count".into(), params },
        Entry::Sent { message: "m1".into(), task: begun.clone() },
        Entry::Follows { stream: 0, after: None },
        heard(0, "1.1", &json!({"task": begun})),
    ];
    first.extend(events.iter().map(|(cursor, event)| heard(0, cursor, event)));
    let mut second = vec![
        Entry::Listed { tasks: vec![("t".into(), "TASK_STATE_COMPLETED".into())] },
        Entry::Cancels { task: "t".into() },
        Entry::NotCancelable { task: "t".into() },
        Entry::Saw { task: task.clone() },
        Entry::Follows { stream: 0, after: Some("1.2".into()) },
    ];
    second.extend(events.iter().skip(1).map(|(cursor, event)| heard(0, cursor, event)));
    Evidence {
        histories: vec![first, second],
        finals: [("t".to_owned(), task)].into(),
        listed: vec!["t".to_owned()],
        controls: [("t".to_owned(), events)].into(),
        stored: Some(vec![StoredTask {
            id: "t".into(),
            is_terminal: true,
            last_seq: 5,
            seqs: (1..=5).collect(),
            ends: vec![5],
            sends: vec!["m1".into()],
        }]),
        marks: Vec::new(),
    }
}

#[test]
fn a_good_history_is_good() {
    assert_eq!(super::check(&good()), []);
}

/// Spoils good evidence, and expects rules to be broken, among them the first.
fn check(rule: Rule, spoil: impl FnOnce(&mut Evidence)) {
    let mut evidence = good();
    spoil(&mut evidence);
    let found = super::check(&evidence);
    assert!(found.iter().any(|found| found.rule == rule), "{rule:?}: {found:?}");
}

fn last(evidence: &mut Evidence) -> &mut Value {
    evidence.finals.get_mut("t").unwrap()
}

fn row(evidence: &mut Evidence) -> &mut StoredTask {
    &mut evidence.stored.as_mut().unwrap()[0]
}

#[test]
fn what_was_acknowledged_and_is_gone_is_found() {
    check(Rule::Kept, |evidence| {
        evidence.finals.clear();
    });
    check(Rule::Kept, |evidence| evidence.stored = Some(Vec::new()));
    check(Rule::Kept, |evidence| row(evidence).id = "another".into());
    check(Rule::Content, |evidence| {
        last(evidence)["history"][0]["parts"][0]["data"] = json!({"to": 3});
    });
    check(Rule::Content, |evidence| last(evidence)["history"][0]["messageId"] = json!("m2"));
    check(Rule::Content, |evidence| last(evidence)["history"] = json!([]));
}

#[test]
fn an_end_that_changes_or_comes_twice_is_found() {
    check(Rule::Final, |evidence| {
        last(evidence)["status"]["state"] = json!("TASK_STATE_FAILED");
    });
    check(Rule::Final, |evidence| last(evidence)["artifacts"][1]["parts"][0]["data"] = json!(3));
    check(Rule::OneEnd, |evidence| row(evidence).ends = vec![4, 5]);
    check(Rule::OneEnd, |evidence| row(evidence).ends = vec![4]);
    check(Rule::OneEnd, |evidence| row(evidence).ends.clear());
    check(Rule::OneEnd, |evidence| row(evidence).is_terminal = false);
}

#[test]
fn gaps_and_repeats_are_found() {
    check(Rule::Gapless, |evidence| row(evidence).seqs = vec![1, 2, 4, 5]);
    check(Rule::Gapless, |evidence| row(evidence).seqs.push(6));
    check(Rule::Gapless, |evidence| {
        evidence.controls.get_mut("t").unwrap().remove(1);
    });
    for history in [0, 1] {
        check(Rule::Gapless, |evidence| {
            evidence.histories[history].remove(6);
        });
        check(Rule::Gapless, |evidence| {
            let again = evidence.histories[history][6].clone();
            evidence.histories[history].insert(6, again);
        });
    }
    check(Rule::Gapless, |evidence| {
        let anew = evidence.histories[0][3].clone();
        evidence.histories[0].insert(6, anew);
    });
}

#[test]
fn another_event_in_its_place_is_found() {
    check(Rule::Control, |evidence| {
        evidence.controls.get_mut("t").unwrap()[2].1["artifactUpdate"]["text"] = json!("other");
    });
    check(Rule::Control, |evidence| {
        let Entry::Heard { event, .. } = &mut evidence.histories[0][3] else { panic!() };
        event["task"]["status"]["state"] = json!("TASK_STATE_WORKING");
    });
}

#[test]
fn one_message_twice_is_found() {
    check(Rule::OneTask, |evidence| {
        let again = json!({"id": "u", "history": last(evidence)["history"]});
        evidence.finals.insert("u".to_owned(), again);
    });
    check(Rule::OneTask, |evidence| {
        let task = json!({"id": "u"});
        evidence.histories[0].push(Entry::Sent { message: "m1".into(), task });
    });
    let mark = |task: &str| (task.to_owned(), "k".to_owned());
    check(Rule::OneExecution, |evidence| evidence.marks = vec![mark("t"), mark("t")]);
    check(Rule::OneExecution, |evidence| evidence.marks = vec![mark("t"), mark("u")]);
}

/// Makes the one task another one.
fn is(evidence: &mut Evidence, capability: &str, params: &Value, state: &str, result: &Value) {
    let task = last(evidence);
    task["status"] = json!({"state": state});
    task["artifacts"][1]["parts"][0]["data"] = result.clone();
    task["history"][0]["parts"][0]["data"] = params.clone();
    let (capability, params) = (capability.to_owned(), params.clone());
    evidence.histories = vec![vec![Entry::Sends { message: "m1".into(), capability, params }]];
}

#[test]
fn results_that_are_not_right_are_found() {
    let good = |capability: &str, params: Value, state: &str, result: Value| {
        let mut evidence = good();
        is(&mut evidence, capability, &params, state, &result);
        let found = super::check(&evidence);
        assert_eq!(found, [], "{capability}");
    };
    let bad = |capability: &str, params: Value, state: &str, result: Value| {
        check(Rule::Result, |evidence| is(evidence, capability, &params, state, &result));
    };
    let (completed, failed) = ("TASK_STATE_COMPLETED", "TASK_STATE_FAILED");
    good("resumable", json!({"to": 4}), completed, json!(10));
    bad("resumable", json!({"to": 4}), completed, json!(9));
    bad("resumable", json!({"to": 4}), failed, json!(10));
    good("flaky", json!({}), completed, json!(2));
    bad("flaky", json!({}), failed, json!(2));
    good("panics", json!({}), failed, json!(null));
    bad("panics", json!({}), completed, json!(null));
    bad("hangs", json!({}), failed, json!(null));
    bad("asks", json!({}), completed, json!("what nobody said"));
    bad("quick", json!({"key": "k"}), completed, json!("other"));
    bad("count", json!({"to": 3}), completed, json!(3));
    bad("count", json!({"to": 2}), failed, json!(null));
    check(Rule::OneExecution, |evidence| {
        is(evidence, "quick", &json!({"key": "k"}), completed, &json!("k"));
    });
}

#[test]
fn what_stands_still_is_found() {
    for state in ["TASK_STATE_SUBMITTED", "TASK_STATE_WORKING"] {
        check(Rule::Quiet, |evidence| last(evidence)["status"]["state"] = json!(state));
    }
}

#[test]
fn cancellations_that_contradict_their_answers_are_found() {
    let cancelled = "TASK_STATE_CANCELED";
    check(Rule::Cancel, |evidence| last(evidence)["status"]["state"] = json!(cancelled));
    check(Rule::Cancel, |evidence| {
        evidence.histories.remove(1);
        last(evidence)["status"]["state"] = json!(cancelled);
    });
    check(Rule::Cancel, |evidence| {
        last(evidence)["status"]["state"] = json!("TASK_STATE_WORKING");
    });
    check(Rule::Cancel, |evidence| {
        let task = last(evidence).clone();
        evidence.histories[1].push(Entry::Cancelled { task });
    });
}

#[test]
fn lists_with_too_much_or_too_little_are_found() {
    check(Rule::Lists, |evidence| evidence.listed.clear());
    check(Rule::Lists, |evidence| evidence.listed.push("t".into()));
}
