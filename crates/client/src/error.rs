//! What went wrong below, in the words of somebody who called an agent, and what follows from it.

use std::error::Error;
use std::io;
use std::time::Duration;

use convoke_a2a::client::{Answer, AnswerError, ResultError};
use convoke_agent::{AgentCallError, CallError, Refusal, WaitsFor};
use convoke_identity::tls::{PeerError, peer_error};
use convoke_model::{CapabilityName, Fault, FaultCode, SpiffeId, TaskState, chain};
use convoke_net::client::SendError;
use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};

use crate::attempts::{Again, Failed, Says};

/// Who is asked, where and for what, as errors name them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) agent: &'a SpiffeId,
    pub(crate) address: &'a str,
    pub(crate) capability: &'a CapabilityName,
}

/// The head of a response, as far as it says whether to come again.
pub(crate) struct Head<'a> {
    pub(crate) status: StatusCode,
    pub(crate) headers: &'a HeaderMap,
}

/// A request to an agent of a trust domain that is not trusted, or no longer since it was sent.
pub(crate) fn untrusted(at: At<'_>) -> Failed {
    let (expected, address) = (at.agent.clone(), at.address.to_owned());
    let cause = format!("trust domain `{}` is not trusted here", expected.trust_domain_str());
    let error = AgentCallError::WrongPeer { expected, found: None, address, cause };
    failed(error, Says::Nothing, Again::Never)
}

/// A request that got no response within `timeout`.
pub(crate) fn of_send(at: At<'_>, error: &SendError, timeout: Duration) -> Failed {
    let (agent, capability) = (at.agent.clone(), at.capability.clone());
    let again = if error.was_sent() { Again::IfIdempotent } else { Again::Always };
    match error {
        SendError::TimedOut { .. } => {
            let error = AgentCallError::TimedOut { agent, capability, after: timeout };
            // Unless it was only the attempt's time that is over, there is none for another.
            failed(error, Says::Late, again)
        }
        SendError::Tls { source, .. } => match peer_error(source) {
            Some(own @ PeerError::OwnExpired { .. }) => {
                let error = AgentCallError::Identity { agent, cause: own.to_string() };
                failed(error, Says::Nothing, Again::Never)
            }
            // Whoever it is does not prove to be the agent.
            Some(reason) => {
                let (found, cause) = match reason {
                    PeerError::WrongId { found, .. } => {
                        (Some(found.clone()), format!("it presents {found}"))
                    }
                    other => (None, chain(other)),
                };
                let address = at.address.to_owned();
                let error = AgentCallError::WrongPeer { expected: agent, found, address, cause };
                failed(error, Says::Nothing, Again::Never)
            }
            None => {
                let again = if is_passing(source) { Again::Always } else { Again::Never };
                failed(at.unreachable(of_tls(source)), Says::Fails, again)
            }
        },
        SendError::PeerRefusedUs { alert, .. } => {
            let message = format!(
                "it does not accept our certificate (tls alert {alert:?}); it may not trust our \
                 trust domain, or our certificate may have expired"
            );
            let refusal = Refusal { agent, capability, message, at_handshake: true };
            failed(refusal, Says::Works, Again::Never)
        }
        SendError::ResponseTooLarge { .. } => failed(at.protocol(error), Says::Works, Again::Never),
        SendError::AddressRefused { .. } | SendError::SchemeMismatch { .. } => {
            failed(at.unreachable(error.to_string()), Says::Nothing, Again::Never)
        }
        SendError::Resolve { source, .. } => {
            let cause = format!(
                "the host name has no address ({}); check it for typing errors",
                plain(source)
            );
            failed(at.unreachable(cause), Says::Fails, again)
        }
        SendError::Connect { source, .. } => {
            failed(at.unreachable(of_connect(source)), Says::Fails, again)
        }
        SendError::Http { source, .. } => {
            let cause = if source.is_parse() {
                "what answers there does not speak http/1.1; check the port".to_owned()
            } else if let Some(broken) = io_error(source) {
                format!("the connection broke before the answer was whole ({})", plain(broken))
            } else {
                "it closed the connection before its answer was whole; it may have been stopped: \
                 see its log"
                    .to_owned()
            };
            failed(at.unreachable(cause), Says::Fails, again)
        }
    }
}

/// A response that is no answer, or a fault.
pub(crate) fn of_answer(at: At<'_>, error: AnswerError, head: &Head<'_>) -> Failed {
    let after = head.retry_after();
    match error {
        AnswerError::Fault(fault) => {
            let (says, again) = of_code(fault.code, head, after.is_some());
            Failed { error: of_fault(at, fault), says, again, after }
        }
        AnswerError::Http { status, .. } => {
            let is_busy = head.is_busy();
            let (says, again) = match is_busy || status.is_server_error() {
                true if is_busy && after.is_some() => (Says::Fails, Again::Always),
                true => (Says::Fails, Again::IfIdempotent),
                false => (Says::Nothing, Again::Never),
            };
            Failed { error: at.protocol(chain(&error)).into(), says, again, after }
        }
        other => failed(at.protocol(chain(&other)), Says::Nothing, Again::Never),
    }
}

/// An answer that holds no result.
pub(crate) fn of_result(at: At<'_>, answer: &Answer, error: &ResultError) -> Failed {
    if let (ResultError::Waits { state, text }, Answer::Task(task)) = (error, answer) {
        let what = match state {
            TaskState::AuthRequired => WaitsFor::SignIn,
            _ => WaitsFor::Answer,
        };
        let waits = AgentCallError::Waits {
            agent: at.agent.clone(),
            capability: at.capability.clone(),
            task: task.id.clone(),
            what,
            message: text.clone(),
        };
        return failed(waits, Says::Works, Again::Never);
    }
    let message = match error {
        ResultError::Ended { text: Some(text), .. } => text.clone(),
        other => other.to_string(),
    };
    failed(at.remote(FaultCode::CapabilityFailed, message), Says::Works, Again::Never)
}

/// What a fault says of the agent, and which calls may be made again.
///
/// A fault alone proves of no call that nothing was done: an agent may find out late that it cannot
/// answer. `Retry-After` is the agent's own word that the same request may come again.
fn of_code(code: FaultCode, head: &Head<'_>, invited: bool) -> (Says, Again) {
    let is_busy = head.is_busy();
    let says = match code {
        FaultCode::Unavailable | FaultCode::Internal => Says::Fails,
        FaultCode::DeadlineExceeded => Says::Late,
        // Of the many things that there can be too much of, this status is of requests.
        FaultCode::ResourceExhausted if is_busy => Says::Fails,
        _ => Says::Works,
    };
    let again = match says {
        _ if is_busy && invited => Again::Always,
        Says::Fails | Says::Late => Again::IfIdempotent,
        Says::Works | Says::Nothing => Again::Never,
    };
    (says, again)
}

fn of_fault(at: At<'_>, fault: Fault) -> CallError {
    let (agent, capability) = (at.agent.clone(), at.capability.clone());
    match fault.code {
        FaultCode::PermissionDenied | FaultCode::Unauthenticated => {
            Refusal { agent, capability, message: fault.message, at_handshake: false }.into()
        }
        FaultCode::CapabilityNotFound => AgentCallError::UnknownCapability {
            agent,
            capability: capability.as_str().to_owned(),
            message: what_there_is(&fault).unwrap_or(fault.message),
        }
        .into(),
        FaultCode::InvalidParams => AgentCallError::InvalidParams {
            agent,
            capability,
            message: match fault.message.strip_prefix("invalid parameters: ") {
                Some(which) => which.to_owned(),
                None => fault.message,
            },
            violations: fault.violations,
        }
        .into(),
        code => at.remote(code, fault.message).into(),
    }
}

/// What an agent that lacks a capability has instead, if it says so.
fn what_there_is(fault: &Fault) -> Option<String> {
    let fact = |key: &str| {
        fault.metadata.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str())
    };
    let has = format!("it has {}", fact("capabilities")?);
    Some(match fact("didYouMean") {
        Some(name) => format!("{has}; did you mean `{name}`?"),
        None => has,
    })
}

/// Why no connection could be opened, with the cure where there is a usual one.
fn of_connect(error: &io::Error) -> String {
    let cure = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "nothing listens there: check that the agent runs, and its `server.port`"
        }
        io::ErrorKind::TimedOut => {
            "nobody answers there: the host may be down, or a firewall drops what we send"
        }
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
            "somebody is there but ends the connection: check the port, and the agent's log"
        }
        _ => "check the address, and the network on the way to it",
    };
    format!("{}; {cure}", plain(error))
}

/// Why TLS failed that is not about a certificate.
fn of_tls(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidMessage(_) => {
            "what answers there does not speak tls; check the port".to_owned()
        }
        rustls::Error::AlertReceived(alert) if is_passing(error) => format!(
            "it ended the tls handshake before it saw our certificate (tls alert {alert:?}); its own \
             identity may have expired: see its log, and whether its workload api runs"
        ),
        other => format!("tls failed: {other}"),
    }
}

/// Whether the agent, which has not seen our certificate, ended the handshake for a reason of its
/// own that may be over soon. `access_denied` is what rustls says without a certificate to present,
/// which is how agents of before spoke and how the last moment of an SVID does.
fn is_passing(error: &rustls::Error) -> bool {
    use rustls::AlertDescription::{AccessDenied, InternalError};
    matches!(error, rustls::Error::AlertReceived(InternalError | AccessDenied))
}

/// An error of the operating system in words, without its number.
fn plain(error: &io::Error) -> String {
    let text = match error.kind() {
        io::ErrorKind::TimedOut if error.get_ref().is_none() => "connection timed out".to_owned(),
        _ => error.to_string(),
    };
    let text = text.split(" (os error").next().unwrap_or_default();
    // Some libraries point to their own pages, which say nothing to somebody who called an agent.
    let text = text.split(": https://docs.rs/").next().unwrap_or_default();
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(chars).collect()
}

/// The error of the operating system inside another one.
fn io_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io);
        }
        next = error.source();
    }
    None
}

fn failed(error: impl Into<CallError>, says: Says, again: Again) -> Failed {
    Failed { error: error.into(), says, again, after: None }
}

impl Head<'_> {
    /// Whether the response says that the request was one too many, or came at a bad time.
    fn is_busy(&self) -> bool {
        matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
    }

    /// When to come again. Source: RFC 9110 §10.2.3; of its two forms we read the seconds, and take
    /// a date as an invitation for any time. Anything else invites nobody: that a call may be made
    /// twice is not to be guessed from a word that cannot be read.
    fn retry_after(&self) -> Option<Duration> {
        let mut values = self.headers.get_all(RETRY_AFTER).iter();
        let text = values.next()?.to_str().ok()?;
        if values.next().is_some() || text.is_empty() {
            return None;
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            // More than fits is longer than anybody waits.
            return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
        }
        is_http_date(text).then_some(Duration::ZERO)
    }
}

/// Whether `text` has the shape of a date as HTTP writes it: `Sun, 06 Nov 1994 08:49:37 GMT`.
/// Source: RFC 9110 §5.6.7; the two obsolete forms are those of nobody who answers us.
fn is_http_date(text: &str) -> bool {
    const SHAPE: &[u8] = b"aaa, 00 aaa 0000 00:00:00 GMT";
    text.len() == SHAPE.len()
        && text.bytes().zip(SHAPE).all(|(byte, shape)| match shape {
            b'a' => byte.is_ascii_alphabetic(),
            b'0' => byte.is_ascii_digit(),
            exact => byte == *exact,
        })
}

impl At<'_> {
    pub(crate) fn protocol(self, cause: impl std::fmt::Display) -> AgentCallError {
        AgentCallError::Protocol {
            agent: self.agent.clone(),
            capability: self.capability.clone(),
            cause: cause.to_string(),
        }
    }

    fn unreachable(self, cause: String) -> AgentCallError {
        let (agent, address) = (self.agent.clone(), self.address.to_owned());
        AgentCallError::Unreachable { agent, address, cause }
    }

    fn remote(self, code: FaultCode, message: String) -> AgentCallError {
        let (agent, capability) = (self.agent.clone(), self.capability.clone());
        AgentCallError::Remote { agent, capability, code, message }
    }
}

#[cfg(test)]
mod tests {
    use convoke_net::client::{Address, Provenance};

    use super::*;

    fn check(error: &SendError, expected: &str, says: Says, again: Again) {
        let agent = SpiffeId::parse("spiffe://example.org/worker").unwrap();
        let capability = CapabilityName::parse("count_words").unwrap();
        let at = At { agent: &agent, address: "https://localhost:8443", capability: &capability };
        let failed = of_send(at, error, Duration::from_secs(30));
        assert_eq!(failed.error.to_string(), expected);
        assert_eq!((failed.says, failed.again), (says, again), "{expected}");
    }

    fn address() -> Address {
        Address::parse("https://localhost:8443", Provenance::Operator).unwrap()
    }

    #[test]
    fn who_cannot_be_reached_is_named_with_cause_and_cure() {
        let there = "cannot reach spiffe://example.org/worker at https://localhost:8443: ";
        let connect = |source, expected: &str| {
            let error = SendError::Connect { address: address(), source };
            check(&error, &format!("{there}{expected}"), Says::Fails, Again::Always);
        };
        // 111 and 113 are ECONNREFUSED and EHOSTUNREACH.
        connect(
            io::Error::from_raw_os_error(111),
            "connection refused; nothing listens there: check that the agent runs, and its \
             `server.port`",
        );
        connect(
            io::Error::from_raw_os_error(113),
            "no route to host; check the address, and the network on the way to it",
        );
        connect(
            io::ErrorKind::TimedOut.into(),
            "connection timed out; nobody answers there: the host may be down, or a firewall drops \
             what we send",
        );
        connect(
            io::Error::new(io::ErrorKind::TimedOut, "tls handshake took too long"),
            "tls handshake took too long; nobody answers there: the host may be down, or a \
             firewall drops what we send",
        );
        connect(
            io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof"),
            "tls handshake eof; somebody is there but ends the connection: check the port, and the \
             agent's log",
        );
        let source = io::Error::other("failed to lookup address information");
        check(
            &SendError::Resolve { address: address(), source },
            &format!(
                "{there}the host name has no address (failed to lookup address information); \
                 check it for typing errors"
            ),
            Says::Fails,
            Again::Always,
        );
        check(
            &SendError::Tls {
                address: address(),
                source: rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType),
            },
            &format!("{there}what answers there does not speak tls; check the port"),
            Says::Fails,
            Again::Never,
        );
        for (alert, name) in [
            (rustls::AlertDescription::InternalError, "InternalError"),
            (rustls::AlertDescription::AccessDenied, "AccessDenied"),
        ] {
            check(
                &SendError::Tls { address: address(), source: rustls::Error::AlertReceived(alert) },
                &format!(
                    "{there}it ended the tls handshake before it saw our certificate (tls alert \
                     {name}); its own identity may have expired: see its log, and whether its \
                     workload api runs"
                ),
                Says::Fails,
                Again::Always,
            );
        }
        let source = rustls::Error::AlertReceived(rustls::AlertDescription::ProtocolVersion);
        check(
            &SendError::Tls { address: address(), source },
            &format!("{there}tls failed: received fatal alert: ProtocolVersion"),
            Says::Fails,
            Again::Never,
        );
    }

    #[test]
    fn only_a_time_that_can_be_read_invites_to_come_again() {
        let check = |values: &[&str], again: Again, after: Option<Duration>| {
            let agent = SpiffeId::parse("spiffe://example.org/worker").unwrap();
            let capability = CapabilityName::parse("count_words").unwrap();
            let at = At { agent: &agent, address: "https://h", capability: &capability };
            let mut headers = HeaderMap::new();
            for value in values {
                let value = http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
                headers.append(RETRY_AFTER, value);
            }
            let head = Head { status: StatusCode::SERVICE_UNAVAILABLE, headers: &headers };
            let fault = AnswerError::Fault(Fault::new(FaultCode::Unavailable, "busy"));
            let http = AnswerError::Http { status: head.status, excerpt: String::new() };
            for error in [fault, http] {
                let failed = of_answer(at, error, &head);
                assert_eq!((failed.again, failed.after), (again, after), "{values:?}");
            }
        };
        check(&["2"], Again::Always, Some(Duration::from_secs(2)));
        check(&["99999999999999999999"], Again::Always, Some(Duration::from_secs(u64::MAX)));
        check(&["Sun, 06 Nov 1994 08:49:37 GMT"], Again::Always, Some(Duration::ZERO));
        for unread in [
            "",
            "-1",
            "1.5",
            "soon",
            "+1",
            "2 ",
            "é",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 06 Nov 1994",
        ] {
            check(&[unread], Again::IfIdempotent, None);
        }
        check(&["1", "2"], Again::IfIdempotent, None);
        check(&[], Again::IfIdempotent, None);
    }

    #[test]
    fn a_task_that_waits_is_named_so_that_it_can_be_answered() {
        let agent = SpiffeId::parse("spiffe://example.org/worker").unwrap();
        let capability = CapabilityName::parse("count_words").unwrap();
        let at = At { agent: &agent, address: "https://h", capability: &capability };
        for (state, expected) in [
            (TaskState::InputRequired, WaitsFor::Answer),
            (TaskState::AuthRequired, WaitsFor::SignIn),
        ] {
            let answer = Answer::Task(convoke_model::Task {
                id: convoke_model::TaskId::parse("t").unwrap(),
                context_id: convoke_model::ContextId::parse("c").unwrap(),
                status: convoke_model::TaskStatus {
                    state,
                    message: None,
                    timestamp: convoke_model::UnixMillis(0),
                },
                artifacts: Vec::new(),
                history: Vec::new(),
                metadata: None,
            });
            let error = convoke_a2a::client::result_of(&answer).unwrap_err();
            let failed = of_result(at, &answer, &error);
            assert_eq!((failed.says, failed.again), (Says::Works, Again::Never));
            match failed.error {
                CallError::Failed(AgentCallError::Waits { task, what, .. }) => {
                    assert_eq!((task.as_str(), what), ("t", expected));
                }
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn what_may_have_arrived_is_not_safe_to_send_again() {
        for (sent, again) in [(false, Again::Always), (true, Again::IfIdempotent)] {
            check(
                &SendError::TimedOut { address: address(), sent },
                "spiffe://example.org/worker did not answer `count_words` within 30s",
                Says::Late,
                again,
            );
        }
        check(
            &SendError::ResponseTooLarge { address: address(), max: 8 },
            "spiffe://example.org/worker gave an answer to `count_words` that cannot be read: the \
             response of https://localhost:8443 is larger than 8 bytes",
            Says::Works,
            Again::Never,
        );
    }
}
