//! `convoke call`: one capability, one answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use convoke::identity::{IdentityError, IdentitySource, WorkloadApiConfig};
use convoke::{
    AgentCallError, CallError, CallEvent, CallObserver, CallSettings, CallTarget, CapabilityName,
    Client, SpiffeId, TrustDomain, WaitsFor, chain,
};
use convoke_model::{TaskId, TraceContext};
use uuid::Uuid;

use crate::args::{AsWho, Call};
use crate::exit::{Code, Failure, Made};
use crate::task::{self, At};
use crate::{input, login, paint, progress};

pub(crate) async fn run(options: Call) -> Result<(), Failure> {
    // What is wrong on the command line is said before anything is asked of the network.
    let params = input::params(&options.params)?;
    CapabilityName::parse(&options.capability).map_err(|error| {
        Failure::new(Code::Usage, format_args!("--capability `{}` {error}", options.capability))
    })?;
    check_address(&options.address)?;
    let attempts = Arc::new(Attempts::default());
    let watch = Some(Arc::clone(&attempts) as _);
    let client = connect_watched(&options.as_who, Some(&options.agent), None, watch).await?;
    let at = At::new(Some(&options.agent), &options.as_who, &options.address);
    let trace = new_trace();
    let call = client
        .call(&options.agent, &options.capability, params)
        .address(options.address)
        .timeout(options.timeout)
        .trace(trace);
    let call = if options.idempotent { call.idempotent() } else { call };
    let answer = call.json().await.map_err(|error| {
        let made = Made { attempts: attempts.0.load(Ordering::Relaxed), trace };
        let hint = match &error {
            CallError::Failed(AgentCallError::Waits { task, what, .. }) => {
                Some(go_on(&at, task, *what))
            }
            _ => None,
        };
        let failure = Failure { call: Some(Box::new(made)), ..Failure::from(error) };
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })?;
    paint::result(&answer, options.output)
}

/// How the task goes on that a call became.
fn go_on(at: &At, task: &TaskId, waits_for: WaitsFor) -> String {
    let (at, task) = (at.options(), task::quoted(task.as_str()));
    match waits_for {
        WaitsFor::Answer => format!("answer it with\nconvoke task input {at} {task} 'ANSWER'"),
        WaitsFor::SignIn => {
            format!("once you have signed in, go on with\nconvoke task input {at} {task} done")
        }
    }
}

/// How often a call was made so far.
#[derive(Default)]
struct Attempts(AtomicU32);

impl CallObserver for Attempts {
    fn observe(&self, to: CallTarget<'_>, event: CallEvent<'_>) {
        match event {
            CallEvent::Attempted { number, .. } => self.0.store(number, Ordering::Relaxed),
            CallEvent::Retrying { .. } => {
                let next = self.0.load(Ordering::Relaxed) + 1;
                progress::label(format!("{} at {}, attempt {next}", to.agent, to.address));
            }
            _ => {}
        }
    }
}

/// A trace that begins with a person, and is recorded: whoever asks by hand wants to be able to
/// look.
fn new_trace() -> TraceContext {
    let (span_id, _) = Uuid::new_v4().as_u64_pair();
    TraceContext::root(Uuid::new_v4().as_u128(), span_id, true)
}

/// Refuses an address that no agent can have before anybody is asked.
pub(crate) fn check_address(address: &str) -> Result<(), Failure> {
    convoke::check_address(address).map_err(|error| {
        Failure::new(Code::Usage, error).hint("write for example https://localhost:8443")
    })
}

/// A client with the identity that the command line asks for, or that of the person.
pub(crate) async fn connect(
    as_who: &AsWho,
    callee: Option<&SpiffeId>,
    domain: Option<&TrustDomain>,
) -> Result<Client, Failure> {
    connect_watched(as_who, callee, domain, None).await
}

/// As [`connect`], with somebody who hears of what happens to the calls.
async fn connect_watched(
    as_who: &AsWho,
    callee: Option<&SpiffeId>,
    domain: Option<&TrustDomain>,
    observer: Option<Arc<dyn CallObserver>>,
) -> Result<Client, Failure> {
    let socket = as_who.socket.strip_prefix("unix://").unwrap_or(&as_who.socket);
    let mut api = WorkloadApiConfig::new(socket.into(), identity(as_who, callee, domain)?);
    api.issuer_uid = as_who.issuer_uid;
    let source = IdentitySource::connect(api).await.map_err(|error| {
        let failure = Failure::new(Code::NoIdentity, chain(&error));
        // Whom nobody named, nobody understands to be missing.
        let is_unissued = matches!(
            error,
            IdentityError::NothingIssued { .. }
                | IdentityError::EnrollingEnded { .. }
                | IdentityError::NotAmongIssued { .. }
                | IdentityError::TrustDomainMismatch { .. }
        );
        match as_who.identity {
            None if is_unissued => failure.hint(
                "without --identity you call as the user of this machine in the trust domain \
                     of the agent; to call as another, give --identity spiffe://…",
            ),
            _ => failure,
        }
    })?;
    Ok(Client::new(Arc::new(source), CallSettings::default(), observer))
}

/// Whom the command calls as: `--identity`, or the person within the trust domain.
pub(crate) fn identity(
    as_who: &AsWho,
    callee: Option<&SpiffeId>,
    domain: Option<&TrustDomain>,
) -> Result<SpiffeId, Failure> {
    if let Some(identity) = &as_who.identity {
        return Ok(identity.clone());
    }
    match domain.cloned().or_else(|| callee.map(SpiffeId::trust_domain)) {
        Some(domain) => login::default_identity(&domain),
        None => Err(Failure::new(Code::Usage, "whose trust domain is unknown")
            .hint("name the agent with --agent, or yourself with --identity")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    #[test]
    fn a_call_that_asks_says_how_it_is_answered() {
        let agent = "spiffe://example.org/a";
        let line = ["convoke", "call", "--agent", agent, "--address", "https://h", "--capability"];
        let line = line.into_iter().chain(["c", "--params", "{}", "--socket", "/s"]);
        let Ok(Cli { command: Command::Call(options), .. }) = Cli::try_parse_from(line) else {
            panic!("no call");
        };
        let at = At::new(Some(&options.agent), &options.as_who, &options.address);
        let task = TaskId::parse("t;1").unwrap();
        for (what, expected) in
            [(WaitsFor::Answer, "'t;1' 'ANSWER'"), (WaitsFor::SignIn, "'t;1' done")]
        {
            let hint = go_on(&at, &task, what);
            let command = hint.lines().last().unwrap();
            assert!(command.starts_with("convoke task input --agent spiffe://example.org/a "));
            assert!(
                command.contains(" --address https://h ") && command.ends_with(expected),
                "{hint}"
            );
        }
        let waits = AgentCallError::Waits {
            agent: options.agent,
            capability: CapabilityName::parse("c").unwrap(),
            task,
            what: WaitsFor::Answer,
            message: Some("which one?".into()),
        };
        let failure = Failure::from(CallError::from(waits));
        assert_eq!(failure.code, Code::TaskWaits);
        assert!(failure.message.ends_with("it is task `t;1`: which one?"), "{}", failure.message);
    }
}
