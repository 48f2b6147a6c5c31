//! What the tests of this crate share: the first seed's policies and one question.

use std::sync::Arc;
use std::time::Duration;

use convoke_model::{Caller, Decision, Json, OperationKind, Principal, SpiffeId, UnixMillis};

use crate::{LoadError, Policy, PolicyOptions, PolicySource, Question};

/// The first seed's policy of the document worker.
pub(crate) const SEED_WORKER: &str = r#"package agentweave.authz

# Default deny - explicit allow required
default allow = false

# Allow requests from the orchestrator
allow {
    # Get caller's SPIFFE ID
    caller_spiffe_id := input.caller.spiffe_id

    # Only allow our orchestrator
    caller_spiffe_id == "spiffe://example.org/orchestrator"

    # And only for these methods
    input.request.method in ["analyze_document", "count_words", "detect_sentiment"]
}

# Allow requests from the same trust domain for testing
allow {
    caller_spiffe_id := input.caller.spiffe_id
    caller_trust_domain := split(caller_spiffe_id, "/")[2]
    our_trust_domain := input.agent.trust_domain
    caller_trust_domain == our_trust_domain
}
"#;

/// The first seed's policy of the orchestrator.
pub(crate) const SEED_ORCHESTRATOR: &str = "package agentweave.authz

# Orchestrator accepts requests from users/other agents
default allow = true

# In production, you'd have stricter policies here:
# - Rate limiting by caller
# - Time-based access
# - Specific method restrictions
";

/// Who asks what, in tests: everything else of the question is fixed.
pub(crate) struct Ask<'a> {
    pub(crate) caller: &'a str,
    pub(crate) method: &'a str,
    pub(crate) params: Option<&'a str>,
}

impl Default for Ask<'_> {
    fn default() -> Self {
        Self {
            caller: "spiffe://example.org/orchestrator",
            method: "count_words",
            params: Some(r#"{"text":"one two"}"#),
        }
    }
}

impl Ask<'_> {
    /// Calls `with` with the question; a caller of `anonymous` is nobody.
    pub(crate) fn with<T>(&self, with: impl FnOnce(&Question<'_>) -> T) -> T {
        let agent = SpiffeId::parse("spiffe://example.org/document-worker").unwrap();
        let caller = if self.caller == "anonymous" {
            Caller::Anonymous
        } else {
            let id = SpiffeId::parse(self.caller).unwrap();
            Caller::Principal(Arc::new(Principal::from_verified_svid(id, &agent)))
        };
        let params = self.params.map(|text| Json::parse(text).unwrap());
        with(&Question {
            caller: &caller,
            agent: &agent,
            agent_name: "Document Worker Agent",
            operation: OperationKind::SendMessage,
            method: self.method,
            params: params.as_ref(),
            at: UnixMillis(1_798_761_599_001),
            protocol: "a2a/1.0",
            remote_addr: "127.0.0.1:50000",
            request_id: "req-1",
            task_id: None,
            context_id: Some("ctx-1"),
        })
    }

    /// What `policy` says, by a clock that stands still.
    pub(crate) fn decide(&self, policy: &Policy) -> Decision {
        self.with(|question| policy.decide(question, &still))
    }
}

/// A clock that stands still, so that no test depends on the machine's speed.
pub(crate) fn still() -> Duration {
    Duration::ZERO
}

/// Options whose time is long enough for a machine that does much else.
pub(crate) fn patient() -> PolicyOptions {
    PolicyOptions { time_max: Duration::from_secs(60), ..PolicyOptions::default() }
}

pub(crate) fn load_with(text: &str, options: &PolicyOptions) -> Result<Policy, LoadError> {
    Policy::load(&PolicySource { name: "test.rego".to_owned(), text: text.to_owned() }, options)
}

pub(crate) fn load(text: &str) -> Policy {
    load_with(text, &patient()).unwrap()
}
