//! How many of something one caller may have at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts by caller, so that one who takes all there is takes only its own.
#[derive(Debug)]
pub(crate) struct Quota {
    max: usize,
    /// Callers who have at least one.
    taken: Mutex<HashMap<Arc<str>, usize>>,
}

/// One of what is counted, until it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    quota: Arc<Quota>,
    caller: Arc<str>,
}

impl Quota {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, taken: Mutex::default() })
    }

    /// How many a caller may have.
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// One more for `caller`; `None` if it has all that it may have.
    pub(crate) fn take(self: &Arc<Self>, caller: &Arc<str>) -> Option<Share> {
        let mut taken = self.taken();
        let count = taken.entry(Arc::clone(caller)).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Share { quota: Arc::clone(self), caller: Arc::clone(caller) })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<Arc<str>, usize>> {
        // Nothing panics while the map is held.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.quota.taken();
        if let Some(count) = taken.get_mut(&self.caller) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_has_its_own_and_who_has_none_is_forgotten() {
        let quota = Quota::new(2);
        let (ann, ben): (Arc<str>, Arc<str>) = ("ann".into(), "ben".into());
        let first = quota.take(&ann).unwrap();
        let second = quota.take(&ann).unwrap();
        assert!(quota.take(&ann).is_none());
        assert!(quota.take(&ben).is_some());
        drop(first);
        assert!(quota.take(&ann).is_some());
        drop(second);
        assert!(quota.taken().is_empty());
    }
}
