//! What an agent would serve, found out without starting it.

use std::fmt;
use std::path::{Path, PathBuf};

use convoke_agent::Host;
use convoke_model::SpiffeId;
use convoke_node::config::Config;
use convoke_node::{StartError, load_policy};
use serde_json::{Value, json};

use crate::serve::{ServeError, load};

/// An agent that could serve with a configuration.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The configuration, as it was named.
    pub config: PathBuf,
    /// Whom the agent would be.
    pub spiffe_id: SpiffeId,
    /// What decides who may call.
    pub decided_by: DecidedBy,
    /// What is allowed and surely unmeant.
    pub warnings: Vec<String>,
    /// What the agent can do, in the order in which it says so.
    pub capabilities: Vec<CheckedCapability>,
}

/// What decides who may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecidedBy {
    /// The policy that is loaded, or the fixed one where none is.
    Policy {
        /// Its revision.
        revision: String,
    },
    /// An OPA server, which has not been asked.
    Server {
        /// Its URL.
        url: String,
    },
}

impl DecidedBy {
    /// What decides with `config`: loads its policy, or checks how the server would be asked.
    ///
    /// # Errors
    ///
    /// As [`load_policy`].
    pub fn of(config: &Config) -> Result<Self, StartError> {
        let policy = load_policy(config)?;
        Ok(match &config.authorization.opa {
            Some(opa) => Self::Server { url: opa.url.clone() },
            None => Self::Policy { revision: policy.revision().0.to_string() },
        })
    }

    /// The revision of the policy, if it is one that is loaded.
    #[must_use]
    pub fn revision(&self) -> Option<&str> {
        match self {
            Self::Policy { revision } => Some(revision),
            Self::Server { .. } => None,
        }
    }

    /// The URL of the server, if one decides.
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        match self {
            Self::Policy { .. } => None,
            Self::Server { url } => Some(url),
        }
    }
}

impl fmt::Display for DecidedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy { revision } => write!(f, "policy {revision}"),
            Self::Server { url } => write!(f, "the OPA server at {url} decides"),
        }
    }
}

/// A capability, as far as it is to be known before anybody calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedCapability {
    /// Its name.
    pub name: String,
    /// Whether it answers with a message instead of a task.
    pub ephemeral: bool,
    /// The patterns of its guard (`requires_peer`); `None` if policy alone decides who may call.
    pub requires_peer: Option<Vec<String>>,
}

/// Checks the configuration at `config`, the policy that it names and the agent in `host`, without
/// starting anything.
///
/// # Errors
///
/// As [`run`](crate::serve::run), as far as it can be known without binding or asking for an
/// identity.
pub fn check(config: &Path, host: &Host) -> Result<Checked, ServeError> {
    let (loaded, warnings) = load(config)?;
    loaded.check_identity()?;
    let decided_by = DecidedBy::of(&loaded)?;
    let capabilities = host.capabilities().iter().map(|capability| CheckedCapability {
        name: capability.name.as_str().to_owned(),
        ephemeral: capability.ephemeral,
        requires_peer: capability.requires_peer.as_ref().map(|guard| {
            guard.patterns().iter().map(|pattern| pattern.as_str().to_owned()).collect()
        }),
    });
    Ok(Checked {
        config: config.to_owned(),
        spiffe_id: loaded.identity.spiffe_id,
        decided_by,
        warnings,
        capabilities: capabilities.collect(),
    })
}

impl Checked {
    /// The report for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let capabilities = self.capabilities.iter().map(|capability| {
            json!({
                "name": capability.name,
                "ephemeral": capability.ephemeral,
                "requires_peer": capability.requires_peer,
            })
        });
        json!({
            "config": self.config.display().to_string(),
            "valid": true,
            "spiffe_id": self.spiffe_id.as_str(),
            "policy_revision": self.decided_by.revision(),
            "policy_server": self.decided_by.server(),
            "warnings": self.warnings,
            "capabilities": capabilities.collect::<Vec<_>>(),
        })
    }
}

/// The report for people, without the warnings: the first line says what was checked, and each of
/// the others who may call a capability.
impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.config.display(), self.decided_by)?;
        let width = self.capabilities.iter().map(|one| one.name.len()).max().unwrap_or_default();
        for CheckedCapability { name, requires_peer, .. } in &self.capabilities {
            write!(f, "\n  {name:<width$}  whom policy allows")?;
            if let Some(patterns) = requires_peer {
                write!(f, " and requires_peer names: {}", patterns.join(", "))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn checked() -> Checked {
        let capability = |name: &str, peers: Option<&[&str]>| CheckedCapability {
            name: name.to_owned(),
            ephemeral: peers.is_none(),
            requires_peer: peers.map(|peers| peers.iter().map(|&peer| peer.to_owned()).collect()),
        };
        Checked {
            config: "a.yaml".into(),
            spiffe_id: SpiffeId::parse("spiffe://example.org/a").unwrap(),
            decided_by: DecidedBy::Policy { revision: "12ab".to_owned() },
            warnings: vec!["w".to_owned()],
            capabilities: vec![
                capability("count", None),
                capability("wipe_out", Some(&["spiffe://example.org/admin/*", "spiffe://b/c"])),
            ],
        }
    }

    #[test]
    fn people_read_who_may_call_what() {
        let expected = "a.yaml, policy 12ab\n  \
             count     whom policy allows\n  \
             wipe_out  whom policy allows and requires_peer names: \
             spiffe://example.org/admin/*, spiffe://b/c";
        assert_eq!(checked().to_string(), expected);
    }

    #[test]
    fn a_policy_server_is_said_to_decide_and_no_revision_is() {
        let yaml = json!({
            "identity": {"spiffe_id": "spiffe://example.org/a"},
            "data_dir": "/d",
            "authorization": {"opa": {"url": "http://localhost:8181"}},
        });
        let config = Config::parse(&yaml.to_string(), "a.yaml").unwrap();
        let decided_by = DecidedBy::of(&config).unwrap();
        let report = Checked { decided_by, capabilities: Vec::new(), ..checked() };
        let said = "a.yaml, the OPA server at http://localhost:8181 decides";
        assert_eq!(report.to_string(), said);
        let report = report.to_json();
        assert_eq!(report["policy_revision"], Value::Null);
        assert_eq!(report["policy_server"], "http://localhost:8181");
    }

    #[test]
    fn programs_read_the_same() {
        let report = checked().to_json();
        assert_eq!(report["valid"], true);
        assert_eq!(report["warnings"], json!(["w"]));
        assert_eq!(
            report["capabilities"],
            json!([
                {"name": "count", "ephemeral": true, "requires_peer": null},
                {"name": "wipe_out", "ephemeral": false,
                 "requires_peer": ["spiffe://example.org/admin/*", "spiffe://b/c"]},
            ])
        );
    }
}
