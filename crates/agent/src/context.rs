//! What a handler knows of the request that it answers.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use convoke_model::{
    Caller, ContextId, Json, JsonError, RequestId, SpiffeId, TaskId, TraceContext,
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::{AgentConfig, CallBuilder, Callee, Outbound, Outlet};

/// One request as its handler sees it: who asks, until when, on whose behalf the agent acts, and
/// the way to other agents. Cloning is cheap.
#[derive(Clone)]
pub struct Context(Arc<ContextParts>);

/// What a [`Context`] is made of; the node fills it in for each request.
pub struct ContextParts {
    /// Who asks; verified before the handler runs.
    pub caller: Caller,
    /// The request's name in logs and audit.
    pub request_id: RequestId,
    /// The task that the result will belong to; an ephemeral call has none.
    pub task_id: Option<TaskId>,
    /// The conversation that the request belongs to.
    pub context_id: Option<ContextId>,
    /// When the answer is of no more use, if anybody said.
    pub deadline: Option<Instant>,
    /// The request's place in its trace; calls to other agents are spans below it.
    pub trace: TraceContext,
    /// Cancelled when the answer is of no more use.
    pub cancelled: CancellationToken,
    /// Which attempt at its task this is; the first is 1.
    pub attempt: u32,
    /// The last checkpoint of an earlier attempt.
    pub checkpoint: Option<Json>,
    /// The agent's own configuration.
    pub config: Arc<AgentConfig>,
    /// The span that the handler's log lines belong to.
    pub span: tracing::Span,
    /// The way out.
    pub outbound: Arc<dyn Outbound>,
    /// Where what the handler says before its end goes to; an ephemeral call has nowhere.
    pub outlet: Option<Arc<dyn Outlet>>,
}

impl Context {
    /// The context of one request.
    #[must_use]
    pub fn new(parts: ContextParts) -> Self {
        Self(Arc::new(parts))
    }

    /// Who asks.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.0.caller
    }

    /// Who asks, if it is somebody: a caller without a credential has no SPIFFE ID.
    #[must_use]
    pub fn caller_spiffe_id(&self) -> Option<&SpiffeId> {
        self.0.caller.spiffe_id()
    }

    /// The request's name in logs and audit.
    #[must_use]
    pub fn request_id(&self) -> &RequestId {
        &self.0.request_id
    }

    /// The task that the result will belong to; an ephemeral call has none.
    #[must_use]
    pub fn task_id(&self) -> Option<&TaskId> {
        self.0.task_id.as_ref()
    }

    /// The conversation that the request belongs to.
    #[must_use]
    pub fn context_id(&self) -> Option<&ContextId> {
        self.0.context_id.as_ref()
    }

    /// The request's place in its trace.
    #[must_use]
    pub fn trace(&self) -> TraceContext {
        self.0.trace
    }

    /// When the answer is of no more use, if anybody said.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.0.deadline
    }

    /// The time until [`deadline`](Self::deadline); zero once it has passed.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        // The runtime's clock, so that a test that pauses it pauses this too.
        let now = tokio::time::Instant::now().into_std();
        self.0.deadline.map(|deadline| deadline.saturating_duration_since(now))
    }

    /// Cancelled when the answer is of no more use: the caller asked to end the task, or hung up on
    /// an ephemeral call. A task's handler may then still tidy up for a second, and is dropped after
    /// that; an ephemeral one is dropped at once. Whatever it gives changes nothing.
    #[must_use]
    pub fn cancelled(&self) -> &CancellationToken {
        &self.0.cancelled
    }

    /// Whether the answer is of no more use; see [`cancelled`](Self::cancelled).
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.is_cancelled()
    }

    /// The agent's own configuration.
    #[must_use]
    pub fn config(&self) -> &AgentConfig {
        &self.0.config
    }

    /// The span that the handler's log lines belong to. It is entered while the handler runs; only
    /// a task that the handler spawns needs to enter it again.
    #[must_use]
    pub fn span(&self) -> &tracing::Span {
        &self.0.span
    }

    /// Prepares a call of `capability` on another agent.
    ///
    /// `agent` is a [`SpiffeId`], whose address is looked up in `agent_registry`, or an entry of
    /// that registry, which has its own. Whoever answers has to prove that ID.
    pub fn call_agent(
        &self,
        agent: impl Callee,
        capability: &str,
        params: impl Serialize,
    ) -> CallBuilder {
        let params: Result<Json, JsonError> = Json::of(&params);
        CallBuilder::new(self.clone(), agent, capability, params)
    }

    /// Which attempt at its task this is. It is 1 at first, and in an ephemeral call always; what is
    /// greater says that the handler failed before, or was broken off by the end of the agent.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    pub(crate) fn earlier_checkpoint(&self) -> Option<&Json> {
        self.0.checkpoint.as_ref()
    }

    pub(crate) fn outbound(&self) -> &dyn Outbound {
        &*self.0.outbound
    }

    pub(crate) fn outlet(&self) -> Option<&Arc<dyn Outlet>> {
        self.0.outlet.as_ref()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("caller", &self.0.caller)
            .field("request_id", &self.0.request_id)
            .field("task_id", &self.0.task_id)
            .field("context_id", &self.0.context_id)
            .field("deadline", &self.0.deadline)
            .finish_non_exhaustive()
    }
}
