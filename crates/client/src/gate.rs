//! The way to one agent at one address: so many calls at a time, and none while it is down.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use convoke_agent::{AgentCallError, CallError};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use crate::attempts::{Attempts, Call};
use crate::breaker::{Breaker, BreakerState, Outcome, Pass};
use crate::observe::CallEvent;

/// What all calls of an agent at an address pass. Its bound is that of the first call.
#[derive(Debug)]
pub(crate) struct Gate {
    permits: Semaphore,
    concurrency_max: usize,
    guarded: Mutex<Guarded>,
}

#[derive(Debug)]
struct Guarded {
    breaker: Breaker,
    /// Why the last call failed that did.
    cause: String,
}

/// A call that is under way. Dropping it says that nothing is known of how it went.
pub(crate) struct Entered<'a> {
    gate: &'a Gate,
    attempts: &'a Attempts,
    call: &'a Call<'a>,
    pass: Pass,
    outcome: Outcome,
    cause: Option<String>,
    _permit: SemaphorePermit<'a>,
}

impl Gate {
    /// Zero calls at a time count as one.
    pub(crate) fn new(concurrency_max: usize) -> Self {
        let concurrency_max = concurrency_max.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            permits: Semaphore::new(concurrency_max),
            concurrency_max,
            guarded: Mutex::new(Guarded { breaker: Breaker::new(), cause: String::new() }),
        }
    }

    /// Waits for the call's turn, until its deadline, and asks the breaker.
    ///
    /// # Errors
    ///
    /// [`AgentCallError::CircuitOpen`] at once, [`AgentCallError::Busy`] when the time is over.
    pub(crate) async fn enter<'a>(
        &'a self,
        attempts: &'a Attempts,
        call: &'a Call<'a>,
    ) -> Result<Entered<'a>, CallError> {
        // Nobody waits for a turn that would not come to anything.
        let held = {
            let guarded = self.guarded();
            let held = guarded.breaker.held(attempts.now());
            held.map(|left| guarded.held(call, left))
        };
        if let Some(error) = held {
            return Err(error);
        }
        let permit = match self.permits.try_acquire() {
            Ok(permit) => permit,
            Err(_none_free) => self.wait(attempts, call).await?,
        };
        let pass = {
            let mut guarded = self.guarded();
            let before = guarded.breaker.state();
            match guarded.breaker.admit(attempts.now()) {
                Ok(pass) => {
                    tell(attempts, call, before, guarded.breaker.state());
                    pass
                }
                Err(left) => return Err(guarded.held(call, left)),
            }
        };
        Ok(Entered {
            gate: self,
            attempts,
            call,
            pass,
            outcome: Outcome::Nothing,
            cause: None,
            _permit: permit,
        })
    }

    /// Whether nothing would be lost if the gate were forgotten.
    pub(crate) fn is_untouched(&self) -> bool {
        self.guarded().breaker.state() == BreakerState::Closed
    }

    #[cfg(test)]
    pub(crate) fn state(&self) -> BreakerState {
        self.guarded().breaker.state()
    }

    async fn wait<'a>(
        &'a self,
        attempts: &'a Attempts,
        call: &Call<'_>,
    ) -> Result<SemaphorePermit<'a>, CallError> {
        let begun = Instant::now();
        let turn = timeout_at(call.deadline, self.permits.acquire()).await;
        let waited = begun.elapsed();
        attempts.tell(call, CallEvent::Waited { waited });
        match turn {
            Ok(Ok(permit)) => Ok(permit),
            // The semaphore is never closed, so this is the deadline.
            Ok(Err(_)) | Err(_) => Err(AgentCallError::Busy {
                agent: call.agent.clone(),
                address: call.address.to_owned(),
                concurrency_max: self.concurrency_max,
                after: waited,
            }
            .into()),
        }
    }

    fn guarded(&self) -> MutexGuard<'_, Guarded> {
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guarded {
    fn held(&self, call: &Call<'_>, left: Duration) -> CallError {
        AgentCallError::CircuitOpen {
            agent: call.agent.clone(),
            address: call.address.to_owned(),
            retry_after: left,
            cause: self.cause.clone(),
        }
        .into()
    }
}

impl Entered<'_> {
    /// The call has ended like this; `cause` says why, if it failed.
    pub(crate) fn ended(mut self, outcome: Outcome, cause: Option<String>) {
        self.outcome = outcome;
        self.cause = cause;
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let (attempts, call) = (self.attempts, self.call);
        let changed = {
            let mut guarded = self.gate.guarded();
            if let Some(cause) = self.cause.take() {
                guarded.cause = cause;
            }
            let before = guarded.breaker.state();
            let settings = &call.settings.breaker;
            let (now, random) = (attempts.now(), attempts.random.next());
            guarded.breaker.record(settings, self.pass, self.outcome, now, random);
            let after = guarded.breaker.state();
            tell(attempts, call, before, after);
            let held = guarded.breaker.held(now);
            (before != after).then(|| (after, held, guarded.cause.clone()))
        };
        // A log line may take its time, so it is written when nobody waits for the lock.
        let (target, address) = (call.agent, call.address);
        match changed {
            Some((BreakerState::Open, held, cause)) if self.outcome == Outcome::Fails => {
                let open_for_ms = held.unwrap_or_default().as_millis();
                tracing::warn!(%target, address, cause, open_for_ms, "Circuit breaker opened");
            }
            Some((BreakerState::Closed, ..)) => {
                tracing::info!(%target, address, "Circuit breaker closed");
            }
            _ => {}
        }
    }
}

fn tell(attempts: &Attempts, call: &Call<'_>, before: BreakerState, after: BreakerState) {
    if before != after {
        attempts.tell(call, CallEvent::Breaker(after));
    }
}
