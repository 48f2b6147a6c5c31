//! Who decides: a policy that is loaded here and may be replaced while requests run, or a policy
//! server. Both behind one question and one answer.

mod breaker;
mod decision_log;
mod reload;
mod remote;
mod sources;

use std::sync::Arc;

use arc_swap::ArcSwap;
use convoke_agent::PeerGuard;
use convoke_model::{Operation, Reason, Revision};
use convoke_policy::{Authorized, Policy, Question, Refused, authorize, authorize_with};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Config;
use crate::observe::health::Health;
use crate::path_metrics::PathMetrics;
use crate::start_error::StartError;

pub use decision_log::DecisionLogError;
pub use remote::PolicyServerError;
pub use sources::load_policy;

use decision_log::DecisionLog;
use reload::Reload;
use remote::PolicyServer;

/// Decides on operations, and is the only part of the node that does.
pub(crate) struct Decider {
    engine: Engine,
    log: Option<DecisionLog>,
    /// Tells those who hold on to a decision that it may be another now.
    changed: watch::Sender<Revision>,
}

enum Engine {
    Here(Box<Here>),
    Server(Box<PolicyServer>),
}

/// The policy that is loaded here, and how it is replaced.
struct Here {
    policy: ArcSwap<Policy>,
    reload: Arc<Reload>,
}

impl Decider {
    /// Loads the policy that `config` names, or finds out how its policy server is asked.
    ///
    /// # Errors
    ///
    /// [`StartError`] if there is no such policy, server or decision log.
    pub(crate) fn open(
        config: &Config,
        clock: Clock,
        health: &Arc<Health>,
        metrics: &PathMetrics,
    ) -> Result<Self, StartError> {
        let (engine, revision) = match &config.authorization.opa {
            Some(opa) => {
                let server = PolicyServer::new(opa, health, metrics)?;
                tracing::info!(server = %server, "Policy server decides");
                let revision = server.revision().clone();
                (Engine::Server(Box::new(server)), revision)
            }
            None => {
                let (reload, policy) = Reload::open(config, clock, health, metrics)?;
                let revision = policy.revision().clone();
                tracing::info!(revision = &*revision.0, "Policy loaded");
                health.set_policy_loaded(true);
                let policy = ArcSwap::from_pointee(policy);
                (Engine::Here(Box::new(Here { policy, reload })), revision)
            }
        };
        let log = config.authorization.decision_log.as_ref();
        let log = log.map(|log| DecisionLog::open(log, clock, metrics)).transpose()?;
        Ok(Self { engine, log, changed: watch::Sender::new(revision) })
    }

    /// Asks about `operation`. Exactly one revision of the policy decides, whichever is current when
    /// it is asked. What the agent's author asks of callers, `guard`, comes on top of what the policy
    /// does. The decision log keeps what comes of both.
    ///
    /// # Errors
    ///
    /// [`Refused`], as from [`authorize`], or with [`Reason::Guard`].
    pub(crate) async fn authorize(
        &self,
        question: &Question<'_>,
        operation: Operation,
        guard: Option<&PeerGuard>,
        clock: Clock,
    ) -> Result<Authorized, Refused> {
        let question = Question { operation: operation.kind(), ..*question };
        let decided = match &self.engine {
            Engine::Here(here) => {
                authorize(&here.policy.load(), &question, operation, &|| clock.monotonic())
            }
            Engine::Server(server) => {
                let began = clock.monotonic();
                let verdict = server.ask(&question).await;
                authorize_with(verdict, operation, clock.monotonic().saturating_sub(began))
            }
        };
        let decided = match (decided, guard) {
            (Ok(authorized), Some(guard)) if !guard.admits(question.caller) => {
                let (operation, mut decision) = authorized.into_parts();
                decision.reason = Reason::Guard;
                decision.rule = Arc::clone(guard.rule());
                Err(Refused { operation, decision })
            }
            (decided, _) => decided,
        };
        if let Some(log) = &self.log {
            log.keep(
                &question,
                match &decided {
                    Ok(authorized) => authorized.decision(),
                    Err(refused) => &refused.decision,
                },
            );
        }
        decided
    }

    /// The revision that decides now.
    pub(crate) fn revision(&self) -> Revision {
        self.changed.borrow().clone()
    }

    /// The revision that decides now, and the news of every other one.
    pub(crate) fn changes(&self) -> watch::Receiver<Revision> {
        self.changed.subscribe()
    }

    /// Looks after what decides until `ended`: reloads a policy that has changed, at once when
    /// `asked` is notified; finds a policy server again that was away. `replaced` hears of each
    /// policy that took the place of another, by their revisions.
    pub(crate) async fn watch(
        &self,
        asked: &Notify,
        ended: &CancellationToken,
        replaced: impl Fn(Revision, Revision),
    ) {
        let watching = async {
            match &self.engine {
                Engine::Server(server) => server.watch().await,
                Engine::Here(here) => loop {
                    let policy = here.reload.changed(asked).await;
                    let revision = policy.revision().clone();
                    here.policy.store(Arc::new(policy));
                    let before = self.changed.send_replace(revision.clone());
                    replaced(before, revision);
                },
            }
        };
        tokio::select! {
            () = watching => {}
            () = ended.cancelled() => {}
        }
    }

    /// Writes what the decision log still holds. It blocks, briefly.
    pub(crate) fn close(&self) {
        if let Some(log) = &self.log {
            log.close();
        }
    }
}
