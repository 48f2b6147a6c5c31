//! The clocks of this process, read in one place.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use convoke_model::UnixMillis;

/// Tells the time of day, and time that only goes forward.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { origin: Instant::now() }
    }

    /// The time of day. A clock before 1970 reads as 1970.
    pub(crate) fn now(self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// Time since this clock was made, which never goes back.
    pub(crate) fn monotonic(self) -> Duration {
        self.origin.elapsed()
    }
}
