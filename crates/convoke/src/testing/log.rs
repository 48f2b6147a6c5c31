//! What was asked of somebody, in order.

use std::sync::{Arc, Mutex, PoisonError};

use convoke_model::{Caller, CapabilityName, Json};

/// The calls that reached a stand-in so far. Clones are of the same log.
#[derive(Debug, Clone, Default)]
pub struct CallLog(Arc<Mutex<Vec<LoggedCall>>>);

/// One call that reached a stand-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedCall {
    /// Who called.
    pub caller: Caller,
    /// What was asked.
    pub capability: CapabilityName,
    /// With what.
    pub params: Json,
}

impl CallLog {
    /// The calls, in the order in which they came.
    #[must_use]
    pub fn calls(&self) -> Vec<LoggedCall> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The names of what was asked for, in the order in which it was.
    #[must_use]
    pub fn capabilities(&self) -> Vec<String> {
        self.calls().iter().map(|call| call.capability.to_string()).collect()
    }

    pub(crate) fn add(&self, call: LoggedCall) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }
}
