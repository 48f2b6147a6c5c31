//! What holds for any policy and any questions: a policy that keeps answers and builds only what
//! it reads decides like the bare engine with the whole document.

use std::sync::Arc;
use std::time::Duration;

use convoke_model::{
    Caller, Json, OperationKind, Principal, Reason, SpiffeId, TrustLevel, UnixMillis,
};
use proptest::prelude::*;
use regorus::Value;

use crate::clock::tests::STEP;
use crate::engine::{evaluations, new_engine};
use crate::field::{Field, Fields};
use crate::fixture::{Ask, load, load_with, patient, still};
use crate::input::Inputs;
use crate::memo::{ANSWERS_MAX, KEY_BYTES_MAX, Memo, Recalled};
use crate::said::tidy;
use crate::{Policy, PolicyOptions, Question};

/// A question that owns what it is made of.
#[derive(Debug, Clone)]
struct Asked {
    caller: Caller,
    agent: SpiffeId,
    operation: OperationKind,
    params: Option<Json>,
    at: UnixMillis,
    agent_name: String,
    method: String,
    protocol: String,
    remote_addr: String,
    request_id: String,
    task_id: Option<String>,
    context_id: Option<String>,
}

impl Asked {
    fn with<T>(&self, with: impl FnOnce(&Question<'_>) -> T) -> T {
        with(&Question {
            caller: &self.caller,
            agent: &self.agent,
            agent_name: &self.agent_name,
            operation: self.operation,
            method: &self.method,
            params: self.params.as_ref(),
            at: self.at,
            protocol: &self.protocol,
            remote_addr: &self.remote_addr,
            request_id: &self.request_id,
            task_id: self.task_id.as_deref(),
            context_id: self.context_id.as_deref(),
        })
    }

    fn decide(&self, policy: &Policy) -> Reason {
        self.with(|question| policy.decide(question, &still)).reason
    }
}

/// Texts that are each other's beginnings and ends, so that they collide if they are only joined.
/// One is the name of a field, for references that are made of values.
fn word() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "a", "aa", "b", "ab", "a\0", "method"]).prop_map(str::to_owned)
}

fn spiffe_id() -> impl Strategy<Value = SpiffeId> {
    prop::sample::select(vec!["spiffe://a/b", "spiffe://a/bb", "spiffe://ab/b", "spiffe://b/a/b"])
        .prop_map(|text| SpiffeId::parse(text).unwrap())
}

fn caller() -> impl Strategy<Value = Caller> {
    let level = prop::sample::select(vec![TrustLevel::Verified, TrustLevel::Internal]);
    prop_oneof![
        1 => Just(Caller::Anonymous),
        4 => (spiffe_id(), word(), word(), level).prop_map(|(spiffe_id, tenant, app, trust_level)| {
            let (tenant, app) = (tenant.into(), app.into());
            Caller::Principal(Arc::new(Principal { spiffe_id, tenant, app, trust_level }))
        }),
    ]
}

fn asked() -> impl Strategy<Value = Asked> {
    let operation = prop::sample::select(vec![OperationKind::SendMessage, OperationKind::GetTask]);
    let params = prop::sample::select(vec![None, Some("{}"), Some(r#"{"method":"a"}"#), Some("7")])
        .prop_map(|text| text.map(|text| Json::parse(text).unwrap()));
    let known = (caller(), spiffe_id(), operation, params, (0..3_u64).prop_map(UnixMillis));
    let words = (word(), word(), word(), word(), word());
    (known, words, prop::option::of(word()), prop::option::of(word())).prop_map(
        |((caller, agent, operation, params, at), words, task_id, context_id)| {
            let (agent_name, method, protocol, remote_addr, request_id) = words;
            Asked {
                caller,
                agent,
                operation,
                params,
                at,
                agent_name,
                method,
                protocol,
                remote_addr,
                request_id,
                task_id,
                context_id,
            }
        },
    )
}

/// How a policy would write `field`.
fn spelled(field: Field) -> String {
    match field.place() {
        ("", name) => format!("input.{name}"),
        (section, name) => format!("input.{section}.{name}"),
    }
}

/// A reference into the document, whole, in part, or by a key that is only known when it is asked.
fn reference() -> impl Strategy<Value = String> {
    let sections = ["caller", "agent", "request", "context", "delegation", "nowhere"];
    let field = prop::sample::select(Field::ALL);
    let stable: Vec<Field> = Field::ALL.iter().copied().filter(|f| !f.is_volatile()).collect();
    let section = || prop::sample::select(sections.to_vec());
    prop_oneof![
        8 => prop::sample::select(stable).prop_map(spelled),
        3 => field.clone().prop_map(spelled),
        2 => field.prop_map(|field| match field.place() {
            ("", name) => format!("input[\"{name}\"]"),
            (section, name) => format!("input[`{section}`][\"{name}\"]"),
        }),
        2 => section().prop_map(|section| format!("input.{section}")),
        2 => section().prop_map(|section| format!("input.{section}[input.action]")),
        1 => section().prop_map(|section| format!("input[\"{section}\"].method")),
        1 => Just("input[input.request.method]".to_owned()),
        1 => Just("input".to_owned()),
        // See `PRELUDE`.
        1 => Just("who.path".to_owned()),
        1 => Just("asked_by.tenant".to_owned()),
        1 => Just("data.agentweave.authz.asked_by".to_owned()),
    ]
}

/// A condition; `{n}` keeps its variables apart from those of others.
fn condition(n: usize) -> impl Strategy<Value = String> {
    let constant = prop::sample::select(vec![
        "a",
        "ab",
        "",
        "method",
        "spiffe://a/b",
        "/b",
        "SendMessage",
        "internal",
        "7",
    ]);
    (reference(), reference(), constant, 0..21_usize).prop_map(move |(r, s, c, form)| match form {
        0 | 1 => format!("{r} == \"{c}\""),
        2 => format!("{r} != \"{c}\""),
        3 => format!("not {r} == \"{c}\""),
        4 => r,
        5 => format!("not {r}"),
        6 => format!("{r} == {s}"),
        7 => format!("some k{n}; {r}[k{n}] == \"{c}\""),
        8 => format!("\"{c}\" in {r}"),
        9 => format!("count({r}) < 3"),
        10 => format!("object.get({r}, \"method\", \"none\") == \"{c}\""),
        11 => format!("count([v | some v in {r}]) > 1"),
        12 => format!("x{n} := {r}; x{n} == \"{c}\""),
        13 => format!("same({r}) == \"{c}\""),
        14 => format!("method_of({r}) == \"{c}\""),
        15 => format!("walk({r}, [_, \"{c}\"])"),
        16 => format!("every v{n} in {r} {{ v{n} != \"{c}\" }}"),
        17 => format!("is_a with input.request.method as {r}"),
        18 => format!("not is_a with input.caller as {r}"),
        19 => format!("{{k: v | some k, v in {r}; v == \"{c}\"}} == {{}}"),
        _ => format!("startswith({r}, \"{c}\")"),
    })
}

const PRELUDE: &str = "
asked_by := input.caller
same(x) := x
default method_of(_) := \"default\"
method_of(x) := y if { y := x.method } else := \"none\" if { is_object(x) }
is_a if input.request.method == \"a\"
";

/// A policy of such conditions.
fn policy() -> impl Strategy<Value = String> {
    let conditions = (condition(0), condition(1), condition(2), reference(), any::<[bool; 5]>());
    conditions.prop_map(|(first, second, third, reason, [default, import, both, other, said])| {
        let mut text = "package agentweave.authz\n".to_owned();
        // `who` is another name, or a rule.
        text += if import { "import input.caller as who\n" } else { "who := input.agent\n" };
        text += PRELUDE;
        if default {
            text += "default allow := false\n";
        }
        if both {
            text += &format!("allow if {{\n{first}\n{second}\n}} else := false if {{ {third} }}\n");
        } else {
            text += &format!("allow if {{ {first} }}\n");
        }
        if other {
            text += &format!("allow if {{ {third} }}\n");
        }
        if said {
            text += &format!("reason := {reason}\n");
        }
        text
    })
}

/// What the bare engine says of the whole document. `None` is any error.
fn oracle(text: &str, asked: &Asked) -> Option<Reason> {
    let mut engine = new_engine(false);
    engine.add_policy("test.rego".to_owned(), text.to_owned()).unwrap();
    let document = asked.with(|question| {
        Inputs::new(Fields::under(&[])).document(question, question.params).unwrap()
    });
    engine.set_input(document);
    let mut rule = |name: &str| engine.eval_rule(format!("data.agentweave.authz.{name}")).ok();
    let allowed = match rule("allow")? {
        Value::Bool(allowed) => allowed,
        Value::Undefined => return Some(Reason::Undefined),
        _ => return Some(Reason::NotADecision),
    };
    let said = if text.contains("\nreason :=") { rule("reason")? } else { Value::Undefined };
    let said = match said {
        Value::String(said) => Some(tidy(&said)),
        _ => None,
    };
    Some(if allowed { Reason::Allowed(said) } else { Reason::Denied(said) })
}

fn unless_error(reason: Reason) -> Option<Reason> {
    if matches!(reason, Reason::Error(_)) { None } else { Some(reason) }
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { failure_persistence: None, cases, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn a_warm_policy_decides_like_the_bare_engine(
        text in policy(),
        asked in prop::collection::vec(asked(), 1..6),
    ) {
        let policy = load(&text);
        for question in asked.iter().chain(&asked) {
            let decided = unless_error(question.decide(&policy));
            prop_assert_eq!(decided, oracle(&text, question), "{} of {:?}", text, question);
        }
    }
}

proptest! {
    #![proptest_config(config(2000))]

    #[test]
    fn questions_share_an_answer_if_and_only_if_they_look_the_same(
        fields in prop::collection::vec(prop::sample::select(Field::ALL), 0..5),
        first in asked(),
        second in asked(),
    ) {
        let fields: Fields = fields.into_iter().filter(|field| !field.is_volatile()).collect();
        let mut memo = Memo::of(fields).unwrap();
        first.with(|question| match memo.recall(question) {
            Recalled::Unknown(key) => memo.keep(key, &Reason::Allowed(None)),
            _ => panic!("an empty memo that knows something"),
        });
        let known = second.with(|question| matches!(memo.recall(question), Recalled::Known(_)));
        let alike = first.with(|first| second.with(|second| {
            fields.iter().all(|field| field.text(first) == field.text(second))
        }));
        prop_assert_eq!(known, alike);
    }
}

/// How often the engine is asked when `rules` decide the usual question three times.
fn check(rules: &str, expected: u64) {
    let policy = load(&format!("package agentweave.authz\n{rules}\n"));
    let before = evaluations();
    let decisions: Vec<_> = (0..3).map(|_| Ask::default().decide(&policy)).collect();
    assert_eq!(evaluations() - before, expected, "{rules}");
    assert!(decisions.iter().all(|decision| *decision == decisions[0]), "{rules}");
}

#[test]
fn only_answers_that_hold_again_are_kept() {
    for field in Field::ALL.iter().copied() {
        let times = if field.is_volatile() { 3 } else { 1 };
        let (path, (section, name)) = (spelled(field), field.place());
        check(&format!("allow if {path} == \"x\""), times);
        check(&format!("default allow := false\nallow if not {path}"), times);
        check(&format!("allow := true\nreason := {path}"), times);
        if !section.is_empty() {
            check(&format!("allow if input[\"{section}\"][`{name}`]"), times);
        }
    }
    for volatile in ["input", "input.request", "input.context", "input[input.action]"] {
        check(&format!("allow if {volatile}"), 3);
        check(&format!("allow if {{ x := {volatile}; x }}"), 3);
    }
    check("import input as i\nallow if i.action", 3);
    check("import input.request as r\nallow if r.method", 3);
    for stable in ["input.caller", "input.agent", "input.caller[input.action]"] {
        check(&format!("allow if {stable}"), 1);
    }
    check("allow if time.now_ns() > 0", 3);
    check("allow if rand.intn(\"x\", 1) == 0", 3);
    check("allow if uuid.rfc4122(\"x\")", 3);
    check("allow if is_a with input.action as \"a\"\nis_a if input.action", 3);
    check("allow := 1", 1);
    check("decision := {\"allow\": true, \"reason\": input.action}", 1);
    // Errors are not kept; the engine that made one is replaced.
    check("allow if to_number(input.action) == 1", 3);
}

#[test]
fn an_answer_belongs_to_its_policy() {
    let (yes, no) =
        ("package agentweave.authz\nallow := true", "package agentweave.authz\nallow := false");
    for _ in 0..2 {
        // Dropped in between, so that their numbers and addresses could be used again.
        for (text, expected) in [(yes, Reason::Allowed(None)), (no, Reason::Denied(None))] {
            let policy = load(text);
            for _ in 0..2 {
                let decision = Ask::default().decide(&policy);
                assert_eq!(decision.reason, expected);
                assert_eq!(decision.revision, *policy.revision());
            }
        }
    }
}

#[test]
fn an_answer_over_time_is_not_kept() {
    let options = PolicyOptions { time_max: Duration::from_secs(60), ..patient() };
    let policy = load_with("package agentweave.authz\nallow := true", &options).unwrap();
    let decide = |step: Duration| {
        let now = std::cell::Cell::new(Duration::ZERO);
        let clock = || now.replace(now.get() + step);
        Ask::default().with(|question| policy.decide(question, &clock)).reason
    };
    let late = options.time_max * 2;
    STEP.set(Some(late));
    assert_eq!(decide(late), Reason::OverTime);
    assert_eq!(decide(Duration::ZERO), Reason::Allowed(None));
    // What is kept takes no evaluation that could be late.
    assert_eq!(decide(late), Reason::Allowed(None));
}

#[test]
fn size_is_judged_before_what_is_kept() {
    let options = PolicyOptions { input_bytes_max: 2048, ..patient() };
    let text = "package agentweave.authz\nallow if input.caller.spiffe_id";
    let policy = load_with(text, &options).unwrap();
    let long = "m".repeat(2048);
    assert_eq!(Ask::default().decide(&policy).reason, Reason::Allowed(None));
    let large = Ask { method: &long, ..Ask::default() };
    assert_eq!(large.decide(&policy).reason, Reason::InputTooLarge);
    assert_eq!(Ask::default().decide(&policy).reason, Reason::Allowed(None));
}

#[test]
fn what_is_kept_is_bounded() {
    let policy = load("package agentweave.authz\nallow if startswith(input.action, \"1\")");
    let ask = |method: &str| {
        let before = evaluations();
        let allowed = Ask { method, ..Ask::default() }.decide(&policy).is_allowed();
        assert_eq!(allowed, method.starts_with('1'));
        evaluations() - before
    };
    for number in 0..ANSWERS_MAX {
        assert_eq!(ask(&number.to_string()), 1);
    }
    assert_eq!(ask("0"), 0);
    // One more makes room for itself and those to come.
    assert_eq!((ask("more"), ask("more"), ask("0"), ask("0")), (1, 0, 1, 0));

    let longest = "1".repeat(KEY_BYTES_MAX - 2);
    assert_eq!((ask(&longest), ask(&longest)), (1, 0));
    let too_long = "1".repeat(KEY_BYTES_MAX - 1);
    assert_eq!((ask(&too_long), ask(&too_long)), (1, 1));
    let far_too_long = "1".repeat(usize::from(u16::MAX));
    assert_eq!((ask(&far_too_long), ask(&far_too_long)), (1, 1));
}
