//! Exit codes: part of the interface, because scripts act on them.

use std::fmt;

use convoke::open::OpenError;
use convoke::serve::EndSignal;
use convoke::task::TaskError;
use convoke::{AgentCallError, CallError, FaultCode, chain};
use convoke_a2a::client::AnswerError;
use convoke_model::{OperationKind, TraceContext, system_error};

/// Why the command ended, as the shell sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// Something that has no code of its own.
    Failure = 1,
    /// The command line or a configuration is wrong. The same number as clap's.
    Usage = 2,
    /// Policy, or the TLS handshake, refused the caller.
    Refused = 3,
    /// Nothing answers at the address.
    Unreachable = 4,
    /// Somebody answers, but is not who was expected.
    WrongPeer = 5,
    /// The agent has no such capability.
    UnknownCapability = 6,
    /// The capability's schema refuses the parameters.
    InvalidParams = 7,
    /// No answer in time.
    TimedOut = 8,
    /// The agent took the call and failed.
    AgentFailed = 9,
    /// No identity could be had for the caller.
    NoIdentity = 10,
    /// The task waits for an answer, or for its caller to sign in elsewhere.
    TaskWaits = 11,
    /// The task ended because somebody asked.
    TaskCanceled = 12,
    /// SIGINT ended the command. The number that shells give to it.
    Interrupted = 130,
    /// SIGTERM ended the command. The number that shells give to it.
    Terminated = 143,
}

/// A row of the table of exit codes, from which help, man pages and reference are made.
pub(crate) struct Row {
    /// What the shell sees.
    pub(crate) number: u8,
    /// The name in a report of the failure as JSON.
    pub(crate) name: &'static str,
    /// What it means.
    pub(crate) meaning: &'static str,
    /// When it usually comes.
    pub(crate) cause: &'static str,
}

/// Every exit code, success first.
pub(crate) const TABLE: [Row; 15] = [
    row(0, "success", "success", ""),
    row(1, "failure", "failure", "something without a code of its own, such as a port in use"),
    row(
        2,
        "usage",
        "wrong command line or configuration",
        "an unknown option or key, parameters that are not a JSON object",
    ),
    row(
        3,
        "refused",
        "refused",
        "policy said no, or the agent did not accept the caller's certificate",
    ),
    row(4, "unreachable", "unreachable", "nothing answers at the address"),
    row(
        5,
        "wrong_peer",
        "wrong peer identity",
        "whoever answers is not the agent of `--agent`, or the issuer runs as a stranger",
    ),
    row(6, "unknown_capability", "unknown capability", "the agent has no capability of that name"),
    row(7, "invalid_params", "invalid parameters", "they do not fit the capability's input schema"),
    row(8, "timed_out", "timed out", "no answer within `--timeout`"),
    row(9, "agent_failed", "the agent failed", "it took the call and has no result"),
    row(
        10,
        "no_identity",
        "no identity to call with",
        "no issuer at the socket, or it does not issue this identity; for an agent too, which \
         then does not start",
    ),
    row(
        11,
        "task_waits",
        "the task waits for its caller",
        "it asks something, which `convoke task input` answers, or wants its caller to sign in",
    ),
    row(
        12,
        "task_canceled",
        "the task was canceled",
        "somebody ended it, such as `convoke task cancel`",
    ),
    row(
        130,
        "interrupted",
        "interrupted",
        "Ctrl-C during the demo or while a task was followed, which goes on, or a second one while \
         an agent or the issuer was ending",
    ),
    row(143, "terminated", "terminated", "the same by SIGTERM"),
];

const fn row(number: u8, name: &'static str, meaning: &'static str, cause: &'static str) -> Row {
    Row { number, name, meaning, cause }
}

/// The table as help shows it.
pub(crate) fn help() -> String {
    let lines = TABLE.iter().map(|row| format!("\n  {:>3}  {}", row.number, row.meaning));
    format!("Exit codes:{}", lines.collect::<String>())
}

impl Code {
    /// That of a process which `signal` ended.
    pub(crate) fn of_signal(signal: EndSignal) -> Self {
        match signal {
            EndSignal::Interrupt => Self::Interrupted,
            EndSignal::Terminate => Self::Terminated,
        }
    }

    /// The name in a report as JSON.
    pub(crate) fn name(self) -> &'static str {
        let row = TABLE.iter().find(|row| row.number == self as u8);
        row.map_or("failure", |row| row.name)
    }
}

/// An error with the exit code and, where there is one, the cure.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// The call that failed, if it is about one.
    pub(crate) call: Option<Box<Made>>,
    /// Whoever read standard output has gone, such as `head`: that is an end and no error.
    pub(crate) is_seen_enough: bool,
}

/// How a call was made, which is where to look for the reason of its failure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Made {
    /// How often it was sent, or tried to be.
    pub(crate) attempts: u32,
    /// The trace that it began.
    pub(crate) trace: TraceContext,
}

impl Made {
    /// The number of the trace, as logs have it.
    pub(crate) fn trace_id(&self) -> String {
        format!("{:032x}", self.trace.trace_id())
    }
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string(), hint: None, call: None, is_seen_enough: false }
    }

    /// The file or stream `name` cannot be used, with the cure.
    pub(crate) fn of_file(code: Code, name: impl fmt::Display, error: &std::io::Error) -> Self {
        Self::new(code, format_args!("{name}: {}", system_error(error)))
    }

    /// A result cannot be written to standard output.
    pub(crate) fn of_stdout(error: &std::io::Error) -> Self {
        let is_seen_enough = error.kind() == std::io::ErrorKind::BrokenPipe;
        Self { is_seen_enough, ..Self::of_file(Code::Failure, "standard output", error) }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Code::Failure, format_args!("{error:#}"))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Code::Failure, system_error(&error))
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let (code, hint) = match &error {
            CallError::Refused(refusal) if refusal.at_handshake => (
                Code::Refused,
                "no policy was asked: the agent does not trust our certificate. `convoke doctor` \
                 says whether ours is good; compare the trust domains that each side trusts, and \
                 the clocks",
            ),
            CallError::Refused(_) => (
                Code::Refused,
                "the agent's audit log names the rule that decided; its policy has to allow this \
                 caller, or call as another with --identity",
            ),
            CallError::Failed(failed) => match failed {
                AgentCallError::Unreachable { .. } | AgentCallError::NoAddress { .. } => {
                    (Code::Unreachable, "check that the agent runs, and its address and port")
                }
                AgentCallError::CircuitOpen { .. } | AgentCallError::Busy { .. } => (
                    Code::Unreachable,
                    "the agent may be down or overloaded: see its log, and call again later",
                ),
                AgentCallError::WrongPeer { .. } => (
                    Code::WrongPeer,
                    "check --agent against the SPIFFE ID of the agent at that address; IDs are \
                     case-sensitive",
                ),
                AgentCallError::UnknownCapability { .. } => {
                    (Code::UnknownCapability, "`convoke card show` lists what the agent can do")
                }
                AgentCallError::InvalidParams { .. } => (
                    Code::InvalidParams,
                    "`convoke card show` prints the schema of the capability's parameters",
                ),
                AgentCallError::TimedOut { .. } => {
                    (Code::TimedOut, "give it longer with --timeout, or see the agent's log")
                }
                AgentCallError::Identity { .. } => (
                    Code::NoIdentity,
                    "start an issuer with `convoke identity serve`, or name its socket with --socket",
                ),
                AgentCallError::Waits { .. } => (
                    Code::TaskWaits,
                    "`convoke task input` takes an answer to it, by its caller alone",
                ),
                AgentCallError::Canceled { .. }
                | AgentCallError::Remote { .. }
                | AgentCallError::Protocol { .. } => {
                    (Code::AgentFailed, "the agent's log has the details, under the request's id")
                }
            },
        };
        Self::new(code, error).hint(hint)
    }
}

impl From<TaskError> for Failure {
    fn from(error: TaskError) -> Self {
        let code = error.code();
        let failure = match error {
            // No capability was named, so the operation stands where its name would.
            TaskError::Call(CallError::Failed(AgentCallError::UnknownCapability {
                agent,
                capability,
                message,
            })) if is_operation(&capability) => {
                let what = format_args!("{agent} has no capability by default: {message}");
                Self::new(Code::UnknownCapability, what).hint(NAME_ONE)
            }
            TaskError::Answer { ref asked, .. }
                if code == Some(FaultCode::CapabilityNotFound) && is_operation(asked) =>
            {
                Self::new(Code::UnknownCapability, chain(&error)).hint(NAME_ONE)
            }
            error if is_about(&error, "message.messageId") => {
                Self::new(Code::InvalidParams, chain(&error)).hint(RENAME)
            }
            error if is_about(&error, "pageToken") => Self::new(Code::InvalidParams, chain(&error))
                .hint("begin without --page; a page's token is good for the same list alone"),
            // What the stream broke of says more than that it did.
            TaskError::Unnamed { .. } | TaskError::Lost { .. } => {
                Self::new(Code::Unreachable, chain(&error))
            }
            TaskError::Call(error) => Self::from(error),
            TaskError::Open(error) => Self::from(error),
            other => {
                let code = match code {
                    Some(FaultCode::PermissionDenied | FaultCode::Unauthenticated) => Code::Refused,
                    Some(FaultCode::CapabilityNotFound) => Code::UnknownCapability,
                    Some(FaultCode::InvalidParams) => Code::InvalidParams,
                    _ => Code::AgentFailed,
                };
                Self::new(code, chain(&other))
            }
        };
        match code {
            Some(FaultCode::TaskNotFound) => failure.hint(
                "a task is seen by whoever made it alone: check its id, the agent and --identity",
            ),
            Some(FaultCode::TaskNotCancelable) => {
                failure.hint("it has ended; `convoke task get` shows how")
            }
            _ => failure,
        }
    }
}

/// The cure where a message has the name of another one.
pub(crate) const RENAME: &str = "give this message another --message-id, or none";

/// The cure where an agent has no capability for messages that name none.
const NAME_ONE: &str = "name one with --capability; `convoke card show` says what each takes";

fn is_operation(name: &str) -> bool {
    [OperationKind::SendMessage, OperationKind::SendStreamingMessage]
        .iter()
        .any(|kind| kind.as_str() == name)
}

/// Whether the agent says that this field of the request is wrong.
fn is_about(error: &TaskError, field: &str) -> bool {
    let violations = match error {
        TaskError::Call(CallError::Failed(AgentCallError::InvalidParams {
            violations, ..
        })) => violations,
        TaskError::Answer { source, .. } => match &**source {
            AnswerError::Fault(fault) => &fault.violations,
            _ => return false,
        },
        _ => return false,
    };
    violations.iter().any(|violation| violation.field == field)
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let (code, hint) = match &error {
            OpenError::Address(_) => {
                (Code::Usage, "write for example http://127.0.0.1:8080, or https:// and --agent")
            }
            OpenError::NotLoopback(_) => {
                (Code::Usage, "and say with --agent who is expected there")
            }
            OpenError::SpeaksTls(_) => {
                (Code::Usage, "write https:// and say with --agent who is expected there")
            }
            OpenError::Send(_) => (
                Code::Unreachable,
                "check that the agent runs, and that it was started with --dev and this port",
            ),
        };
        Self::new(code, error).hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use convoke::{CapabilityName, Refusal, SpiffeId};
    use convoke_model::Fault;

    use super::*;

    #[test]
    fn every_code_is_in_the_table() {
        let codes = [
            Code::Failure,
            Code::Usage,
            Code::Refused,
            Code::Unreachable,
            Code::WrongPeer,
            Code::UnknownCapability,
            Code::InvalidParams,
            Code::TimedOut,
            Code::AgentFailed,
            Code::NoIdentity,
            Code::TaskWaits,
            Code::TaskCanceled,
            Code::Interrupted,
            Code::Terminated,
        ];
        let numbers: Vec<u8> = codes.iter().map(|code| *code as u8).collect();
        let listed: Vec<u8> = TABLE.iter().skip(1).map(|row| row.number).collect();
        assert_eq!(numbers, listed);
        assert_eq!(Code::WrongPeer.name(), "wrong_peer");
    }

    #[test]
    fn what_the_command_line_can_mend_is_said_in_its_words() {
        let check = |mut fault: Fault, asked: &str, field: &str, hint: &str| {
            if !field.is_empty() {
                fault = Fault::invalid_field(field, "is wrong");
            }
            let source = Box::new(AnswerError::Fault(fault));
            let (asked, address) = (asked.to_owned(), "http://h".to_owned());
            let failure = Failure::from(TaskError::Answer { asked, address, source });
            assert!(failure.hint.is_some_and(|told| told.contains(hint)), "{hint}");
        };
        let unknown = || Fault::new(FaultCode::CapabilityNotFound, "this agent has: a, b");
        check(unknown(), "SendMessage", "", "--capability");
        check(unknown(), "SendMessage", "message.messageId", "--message-id");
        check(unknown(), "ListTasks", "pageToken", "--page");
        let agent = SpiffeId::parse("spiffe://example.org/worker").unwrap();
        let unnamed = AgentCallError::UnknownCapability {
            agent,
            capability: "SendMessage".into(),
            message: "it has a, b".into(),
        };
        let failure = Failure::from(TaskError::Call(unnamed.into()));
        assert_eq!(failure.code, Code::UnknownCapability);
        assert_eq!(
            failure.message,
            "spiffe://example.org/worker has no capability by default: it has a, b"
        );
        assert_eq!(failure.hint.as_deref(), Some(NAME_ONE));
    }

    #[test]
    fn only_a_refusal_by_policy_is_said_to_be_one() {
        for (at_handshake, word, other) in
            [(true, "trust domains", "audit"), (false, "audit", "trust domains")]
        {
            let failure = Failure::from(CallError::from(Refusal {
                agent: SpiffeId::parse("spiffe://example.org/worker").unwrap(),
                capability: CapabilityName::parse("count_words").unwrap(),
                message: "no".to_owned(),
                at_handshake,
            }));
            assert_eq!(failure.code, Code::Refused);
            let hint = failure.hint.unwrap();
            assert!(hint.contains(word) && !hint.contains(other), "{hint}");
        }
    }
}
