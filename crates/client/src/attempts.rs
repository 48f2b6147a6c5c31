//! One call, made as often as it takes and as is right.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use convoke_agent::{AgentCallError, CallError, CallSettings};
use convoke_model::{CapabilityName, SpiffeId, TraceContext};
use tokio::time::Instant;

use crate::backoff::pause;
use crate::breaker::Outcome;
use crate::budget::Budget;
use crate::gate::Gate;
use crate::observe::{CallEvent, CallObserver, CallTarget};
use crate::random::Random;

/// What the calls of one client share.
pub(crate) struct Attempts {
    budget: Mutex<Budget>,
    pub(crate) random: Random,
    began: Instant,
    observer: Option<Arc<dyn CallObserver>>,
}

/// One call: to whom, until when, and how it may be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) agent: &'a SpiffeId,
    pub(crate) address: &'a str,
    pub(crate) capability: &'a CapabilityName,
    pub(crate) settings: &'a CallSettings,
    pub(crate) idempotent: bool,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) deadline: Instant,
}

/// An attempt without a result.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: CallError,
    pub(crate) says: Says,
    pub(crate) again: Again,
    /// How long the agent wants to be left alone.
    pub(crate) after: Option<Duration>,
}

/// What an attempt without a result says of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Says {
    /// It answers.
    Works,
    /// It is not there, or not in order.
    Fails,
    /// It did not answer in the time that there was.
    Late,
    /// Nothing.
    Nothing,
}

/// Which calls may be made again after such an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// None: it would end the same way.
    Never,
    /// Those that do no harm when they are done twice.
    IfIdempotent,
    /// Any, since nothing was done.
    Always,
}

impl Call<'_> {
    /// Until when an attempt may take that begins at `begun`.
    pub(crate) fn attempt_until(&self, begun: Instant) -> Instant {
        let most = self.settings.attempt_timeout.and_then(|most| begun.checked_add(most));
        most.map_or(self.deadline, |most| most.min(self.deadline))
    }
}

impl Attempts {
    pub(crate) fn new(random: Random, observer: Option<Arc<dyn CallObserver>>) -> Self {
        Self {
            budget: Mutex::new(Budget::new(Duration::ZERO)),
            random,
            began: Instant::now(),
            observer,
        }
    }

    /// Makes `call` through `gate`: `attempt` once, and again as the call's settings, the failure
    /// and the budget allow. It is handed the span that the attempt is, and has to end by the
    /// call's deadline.
    ///
    /// # Errors
    ///
    /// That of the last attempt that was made; without any, the gate's.
    pub(crate) async fn run<T, Attempt>(
        &self,
        gate: &Gate,
        call: &Call<'_>,
        attempt: impl Fn(Option<TraceContext>) -> Attempt,
    ) -> Result<T, CallError>
    where
        Attempt: Future<Output = Result<T, Failed>>,
    {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner).call();
        let mut number = 1;
        let mut last = None;
        loop {
            let entered = match gate.enter(self, call).await {
                Ok(entered) => entered,
                // What happened says more than that it will not happen again.
                Err(held) => return Err(last.unwrap_or(held)),
            };
            let span = call.trace.map(|trace| trace.child(self.random.next()));
            let begun = Instant::now();
            let result = attempt(span).await;
            let took = begun.elapsed();
            let error = result.as_ref().err().map(|failed| &failed.error);
            self.tell(call, CallEvent::Attempted { number, took, span, error });
            let failed = match result {
                Ok(result) => {
                    entered.ended(Outcome::Works, None);
                    return Ok(result);
                }
                Err(failed) => failed,
            };
            let outcome = failed.outcome(call, begun);
            entered.ended(outcome, (outcome == Outcome::Fails).then(|| cause(&failed.error)));
            let Some(pause) = self.again(call, number, &failed) else {
                return Err(failed.error);
            };
            tokio::time::sleep(pause).await;
            last = Some(failed.error);
            number += 1;
        }
    }

    /// How long to wait before the call is made again, if it is.
    fn again(&self, call: &Call<'_>, number: u32, failed: &Failed) -> Option<Duration> {
        let allowed = match failed.again {
            Again::Never => false,
            Again::IfIdempotent => call.idempotent,
            Again::Always => true,
        };
        if !allowed || number >= call.settings.retry.attempts_max {
            return None;
        }
        let drawn = pause(&call.settings.retry, number, self.random.next());
        // Who asks for a while gets it, and a little more, so that not all come back at its end.
        let pause = drawn.saturating_add(failed.after.unwrap_or_default());
        let left = call.deadline.saturating_duration_since(Instant::now());
        if pause >= left {
            return None;
        }
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let granted = budget.take(self.now());
        drop(budget);
        let (target, address) = (call.agent, call.address);
        let pause_ms = pause.as_millis();
        if granted {
            self.tell(call, CallEvent::Retrying { pause });
            let error = &failed.error;
            tracing::info!(%target, address, attempt = number, pause_ms, %error, "Retrying agent call");
            Some(pause)
        } else {
            self.tell(call, CallEvent::RetryWithheld);
            tracing::debug!(%target, address, attempt = number, "Retry withheld: too many of late");
            None
        }
    }

    /// The time since the client was made.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn tell(&self, call: &Call<'_>, event: CallEvent<'_>) {
        if let Some(observer) = &self.observer {
            let &Call { agent, address, capability, trace, .. } = call;
            observer.observe(CallTarget { agent, address, capability, trace }, event);
        }
    }
}

impl Failed {
    /// What the attempt says of the agent, given the time that it had.
    ///
    /// Whoever calls us decides how long the answer is of use, and a late answer to somebody in a
    /// hurry must not shut out everybody else: only who waited for half of what the settings allow
    /// may say that the agent is too slow.
    fn outcome(&self, call: &Call<'_>, begun: Instant) -> Outcome {
        let CallSettings { timeout, attempt_timeout, .. } = *call.settings;
        let most = attempt_timeout.map_or(timeout, |most| most.min(timeout));
        let given = call.attempt_until(begun).saturating_duration_since(begun);
        match self.says {
            Says::Works => Outcome::Works,
            Says::Fails => Outcome::Fails,
            Says::Late if given >= most / 2 => Outcome::Fails,
            Says::Late | Says::Nothing => Outcome::Nothing,
        }
    }
}

/// Why an agent counts as failing, without its name, which is beside it wherever this is shown.
fn cause(error: &CallError) -> String {
    match error {
        CallError::Failed(AgentCallError::Unreachable { cause, .. }) => cause.clone(),
        CallError::Failed(AgentCallError::TimedOut { after, .. }) => {
            format!("it did not answer within {after:?}")
        }
        CallError::Failed(AgentCallError::Remote { message, .. }) => {
            format!("it answered `{message}`")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn failed(again: Again, after: Option<Duration>) -> Failed {
        let agent = SpiffeId::parse("spiffe://example.org/worker").unwrap();
        let (address, cause) = ("https://worker".into(), "broken".into());
        let error = AgentCallError::Unreachable { agent, address, cause }.into();
        Failed { error, says: Says::Fails, again, after }
    }

    /// How many attempts are made of a call that fails like this each time, and how long all take.
    async fn made(
        settings: &CallSettings,
        idempotent: bool,
        again: Again,
        after: Option<Duration>,
    ) -> (u32, Duration) {
        let attempts = Attempts::new(Random::seeded(7), None);
        let agent = SpiffeId::parse("spiffe://example.org/worker").unwrap();
        let capability = CapabilityName::parse("count_words").unwrap();
        let begun = Instant::now();
        let call = Call {
            agent: &agent,
            address: "https://worker",
            capability: &capability,
            settings,
            idempotent,
            trace: None,
            deadline: begun + settings.timeout,
        };
        let made = Cell::new(0);
        let attempt = |_span| async {
            made.set(made.get() + 1);
            Err::<(), _>(failed(again, after))
        };
        let error = attempts.run(&Gate::new(1), &call, attempt).await.unwrap_err();
        // Also when the breaker ended it, what happened is what is told.
        assert!(matches!(error, CallError::Failed(AgentCallError::Unreachable { .. })), "{error}");
        (made.get(), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_does_no_harm_is_made_again() {
        for (again, idempotent, expected) in [
            (Again::Never, false, 1),
            (Again::Never, true, 1),
            (Again::IfIdempotent, false, 1),
            (Again::IfIdempotent, true, 3),
            (Again::Always, false, 3),
            (Again::Always, true, 3),
        ] {
            let (made, took) = made(&CallSettings::default(), idempotent, again, None).await;
            assert_eq!(made, expected, "{again:?}, idempotent {idempotent}");
            // 100 ms before the second attempt and 200 ms before the third, at most.
            assert!(took <= Duration::from_millis(300), "{took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_bounds_to_it() {
        let many = |attempts_max, timeout| {
            let mut settings = CallSettings { timeout, ..CallSettings::default() };
            settings.retry.attempts_max = attempts_max;
            settings
        };
        let (minute, always) = (Duration::from_secs(60), Again::Always);
        assert_eq!(made(&many(1, minute), true, always, None).await.0, 1);
        assert_eq!(made(&many(0, minute), true, always, None).await.0, 1);
        // The breaker opens at the fifth.
        assert_eq!(made(&many(9, minute), true, always, None).await.0, 5);
        // Ten in the first second, which is what the budget begins with.
        let mut settings = many(99, Duration::from_secs(1));
        settings.breaker.failures_max = 0;
        settings.retry.backoff_max = Duration::from_millis(1);
        assert_eq!(made(&settings, true, always, None).await.0, 11);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_a_while_gets_it_or_is_not_asked_again() {
        let settings = CallSettings { timeout: Duration::from_secs(10), ..CallSettings::default() };
        for (after, expected) in [(0, 3), (3, 3), (6, 2), (10, 1), (u64::MAX, 1)] {
            let after = Duration::from_secs(after);
            let (made, took) = made(&settings, false, Again::Always, Some(after)).await;
            assert_eq!(made, expected, "{after:?}");
            assert!(took >= after.saturating_mul(expected - 1), "{after:?}: {took:?}");
            assert!(took < settings.timeout, "{after:?}: {took:?}");
        }
    }
}
