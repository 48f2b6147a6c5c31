//! How long to wait before a call is made again.

use std::time::Duration;

use convoke_agent::RetrySettings;

/// The pause after the attempt of that number, the first being 1, drawn evenly between zero and a
/// bound that doubles from attempt to attempt.
///
/// Drawn over the whole range, because callers that failed together would otherwise come again
/// together. `random` is any 64 random bits.
pub(crate) fn pause(retry: &RetrySettings, attempt: u32, random: u64) -> Duration {
    let doublings = attempt.saturating_sub(1).min(31);
    let bound = retry.backoff_min.saturating_mul(1 << doublings).min(retry.backoff_max);
    share(bound, random)
}

/// The share of `whole` that `random` is of its type's range.
pub(crate) fn share(whole: Duration, random: u64) -> Duration {
    let nanos = (whole.as_nanos().min(u128::from(u64::MAX)) * u128::from(random)) >> 64;
    // What does not fit into 64 bits of nanoseconds is over 500 years.
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(attempt: u32, random: u64, expected_ms: u64) {
        let retry = RetrySettings {
            attempts_max: 99,
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(1),
        };
        let found = pause(&retry, attempt, random).as_secs_f64() * 1e3;
        assert_eq!(found.round() as u64, expected_ms, "attempt {attempt}, random {random:x}");
    }

    #[test]
    fn the_bound_doubles_up_to_the_largest() {
        for (attempt, bound) in
            [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1000), (u32::MAX, 1000)]
        {
            check(attempt, u64::MAX, bound);
            check(attempt, u64::MAX / 2, bound / 2);
            check(attempt, 0, 0);
        }
    }

    proptest! {
        #[test]
        fn no_pause_is_longer_than_its_bound(
            min in 0_u64..1 << 40, max in 0_u64..1 << 40, attempt: u32, random: u64,
        ) {
            let (backoff_min, backoff_max) =
                (Duration::from_micros(min), Duration::from_micros(max));
            let retry = RetrySettings { attempts_max: 9, backoff_min, backoff_max };
            prop_assert!(pause(&retry, attempt, random) <= backoff_max);
        }

        #[test]
        fn more_luck_is_never_a_shorter_pause(nanos: u64, a: u64, b: u64) {
            let whole = Duration::from_nanos(nanos);
            prop_assert!(share(whole, a.min(b)) <= share(whole, a.max(b)));
            prop_assert!(share(whole, a) <= whole);
        }
    }
}
