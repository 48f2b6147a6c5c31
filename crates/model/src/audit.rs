//! The trail: one record for each decision.

use std::io::Write as _;
use std::sync::Arc;

use crate::{
    CapabilityName, Decision, OperationKind, RequestId, Revision, SpiffeId, TaskId, TraceContext,
    UnixMillis,
};

/// What was asked by whom, and what came of it. Holds a digest of the parameters, never the
/// parameters.
#[derive(Debug, Clone)]
pub struct AuditRecord {
    /// When the request was decided.
    pub at: UnixMillis,
    /// The request.
    pub request_id: RequestId,
    /// The request's place in its trace.
    pub trace: TraceContext,
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
    /// How many more requests the record stands for that were refused for the same reason. The
    /// record itself is that of the last one, so it counts for 1 + `repeated`.
    pub repeated: u64,
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
    ///
    /// Characters that end lines, move a terminal's cursor or turn its text around are escaped, so
    /// that a record looks in every viewer like what it is.
    pub fn write_line(&self, line: &mut Vec<u8>) {
        line.reserve(LINE_BYTES_USUAL);
        line.extend_from_slice(b"{\"timestamp\":\"");
        line.extend_from_slice(self.at.to_text().as_bytes());
        line.extend_from_slice(b"\",\"event_type\":\"authorization\"");
        field(line, "request_id", self.request_id.as_str());
        key(line, "trace_id");
        // Writing to a vector cannot fail.
        let _written = write!(line, "\"{:032x}\"", self.trace.trace_id());
        field(line, "caller_spiffe_id", &self.caller);
        field(line, "agent_spiffe_id", self.agent.as_str());
        field(line, "remote_addr", &self.remote_addr);
        field(line, "operation", self.operation.as_str());
        optional(line, "capability", self.capability.as_ref().map(CapabilityName::as_str));
        optional(line, "task_id", self.task_id.as_ref().map(TaskId::as_str));
        optional(line, "params_sha256", self.params_sha256.as_deref());
        match &self.outcome {
            AuditOutcome::Decided(decision) => {
                let allowed = decision.is_allowed();
                field(line, "decision", if allowed { "allow" } else { "deny" });
                field(line, "reason", decision.reason.as_str());
                optional(line, "detail", decision.reason.detail());
                field(line, "rule", &decision.rule);
                field(line, "policy_revision", &decision.revision.0);
                let micros = u64::try_from(decision.took.as_micros()).unwrap_or(u64::MAX);
                number(line, "decision_us", micros);
            }
            AuditOutcome::Refused(why) => {
                field(line, "decision", "deny");
                field(line, "reason", why);
            }
        }
        if self.repeated > 0 {
            number(line, "repeated", self.repeated);
        }
        line.extend_from_slice(b"}\n");
    }
}

/// What happened to the node itself, among the decisions that it made.
#[derive(Debug, Clone)]
pub struct AuditEvent {
    /// When it happened.
    pub at: UnixMillis,
    /// The agent to whom it happened.
    pub agent: SpiffeId,
    /// What happened.
    pub kind: AuditEventKind,
}

/// What can happen to a node.
#[derive(Debug, Clone)]
pub enum AuditEventKind {
    /// It began to take requests.
    Startup {
        /// The version of the program.
        version: &'static str,
        /// The policy that decides.
        policy: Revision,
    },
    /// It ended by itself; a trail without this ended by force.
    Shutdown {
        /// Requests that ended while it drained.
        finished: u64,
        /// Requests that were cut off.
        cut: u64,
        /// Tasks that were lost with it.
        lost_tasks: u64,
    },
    /// Its certificate was replaced.
    IdentityRotation {
        /// When the new one ends.
        not_after: UnixMillis,
    },
    /// Another policy decides from now on.
    PolicyUpdate {
        /// The policy that decided until now.
        previous: Revision,
        /// The policy that decides.
        policy: Revision,
    },
    /// It ended a task, which neither its handler nor its owner did.
    TaskEnded {
        /// The task.
        task_id: TaskId,
        /// The capability that it was made for.
        capability: CapabilityName,
        /// The verified ID of the caller that made it, or `anonymous`.
        owner: Arc<str>,
        /// Why, in a word.
        why: &'static str,
    },
}

impl AuditEvent {
    /// The version of the shape of events. Fields may be added under the same number; a reader
    /// skips event types that it does not know.
    pub const VERSION: u32 = 1;

    /// Writes the event as one line of JSON, as [`AuditRecord::write_line`] does.
    pub fn write_line(&self, line: &mut Vec<u8>) {
        line.extend_from_slice(b"{\"timestamp\":\"");
        line.extend_from_slice(self.at.to_text().as_bytes());
        line.push(b'"');
        field(line, "event_type", self.kind.as_str());
        number(line, "version", u64::from(Self::VERSION));
        field(line, "agent_spiffe_id", self.agent.as_str());
        match &self.kind {
            AuditEventKind::Startup { version, policy } => {
                field(line, "program_version", version);
                field(line, "policy_revision", &policy.0);
            }
            AuditEventKind::Shutdown { finished, cut, lost_tasks } => {
                number(line, "finished", *finished);
                number(line, "cut", *cut);
                number(line, "lost_tasks", *lost_tasks);
            }
            AuditEventKind::IdentityRotation { not_after } => {
                field(line, "not_after", not_after.to_text().as_str());
            }
            AuditEventKind::PolicyUpdate { previous, policy } => {
                field(line, "previous_policy_revision", &previous.0);
                field(line, "policy_revision", &policy.0);
            }
            AuditEventKind::TaskEnded { task_id, capability, owner, why } => {
                field(line, "task_id", task_id.as_str());
                field(line, "capability", capability.as_str());
                field(line, "caller_spiffe_id", owner);
                field(line, "reason", why);
            }
        }
        line.extend_from_slice(b"}\n");
    }
}

impl AuditEventKind {
    /// The word of `event_type`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Startup { .. } => "startup",
            Self::Shutdown { .. } => "shutdown",
            Self::IdentityRotation { .. } => "identity_rotation",
            Self::PolicyUpdate { .. } => "policy_update",
            Self::TaskEnded { .. } => "task_ended",
        }
    }
}

/// About how many bytes a line has whose names are not long.
const LINE_BYTES_USUAL: usize = 768;

fn optional(line: &mut Vec<u8>, name: &'static str, value: Option<&str>) {
    if let Some(value) = value {
        field(line, name, value);
    }
}

fn number(line: &mut Vec<u8>, name: &'static str, value: u64) {
    key(line, name);
    // Writing to a vector cannot fail.
    let _written = write!(line, "{value}");
}

fn field(line: &mut Vec<u8>, name: &'static str, value: &str) {
    key(line, name);
    write_json_string(line, value);
}

/// Writes a key that is not the first; our own names need no escape.
fn key(line: &mut Vec<u8>, name: &'static str) {
    line.extend_from_slice(b",\"");
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":");
}

/// Writes `text` as a JSON string, quotes included, at the end of `out`. Characters that end lines,
/// move a terminal's cursor or turn its text around are escaped.
pub fn write_json_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escaped(out, text);
    out.push(b'"');
}

/// Writes `text` as the inside of a JSON string.
fn escaped(line: &mut Vec<u8>, text: &str) {
    // Nearly all values are visible ASCII. Looking at every byte without a way out is what the
    // compiler turns into vector instructions.
    let plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
    if text.bytes().fold(true, |all, byte| all & plain(byte)) {
        line.extend_from_slice(text.as_bytes());
        return;
    }
    let mut from = 0;
    for (at, character) in text.char_indices() {
        let short = match character {
            '"' => b'"',
            '\\' => b'\\',
            '\n' => b'n',
            '\r' => b'r',
            '\t' => b't',
            _ if is_hidden(character) => b'u',
            _ => continue,
        };
        line.extend_from_slice(&text.as_bytes()[from..at]);
        from = at + character.len_utf8();
        if short != b'u' {
            line.extend_from_slice(&[b'\\', short]);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a vector cannot fail.
            let _written = write!(line, "\\u{unit:04x}");
        }
    }
    line.extend_from_slice(&text.as_bytes()[from..]);
}

/// Whether a viewer would obey `character` rather than show it: C0, DEL and C1 controls, line and
/// paragraph separators, what sets the direction of writing (UAX #9 §2), and the invisible tag
/// characters.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
                | '\u{feff}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::{Reason, Revision};

    fn record(outcome: AuditOutcome) -> AuditRecord {
        AuditRecord {
            at: UnixMillis(1_798_761_599_001),
            request_id: RequestId::parse("r-1").unwrap(),
            trace: TraceContext::root(0xabc, 1, false),
            agent: SpiffeId::parse("spiffe://example.org/worker").unwrap(),
            caller: "spiffe://example.org/orchestrator".into(),
            remote_addr: "[::1]:50000".into(),
            operation: OperationKind::SendMessage,
            capability: Some(CapabilityName::parse("count_words").unwrap()),
            task_id: Some(TaskId::parse("t-1").unwrap()),
            params_sha256: Some("ab".into()),
            outcome,
            repeated: 0,
        }
    }

    fn decided(reason: Reason, rule: &str) -> AuditOutcome {
        AuditOutcome::Decided(Decision {
            reason,
            rule: rule.into(),
            revision: Revision("rev".into()),
            took: Duration::from_nanos(17_900),
        })
    }

    fn line(record: &AuditRecord) -> String {
        let mut line = b"before\n".to_vec();
        record.write_line(&mut line);
        String::from_utf8(line).unwrap().strip_prefix("before\n").unwrap().to_owned()
    }

    #[test]
    fn lines_have_one_form() {
        let begin = concat!(
            r#"{"timestamp":"2026-12-31T23:59:59.001Z","event_type":"authorization","#,
            r#""request_id":"r-1","trace_id":"00000000000000000000000000000abc","#,
            r#""caller_spiffe_id":"spiffe://example.org/orchestrator","#,
            r#""agent_spiffe_id":"spiffe://example.org/worker","remote_addr":"[::1]:50000","#,
            r#""operation":"SendMessage","#,
        );
        let about = r#""capability":"count_words","task_id":"t-1","params_sha256":"ab","#;
        let check = |record: &AuditRecord, about: &str, end: &str| {
            assert_eq!(line(record), format!("{begin}{about}{end}\n"));
        };
        check(
            &record(decided(Reason::Allowed(None), "data.authz.allow")),
            about,
            r#""decision":"allow","reason":"allowed","rule":"data.authz.allow","policy_revision":"rev","decision_us":17}"#,
        );
        check(
            &record(decided(Reason::Denied(Some("not \"you\"".into())), "data.authz.allow")),
            about,
            r#""decision":"deny","reason":"denied","detail":"not \"you\"","rule":"data.authz.allow","policy_revision":"rev","decision_us":17}"#,
        );
        let mut refused = record(AuditOutcome::Refused("no_credential"));
        (refused.capability, refused.task_id, refused.params_sha256) = (None, None, None);
        check(&refused, "", r#""decision":"deny","reason":"no_credential"}"#);
        refused.repeated = 41;
        check(&refused, "", r#""decision":"deny","reason":"no_credential","repeated":41}"#);
    }

    #[test]
    fn events_have_a_version_and_one_form() {
        let check = |kind, expected: &str| {
            let agent = SpiffeId::parse("spiffe://example.org/worker").unwrap();
            let mut line = Vec::new();
            AuditEvent { at: UnixMillis(0), agent, kind }.write_line(&mut line);
            let (begin, end) = expected.split_once(' ').unwrap();
            let expected = format!(
                "{{\"timestamp\":\"1970-01-01T00:00:00.000Z\",\"event_type\":\"{begin}\",\
                 \"version\":1,\"agent_spiffe_id\":\"spiffe://example.org/worker\",{end}}}\n"
            );
            assert_eq!(String::from_utf8(line).unwrap(), expected);
        };
        let policy = || Revision("b".into());
        check(
            AuditEventKind::Startup { version: "1.0", policy: policy() },
            r#"startup "program_version":"1.0","policy_revision":"b""#,
        );
        check(
            AuditEventKind::Shutdown { finished: 1, cut: 2, lost_tasks: 3 },
            r#"shutdown "finished":1,"cut":2,"lost_tasks":3"#,
        );
        check(
            AuditEventKind::IdentityRotation { not_after: UnixMillis(1) },
            r#"identity_rotation "not_after":"1970-01-01T00:00:00.001Z""#,
        );
        check(
            AuditEventKind::PolicyUpdate { previous: Revision("a".into()), policy: policy() },
            r#"policy_update "previous_policy_revision":"a","policy_revision":"b""#,
        );
    }

    #[test]
    fn what_a_viewer_would_obey_is_escaped() {
        for (text, expected) in [
            ("plain / ~", "plain / ~"),
            ("é😀\u{a0}", "é😀\u{a0}"),
            (r#"a"b\c"#, r#"a\"b\\c"#),
            ("a\nb\r\tc", r"a\nb\r\tc"),
            ("\u{0}\u{8}\u{c}\u{1b}[2J\u{7f}", r"\u0000\u0008\u000c\u001b[2J\u007f"),
            ("\u{80}\u{85}\u{9b}\u{9f}", r"\u0080\u0085\u009b\u009f"),
            ("x\u{2028}\u{2029}y", r"x\u2028\u2029y"),
            ("\u{61c}\u{200e}\u{200f}", r"\u061c\u200e\u200f"),
            ("\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}", r"\u202a\u202b\u202c\u202d\u202e"),
            ("\u{feff}\u{e0001}\u{e007f}", r"\ufeff\udb40\udc01\udb40\udc7f"),
            ("\u{2066}\u{2067}\u{2068}\u{2069}é", r"\u2066\u2067\u2068\u2069é"),
            (
                "\u{200d}\u{2027}\u{202f}\u{2065}\u{206a}",
                "\u{200d}\u{2027}\u{202f}\u{2065}\u{206a}",
            ),
        ] {
            let mut found = Vec::new();
            escaped(&mut found, text);
            assert_eq!(String::from_utf8(found).unwrap(), expected);
        }
    }

    /// The next number of a fixed sequence (the multiplier is Knuth's, of MMIX).
    fn next(seed: &mut u64) -> u64 {
        *seed =
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *seed >> 33
    }

    /// Up to 40 characters, mostly of the ranges in which something is escaped.
    fn text(seed: &mut u64) -> String {
        (0..next(seed) % 40)
            .map(|_| {
                let below = [0x80, 0x100, 0x700, 0x2070, 0x11_0000][next(seed) as usize % 5];
                let from = if below == 0x2070 { 0x2000 } else { 0 };
                char::from_u32(from + next(seed) as u32 % (below - from)).unwrap_or('\u{202e}')
            })
            .collect()
    }

    #[test]
    fn every_line_is_one_line_and_reads_back() {
        let seed = &mut 7;
        for _ in 0..5_000 {
            let (rule, detail, caller) = (text(seed), text(seed), text(seed));
            let mut record = record(decided(Reason::Error(detail.clone()), &rule));
            record.caller = caller.as_str().into();
            let line = line(&record);
            assert_eq!(line.find('\n'), Some(line.len() - 1), "{line:?}");
            assert!(!line.trim_end().chars().any(is_hidden), "{line:?}");
            let expected = json!({
                "timestamp": "2026-12-31T23:59:59.001Z", "event_type": "authorization",
                "request_id": "r-1", "trace_id": "00000000000000000000000000000abc",
                "caller_spiffe_id": caller,
                "agent_spiffe_id": "spiffe://example.org/worker", "remote_addr": "[::1]:50000",
                "operation": "SendMessage", "capability": "count_words", "task_id": "t-1",
                "params_sha256": "ab", "decision": "deny", "reason": "error", "detail": detail,
                "rule": rule, "policy_revision": "rev", "decision_us": 17,
            });
            assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), expected);
        }
    }
}
