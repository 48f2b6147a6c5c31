//! `convoke card show`: what an agent says of itself.

use convoke::{Json, SpiffeId, open};

use crate::args::{AsWho, CardShow};
use crate::exit::{Code, Failure};
use crate::{call, paint};

pub(crate) async fn show(options: CardShow) -> Result<(), Failure> {
    let path = "/.well-known/agent-card.json";
    let answer = get(&options.address, options.agent.as_ref(), &options.as_who, path).await?;
    if answer.status != 200 {
        return Err(Failure::new(
            Code::AgentFailed,
            format_args!("{} answers {} instead of a card", options.address, answer.status),
        ));
    }
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
    let (status, body) = if address.starts_with("http://") {
        open::get(address, path).await?
    } else {
        let agent = agent.ok_or_else(|| {
            Failure::new(Code::Usage, "who is expected at an https address has to be said")
                .hint("add --agent spiffe://…; anybody else who answers there is refused")
        })?;
        call::connect(as_who, Some(agent), None).await?.get(agent, address, path).await?
    };
    let json = std::str::from_utf8(&body).ok().and_then(|text| Json::parse(text).ok());
    let json = json.ok_or_else(|| {
        Failure::new(
            Code::AgentFailed,
            format_args!("{address}{path} answers {status} without JSON"),
        )
        .hint("is this an A2A agent?")
    })?;
    Ok(Answer { status, json })
}
