//! Decisions of a policy server: what OPA answers, and nothing else, as a decision.
//!
//! The caller of this module asks over the network; what came back is read here, so that there is
//! no way from a mere boolean to an allowed operation.

use std::sync::Arc;
use std::time::Duration;

use convoke_model::{Decision, NotUnique, OperationKind, Reason, Revision, check_keys};
use regorus::Value;

use crate::said::tidy;

/// The status of OPA's answers that hold a decision, an undefined one included.
///
/// Source: OPA's REST API, "Get a Document (with Input)".
const OK: u16 = 200;

/// Which document of a policy server decides.
#[derive(Debug, Clone)]
pub struct RemotePolicy {
    rule: Arc<str>,
    revision: Revision,
}

/// What a policy server answered to one question, or why it did not.
#[derive(Debug)]
pub struct RemoteVerdict {
    /// What it was asked about.
    operation: OperationKind,
    reason: Reason,
    rule: Arc<str>,
    revision: Revision,
}

/// Why a policy server gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// It took longer than it may.
    #[error("the policy server did not answer in time")]
    OverTime,
    /// It could not be asked. The text says why.
    #[error("{0}")]
    Unreachable(String),
    /// The question is larger than what may be asked.
    #[error("the question is larger than a policy's input may be")]
    TooLarge,
}

impl RemotePolicy {
    /// The document at `path` below `/v1/data`, such as `agentweave/authz`.
    #[must_use]
    pub fn new(path: &str) -> Self {
        let rule = format!("data.{}", path.replace('/', "."));
        // The server has policies of its own, whose revision its answers do not tell.
        Self { rule: rule.into(), revision: Revision("opa".into()) }
    }

    /// What decisions of this server are put on record under; the server changes its policies as it
    /// likes, so this is no digest of them.
    #[must_use]
    pub fn revision(&self) -> &Revision {
        &self.revision
    }
}

impl RemoteVerdict {
    /// Reads the answer to a question about `operation`: its HTTP status and its body, which the
    /// caller has bounded.
    ///
    /// `{"result": true}` allows, and so does `{"result": {"allow": true}}`, which may name a
    /// `reason` and, as `policy_id`, the rule that decided. Everything else is a refusal: another
    /// status, no `result` (the server's word for undefined), a result of another type, an object
    /// anywhere in it that names a key twice.
    #[must_use]
    pub fn read(policy: &RemotePolicy, operation: OperationKind, status: u16, body: &[u8]) -> Self {
        let (reason, rule) = read(status, body);
        Self {
            operation,
            reason,
            rule: rule.map_or_else(|| policy.rule.clone(), Arc::from),
            revision: policy.revision.clone(),
        }
    }

    /// No answer came to a question about `operation`, which refuses.
    #[must_use]
    pub fn failed(policy: &RemotePolicy, operation: OperationKind, error: RemoteError) -> Self {
        let reason = match error {
            RemoteError::OverTime => Reason::OverTime,
            RemoteError::Unreachable(why) => Reason::Unreachable(tidy(&why)),
            RemoteError::TooLarge => Reason::InputTooLarge,
        };
        let (rule, revision) = (policy.rule.clone(), policy.revision.clone());
        Self { operation, reason, rule, revision }
    }

    /// Whether the server did its work: it answered, and the answer could be read. Whether it allows
    /// does not matter here.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        is_answer(&self.reason)
    }

    /// Whether this status and body are an answer, as [`RemoteVerdict::is_answer`] says, whatever
    /// was asked.
    #[must_use]
    pub fn can_read(status: u16, body: &[u8]) -> bool {
        is_answer(&read(status, body).0)
    }

    /// The decision on `operation`, which is a refusal if the server was asked about another one.
    pub(crate) fn into_decision(self, operation: OperationKind, took: Duration) -> Decision {
        let reason = if self.operation == operation {
            self.reason
        } else {
            let (asked, done) = (self.operation.as_str(), operation.as_str());
            Reason::Error(format!("the policy server was asked about {asked}, not about {done}"))
        };
        Decision { reason, rule: self.rule, revision: self.revision, took }
    }
}

fn is_answer(reason: &Reason) -> bool {
    matches!(
        reason,
        Reason::Allowed(_) | Reason::Denied(_) | Reason::Undefined | Reason::NotADecision
    )
}

fn read(status: u16, body: &[u8]) -> (Reason, Option<String>) {
    if status != OK {
        return (Reason::Unreachable(format!("the policy server answered {status}")), None);
    }
    let checked = std::str::from_utf8(body).map_err(|_| NotUnique::NotJson);
    let parsed = match checked.and_then(|text| check_keys(text).map(|()| text)) {
        Ok(text) => Value::from_json_str(text).ok(),
        Err(NotUnique::NotJson) => None,
        Err(NotUnique::Twice) => {
            let why = "the policy server's answer names a key twice".to_owned();
            return (Reason::Unreachable(why), None);
        }
    };
    let Some(Value::Object(answer)) = parsed else {
        return (Reason::Unreachable("the policy server's answer is no JSON object".into()), None);
    };
    let text = |value: Option<&Value>| match value {
        Some(Value::String(text)) => Some(tidy(text)),
        _ => None,
    };
    let decided = |allow: &Value, reason: Option<String>| match allow {
        Value::Bool(true) => Reason::Allowed(reason),
        Value::Bool(false) => Reason::Denied(reason),
        _ => Reason::NotADecision,
    };
    match answer.get(&Value::from("result")) {
        None => (Reason::Undefined, None),
        Some(Value::Object(result)) => match result.get(&Value::from("allow")) {
            // The document of a package whose rule is undefined has no `allow`.
            None => (Reason::Undefined, None),
            Some(allow) => (
                decided(allow, text(result.get(&Value::from("reason")))),
                text(result.get(&Value::from("policy_id"))).filter(|rule| !rule.is_empty()),
            ),
        },
        Some(other) => (decided(other, None), None),
    }
}

#[cfg(test)]
mod tests {
    use convoke_model::{GetTask, Operation, TaskId};

    use super::*;
    use crate::authorize_with;

    fn policy() -> RemotePolicy {
        RemotePolicy::new("agentweave/authz")
    }

    fn decision(verdict: RemoteVerdict) -> Decision {
        let id = TaskId::parse("t").unwrap();
        let operation = Operation::GetTask(GetTask { tenant: None, id, history_length: None });
        match authorize_with(verdict, operation, Duration::from_millis(3)) {
            Ok(authorized) => {
                assert!(authorized.decision().is_allowed());
                authorized.into_parts().1
            }
            Err(refused) => {
                assert!(!refused.decision.is_allowed());
                refused.decision
            }
        }
    }

    fn check(status: u16, body: &str, reason: &str, detail: Option<&str>, rule: &str) {
        let found = decision(RemoteVerdict::read(
            &policy(),
            OperationKind::GetTask,
            status,
            body.as_bytes(),
        ));
        let found = (found.reason.as_str(), found.reason.detail(), &*found.rule);
        assert_eq!(found, (reason, detail, rule), "{status} {body}");
    }

    #[test]
    fn only_the_servers_own_yes_allows() {
        const RULE: &str = "data.agentweave.authz";
        check(200, r#"{"result": true}"#, "allowed", None, RULE);
        check(200, r#"{"decision_id": "x", "result": false}"#, "denied", None, RULE);
        check(200, r#"{"result": {"allow": true, "other": 1}}"#, "allowed", None, RULE);
        check(
            200,
            r#"{"result": {"allow": false, "reason": "no\nway", "policy_id": "p-7"}}"#,
            "denied",
            Some("no way"),
            "p-7",
        );
        check(200, "{}", "undefined", None, RULE);
        check(200, r#"{"result": {}}"#, "undefined", None, RULE);
        for result in ["1", "null", "\"true\"", "[true]", r#"{"allow": "true"}"#, r#"{"allow": 1}"#]
        {
            check(200, &format!(r#"{{"result": {result}}}"#), "not_a_decision", None, RULE);
        }
        for status in [201, 204, 301, 400, 401, 404, 500, 503] {
            let detail = format!("the policy server answered {status}");
            check(status, r#"{"result": true}"#, "unreachable", Some(&detail), RULE);
        }
        let detail = Some("the policy server's answer is no JSON object");
        for body in ["", "true", "[]", "{", "{\"result\": true", "{\"result\": true} x", "\u{0}"] {
            check(200, body, "unreachable", detail, RULE);
        }
        let deep = format!("{{\"result\": {}", "[".repeat(100_000));
        check(200, &deep, "unreachable", detail, RULE);
    }

    #[test]
    fn an_answer_that_says_two_things_refuses() {
        for body in [
            r#"{"result": false, "result": true}"#,
            r#"{"result": true, "result": true}"#,
            r#"{"result": false, "resul\u0074": true}"#,
            r#"{"result": {"allow": false, "allow": true}}"#,
            r#"{"result": {"allow": true, "why": [{"x": 1, "x": 2}]}}"#,
            r#"{"result": true, "metrics": {"t": 1, "t": 2}}"#,
        ] {
            let detail = Some("the policy server's answer names a key twice");
            check(200, body, "unreachable", detail, "data.agentweave.authz");
        }
    }

    #[test]
    fn no_answer_refuses() {
        let check = |error: RemoteError, reason: &str| {
            let verdict = RemoteVerdict::failed(&policy(), OperationKind::GetTask, error);
            assert!(!verdict.is_answer());
            assert_eq!(decision(verdict).reason.as_str(), reason);
        };
        check(RemoteError::OverTime, "over_time");
        check(RemoteError::Unreachable("refused".into()), "unreachable");
        check(RemoteError::TooLarge, "input_too_large");
    }

    #[test]
    fn an_answer_about_another_operation_refuses() {
        let yes = br#"{"result": true}"#;
        let verdict = RemoteVerdict::read(&policy(), OperationKind::SendMessage, 200, yes);
        let reason = decision(verdict).reason;
        let why = "the policy server was asked about SendMessage, not about GetTask";
        assert_eq!((reason.as_str(), reason.detail()), ("error", Some(why)));
    }
}
