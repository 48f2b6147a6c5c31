//! What is found, and what is not.

use super::*;
use crate::Policy;
use crate::fixture::{SEED_ORCHESTRATOR, SEED_WORKER, patient};

fn found(text: &str) -> Vec<Finding> {
    let source = PolicySource { name: "test.rego".to_owned(), text: text.to_owned() };
    Policy::lint(&source, &patient())
}

/// Rule, line and column of each finding that is more than information, or of `rule`.
fn check(rule: &str, rules: &str, expected: &[(u32, u32)]) {
    let text = format!("package agentweave.authz\n{rules}\n");
    let findings = found(&text);
    let places: Vec<(u32, u32)> = findings
        .iter()
        .filter(|finding| finding.rule == rule)
        .map(|finding| (finding.line, finding.column))
        .collect();
    assert_eq!(places, expected, "{rule} in {rules}: {findings:#?}");
}

/// The message and the cure of the one finding of `rule`.
fn said(rule: &str, rules: &str) -> String {
    let text = format!("package agentweave.authz\n{rules}\n");
    let findings: Vec<Finding> = found(&text).into_iter().filter(|f| f.rule == rule).collect();
    let [finding] = &findings[..] else { panic!("{findings:#?} in {rules}") };
    format!("{}; {}", finding.message, finding.cure)
}

fn lines(text: &str) -> Vec<String> {
    let line = |f: &Finding| format!("{}:{} {} {}", f.line, f.column, f.severity, f.rule);
    found(text).iter().map(line).collect()
}

#[test]
fn the_findings_of_the_seeds_policies() {
    assert_eq!(lines(SEED_WORKER), ["1:1 info rego-v0", "23:5 warning whole-domain"]);
    assert_eq!(lines(SEED_ORCHESTRATOR), ["4:1 warning allows-everything"]);
}

#[test]
fn every_rule_is_listed_once() {
    let mut names: Vec<&str> = LINT_RULES.iter().map(|(name, _, _)| *name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn a_policy_that_does_not_load_has_one_finding() {
    let finding = |text: &str| {
        let findings = found(text);
        assert_eq!(findings.len(), 1, "{findings:#?}");
        let f = &findings[0];
        format!("{}:{} {}; {}", f.line, f.severity, f.message, f.cure)
    };
    assert_eq!(
        finding("package agentweave.authz\nallow if starts_with(input.action, \"a\")"),
        "2:error test.rego:2: calls `starts_with`, which this engine does not have; did you mean \
         `startswith`?"
    );
    assert_eq!(
        finding("package agentweave.authz\nallow if {"),
        "2:error test.rego:2: expecting expression; correct it at this line"
    );
    assert!(finding("package other\nallow := true").starts_with("0:error test.rego declares"));
}

#[test]
fn values_that_are_no_decision() {
    let check = |rules: &str, expected: &[(u32, u32)]| check("not-boolean", rules, expected);
    check("allow := \"yes\"", &[(2, 10)]);
    check("default allow := 0", &[(2, 18)]);
    check("allow := {\"allow\": true}", &[(2, 10)]);
    check("allow contains \"x\"", &[(2, 1)]);
    check("allow := true if input.action == \"a\" else := \"no\"", &[(2, 46)]);
    check("allow := input.action == \"x\"", &[]);
    check("decision := {\"allow\": true}", &[]);
}

#[test]
fn rules_that_let_everybody_in() {
    let check = |rules: &str, expected: &[(u32, u32)]| check("allows-everything", rules, expected);
    check("default allow := true", &[(2, 1)]);
    check("allow := true", &[(2, 1)]);
    check("allow if true", &[(2, 1)]);
    check("default decision := {\"allow\": true}", &[(2, 1)]);
    check("default allow := false", &[]);
    check("allow := false", &[]);
    check("allow if input.action == \"a\"", &[]);
}

#[test]
fn rules_that_let_a_whole_domain_in() {
    let check = |rules: &str, expected: &[(u32, u32)]| check("whole-domain", rules, expected);
    check("allow if input.caller.trust_domain == input.agent.trust_domain", &[(2, 10)]);
    check("allow if \"example.org\" == input.caller.trust_domain", &[(2, 10)]);
    check("allow if input.caller.trust_level == \"internal\"", &[(2, 10)]);
    check("allow if input.caller.trust_domain in {\"a\", \"b\"}", &[(2, 10)]);
    check("allow if startswith(input.caller.spiffe_id, \"spiffe://example.org/\")", &[(2, 10)]);
    check("allow if startswith(input.caller_spiffe_id, \"spiffe://example.org\")", &[(2, 10)]);
    check("allow if split(input.caller_spiffe_id, \"/\")[2] == \"example.org\"", &[(2, 10)]);
    check(
        "allow if same\nsame if {\n  parts := split(input.caller.spiffe_id, \"/\")\n  \
         parts[2] == input.agent.trust_domain\n}",
        &[(2, 10)],
    );
    check(
        "allow if {\n  input.caller.trust_level == \"internal\"\n  input.action == \"a\"\n}",
        &[],
    );
    check(
        "allow if {\n  input.caller.trust_level == \"internal\"\n  known\n}\nknown if input.action == \"a\"",
        &[],
    );
    check("allow if startswith(input.caller.spiffe_id, \"spiffe://example.org/team/\")", &[]);
    check("allow if input.caller.spiffe_id == \"spiffe://example.org/a\"", &[]);
    check("allow := false if input.caller.trust_level == \"internal\"", &[]);
}

#[test]
fn negations_that_let_the_anonymous_in() {
    let check = |rules: &str, expected: &[(u32, u32)]| check("negation-admits", rules, expected);
    check("allow if not input.caller.spiffe_id == \"spiffe://a/b\"", &[(2, 10)]);
    check(
        "allow if {\n  input.action == \"a\"\n  not startswith(input.caller.path, \"/bad\")\n}",
        &[(4, 3)],
    );
    check("allow if {\n  input.caller.spiffe_id\n  not input.caller.path == \"/a\"\n}", &[]);
    check(
        "allow if {\n  known\n  not input.caller.path == \"/a\"\n}\nknown if input.caller.app",
        &[],
    );
    check("allow if not input.caller.spiffe_id", &[]);
    check("allow if {\n  input.caller.path\n  not input.action == \"x\"\n}", &[]);
}

#[test]
fn fields_that_the_input_has_not() {
    let check = |rules: &str, expected: &[(u32, u32)]| check("unknown-input", rules, expected);
    check("allow if input.requst.method == \"a\"", &[(2, 10)]);
    check("import input.caler as c\nallow if c.path", &[(2, 1), (3, 10)]);
    check("import input.caller as c\nallow if c.pth", &[(3, 10)]);
    check("allow if input.action.x", &[(2, 10)]);
    check("allow if input.delegation.chain[0]", &[]);
    check("allow if input.delegation.depht == 0", &[(2, 10)]);
    check("allow if input.request.params.anything.at[0].all", &[]);
    check("allow if input[input.action]", &[]);
    check("allow if input.request[\"method\"]", &[]);
    let said = |path: &str| said("unknown-input", &format!("allow if {path} == \"a\""));
    assert_eq!(
        said("input.caller.spifeid"),
        "the input has no `input.caller.spifeid`; did you mean `input.caller.spiffe_id`?"
    );
    assert_eq!(
        said("input.requst.x"),
        "the input has no `input.requst`; did you mean `input.request`?"
    );
    assert_eq!(
        said("input.agent.zzz"),
        "the input has no `input.agent.zzz`; `input.agent` has spiffe_id, trust_domain, name"
    );
    assert_eq!(
        said("input.caller.path.x"),
        "the input has no `input.caller.path.x`; `input.caller.path` is a text and has no fields"
    );
}

#[test]
fn spiffe_ids_that_nobody_has() {
    let check = |rules: &str, expected: &[(u32, u32)]| check("spiffe-id", rules, expected);
    check("allow if input.caller.spiffe_id == \"spiffe://Example.org/a\"", &[(2, 36)]);
    check("allow if input.caller.spiffe_id in [\"spiffe://a/b\", \"SPIFFE://a/b\"]", &[(2, 53)]);
    check("allow if input.caller.spiffe_id == \"spiffe://a/b/\"", &[(2, 36)]);
    check("allow if startswith(input.caller.spiffe_id, \"spiffe://a/b/\")", &[]);
    check("allow if input.caller.spiffe_id == \"spiffe://a/b\"", &[]);
    assert_eq!(
        said(
            "spiffe-id-case",
            "ids := {\"spiffe://a/b\", \"spiffe://a/B\"}\nallow if input.caller.spiffe_id in ids"
        ),
        "`spiffe://a/B` and `spiffe://a/b` differ in case alone, and are two callers; SPIFFE IDs \
         are compared byte for byte; write the one that the agent has"
    );
}

#[test]
fn rules_that_are_never_true_or_never_matter() {
    let check = |rules: &str, expected: &[(u32, u32)]| check("unreachable", rules, expected);
    check("allow if false", &[(2, 10)]);
    check("allow if {\n  input.action\n  1 == 2\n}", &[(4, 3)]);
    check("default allow := true\nallow if input.action == \"a\"", &[(3, 1)]);
    check("default allow := true\nallow := false if input.action == \"a\"", &[]);
    check("default allow := false\nallow if input.action == \"a\"", &[]);
}

#[test]
fn names_that_nothing_refers_to() {
    check("unused-import", "import data.a\nimport data.b as c\nallow if a", &[(3, 1)]);
    check("unused-import", "import rego.v1\nimport future.keywords\nallow if input.action", &[]);
    check("unused-rule", "allow if a\na if b\nb if true\nc if true\nd(x) := x", &[(5, 1), (6, 1)]);
    check("unused-rule", "allow if data.agentweave.authz.a\na if true", &[]);
    check("unused-rule", "allow if data.agentweave.authz[input.action]\na if true", &[]);
    check("unused-rule", "allow := true\nreason := \"r\"\ntest_a if allow", &[]);
}

#[test]
fn what_is_good_to_know() {
    check("reads-params", "allow if input.request.params.x", &[(2, 10)]);
    check("reads-params", "allow if input.request.method", &[]);
    check("reads-time", "allow if time.now_ns() > 1", &[(2, 10)]);
    check("reads-time", "allow if input.request.timestamp", &[(2, 10)]);
    check("evaluated-each-time", "allow if input.context.remote_addr", &[(2, 10)]);
    check("evaluated-each-time", "allow if input.caller.path", &[]);
    check("rego-v0", "allow { input.action }", &[(1, 1)]);
    check("rego-v0", "allow if { input.action }", &[]);
}
