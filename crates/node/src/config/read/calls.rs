//! `calls` and `agent_registry`: whom the agent calls, and how.

use std::collections::BTreeMap;

use convoke_agent::{BreakerSettings, CallSettings, RegistryEntry, RetrySettings};
use convoke_model::SpiffeId;

use super::super::keys::Millis;
use super::super::reader::Section;
use super::forms::https_address;

/// Most entries of `agent_registry`.
const REGISTRY_ENTRIES_MAX: usize = 1024;

/// Reads `calls`; what is not written is as in `base`.
pub(super) fn read(section: &Section<'_>, base: &CallSettings) -> Option<CallSettings> {
    let timeout = section.duration("timeout");
    let attempt_timeout = section.duration_or_never("attempt_timeout");
    let concurrency_max = section.number("concurrency_max");
    let cache_ttl = section.duration_or_never("cache_ttl");

    let retry = section.section("retry");
    let attempts_max = retry.number("attempts_max");
    let backoff_min = retry.duration("backoff_min");
    let backoff_max = retry.duration("backoff_max");
    let breaker = section.section("breaker");
    let failures_max = breaker.number("failures_max");
    let open_for = breaker.duration("open_for");

    let settings = CallSettings {
        timeout: timeout.unwrap_or(base.timeout),
        attempt_timeout: attempt_timeout.unwrap_or(base.attempt_timeout),
        retry: RetrySettings {
            attempts_max: attempts_max.unwrap_or(base.retry.attempts_max),
            backoff_min: backoff_min.unwrap_or(base.retry.backoff_min),
            backoff_max: backoff_max.unwrap_or(base.retry.backoff_max),
        },
        breaker: BreakerSettings {
            failures_max: failures_max.unwrap_or(base.breaker.failures_max),
            open_for: open_for.unwrap_or(base.breaker.open_for),
        },
        concurrency_max: concurrency_max.unwrap_or(base.concurrency_max),
        cache_ttl: cache_ttl.unwrap_or(base.cache_ttl),
    };
    let (min, max) = (settings.retry.backoff_min, settings.retry.backoff_max);
    if min > max {
        let key = if retry.has("backoff_min") { "backoff_min" } else { "backoff_max" };
        let message = format!(
            "`backoff_min` is {}, which is more than `backoff_max`, {}",
            Millis::of(min),
            Millis::of(max)
        );
        retry.problem(key, &message, Some("the first bound is the smallest"));
        return None;
    }
    Some(settings)
}

/// Reads `agent_registry`; its entries are called as `base` says unless they say otherwise.
pub(super) fn registry(
    root: &Section<'_>,
    base: Option<&CallSettings>,
) -> Option<BTreeMap<String, RegistryEntry>> {
    let sections = root.named_sections("agent_registry");
    if sections.len() > REGISTRY_ENTRIES_MAX {
        let message = format!("`agent_registry` has more than {REGISTRY_ENTRIES_MAX} entries");
        root.problem("agent_registry", &message, None);
        return None;
    }
    let default = CallSettings::default();
    let mut entries = BTreeMap::<String, RegistryEntry>::new();
    let mut is_good = true;
    for (key, section) in sections {
        let spiffe_id = section.parsed("spiffe_id", SpiffeId::parse);
        let address = section.parsed("address", https_address);
        if !section.has("spiffe_id") {
            section.missing("spiffe_id", "say who must answer at the address");
        }
        if !section.has("address") {
            section.missing("address", "say where the agent is, as in https://localhost:8443");
        }
        let calls = read(&section.section("calls"), base.unwrap_or(&default));
        match (spiffe_id, address, calls) {
            (Some(spiffe_id), Some(address), Some(calls)) => {
                entries.insert(key.to_owned(), RegistryEntry { spiffe_id, address, calls });
            }
            _ => is_good = false,
        }
    }
    is_good.then_some(entries)
}
