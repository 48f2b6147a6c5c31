//! The agent's card, made once from what it can do.

use convoke_a2a::card::{CardError, Description, Document, Skill};
use convoke_agent::{AgentConfig, Host};
use convoke_model::{Json, JsonError, UnixMillis};
use convoke_net::server::ResponseBody;
use http::{HeaderMap, Response};

/// The card as every listener of the agent answers it.
pub(crate) struct CardReply(Document);

/// Why an agent has no card.
#[derive(Debug, thiserror::Error)]
pub enum AgentCardError {
    /// A schema of a capability does not serialize.
    #[error("the schemas of the capabilities make no card")]
    Schema(#[from] JsonError),
    /// The card is not one that a client would read.
    #[error(transparent)]
    Card(#[from] CardError),
}

impl CardReply {
    /// Writes the card of the agent that `host` holds and that is called at `url`.
    pub(crate) fn new(
        agent: &AgentConfig,
        host: &Host,
        url: String,
        since: UnixMillis,
    ) -> Result<Self, AgentCardError> {
        let skills = host.capabilities().iter().map(|capability| {
            Ok(Skill {
                name: capability.name.clone(),
                description: capability.description.clone(),
                tags: capability.tags.clone(),
                input_schema: Json::of(&capability.input_schema)?,
                output_schema: capability.output_schema.as_ref().map(Json::of).transpose()?,
                ephemeral: capability.ephemeral,
            })
        });
        let description = Description {
            name: agent.metadata.name.clone(),
            description: agent.metadata.description.clone(),
            version: agent.metadata.version.clone(),
            urls: vec![url],
            mutual_tls: true,
            skills: skills.collect::<Result<_, JsonError>>()?,
        };
        Ok(Self(Document::new(&description, since)?))
    }

    pub(crate) fn answer(&self, request: &HeaderMap) -> Response<ResponseBody> {
        self.0.answer(request).map(ResponseBody::from)
    }
}
