//! Tasks as pure state machines.
//!
//! [`decide`] says what follows from an event: facts to commit and actions to take once they are.
//! It has no clock, runtime, socket or random source; instants and identifiers come in with the
//! event, effects go out as values. So a simulation, a test and the daemon run the same decisions.

mod decide;
mod effects;
mod event;
mod state;

#[cfg(test)]
mod properties;

pub use decide::decide;
pub use effects::{Action, Effects};
pub use event::Event;
pub use state::{ReplayError, State};
