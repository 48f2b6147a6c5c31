//! When a task has to be looked at, even if nobody says anything.

use convoke_model::UnixMillis;

use crate::State;

/// Something that a task waits for and that only time brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timer {
    /// When it is due.
    pub at: UnixMillis,
    /// What is due then.
    pub what: Due,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Due {
    /// [`crate::Event::DeadlinePassed`].
    Deadline,
    /// [`crate::Event::RetryDue`].
    Retry,
}

/// What a task in this state waits for: nothing if it has ended, or was never submitted.
///
/// The state alone decides, so that timers are made anew after a restart and none has to be taken
/// back: one that is no longer due changes nothing when it fires.
///
/// Whoever waits may do so by a clock of its own, and is the one to say that a deadline has passed; a
/// time of day that is set back must not keep a task alive. An attempt that is not due by the clock
/// that [`crate::decide`] is told is left for later, and is still due here.
pub fn timers(state: &State) -> impl Iterator<Item = Timer> + use<> {
    let is_active = state.task().is_some() && !state.is_ended();
    let deadline = state.terms().deadline.map(|at| Timer { at, what: Due::Deadline });
    let retry = state.work().retry_at.map(|at| Timer { at, what: Due::Retry });
    [deadline, retry].into_iter().flatten().filter(move |_| is_active)
}
