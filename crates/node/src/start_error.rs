//! Why a node does not start.

use std::path::PathBuf;

use convoke_agent::HandlerError;
use convoke_identity::IdentityError;
use convoke_journal::{AuditOpenError, OpenError};
use convoke_model::SpiffeId;
use convoke_net::server::BindError;
use convoke_policy::LoadError;

use crate::card::AgentCardError;
use crate::config::ConfigError;
use crate::observe::otlp::OtlpError;
use crate::policy::{DecisionLogError, PolicyServerError};

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong, or the policy file that it names is not there.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The policy is no policy.
    #[error("policy {0}")]
    Policy(#[from] LoadError),
    /// A data file of the policy cannot be read.
    #[error("data file `{path}` of the policy cannot be read")]
    PolicyData {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The policy server cannot be asked as it is configured.
    #[error(transparent)]
    PolicyServer(#[from] PolicyServerError),
    /// Decisions could not be logged.
    #[error(transparent)]
    DecisionLog(#[from] DecisionLogError),
    /// The agent has no identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Tasks could not be kept.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// Decisions could not be put on record.
    #[error(transparent)]
    Audit(#[from] AuditOpenError),
    /// Spans cannot be sent to the collector that the configuration names.
    #[error(transparent)]
    Otlp(#[from] OtlpError),
    /// The agent could not describe itself.
    #[error(transparent)]
    Card(#[from] AgentCardError),
    /// A listener could not be opened.
    #[error("{listener} listener: {source}")]
    Bind {
        /// Which listener.
        listener: &'static str,
        /// Why.
        source: BindError,
    },
    /// The cryptography that TLS needs is not there.
    #[error("tls: {0}")]
    Tls(rustls::Error),
    /// The identity that the node was given is another agent's.
    #[error("the node was given the identity of `{given}`; `identity.spiffe_id` is `{configured}`")]
    ForeignIdentity {
        /// Whose it is.
        given: SpiffeId,
        /// Whose it should be.
        configured: SpiffeId,
    },
    /// The agent does not want to serve: its `on_start` said why.
    #[error("the agent does not start: {0}")]
    Agent(#[source] HandlerError),
    /// A development listener where there must be none.
    #[error("the development listener {0}")]
    Dev(&'static str),
}

impl StartError {
    /// Whether the cure is in the configuration or the files that it names.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::Config(_)
                | Self::Policy(_)
                | Self::PolicyData { .. }
                | Self::PolicyServer(_)
                | Self::Dev(_)
        )
    }
}
