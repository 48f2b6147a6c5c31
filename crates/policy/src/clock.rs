//! The processor time of this thread: the one clock that cannot come in as an argument, because it
//! belongs to whichever thread asks.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How long this thread has had a processor. It stands still while others have it, so that a busy
/// machine makes no evaluation slow.
pub(crate) fn thread_time() -> Duration {
    #[cfg(test)]
    if let Some(step) = tests::STEP.get() {
        return tests::NOW.replace(tests::NOW.get() + step);
    }
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// How far each look moves this thread's clock, instead of work.
        pub(crate) static STEP: Cell<Option<Duration>> = const { Cell::new(None) };
        pub(crate) static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    #[test]
    fn it_goes_on_with_work_alone() {
        let began = thread_time();
        let mut sum = 0_u64;
        while thread_time() == began {
            sum = std::hint::black_box(sum + 1);
        }
        let other = std::thread::spawn(thread_time).join().unwrap();
        assert!(thread_time() > began && other < Duration::from_secs(1), "{sum} {other:?}");
    }
}
