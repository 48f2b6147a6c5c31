//! The trail: one record for each decision.

use std::sync::Arc;

use serde::Serialize;

use crate::{CapabilityName, Decision, OperationKind, RequestId, SpiffeId, TaskId, UnixMillis};

/// What was asked by whom, and what came of it. Holds a digest of the parameters, never the
/// parameters.
#[derive(Debug, Clone)]
pub struct AuditRecord {
    /// When the request was decided.
    pub at: UnixMillis,
    /// The request.
    pub request_id: RequestId,
    /// The agent that was asked.
    pub agent: SpiffeId,
    /// The caller's verified ID, or `anonymous`.
    pub caller: Arc<str>,
    /// Where the caller's connection came from, as address and port.
    pub remote_addr: Arc<str>,
    /// What was asked.
    pub operation: OperationKind,
    /// The capability that was asked for, or that the task belongs to.
    pub capability: Option<CapabilityName>,
    /// The task that the operation is about or made.
    pub task_id: Option<TaskId>,
    /// SHA-256 of the parameters' JSON text, in hexadecimal.
    pub params_sha256: Option<String>,
    /// What came of it.
    pub outcome: AuditOutcome,
}

/// What came of a request.
#[derive(Debug, Clone)]
pub enum AuditOutcome {
    /// Policy was asked.
    Decided(Decision),
    /// Refused before policy was asked, for example because the caller has no credential.
    Refused(&'static str),
}

impl AuditRecord {
    /// Writes the record as one line of JSON, with its newline, at the end of `line`.
    pub fn write_line(&self, line: &mut Vec<u8>) {
        let (decision, reason, rule, policy, took) = match &self.outcome {
            AuditOutcome::Decided(decision) => (
                if decision.is_allowed() { "allow" } else { "deny" },
                decision.reason.as_str(),
                Some(&*decision.rule),
                Some(&*decision.revision.0),
                Some(u64::try_from(decision.took.as_micros()).unwrap_or(u64::MAX)),
            ),
            AuditOutcome::Refused(why) => ("deny", *why, None, None, None),
        };
        let detail = match &self.outcome {
            AuditOutcome::Decided(decision) => decision.reason.detail(),
            AuditOutcome::Refused(_) => None,
        };
        let shape = Line {
            timestamp: self.at,
            event_type: "authorization",
            request_id: self.request_id.as_str(),
            caller_spiffe_id: &self.caller,
            agent_spiffe_id: self.agent.as_str(),
            remote_addr: &self.remote_addr,
            operation: self.operation.as_str(),
            capability: self.capability.as_ref().map(CapabilityName::as_str),
            task_id: self.task_id.as_ref().map(TaskId::as_str),
            params_sha256: self.params_sha256.as_deref(),
            decision,
            reason,
            detail,
            rule,
            policy_revision: policy,
            decision_us: took,
        };
        // Strings and numbers into a vector: there is nothing that could fail.
        if serde_json::to_writer(&mut *line, &shape).is_ok() {
            line.push(b'\n');
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    timestamp: UnixMillis,
    event_type: &'static str,
    request_id: &'a str,
    caller_spiffe_id: &'a str,
    agent_spiffe_id: &'a str,
    remote_addr: &'a str,
    operation: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    capability: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    params_sha256: Option<&'a str>,
    decision: &'static str,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_revision: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision_us: Option<u64>,
}
