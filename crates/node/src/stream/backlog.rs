//! What the open streams of an agent hold together: events that wait to be read, and pieces that are
//! on their way. Each stream is bounded by itself already; hundreds that nobody reads are what this
//! is against. If there is too much of it, the stream that is furthest behind is cut.
//!
//! Bytes count from where they are made until the last of them is gone, in the connection's own
//! buffers too. An event counts once for all streams of its task, which share it and whose caller is
//! the same; what is copied for one stream, or read again for it, counts for that one. What the task
//! stood at when the stream began has room among the answers instead, see [`crate::budget`].

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use prometheus_client::metrics::gauge::Gauge;

use super::audience::SERVING_BYTES;
use super::{Subscriber, Until};

/// Most bytes that all streams of an agent hold together, and of which one caller's may hold a part.
const BYTES_MAX: usize = 128 * 1024 * 1024;

/// The part of it that the streams of one caller may hold.
const CALLERS_PART: usize = 4;

/// What all streams hold.
#[derive(Debug)]
pub(super) struct Backlog {
    /// How many bytes there are, which is also what people see.
    bytes: Gauge,
    bytes_max: usize,
    accounts: Mutex<HashMap<Arc<str>, Weak<Account>>>,
}

/// What the streams of one caller hold, while there are any.
#[derive(Debug)]
pub(crate) struct Account {
    caller: Arc<str>,
    backlog: Arc<Backlog>,
    bytes: AtomicUsize,
    subscribers: Mutex<Vec<Weak<Subscriber>>>,
}

/// Bytes that count until this is dropped.
struct Held<T> {
    bytes: T,
    count: usize,
    account: Arc<Account>,
}

impl Backlog {
    /// Counts in `bytes`.
    pub(super) fn new(bytes: Gauge) -> Arc<Self> {
        Self::with(bytes, BYTES_MAX)
    }

    fn with(bytes: Gauge, bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes, bytes_max, accounts: Mutex::default() })
    }

    /// What `caller`'s streams hold.
    pub(super) fn account(self: &Arc<Self>, caller: &Arc<str>) -> Arc<Account> {
        let mut accounts = self.accounts();
        if let Some(account) = accounts.get(caller).and_then(Weak::upgrade) {
            return account;
        }
        let account = Arc::new(Account {
            caller: Arc::clone(caller),
            backlog: Arc::clone(self),
            bytes: AtomicUsize::new(0),
            subscribers: Mutex::default(),
        });
        accounts.insert(Arc::clone(caller), Arc::downgrade(&account));
        account
    }

    /// Cuts streams of those who hold more than all would hold alike, so that nobody loses one for
    /// what others do not read.
    fn relieve(&self) {
        let mut accounts: Vec<_> = self.accounts().values().filter_map(Weak::upgrade).collect();
        let alike = self.alike();
        accounts.retain(|account| account.bytes() > alike);
        cut(accounts.iter().flat_map(|account| account.all()).collect(), || self.is_over());
    }

    /// What each caller has, if all have the same.
    fn alike(&self) -> usize {
        self.bytes_max / self.accounts().len().max(1)
    }

    fn is_over(&self) -> bool {
        usize::try_from(self.bytes.get()).is_ok_and(|bytes| bytes > self.bytes_max)
    }

    fn accounts(&self) -> MutexGuard<'_, HashMap<Arc<str>, Weak<Account>>> {
        // Nothing panics while it is held, and no account is dropped: that takes it, too.
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    /// One more stream's side of a task.
    pub(super) fn subscriber(self: &Arc<Self>, until: Until) -> Arc<Subscriber> {
        let subscriber = Subscriber::of(Arc::clone(self), until);
        self.subscribers().push(Arc::downgrade(&subscriber));
        subscriber
    }

    /// `bytes`, which count until the last of them is dropped, wherever they are then. They count
    /// over the bound if need be: see [`Account::relieve`].
    pub(crate) fn hold<T>(self: &Arc<Self>, bytes: T) -> Bytes
    where
        T: AsRef<[u8]> + Send + 'static,
    {
        let count = bytes.as_ref().len();
        self.bytes.fetch_add(count, Ordering::Relaxed);
        self.backlog.bytes.inc_by(signed(count));
        Bytes::from_owner(Held { bytes, count, account: Arc::clone(self) })
    }

    /// Cuts who is furthest behind until the bounds hold: among the caller's own streams first. No
    /// lock may be held that a subscriber needs.
    pub(super) fn relieve(&self) {
        if self.is_over() {
            cut(self.all(), || self.is_over());
        }
        if self.backlog.is_over() {
            self.backlog.relieve();
        }
    }

    /// Whether its streams hold more than they may, though those behind were cut: the rest comes
    /// back only as it is sent.
    pub(super) fn is_full(&self) -> bool {
        self.is_over() || self.backlog.is_over() && self.bytes() > self.backlog.alike()
    }

    fn is_over(&self) -> bool {
        self.bytes() > self.backlog.bytes_max / CALLERS_PART
    }

    /// Forgets a subscriber that goes.
    pub(super) fn forget(&self, subscriber: &Subscriber) {
        let mut subscribers = self.subscribers();
        if let Some(at) = subscribers.iter().position(|one| std::ptr::eq(one.as_ptr(), subscriber))
        {
            subscribers.swap_remove(at);
        }
    }

    fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn all(&self) -> Vec<Arc<Subscriber>> {
        self.subscribers().iter().filter_map(Weak::upgrade).collect()
    }

    fn subscribers(&self) -> MutexGuard<'_, Vec<Weak<Subscriber>>> {
        // Nothing panics while it is held, and no subscriber is dropped: that takes it, too.
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cuts `subscribers`, those first that are furthest behind, while it `is_needed`. For whom no more
/// waits than it takes at a time is not behind: it may be reading as fast as it can.
fn cut(subscribers: Vec<Arc<Subscriber>>, is_needed: impl Fn() -> bool) {
    let mut behind: Vec<_> = subscribers
        .into_iter()
        .map(|subscriber| (subscriber.waiting_bytes(), subscriber))
        .filter(|(bytes, _)| *bytes > SERVING_BYTES)
        .collect();
    behind.sort_unstable_by_key(|(bytes, _)| Reverse(*bytes));
    for (_, subscriber) in behind {
        if !is_needed() {
            return;
        }
        subscriber.cut();
    }
}

/// A metric counts in both directions.
fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Held<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        self.account.bytes.fetch_sub(self.count, Ordering::Relaxed);
        self.account.backlog.bytes.dec_by(signed(self.count));
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let mut accounts = self.backlog.accounts();
        // Another one may have begun meanwhile.
        if accounts.get(&self.caller).is_some_and(|account| account.strong_count() == 0) {
            accounts.remove(&self.caller);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::stream::{End, Shown};

    const KIB: usize = 1024;
    const MAX: usize = 4096 * KIB;

    fn backlog() -> Arc<Backlog> {
        Backlog::with(Gauge::default(), MAX)
    }

    /// A stream of `caller`'s, for which so much waits.
    fn behind(backlog: &Arc<Backlog>, caller: &str, kib: &[usize]) -> Arc<Subscriber> {
        let subscriber = backlog.account(&caller.into()).subscriber(Until::Ended);
        for kib in kib {
            show(&[&subscriber], *kib);
        }
        subscriber
    }

    /// Shows streams of one caller an event.
    fn show(subscribers: &[&Arc<Subscriber>], kib: usize) {
        let account = subscribers[0].account();
        let bytes = account.hold(vec![b'x'; kib * KIB]);
        for subscriber in subscribers {
            subscriber.take(&[Shown { bytes: bytes.clone(), seq: 1, state: None }]);
        }
        drop(bytes);
        account.relieve();
    }

    fn check<const N: usize>(subscribers: [&Arc<Subscriber>; N], cut: [bool; N]) {
        let ends = subscribers.map(|one| one.rest().and_then(|(_, end)| end));
        assert_eq!(ends, cut.map(|is_cut| is_cut.then_some(End::Crowded)));
    }

    #[test]
    fn the_callers_own_stream_that_is_furthest_behind_is_cut() {
        let backlog = backlog();
        let other = behind(&backlog, "ben", &[900]);
        let near = behind(&backlog, "ann", &[200, 100]);
        let far = behind(&backlog, "ann", &[300, 200]);
        let last = behind(&backlog, "ann", &[400]);
        check([&other, &near, &far, &last], [false, false, true, false]);
        assert_eq!(backlog.bytes.get(), 0, "all of it is read or gone");
    }

    #[test]
    fn as_many_are_cut_as_it_takes_and_none_that_keeps_up() {
        let backlog = backlog();
        let quick = behind(&backlog, "ann", &[60]);
        let [one, two, three] = [400, 300, 200].map(|kib| behind(&backlog, "ann", &[kib]));
        let large = behind(&backlog, "ann", &[700]);
        // The largest is what passes the bound, and on its way it cannot be taken back.
        check([&large, &one, &two], [true, false, false]);
        let sent = backlog.account(&"ann".into()).hold(vec![0; MAX / CALLERS_PART + 1]);
        show(&[&two], 100);
        check([&two, &three, &quick], [true, true, false]);
        assert!(backlog.account(&"ann".into()).is_over());
        drop(sent);
        assert!(!backlog.account(&"ann".into()).is_over());
    }

    #[test]
    fn an_event_counts_once_for_all_who_follow_its_task() {
        let backlog = backlog();
        let [one, two] = [(); 2].map(|()| behind(&backlog, "ann", &[]));
        show(&[&one, &two], 900);
        assert_eq!(usize::try_from(backlog.bytes.get()).unwrap(), 900 * KIB);
        check([&one], [false]);
        assert_eq!(usize::try_from(backlog.bytes.get()).unwrap(), 900 * KIB, "the other waits");
        check([&two], [false]);
        assert_eq!(backlog.bytes.get(), 0);
    }

    #[test]
    fn who_holds_little_loses_no_stream_for_what_others_do_not_read() {
        let backlog = backlog();
        let modest = behind(&backlog, "zoe", &[500]);
        // Each has its part on its way, where nothing is cut.
        let names: Vec<_> = (0..4).map(|index| index.to_string()).collect();
        let sent: Vec<_> = names
            .iter()
            .map(|name| backlog.account(&name.as_str().into()).hold(vec![0; 900 * KIB]))
            .collect();
        let greedy: Vec<_> = names.iter().map(|name| behind(&backlog, name, &[100])).collect();
        assert!(backlog.is_over());
        show(&[&modest], 100);
        let is_full = |name: &str| backlog.account(&name.into()).is_full();
        assert_eq!([is_full("0"), is_full("zoe"), is_full("new")], [true, false, false]);
        check([&modest, &greedy[0], &greedy[3]], [false, true, true]);
        drop(sent);
        assert!(!backlog.is_over());
    }

    #[test]
    fn what_is_on_its_way_counts_until_it_is_sent() {
        let backlog = backlog();
        let slow = behind(&backlog, "ann", &[40, 40, 40]);
        let (serving, end) = slow.next().now_or_never().unwrap();
        assert_eq!((serving.len(), end), (1, None), "no more than it sends in one go");
        // What it has not taken can still be let go.
        slow.cut();
        assert_eq!(usize::try_from(backlog.bytes.get()).unwrap(), 40 * KIB);
        drop(slow);
        drop(serving);
        assert_eq!(backlog.bytes.get(), 0);
    }

    #[test]
    fn callers_without_a_stream_are_forgotten() {
        let backlog = backlog();
        let stays = behind(&backlog, "ann", &[]);
        drop(behind(&backlog, "ann", &[]));
        drop(behind(&backlog, "ben", &[]));
        assert_eq!(backlog.accounts().len(), 1);
        assert_eq!(backlog.account(&"ann".into()).subscribers().len(), 1);
        let sent = backlog.account(&"ann".into()).hold(vec![0; 8]);
        drop(stays);
        assert_eq!(backlog.accounts().len(), 1, "something is still on its way");
        drop(sent);
        assert!(backlog.accounts().is_empty());
    }
}
