//! Who follows a task: each event is encoded once and lies in the queue of every subscriber until
//! that one has read it. Who falls behind is cut.
//!
//! Who comes back to a place in the task reads what it missed from the journal before, a page at a
//! time, in the same queue. What happens meanwhile is in the journal too, so it is read there and
//! does not wait here: however long that takes, nobody is behind who reads.
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

use super::backlog::Account;

/// Most events that a subscriber may be behind. Source: the security reference, S-13.
const EVENTS_MAX: usize = 256;

/// Most bytes that a subscriber may be behind when another event comes. Source: as above.
const BYTES_MAX: usize = 1024 * 1024;

/// How much a stream takes at a time of what waits for it, in bytes: about what its connection sends
/// in one go. An event that is larger goes alone.
pub(super) const SERVING_BYTES: usize = 64 * 1024;

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
    /// What its caller's streams hold.
    account: Arc<Account>,
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
    /// While it reads from the journal: the newest event that there is for it.
    replays_until: Option<u64>,
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
    /// It was furthest behind when the streams of its caller, or of all, held too much.
    Crowded,
    /// Nobody works on the task any more, though it has not ended.
    Lost,
    /// The node ends, and the next one goes on with the task.
    Left,
}

/// What a subscriber does that reads from the journal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Replays {
    /// It shows these.
    Show(VecDeque<Bytes>),
    /// It reads on, up to this number.
    Read(u64),
    /// It has come to where the task is, and gets from it what comes next.
    Done,
}

/// An event as all subscribers of its task get it.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    /// See [`Account::hold`].
    pub(crate) bytes: Bytes,
    /// Its number in the task.
    pub(crate) seq: u64,
    /// The state to which the task has come with it.
    pub(crate) state: Option<TaskState>,
}

impl Audience {
    /// What its subscribers hold, all of whom are one caller; `None` if there are none.
    pub(crate) fn account(&self) -> Option<Arc<Account>> {
        self.all().first().map(|subscriber| Arc::clone(subscriber.account()))
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
        let mut all = self.all();
        let Some(account) = all.first().map(|subscriber| Arc::clone(subscriber.account())) else {
            return;
        };
        for subscriber in &*all {
            subscriber.take(events);
        }
        // Before anybody is woken: what is on its way cannot be taken back.
        account.relieve();
        all.retain(|subscriber| subscriber.wake());
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
    /// One whose caller's streams hold what `account` says, which is to know of it.
    pub(super) fn of(account: Arc<Account>, until: Until) -> Arc<Self> {
        let (ready, read) = (Notify::new(), Notify::new());
        Arc::new(Self { account, until, queue: Mutex::default(), ready, read })
    }

    /// One that shares with nobody.
    #[cfg(test)]
    pub(crate) fn new(until: Until) -> Arc<Self> {
        let backlog = super::backlog::Backlog::new(Default::default());
        backlog.account(&"somebody".into()).subscriber(until)
    }

    /// Takes `events` until one of them is the last.
    pub(super) fn take(&self, events: &[Shown]) {
        let mut queue = self.queue();
        for event in events {
            if queue.end.is_some() {
                break;
            }
            let last = event.state.is_some_and(|state| self.until.is_reached(state));
            if let Some(replays_until) = &mut queue.replays_until {
                *replays_until = event.seq;
                queue.end = last.then_some(End::Complete);
                continue;
            }
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
    }

    /// Says that something may have come, and whether more is wanted.
    fn wake(&self) -> bool {
        self.ready.notify_one();
        self.queue().end.is_none()
    }

    pub(crate) fn end(&self, end: End) {
        self.queue().end.get_or_insert(end);
        self.ready.notify_one();
        self.read.notify_one();
    }

    /// Cuts it, so that others have room.
    pub(super) fn cut(&self) {
        let cut = Queue { end: Some(End::Crowded), ..Queue::default() };
        // What waited goes without the lock.
        let waited = std::mem::replace(&mut *self.queue(), cut);
        self.ready.notify_one();
        self.read.notify_one();
        drop(waited);
    }

    /// How much waits for it, in bytes.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.queue().bytes
    }

    /// What its caller's streams hold.
    pub(super) fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Begins by reading from the journal, whose newest event is number `last_seq`.
    pub(crate) fn replay_until(&self, last_seq: u64) {
        self.queue().replays_until = Some(last_seq);
    }

    /// What to do when event number `at` is the newest that was read from the journal.
    pub(super) fn replays(&self, at: u64) -> Replays {
        let mut queue = self.queue();
        if !queue.events.is_empty() {
            return Replays::Show(queue.serve(SERVING_BYTES));
        }
        match queue.replays_until {
            Some(until) if until > at => Replays::Read(until),
            _ => {
                queue.replays_until = None;
                Replays::Done
            }
        }
    }

    /// Takes what was read from the journal.
    pub(super) fn take_page(&self, events: VecDeque<Bytes>) {
        let mut queue = self.queue();
        // It may have been cut meanwhile.
        if queue.replays_until.is_some() {
            queue.bytes = events.iter().map(Bytes::len).sum();
            queue.events = events;
        }
        drop(queue);
        self.account.relieve();
    }

    /// Begins with a task in `state`, which it is shown; says whether more is wanted.
    pub(crate) fn begin(&self, state: TaskState) -> bool {
        let is_all = self.until.is_reached(state);
        if is_all {
            self.end(End::Complete);
        }
        !is_all
    }

    /// What has come, as much as is taken at a time, once something has; and the end if that is all.
    /// The rest waits here, where it can be let go if it is too much.
    pub(crate) async fn next(&self) -> (VecDeque<Bytes>, Option<End>) {
        loop {
            if let Some(serving) = self.serve(SERVING_BYTES) {
                return serving;
            }
            self.ready.notified().await;
        }
    }

    /// All that has come, if anything has, and the end if there is one.
    pub(super) fn rest(&self) -> Option<(VecDeque<Bytes>, Option<End>)> {
        self.serve(usize::MAX)
    }

    fn serve(&self, bytes_max: usize) -> Option<(VecDeque<Bytes>, Option<End>)> {
        let mut queue = self.queue();
        if queue.events.is_empty() && queue.end.is_none() {
            return None;
        }
        let events = queue.serve(bytes_max);
        let end = queue.end.filter(|_| queue.events.is_empty());
        drop(queue);
        self.read.notify_one();
        Some((events, end))
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
    /// Gives the next events: as many as fit into `bytes_max`, and one at least.
    fn serve(&mut self, bytes_max: usize) -> VecDeque<Bytes> {
        if self.bytes <= bytes_max {
            self.earn(self.events.len(), self.bytes);
            self.bytes = 0;
            return std::mem::take(&mut self.events);
        }
        let (mut count, mut bytes) = (0, 0);
        for event in &self.events {
            if count > 0 && bytes + event.len() > bytes_max {
                break;
            }
            count += 1;
            bytes += event.len();
        }
        self.earn(count, bytes);
        self.bytes -= bytes;
        self.events.drain(..count).collect()
    }

    /// So much is read.
    fn earn(&mut self, events: usize, bytes: usize) {
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let earned = EARNED_BY_EVENT.saturating_mul(events) + EARNED_BY_BYTE.saturating_mul(bytes);
        self.waited = self.waited.saturating_sub(earned);
    }

    fn is_behind(&self) -> bool {
        let is_much = self.events.len() >= EVENTS_MAX / 2 || self.bytes >= BYTES_MAX / 2;
        is_much && self.end.is_none() && self.replays_until.is_none()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.account.forget(self);
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
mod tests;
