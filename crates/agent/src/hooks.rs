//! What an agent does when it begins, when it ends, and when its identity is renewed.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use convoke_model::{UnixMillis, chain};
use futures_util::FutureExt;

use crate::{Agent, BoxFuture, Context, HandlerError, Host};

/// The hooks of an agent whose type is not known any more.
pub(crate) trait Hooks: Send + Sync {
    fn start<'a>(&'a self, context: &'a Context) -> BoxFuture<'a, Result<(), HandlerError>>;
    fn stop(&self) -> BoxFuture<'_, ()>;
    fn svid_update(&self, not_after: UnixMillis) -> BoxFuture<'_, ()>;
}

impl<A: Agent> Hooks for A {
    fn start<'a>(&'a self, context: &'a Context) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(self.on_start(context))
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.on_stop())
    }

    fn svid_update(&self, not_after: UnixMillis) -> BoxFuture<'_, ()> {
        Box::pin(self.on_svid_update(not_after))
    }
}

impl Host {
    /// Runs the agent's `on_start`. `context` is one in which the agent acts for itself.
    ///
    /// # Errors
    ///
    /// Why the agent does not want to serve; a panic is a reason too.
    pub async fn start(&self, context: &Context) -> Result<(), HandlerError> {
        contained("on_start", self.hooks().start(context)).await.unwrap_or_else(Err)
    }

    /// Runs the agent's `on_stop`. The log hears of a panic; nothing else comes of it.
    pub async fn stop(&self) {
        noted(contained("on_stop", self.hooks().stop()).await);
    }

    /// Runs the agent's `on_svid_update`. The log hears of a panic; nothing else comes of it.
    pub async fn svid_update(&self, not_after: UnixMillis) {
        noted(contained("on_svid_update", self.hooks().svid_update(not_after)).await);
    }
}

/// What a hook gives, or that it panicked: what its author got wrong must not take the node along.
async fn contained<T>(
    name: &'static str,
    hook: impl Future<Output = T>,
) -> Result<T, HandlerError> {
    let ran: Result<T, Box<dyn Any + Send>> = AssertUnwindSafe(hook).catch_unwind().await;
    // The panic hook has printed what it is about.
    ran.map_err(|_panic| HandlerError::new(format!("`{name}` broke off unexpectedly")))
}

fn noted(ran: Result<(), HandlerError>) {
    if let Err(error) = ran {
        tracing::error!(error = chain(&error), "Lifecycle hook failed");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::json;

    use super::*;
    use crate::Capability;
    use crate::call::tests::parts;
    use crate::host::tests::{Nowhere, agent, echo};

    #[derive(Default)]
    struct Diary {
        seen: Arc<Mutex<Vec<String>>>,
        failing: bool,
        panicking: bool,
    }

    impl Diary {
        fn note(&self, what: impl Into<String>) {
            self.seen.lock().unwrap().push(what.into());
        }
    }

    impl Agent for Diary {
        fn capabilities() -> Vec<Capability<Self>> {
            vec![Capability::new("echo", json!({}), echo)]
        }

        async fn on_start(&self, context: &Context) -> Result<(), HandlerError> {
            assert!(!self.panicking, "as the test wants it");
            if self.failing {
                return Err(HandlerError::new("the model is missing"));
            }
            self.note(format!("start as {}", context.config().spiffe_id));
            Ok(())
        }

        async fn on_stop(&self) {
            assert!(!self.panicking, "as the test wants it");
            self.note("stop");
        }

        async fn on_svid_update(&self, not_after: UnixMillis) {
            self.note(format!("until {not_after}"));
        }
    }

    #[tokio::test]
    async fn hooks_reach_the_agent() {
        let agent = Diary::default();
        let seen = Arc::clone(&agent.seen);
        let host = Host::new(agent).unwrap();
        let context = Context::new(parts(Arc::new(Nowhere)));
        host.start(&context).await.unwrap();
        host.svid_update(UnixMillis(1_000)).await;
        host.stop().await;
        let id = &context.config().spiffe_id;
        assert_eq!(
            *seen.lock().unwrap(),
            [format!("start as {id}"), "until 1970-01-01T00:00:01.000Z".into(), "stop".into()]
        );
    }

    #[tokio::test]
    async fn an_agent_that_cannot_start_says_why() {
        let context = Context::new(parts(Arc::new(Nowhere)));
        let check = async |agent: Diary, expected: &str| {
            let host = Host::new(agent).unwrap();
            assert_eq!(host.start(&context).await.unwrap_err().to_string(), expected);
            host.stop().await;
        };
        check(Diary { failing: true, ..Diary::default() }, "the model is missing").await;
        let panicking = Diary { panicking: true, ..Diary::default() };
        check(panicking, "`on_start` broke off unexpectedly").await;
    }

    #[tokio::test]
    async fn hooks_are_nothing_by_default() {
        agent!(Plain, Capability::new("echo", json!({}), echo));
        let host = Host::new(Plain).unwrap();
        let context = Context::new(parts(Arc::new(Nowhere)));
        host.start(&context).await.unwrap();
        host.svid_update(UnixMillis(0)).await;
        host.stop().await;
    }
}
