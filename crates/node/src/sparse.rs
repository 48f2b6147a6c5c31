//! Saying the same thing not too often.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Most lines in a [`WINDOW`]. Enough to see who is at the door, too few to hurt the log.
const LINES_MAX: u32 = 10;

/// The span of time in which lines are counted.
const WINDOW: Duration = Duration::from_secs(10);

/// Bounds how often a line is written whose frequency somebody else decides.
#[derive(Debug, Default)]
pub(crate) struct Sparse(Mutex<Count>);

#[derive(Debug, Default)]
struct Count {
    began: Duration,
    said: u32,
    unsaid: u64,
}

impl Sparse {
    /// Whether the line may be written at `now`, on a clock that never goes back; then with the
    /// number of lines that were left out since the last one.
    pub(crate) fn may_say(&self, now: Duration) -> Option<u64> {
        let mut count = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_sub(count.began) >= WINDOW {
            (count.began, count.said) = (now, 0);
        }
        if count.said >= LINES_MAX {
            count.unsaid += 1;
            return None;
        }
        count.said += 1;
        Some(std::mem::take(&mut count.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_leaves_few_lines_and_a_count() {
        let sparse = Sparse::default();
        let said = |at: Duration| (0..1000).filter_map(|_| sparse.may_say(at)).collect::<Vec<_>>();
        assert_eq!(said(Duration::from_secs(1)), vec![0; 10]);
        assert_eq!(said(Duration::from_secs(9)), Vec::<u64>::new());
        let later = said(Duration::from_secs(11));
        assert_eq!((later.len(), later[0]), (10, 1990));
    }
}
