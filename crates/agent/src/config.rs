//! What of the configuration a handler may see.

use std::collections::BTreeMap;
use std::fmt;

use convoke_model::SpiffeId;

/// The agent's own name, its description and the agents that it knows.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentConfig {
    /// Who the agent is.
    pub spiffe_id: SpiffeId,
    /// What it says of itself.
    pub metadata: Metadata,
    /// Agents that it may call by a key of the operator's choosing.
    pub agent_registry: BTreeMap<String, RegistryEntry>,
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
}

/// A key that the operator did not configure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownRegistryKey {
    /// The key that was asked for.
    pub key: String,
    /// The keys that there are.
    pub known: Vec<String>,
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
        let entry = |id: &str, address: &str| RegistryEntry {
            spiffe_id: SpiffeId::parse(id).unwrap(),
            address: address.into(),
        };
        AgentConfig {
            spiffe_id: SpiffeId::parse("spiffe://example.org/orchestrator").unwrap(),
            metadata: Metadata::default(),
            agent_registry: BTreeMap::from([
                ("b".into(), entry("spiffe://example.org/w", "https://b")),
                ("a".into(), entry("spiffe://example.org/w", "https://a")),
            ]),
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
