//! Decisions, from the text of a policy to the answer.

use std::cell::Cell;
use std::sync::Barrier;
use std::time::Duration;

use convoke_model::{GetTask, Operation, OperationKind, Reason, TaskId};

use crate::clock::tests::STEP;
use crate::fixture::{Ask, SEED_ORCHESTRATOR, SEED_WORKER, load, load_with, patient, still};
use crate::said::TEXT_BYTES_MAX;
use crate::store::{ENGINES_PER_THREAD_MAX, engines_kept};
use crate::{Fixed, Policy, PolicyOptions, authorize};

const ORCHESTRATOR: &str = "spiffe://example.org/orchestrator";
const NEIGHBOUR: &str = "spiffe://example.org/anybody";
const FOREIGN: &str = "spiffe://other.org/orchestrator";

fn allowed() -> Reason {
    Reason::Allowed(None)
}

fn denied() -> Reason {
    Reason::Denied(None)
}

/// What the policy `text` answers to the usual question.
fn check(text: &str, expected: Reason) {
    let decision = Ask::default().decide(&load(text));
    assert_eq!(decision.reason, expected, "{text}");
}

/// As [`check`], for a failure whose text has to contain `part`.
fn check_error(text: &str, part: &str) {
    match Ask::default().decide(&load(text)).reason {
        Reason::Error(message) => assert!(message.contains(part), "{message}"),
        other => panic!("{other:?} from {text}"),
    }
}

fn v1(rules: &str) -> String {
    format!("package agentweave.authz\n{rules}\n")
}

#[test]
fn the_seeds_policies_decide_as_written() {
    let (worker, orchestrator) = (load(SEED_WORKER), load(SEED_ORCHESTRATOR));
    for (policy, caller, method, expected) in [
        (&worker, ORCHESTRATOR, "count_words", allowed()),
        (&worker, ORCHESTRATOR, "delete_everything", allowed()),
        (&worker, NEIGHBOUR, "delete_everything", allowed()),
        (&worker, FOREIGN, "count_words", denied()),
        (&worker, "anonymous", "count_words", denied()),
        (&orchestrator, FOREIGN, "process_document", allowed()),
        (&orchestrator, "anonymous", "process_document", allowed()),
    ] {
        let decision = Ask { caller, method, ..Ask::default() }.decide(policy);
        assert_eq!(decision.reason, expected, "{caller} {method}");
        assert_eq!(&*decision.rule, "data.agentweave.authz.allow");
        assert_eq!(decision.revision, *policy.revision());
    }
}

#[test]
fn an_if_is_never_an_unconditional_rule() {
    let body = "{ input.caller.spiffe_id == \"spiffe://example.org/orchestrator\" }";
    for text in [
        v1(&format!("allow if {body}")),
        v1(&format!("default allow = false\nallow if {body}")),
        // `{…}` without `if` makes this v0.
        v1(&format!("default allow = false\nother {{ 1 == 2 }}\nallow if {body}")),
        v1(&format!("other {{ 1 in [2] }}\nallow if {body}")),
    ] {
        let policy = load(&text);
        assert!(Ask::default().decide(&policy).is_allowed(), "{text}");
        for caller in [NEIGHBOUR, FOREIGN, "anonymous"] {
            let decision = Ask { caller, ..Ask::default() }.decide(&policy);
            assert!(!decision.is_allowed(), "{caller}: {text}");
        }
    }
}

#[test]
fn only_true_allows() {
    check(&v1("allow := true"), allowed());
    check(&v1("allow := false"), denied());
    check(&v1("allow if false"), Reason::Undefined);
    check(&v1("allow := \"true\""), Reason::NotADecision);
    check(&v1("allow := 1"), Reason::NotADecision);
    check(&v1("allow := {\"allow\": true}"), Reason::NotADecision);
    check(&v1("allow contains \"x\""), Reason::NotADecision);
    check(&v1("allow := null"), Reason::NotADecision);
}

#[test]
fn a_decision_object_decides_before_allow() {
    let said = |text: &str| Some(text.to_owned());
    check(
        &v1("allow := false\ndecision := {\"allow\": true, \"reason\": \"known\"}"),
        Reason::Allowed(said("known")),
    );
    check(
        &v1("allow := true\ndecision := {\"allow\": false, \"reason\": \"closed\"}"),
        Reason::Denied(said("closed")),
    );
    check(&v1("decision := {\"allow\": true, \"reason\": 7}"), allowed());
    check(&v1("decision := {\"allow\": true}"), allowed());
    check(&v1("decision := {\"allow\": 1}"), Reason::NotADecision);
    check(&v1("decision := {\"reason\": \"x\"}"), Reason::NotADecision);
    check(&v1("decision := true"), Reason::NotADecision);
    check(&v1("allow := true\ndecision := {\"allow\": true} if false"), Reason::Undefined);
    let policy = load(&v1("decision := {\"allow\": true}"));
    assert_eq!(&*Ask::default().decide(&policy).rule, "data.agentweave.authz.decision");
}

#[test]
fn a_reason_stands_beside_allow() {
    let said = |text: &str| Some(text.to_owned());
    check(&v1("allow := true\nreason := \"why not\""), Reason::Allowed(said("why not")));
    check(&v1("allow := false\nreason := \"no\""), Reason::Denied(said("no")));
    check(&v1("allow := true\nreason := \"x\" if false"), allowed());
    check(&v1("allow := true\nreason := 7"), allowed());
    check_error(
        &v1("allow := true\nreason := to_number(\"x\")"),
        "test.rego:3: could not parse string as number",
    );
    check(&v1("allow := false\nreason := \"a\\nb\\u001b[2J\""), Reason::Denied(said("a b [2J")));
    let long =
        v1("allow := false\nreason := concat(\"\", [\"ä\" | some _ in numbers.range(1, 999)])");
    let decision = Ask::default().decide(&load(&long));
    assert_eq!(decision.reason.detail().map(str::len), Some(TEXT_BYTES_MAX));
}

#[test]
fn failures_refuse_and_say_where() {
    // A failing built-in function under `not` must not become undefined, which would allow.
    check_error(
        &v1("allow if not to_number(input.request.method) == 1"),
        "test.rego:2: could not parse string as number",
    );
    check_error(&v1("allow := x if some x in [true, false]"), "test.rego:2: ");
    check_error(
        &v1("allow if other\nother if allow"),
        "test.rego:2: recursion detected when evaluating rule",
    );
    // The next question on this thread is none the worse.
    check(&v1("allow := true"), allowed());
}

#[test]
fn a_worker_that_failed_is_replaced() {
    let policy =
        load(&v1("allow if to_number(input.request.method) == 1 with input.caller as {}\n\
         default allow := false"));
    for _ in 0..2 {
        let bad = Ask::default().decide(&policy);
        assert!(matches!(bad.reason, Reason::Error(_)), "{bad:?}");
        assert_eq!(Ask { method: "1", ..Ask::default() }.decide(&policy).reason, allowed());
        assert_eq!(Ask { method: "2", ..Ask::default() }.decide(&policy).reason, denied());
    }
}

#[test]
fn an_endless_policy_is_cut() {
    let text =
        v1("allow if { some a in numbers.range(1, 4000); some b in numbers.range(1, 4000); \
         a * b == -1 }");
    let options = PolicyOptions { time_max: Duration::from_millis(1), ..patient() };
    let policy = load_with(&text, &options).unwrap();
    assert_eq!(Ask::default().decide(&policy).reason, Reason::OverTime);
}

#[test]
fn an_evaluation_that_took_too_much_processor_time_is_refused_after_the_fact() {
    // What reads the instant is evaluated each time.
    let policy = load(&v1("allow if input.request.timestamp"));
    let limit = patient().time_max;
    let run = |wall: Duration, processor: Duration| {
        STEP.set(Some(processor));
        let now = Cell::new(Duration::ZERO);
        let clock = || now.replace(now.get() + wall);
        Ask::default().with(|question| policy.decide(question, &clock))
    };
    let (little, much) = (limit, limit + Duration::from_nanos(1));
    assert_eq!(run(little, little).reason, allowed());
    // Who is in time by the wall is so by the processor's time, which nobody looks at then.
    assert_eq!(run(little, much).reason, allowed());
    // A machine that does something else meanwhile makes nothing slow.
    assert_eq!(run(much, little).reason, allowed());
    let late = run(much, much);
    assert_eq!(late.reason, Reason::OverTime);
    assert!(late.took > limit);
    assert_eq!(run(little, little).reason, allowed());
}

#[test]
fn a_large_input_is_refused_before_it_is_built() {
    let options = PolicyOptions { input_bytes_max: 2048, ..patient() };
    let params = format!(r#"{{"text":"{}"}}"#, "x".repeat(2048));
    let ask = Ask { params: Some(&params), ..Ask::default() };
    let reads = load_with(&v1("allow if input.request.params.text"), &options).unwrap();
    assert_eq!(ask.decide(&reads).reason, Reason::InputTooLarge);
    assert_eq!(Ask::default().decide(&reads).reason, allowed());
    // Parameters that the policy cannot read are no part of the document.
    let blind = load_with(&v1("allow if input.request.method"), &options).unwrap();
    assert_eq!(ask.decide(&blind).reason, allowed());
    let long = "m".repeat(2048);
    assert_eq!(
        Ask { method: &long, ..Ask::default() }.decide(&blind).reason,
        Reason::InputTooLarge
    );
}

#[test]
fn parameters_that_the_engine_cannot_hold_refuse() {
    let policy = load(&v1("allow if not input.request.params.x"));
    let check = |params: &str, expected: &str| {
        let reason = Ask { params: Some(params), ..Ask::default() }.decide(&policy).reason;
        assert_eq!(reason, Reason::Error(expected.to_owned()), "{params}");
    };
    check("1e999999", "request.params: number out of range at line 1 column 8");
    check("{\"x\":-1e400}", "request.params: number out of range at line 1 column 11");
}

#[test]
fn policy_and_handler_read_the_same_of_two_equal_keys() {
    // serde_json, which reads the parameters for the handler, keeps the last.
    let policy = load(&v1("allow if input.request.params.x == 2"));
    let decide = |params| Ask { params: Some(params), ..Ask::default() }.decide(&policy).reason;
    assert_eq!(decide(r#"{"x":1,"x":2}"#), allowed());
    assert_eq!(decide(r#"{"x":2,"x":1}"#), Reason::Undefined);
}

#[test]
fn time_is_the_instant_of_the_request() {
    check(&v1("allow if time.now_ns() == 1798761599001000000"), allowed());
    check(&v1("allow if time.clock(time.now_ns()) == [23, 59, 59]"), allowed());
    check(
        &v1("allow if time.parse_rfc3339_ns(input.request.timestamp) == time.now_ns()"),
        allowed(),
    );
}

#[test]
fn without_a_policy_the_default_answers() {
    for (fixed, reason, rule) in [
        (Fixed::DenyAll, denied(), "default_policy deny_all"),
        (Fixed::AllowAll, allowed(), "default_policy allow_all"),
    ] {
        let decision = Ask::default().decide(&Policy::fixed(fixed));
        assert_eq!((decision.reason, &*decision.rule), (reason, rule));
    }
}

#[test]
fn only_an_allowed_operation_becomes_authorized() {
    let operation = || {
        let id = TaskId::parse("t1").unwrap();
        Operation::GetTask(GetTask { tenant: None, id, history_length: None })
    };
    let policy = load(&v1("allow if input.request.operation == \"GetTask\""));
    Ask::default().with(|question| {
        // The question says SendMessage; what counts is the operation that is handed over.
        assert_eq!(question.operation, OperationKind::SendMessage);
        let authorized = authorize(&policy, question, operation(), &still).unwrap();
        assert_eq!(authorized.operation(), &operation());
        assert!(authorized.decision().is_allowed());
        assert_eq!(authorized.into_parts().0, operation());

        let deny = Policy::fixed(Fixed::DenyAll);
        let refused = authorize(&deny, question, operation(), &still).unwrap_err();
        assert_eq!(refused.operation, operation());
        assert_eq!(refused.decision.reason, denied());
    });
}

#[test]
fn equal_policies_have_equal_revisions() {
    let text = v1("allow := true");
    let revision =
        |text: &str, options: &PolicyOptions| load_with(text, options).unwrap().revision().clone();
    let first = revision(&text, &patient());
    assert_eq!(first, revision(&text, &patient()));
    assert_eq!(first.0.len(), 16);
    assert_ne!(first, revision(&format!("{text} "), &patient()));
    let other = PolicyOptions { input_bytes_max: 4096, ..patient() };
    assert_ne!(first, revision(&text, &other));
}

#[test]
fn threads_decide_at_once() {
    let policy = load(SEED_WORKER);
    let barrier = Barrier::new(2);
    std::thread::scope(|scope| {
        for (caller, expected) in [(ORCHESTRATOR, allowed()), (FOREIGN, denied())] {
            let (policy, barrier) = (policy.clone(), &barrier);
            scope.spawn(move || {
                barrier.wait();
                for _ in 0..200 {
                    let decision = Ask { caller, ..Ask::default() }.decide(&policy);
                    assert_eq!(decision.reason, expected);
                }
            });
        }
    });
}

#[test]
fn engines_are_kept_and_freed() {
    // A thread of its own, so that the engines of other tests do not count.
    let counts = std::thread::spawn(|| {
        let (first, second) = (load(SEED_WORKER), load(SEED_ORCHESTRATOR));
        let mut counts = vec![engines_kept()];
        for policy in [&first, &second, &first] {
            assert!(Ask::default().decide(policy).is_allowed());
            counts.push(engines_kept());
        }
        drop(first);
        assert!(Ask::default().decide(&second).is_allowed());
        counts.push(engines_kept());
        counts
    });
    assert_eq!(counts.join().unwrap(), [0, 1, 2, 2, 1]);
}

#[test]
fn a_thread_keeps_a_bounded_number_of_engines() {
    let kept = std::thread::spawn(|| {
        let policies: Vec<Policy> =
            (0..ENGINES_PER_THREAD_MAX + 3).map(|_| load(SEED_ORCHESTRATOR)).collect();
        for policy in policies.iter().chain(&policies) {
            assert!(Ask::default().decide(policy).is_allowed());
        }
        engines_kept()
    });
    assert_eq!(kept.join().unwrap(), ENGINES_PER_THREAD_MAX);
}
