//! Answers that go on: the events of a task, to everyone who follows it, for as long as each may.
//!
//! A task shows its events to its [`Audience`]; a [`Stream`] is one subscriber's side of that, with
//! what ends it early: a reader that is too slow, a right that is gone, a connection whose
//! certificates end, a node that ends. Each of these is told as the stream's last event. What all
//! streams hold together is bounded by the [`backlog`].

mod audience;
mod backlog;
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

use audience::Replays;
pub(crate) use audience::{Audience, End, Shown, Subscriber, Until, state_after};
pub(crate) use backlog::Account;
use backlog::Backlog;
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

/// Most bytes that leave in one piece: so much a connection holds of a stream that is not read,
/// beside its own buffer.
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// What all streams of one agent share.
pub(crate) struct Streams {
    quota: Arc<Quota>,
    backlog: Arc<Backlog>,
    open: Gauge,
    ending: CancellationToken,
}

/// What people see of all streams.
#[derive(Debug, Clone, Default)]
pub(crate) struct StreamGauges {
    /// How many are open.
    pub(crate) open: Gauge,
    /// How many bytes they hold.
    pub(crate) backlog_bytes: Gauge,
}

/// The right to open one stream, counted while it is open.
pub(crate) struct Seat {
    _share: Share,
    account: Arc<Account>,
    open: Gauge,
}

impl Streams {
    /// Counts in `gauges`.
    pub(crate) fn new(gauges: StreamGauges) -> Self {
        let quota = Quota::new(STREAMS_PER_CALLER_MAX);
        let backlog = Backlog::new(gauges.backlog_bytes);
        Self { quota, backlog, open: gauges.open, ending: CancellationToken::new() }
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
        let account = self.backlog.account(caller);
        // What is on its way is not taken back, so there is to be no more of it.
        if account.is_full() {
            let text = "your streams hold too much that was not read; read it or close some first";
            return Err(Fault::new(FaultCode::ResourceExhausted, text));
        }
        self.open.inc();
        Ok(Seat { _share: share, account, open: self.open.clone() })
    }
}

impl Seat {
    /// The side of a task that is shown here.
    fn subscriber(&self, until: Until) -> Arc<Subscriber> {
        self.account.subscriber(until)
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
    seat: Seat,
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
        at: subscription.replay.after(),
        subscription,
        rights,
        out: VecDeque::new(),
        done: false,
        turns,
        seat,
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
            if matches!(self.subscription.replay, Replay::Done) {
                let turn = self.turns.next(&self.subscription.subscriber).await;
                self.take_turn(turn).await;
                continue;
            }
            // It comes piece by piece, and nothing that is due waits for all of it.
            match self.turns.due() {
                Some(turn) => self.take_turn(turn).await,
                None => self.replay().await,
            }
        }
    }

    /// Shows more of what comes first, or reads more of it.
    async fn replay(&mut self) {
        let Subscription { replay, subscriber, .. } = &mut self.subscription;
        match replay {
            Replay::Done => {}
            Replay::Task(first) => {
                let first = std::mem::take(first);
                *replay = Replay::Done;
                self.lay_out([first]);
            }
            Replay::Journal(journal) => match subscriber.replays(journal.at()) {
                Replays::Show(events) => self.lay_out(events),
                Replays::Read(until) => {
                    let (service, account) = (&self.rights.service, &self.seat.account);
                    match journal.next(service, until, account).await {
                        Ok(page) => subscriber.take_page(page),
                        Err(fault) => self.fail(fault),
                    }
                }
                Replays::Done => *replay = Replay::Done,
            },
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
            Turn::NodeEnds => self.fail(node_ends()),
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
            End::Crowded => self.fail(Fault::new(
                FaultCode::ResourceExhausted,
                "too much of the open streams was not read, and this one was furthest behind; \
                 follow the task again with `SubscribeToTask` from `lastEventId`",
            )),
            End::Left => self.fail(node_ends()),
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
        let (head, account) = (self.head.bytes(), &self.seat.account);
        let mut small = Vec::new();
        for mut tail in tails {
            self.at = cursor_of(&tail).or(self.at);
            if tail.len() > COPIED_BYTES_MAX {
                small.extend_from_slice(head);
                self.out.push_back(account.hold(std::mem::take(&mut small)));
                while tail.len() > PIECE_BYTES_MAX {
                    self.out.push_back(tail.split_to(PIECE_BYTES_MAX));
                }
                self.out.push_back(tail);
                continue;
            }
            small.reserve(head.len() + tail.len());
            small.extend_from_slice(head);
            small.extend_from_slice(&tail);
            if small.len() > COPIED_BYTES_MAX {
                self.out.push_back(account.hold(std::mem::take(&mut small)));
            }
        }
        if !small.is_empty() {
            self.out.push_back(account.hold(small));
        }
    }
}

fn node_ends() -> Fault {
    let text = "the node ends, and so does this stream; the task can be followed again from \
                `lastEventId`";
    Fault::new(FaultCode::Unavailable, text)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_too_much_gets_no_further_stream_until_it_is_read() {
        let streams = Streams::new(StreamGauges::default());
        let [ann, ben] = ["ann", "ben"].map(Arc::from);
        let seat = streams.seat(&ann).map_err(|fault| fault.code).unwrap();
        let unread = seat.account.hold(vec![0; 40 * 1024 * 1024]);
        let refused = streams.seat(&ann).map(drop).map_err(|fault| fault.code);
        assert_eq!(refused, Err(FaultCode::ResourceExhausted));
        assert!(streams.seat(&ben).is_ok());
        drop(unread);
        assert!(streams.seat(&ann).is_ok());
    }

    #[test]
    fn the_place_of_an_event_is_the_id_that_ends_it() {
        let check = |tail: &str, expected: Option<u64>| {
            assert_eq!(cursor_of(tail.as_bytes()).map(|cursor| cursor.seq), expected, "{tail}");
        };
        check("{}}\nid: 1.12\n\n", Some(12));
        check("\nid: 18446744073709551615.18446744073709551615\n\n", Some(u64::MAX));
        check("{}}\n\n", None);
        check("{}}\nid: 1.12\n", None);
        check("", None);
    }
}
