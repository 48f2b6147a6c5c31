//! Rego: a question in, a decision and its reasons out.
//!
//! A [`Policy`] is loaded once, from source, and asked on every request. It fails closed: whatever
//! is not exactly `true` is a refusal, and so is everything that cannot be evaluated in time.
//! [`authorize`] is the only door from an operation to its handler, because nothing else makes an
//! [`Authorized`].
//!
//! This crate has no socket, runtime or clock: a monotonic clock comes in as an argument and the
//! instant of the request is part of the [`Question`]. There are two exceptions: regorus cuts a long
//! evaluation by the machine's own monotonic clock, and whether one that was cut had taken too long
//! is told by the thread's processor time.
//!
//! # Writing a policy
//!
//! The rule is `allow`, a boolean, or `decision`, an object with a boolean `allow` and optionally
//! a string `reason`; if there are both, `decision` decides. Beside `allow` there may be a rule
//! `reason`, a string.
//!
//! A fact that is not known is absent from the input, never empty or null: an anonymous caller has
//! no `input.caller.spiffe_id`. Every comparison with an absent fact is undefined, so a rule that
//! asks for something (`input.caller.spiffe_id == "…"`, and also `!=`) cannot be true. `not` turns
//! undefined into true: `not input.caller.spiffe_id == "…"` admits everybody else, the anonymous
//! caller included. Say who may, not who may not.
//!
//! # What a decision costs
//!
//! The input document holds what the policy can read and nothing else. That is found in its text
//! at load: `input.request.method` reads one field, `input.request` and `input.request[k]` all of
//! a section, `input` by itself everything.
//!
//! An answer that depends on caller, agent, method, operation and protocol alone is kept, on each
//! thread, and given again without asking the engine when exactly the same facts come again. A
//! policy is evaluated for each request if it can read `request.params`, `request.timestamp`,
//! anything of `context` or `delegation`, or uses `with`, `print`, a clock or chance. So a policy
//! that does not need to know all of the request should not name `input.request` as a whole.

mod authorize;
mod clock;
mod data;
mod document;
mod engine;
mod error;
mod explain;
mod field;
#[cfg(test)]
mod fixture;
mod guard;
mod input;
mod inspect;
mod lint;
mod load;
mod memo;
mod policy;
#[cfg(test)]
mod properties;
mod pure;
mod remote;
mod said;
mod spans;
mod store;
mod suite;
#[cfg(test)]
mod tests;
mod visit;

pub use authorize::{Authorized, Refused, authorize, authorize_with};
pub use data::{DATA_BYTES_MAX, DATA_DEPTH_MAX, PolicyData};
pub use error::LoadError;
pub use explain::{Attempt, Explanation, Outcome};
pub use input::Question;
pub use lint::{Finding, LINT_RULES, Severity};
pub use load::SOURCE_BYTES_MAX;
pub use policy::{
    ExplainError, Fixed, Language, PACKAGE_DEFAULT, Policy, PolicyOptions, PolicySource,
};
pub use remote::{RemoteError, RemotePolicy, RemoteVerdict};
pub use spans::Place;
pub use suite::{RegoTest, TestOutcome, run_tests};
