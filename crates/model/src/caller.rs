//! Who is asking.

use std::sync::Arc;

use crate::SpiffeId;

/// A caller whose identity has been verified. It is made from a certificate or a token that has
/// been checked, never from a header or a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The immediate caller.
    pub spiffe_id: SpiffeId,
    /// The tenant that the credential belongs to; by default the trust domain.
    pub tenant: Arc<str>,
    /// The application within the tenant; empty when the credential names none.
    pub app: Arc<str>,
    /// How far the caller's trust domain is trusted here.
    pub trust_level: TrustLevel,
}

/// How far a trust domain is trusted. The order is meant: later levels include earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrustLevel {
    /// Nothing is known of the caller's domain.
    Unverified,
    /// The certificate chains to a bundle that is configured here.
    Verified,
    /// There is an agreement with the caller's domain.
    Trusted,
    /// The caller's domain is the agent's own.
    Internal,
}

/// Either a verified caller or nobody in particular; the two are different types on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Verified by certificate or token.
    Principal(Arc<Principal>),
    /// Came without a credential.
    Anonymous,
}

impl Principal {
    /// A caller of trust domain `spiffe_id` seen from an agent of `own`: its tenant is its trust
    /// domain, and it is internal if that is the agent's own.
    #[must_use]
    pub fn from_verified_svid(spiffe_id: SpiffeId, own: &SpiffeId) -> Self {
        let internal = spiffe_id.trust_domain_str() == own.trust_domain_str();
        Self {
            tenant: spiffe_id.trust_domain_str().into(),
            app: "".into(),
            trust_level: if internal { TrustLevel::Internal } else { TrustLevel::Verified },
            spiffe_id,
        }
    }
}

impl Caller {
    /// The verified ID, if there is one.
    #[must_use]
    pub fn spiffe_id(&self) -> Option<&SpiffeId> {
        match self {
            Self::Principal(principal) => Some(&principal.spiffe_id),
            Self::Anonymous => None,
        }
    }

    /// The name by which logs and audit speak of the caller.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Principal(principal) => principal.spiffe_id.as_str(),
            Self::Anonymous => "anonymous",
        }
    }
}

impl TrustLevel {
    /// The word of configuration, policy and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unverified => "unverified",
            Self::Verified => "verified",
            Self::Trusted => "trusted",
            Self::Internal => "internal",
        }
    }
}
