//! What an open stream does next. Events that never pause keep nothing else from its turn: a right
//! that may be gone is asked about, and an end that is due comes, however much there is to read.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use convoke_model::Revision;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{End, Subscriber};

/// How often a stream without news shows that it is alive. Source: the design's bounds of streams.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);

/// How often it is asked anew whether a stream's caller may still follow. Source: as above.
const RIGHTS_EVERY: Duration = Duration::from_secs(5 * 60);

/// What a stream does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Asks whether its caller may still follow.
    Ask,
    /// Shows events, and ends if that is all.
    Show(VecDeque<Bytes>, Option<End>),
    /// Ends, because its connection is about to.
    ConnectionEnds,
    /// Ends, because the node does.
    NodeEnds,
    /// Shows that it is alive.
    Heartbeat,
}

/// Whose turn it is.
pub(super) struct Turns {
    revision: watch::Receiver<Revision>,
    ending: CancellationToken,
    heartbeat_at: Instant,
    rights_at: Instant,
    /// Shortly before the connection ends.
    ends_at: Option<Instant>,
    /// What had come when the end was due has been shown.
    is_drained: bool,
}

impl Turns {
    /// Turns from now on. `revision` counts as asked about as far as it has been seen.
    pub(super) fn new(
        revision: watch::Receiver<Revision>,
        ending: CancellationToken,
        ends_at: Option<Instant>,
    ) -> Self {
        let now = Instant::now();
        Self {
            revision,
            ending,
            heartbeat_at: now + HEARTBEAT_EVERY,
            rights_at: now + RIGHTS_EVERY,
            ends_at,
            is_drained: false,
        }
    }

    /// What is to be done before anything more is shown of what comes first.
    pub(super) fn due(&mut self) -> Option<Turn> {
        let now = Instant::now();
        if self.revision.has_changed().unwrap_or(true) || self.rights_at <= now {
            return Some(self.ask(now));
        }
        self.end_due(now)
    }

    /// The next turn, once there is one. Nothing is lost if this is dropped while it waits.
    pub(super) async fn next(&mut self, subscriber: &Subscriber) -> Turn {
        loop {
            let now = Instant::now();
            // An error would mean that nothing decides any more; asking says so.
            if self.revision.has_changed().unwrap_or(true) || self.rights_at <= now {
                return self.ask(now);
            }
            if let Some(end) = self.end_due(now) {
                // Once more, so that a task which has just ended is seen to; not again, or a task
                // that goes on talking would put the end off.
                let rest = if self.is_drained { None } else { subscriber.rest() };
                self.is_drained = true;
                return rest.map_or(end, |(events, end)| Turn::Show(events, end));
            }
            let alarm = self.heartbeat_at.min(self.rights_at);
            let alarm = self.ends_at.map_or(alarm, |ends_at| alarm.min(ends_at));
            tokio::select! {
                biased;
                // What has come with the news of another policy is not shown before it is asked.
                _changed = self.revision.changed() => return self.ask(Instant::now()),
                (events, end) = subscriber.next() => {
                    self.heartbeat_at = Instant::now() + HEARTBEAT_EVERY;
                    return Turn::Show(events, end);
                }
                () = self.ending.cancelled() => {}
                () = sleep_until(alarm) => {
                    let now = Instant::now();
                    if self.heartbeat_at <= now {
                        self.heartbeat_at = now + HEARTBEAT_EVERY;
                        return Turn::Heartbeat;
                    }
                }
            }
        }
    }

    fn ask(&mut self, now: Instant) -> Turn {
        self.revision.mark_unchanged();
        self.rights_at = now + RIGHTS_EVERY;
        Turn::Ask
    }

    fn end_due(&self, now: Instant) -> Option<Turn> {
        if self.ends_at.is_some_and(|ends_at| ends_at <= now) {
            return Some(Turn::ConnectionEnds);
        }
        self.ending.is_cancelled().then_some(Turn::NodeEnds)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::advance;

    use super::*;
    use crate::stream::{Shown, Until};

    /// A stream whose subscriber has something to read whenever it is its turn.
    struct Busy {
        revision: watch::Sender<Revision>,
        ending: CancellationToken,
        turns: Turns,
        subscriber: Arc<Subscriber>,
    }

    impl Busy {
        fn new(ends_in: Option<Duration>) -> Self {
            let revision = watch::Sender::new(Revision("one".into()));
            let ending = CancellationToken::new();
            let ends_at = ends_in.map(|ends_in| Instant::now() + ends_in);
            let turns = Turns::new(revision.subscribe(), ending.clone(), ends_at);
            Self { revision, ending, turns, subscriber: Subscriber::new(Until::Ended) }
        }

        async fn check(&mut self, expected: Turn) {
            let more = Shown { bytes: Bytes::from_static(b"x"), seq: 1, state: None };
            self.subscriber.take(&[more]);
            assert_eq!(self.turns.next(&self.subscriber).await, expected);
        }
    }

    fn show(events: usize) -> Turn {
        Turn::Show(vec![Bytes::from_static(b"x"); events].into(), None)
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_stream_asks_again_when_the_policy_changes_and_when_it_is_time() {
        let mut busy = Busy::new(None);
        busy.check(show(1)).await;
        busy.revision.send_replace(Revision("two".into()));
        busy.check(Turn::Ask).await;
        busy.check(show(2)).await;
        advance(RIGHTS_EVERY).await;
        busy.check(Turn::Ask).await;
        busy.check(show(2)).await;
        busy.check(show(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_stream_ends_with_its_connection() {
        let mut busy = Busy::new(Some(Duration::from_secs(60)));
        busy.check(show(1)).await;
        advance(Duration::from_secs(60)).await;
        busy.check(show(1)).await;
        busy.check(Turn::ConnectionEnds).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_stream_ends_with_the_node() {
        let mut busy = Busy::new(None);
        busy.ending.cancel();
        // What comes with the end is not shown to who may not see it any more.
        busy.revision.send_replace(Revision("two".into()));
        busy.check(Turn::Ask).await;
        busy.check(show(2)).await;
        busy.check(Turn::NodeEnds).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_policy_that_came_while_the_stream_was_opened_is_asked() {
        let revision = watch::Sender::new(Revision("one".into()));
        let before = revision.subscribe();
        revision.send_replace(Revision("two".into()));
        let mut turns = Turns::new(before, CancellationToken::new(), None);
        let subscriber = Subscriber::new(Until::Ended);
        assert_eq!(turns.next(&subscriber).await, Turn::Ask);
    }

    /// While a stream shows what was before, what is due comes before more of it.
    #[tokio::test(start_paused = true)]
    async fn what_is_due_does_not_wait_for_what_comes_first() {
        let mut busy = Busy::new(Some(Duration::from_secs(600)));
        assert_eq!(busy.turns.due(), None);
        busy.revision.send_replace(Revision("two".into()));
        assert_eq!([busy.turns.due(), busy.turns.due()], [Some(Turn::Ask), None]);
        advance(RIGHTS_EVERY).await;
        assert_eq!([busy.turns.due(), busy.turns.due()], [Some(Turn::Ask), None]);
        busy.ending.cancel();
        assert_eq!(busy.turns.due(), Some(Turn::NodeEnds));
        advance(RIGHTS_EVERY).await;
        assert_eq!(busy.turns.due(), Some(Turn::Ask), "who may not see the end is told that");
        assert_eq!(busy.turns.due(), Some(Turn::ConnectionEnds));
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_stream_beats_until_it_is_time_to_ask() {
        let mut busy = Busy::new(None);
        let began = Instant::now();
        for beat in 1..RIGHTS_EVERY.as_secs() / HEARTBEAT_EVERY.as_secs() {
            assert_eq!(busy.turns.next(&busy.subscriber).await, Turn::Heartbeat);
            // Timers count whole milliseconds.
            assert_eq!(began.elapsed().as_secs(), beat * HEARTBEAT_EVERY.as_secs());
        }
        assert_eq!(busy.turns.next(&busy.subscriber).await, Turn::Heartbeat);
        assert_eq!(busy.turns.next(&busy.subscriber).await, Turn::Ask);
    }
}
