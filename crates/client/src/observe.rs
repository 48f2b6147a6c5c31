//! What happens to calls, for whoever counts it.

use std::time::Duration;

use convoke_agent::CallError;
use convoke_model::{CapabilityName, SpiffeId, TraceContext};

pub use crate::breaker::BreakerState;

/// Hears of what happens to the calls of a [`Client`](crate::Client).
///
/// It is told while the call goes on, and of a breaker's changes while the breaker is locked, so
/// that it hears of them in their order. What it does has to be short and must not block.
pub trait CallObserver: Send + Sync + 'static {
    /// Something has happened to a call of `capability` on `agent` at `address`.
    fn observe(&self, to: CallTarget<'_>, event: CallEvent<'_>);
}

/// Who is called, where and for what.
#[derive(Debug, Clone, Copy)]
pub struct CallTarget<'a> {
    /// Who.
    pub agent: &'a SpiffeId,
    /// Where.
    pub address: &'a str,
    /// For what.
    pub capability: &'a CapabilityName,
    /// The place in its trace of whoever calls, if the call belongs to one.
    pub trace: Option<TraceContext>,
}

/// What happens to a call.
#[derive(Debug, Clone, Copy)]
pub enum CallEvent<'a> {
    /// An attempt has ended. One that was dropped, because its call was cancelled, is not told.
    Attempted {
        /// Its number among the call's attempts, the first being 1.
        number: u32,
        /// How long it took.
        took: Duration,
        /// The span that the callee was told that it is, if the call belongs to a trace.
        span: Option<TraceContext>,
        /// Why it gave no result, if it gave none.
        error: Option<&'a CallError>,
    },
    /// The call is made again after a pause.
    Retrying {
        /// How long the pause is.
        pause: Duration,
    },
    /// The call would have been made again, but too many calls were of late.
    RetryWithheld,
    /// Other calls of the agent were under way, as many as are allowed, and the call waited for its
    /// turn, in vain or not.
    Waited {
        /// How long.
        waited: Duration,
    },
    /// The agent's breaker is in another state than before.
    Breaker(BreakerState),
    /// The answer of an earlier call was good for this one.
    Cached,
}
