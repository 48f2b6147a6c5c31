//! A histogram that costs two additions to memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds for requests and calls, in seconds. Source: 0.005 to 10 are the seed project's;
/// the smaller ones are ours, because most of our requests are faster.
pub(super) const REQUEST_SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// Upper bounds for tasks, in seconds: what a model does takes minutes.
pub(super) const TASK_SECONDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0,
    3600.0,
];

/// Upper bounds for decisions, in seconds, up to the longest evaluation that is allowed.
pub(super) const DECISION_SECONDS: &[f64] = &[
    0.000_001,
    0.000_002_5,
    0.000_005,
    0.000_01,
    0.000_02,
    0.000_04,
    0.000_1,
    0.000_25,
    0.000_5,
    0.001,
    0.005,
];

/// Durations by how long they were.
#[derive(Debug)]
pub(super) struct Histogram {
    bounds: &'static [f64],
    /// One more than there are bounds: the last has no upper end.
    buckets: Box<[AtomicU64]>,
    nanos: AtomicU64,
}

/// A histogram at one moment.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) sum: f64,
    pub(super) count: u64,
    /// Upper bounds with how many durations lie below each and above the one before.
    pub(super) buckets: Vec<(f64, u64)>,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, buckets, nanos: AtomicU64::new(0) }
    }

    pub(super) fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// Its state now. What is observed meanwhile may be in the sum and not yet in the count.
    pub(super) fn show(&self) -> Shown {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        let buckets: Vec<_> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_nanos(self.nanos.load(Ordering::Relaxed)).as_secs_f64();
        Shown { sum, count, buckets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_where_they_belong() {
        let histogram = Histogram::new(&[0.001, 1.0]);
        for millis in [0, 1, 2, 1000, 1001] {
            histogram.observe(Duration::from_millis(millis));
        }
        let shown = histogram.show();
        assert_eq!(shown.buckets, [(0.001, 2), (1.0, 2), (f64::INFINITY, 1)]);
        assert_eq!((shown.count, histogram.count()), (5, 5));
        assert!((shown.sum - 2.004).abs() < 1e-9, "{}", shown.sum);
    }

    #[test]
    fn bounds_rise() {
        for bounds in [REQUEST_SECONDS, DECISION_SECONDS] {
            assert!(bounds.is_sorted(), "{bounds:?}");
        }
    }
}
