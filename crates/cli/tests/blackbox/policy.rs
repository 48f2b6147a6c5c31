//! `convoke policy` and `convoke authz`, which need no process but their own.

use document_pipeline::{WORKER_POLICY, WORKER_POLICY_STRICT};
use serde_json::{Value, json};

use crate::process::{Done, run};
use crate::world::{ORCHESTRATOR, WORKER, World};

const STRANGER: &str = "spiffe://other.org/stranger";
const NEIGHBOUR: &str = "spiffe://example.org/anybody";

/// A world with the tutorial's policies.
fn world() -> World {
    let world = World::new();
    world.write("worker.rego", WORKER_POLICY);
    world.write("strict.rego", WORKER_POLICY_STRICT);
    world
        .write("bad.rego", "package agentweave.authz\nallow if starts_with(input.action, \"a\")\n");
    world
}

/// Line of the file and its text.
fn line_of(policy: &str, text: &str) -> usize {
    policy.lines().position(|line| line.contains(text)).unwrap() + 1
}

#[test]
fn check_says_what_loads_and_what_does_not() {
    let world = world();
    let done = world.run(&["policy", "check", "worker.rego", "strict.rego"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.starts_with("valid: worker.rego: data.agentweave.authz.allow in Rego v0"));

    let done = world.run(&["policy", "check", "worker.rego", "bad.rego", "--json"]);
    assert_eq!(done.code, Some(2));
    let reports: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((&reports[0]["valid"], &reports[1]["valid"]), (&json!(true), &json!(false)));
    assert_eq!(reports[1]["line"], 2);
    assert!(reports[1]["message"].as_str().unwrap().ends_with("did you mean `startswith`?"));

    let done = world.run(&["policy", "check", "worker.rego", "--package", "hvs.authz"]);
    assert_eq!(done.code, Some(2));
    assert!(done.stderr.contains("declares package `agentweave.authz`, not `hvs.authz`"));
    let done = world.run(&["policy", "check", "worker.rego", "--rego-version", "v1"]);
    assert_eq!(done.code, Some(2));
    assert_eq!(world.run(&["policy", "check", "nowhere.rego"]).code, Some(2));
}

#[test]
fn lint_flags_the_tutorials_second_rule() {
    let world = world();
    let line = line_of(WORKER_POLICY, "caller_trust_domain == our_trust_domain");
    let done = world.run(&["policy", "lint", "worker.rego", "--json"]);
    assert_eq!(done.code, Some(0));
    let findings: Value = serde_json::from_str(&done.stdout).unwrap();
    let domain = findings.as_array().unwrap().iter().find(|f| f["rule"] == "whole-domain").unwrap();
    assert_eq!((&domain["line"], &domain["severity"]), (&json!(line), &json!("warning")));

    let done = world.run(&["policy", "lint", "worker.rego", "--strict"]);
    assert_eq!(done.code, Some(1));
    assert!(done.stderr.contains(&format!("warning: worker.rego:{line}:")), "{}", done.stderr);
    assert_eq!(world.run(&["policy", "lint", "strict.rego", "--strict"]).code, Some(0));
    let done = world.run(&["policy", "lint", "bad.rego"]);
    assert_eq!(done.code, Some(2));
    assert_eq!(done.stderr.matches("bad.rego:").count(), 1, "{}", done.stderr);
    assert!(done.stderr.ends_with("\nerror: the linter found one error\n"), "{}", done.stderr);
}

fn explain(world: &World, caller: &str) -> Done {
    let asked = ["--agent", WORKER, "--method", "count_words", "--json", "--caller", caller];
    let args: Vec<&str> = ["policy", "explain", "worker.rego"].into_iter().chain(asked).collect();
    world.run(&args)
}

#[test]
fn explain_names_the_rule_or_what_each_rule_lacks() {
    let world = world();
    for (caller, code) in [(ORCHESTRATOR, 0), (NEIGHBOUR, 0), (STRANGER, 3), ("anonymous", 3)] {
        let done = explain(&world, caller);
        assert_eq!(done.code, Some(code), "{}", done.stderr);
        let said: Value = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!(said["allowed"], code == 0);
        assert_eq!(said["rule"], "data.agentweave.authz.allow");
        assert_eq!(said["file"], "worker.rego");
    }
    let said: Value = serde_json::from_str(&explain(&world, STRANGER).stdout).unwrap();
    assert_eq!(said["line"], line_of(WORKER_POLICY, "default allow"));
    let tried = &said["tried"];
    let line = line_of(WORKER_POLICY, "caller_spiffe_id == \"spiffe://example.org/orchestrator\"");
    assert_eq!(
        (&tried[0]["outcome"], &tried[0]["condition_line"]),
        (&json!("not_true"), &json!(line))
    );
    let line = line_of(WORKER_POLICY, "caller_trust_domain == our_trust_domain");
    assert_eq!(tried[1]["condition_line"], line);

    let input = json!({
        "caller_spiffe_id": STRANGER, "agent": {"spiffe_id": WORKER}, "action": "count_words",
    });
    let args = ["policy", "explain", "worker.rego", "--input", "-"];
    let done = run(&mut world.command(&args), input.to_string().as_bytes());
    assert_eq!(done.code, Some(3), "{}", done.stderr);
    assert!(done.stderr.starts_with("denied: count_words of "), "{}", done.stderr);

    // What is wrong with the command is not a refusal.
    assert_eq!(explain(&world, "nobody").code, Some(2));
    let args = ["policy", "explain", "bad.rego", "--input", &input.to_string()];
    assert_eq!(world.run(&args).code, Some(2));
    let args = ["policy", "explain", "worker.rego", "--input", r#"{"requst": {}}"#];
    assert_eq!(world.run(&args).code, Some(2));
}

#[test]
fn tests_in_rego_and_in_tables_are_run() {
    let world = world();
    let ours = |name: &str, text: &str| world.write(&format!("policies/{name}"), text);
    ours("worker.rego", WORKER_POLICY_STRICT);
    ours(
        "worker_test.rego",
        "package agentweave.authz_test\n\nimport data.agentweave.authz\n\n\
         test_strangers_are_refused if {\n    not authz.allow with input as {\"action\": \"x\"}\n}\n",
    );
    ours(
        "worker.cases.yaml",
        "policy: worker.rego\ncases:\n- name: the orchestrator counts\n  \
         caller: spiffe://example.org/orchestrator\n  method: count_words\n  params: {text: a b}\n  \
         expect: allow\n- name: the anonymous do not\n  caller: anonymous\n  method: count_words\n  \
         expect: deny\n",
    );
    ours("unrelated.yaml", "a: b\n");
    let done = world.run(&["policy", "test", "policies"]);
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), "3 passed, 0 failed, 0 skipped\n"));

    // The open policy fails the same table.
    ours("worker.rego", WORKER_POLICY);
    ours(
        "open.cases.json",
        r#"{"cases": [{"name": "neighbours may not", "caller": "spiffe://example.org/x",
            "method": "m", "expect": "deny"}]}"#,
    );
    let done = world.run(&["policy", "test", "policies", "--json"]);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    let said: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((&said["passed"], &said["failed"]), (&json!(3), &json!(1)));
    let failed =
        said["tests"].as_array().unwrap().iter().find(|t| t["outcome"] == "failed").unwrap();
    let rules = WORKER_POLICY.lines().enumerate().filter(|(_, line)| line.starts_with("allow"));
    let line = rules.last().unwrap().0 + 1;
    assert_eq!(failed["why"], format!("is allowed by line {line}"));

    let wrong = |name: &str, text: &str, part: &str| {
        world.write(name, text);
        let done = world.run(&["policy", "test", name, "strict.rego"]);
        assert_eq!(done.code, Some(2), "{}", done.stderr);
        assert!(done.stderr.contains(part), "{}", done.stderr);
    };
    wrong(
        "a.yaml",
        "cases:\n- name: n\n  caller: x\n  method: m\n  expect: allow\n",
        "case `n`: `x`",
    );
    wrong("b.yaml", "cases:\n- name: n\n  caler: x\n", "b.yaml:3:3: unknown field `caler`");
    wrong("c.txt", "", "neither Rego nor a table");
    assert_eq!(world.run(&["policy", "test", "strict.rego"]).code, Some(2), "no tests");
}

#[test]
fn authz_check_asks_what_the_configuration_names() {
    let world = world();
    world.write("data.json", r#"{"callers": ["spiffe://example.org/orchestrator"]}"#);
    world.write(
        "policy.rego",
        "package team.authz\n\nallow if {\n    input.caller.spiffe_id in data.callers\n    \
         input.request.params.n < 5\n}\n",
    );
    world.write(
        "worker.yaml",
        "identity:\n  spiffe_id: spiffe://example.org/document-worker\ndata_dir: state\n\
         authorization:\n  policy_path: .\n  policy_file: policy.rego\n  package: team.authz\n  \
         data_files: [data.json]\n",
    );
    let check = |caller: &str, more: &[&str]| {
        let mut args = vec!["authz", "check", "--config", "worker.yaml", "--json"];
        args.extend(["--method", "count_words", "--caller", caller]);
        args.extend(more);
        world.run(&args)
    };
    let done = check(ORCHESTRATOR, &["--params", r#"{"n": 3}"#]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let said: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((&said["rule"], &said["line"]), (&json!("data.team.authz.allow"), &json!(3)));
    assert_eq!(said["agent"], WORKER);

    let done = check(ORCHESTRATOR, &["--params", r#"{"n": 7}"#]);
    assert_eq!(done.code, Some(3));
    let said: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((&said["outcome"], &said["line"]), (&json!("undefined"), &Value::Null));
    assert_eq!(said["tried"][0]["condition"], "input.request.params.n < 5");

    assert_eq!(check(STRANGER, &["--params", r#"{"n": 3}"#]).code, Some(3));
    assert_eq!(check(ORCHESTRATOR, &["--operation", "Nothing"]).code, Some(2));
    world.write("policy.rego", "package team.authz\nallow if {\n");
    assert_eq!(check(ORCHESTRATOR, &[]).code, Some(2));
}
