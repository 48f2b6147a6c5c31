//! Who follows a task: each event is encoded once and lies in the queue of every subscriber until
//! that one has read it. Who falls behind is cut.
//!
//! A handler can make hundreds of events before the runtime comes to its subscribers at all, so the
//! task waits for them between batches: for each until its [`PATIENCE`] is used up, which what it
//! reads earns back. Who reads as fast as it can is not cut; who does not read, or trickles, is cut
//! after a second. Subscribers are the task's owner, so nobody makes somebody else wait.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use convoke_model::{TaskEvent, TaskState};
use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Most events that a subscriber may be behind. Source: the security reference, S-13.
const EVENTS_MAX: usize = 256;

/// Most bytes that a subscriber may be behind when another event comes. Source: as above.
const BYTES_MAX: usize = 1024 * 1024;

/// How long one subscriber may keep its task waiting.
const PATIENCE: Duration = Duration::from_secs(1);

/// What an event that is read earns back of it. Together with [`EARNED_BY_BYTE`] this is the slowest
/// reader that may follow a handler which never pauses: 1,000 events, or a megabyte, in a second.
const EARNED_BY_EVENT: Duration = Duration::from_millis(1);

/// What a byte that is read earns back of [`PATIENCE`].
const EARNED_BY_BYTE: Duration = Duration::from_micros(1);

/// The subscribers of one task.
#[derive(Debug, Default)]
pub(crate) struct Audience(Mutex<Vec<Arc<Subscriber>>>);

/// One who follows a task.
#[derive(Debug)]
pub(crate) struct Subscriber {
    until: Until,
    queue: Mutex<Queue>,
    ready: Notify,
    read: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Bytes>,
    bytes: usize,
    end: Option<End>,
    /// How long the task has waited for this one, less what it has earned back.
    waited: Duration,
}

/// How far a subscriber follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// To where the client has the next word.
    Interrupted,
    /// To the task's end.
    Ended,
}

/// Why a subscriber gets nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It has everything that it wanted.
    Complete,
    /// It is too far behind.
    TooSlow,
    /// Nobody works on the task any more, though it has not ended.
    Lost,
}

/// An event as all subscribers of its task get it.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) bytes: Bytes,
    /// The state to which the task has come with it.
    pub(crate) state: Option<TaskState>,
}

impl Audience {
    pub(crate) fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    pub(crate) fn add(&self, subscriber: &Arc<Subscriber>) {
        self.all().push(Arc::clone(subscriber));
    }

    pub(crate) fn remove(&self, subscriber: &Arc<Subscriber>) {
        let mut all = self.all();
        if let Some(at) = all.iter().position(|one| Arc::ptr_eq(one, subscriber)) {
            all.swap_remove(at);
        }
        drop(all);
        // Nobody is to wait for one who has gone.
        subscriber.end(End::Complete);
    }

    /// Gives `events` to everyone. Who has had its last event is no subscriber any more.
    pub(crate) fn show(&self, events: &[Shown]) {
        self.all().retain(|subscriber| subscriber.take(events));
    }

    /// Waits for those who are half way to being cut, as long as they may keep the task waiting.
    pub(crate) async fn catch_up(&self) {
        let behind: Vec<_> =
            self.all().iter().filter(|one| one.queue().is_behind()).cloned().collect();
        if !behind.is_empty() {
            join_all(behind.iter().map(|subscriber| subscriber.catch_up())).await;
        }
    }

    /// Ends what is still followed.
    pub(crate) fn end(&self, end: End) {
        for subscriber in self.all().drain(..) {
            subscriber.end(end);
        }
    }

    fn all(&self) -> MutexGuard<'_, Vec<Arc<Subscriber>>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber {
    pub(crate) fn new(until: Until) -> Arc<Self> {
        Arc::new(Self { until, queue: Mutex::default(), ready: Notify::new(), read: Notify::new() })
    }

    /// Takes `events` until one of them is the last; says whether more are wanted.
    pub(crate) fn take(&self, events: &[Shown]) -> bool {
        let mut queue = self.queue();
        for event in events {
            if queue.end.is_some() {
                break;
            }
            let last = event.state.is_some_and(|state| self.until.is_reached(state));
            // The last event is taken however far behind: nothing comes after it.
            let is_behind = queue.events.len() >= EVENTS_MAX || queue.bytes >= BYTES_MAX;
            if is_behind && !last {
                // What it has not read is of no use without what comes now.
                *queue = Queue { end: Some(End::TooSlow), ..Queue::default() };
                break;
            }
            queue.bytes += event.bytes.len();
            queue.events.push_back(event.bytes.clone());
            if last {
                queue.end = Some(End::Complete);
            }
        }
        let more = queue.end.is_none();
        drop(queue);
        self.ready.notify_one();
        more
    }

    pub(crate) fn end(&self, end: End) {
        self.queue().end.get_or_insert(end);
        self.ready.notify_one();
        self.read.notify_one();
    }

    /// Begins with a task in `state`, which it is shown; says whether more is wanted.
    pub(crate) fn begin(&self, state: TaskState) -> bool {
        let is_all = self.until.is_reached(state);
        if is_all {
            self.end(End::Complete);
        }
        !is_all
    }

    /// What has come, once something has, and the end if that is all.
    pub(crate) async fn next(&self) -> (VecDeque<Bytes>, Option<End>) {
        loop {
            {
                let mut queue = self.queue();
                if !queue.events.is_empty() || queue.end.is_some() {
                    queue.earn();
                    self.read.notify_one();
                    return (std::mem::take(&mut queue.events), queue.end);
                }
            }
            self.ready.notified().await;
        }
    }

    async fn catch_up(&self) {
        let began = Instant::now();
        let until = began + PATIENCE.saturating_sub(self.queue().waited);
        // Whether it has caught up or not, the task goes on.
        let _late = timeout_at(until, async {
            while self.queue().is_behind() {
                self.read.notified().await;
            }
        })
        .await;
        self.queue().waited += began.elapsed();
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it is held.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Everything is read.
    fn earn(&mut self) {
        let events = u32::try_from(self.events.len()).unwrap_or(u32::MAX);
        let bytes = u32::try_from(std::mem::take(&mut self.bytes)).unwrap_or(u32::MAX);
        let earned = EARNED_BY_EVENT.saturating_mul(events) + EARNED_BY_BYTE.saturating_mul(bytes);
        self.waited = self.waited.saturating_sub(earned);
    }

    fn is_behind(&self) -> bool {
        self.end.is_none() && (self.events.len() >= EVENTS_MAX / 2 || self.bytes >= BYTES_MAX / 2)
    }
}

impl Until {
    fn is_reached(self, state: TaskState) -> bool {
        // Who is to sign in somewhere does so beside the stream, and the task may then go on without
        // a message (A2A 1.0.1 §7.6.1).
        state.is_terminal() || (self == Self::Interrupted && state == TaskState::InputRequired)
    }
}

/// The state to which `event` brings its task, if it brings it to one.
pub(crate) fn state_after(event: &TaskEvent) -> Option<TaskState> {
    match event {
        TaskEvent::Status(status) => Some(status.state),
        TaskEvent::Submitted { .. } => Some(TaskState::Submitted),
        TaskEvent::Message(_) | TaskEvent::Artifact { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn event(bytes: usize, state: Option<TaskState>) -> Shown {
        Shown { bytes: Bytes::from(vec![b'x'; bytes]), state }
    }

    /// How many events there are for `subscriber`, and its end.
    fn check(subscriber: &Subscriber, expected: Option<(usize, Option<End>)>) {
        let found = subscriber.next().now_or_never();
        assert_eq!(found.map(|(events, end)| (events.len(), end)), expected);
    }

    #[test]
    fn a_subscriber_follows_as_far_as_it_wanted() {
        use TaskState::{Completed, InputRequired, Working};
        let audience = Audience::default();
        let (sender, watcher) =
            (Subscriber::new(Until::Interrupted), Subscriber::new(Until::Ended));
        audience.add(&sender);
        audience.add(&watcher);
        audience.show(&[event(1, Some(Working)), event(1, None)]);
        check(&sender, Some((2, None)));
        check(&sender, None);
        audience.show(&[event(1, Some(InputRequired)), event(1, Some(Working))]);
        check(&sender, Some((1, Some(End::Complete))));
        check(&watcher, Some((4, None)));
        audience.show(&[event(1, Some(Completed)), event(1, None)]);
        check(&watcher, Some((1, Some(End::Complete))));
        assert!(audience.is_empty());
    }

    #[test]
    fn who_is_behind_is_cut_and_the_others_go_on() {
        for (bytes, fit) in [(1, EVENTS_MAX), (BYTES_MAX / 4, 4), (BYTES_MAX * 4, 1)] {
            let audience = Audience::default();
            let (slow, quick) = (Subscriber::new(Until::Ended), Subscriber::new(Until::Ended));
            audience.add(&slow);
            audience.add(&quick);
            for _ in 0..fit {
                audience.show(&[event(bytes, None)]);
                check(&quick, Some((1, None)));
            }
            audience.show(&[event(bytes, None)]);
            check(&quick, Some((1, None)));
            check(&slow, Some((0, Some(End::TooSlow))));
            audience.remove(&quick);
            assert!(audience.is_empty(), "nothing more is kept for the slow one");
        }
    }

    #[test]
    fn a_large_result_and_the_end_are_taken_together() {
        let audience = Audience::default();
        let subscriber = Subscriber::new(Until::Ended);
        audience.add(&subscriber);
        let end = event(1, Some(TaskState::Completed));
        audience.show(&[event(BYTES_MAX * 8, None), end]);
        check(&subscriber, Some((2, Some(End::Complete))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_waits_for_a_subscriber_only_so_long() {
        let audience = Audience::default();
        let subscriber = Subscriber::new(Until::Ended);
        audience.add(&subscriber);
        let began = Instant::now();
        audience.catch_up().await;
        assert_eq!(began.elapsed(), Duration::ZERO, "it is not behind");
        let half = vec![event(1, None); EVENTS_MAX / 2];
        audience.show(&half);
        let ((), (events, _)) = tokio::join!(audience.catch_up(), subscriber.next());
        assert_eq!((events.len(), began.elapsed()), (half.len(), Duration::ZERO));
        audience.show(&half);
        let other = Subscriber::new(Until::Ended);
        audience.add(&other);
        other.take(&half);
        // Two are waited for no longer than one, and none a second time.
        for _ in 0..2 {
            audience.catch_up().await;
            // Timers count whole milliseconds.
            assert_eq!(began.elapsed().as_millis() / 10, PATIENCE.as_millis() / 10);
        }
        // Whoever reads after all is waited for again, as long as that is worth.
        check(&other, Some((half.len(), None)));
        other.take(&half);
        audience.catch_up().await;
        let earned = EARNED_BY_EVENT * 128 + EARNED_BY_BYTE * 128;
        assert_eq!(began.elapsed().as_millis() / 10, (PATIENCE + earned).as_millis() / 10);
    }

    #[tokio::test]
    async fn an_end_wakes_who_waits() {
        let audience = Audience::default();
        let subscriber = Subscriber::new(Until::Ended);
        audience.add(&subscriber);
        let (next, ()) = tokio::join!(subscriber.next(), async { audience.end(End::Lost) });
        assert_eq!(next, (VecDeque::new(), Some(End::Lost)));
    }
}
