//! Whether the runtime is behind with its work, and which share of the requests it sheds then.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often the runtime is measured while there are requests.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks that have to agree. One late look is a turn of the scheduler that somebody else had, or one
/// long step of a handler; a queue that stands is late at every look.
const LOOKS: usize = 5;

/// Looks without a request after which nothing is measured until the next one: an idle agent does
/// not wake.
const LOOKS_IDLE: u32 = 50;

/// By how much more is shed at each look while the runtime is behind, in thousandths of all requests.
const MORE: u32 = 40;

/// Most that is shed, in thousandths: some have to come through to see that it is over.
const SHED_MAX: u32 = 950;

/// Measures how long a task waits for its turn, and sheds requests while that is longer than a
/// request may wait.
pub(crate) struct Pressure {
    lag_max: Duration,
    /// The share of requests that is shed, in thousandths.
    shed: AtomicU32,
    /// Counts requests while some are shed, so that they are picked evenly.
    turn: AtomicU32,
    /// There was a request since the last look.
    busy: AtomicBool,
    wake: Notify,
}

impl Pressure {
    pub(super) fn new(lag_max: Duration) -> Self {
        Self {
            lag_max,
            shed: AtomicU32::new(0),
            turn: AtomicU32::new(0),
            busy: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    /// Whether this request is one that is turned away unseen.
    pub(super) fn sheds(&self) -> bool {
        if !self.busy.load(Ordering::Relaxed) && !self.busy.swap(true, Ordering::Relaxed) {
            self.wake.notify_one();
        }
        let shed = self.shed.load(Ordering::Relaxed);
        if shed == 0 {
            return false;
        }
        // Spread over the requests: the whole part of `turn × shed` grows just `shed` times in a
        // thousand.
        let turn = u64::from(self.turn.fetch_add(1, Ordering::Relaxed));
        let share = u64::from(shed);
        (turn + 1) * share / 1000 != turn * share / 1000
    }

    /// Measures until `ended`.
    pub(crate) async fn watch(&self, ended: &CancellationToken) {
        let watching = async {
            let mut recent = Recent::default();
            let mut idle = 0;
            loop {
                if idle > LOOKS_IDLE {
                    self.shed.store(0, Ordering::Relaxed);
                    recent = Recent::default();
                    self.wake.notified().await;
                }
                let due = Instant::now() + LOOK_EVERY;
                tokio::time::sleep_until(due).await;
                // A timer that fires may go first; a task that yields waits for all before it.
                tokio::task::yield_now().await;
                self.look(recent.least(due.elapsed()));
                idle = if self.busy.swap(false, Ordering::Relaxed) { 0 } else { idle + 1 };
            }
        };
        tokio::select! {
            () = watching => {}
            () = ended.cancelled() => {}
        }
    }

    /// Takes account of the least lag of the last looks.
    fn look(&self, lag: Duration) {
        let shed = self.shed.load(Ordering::Relaxed);
        let next = if lag > self.lag_max {
            (shed + MORE).min(SHED_MAX)
        } else {
            // Quickly up, slowly down: what was shed wrongly comes again by itself.
            shed - shed.div_ceil(8)
        };
        if (shed == 0) != (next == 0) {
            let lag_ms = u64::try_from(lag.as_millis()).unwrap_or(u64::MAX);
            if next > 0 {
                tracing::warn!(lag_ms, "Agent is behind with its work; requests are turned away");
            } else {
                tracing::info!(lag_ms, "Agent has caught up with its work");
            }
        }
        self.shed.store(next, Ordering::Relaxed);
    }
}

/// The last looks.
#[derive(Default)]
struct Recent {
    lags: [Duration; LOOKS],
    at: usize,
}

impl Recent {
    /// Adds a look and gives the least lag of the last ones.
    fn least(&mut self, lag: Duration) -> Duration {
        self.lags[self.at] = lag;
        self.at = (self.at + 1) % LOOKS;
        self.lags.iter().copied().min().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAG_MAX: Duration = Duration::from_millis(100);

    fn shed_of_a_thousand(pressure: &Pressure) -> usize {
        (0..1000).filter(|_| pressure.sheds()).count()
    }

    #[test]
    fn a_share_is_shed_evenly() {
        let pressure = Pressure::new(LAG_MAX);
        for share in [0, 1, 40, 500, 950] {
            pressure.shed.store(share, Ordering::Relaxed);
            pressure.turn.store(0, Ordering::Relaxed);
            assert_eq!(shed_of_a_thousand(&pressure), usize::try_from(share).unwrap());
        }
        pressure.shed.store(500, Ordering::Relaxed);
        let pairs = (0..100).map(|_| [pressure.sheds(), pressure.sheds()]);
        assert!(pairs.into_iter().all(|[first, second]| first != second));
    }

    #[test]
    fn more_is_shed_while_it_lasts_and_less_afterwards() {
        let pressure = Pressure::new(LAG_MAX);
        let late = LAG_MAX + Duration::from_millis(1);
        pressure.look(LAG_MAX);
        assert_eq!(pressure.shed.load(Ordering::Relaxed), 0);
        let mut last = 0;
        while last < SHED_MAX {
            pressure.look(late);
            let now = pressure.shed.load(Ordering::Relaxed);
            assert!(now > last);
            last = now;
        }
        pressure.look(late);
        assert_eq!(pressure.shed.load(Ordering::Relaxed), SHED_MAX);
        let looks = (0..1000).take_while(|_| {
            pressure.look(Duration::ZERO);
            pressure.shed.load(Ordering::Relaxed) > 0
        });
        assert!(looks.count() < 60, "it comes to an end");
    }

    #[test]
    fn one_long_step_is_no_queue() {
        let mut recent = Recent::default();
        let long = Duration::from_secs(9);
        let least: Vec<_> = (0..LOOKS).map(|_| recent.least(long)).collect();
        assert_eq!(least[..LOOKS - 1], vec![Duration::ZERO; LOOKS - 1]);
        assert_eq!(least[LOOKS - 1], long, "a queue that stands is late every time");
        assert_eq!(recent.least(Duration::ZERO), Duration::ZERO);
    }
}
