//! How many calls may be made again, over all agents that a client calls.

use std::time::Duration;

/// Calls made again for each call made, in millionths: one in ten.
const SHARE: u64 = MILLION / 10;

/// Calls that may be made again in a second whatever the traffic, so that a client that seldom
/// calls may try again too.
const PER_SECOND: u64 = 10;

/// Most that is saved up: a second of the lowest rate and as much again for each of the next nine.
const SAVED_MAX: u64 = 100 * MILLION;

const MILLION: u64 = 1_000_000;

/// A bucket of permissions to call again.
///
/// When an agent is down, every call to it fails and wants to be made again; without a bound the
/// calls would be as many times more as there are attempts, at the worst time. With one they are a
/// tenth more, however many attempts a call may have. Source: reference R-21 asks for no more than
/// 1.2 times the calls, and 10 a second.
#[derive(Debug)]
pub(crate) struct Budget {
    /// In millionths of a call.
    saved: u64,
    refilled_at: Duration,
}

impl Budget {
    /// With a second's worth, so that the first calls may be made again.
    pub(crate) fn new(now: Duration) -> Self {
        Self { saved: PER_SECOND * MILLION, refilled_at: now }
    }

    /// A call is made for the first time.
    pub(crate) fn call(&mut self) {
        self.saved = (self.saved + SHARE).min(SAVED_MAX);
    }

    /// Takes permission to make one call again; `false` if there is none left.
    pub(crate) fn take(&mut self, now: Duration) -> bool {
        let micros = now.saturating_sub(self.refilled_at).as_micros();
        let refill = u64::try_from(micros).unwrap_or(u64::MAX).saturating_mul(PER_SECOND);
        self.saved = self.saved.saturating_add(refill).min(SAVED_MAX);
        self.refilled_at = self.refilled_at.max(now);
        match self.saved.checked_sub(MILLION) {
            Some(rest) => {
                self.saved = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taken(budget: &mut Budget, now: Duration, wanted: u64) -> u64 {
        (0..wanted).filter(|_| budget.take(now)).count() as u64
    }

    #[test]
    fn a_tenth_of_the_calls_and_ten_a_second() {
        let mut budget = Budget::new(Duration::ZERO);
        let check = |budget: &mut Budget, seconds: u64, calls: u64, expected: u64| {
            (0..calls).for_each(|_| budget.call());
            assert_eq!(taken(budget, Duration::from_secs(seconds), 1000), expected);
        };
        check(&mut budget, 0, 0, 10);
        check(&mut budget, 0, 0, 0);
        check(&mut budget, 1, 0, 10);
        check(&mut budget, 1, 200, 20);
        check(&mut budget, 1, 9, 0);
        check(&mut budget, 1, 1, 1);
        // No more is saved up than this, however long it was quiet.
        check(&mut budget, 1_000_000, 1_000_000, 100);
        // A clock that steps back gives nothing.
        check(&mut budget, 5, 0, 0);
    }

    proptest! {
        #[test]
        fn never_more_than_the_bound(steps in proptest::collection::vec((0_u64..50, 0_u64..2_000_000, 0_u64..50), 1..200)) {
            let mut budget = Budget::new(Duration::ZERO);
            let (mut now, mut calls, mut again) = (0_u64, 0_u64, 0_u64);
            for (made, micros, wanted) in steps {
                now += micros;
                calls += made;
                (0..made).for_each(|_| budget.call());
                again += taken(&mut budget, Duration::from_micros(now), wanted);
                // In tenths of a call, and the ten that it began with.
                prop_assert!(again * 10 <= calls + now / 10_000 + 100 + 1);
            }
        }
    }
}
