//! `convoke call`: one capability, one answer.

use convoke::{CallSettings, CapabilityName, Client, ClientOptions, SpiffeId, TrustDomain, chain};

use crate::args::{AsWho, Call};
use crate::exit::{Code, Failure};
use crate::{input, login, paint};

pub(crate) async fn run(options: Call) -> Result<(), Failure> {
    // What is wrong on the command line is said before anything is asked of the network.
    let params = input::params(&options.params)?;
    CapabilityName::parse(&options.capability).map_err(|error| {
        Failure::new(Code::Usage, format_args!("--capability `{}` {error}", options.capability))
    })?;
    check_address(&options.address)?;
    let client = connect(&options.as_who, Some(&options.agent), None).await?;
    let call = client
        .call(&options.agent, &options.capability, params)
        .address(options.address)
        .timeout(options.timeout);
    let call = if options.idempotent { call.idempotent() } else { call };
    let answer = call.json().await?;
    paint::result(&answer, options.output)
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
    let client = ClientOptions {
        identity: identity(as_who, callee, domain)?,
        socket: as_who.socket.strip_prefix("unix://").unwrap_or(&as_who.socket).into(),
        issuer_uid: as_who.issuer_uid,
        calls: CallSettings::default(),
    };
    Client::connect(client).await.map_err(|error| Failure::new(Code::NoIdentity, chain(&error)))
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
