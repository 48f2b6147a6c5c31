//! `convoke card show`: what an agent says of itself.

use convoke::{Json, SpiffeId, chain, open};
use convoke_a2a::card::{Card, WELL_KNOWN_PATH};
use convoke_a2a::{ScanLimits, scan};

use crate::args::{AsWho, CardShow};
use crate::exit::{Code, Failure};
use crate::{call, paint};

pub(crate) async fn show(options: CardShow) -> Result<(), Failure> {
    let answer =
        get(&options.address, options.agent.as_ref(), &options.as_who, WELL_KNOWN_PATH).await?;
    if answer.status != 200 {
        return Err(Failure::new(
            Code::AgentFailed,
            format_args!("{} answers {} instead of a card", options.address, answer.status),
        ));
    }
    Card::read(answer.json.get().as_bytes()).map_err(|error| {
        let text = format!(
            "{} answers with JSON that is no agent card: {}",
            options.address,
            chain(&error)
        );
        Failure::new(Code::AgentFailed, text).hint("is this an A2A agent?")
    })?;
    paint::result(&answer.json, options.output)
}

/// What came back from one of the routes that every agent answers openly.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) json: Json,
}

/// Asks for `path` at an agent: with mutual TLS for https, plainly for http on this machine.
pub(crate) async fn get(
    address: &str,
    agent: Option<&SpiffeId>,
    as_who: &AsWho,
    path: &str,
) -> Result<Answer, Failure> {
    let address = address.strip_suffix('/').unwrap_or(address);
    let (status, body) = if address.starts_with("http://") {
        open::get(address, path).await?
    } else {
        let agent = agent.ok_or_else(|| {
            Failure::new(Code::Usage, "who is expected at an https address has to be said")
                .hint("add --agent spiffe://…; anybody else who answers there is refused")
        })?;
        call::check_address(address)?;
        call::connect(as_who, Some(agent), None).await?.get(agent, address, path).await?
    };
    let json = scan(&body, &ScanLimits::CARD).ok().and_then(|text| Json::parse(text).ok());
    let json = json.ok_or_else(|| {
        Failure::new(
            Code::AgentFailed,
            format_args!("{address}{path} answers {status} without JSON"),
        )
        .hint("is this an A2A agent?")
    })?;
    Ok(Answer { status, json })
}
