//! Tasks as pure state machines.
//!
//! [`decide`] says what follows from an event: facts to commit and actions to take once they are.
//! [`timers`] says what a state waits for. Neither has a clock, runtime, socket or random source;
//! instants and identifiers come in with the event, effects go out as values. So a simulation, a
//! test and the daemon run the same decisions.

mod answers;
mod decide;
mod effects;
mod event;
mod state;
mod timers;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod simulation;

pub use answers::EarlierAnswers;
pub use decide::decide;
pub use effects::{Action, Effects};
pub use event::Event;
pub use state::{ReplayError, State};
pub use timers::{Due, Timer, timers};
