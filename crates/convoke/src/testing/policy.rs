//! Assertions on what a policy allows.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use convoke_model::{Caller, Json, OperationKind, Principal, SpiffeId, UnixMillis};
use convoke_policy::{
    Attempt, Explanation, Outcome, Policy, PolicyData, PolicyOptions, PolicySource, Question,
};
use serde::Serialize;

/// A policy and the agent that it is of. A wrong assertion says which rule decided, at which line,
/// and what kept the others from it.
///
/// ```
/// use convoke::testing::PolicyTester;
/// use serde_json::json;
///
/// let policy = PolicyTester::rego(
///     r#"package agentweave.authz
///
/// default allow = false
///
/// allow {
///     input.caller.spiffe_id == "spiffe://example.org/orchestrator"
///     count(input.request.params.text) <= 5
/// }
/// "#,
/// );
/// let orchestrator = "spiffe://example.org/orchestrator";
/// policy.assert_allows_with(orchestrator, "count_words", json!({"text": "short"}));
/// policy.assert_denies_with(orchestrator, "count_words", json!({"text": "too long"}));
/// policy.assert_denies("spiffe://example.org/user/ann", "count_words");
/// policy.assert_denies("anonymous", "count_words");
/// ```
#[derive(Debug, Clone)]
pub struct PolicyTester {
    source: PolicySource,
    options: PolicyOptions,
    agent: SpiffeId,
}

impl PolicyTester {
    /// The policy in `text`, of the agent `spiffe://example.org/agent`.
    #[must_use]
    pub fn rego(text: impl Into<String>) -> Self {
        Self::of(PolicySource { name: "policy.rego".to_owned(), text: text.into() })
    }

    /// The policy in the file at `path`.
    ///
    /// # Panics
    ///
    /// If the file cannot be read.
    #[must_use]
    #[track_caller]
    pub fn file(path: impl AsRef<Path>) -> Self {
        let name = path.as_ref().display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::of(PolicySource { name, text }),
            Err(error) => panic!("policy `{name}` cannot be read: {error}"),
        }
    }

    /// The agent that the policy is of.
    ///
    /// # Panics
    ///
    /// If `spiffe_id` is none.
    #[must_use]
    #[track_caller]
    pub fn agent(mut self, spiffe_id: &str) -> Self {
        self.agent = id(spiffe_id);
        self
    }

    /// What the policy reads as `data`, as the JSON text of one of its data files.
    #[must_use]
    pub fn data(mut self, json: impl Into<String>) -> Self {
        let name = format!("data-{}.json", self.options.data.len() + 1);
        self.options.data.push(PolicyData { name, text: json.into() });
        self
    }

    /// `caller`, a SPIFFE ID or `anonymous`, may call `capability` without parameters.
    ///
    /// # Panics
    ///
    /// If it may not, or the policy does not load.
    #[track_caller]
    pub fn assert_allows(&self, caller: &str, capability: &str) {
        self.check(caller, capability, &Json::empty_object(), true);
    }

    /// As [`assert_allows`](Self::assert_allows), with parameters.
    ///
    /// # Panics
    ///
    /// As [`assert_allows`](Self::assert_allows).
    #[track_caller]
    pub fn assert_allows_with(&self, caller: &str, capability: &str, params: impl Serialize) {
        self.check(caller, capability, &json(&params), true);
    }

    /// `caller`, a SPIFFE ID or `anonymous`, may not call `capability` without parameters.
    ///
    /// # Panics
    ///
    /// If it may, or the policy does not load.
    #[track_caller]
    pub fn assert_denies(&self, caller: &str, capability: &str) {
        self.check(caller, capability, &Json::empty_object(), false);
    }

    /// As [`assert_denies`](Self::assert_denies), with parameters.
    ///
    /// # Panics
    ///
    /// As [`assert_denies`](Self::assert_denies).
    #[track_caller]
    pub fn assert_denies_with(&self, caller: &str, capability: &str, params: impl Serialize) {
        self.check(caller, capability, &json(&params), false);
    }

    fn of(source: PolicySource) -> Self {
        let agent = id("spiffe://example.org/agent");
        // A busy machine is no reason for a test to fail.
        let options = PolicyOptions { time_max: Duration::from_secs(1), ..Default::default() };
        Self { source, options, agent }
    }

    #[track_caller]
    fn check(&self, caller: &str, capability: &str, params: &Json, expected: bool) {
        let policy = match Policy::load(&self.source, &self.options) {
            Ok(policy) => policy,
            Err(error) => panic!("policy {error}"),
        };
        let who = match caller {
            "anonymous" => Caller::Anonymous,
            spiffe_id => Caller::Principal(Arc::new(Principal::from_verified_svid(
                id(spiffe_id),
                &self.agent,
            ))),
        };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let question = Question {
            caller: &who,
            agent: &self.agent,
            agent_name: self.agent.path().rsplit('/').next().unwrap_or_default(),
            operation: OperationKind::SendMessage,
            method: capability,
            params: Some(params),
            at: UnixMillis(since.as_millis().try_into().unwrap_or(u64::MAX)),
            protocol: "a2a/1.0",
            remote_addr: "127.0.0.1:1",
            request_id: "test-request",
            task_id: None,
            context_id: None,
        };
        let began = Instant::now();
        let decision = policy.decide(&question, &|| began.elapsed());
        // A decision that could not be made is not the refusal that the test means.
        let broken = !decision.is_allowed()
            && decision.reason.detail().is_some_and(|_| {
                matches!(
                    decision.reason,
                    convoke_model::Reason::Error(_) | convoke_model::Reason::Unreachable(_)
                )
            });
        if decision.is_allowed() == expected && !broken {
            return;
        }
        let verb = if decision.is_allowed() { "allows" } else { "refuses" };
        let mut text = format!(
            "{} {verb} `{capability}` to {caller}: {}",
            self.source.name,
            decision.reason.as_str()
        );
        if let Some(detail) = decision.reason.detail() {
            append(&mut text, format_args!(", {detail}"));
        }
        match policy.explain(&question, &|| began.elapsed()) {
            Ok(explanation) => reasons(&mut text, &explanation),
            Err(error) => append(&mut text, format_args!("\n  {error}")),
        }
        panic!("{text}");
    }
}

/// Lists the rules that could have decided, each with what became of it.
fn reasons(text: &mut String, explanation: &Explanation) {
    append(text, format_args!("\n  decided by {}", explanation.decision.rule));
    if let Some(place) = explanation.place {
        append(text, format_args!(", line {}", place.line));
    }
    for Attempt { rule, place, depth, outcome } in &explanation.tried {
        let indent = "  ".repeat(depth + 1);
        append(text, format_args!("\n{indent}{rule}, line {}: ", place.line));
        match outcome {
            Outcome::Holds(value) => append(text, format_args!("holds with {value}")),
            Outcome::NotTrue { condition, place } => {
                append(text, format_args!("`{condition}` is not true (line {})", place.line));
            }
            Outcome::Fails { condition, place, message } => {
                append(text, format_args!("`{condition}` fails (line {}): {message}", place.line))
            }
            Outcome::Unknown(why) => text.push_str(why),
        }
    }
}

fn append(text: &mut String, more: std::fmt::Arguments<'_>) {
    // Writing into a string cannot fail.
    let _written = text.write_fmt(more);
}

#[track_caller]
fn id(text: &str) -> SpiffeId {
    match SpiffeId::parse(text) {
        Ok(id) => id,
        Err(error) => panic!("`{text}`: {error}"),
    }
}

#[track_caller]
fn json(params: &impl Serialize) -> Json {
    match Json::of(params) {
        Ok(json) => json,
        Err(error) => panic!("the parameters are no JSON: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"package agentweave.authz

default allow = false

allow {
    input.caller.spiffe_id == "spiffe://example.org/a"
    input.request.method in data.methods
}
"#;

    fn said(assertion: impl FnOnce() + std::panic::UnwindSafe) -> String {
        let panicked = std::panic::catch_unwind(assertion).expect_err("should be wrong");
        panicked.downcast_ref::<String>().cloned().unwrap_or_default()
    }

    #[test]
    fn a_wrong_assertion_names_rule_line_and_condition() {
        let policy = PolicyTester::rego(POLICY).data(r#"{"methods": ["read"]}"#);
        policy.assert_allows("spiffe://example.org/a", "read");
        policy.assert_denies("spiffe://example.org/a", "write");
        let text = said(|| policy.assert_allows("spiffe://example.org/a", "write"));
        let first = "policy.rego refuses `write` to spiffe://example.org/a: denied\n";
        assert!(text.starts_with(first), "{text}");
        assert!(text.contains("allow, line 5: `input.request.method in data.methods`"), "{text}");
        assert!(text.contains("is not true (line 7)"), "{text}");
        let text = said(|| policy.assert_denies("spiffe://example.org/a", "read"));
        assert!(text.contains("allows `read`"), "{text}");
        assert!(text.contains("decided by data.agentweave.authz.allow, line 5"), "{text}");
    }

    #[test]
    fn a_policy_that_is_broken_denies_nothing_on_purpose() {
        let text = said(|| PolicyTester::rego("package x").assert_denies("anonymous", "read"));
        assert!(text.starts_with("policy "), "{text}");
        let failing = "package agentweave.authz\n\nallow { to_number(\"x\") == 1 }\n";
        let text = said(|| PolicyTester::rego(failing).assert_denies("anonymous", "read"));
        assert!(text.contains("error"), "{text}");
    }
}
