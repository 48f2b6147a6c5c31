//! Tasks at work: each is decided by the engine, committed to the journal, and acted on then.

mod ending;
mod outlet;
mod output;
mod running;
mod said;
mod seats;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use convoke_agent::{CapabilityIndex, Context};
use convoke_engine::{Effects, Event, State, decide};
use convoke_journal::{NewTask, Scope, StoredTask};
use convoke_model::{AuditRecord, ContextId, Fault, FaultCode, Json, Message, TaskId};
use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::ids;
use crate::quota::Quota;
use crate::service::Service;
use crate::stream::{Subscriber, Subscription};

pub(crate) use running::{Running, ended};
use seats::Seats;

/// Most tasks of one agent that are at work at a time. A task costs its parameters and a future;
/// this many small ones are some tens of megabytes. A task that waits for its caller is at work too,
/// and takes no more than another. One caller may have a quarter of them.
const ACTIVE_MAX: usize = 10_000;

/// Most tasks of one agent that wait for an answer of one caller. They may wait for ever, so one
/// caller is not to have all of its part of [`ACTIVE_MAX`] in them.
const QUESTIONS_PER_CALLER_MAX: usize = 1_000;

/// How long a handler may tidy up after its task was cancelled, before it is dropped where it
/// stands.
const CANCEL_GRACE: Duration = Duration::from_secs(1);

/// The tasks of one agent that are at work.
pub(crate) struct Tasks {
    seats: Arc<Seats>,
    handlers: TaskTracker,
    questions: Arc<Quota>,
    /// Set once no answers are taken any more.
    draining: AtomicBool,
}

/// What a new task is made of.
pub(crate) struct Submission {
    pub(crate) scope: Scope,
    pub(crate) capability: CapabilityIndex,
    pub(crate) params: Json,
    pub(crate) message: Message,
    pub(crate) audit: AuditRecord,
    /// Who follows the task from its beginning.
    pub(crate) join: Option<Join>,
}

/// Who wants to follow a task.
pub(crate) struct Join {
    pub(crate) subscriber: Arc<Subscriber>,
    /// How many messages of the task are shown; `None` means all.
    pub(crate) history: Option<u32>,
}

/// What a message has come to.
pub(crate) enum Taken {
    /// An answer, without a task.
    Message(Message),
    /// A task, new or an old one, and its follower if somebody wanted to join.
    Task(Arc<Running>, Option<Subscription>),
}

impl Default for Tasks {
    fn default() -> Self {
        Self {
            seats: Seats::new(ACTIVE_MAX),
            handlers: TaskTracker::new(),
            questions: Quota::new(QUESTIONS_PER_CALLER_MAX),
            draining: AtomicBool::new(false),
        }
    }
}

impl Tasks {
    /// Commits a new task and starts its handler, whose context `context` makes.
    pub(crate) async fn submit(
        &self,
        service: &Arc<Service>,
        id: TaskId,
        new: Submission,
        context: impl FnOnce(&Arc<Running>, ContextId) -> Context,
    ) -> Result<Taken, Fault> {
        let context_id = new.message.context_id.clone().unwrap_or_else(ids::context);
        let name = service.host.descriptor(new.capability).name.clone();
        let mut state = State::new(id.clone(), context_id.clone(), name.clone());
        let mut effects = Effects::new();
        let now = service.clock.now();
        decide(&mut state, Event::Submit(new.message), now, &mut effects)?;
        // The handler starts at once, so that the task is submitted and working in one commit.
        decide(&mut state, Event::HandlerStarted, now, &mut effects)?;

        let running = Running::new(id.clone(), new.scope, state, &self.questions);
        let context = context(&running, context_id.clone());
        let task =
            NewTask { id, context_id, capability: name, subject: None, events: effects.records };
        let seat = match self.seats.take(&running) {
            Ok(seat) => seat,
            Err(none) => {
                // It was allowed, and that is on record; no task came of it.
                let audit = AuditRecord { task_id: None, ..new.audit };
                service.put_on_record(Some(audit)).await?;
                return Err(none.fault());
            }
        };
        // From here on nothing depends on the caller: who hangs up while the commit is under way
        // must not leave half a task.
        let (say, said) = oneshot::channel();
        let (service, work) = (Arc::clone(service), Arc::clone(&running));
        self.handlers.spawn(
            async move {
                let _seat = seat;
                let whole = async {
                    let created = service.journal.create(&work.scope, task, Some(new.audit)).await;
                    let created = created.map_err(|error| service.commit_fault(&error));
                    let failed = created.is_err();
                    let joined = match (created, new.join) {
                        (Err(fault), _) => Err(fault),
                        (Ok(_), None) => Ok(None),
                        // Before the handler begins, so that nothing of what it says is missed.
                        (Ok(_), Some(join)) => {
                            let Join { subscriber, history } = join;
                            work.join(&service, &subscriber, history, true).await.map(Some)
                        }
                    };
                    // A caller who has gone does not hear it and, dropped here, follows nothing;
                    // the task goes on all the same.
                    drop(say.send(joined));
                    if !failed {
                        work.work(&service, new.capability, context, new.params).await;
                    }
                };
                // What panics beside the handler ends the task too: nobody works on it any more.
                if AssertUnwindSafe(whole).catch_unwind().await.is_err() {
                    tracing::error!(task_id = %work.id, "Task broke off");
                    work.break_off(&service).await;
                }
            }
            .in_current_span(),
        );
        match said.await {
            Ok(joined) => joined.map(|follower| Taken::Task(running, follower)),
            Err(_panic) => {
                Err(Fault::new(FaultCode::Internal, "the task broke off at its beginning"))
            }
        }
    }

    /// Ends `running` on its owner's behalf. Once begun it is done, even if the owner hangs up.
    pub(crate) async fn cancel(
        &self,
        service: &Arc<Service>,
        running: &Arc<Running>,
        audit: AuditRecord,
    ) -> Result<(), Fault> {
        let (service, running) = (Arc::clone(service), Arc::clone(running));
        self.finish(async move { running.cancel(&service, audit).await }).await
    }

    /// Gives `running` the answer that it waits for. Once begun it is done, even if the owner hangs
    /// up.
    pub(crate) async fn tell(
        &self,
        service: &Arc<Service>,
        running: &Arc<Running>,
        message: Message,
        audit: AuditRecord,
    ) -> Result<(), Fault> {
        let (service, running) = (Arc::clone(service), Arc::clone(running));
        self.finish(async move { running.tell(&service, message, audit).await }).await
    }

    /// Takes `step` to its end, whoever waits for it.
    async fn finish(
        &self,
        step: impl Future<Output = Result<(), Fault>> + Send + 'static,
    ) -> Result<(), Fault> {
        match self.handlers.spawn(step.in_current_span()).await {
            Ok(done) => done,
            Err(_panic) => Err(Fault::new(FaultCode::Internal, "the task was not changed")),
        }
    }

    /// The task `id` if it is at work and belongs to `scope`.
    pub(crate) fn find(&self, scope: &Scope, id: &TaskId) -> Option<Arc<Running>> {
        self.seats.find(scope, id)
    }

    /// Ends the tasks that wait for an answer, and those that would from here on: a node that drains
    /// takes none. Without this they would hold the drain for as long as it may take.
    pub(crate) async fn end_waiting(&self, service: &Service) {
        // Set before any slot is looked at: a question that is put later sees it.
        self.draining.store(true, Ordering::Release);
        let active = self.seats.all();
        join_all(active.iter().map(|running| running.end_if_waiting(service))).await;
    }

    fn are_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Waits until no task is at work, at most until `deadline`, and says how many still are.
    /// Whoever calls this has seen to it that no task is added.
    pub(crate) async fn ended(&self, deadline: Instant) -> usize {
        self.handlers.close();
        match timeout_at(deadline, self.handlers.wait()).await {
            Ok(()) => 0,
            Err(_elapsed) => self.seats.count(),
        }
    }
}

/// The engine's view of a stored task.
pub(crate) fn state_of(stored: StoredTask) -> State {
    State::of_stored(Arc::unwrap_or_clone(stored.task), stored.capability, stored.last_seq)
}

pub(crate) fn not_found(id: &TaskId) -> Fault {
    Fault::new(FaultCode::TaskNotFound, format!("task `{id}` does not exist"))
        .with("taskId", id.as_str())
}
