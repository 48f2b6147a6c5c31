//! Answers that go on: the events of a task, to everyone who follows it, for as long as each may.
//!
//! A task shows its events to its [`Audience`]; a [`Stream`] is one subscriber's side of that, with
//! what ends it early: a reader that is too slow, a right that is gone, a connection whose
//! certificates end, a node that ends. Each of these is told as the stream's last event.

mod audience;
mod follow;
mod replay;
mod turn;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use convoke_a2a::jsonrpc::RequestIdJson;
use convoke_a2a::jsonrpc::stream::{EVENT_STREAM, HEARTBEAT, Head, fault_event, message_tail};
use convoke_model::{Cursor, Fault, FaultCode, Message, TaskId};
use convoke_net::server::{ResponseBody, StreamError};
use futures_util::stream::{BoxStream, StreamExt, unfold};
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http_body::Frame;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::budget::Room;
use crate::quota::{Quota, Share};
use crate::tasks::Running;

pub(crate) use audience::{Audience, End, Shown, Subscriber, Until, state_after};
pub(crate) use follow::Follow;
use follow::Rights;
pub(crate) use replay::Replay;
use turn::{Turn, Turns};

/// Most streams that one caller may have open at an agent. Source: the design's bounds of streams.
const STREAMS_PER_CALLER_MAX: usize = 256;

/// How long before its connection a stream ends at most, so that its last event still gets there.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Events up to this size, in bytes, leave in one piece with others; larger ones are not copied.
const COPIED_BYTES_MAX: usize = 16 * 1024;

/// What all streams of one agent share.
pub(crate) struct Streams {
    quota: Arc<Quota>,
    open: Gauge,
    ending: CancellationToken,
}

/// The right to open one stream, counted while it is open.
pub(crate) struct Seat {
    _share: Share,
    open: Gauge,
}

impl Streams {
    /// Counts open streams in `open`.
    pub(crate) fn new(open: Gauge) -> Self {
        let quota = Quota::new(STREAMS_PER_CALLER_MAX);
        Self { quota, open, ending: CancellationToken::new() }
    }

    /// Ends all streams, each with a last event that says so; new ones end at once.
    pub(crate) fn end(&self) {
        self.ending.cancel();
    }

    /// Ends all streams shortly before `deadline`, when the node ends, or not if it ended before.
    pub(crate) async fn end_before(&self, deadline: Instant, drained: &CancellationToken) {
        let left = deadline.saturating_duration_since(Instant::now());
        tokio::select! {
            () = sleep_until(deadline - LAST_WORDS.min(left / 4)) => self.end(),
            () = drained.cancelled() => {}
        }
    }

    fn seat(&self, caller: &Arc<str>) -> Result<Seat, Fault> {
        let Some(share) = self.quota.take(caller) else {
            let text = format!("you have {} streams open; close one first", self.quota.max());
            return Err(Fault::new(FaultCode::ResourceExhausted, text));
        };
        self.open.inc();
        Ok(Seat { _share: share, open: self.open.clone() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// One who follows a task, until it is dropped.
pub(crate) struct Subscription {
    pub(crate) id: TaskId,
    /// `None` if the task has ended, and nothing follows what comes first.
    pub(crate) task: Option<Arc<Running>>,
    pub(crate) subscriber: Arc<Subscriber>,
    /// What comes first.
    pub(crate) replay: Replay,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.leave(&self.subscriber);
        }
    }
}

/// One stream while it is open.
struct Stream {
    id: RequestIdJson,
    head: Head,
    subscription: Subscription,
    rights: Rights,
    out: VecDeque<Bytes>,
    /// Where its reader is with what has been laid out.
    at: Option<Cursor>,
    done: bool,
    turns: Turns,
    _seat: Seat,
}

/// The answer to request `id` that follows a task.
pub(crate) fn answer(follow: Follow, id: RequestIdJson) -> Response<ResponseBody> {
    let now = Instant::now();
    let Follow { subscription, rights, revision, seat } = follow;
    let ends_at = rights.connection.ends_at.map(|ends_at| {
        let left = ends_at.saturating_duration_since(now);
        ends_at.checked_sub(LAST_WORDS.min(left / 4)).unwrap_or(now)
    });
    let turns = Turns::new(revision, rights.service.streams.ending.clone(), ends_at);
    let stream = Stream {
        head: Head::new(&id),
        id,
        subscription,
        rights,
        out: VecDeque::new(),
        at: None,
        done: false,
        turns,
        _seat: seat,
    };
    let pieces = unfold(Box::new(stream), |mut stream| async move {
        let piece = stream.next().await?;
        Some((piece, stream))
    });
    event_stream(ResponseBody::stream(Pieces(pieces.boxed())))
}

/// The answer to request `id` that is one message and no task, and holds its room until it is sent.
pub(crate) fn answer_message(
    message: &Message,
    id: &RequestIdJson,
    room: Room,
) -> Response<ResponseBody> {
    let (head, tail) = (Head::new(id), message_tail(message));
    let mut event = BytesMut::with_capacity(head.bytes().len() + tail.len());
    event.extend_from_slice(head.bytes());
    event.extend_from_slice(&tail);
    event_stream(ResponseBody::from(room.hold(event.freeze())))
}

fn event_stream(body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, EVENT_STREAM);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl Stream {
    /// The next piece of the body; `None` after the last.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(piece) = self.out.pop_front() {
                return Some(piece);
            }
            if self.done {
                return None;
            }
            if !self.subscription.replay.is_done() {
                // It comes piece by piece, and nothing that is due waits for all of it.
                match self.turns.due() {
                    Some(turn) => self.take_turn(turn).await,
                    None => match self.subscription.replay.next(&self.rights.service).await {
                        Ok(tails) => self.lay_out(tails),
                        Err(fault) => self.fail(fault),
                    },
                }
                continue;
            }
            let turn = self.turns.next(&self.subscription.subscriber).await;
            self.take_turn(turn).await;
        }
    }

    async fn take_turn(&mut self, turn: Turn) {
        match turn {
            Turn::Ask => self.ask_again().await,
            Turn::Show(events, end) => {
                self.lay_out(events);
                if let Some(end) = end {
                    self.end(end);
                }
            }
            Turn::ConnectionEnds => self.fail(Fault::new(
                FaultCode::Unauthenticated,
                "the connection ends, with a certificate of either side or for its age; connect \
                 again and follow the task with `SubscribeToTask` from `lastEventId`",
            )),
            Turn::NodeEnds => self.fail(Fault::new(
                FaultCode::Unavailable,
                "the node ends, and so does this stream; the task can be followed again from \
                 `lastEventId`",
            )),
            Turn::Heartbeat => self.out.push_back(HEARTBEAT),
        }
    }

    /// Asks whether the caller may still follow.
    async fn ask_again(&mut self) {
        if let Err(fault) = self.rights.check().await {
            self.fail(fault);
        }
    }

    fn end(&mut self, end: End) {
        match end {
            End::Complete => self.done = true,
            End::TooSlow => self.fail(Fault::new(
                FaultCode::ResourceExhausted,
                "the stream was read too slowly; follow the task again with `SubscribeToTask` from \
                 `lastEventId`",
            )),
            End::Lost => self.fail(Fault::new(
                FaultCode::Internal,
                "nobody works on the task any more; read it with `GetTask`",
            )),
        }
    }

    /// Ends the stream with the reason as its last event, and with where the reader can go on.
    fn fail(&mut self, mut fault: Fault) {
        if let Some(cursor) = self.at {
            fault = fault.with("lastEventId", cursor.to_string());
        }
        tracing::info!(
            request_id = self.rights.request_id.as_str(),
            task_id = self.subscription.id.as_str(),
            code = fault.code.reason(),
            "Stream ended early"
        );
        self.out.push_back(fault_event(&self.id, &fault));
        self.done = true;
    }

    /// Makes pieces of the body of `tails`: small ones together, large ones without a copy.
    fn lay_out(&mut self, tails: impl IntoIterator<Item = Bytes>) {
        let head = self.head.bytes();
        let mut small = BytesMut::new();
        for tail in tails {
            self.at = cursor_of(&tail).or(self.at);
            small.extend_from_slice(head);
            if tail.len() > COPIED_BYTES_MAX {
                self.out.push_back(small.split().freeze());
                self.out.push_back(tail);
                continue;
            }
            small.extend_from_slice(&tail);
            if small.len() > COPIED_BYTES_MAX {
                self.out.push_back(small.split().freeze());
            }
        }
        if !small.is_empty() {
            self.out.push_back(small.freeze());
        }
    }
}

/// The `id` with which the tail of an event ends, if it has one.
fn cursor_of(tail: &[u8]) -> Option<Cursor> {
    /// Two numbers of twenty digits at most, and what stands around them.
    const ID_LINE_BYTES_MAX: usize = 48;
    let end = tail.get(tail.len().saturating_sub(ID_LINE_BYTES_MAX)..)?;
    let line = end.strip_suffix(b"\n\n")?.rsplit(|byte| *byte == b'\n').next()?;
    std::str::from_utf8(line.strip_prefix(b"id: ")?).ok()?.parse().ok()
}

/// A body that comes in pieces.
struct Pieces(BoxStream<'static, Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        let piece = ready!(self.0.poll_next_unpin(cx));
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }
}
