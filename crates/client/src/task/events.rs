//! The events of one stream, as they come.

use std::time::Duration;

use convoke_a2a::client::{AnswerError, EventReader, StreamItem, parse_event};
use convoke_a2a::jsonrpc::RequestIdJson;
use convoke_model::{CapabilityName, Cursor, limits};
use convoke_net::client::Streamed;
use tokio::time::Instant;

use super::TaskError;
use super::way::Way;
use crate::error;

/// How long a stream may be silent. Agents of ours give a sign four times as often; one that is
/// silent for longer has gone without a word, or something between us has.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// One event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What it says.
    pub item: StreamItem,
    /// Where its reader stands then, if the agent says so in a way that can be handed back.
    pub cursor: Option<Cursor>,
}

/// A stream of events. Dropping it ends the stream, not the task.
pub struct Events {
    way: Way,
    /// What errors call the question.
    name: CapabilityName,
    id: RequestIdJson,
    stream: Streamed,
    reader: EventReader,
    /// Until when both ends' certificates are good, where there are any.
    good_until: Option<Instant>,
    /// When the stream began, and when it gave its last sign.
    life: (Instant, Instant),
    is_over: bool,
}

/// How a stream ended that did not come to its end.
pub(super) struct Broke {
    pub(super) error: TaskError,
    /// Whether another stream may do better.
    pub(super) may_pass: bool,
}

impl Events {
    pub(super) fn new(way: Way, name: CapabilityName, id: RequestIdJson, stream: Streamed) -> Self {
        let reader = EventReader::new(limits::RESPONSE_BYTES_MAX);
        let now = Instant::now();
        let good_until = match &way {
            Way::Mesh { client, .. } => {
                let certificates = stream.peer_certificates();
                now.checked_add(convoke_identity::tls::lifetime(&client.0.source, certificates))
            }
            Way::Open(_) => None,
        };
        Self { way, name, id, stream, reader, good_until, life: (now, now), is_over: false }
    }

    /// The next event; `None` after the last. A stream may also end where its task waits for the
    /// caller, or because somebody between us ends it: whoever has not seen the task end looks again.
    ///
    /// # Errors
    ///
    /// [`TaskError`]. After one, the stream has nothing more to say.
    pub async fn next(&mut self) -> Result<Option<Event>, TaskError> {
        self.next_or_broke().await.map_err(|broke| broke.error)
    }

    pub(super) async fn next_or_broke(&mut self) -> Result<Option<Event>, Broke> {
        let next = self.read().await;
        if !matches!(next, Ok(Some(_))) {
            self.is_over = true;
        }
        next
    }

    async fn read(&mut self) -> Result<Option<Event>, Broke> {
        loop {
            if self.is_over {
                return Ok(None);
            }
            let event = self.reader.next_event().map_err(|error| self.unreadable(error))?;
            if let Some(event) = event {
                let item = match parse_event(&self.id, &event.data) {
                    Ok(item) => item,
                    Err(error) => return Err(self.of_answer(error)),
                };
                // Whatever comes behind the end is no part of it.
                self.is_over = item.is_last();
                let cursor = event.id.as_deref().and_then(|id| id.parse().ok());
                return Ok(Some(Event { item, cursor }));
            }
            match self.chunk().await? {
                Some(bytes) => {
                    self.life.1 = Instant::now();
                    self.reader.push(&bytes);
                }
                None => return Ok(None),
            }
        }
    }

    /// How long the stream has shown that it lives, be it without news.
    pub(super) fn lived(&self) -> Duration {
        self.life.1.duration_since(self.life.0)
    }

    /// The next bytes, for as long as the agent is trusted and the certificates are good.
    async fn chunk(&mut self) -> Result<Option<bytes::Bytes>, Broke> {
        // Agents of ours end a connection before its certificates do. Whoever does not is left.
        let silent = Instant::now() + SILENCE_MAX;
        let until = self.good_until.map_or(silent, |good| good.min(silent));
        if until <= Instant::now() {
            let (asked, address) = (self.name.as_str().to_owned(), self.way.address().to_owned());
            return Err(Broke { error: TaskError::Ended { asked, address }, may_pass: true });
        }
        let chunk = self.stream.chunk(until);
        match &self.way {
            Way::Mesh { client, endpoint } => {
                let at = endpoint.at(&self.name);
                let chunk = client.0.source.while_trusting(at.agent, chunk).await;
                let chunk = chunk.ok_or_else(|| Broke {
                    error: error::untrusted(at).error.into(),
                    may_pass: false,
                })?;
                chunk.map_err(|error| Broke {
                    error: error::of_send(at, &error, SILENCE_MAX).error.into(),
                    may_pass: true,
                })
            }
            Way::Open(open) => match chunk.await {
                Ok(chunk) => Ok(chunk),
                Err(error) => Err(Broke { error: open.of_send(error).await, may_pass: true }),
            },
        }
    }

    /// A fault is the last word of this stream: it says why it ends early. Anything else would come
    /// of another stream too.
    fn of_answer(&self, error: AnswerError) -> Broke {
        let may_pass = matches!(error, AnswerError::Fault(_));
        Broke { error: self.way.of_answer(&self.name, error), may_pass }
    }

    fn unreadable(&self, error: impl std::fmt::Display) -> Broke {
        Broke { error: self.way.unreadable(&self.name, error.to_string()), may_pass: false }
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("at", &self.way.address()).finish_non_exhaustive()
    }
}
