//! When an agent that keeps failing is left alone.

use std::time::Duration;

use convoke_agent::BreakerSettings;

use crate::backoff::share;

/// Outcomes that the rate of failures is taken over.
///
/// Source: reference P10, less than 50 % success over 20 samples; the failures in a row beside it
/// are the configuration's.
const RECENT: u32 = 20;

/// Each opening in succession lasts twice as long as the one before, up to this many times
/// `open_for`: an agent that is down for hours is asked seldom, and still found soon when it is
/// back.
const GROWTH_MAX: u32 = 4;

/// Whether calls are let through to one agent at one address.
///
/// ```text
///            failures in a row, or most of the last twenty
///   closed ────────────────────────────────────────────────▶ open
///      ▲                                                    │   ▲
///      │ it answers                     `open_for` is over  │   │ it fails
///      └─────────────────────── half-open ◀─────────────────┘   │
///                                   └───────────────────────────┘
/// ```
///
/// Time and chance come in as arguments. Every call that is let through has a [`Pass`], and a pass
/// from before the last change says nothing any more: an agent that has just come back is not shut
/// out by the calls that it failed while it was down.
#[derive(Debug)]
pub(crate) struct Breaker {
    phase: Phase,
    /// Counts changes of the phase.
    generation: u64,
    /// Openings in succession, by which their length grows.
    openings: u32,
    /// How long the last opening lasts, and when it was over.
    open_for: Duration,
    closed_at: Duration,
}

#[derive(Debug)]
enum Phase {
    Closed {
        in_a_row: u32,
        /// The last outcomes, a failure being a one, and how many there are.
        recent: u32,
        count: u32,
    },
    Open {
        until: Duration,
    },
    /// One call is out to see, since then.
    HalfOpen {
        since: Duration,
    },
}

/// Whether calls are let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// All of them.
    Closed,
    /// None.
    Open,
    /// One, to see how it goes.
    HalfOpen,
}

/// Permission for one call, to be given back with its [`Outcome`].
#[derive(Debug, Clone, Copy)]
#[must_use = "a probe that is not recorded keeps all others waiting"]
pub(crate) struct Pass {
    generation: u64,
}

/// What a call says of the agent that it was made to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It answers, be it with a refusal.
    Works,
    /// It does not.
    Fails,
    /// Nothing: the call was given up, or ended for a reason of its own.
    Nothing,
}

impl Breaker {
    pub(crate) fn new() -> Self {
        Self {
            phase: Phase::closed(),
            generation: 0,
            openings: 0,
            open_for: Duration::ZERO,
            closed_at: Duration::ZERO,
        }
    }

    /// How long calls will still be refused; `None` if one would be let through.
    pub(crate) fn held(&self, now: Duration) -> Option<Duration> {
        let until = match self.phase {
            Phase::Closed { .. } => return None,
            Phase::Open { until } => until,
            // A probe may have hours to wait for its answer, and others have not.
            Phase::HalfOpen { since } => since.saturating_add(self.open_for),
        };
        until.checked_sub(now).filter(|left| !left.is_zero())
    }

    /// Lets one call through, or says how long none will be.
    pub(crate) fn admit(&mut self, now: Duration) -> Result<Pass, Duration> {
        if let Some(left) = self.held(now) {
            return Err(left);
        }
        match &mut self.phase {
            Phase::Closed { .. } => {}
            Phase::Open { .. } => self.enter(Phase::HalfOpen { since: now }),
            // The probe before it still counts: slow is not the same as down.
            Phase::HalfOpen { since } => *since = now,
        }
        Ok(Pass { generation: self.generation })
    }

    /// Takes a pass back; `random` is any 64 random bits.
    pub(crate) fn record(
        &mut self,
        settings: &BreakerSettings,
        pass: Pass,
        outcome: Outcome,
        now: Duration,
        random: u64,
    ) {
        if pass.generation != self.generation {
            return;
        }
        match (&mut self.phase, outcome) {
            (Phase::Closed { in_a_row, recent, count }, Outcome::Works | Outcome::Fails) => {
                let failed = outcome == Outcome::Fails;
                *in_a_row = if failed { in_a_row.saturating_add(1) } else { 0 };
                *recent = (*recent << 1 | u32::from(failed)) & ((1 << RECENT) - 1);
                *count = (*count + 1).min(RECENT);
                let mostly = *count == RECENT && recent.count_ones() * 2 > RECENT;
                let enough = *in_a_row >= settings.failures_max || mostly;
                if failed && enough && settings.failures_max > 0 {
                    self.open(settings, now, random);
                }
            }
            (Phase::HalfOpen { .. }, Outcome::Works) => {
                self.closed_at = now;
                self.enter(Phase::closed());
            }
            (Phase::HalfOpen { .. }, Outcome::Fails) => self.open(settings, now, random),
            // The next call finds out instead.
            (Phase::HalfOpen { .. }, Outcome::Nothing) => self.enter(Phase::Open { until: now }),
            (Phase::Closed { .. }, Outcome::Nothing) | (Phase::Open { .. }, _) => {}
        }
    }

    pub(crate) fn state(&self) -> BreakerState {
        match self.phase {
            Phase::Closed { .. } => BreakerState::Closed,
            Phase::Open { .. } => BreakerState::Open,
            Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    fn open(&mut self, settings: &BreakerSettings, now: Duration, random: u64) {
        // Who was well for only as long as it was shut out has not recovered.
        let recovered = matches!(self.phase, Phase::Closed { .. })
            && now.saturating_sub(self.closed_at) > self.open_for;
        self.openings = if recovered { 1 } else { self.openings.saturating_add(1) };
        let doublings = (self.openings - 1).min(GROWTH_MAX.ilog2());
        let least = settings.open_for.saturating_mul(1 << doublings);
        // Callers that were shut out together should not come back together.
        self.open_for = least.saturating_add(share(least / 4, random));
        self.enter(Phase::Open { until: now.saturating_add(self.open_for) });
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation += 1;
    }
}

impl Phase {
    fn closed() -> Self {
        Self::Closed { in_a_row: 0, recent: 0, count: 0 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTINGS: BreakerSettings =
        BreakerSettings { failures_max: 5, open_for: Duration::from_secs(30) };

    fn secs(secs: f64) -> Duration {
        Duration::from_secs_f64(secs)
    }

    /// Makes a call that ends at once.
    fn call(breaker: &mut Breaker, outcome: Outcome, now: Duration) -> Result<(), Duration> {
        let pass = breaker.admit(now)?;
        breaker.record(&SETTINGS, pass, outcome, now, 0);
        Ok(())
    }

    /// `w`, `f` and `n` are calls that work, fail and say nothing; then the state is this.
    fn check(outcomes: &str, expected: BreakerState) {
        let mut breaker = Breaker::new();
        for outcome in outcomes.chars() {
            let outcome = match outcome {
                'w' => Outcome::Works,
                'f' => Outcome::Fails,
                _ => Outcome::Nothing,
            };
            call(&mut breaker, outcome, Duration::ZERO).expect(outcomes);
        }
        assert_eq!(breaker.state(), expected, "{outcomes}");
    }

    #[test]
    fn it_opens_after_failures_in_a_row_or_when_most_fail() {
        use BreakerState::{Closed, Open};
        check("", Closed);
        check("ffff", Closed);
        check("fffff", Open);
        check("ffffwffff", Closed);
        // What says nothing neither counts nor excuses.
        check("ffffnnnnf", Open);
        check("nnnnnnnn", Closed);
        // Ten of twenty are not most of them, eleven are.
        check("wfwfwfwfwfwfwfwfwfwf", Closed);
        check("wfwfwfwfwfwfwfwfwfff", Open);
        check("ffwffwffwffwffw", Closed);
        check("ffwffwffwffwffwffwff", Open);
    }

    #[test]
    fn it_never_opens_when_it_is_switched_off() {
        let (mut breaker, off) = (Breaker::new(), BreakerSettings { failures_max: 0, ..SETTINGS });
        for _ in 0..100 {
            let pass = breaker.admit(Duration::ZERO).unwrap();
            breaker.record(&off, pass, Outcome::Fails, Duration::ZERO, 0);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::new();
        (0..5).for_each(|_| call(&mut breaker, Outcome::Fails, Duration::ZERO).unwrap());
        breaker
    }

    #[test]
    fn one_call_finds_out_whether_it_is_over() {
        let mut breaker = opened();
        assert_eq!(breaker.admit(Duration::ZERO).unwrap_err(), secs(30.0));
        assert_eq!(breaker.admit(secs(29.0)).unwrap_err(), secs(1.0));
        let probe = breaker.admit(secs(30.0)).unwrap();
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert_eq!(breaker.admit(secs(31.0)).unwrap_err(), secs(29.0));
        breaker.record(&SETTINGS, probe, Outcome::Works, secs(31.0), 0);
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert!(breaker.admit(secs(31.0)).is_ok());
    }

    #[test]
    fn a_probe_that_says_nothing_leaves_it_to_the_next() {
        let mut breaker = opened();
        let probe = breaker.admit(secs(30.0)).unwrap();
        breaker.record(&SETTINGS, probe, Outcome::Nothing, secs(31.0), 0);
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(breaker.admit(secs(31.0)).is_ok());
    }

    #[test]
    fn a_probe_that_takes_long_is_joined_by_another_and_still_counts() {
        for slow_ends_first in [true, false] {
            let mut breaker = opened();
            let slow = breaker.admit(secs(30.0)).unwrap();
            let next = breaker.admit(secs(60.0)).unwrap();
            assert_eq!(breaker.admit(secs(61.0)).unwrap_err(), secs(29.0));
            let (first, last) = if slow_ends_first { (slow, next) } else { (next, slow) };
            breaker.record(&SETTINGS, first, Outcome::Works, secs(62.0), 0);
            assert_eq!(breaker.state(), BreakerState::Closed);
            breaker.record(&SETTINGS, last, Outcome::Fails, secs(63.0), 0);
            assert_eq!(breaker.state(), BreakerState::Closed);
        }
    }

    #[test]
    fn each_failed_probe_is_followed_by_a_longer_wait_up_to_a_bound() {
        let mut breaker = opened();
        let mut now = Duration::ZERO;
        for expected in [30.0, 60.0, 120.0, 120.0, 120.0] {
            let left = breaker.admit(now).unwrap_err();
            assert_eq!(left, secs(expected));
            now += left;
            call(&mut breaker, Outcome::Fails, now).unwrap();
        }
        // Back for a moment only: the wait stays long.
        now += secs(120.0);
        call(&mut breaker, Outcome::Works, now).unwrap();
        (0..5).for_each(|_| call(&mut breaker, Outcome::Fails, now).unwrap());
        assert_eq!(breaker.admit(now).unwrap_err(), secs(120.0));
        // Back for longer than it was shut out: all is forgotten.
        now += secs(120.0);
        call(&mut breaker, Outcome::Works, now).unwrap();
        now += secs(121.0);
        (0..5).for_each(|_| call(&mut breaker, Outcome::Fails, now).unwrap());
        assert_eq!(breaker.admit(now).unwrap_err(), secs(30.0));
    }

    #[test]
    fn calls_of_another_time_say_nothing() {
        let mut breaker = Breaker::new();
        let late: Vec<Pass> = (0..20).map(|_| breaker.admit(Duration::ZERO).unwrap()).collect();
        (0..5).for_each(|_| call(&mut breaker, Outcome::Fails, Duration::ZERO).unwrap());
        breaker.record(&SETTINGS, late[0], Outcome::Works, secs(1.0), 0);
        assert_eq!(breaker.state(), BreakerState::Open);
        call(&mut breaker, Outcome::Works, secs(30.0)).unwrap();
        for pass in late {
            breaker.record(&SETTINGS, pass, Outcome::Fails, secs(31.0), 0);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    proptest! {
        /// Whatever happens in whichever order, no probe goes out before its time, nor sooner than
        /// that after another that is still out, and there is always a way back.
        #[test]
        fn the_rules_hold(
            steps in proptest::collection::vec((0_u64..40_000, 0_u8..3, any::<bool>(), any::<u64>()), 1..300),
        ) {
            let mut breaker = Breaker::new();
            let (mut now, mut out) = (Duration::ZERO, Vec::new());
            let (mut opened_at, mut probed_at) = (None, None);
            for (millis, outcome, begin, random) in steps {
                now += Duration::from_millis(millis);
                let before = breaker.state();
                if begin {
                    match breaker.admit(now) {
                        Ok(pass) => {
                            if let Some(at) = opened_at.take() {
                                prop_assert!(now - at >= SETTINGS.open_for);
                            }
                            match (before, probed_at) {
                                (BreakerState::Closed, _) => {}
                                (BreakerState::HalfOpen, Some(at)) => {
                                    prop_assert!(now - at >= SETTINGS.open_for);
                                    probed_at = Some(now);
                                }
                                _ => probed_at = Some(now),
                            }
                            out.push(pass);
                        }
                        Err(left) => {
                            prop_assert!(before != BreakerState::Closed);
                            prop_assert!(left <= SETTINGS.open_for * 5);
                        }
                    }
                } else if !out.is_empty() {
                    let pass = out.swap_remove(usize::from(outcome) % out.len());
                    let outcome = [Outcome::Works, Outcome::Fails, Outcome::Nothing][usize::from(outcome)];
                    breaker.record(&SETTINGS, pass, outcome, now, random);
                    if before != BreakerState::Open
                        && breaker.state() == BreakerState::Open
                        && outcome == Outcome::Fails
                    {
                        opened_at = Some(now);
                    }
                }
            }
            // All who are out come back, and after the longest wait there is a way in.
            for pass in out {
                breaker.record(&SETTINGS, pass, Outcome::Nothing, now, 0);
            }
            prop_assert!(breaker.admit(now + SETTINGS.open_for * 5).is_ok());
        }
    }
}
