//! The agent card: what an agent says of itself to whoever asks.
//!
//! [`Description`] goes in and a [`Document`] comes out, ready to be served with its validators;
//! [`Card`] is what a client reads, from us or from anybody.

mod document;
mod read;
#[cfg(test)]
mod tests;

pub use document::{CardError, Description, Document, Skill, WELL_KNOWN_PATH};
pub use read::{Card, Interface, ReadError, SkillEntry};
