//! What an explanation says, line by line.

use super::*;
use crate::fixture::{Ask, SEED_ORCHESTRATOR, SEED_WORKER, load, load_with, patient, still};
use crate::{Fixed, Policy, PolicyData, PolicyOptions};

/// The explanation as lines: the deciding place, then each attempt with its outcome.
fn lines(policy: &Policy, ask: &Ask<'_>) -> Vec<String> {
    let explanation = ask.with(|question| policy.explain(question, &still)).unwrap();
    assert_eq!(explanation.decision.reason, ask.decide(policy).reason);
    let place = explanation.place.map_or("nowhere".to_owned(), |place| place.line.to_string());
    let mut lines = vec![format!("{} by {place}", explanation.decision.reason.as_str())];
    lines.extend(explanation.tried.iter().map(|attempt| {
        let what = match &attempt.outcome {
            Outcome::Holds(value) => format!("is {value}"),
            Outcome::NotTrue { condition, place } => {
                format!("not {}:{} {condition}", place.line, place.column)
            }
            Outcome::Fails { condition, place, message } => {
                format!("fails {} {condition}: {message}", place.line)
            }
            Outcome::Unknown(why) => format!("unknown, {why}"),
        };
        format!("{}{}:{} {what}", "  ".repeat(attempt.depth), attempt.rule, attempt.place.line)
    }));
    lines
}

fn check(rules: &str, ask: &Ask<'_>, expected: &[&str]) {
    let policy = load(&format!("package agentweave.authz\n{rules}\n"));
    assert_eq!(lines(&policy, ask), expected, "{rules}");
}

#[test]
fn the_seeds_policies_are_explained() {
    let worker = load(SEED_WORKER);
    let ask = |caller| Ask { caller, ..Ask::default() };
    assert_eq!(
        lines(&worker, &ask("spiffe://example.org/orchestrator")),
        ["allowed by 7", "allow:7 is true", "allow:19 is true"]
    );
    assert_eq!(
        lines(&worker, &ask("spiffe://example.org/anybody")),
        [
            "allowed by 19",
            "allow:7 not 12:5 caller_spiffe_id == \"spiffe://example.org/orchestrator\"",
            "allow:19 is true",
        ]
    );
    assert_eq!(
        lines(&worker, &ask("spiffe://other.org/orchestrator")),
        [
            "denied by 4",
            "allow:7 not 12:5 caller_spiffe_id == \"spiffe://example.org/orchestrator\"",
            "allow:19 not 23:5 caller_trust_domain == our_trust_domain",
        ]
    );
    assert_eq!(
        lines(&worker, &ask("anonymous")),
        [
            "denied by 4",
            "allow:7 not 9:5 caller_spiffe_id := input.caller.spiffe_id",
            "allow:19 not 20:5 caller_spiffe_id := input.caller.spiffe_id",
        ]
    );
    assert_eq!(lines(&load(SEED_ORCHESTRATOR), &ask("anonymous")), ["allowed by 4"]);
}

#[test]
fn a_condition_that_is_a_rule_is_followed() {
    check(
        "allow if {\n  is_user\n  input.request.method == \"x\"\n}\n\
         is_user if startswith(input.caller.path, \"/user/\")\n\
         is_user if is_admin\nis_admin if input.caller.path == \"/admin\"",
        &Ask::default(),
        &[
            "undefined by nowhere",
            "allow:2 not 3:3 is_user",
            "  is_user:6 not 6:12 startswith(input.caller.path, \"/user/\")",
            "  is_user:7 not 7:12 is_admin",
            "    is_admin:8 not 8:13 input.caller.path == \"/admin\"",
        ],
    );
}

#[test]
fn each_form_of_a_rule_is_told() {
    let ask = Ask::default();
    check("allow := true", &ask, &["allowed by 2", "allow:2 is true"]);
    check("allow := false", &ask, &["denied by 2", "allow:2 is false"]);
    check("allow := \"yes\"", &ask, &["not_a_decision by nowhere", "allow:2 is \"yes\""]);
    check("allow := 7", &ask, &["not_a_decision by nowhere", "allow:2 is 7"]);
    check(
        "allow if {\n  input.action == \"x\"\n} else := false if {\n  input.action\n}",
        &ask,
        &["denied by 4", "allow:2 not 3:3 input.action == \"x\"", "allow:4 is false"],
    );
    check(
        "decision := {\"allow\": true} if input.nothing\n\
         default decision := {\"allow\": false, \"reason\": \"r\"}",
        &ask,
        &["denied by 3", "decision:2 not 2:32 input.nothing"],
    );
    // Conditions may stand before those that bind their variables.
    check(
        "allow if {\n  x == \"y\"\n  x = input.action\n}",
        &ask,
        &["undefined by nowhere", "allow:2 not 3:3 x == \"y\""],
    );
    check(
        "allow if {\n  some x in [1, 2]\n  x == 3\n}",
        &ask,
        &["undefined by nowhere", "allow:2 not 4:3 x == 3"],
    );
    check(
        "allow if {\n  some k\n  input.caller[k] == 3\n}",
        &ask,
        &["undefined by nowhere", "allow:2 not 4:3 input.caller[k] == 3"],
    );
    check(
        "allow if {\n  not input.action\n}",
        &ask,
        &["undefined by nowhere", "allow:2 not 3:3 not input.action"],
    );
    check(
        "allow if {\n  every x in [1] {\n    x == 2\n  }\n}",
        &ask,
        &["undefined by nowhere", "allow:2 not 3:3 every x in [1] { x == 2 }"],
    );
    check(
        "allow if {\n  f with input.action as \"q\"\n}\nf if input.action == \"p\"",
        &ask,
        &["undefined by nowhere", "allow:2 not 3:3 f with input.action as \"q\""],
    );
    check(
        "allow := x if {\n  x := input.action == \"q\"\n}",
        &ask,
        &["denied by 2", "allow:2 is false"],
    );
    check(
        "allow if {\n  input.action\n  to_number(input.action) == 1\n}",
        &ask,
        &[
            "error by 2",
            "allow:2 fails 4 to_number(input.action) == 1: could not parse string as number",
        ],
    );
}

#[test]
fn data_parameters_and_the_instant_are_as_in_the_decision() {
    let data = PolicyData { name: "d.json".to_owned(), text: r#"{"n": 7}"#.to_owned() };
    let options = PolicyOptions { data: vec![data], ..patient() };
    let text = "package agentweave.authz\nallow if {\n  data.n == 7\n  \
                time.now_ns() == 1798761599001000000\n  input.request.params.text == \"one two\"\n}";
    let policy = load_with(text, &options).unwrap();
    assert_eq!(lines(&policy, &Ask::default()), ["allowed by 2", "allow:2 is true"]);
}

#[test]
fn without_a_policy_there_is_no_rule() {
    let explain = |policy: &Policy| Ask::default().with(|q| policy.explain(q, &still)).unwrap();
    let explanation = explain(&Policy::fixed(Fixed::DenyAll));
    assert_eq!((explanation.file, explanation.tried.len()), (None, 0));
    assert!(!explanation.decision.is_allowed());
}
