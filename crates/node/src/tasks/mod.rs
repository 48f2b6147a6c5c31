//! Tasks that have not ended: each is decided by the engine, committed to the journal, and acted on
//! then.
//!
//! | module | story |
//! |---|---|
//! | `running` | one task: what happens to it is decided, committed and shown |
//! | `attempt` | the work on it: its handler is run, and run again |
//! | `board` | which tasks are at work, which wait, and who is next |
//! | `found` | tasks whose turn has come, and those that an earlier process left |
//! | `ending` | tasks that the node ends itself |
//! | `output`, `said` | what a handler says, on its way to its task |

mod attempt;
mod board;
mod ending;
mod found;
mod output;
mod running;
mod said;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use convoke_engine::{Effects, Event, State, decide};
use convoke_journal::{Created, Durability, NewTask, Scope, SendKey, StoredTask};
use convoke_model::{AuditRecord, Fault, FaultCode, Json, Message, TaskId};
use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::config::TasksConfig;
use crate::ids;
use crate::quota::Quota;
use crate::service::Service;
use crate::stream::{Subscriber, Subscription};

use board::{Board, Reserved, Seat};
pub(crate) use running::{Origin, Outset, Running, ended};

/// Most tasks of one agent that wait for an answer of one caller. They may wait for ever, so one
/// caller is not to have all of its part of the seats in them.
const QUESTIONS_PER_CALLER_MAX: usize = 1_000;

/// How long a handler may tidy up after its task was cancelled, before it is dropped where it
/// stands.
const CANCEL_GRACE: Duration = Duration::from_secs(1);

/// The tasks of one agent that have not ended.
pub(crate) struct Tasks {
    board: Arc<Board>,
    handlers: TaskTracker,
    questions: Arc<Quota>,
    /// Set once no answers are taken any more.
    draining: AtomicBool,
    /// Set once every task is known that an earlier process left.
    all_found: AtomicBool,
    /// Cancelled when nothing is waited for any more.
    cut: CancellationToken,
}

/// What a new task is made of.
pub(crate) struct Submission {
    pub(crate) outset: Outset,
    pub(crate) params: Json,
    pub(crate) message: Message,
    /// Under what its sender may send it again.
    pub(crate) send: Option<SendKey>,
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
    /// The task that an earlier sending of the same message has made.
    Known(TaskId),
}

/// Where a new task begins.
enum Place {
    Seat(Seat),
    Line(Reserved),
    /// Nowhere: its deadline is over already.
    Nowhere,
}

impl Tasks {
    pub(crate) fn new(limits: TasksConfig, cut: CancellationToken) -> Self {
        Self {
            board: Board::new(limits),
            handlers: TaskTracker::new(),
            questions: Quota::new(QUESTIONS_PER_CALLER_MAX),
            draining: AtomicBool::new(false),
            all_found: AtomicBool::new(false),
            cut,
        }
    }

    /// Commits a new task, and starts its handler if there is a free seat.
    pub(crate) async fn submit(
        &self,
        service: &Arc<Service>,
        new: Submission,
    ) -> Result<Taken, Fault> {
        let Submission { outset, params, message, send, audit, join } = new;
        let context_id = message.context_id.clone().unwrap_or_else(ids::context);
        let Some(index) = outset.capability else {
            return Err(Fault::new(FaultCode::Internal, "a new task without a capability"));
        };
        let capability = service.host.descriptor(index).name.clone();
        let (id, terms) = (outset.id.clone(), outset.terms);
        let mut state = State::new(id.clone(), context_id.clone(), capability.clone(), terms);
        let mut effects = Effects::new();
        let now = service.clock.now();
        decide(&mut state, Event::Submit(message), now, &mut effects)?;

        let running = Running::new(outset, &self.questions);
        let is_late = terms.deadline.is_some_and(|deadline| deadline <= now);
        let place = match if is_late { None } else { self.board.seat(&running) } {
            None if is_late => {
                let message_id = ids::message();
                decide(&mut state, Event::DeadlinePassed { message_id }, now, &mut effects)?;
                Place::Nowhere
            }
            Some(seat) => {
                // Submitted and working in one commit.
                decide(&mut state, Event::HandlerStarted, now, &mut effects)?;
                Place::Seat(seat)
            }
            None => match self.board.reserve(&running) {
                Ok(reserved) => Place::Line(reserved),
                Err(none) => {
                    // It was allowed, and that is on record; no task came of it.
                    let audit = AuditRecord { task_id: None, ..audit };
                    service.put_on_record(Some(audit)).await?;
                    return Err(none.fault());
                }
            },
        };
        let Effects { events, records, .. } = effects;
        let subject = None;
        let task = NewTask { id, context_id, capability, subject, terms, events, records, send };
        // From here on nothing depends on the caller: who hangs up while the commit is under way
        // must not leave half a task.
        let (say, said) = oneshot::channel();
        let (service, work) = (Arc::clone(service), Arc::clone(&running));
        self.handlers.spawn(
            async move {
                // Outlives what may panic: whoever sits there is still to be ended.
                let (seat, mut reserved) = match place {
                    Place::Seat(seat) => (Some(seat), None),
                    Place::Line(reserved) => (None, Some(reserved)),
                    Place::Nowhere => (None, None),
                };
                let is_seated = seat.is_some();
                let whole = async {
                    // Who asks for the task by its name finds it once it is committed.
                    let mut slot = work.slot.lock().await;
                    let created = service.journal.create(work.scope(), task, Some(audit)).await;
                    let created = match created {
                        Ok(created) => created,
                        Err(error) => {
                            drop(say.send(Err(service.commit_fault(&error))));
                            return;
                        }
                    };
                    let Created::New { fence, .. } = created else {
                        let Created::Known(id) = created else { return };
                        drop(say.send(Ok(Taken::Known(id))));
                        return;
                    };
                    work.is_ours_by(fence);
                    work.committed(&service, &mut slot, state, &[]);
                    if let Some(reserved) = reserved.take() {
                        // It may wait long, and the journal has what the state says.
                        slot.state = None;
                        reserved.line_up(service.clock.now());
                    }
                    drop(slot);
                    let follower = match join {
                        None => Ok(None),
                        // Before the handler begins, so that nothing of what it says is missed.
                        Some(Join { subscriber, history }) => {
                            work.join(&service, &subscriber, history, true).await.map(Some)
                        }
                    };
                    let taken = follower.map(|follower| Taken::Task(Arc::clone(&work), follower));
                    // A caller who has gone does not hear it and, dropped here, follows nothing;
                    // the task goes on all the same.
                    drop(say.send(taken));
                    if is_seated {
                        work.work(&service, (index, params)).await;
                    }
                };
                // What panics beside the handler ends the task too: nobody works on it any more.
                if AssertUnwindSafe(whole).catch_unwind().await.is_err() {
                    tracing::error!(task_id = %work.id(), "Task broke off");
                    work.break_off(&service).await;
                }
                drop(seat);
            }
            .in_current_span(),
        );
        said.await.unwrap_or_else(|_panic| {
            Err(Fault::new(FaultCode::Internal, "the task broke off at its beginning"))
        })
    }

    /// Ends `running` on its owner's behalf. Once begun it is done, even if the owner hangs up.
    pub(crate) async fn cancel(
        &self,
        service: &Arc<Service>,
        running: &Arc<Running>,
        audit: AuditRecord,
    ) -> Result<(), Fault> {
        let (service, ending) = (Arc::clone(service), Arc::clone(running));
        let board = Arc::clone(&self.board);
        self.finish(async move {
            ending.cancel(&service, audit).await?;
            // If it stood in line, it makes room there.
            board.leave(&ending);
            Ok(())
        })
        .await
    }

    /// Gives `running` the answer that it waits for. Once begun it is done, even if the owner hangs
    /// up.
    pub(crate) async fn tell(
        &self,
        service: &Arc<Service>,
        running: &Arc<Running>,
        (message, is_idempotent): (Message, bool),
        audit: AuditRecord,
    ) -> Result<(), Fault> {
        let (service, running) = (Arc::clone(service), Arc::clone(running));
        self.finish(async move { running.tell(&service, message, is_idempotent, audit).await })
            .await
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

    /// The task `id` if it belongs to `scope` and has not ended.
    pub(crate) fn find(&self, scope: &Scope, id: &TaskId) -> Option<Arc<Running>> {
        self.board.find(scope, id)
    }

    /// How many tasks are at work, and how many wait for their turn.
    pub(crate) fn counts(&self) -> (usize, usize) {
        self.board.counts()
    }

    /// What is said of a task that has not ended, and that nobody works on.
    pub(crate) fn not_at_hand(&self, id: &TaskId) -> Fault {
        let text = if self.all_found.load(Ordering::Acquire) {
            format!("task `{id}` has just changed; ask again")
        } else {
            format!("the agent has just started and has yet to come to task `{id}`; ask again")
        };
        Fault::new(FaultCode::Unavailable, text).with("taskId", id.as_str())
    }

    /// Ends the tasks that wait for an answer, and those that would from here on: a node that drains
    /// takes none. Without this they would hold the drain for as long as it may take.
    pub(crate) async fn end_waiting(&self, service: &Service) {
        // Set before any slot is looked at: a question that is put later sees it.
        self.draining.store(true, Ordering::Release);
        if service.journal.durability() != Durability::Memory {
            // Nobody begins them before the next start, so whoever waits would wait in vain.
            for running in self.board.in_line() {
                running.let_go();
            }
        }
        let active = self.board.all();
        join_all(active.iter().map(|running| running.end_if_waiting(service))).await;
    }

    fn are_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Waits until nothing is waited for any more.
    async fn cut(&self) {
        self.cut.cancelled().await;
    }

    /// Waits until no task is at work, at most until `deadline`, and says how many still are.
    /// Whoever calls this has seen to it that no task is added.
    pub(crate) async fn ended(&self, deadline: Instant) -> usize {
        self.handlers.close();
        match timeout_at(deadline, self.handlers.wait()).await {
            Ok(()) => 0,
            Err(_elapsed) => {
                self.cut.cancel();
                self.board.counts().0
            }
        }
    }
}

/// The engine's view of a stored task.
pub(crate) fn state_of(stored: StoredTask) -> State {
    let StoredTask { task, capability, terms, work, last_seq, subject: _ } = stored;
    State::of_stored(Arc::unwrap_or_clone(task), capability, terms, work, last_seq)
}

pub(crate) fn not_found(id: &TaskId) -> Fault {
    Fault::new(FaultCode::TaskNotFound, format!("task `{id}` does not exist"))
        .with("taskId", id.as_str())
}
