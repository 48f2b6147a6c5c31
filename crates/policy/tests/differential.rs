//! Generated policies and questions, decided in different ways that have to agree: by a policy that
//! remembers its answers, by one that cannot, and by OPA itself where it is on PATH.
//!
//! A failure names the seed of its policy. `CONVOKE_DIFFERENTIAL_POLICIES` says how many to try.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::fmt::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use convoke_model::{Caller, Json, OperationKind, Principal, Reason, SpiffeId, UnixMillis};
use convoke_policy::{Policy, PolicyData, PolicyOptions, PolicySource, Question};

/// How many policies are tried if nobody says otherwise: a second of work.
const POLICIES: u64 = 300;

const DATA: &str = r#"{"grants": {"/b": ["m", "n"], "/c": []}, "limit": 3, "names": ["a", "b"]}"#;

/// A small generator of numbers: equal seeds give equal policies, on any machine.
///
/// Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (SplitMix64).
struct Seed(u64);

impl Seed {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        let index = self.next() % u64::try_from(choices.len()).unwrap();
        choices[usize::try_from(index).unwrap()]
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

const TEXTS: &[&str] = &["m", "n", "/b", "a", "a.org", "spiffe://a.org/b", "", "SendMessage"];

const REFERENCES: &[&str] = &[
    "input.caller.spiffe_id",
    "input.caller.trust_domain",
    "input.caller.path",
    "input.caller.app",
    "input.caller.trust_level",
    "input.caller_spiffe_id",
    "input.agent.trust_domain",
    "input.request.method",
    "input.request.operation",
    "input.request.params.x",
    "input.action",
    "input.method",
    "input.nothing",
    "input[\"caller\"][\"path\"]",
    "data.names[0]",
    "data.nothing",
    "helper",
];

const COLLECTIONS: &[&str] = &[
    "[\"m\", \"n\", \"a\"]",
    "{\"m\", \"/b\", \"spiffe://a.org/b\"}",
    "data.names",
    "data.grants[input.caller.path]",
    "input.request.params.list",
    "known",
];

/// A text, an expression that is one or is undefined.
fn term(seed: &mut Seed) -> String {
    match seed.next() % 8 {
        0..5 => seed.of(REFERENCES).to_owned(),
        5 => format!("\"{}\"", seed.of(TEXTS)),
        6 => format!("lower({})", seed.of(REFERENCES)),
        _ => format!("object.get(input.caller, \"{}\", \"none\")", seed.of(&["path", "app", "q"])),
    }
}

/// A condition; `n` keeps its variables apart.
fn condition(seed: &mut Seed, n: usize, deep: bool) -> String {
    let (a, b, c) = (term(seed), term(seed), seed.of(COLLECTIONS));
    let text = seed.of(TEXTS);
    match seed.next() % 17 {
        0 | 1 => format!("{a} == \"{text}\""),
        2 => format!("{a} != {b}"),
        3 => format!("not {a} == \"{text}\""),
        4 => format!("{a} in {c}"),
        5 => format!("not {a} in {c}"),
        6 => format!("startswith({a}, \"{text}\")"),
        7 => format!("some v{n} in {c}; v{n} == {a}"),
        8 => format!("count([v | some v in {c}; v != \"{text}\"]) > {}", seed.next() % 3),
        9 => format!("count({{v | some v in {c}}}) == {}", seed.next() % 4),
        10 if deep => {
            format!("every v{n} in {c} {{ v{n} != \"{text}\" }}")
        }
        11 => format!("x{n} := {a}; x{n} == {b}"),
        12 => format!("is_m({a})"),
        13 => format!("rank({a}) > {}", seed.next() % 3),
        14 if deep => format!("same with input.request.method as \"{text}\""),
        15 => format!("not is_m({a})"),
        _ => a,
    }
}

/// A policy of package `name`.
fn policy(name: &str, seed: u64) -> String {
    let mut seed = Seed(seed);
    let mut text = format!("package {name}\n\nimport rego.v1\n\n");
    if seed.chance(60) {
        text += "default allow := false\n";
    }
    let bodies = 1 + seed.next() % 3;
    for body in 0..bodies {
        text += "allow if {\n";
        for n in 0..1 + seed.next() % 3 {
            let n = usize::try_from(body * 10 + n).unwrap();
            writeln!(text, "    {}", condition(&mut seed, n, true)).unwrap();
        }
        text += "}\n";
    }
    // These two refer to no rule that may refer to them.
    let helper = condition(&mut seed, 90, false).replace("helper", "input.action");
    writeln!(text, "helper := \"m\" if {{ {helper} }}").unwrap();
    let known = condition(&mut seed, 91, false);
    let known = known.replace("known", "data.names").replace("helper", "input.action");
    writeln!(text, "known contains k if {{ some k in [\"m\", \"n\"]; {known} }}").unwrap();
    text += "same if input.request.method == input.caller.path\n";
    text += "same if input.request.method == \"m\"\n";
    text += "is_m(x) if x == \"m\"\nis_m(x) if x == \"/b\"\n";
    text +=
        "default rank(_) := 1\nrank(x) := 2 if startswith(x, \"a\")\nrank(x) := 0 if x == \"m\"\n";
    text
}

/// Calls `with` with each question.
fn each_question(mut with: impl FnMut(usize, &Question<'_>)) {
    let agent = SpiffeId::parse("spiffe://a.org/agent").unwrap();
    let callers = ["", "spiffe://a.org/b", "spiffe://a.org/c", "spiffe://other.org/b"];
    let params = [None, Some(r#"{"x":"m","list":["a","m"]}"#), Some(r#"{"x":7,"list":{"k":"m"}}"#)];
    let mut index = 0;
    for caller in callers {
        let caller = match SpiffeId::parse(caller) {
            Ok(id) => Caller::Principal(Arc::new(Principal::from_verified_svid(id, &agent))),
            Err(_) => Caller::Anonymous,
        };
        for method in ["m", "a"] {
            for params in params {
                let params = params.map(|text| Json::parse(text).unwrap());
                with(
                    index,
                    &Question {
                        caller: &caller,
                        agent: &agent,
                        agent_name: "Agent",
                        operation: OperationKind::SendMessage,
                        method,
                        params: params.as_ref(),
                        at: UnixMillis(1_798_761_599_001),
                        protocol: "a2a/1.0",
                        remote_addr: "127.0.0.1:50000",
                        request_id: "r",
                        task_id: None,
                        context_id: None,
                    },
                );
                index += 1;
            }
        }
    }
}

/// `None` for what the engine refuses though it is Rego: variables of `some … in` whose conditions
/// it puts into another order.
fn load(name: &str, text: &str) -> Option<Policy> {
    let source = PolicySource { name: format!("{name}.rego"), text: text.to_owned() };
    let options = PolicyOptions {
        package: name.to_owned(),
        time_max: Duration::from_secs(60),
        data: vec![PolicyData { name: "data.json".to_owned(), text: DATA.to_owned() }],
        ..PolicyOptions::default()
    };
    match Policy::load(&source, &options) {
        Ok(policy) => Some(policy),
        Err(error) if error.to_string().contains("used before definition") => None,
        Err(error) => panic!("{error}\n{text}"),
    }
}

fn decide(policy: &Policy, question: &Question<'_>) -> Reason {
    policy.decide(question, &|| Duration::ZERO).reason
}

fn policies() -> Vec<(String, String)> {
    let count = std::env::var("CONVOKE_DIFFERENTIAL_POLICIES");
    let count = count.map_or(POLICIES, |count| count.parse().unwrap());
    (0..count).map(|seed| (format!("p{seed}"), policy(&format!("p{seed}"), seed))).collect()
}

#[test]
fn a_policy_that_remembers_decides_like_one_that_cannot() {
    let (mut allowed, mut asked, mut loaded, policies) = (0, 0, 0, policies());
    for (name, text) in &policies {
        // What reads the instant is evaluated each time.
        let forgets = format!("{text}\nnever if input.request.timestamp == 0\n");
        let (Some(remembers), Some(forgets)) = (load(name, text), load(name, &forgets)) else {
            continue;
        };
        loaded += 1;
        for _ in 0..2 {
            each_question(|index, question| {
                let expected = decide(&forgets, question);
                assert_eq!(decide(&remembers, question), expected, "{name} {index}\n{text}");
                allowed += usize::from(matches!(expected, Reason::Allowed(_)));
                asked += 1;
            });
        }
    }
    assert!(loaded * 10 > policies.len() * 8, "{loaded} loaded");
    // A generator whose policies all say the same would compare nothing.
    assert!(allowed * 10 > asked && allowed * 10 < asked * 9, "{allowed} of {asked}");
}

#[test]
fn opa_decides_alike() {
    if Command::new("opa").arg("version").output().is_err() {
        eprintln!("skipped: opa is not on PATH");
        return;
    }
    let directory =
        std::env::temp_dir().join(format!("convoke-differential-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let policies = policies();
    let mut inputs = Vec::new();
    each_question(|_, question| inputs.push(String::from_utf8(question.to_json()).unwrap()));
    let mut asked = "package asked\n\nimport rego.v1\n\n".to_owned();
    for (name, text) in &policies {
        std::fs::write(directory.join(format!("{name}.rego")), text).unwrap();
        writeln!(asked, "allowed contains [\"{name}\", index] if {{\n    some index, document in data.inputs\n    data.{name}.allow == true with input as document\n}}").unwrap();
    }
    std::fs::write(directory.join("asked.rego"), asked).unwrap();
    let data = DATA.trim_end_matches('}');
    let data = format!("{data}, \"inputs\": [{}]}}", inputs.join(","));
    std::fs::write(directory.join("data.json"), data).unwrap();
    let done = Command::new("opa")
        .args(["eval", "--format", "raw", "--data"])
        .arg(&directory)
        .arg("data.asked.allowed")
        .output();
    std::fs::remove_dir_all(&directory).unwrap();
    let done = done.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let text = String::from_utf8(done.stdout).unwrap().replace([' ', '\n'], "");
    for (name, policy) in &policies {
        let Some(ours) = load(name, policy) else { continue };
        each_question(|index, question| {
            let by_opa = text.contains(&format!("[\"{name}\",{index}]"));
            match decide(&ours, question) {
                // A function that fails is undefined for OPA, and a refusal here whatever it stood in.
                Reason::Error(_) => {}
                reason => {
                    let allowed = matches!(reason, Reason::Allowed(_));
                    assert_eq!(allowed, by_opa, "{name} {index}: {reason:?}\n{policy}");
                }
            }
        });
    }
}
