//! The peers that a metric may name: those of the configuration, and nobody whom a peer makes up.

use std::collections::HashMap;

use convoke_model::{SpiffeId, TrustDomain};

/// The label of whoever has none of its own.
pub(super) const OTHER: &str = "other";

/// Labels for peers, by index: the configured agents, then the trust domains that they and we are
/// of, then everybody else.
#[derive(Debug)]
pub(super) struct Peers {
    labels: Vec<Box<str>>,
    agents: HashMap<SpiffeId, usize>,
    domains: HashMap<TrustDomain, usize>,
    home: usize,
}

/// A peer as metrics know it; to be looked up once for each connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The place of its own label, or its trust domain's, or that of everybody else.
    pub(super) own: usize,
    /// The place of its trust domain's label, or that of everybody else.
    pub(super) domain: usize,
}

impl Peers {
    pub(super) fn new<'a>(own: &SpiffeId, agents: impl IntoIterator<Item = &'a SpiffeId>) -> Self {
        let mut peers =
            Self { labels: Vec::new(), agents: HashMap::new(), domains: HashMap::new(), home: 0 };
        let mut domains = vec![own.trust_domain()];
        for agent in agents {
            if !peers.agents.contains_key(agent) {
                peers.agents.insert(agent.clone(), peers.labels.len());
                peers.labels.push(agent.as_str().into());
                domains.push(agent.trust_domain());
            }
        }
        for domain in domains {
            if !peers.domains.contains_key(&domain) {
                peers.labels.push(domain.as_str().into());
                peers.domains.insert(domain, peers.labels.len() - 1);
            }
        }
        peers.labels.push(OTHER.into());
        // The first of the domains, which come behind the agents.
        peers.home = peers.agents.len();
        peers
    }

    /// How `peer` is known; without a credential nobody is.
    pub(super) fn find(&self, peer: Option<&SpiffeId>) -> Peer {
        let other = self.other();
        let domain = peer.and_then(|peer| self.domains.get(&peer.trust_domain()).copied());
        let own = peer.and_then(|peer| self.agents.get(peer).copied()).or(domain);
        Peer { own: own.unwrap_or(other), domain: domain.unwrap_or(other) }
    }

    pub(super) fn other(&self) -> usize {
        self.labels.len() - 1
    }

    /// The place of the agent's own trust domain.
    pub(super) fn home(&self) -> usize {
        self.home
    }

    pub(super) fn len(&self) -> usize {
        self.labels.len()
    }

    pub(super) fn label(&self, index: usize) -> &str {
        self.labels.get(index).map_or(OTHER, |label| label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_configuration_makes_labels() {
        let id = |text: &str| SpiffeId::parse(text).unwrap();
        let (own, worker) = (id("spiffe://example.org/me"), id("spiffe://partner.example/worker"));
        let peers = Peers::new(&own, [&worker, &worker]);
        let check = |peer: Option<&str>, expected: [&str; 2]| {
            let found = peers.find(peer.map(id).as_ref());
            assert_eq!([peers.label(found.own), peers.label(found.domain)], expected, "{peer:?}");
        };
        check(
            Some("spiffe://partner.example/worker"),
            ["spiffe://partner.example/worker", "partner.example"],
        );
        check(Some("spiffe://partner.example/x"), ["partner.example", "partner.example"]);
        check(Some("spiffe://example.org/x"), ["example.org", "example.org"]);
        check(Some("spiffe://evil.example/x"), [OTHER, OTHER]);
        check(None, [OTHER, OTHER]);
        assert_eq!(peers.len(), 4);
    }
}
