//! Rounds, pairs and what is said of them.
//!
//! Absolute figures of a shared machine drift by the minute. So contenders take turns, A B B A, and
//! only figures of the same round are divided by each other.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;

/// What one contender did in one round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Requests, handshakes or decisions that were completed and right.
    pub(crate) count: u64,
    /// How long that took.
    pub(crate) elapsed: Duration,
    /// CPU time that the process under test spent on it, where it was looked at.
    pub(crate) server_cpu: Duration,
    /// CPU time that this process spent on it, where it was looked at.
    pub(crate) generator_cpu: Duration,
}

/// A figure over the rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Sample {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.elapsed += other.elapsed;
        self.server_cpu += other.server_cpu;
        self.generator_cpu += other.generator_cpu;
    }

    /// Completions a second.
    pub(crate) fn per_second(&self) -> f64 {
        self.count as f64 / self.elapsed.as_secs_f64()
    }

    /// Server CPU for one completion, in microseconds.
    pub(crate) fn server_us(&self) -> f64 {
        self.server_cpu.as_secs_f64() * 1e6 / self.count as f64
    }

    /// This process's CPU for one completion, in microseconds.
    pub(crate) fn generator_us(&self) -> f64 {
        self.generator_cpu.as_secs_f64() * 1e6 / self.count as f64
    }
}

impl Spread {
    /// Median and extremes of `figures`.
    ///
    /// # Errors
    ///
    /// If there are none, or one of them is no number.
    pub(crate) fn of(figures: &[f64]) -> Result<Self> {
        ensure!(!figures.is_empty(), "no figures");
        ensure!(figures.iter().all(|figure| figure.is_finite()), "a figure is no number");
        let mut sorted = figures.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        let median = f64::midpoint(low, high);
        Ok(Self { median, min: sorted[0], max: sorted[sorted.len() - 1] })
    }

    /// Of what `figure` says of each round.
    ///
    /// # Errors
    ///
    /// As [`Spread::of`].
    pub(crate) fn over(rounds: &[Sample], figure: impl Fn(&Sample) -> f64) -> Result<Self> {
        Self::of(&rounds.iter().map(figure).collect::<Vec<_>>())
    }

    /// Of `ours` divided by `ceiling`, round by round.
    ///
    /// # Errors
    ///
    /// As [`Spread::of`], and if one has more rounds than the other.
    pub(crate) fn ratio(
        ours: &[Sample],
        ceiling: &[Sample],
        figure: impl Fn(&Sample) -> f64,
    ) -> Result<Self> {
        ensure!(ours.len() == ceiling.len(), "{} rounds beside {}", ours.len(), ceiling.len());
        let pairs = ours.iter().zip(ceiling);
        Self::of(&pairs.map(|(ours, ceiling)| figure(ours) / figure(ceiling)).collect::<Vec<_>>())
    }
}

/// Lets `contenders` take turns, forwards and backwards in each round, and gives the rounds of each.
///
/// # Errors
///
/// The first error of `run` ends it: a run with a wrong answer is void.
pub(crate) fn interleave(
    contenders: usize,
    rounds: usize,
    mut run: impl FnMut(usize) -> Result<Sample>,
) -> Result<Vec<Vec<Sample>>> {
    let mut taken = vec![Vec::with_capacity(rounds); contenders];
    for _ in 0..rounds {
        let mut round = vec![Sample::default(); contenders];
        for contender in (0..contenders).chain((0..contenders).rev()) {
            round[contender].add(run(contender)?);
        }
        for (taken, sample) in taken.iter_mut().zip(round) {
            taken.push(sample);
        }
    }
    Ok(taken)
}

/// The value below which `share` of `sorted` lies, by the nearest rank; nothing for no values.
///
/// `share` is between 0 and 1.
pub(crate) fn percentile<T: Copy>(sorted: &[T], share: f64) -> Option<T> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_extremes() {
        fn check(figures: &[f64], median: f64, min: f64, max: f64) {
            assert_eq!(Spread::of(figures).unwrap(), Spread { median, min, max }, "{figures:?}");
        }
        check(&[3.0], 3.0, 3.0, 3.0);
        check(&[4.0, 1.0], 2.5, 1.0, 4.0);
        check(&[9.0, 1.0, 2.0], 2.0, 1.0, 9.0);
        check(&[8.0, 1.0, 2.0, 4.0], 3.0, 1.0, 8.0);
        assert!(Spread::of(&[]).is_err());
        assert!(Spread::of(&[1.0, f64::NAN]).is_err());
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        fn check(sorted: &[u32], share: f64, expected: Option<u32>) {
            assert_eq!(percentile(sorted, share), expected, "{share} of {sorted:?}");
        }
        let hundred: Vec<u32> = (1..=100).collect();
        check(&hundred, 0.5, Some(50));
        check(&hundred, 0.99, Some(99));
        check(&hundred, 1.0, Some(100));
        check(&hundred, 0.0, Some(1));
        check(&[7], 0.99, Some(7));
        check(&[1, 2, 3], 0.5, Some(2));
        check(&[], 0.5, None);
    }

    fn sample(count: u64) -> Sample {
        let second = Duration::from_secs(1);
        Sample { count, elapsed: second, server_cpu: second, generator_cpu: second }
    }

    #[test]
    fn figures_of_one_round_are_divided() {
        // The machine was three times as fast in the second round; the ratio does not see it.
        let (ours, ceiling) = ([sample(50), sample(150)], [sample(100), sample(300)]);
        let ratio = Spread::ratio(&ours, &ceiling, Sample::per_second).unwrap();
        assert_eq!(ratio, Spread { median: 0.5, min: 0.5, max: 0.5 });
        assert!(Spread::ratio(&ours, &ceiling[..1], Sample::per_second).is_err());
        // Without a single completion there is no figure, rather than an endless one.
        assert!(Spread::over(&[sample(0)], Sample::server_us).is_err());
    }

    #[test]
    fn contenders_take_turns_there_and_back() {
        let mut order = Vec::new();
        let rounds = interleave(3, 2, |contender| {
            order.push(contender);
            Ok(sample(order.len() as u64))
        });
        assert_eq!(order, [0, 1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0]);
        let counts: Vec<Vec<u64>> = rounds
            .unwrap()
            .iter()
            .map(|rounds| rounds.iter().map(|round| round.count).collect())
            .collect();
        assert_eq!(counts, [[1 + 6, 7 + 12], [2 + 5, 8 + 11], [3 + 4, 9 + 10]]);
        assert!(interleave(1, 1, |_| anyhow::bail!("wrong answer")).is_err());
    }
}
