//! One call, from its parameters to its result.

use std::time::Duration;

use convoke_a2a::client::{build_send, parse_response, result_of};
use convoke_a2a::jsonrpc::RequestIdJson;
use convoke_agent::{AgentCallError, CallError, CallSettings, OutboundCall};
use convoke_model::{CapabilityName, Json, MessageId, RequestId, SpiffeId, limits};
use convoke_net::client::{Address, Provenance};
use http::{Method, Request};
use http_body_util::Full;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use uuid::Uuid;

use crate::{Client, error};

/// A call that has not been sent yet.
#[must_use = "a call is sent when `json` or `into` is awaited"]
pub struct ClientCall {
    client: Client,
    agent: SpiffeId,
    capability: String,
    params: Result<Json, String>,
    address: Option<String>,
    timeout: Duration,
}

/// Who is called and where, with the names that errors need.
pub(crate) struct Destination {
    pub(crate) agent: SpiffeId,
    pub(crate) address: Address,
    pub(crate) capability: CapabilityName,
}

impl ClientCall {
    pub(crate) fn new(
        client: Client,
        agent: SpiffeId,
        capability: &str,
        params: &impl Serialize,
    ) -> Self {
        Self {
            client,
            agent,
            capability: capability.to_owned(),
            params: Json::of(params).map_err(|error| error.to_string()),
            address: None,
            timeout: limits::CALL_TIMEOUT_DEFAULT,
        }
    }

    /// Where the agent is, as an `https` URL.
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// How long to wait for the answer; 30 s if nobody says.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends the call and waits for its result, as the JSON that the agent wrote.
    ///
    /// # Errors
    ///
    /// [`CallError`]: refused, or failed and how.
    pub async fn json(self) -> Result<Json, CallError> {
        let agent = self.agent;
        let capability = CapabilityName::parse(&self.capability).map_err(|error| {
            AgentCallError::UnknownCapability {
                agent: agent.clone(),
                capability: self.capability.clone(),
                message: format!("the name {error}"),
            }
        })?;
        let address =
            self.address.ok_or_else(|| AgentCallError::NoAddress { agent: agent.clone() })?;
        let params = self.params.map_err(|cause| AgentCallError::InvalidParams {
            agent: agent.clone(),
            capability: capability.clone(),
            message: cause,
            violations: Vec::new(),
        })?;
        let timeout = self.timeout;
        let request_id = RequestId::parse(&Uuid::new_v4().to_string())
            .unwrap_or_else(|_| unreachable!("a UUID is within an id's bounds"));
        let call = OutboundCall {
            agent,
            address,
            capability,
            params,
            timeout,
            settings: CallSettings { timeout, ..CallSettings::default() },
            request_id,
            context_id: None,
            trace: None,
            idempotent: false,
        };
        self.client.perform(call).await
    }

    /// As [`Self::json`], read as a `T`.
    ///
    /// # Errors
    ///
    /// As [`Self::json`]; [`AgentCallError::Protocol`] if the result is no `T`.
    pub async fn into<T: DeserializeOwned>(self) -> Result<T, CallError> {
        let (agent, capability) = (self.agent.clone(), self.capability.clone());
        let json = self.json().await?;
        json.to().map_err(|error| {
            let cause = format!("the result has another shape than expected: {error}");
            match CapabilityName::parse(&capability) {
                Ok(capability) => AgentCallError::Protocol { agent, capability, cause },
                Err(_) => AgentCallError::UnknownCapability { agent, capability, message: cause },
            }
            .into()
        })
    }
}

impl Client {
    /// Makes one call and waits for its result.
    ///
    /// Nothing that may have arrived is sent twice.
    ///
    /// # Errors
    ///
    /// [`CallError`]: refused, or failed and how.
    pub async fn perform(&self, call: OutboundCall) -> Result<Json, CallError> {
        let OutboundCall { agent, address, capability, params, timeout, .. } = call;
        let at = Destination::of_call(agent, &address, capability)?;
        // Random, so that no agent can tell from one call how many others were made.
        let name = Uuid::new_v4().to_string();
        let id = RequestIdJson::string(&name);
        let message_id = MessageId::parse(&name).map_err(|error| at.protocol(error))?;
        let (headers, body) = build_send(Some(&at.capability), &params, &message_id, &id);
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = at.address.path().parse().map_err(|error| at.protocol(error))?;
        *request.headers_mut() = headers;

        let deadline = Instant::now() + timeout;
        let response = self.0.pool.send(&self.route(&at)?, request, deadline).await;
        let response = response.map_err(|error| error::of_send(&at, error, timeout))?;
        let answer = parse_response(&id, response.status(), response.headers(), response.body())
            .map_err(|error| error::of_answer(&at, error))?;
        result_of(&answer).map_err(|error| error::of_result(&at, &error))
    }
}

impl Destination {
    fn of_call(
        agent: SpiffeId,
        address: &str,
        capability: CapabilityName,
    ) -> Result<Self, CallError> {
        // Addresses come from configuration and the command line alone.
        match Address::parse(address, Provenance::Operator) {
            Ok(address) => Ok(Self { agent, address, capability }),
            Err(error) => Err(AgentCallError::Unreachable {
                agent,
                address: address.to_owned(),
                cause: error.to_string(),
            }
            .into()),
        }
    }

    /// The destination of a question that is no call; `path` stands where errors name what was
    /// asked.
    pub(crate) fn new(agent: SpiffeId, address: &str, path: &str) -> Result<Self, CallError> {
        let name = if path.contains("card") { "card" } else { "health" };
        let capability = CapabilityName::parse(name)
            .unwrap_or_else(|_| unreachable!("both names are within the grammar"));
        Self::of_call(agent, address, capability)
    }

    pub(crate) fn protocol(&self, cause: impl std::fmt::Display) -> CallError {
        AgentCallError::Protocol {
            agent: self.agent.clone(),
            capability: self.capability.clone(),
            cause: cause.to_string(),
        }
        .into()
    }
}
