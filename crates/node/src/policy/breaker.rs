//! Sparing callers the wait for a server that does not answer.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Failures in a row after which the server is not asked for a while.
const FAILURES_MAX: u32 = 5;

/// The first pause; each further one is twice as long, up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(200);

/// The longest pause. Nothing is allowed while the server is away, so it is short.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Counts failures, and says whether to ask. Time comes in as an argument, on a clock that never
/// goes back.
#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// While there are too many failures: how long the pause is, and when it ends.
    pause: Duration,
    ends: Duration,
    /// Somebody finds out whether the pause is over for good.
    probing: bool,
}

/// Leave to ask once. Dropped without a word it says nothing of the server.
pub(super) struct Leave<'a> {
    breaker: &'a Breaker,
    probe: bool,
}

impl Breaker {
    /// Leave to ask at `now`; none while the server is spared, or somebody else tries it.
    pub(super) fn leave(&self, now: Duration) -> Option<Leave<'_>> {
        let mut state = self.state();
        let probe = state.failures >= FAILURES_MAX;
        if probe && (state.probing || now < state.ends) {
            return None;
        }
        state.probing |= probe;
        Some(Leave { breaker: self, probe })
    }

    /// How it stands, as metrics have it: 0 closed, 1 open, 2 half-open.
    pub(super) fn stands(&self) -> i64 {
        let state = self.state();
        match (state.failures >= FAILURES_MAX, state.probing) {
            (false, _) => 0,
            (true, false) => 1,
            (true, true) => 2,
        }
    }

    /// The server was seen to be there.
    pub(super) fn reset(&self) {
        *self.state() = State::default();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held, and every value of it is a good one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Leave<'_> {
    /// The server answered.
    pub(super) fn answered(self) {
        self.breaker.reset();
    }

    /// The server failed at `now`. Whether it is spared from here on and was not before.
    pub(super) fn failed(self, now: Duration) -> bool {
        let mut state = self.breaker.state();
        state.failures = state.failures.saturating_add(1);
        let opens = state.failures == FAILURES_MAX;
        if opens || self.probe {
            state.pause = (state.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
            state.ends = now + state.pause;
        }
        opens
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if self.probe {
            self.breaker.state().probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn broken() -> Breaker {
        let breaker = Breaker::default();
        for number in 1..=FAILURES_MAX {
            let opens = breaker.leave(at(0)).unwrap().failed(at(0));
            assert_eq!(opens, number == FAILURES_MAX);
        }
        breaker
    }

    #[test]
    fn a_dead_server_is_spared_and_tried_by_one_at_a_time() {
        let breaker = broken();
        assert!(breaker.leave(at(199)).is_none());
        let probe = breaker.leave(at(200)).unwrap();
        assert!(breaker.leave(at(200)).is_none(), "one at a time");
        assert!(!probe.failed(at(200)));
        assert!(breaker.leave(at(599)).is_none(), "the next pause is longer");
        breaker.leave(at(600)).unwrap().answered();
        assert!(breaker.leave(at(600)).is_some() && breaker.leave(at(600)).is_some());
    }

    #[test]
    fn pauses_have_a_longest() {
        let breaker = broken();
        let mut now = at(0);
        for _ in 0..20 {
            now += PAUSE_MAX;
            breaker.leave(now).unwrap().failed(now);
        }
        assert!(breaker.leave(now + PAUSE_MAX - at(1)).is_none());
        assert!(breaker.leave(now + PAUSE_MAX).is_some());
    }

    #[test]
    fn who_gives_up_leaves_the_trial_to_others() {
        let breaker = broken();
        drop(breaker.leave(at(200)).unwrap());
        assert!(breaker.leave(at(200)).is_some());
    }

    #[test]
    fn one_answer_forgets_the_failures() {
        let breaker = Breaker::default();
        for _ in 0..3 * FAILURES_MAX {
            assert!(!breaker.leave(at(0)).unwrap().failed(at(0)));
            breaker.leave(at(0)).unwrap().answered();
        }
    }
}
