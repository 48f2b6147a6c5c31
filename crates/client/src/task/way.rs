//! The way to an agent: as a member of the mesh, or to a development listener.

use std::sync::Arc;

use bytes::Bytes;
use convoke_a2a::client::{AnswerError, is_event_stream, parse_response};
use convoke_a2a::jsonrpc::RequestIdJson;
use convoke_agent::CallSettings;
use convoke_model::CapabilityName;
use convoke_net::client::{Dialer, Pool, PoolLimits, Response, Route, SendError, Streamed, open};
use http::{HeaderMap, StatusCode, Uri};
use tokio::time::Instant;

use super::{Events, TaskError};
use crate::Client;
use crate::attempts::{Again, Call, Failed, Says};
use crate::call::{deadline_after, request};
use crate::endpoint::Endpoint;
use crate::error::{self, Head};
use crate::open::{self as plain, OpenError};

/// How to get to an agent.
#[derive(Clone)]
pub(super) enum Way {
    /// Both sides prove who they are.
    Mesh { client: Client, endpoint: Arc<Endpoint> },
    /// Nobody proves anything, so it leads to this machine alone.
    Open(Arc<Open>),
}

/// A development listener.
pub(super) struct Open {
    address: String,
    route: Route,
    pool: Pool,
}

/// How often a stream is asked for, and under whose rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// As a call is made: again where that may help, and not while the agent is left alone.
    First,
    /// Once, by somebody who follows on. That is no new load, so it neither counts against the agent
    /// nor waits for those whose calls did: the pauses between such attempts are the follower's own.
    Again,
}

/// One question.
pub(super) struct Ask {
    /// What errors call it.
    pub(super) name: CapabilityName,
    /// Whether asking twice is as good as asking once.
    pub(super) idempotent: bool,
    pub(super) id: RequestIdJson,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Way {
    pub(super) fn open(address: &str) -> Result<Self, OpenError> {
        let route = plain::route(address)?;
        let pool = Pool::new(Dialer::default(), PoolLimits::default());
        Ok(Self::Open(Arc::new(Open { address: address.to_owned(), route, pool })))
    }

    /// The address as errors show it.
    pub(super) fn address(&self) -> &str {
        match self {
            Self::Mesh { endpoint, .. } => &endpoint.shown,
            Self::Open(open) => &open.address,
        }
    }

    /// Asks, and has `read` read the answer.
    pub(super) async fn ask<T>(
        &self,
        calls: &CallSettings,
        ask: Ask,
        read: impl Fn(&RequestIdJson, StatusCode, &HeaderMap, &[u8]) -> Result<T, AnswerError>,
    ) -> Result<T, TaskError> {
        let deadline = deadline_after(calls.timeout);
        let sent = (&ask.headers, &ask.body);
        match self {
            Self::Mesh { client, endpoint } => {
                let about = ask.about(endpoint, calls, deadline);
                let at = endpoint.at(&ask.name);
                let read = |head: &Head<'_>, body: &[u8]| {
                    read(&ask.id, head.status, head.headers, body)
                        .map_err(|error| error::of_answer(at, error, head))
                };
                let answer = client.exchange(endpoint, &about, calls.timeout, sent, read);
                Ok(Box::pin(answer).await?)
            }
            Self::Open(open) => {
                let left = Some(calls.timeout);
                let request = request(&open.path()?, sent.0, sent.1, left, None);
                let response = match open.pool.send(&open.route, request, deadline).await {
                    Ok(response) => response,
                    Err(error) => return Err(open.of_send(error).await),
                };
                let answer = read(&ask.id, response.status(), response.headers(), response.body());
                answer.map_err(|error| self.of_answer(&ask.name, error))
            }
        }
    }

    /// Asks for a stream. It has to begin within the calls' timeout, and may go on for as long as it
    /// likes.
    pub(super) async fn follow(
        &self,
        calls: &CallSettings,
        ask: Ask,
        opening: Opening,
    ) -> Result<Events, TaskError> {
        let deadline = deadline_after(calls.timeout);
        let sent = (&ask.headers, &ask.body);
        let stream = match self {
            Self::Mesh { client, endpoint } => {
                let about = &ask.about(endpoint, calls, deadline);
                let at = endpoint.at(&ask.name);
                let path: Uri = endpoint
                    .address
                    .path()
                    .parse()
                    .map_err(|error| TaskError::Call(at.protocol(error).into()))?;
                let (path, ask) = (&path, &ask);
                let attempt = |span| async move {
                    let begun = Instant::now();
                    let until = about.attempt_until(begun);
                    let left = until.saturating_duration_since(begun);
                    let source = &client.0.source;
                    let route = endpoint.route(source);
                    let request = request(path, sent.0, sent.1, None, span);
                    let begins = begin(&route, request, until);
                    let begun = source.while_trusting(at.agent, begins).await;
                    let begun = begun.ok_or_else(|| error::untrusted(at))?;
                    match begun.map_err(|error| error::of_send(at, &error, left))? {
                        Begun::Stream(stream) => Ok(stream),
                        Begun::Answer(response) => {
                            let (status, headers) = (response.status(), response.headers());
                            match parse_response(&ask.id, status, headers, response.body()) {
                                Err(error) => {
                                    Err(error::of_answer(at, error, &Head { status, headers }))
                                }
                                Ok(_) => Err(Failed {
                                    error: at.protocol(NO_STREAM).into(),
                                    says: Says::Works,
                                    again: Again::Never,
                                    after: None,
                                }),
                            }
                        }
                    }
                };
                match opening {
                    Opening::First => {
                        let run = client.0.attempts.run(&endpoint.gate, about, attempt);
                        Box::pin(run).await?
                    }
                    Opening::Again => {
                        Box::pin(attempt(None)).await.map_err(|failed| failed.error)?
                    }
                }
            }
            Self::Open(open) => {
                let request = request(&open.path()?, sent.0, sent.1, None, None);
                match begin(&open.route, request, deadline).await {
                    Err(error) => return Err(open.of_send(error).await),
                    Ok(Begun::Stream(stream)) => stream,
                    Ok(Begun::Answer(response)) => {
                        let (status, headers) = (response.status(), response.headers());
                        let answer = parse_response(&ask.id, status, headers, response.body());
                        return Err(match answer {
                            Err(error) => self.of_answer(&ask.name, error),
                            Ok(_) => self.unreadable(&ask.name, NO_STREAM.to_owned()),
                        });
                    }
                }
            }
        };
        Ok(Events::new(self.clone(), ask.name, ask.id, stream))
    }

    /// What an answer that is none comes to, in words of a caller.
    pub(super) fn of_answer(&self, name: &CapabilityName, error: AnswerError) -> TaskError {
        match self {
            Self::Mesh { endpoint, .. } => {
                let head = Head { status: StatusCode::OK, headers: &HeaderMap::new() };
                error::of_answer(endpoint.at(name), error, &head).error.into()
            }
            Self::Open(open) => TaskError::Answer {
                asked: name.as_str().to_owned(),
                address: open.address.clone(),
                source: Box::new(error),
            },
        }
    }

    /// An answer that does not fit its question.
    pub(super) fn unreadable(&self, name: &CapabilityName, cause: String) -> TaskError {
        TaskError::Unreadable {
            asked: name.as_str().to_owned(),
            address: self.address().to_owned(),
            cause,
        }
    }
}

/// What is wrong with a plain answer where a stream was asked for.
const NO_STREAM: &str = "it is no stream of events";

/// How the answer to a question for a stream begins.
enum Begun {
    Stream(Streamed),
    /// What is refused is answered plainly.
    Answer(Response),
}

async fn begin(
    route: &Route,
    request: http::Request<http_body_util::Full<Bytes>>,
    deadline: Instant,
) -> Result<Begun, SendError> {
    let stream = open(&Dialer::default(), route, request, deadline).await?;
    if stream.head().status.is_success() && is_event_stream(&stream.head().headers) {
        Ok(Begun::Stream(stream))
    } else {
        stream.whole(deadline).await.map(Begun::Answer)
    }
}

impl Ask {
    fn about<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        settings: &'a CallSettings,
        deadline: Instant,
    ) -> Call<'a> {
        Call {
            agent: &endpoint.agent,
            address: &endpoint.shown,
            capability: &self.name,
            settings,
            idempotent: self.idempotent,
            trace: None,
            deadline,
        }
    }
}

impl Open {
    fn path(&self) -> Result<Uri, OpenError> {
        let path = self.route.address.path();
        let none = || OpenError::Address(crate::AddressError::Path(path.into()));
        path.parse().map_err(|_| none())
    }

    pub(super) async fn of_send(&self, error: SendError) -> TaskError {
        plain::of_send(&self.route, &self.address, error).await.into()
    }
}
