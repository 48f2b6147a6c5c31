//! How many requests are worked on at a time, who waits for a moment, and who is turned away.
//!
//! A node that takes on more than it can do does everything late, and late answers are worth
//! nothing. So at most `requests_max` requests are at work, a caller has at most a quarter of them,
//! and what finds no place waits in a queue of its caller's. Callers take turns.
//!
//! The queue smooths bursts. Once it has stood for longer than a request may wait, it is no burst:
//! then the latest request goes first, because it is the one whose caller still waits, and the
//! others are turned away after a few milliseconds, so that their callers can go elsewhere.
//!
//! Places bound what waits for something. They do not bound what computes: there the queue is that
//! of the runtime. [`Line`] knows how long it is by what handlers take, and who would wait too long
//! is turned away; [`Pressure`] sheds when the runtime is late for any other reason.
//!
//! Sources: controlled delay after RFC 8289; last in, first out under pressure after B. Maurer,
//! "Fail at Scale", ACM Queue 13(8).

mod line;
mod pressure;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use convoke_model::{Fault, FaultCode};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::path_metrics::{PathMetrics, Rejection};

pub(crate) use line::Line;
pub(crate) use pressure::Pressure;

/// The part of all places that one caller may have: the others are not to wait for it.
pub(crate) const CALLERS_PART: usize = 4;

/// The part of all places that there are again for what must not wait.
const URGENT_PART: usize = 8;

/// Fewest places for what must not wait, however few others there are.
const URGENT_MIN: usize = 16;

/// How long a request waits once the queue has stood for too long.
///
/// Source: the reliability reference wants refusals within 5 ms.
const WAIT_UNDER_PRESSURE: Duration = Duration::from_millis(4);

/// The places of one agent.
pub(crate) struct Admission {
    state: Mutex<State>,
    places: usize,
    places_of_one: usize,
    urgent: usize,
    queue_time_max: Duration,
    pub(crate) pressure: Pressure,
    pub(crate) line: Line,
    metrics: PathMetrics,
}

/// A place, held until it is dropped.
pub(crate) struct Place {
    admission: Arc<Admission>,
    caller: Arc<str>,
    urgent: bool,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    /// All places are taken.
    #[error("the agent is at work on as many requests as it can; try again later")]
    All,
    /// The caller has taken its part of them.
    #[error("you have as many requests at work here as one caller may; try again later")]
    Caller,
    /// There are places, but the processor is behind.
    #[error("the agent is behind with its work; try again later")]
    Behind,
}

#[derive(Default)]
struct State {
    at_work: usize,
    urgent: usize,
    waiting: usize,
    /// Callers that have a place or wait for one, and no others.
    callers: HashMap<Arc<str>, Share>,
    /// The callers that wait, in the order of their turns.
    turns: VecDeque<Arc<str>>,
    /// Since when the queue has not been empty.
    standing_since: Option<Instant>,
    last_ticket: u64,
}

/// One caller's part.
#[derive(Default)]
struct Share {
    at_work: usize,
    urgent: usize,
    /// The oldest first, so in the order of their tickets.
    waiting: VecDeque<Waiter>,
}

impl Share {
    fn is_idle(&self) -> bool {
        self.at_work == 0 && self.urgent == 0 && self.waiting.is_empty()
    }
}

struct Waiter {
    ticket: u64,
    call: oneshot::Sender<Place>,
}

impl Admission {
    /// `places` for everybody together, for which a request waits at most `queue_time_max`.
    pub(crate) fn new(places: usize, queue_time_max: Duration, metrics: PathMetrics) -> Arc<Self> {
        let part = |of: usize| places.div_ceil(of).max(1);
        Arc::new(Self {
            state: Mutex::default(),
            places: places.max(1),
            places_of_one: part(CALLERS_PART),
            urgent: part(URGENT_PART).max(URGENT_MIN),
            queue_time_max,
            pressure: Pressure::new(queue_time_max),
            line: Line::new(queue_time_max),
            metrics,
        })
    }

    /// A place for a request of `caller` without waiting; `None` if it would have to wait.
    ///
    /// # Errors
    ///
    /// [`Full::Behind`] if the processors are behind, and the request is turned away unseen.
    pub(crate) fn enter_now(self: &Arc<Self>, caller: &Arc<str>) -> Result<Option<Place>, Full> {
        if self.line.is_long() || self.pressure.sheds() {
            self.metrics.rejected(Rejection::Behind);
            return Err(Full::Behind);
        }
        let mut state = self.state();
        let State { at_work, callers, .. } = &mut *state;
        if *at_work >= self.places {
            return Ok(None);
        }
        let share = callers.entry(Arc::clone(caller)).or_default();
        // Its earlier requests have not had their turn.
        if share.at_work >= self.places_of_one || !share.waiting.is_empty() {
            return Ok(None);
        }
        share.at_work += 1;
        *at_work += 1;
        Ok(Some(self.place(caller, false)))
    }

    /// Waits for a place for a request of `caller`, which may have a deadline of its own.
    ///
    /// # Errors
    ///
    /// [`Full`] if there was none in time.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        caller: &Arc<str>,
        deadline: Option<Instant>,
    ) -> Result<Place, Full> {
        let (mut waiting, until) = match self.stand_in_line(caller) {
            Ok(Standing::Place(place)) => return Ok(place),
            Ok(Standing::Waiting(waiting, until)) => (waiting, until),
            Err(full) => return Err(self.turn_away(full)),
        };
        let until = deadline.map_or(until, |deadline| deadline.min(until));
        match timeout_at(until, &mut waiting.called).await {
            Ok(Ok(place)) => Ok(place),
            // Somebody younger took its place in a full queue, or its time is over.
            Ok(Err(_)) | Err(_) => Err(self.turn_away(self.why_full(caller))),
        }
    }

    /// A place for what must not wait: the end of work makes room. There is a bound all the same.
    ///
    /// # Errors
    ///
    /// [`Full`] if even these places are taken.
    pub(crate) fn enter_urgently(self: &Arc<Self>, caller: &Arc<str>) -> Result<Place, Full> {
        let mut state = self.state();
        let of_one = self.urgent.div_ceil(CALLERS_PART);
        let full = if state.urgent >= self.urgent {
            Some(Full::All)
        } else {
            let share = state.callers.entry(Arc::clone(caller)).or_default();
            (share.urgent >= of_one).then_some(Full::Caller)
        };
        if let Some(full) = full {
            drop(state);
            return Err(self.turn_away(full));
        }
        state.urgent += 1;
        state.callers.entry(Arc::clone(caller)).or_default().urgent += 1;
        Ok(self.place(caller, true))
    }

    fn stand_in_line(self: &Arc<Self>, caller: &Arc<str>) -> Result<Standing, Full> {
        let now = Instant::now();
        let mut guard = self.state();
        let state = &mut *guard;
        let share = state.callers.entry(Arc::clone(caller)).or_default();
        let has_room = share.at_work < self.places_of_one;
        if state.at_work < self.places && has_room && share.waiting.is_empty() {
            share.at_work += 1;
            state.at_work += 1;
            return Ok(Standing::Place(self.place(caller, false)));
        }
        // As many may wait as may work, each caller up to its part; in a full line the oldest gives
        // way, since it is the next to be late.
        let mut gives_way = None;
        if share.waiting.len() >= self.places_of_one {
            gives_way = share.waiting.pop_front();
            state.waiting -= 1;
        } else if state.waiting >= self.places {
            if share.at_work == 0 && share.waiting.is_empty() {
                state.forget_idle(caller);
            }
            return Err(Full::All);
        }
        let share = state.callers.entry(Arc::clone(caller)).or_default();
        if share.waiting.is_empty() && gives_way.is_none() {
            state.turns.push_back(Arc::clone(caller));
        }
        state.last_ticket += 1;
        let (call, called) = oneshot::channel();
        share.waiting.push_back(Waiter { ticket: state.last_ticket, call });
        state.waiting += 1;
        let since = *state.standing_since.get_or_insert(now);
        let patience = if now - since > self.queue_time_max {
            WAIT_UNDER_PRESSURE.min(self.queue_time_max)
        } else {
            self.queue_time_max
        };
        let ticket = state.last_ticket;
        let waiting =
            Waiting { admission: Arc::clone(self), caller: Arc::clone(caller), ticket, called };
        drop(guard);
        // Tells whoever waits there; not under the lock, because that may run code of a waker.
        drop(gives_way);
        Ok(Standing::Waiting(waiting, now + patience))
    }

    /// Gives a place back, or rather on to whoever's turn it is.
    fn leave(self: &Arc<Self>, caller: &Arc<str>, urgent: bool) {
        let mut state = self.state();
        let Some(share) = state.callers.get_mut(caller) else { return };
        if urgent {
            share.urgent -= 1;
        } else {
            share.at_work -= 1;
        }
        // Most callers are at work on something else, and looking them up again costs.
        if share.is_idle() {
            state.callers.remove(caller);
        }
        if urgent {
            state.urgent -= 1;
        } else {
            state.at_work -= 1;
        }
        let next = if urgent { None } else { self.next(&mut state) };
        drop(state);
        if let Some((caller, waiter)) = next {
            // Whoever has stopped to wait meanwhile gives the place back by dropping it here.
            let _given_back = waiter.call.send(self.place(&caller, false));
        }
    }

    /// Takes the next waiter out of the queue and a place for it.
    fn next(&self, state: &mut State) -> Option<(Arc<str>, Waiter)> {
        if state.at_work >= self.places {
            return None;
        }
        let pressed =
            state.standing_since.is_some_and(|since| since.elapsed() > self.queue_time_max);
        // No more callers can have all of their part than there are parts.
        for _ in 0..state.turns.len().min(CALLERS_PART + 1) {
            let caller = state.turns.pop_front()?;
            let Some(share) = state.callers.get_mut(&caller) else { continue };
            if share.at_work >= self.places_of_one {
                state.turns.push_back(caller);
                continue;
            }
            let waiter = if pressed { share.waiting.pop_back() } else { share.waiting.pop_front() };
            let Some(waiter) = waiter else { continue };
            share.at_work += 1;
            state.at_work += 1;
            let more = !share.waiting.is_empty();
            state.one_waits_less();
            if more {
                state.turns.push_back(Arc::clone(&caller));
            }
            return Some((caller, waiter));
        }
        None
    }

    fn why_full(&self, caller: &Arc<str>) -> Full {
        let state = self.state();
        match state.callers.get(caller) {
            Some(share) if share.at_work >= self.places_of_one => Full::Caller,
            _ => Full::All,
        }
    }

    fn turn_away(&self, full: Full) -> Full {
        self.metrics.rejected(match full {
            Full::All => Rejection::Busy,
            Full::Caller => Rejection::Caller,
            Full::Behind => Rejection::Behind,
        });
        full
    }

    fn place(self: &Arc<Self>, caller: &Arc<str>, urgent: bool) -> Place {
        self.metrics.at_work.inc();
        Place { admission: Arc::clone(self), caller: Arc::clone(caller), urgent }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the state is held: it counts.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget_idle(&mut self, caller: &Arc<str>) {
        if self.callers.get(caller).is_some_and(Share::is_idle) {
            self.callers.remove(caller);
        }
    }

    fn one_waits_less(&mut self) {
        self.waiting -= 1;
        if self.waiting == 0 {
            self.standing_since = None;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.metrics.at_work.dec();
        self.admission.leave(&self.caller, self.urgent);
    }
}

enum Standing {
    Place(Place),
    Waiting(Waiting, Instant),
}

/// A place in the queue, given up when this is dropped: the request was turned away, or its caller
/// has hung up.
struct Waiting {
    admission: Arc<Admission>,
    caller: Arc<str>,
    ticket: u64,
    called: oneshot::Receiver<Place>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.admission.state();
        let Some(share) = state.callers.get_mut(&self.caller) else { return };
        let Ok(at) = share.waiting.binary_search_by_key(&self.ticket, |waiter| waiter.ticket)
        else {
            // It was called; a place that nobody took goes back with the receiver.
            return;
        };
        let gone = share.waiting.remove(at);
        let last = share.waiting.is_empty();
        state.one_waits_less();
        if last {
            state.turns.retain(|caller| *caller != self.caller);
            state.forget_idle(&self.caller);
        }
        drop(state);
        drop(gone);
    }
}

impl Full {
    /// What the caller is told.
    pub(crate) fn fault(self) -> Fault {
        let code = match self {
            Self::Caller => FaultCode::ResourceExhausted,
            Self::All | Self::Behind => FaultCode::Unavailable,
        };
        Fault::new(code, self.to_string())
    }
}

#[cfg(test)]
mod tests;
