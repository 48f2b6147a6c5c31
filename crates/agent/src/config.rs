//! What of the configuration a handler may see.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use convoke_model::{SpiffeId, limits};

/// The agent's own name, its description and the agents that it knows.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentConfig {
    /// Who the agent is.
    pub spiffe_id: SpiffeId,
    /// What it says of itself.
    pub metadata: Metadata,
    /// Agents that it may call by a key of the operator's choosing.
    pub agent_registry: BTreeMap<String, RegistryEntry>,
    /// How agents are called that are not in the registry.
    pub calls: CallSettings,
}

/// What an agent says of itself; free text.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metadata {
    /// A name for people, such as `Document Worker Agent`.
    pub name: String,
    /// The agent's own version.
    pub version: String,
    /// One sentence.
    pub description: String,
    /// Whatever else the operator wrote under `metadata`.
    pub extra: BTreeMap<String, serde_json::Value>,
}

/// An agent that this one knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryEntry {
    /// Who it is; whoever answers at the address has to prove this.
    pub spiffe_id: SpiffeId,
    /// Where it is, as an `https` URL.
    pub address: String,
    /// How it is called.
    pub calls: CallSettings,
}

/// How an agent is called: how long, how often, how many at a time.
///
/// Source of the numbers: the first seed's reference (transport section), where it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallSettings {
    /// How long a call waits for its answer, over all attempts, when the code does not say.
    pub timeout: Duration,
    /// How long each attempt may take at most, so that one that hangs leaves time for another; `None`
    /// gives each all the time that is left.
    pub attempt_timeout: Option<Duration>,
    /// When a call is made again.
    pub retry: RetrySettings,
    /// When calls are no longer made for a while.
    pub breaker: BreakerSettings,
    /// Most calls of the agent at a time; further ones wait, within their timeout.
    pub concurrency_max: usize,
    /// How long an answer to an idempotent call is good for the same call again; `None` asks each
    /// time.
    pub cache_ttl: Option<Duration>,
}

/// When a call is made again. What may have arrived is made again only if the call is idempotent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetrySettings {
    /// Most attempts of one call, the first included; 1 makes none again.
    pub attempts_max: u32,
    /// Upper bound of the pause before the second attempt; each further bound is twice the last.
    /// The pause itself is drawn evenly from zero to the bound.
    pub backoff_min: Duration,
    /// Largest upper bound of a pause.
    pub backoff_max: Duration,
}

/// When calls are no longer made for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Failures in a row that open the breaker; 0 never does.
    pub failures_max: u32,
    /// How long it stays open before one call is let through to find out.
    pub open_for: Duration,
}

impl Default for CallSettings {
    fn default() -> Self {
        Self {
            timeout: limits::CALL_TIMEOUT_DEFAULT,
            attempt_timeout: None,
            retry: RetrySettings::default(),
            breaker: BreakerSettings::default(),
            concurrency_max: 100,
            cache_ttl: None,
        }
    }
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            attempts_max: 3,
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(30),
        }
    }
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self { failures_max: 5, open_for: Duration::from_secs(30) }
    }
}

/// A key that the operator did not configure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownRegistryKey {
    /// The key that was asked for.
    pub key: String,
    /// The keys that there are.
    pub known: Vec<String>,
}

impl RegistryEntry {
    /// An agent at an address, called as agents are by default.
    #[must_use]
    pub fn new(spiffe_id: SpiffeId, address: impl Into<String>) -> Self {
        Self { spiffe_id, address: address.into(), calls: CallSettings::default() }
    }
}

impl AgentConfig {
    /// The agent configured as `agent_registry.<key>`.
    ///
    /// # Errors
    ///
    /// [`UnknownRegistryKey`] names the key and those that there are.
    pub fn registry(&self, key: &str) -> Result<&RegistryEntry, UnknownRegistryKey> {
        self.agent_registry.get(key).ok_or_else(|| UnknownRegistryKey {
            key: key.to_owned(),
            known: self.agent_registry.keys().cloned().collect(),
        })
    }

    /// The configured address of `agent`; of several, the one whose key sorts first.
    #[must_use]
    pub fn address_of(&self, agent: &SpiffeId) -> Option<&str> {
        let mut entries = self.agent_registry.values();
        entries.find(|entry| entry.spiffe_id == *agent).map(|entry| entry.address.as_str())
    }

    /// How `agent` is called at `address`: as its entry of the registry says, if it has one.
    #[must_use]
    pub fn calls_to(&self, agent: &SpiffeId, address: &str) -> &CallSettings {
        let mut entries = self.agent_registry.values();
        let entry = entries.find(|entry| entry.spiffe_id == *agent && entry.address == address);
        entry.map_or(&self.calls, |entry| &entry.calls)
    }
}

impl fmt::Display for UnknownRegistryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`agent_registry.{}` is not configured", self.key)?;
        match self.known.as_slice() {
            [] => f.write_str("; no agents are"),
            known => write!(f, "; known are: {}", known.join(", ")),
        }
    }
}

impl std::error::Error for UnknownRegistryKey {}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> AgentConfig {
        let entry =
            |id: &str, address: &str| RegistryEntry::new(SpiffeId::parse(id).unwrap(), address);
        AgentConfig {
            spiffe_id: SpiffeId::parse("spiffe://example.org/orchestrator").unwrap(),
            metadata: Metadata::default(),
            agent_registry: BTreeMap::from([
                ("b".into(), entry("spiffe://example.org/w", "https://b")),
                ("a".into(), entry("spiffe://example.org/w", "https://a")),
            ]),
            calls: CallSettings::default(),
        }
    }

    #[test]
    fn a_missing_key_is_named() {
        let mut config = config();
        assert_eq!(config.registry("a").unwrap().address, "https://a");
        let missing = config.registry("worker").unwrap_err();
        assert_eq!(
            missing.to_string(),
            "`agent_registry.worker` is not configured; known are: a, b"
        );
        config.agent_registry.clear();
        let missing = config.registry("worker").unwrap_err();
        assert_eq!(missing.to_string(), "`agent_registry.worker` is not configured; no agents are");
    }

    #[test]
    fn an_address_is_found_by_identity() {
        let config = config();
        let known = SpiffeId::parse("spiffe://example.org/w").unwrap();
        assert_eq!(config.address_of(&known), Some("https://a"));
        assert_eq!(config.address_of(&config.spiffe_id), None);
    }
}
