//! The only door from an operation to its handler.

use std::time::Duration;

use convoke_model::{Decision, Operation};

use crate::{Policy, Question, RemoteVerdict};

/// An operation that policy has allowed. Handlers take this and nothing else, and only
/// [`authorize`] and [`authorize_with`] make it.
#[derive(Debug)]
pub struct Authorized {
    operation: Operation,
    decision: Decision,
}

/// An operation that policy has refused, with the decision to put on record.
#[derive(Debug)]
pub struct Refused {
    /// What was asked.
    pub operation: Operation,
    /// Why it was refused.
    pub decision: Decision,
}

/// Asks `policy` about `operation`, and lets it through if the answer is yes.
///
/// The question is always about the operation that is handed over: its kind replaces
/// `question.operation`. `monotonic` is as in [`Policy::decide`].
///
/// # Errors
///
/// [`Refused`] holds the operation and the decision, which is then never an allowing one.
#[expect(clippy::result_large_err, reason = "both halves hold the operation; a box saves nothing")]
pub fn authorize(
    policy: &Policy,
    question: &Question<'_>,
    operation: Operation,
    monotonic: &dyn Fn() -> Duration,
) -> Result<Authorized, Refused> {
    let question = Question { operation: operation.kind(), ..*question };
    let decision = policy.decide(&question, monotonic);
    if decision.is_allowed() {
        Ok(Authorized { operation, decision })
    } else {
        Err(Refused { operation, decision })
    }
}

/// As [`authorize`], where a policy server has decided: lets `operation` through if the server's own
/// answer, which nothing but [`RemoteVerdict::read`] makes, is yes. An answer to a question about an
/// operation of another kind is a refusal. `took` is how long it took to ask.
///
/// # Errors
///
/// As [`authorize`].
#[expect(clippy::result_large_err, reason = "both halves hold the operation; a box saves nothing")]
pub fn authorize_with(
    verdict: RemoteVerdict,
    operation: Operation,
    took: Duration,
) -> Result<Authorized, Refused> {
    let decision = verdict.into_decision(operation.kind(), took);
    if decision.is_allowed() {
        Ok(Authorized { operation, decision })
    } else {
        Err(Refused { operation, decision })
    }
}

impl Authorized {
    /// What was asked and allowed.
    #[must_use]
    pub fn operation(&self) -> &Operation {
        &self.operation
    }

    /// The decision that allowed it.
    #[must_use]
    pub fn decision(&self) -> &Decision {
        &self.decision
    }

    /// The operation and the decision that allowed it.
    #[must_use]
    pub fn into_parts(self) -> (Operation, Decision) {
        (self.operation, self.decision)
    }
}
