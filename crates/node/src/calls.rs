//! The way out for the calls of an agent's handlers, and what is counted of them on the way.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use convoke_agent::{BoxFuture, CallError, Outbound, OutboundCall};
use convoke_client::{BreakerState, CallEvent, CallObserver, CallTarget, Client};
use convoke_model::{CapabilityName, Json, SpiffeId};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::observe::metrics::{Metrics, Status};

/// Upper bounds for the wait for a call's turn, in seconds. There is next to none, or it is a large
/// part of the call's time.
const WAIT_SECONDS: [f64; 8] = [0.001, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// Calls of an agent's handlers: made as the agent, and counted.
pub(crate) struct Calls {
    pub(crate) client: Client,
    pub(crate) metrics: Arc<Metrics>,
}

impl Outbound for Calls {
    fn call(&self, call: OutboundCall) -> BoxFuture<'_, Result<Json, CallError>> {
        Box::pin(async move {
            let mut counted = Counted {
                metrics: &self.metrics,
                target: call.agent.clone(),
                capability: call.capability.clone(),
                begun: Instant::now(),
                status: Status::Error,
            };
            let answer = self.client.perform(call).await;
            counted.status = match &answer {
                Ok(_) => Status::Success,
                Err(CallError::Refused(_)) => Status::Denied,
                Err(CallError::Failed(_)) => Status::Error,
            };
            answer
        })
    }
}

/// Counts a call when it ends, also when it ends by being dropped: a call that took too long, or
/// whose handler was cancelled.
struct Counted<'a> {
    metrics: &'a Metrics,
    target: SpiffeId,
    capability: CapabilityName,
    begun: Instant,
    status: Status,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        self.metrics.call(&self.target, self.capability.as_str(), self.status, took);
    }
}

/// What happens to calls before they end, by the agent that is called.
///
/// Every agent of `agent_registry` has its series from the start; all others are `other`, and
/// their breakers are not shown, because one number cannot stand for many of them.
#[derive(Debug)]
pub(crate) struct CallMetrics {
    targets: HashMap<SpiffeId, TargetMetrics>,
    other: TargetMetrics,
}

#[derive(Debug)]
struct TargetMetrics {
    attempts: Counter,
    retries: Counter,
    withheld: Counter,
    cached: Counter,
    waits: Histogram,
    breaker: Option<Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TargetLabel {
    target_agent: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PeerLabel {
    peer_id: String,
}

impl CallMetrics {
    /// Adds the metrics to `registry`, with a series for each of `targets`.
    pub(crate) fn register<'a>(
        registry: &mut Registry,
        targets: impl IntoIterator<Item = &'a SpiffeId>,
    ) -> Self {
        let [attempts, retries, withheld, cached] =
            [(); 4].map(|()| Family::<TargetLabel, Counter>::default());
        let waits =
            Family::<TargetLabel, Histogram>::new_with_constructor(|| Histogram::new(WAIT_SECONDS));
        let breakers = Family::<PeerLabel, Gauge>::default();
        let add = registry.sub_registry_with_prefix("agentweave");
        let help = "Attempts of calls to other agents, the first of each call included";
        add.register("agent_call_attempts", help, attempts.clone());
        let help = "Calls to other agents that were made again";
        add.register("agent_call_retries", help, retries.clone());
        let help = "Calls that were not made again because too many were of late";
        add.register("agent_call_retries_withheld", help, withheld.clone());
        let help = "Calls that were answered from what an earlier one brought";
        add.register("agent_call_cached", help, cached.clone());
        let help = "Time that calls waited for their turn, of those that had to";
        add.register("agent_call_wait_seconds", help, waits.clone());
        // The name and its label are the first seed's.
        let help = "Whether an agent is called: 0 closed, 1 open, 2 half-open";
        add.register("circuit_breaker_state", help, breakers.clone());

        let target = |name: &str, breaker| {
            let label = TargetLabel { target_agent: name.to_owned() };
            TargetMetrics {
                attempts: attempts.get_or_create_owned(&label),
                retries: retries.get_or_create_owned(&label),
                withheld: withheld.get_or_create_owned(&label),
                cached: cached.get_or_create_owned(&label),
                waits: waits.get_or_create_owned(&label),
                breaker,
            }
        };
        let known = |id: &SpiffeId| {
            let label = PeerLabel { peer_id: id.as_str().to_owned() };
            target(id.as_str(), Some(breakers.get_or_create_owned(&label)))
        };
        Self {
            targets: targets.into_iter().map(|id| (id.clone(), known(id))).collect(),
            other: target("other", None),
        }
    }
}

impl CallObserver for CallMetrics {
    fn observe(&self, to: CallTarget<'_>, event: CallEvent<'_>) {
        let target = self.targets.get(to.agent).unwrap_or(&self.other);
        match event {
            CallEvent::Attempted { .. } => {
                target.attempts.inc();
            }
            CallEvent::Retrying { .. } => {
                target.retries.inc();
            }
            CallEvent::RetryWithheld => {
                target.withheld.inc();
            }
            CallEvent::Cached => {
                target.cached.inc();
            }
            CallEvent::Waited { waited } => target.waits.observe(waited.as_secs_f64()),
            CallEvent::Breaker(state) => {
                if let Some(breaker) = &target.breaker {
                    breaker.set(match state {
                        BreakerState::Closed => 0,
                        BreakerState::Open => 1,
                        BreakerState::HalfOpen => 2,
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn what_happens_is_counted_by_target() {
        let worker = SpiffeId::parse("spiffe://example.org/worker").unwrap();
        let stranger = SpiffeId::parse("spiffe://example.org/stranger").unwrap();
        let capability = CapabilityName::parse("count_words").unwrap();
        let mut registry = Registry::default();
        let metrics = CallMetrics::register(&mut registry, [&worker]);
        let attempted =
            || CallEvent::Attempted { number: 1, took: Duration::ZERO, span: None, error: None };
        for agent in [&worker, &stranger] {
            for event in [
                attempted(),
                attempted(),
                CallEvent::Retrying { pause: Duration::ZERO },
                CallEvent::RetryWithheld,
                CallEvent::Cached,
                CallEvent::Waited { waited: Duration::from_millis(20) },
                CallEvent::Breaker(BreakerState::Open),
                CallEvent::Breaker(BreakerState::HalfOpen),
            ] {
                let address = "https://somewhere";
                let trace = None;
                let to = CallTarget { agent, address, capability: &capability, trace };
                metrics.observe(to, event);
            }
        }
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for target in ["spiffe://example.org/worker", "other"] {
            for (name, value) in [
                ("attempts_total", 2),
                ("retries_total", 1),
                ("retries_withheld_total", 1),
                ("cached_total", 1),
                ("wait_seconds_count", 1),
            ] {
                let line =
                    format!("agentweave_agent_call_{name}{{target_agent=\"{target}\"}} {value}");
                assert!(text.contains(&line), "{line} in {text}");
            }
        }
        let breakers: Vec<_> = text.lines().filter(|line| line.contains("peer_id")).collect();
        assert_eq!(
            breakers,
            ["agentweave_circuit_breaker_state{peer_id=\"spiffe://example.org/worker\"} 2"]
        );
    }
}
