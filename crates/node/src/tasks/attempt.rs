//! The work on a task: its handler is run, what it says is committed while it goes on, and where an
//! attempt fails that may be made again, it is.

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use convoke_agent::{
    AskError, BoxFuture, CapabilityIndex, Outlet, Output, OutputError, Question, QuestionKind,
};
use convoke_engine::{EarlierAnswers, Event, State};
use convoke_model::{ContextId, Fault, FaultCode, Json, Message, TaskState, UnixMillis, Work};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;

use super::CANCEL_GRACE;
use super::output::{Asked, Batch, Item, Queue};
use super::running::{Running, Slot};
use super::said::{artifact, event_of, question, words};
use crate::context;
use crate::handler::{Outcome, contained};
use crate::ids;
use crate::service::Service;

/// How long the next attempt waits at least, at most: the bound doubles with every attempt, and how
/// much of it is waited is left to chance, so that what failed together does not come back together.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);

/// The largest bound of that pause.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// How long a wait for an instant of the day lasts before the day's clock is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// How long to wait before what the journal did not take is offered to it again.
const JOURNAL_PAUSE: Duration = Duration::from_secs(1);

/// In what a run of a handler begins.
struct Beginning {
    work: Work,
    context_id: ContextId,
    earlier: EarlierAnswers,
}

/// One run of a task's handler.
struct Attempt {
    task: Weak<Running>,
    output: Arc<Queue>,
}

impl Running {
    /// Runs the task's handler, again where that is due, until the task has ended. Its begin is
    /// committed already.
    pub(super) async fn work(
        self: &Arc<Self>,
        service: &Arc<Service>,
        (capability, params): (CapabilityIndex, Json),
    ) {
        loop {
            let Some(outset) = self.persist(service, || self.outset(service)).await else { return };
            let attempt = outset.work.attempt;
            let outcome = self.attempt(service, outset, (capability, params.clone())).await;
            let Some(outcome) = outcome else { return };
            let Some(again_at) = self.finish(service, capability, outcome, attempt).await else {
                return;
            };
            tokio::select! {
                () = sleep_until(instant(service, again_at)) => {}
                () = self.stop().cancelled() => return,
                () = self.left().cancelled() => return,
                () = self.overdue(service) => return,
            }
            let begun = self.persist(service, || self.begin_again(service)).await;
            if begun.is_none() || self.stop().is_cancelled() {
                return;
            }
        }
    }

    /// In what the next run of its handler begins.
    async fn outset(&self, service: &Service) -> Result<Beginning, Fault> {
        let mut slot = self.slot.lock().await;
        let state = slot.fresh(service, self.scope(), self.id()).await?;
        Ok(Beginning {
            work: state.work().clone(),
            context_id: state.context_id().clone(),
            earlier: EarlierAnswers::of(state),
        })
    }

    async fn begin_again(&self, service: &Service) -> Result<(), Fault> {
        let mut slot = self.slot.lock().await;
        self.change(service, &mut slot, [Event::RetryDue, Event::HandlerStarted], None).await
    }

    /// Tries `step` until it is done: a store that takes nothing for a moment is no end of a task.
    /// `None` if there is nothing more to do.
    async fn persist<T, F: Future<Output = Result<T, Fault>>>(
        &self,
        service: &Service,
        step: impl Fn() -> F,
    ) -> Option<T> {
        loop {
            match step().await {
                Ok(done) => return Some(done),
                Err(fault) if fault.code != FaultCode::Unavailable => {
                    self.not_begun(service, &fault).await;
                    return None;
                }
                Err(fault) => {
                    tracing::warn!(task_id = %self.id(), error = %fault, "Task is not begun yet");
                }
            }
            tokio::select! {
                () = sleep(JOURNAL_PAUSE) => {}
                () = self.stop().cancelled() => return None,
                () = self.left().cancelled() => return None,
                () = service.tasks.cut() => return None,
            }
        }
    }

    async fn not_begun(&self, service: &Service, fault: &Fault) {
        tracing::error!(task_id = %self.id(), error = %fault, "Task could not be begun again");
        let why = words(format!("the task could not be begun again: {fault}"));
        self.insist(service, vec![Event::HandlerStarted, Event::HandlerFinished(Err(why))]).await;
    }

    /// Runs the handler once, to its end or a little beyond the task's, and commits what it says.
    /// `None` if the task has ended without it.
    async fn attempt(
        self: &Arc<Self>,
        service: &Arc<Service>,
        Beginning { work, context_id, earlier }: Beginning,
        (capability, params): (CapabilityIndex, Json),
    ) -> Option<Outcome> {
        let output = Arc::new(Queue::new());
        self.take_output(&output);
        let outlet = Attempt { task: Arc::downgrade(self), output: Arc::clone(&output) };
        let context = {
            let about = (capability, work);
            let deadline = self.terms().deadline.map(|at| instant(service, at));
            context::of_task(service, self, context_id, about, deadline, Arc::new(outlet))
        };
        let handler = async {
            let call = service.host.call(capability, context, params);
            let mut handler = pin!(contained(call));
            // Ending the task for its deadline stops the handler.
            let stopped = async { tokio::join!(self.stop().cancelled(), self.overdue(service)).0 };
            let outcome = tokio::select! {
                biased;
                outcome = &mut handler => Some(outcome),
                () = self.stop().cancelled() => None,
                () = stopped => None,
                () = self.left().cancelled() => {
                    output.close(OutputError::Ended);
                    return None;
                }
            };
            output.close(OutputError::Ended);
            if outcome.is_none() {
                // What it makes of the time is its own; the task has ended already.
                let _tidied = timeout(CANCEL_GRACE, &mut handler).await;
            }
            outcome
        };
        // One task for both: what the handler says is committed while it goes on.
        let pump = self.pump(service, &output, earlier);
        let (outcome, refusal) = tokio::join!(handler, pump);
        Some(match (outcome?.told(), refusal) {
            // A result without what came before it would pass for the whole.
            (Outcome::Returned(_), Some(why)) => Outcome::Failed {
                fault: Fault::new(FaultCode::CapabilityFailed, why.to_string()),
                is_retryable: false,
            },
            (outcome, _) => outcome,
        })
    }

    /// Commits what the handler says, as it says it. Gives why something was not kept, if that is so.
    async fn pump(
        &self,
        service: &Service,
        output: &Queue,
        mut earlier: EarlierAnswers,
    ) -> Option<OutputError> {
        while let Some(batch) = output.take().await {
            let room = batch.room();
            if let Err(fault) = self.commit(service, batch, &mut earlier).await {
                tracing::error!(task_id = %self.id(), error = %fault, "Handler output was not kept");
                output.close(OutputError::Refused(fault.message));
            }
            output.done(room);
            self.let_readers_catch_up().await;
        }
        output.refusal()
    }

    async fn commit(
        &self,
        service: &Service,
        batch: Batch,
        earlier: &mut EarlierAnswers,
    ) -> Result<(), Fault> {
        let mut slot = self.slot.lock().await;
        let (mut events, mut kept) = (Vec::new(), Vec::new());
        for item in batch.items {
            match item {
                Item::Output(output) => events.push(event_of(output)),
                Item::Checkpoint(value, done) => {
                    events.push(Event::HandlerCheckpoint(value));
                    kept.push(done);
                }
                // Whoever asked has thought better of it.
                Item::Question(asked) if asked.reply.is_closed() => {}
                Item::Question(asked) => {
                    let said = std::mem::take(&mut events);
                    self.change(service, &mut slot, said, None).await?;
                    self.put(service, &mut slot, asked, earlier).await?;
                }
                Item::Withdrawal => {
                    if slot.question.as_ref().is_some_and(|asked| asked.reply.is_closed()) {
                        slot.question = None;
                        events.push(Event::HandlerResumed);
                    }
                }
            }
        }
        if !events.is_empty() {
            self.change(service, &mut slot, events, None).await?;
        }
        for done in kept {
            // Whoever said it may not wait for it.
            let _gone = done.send(());
        }
        Ok(())
    }

    /// Puts a question to the owner.
    async fn put(
        &self,
        service: &Service,
        slot: &mut Slot,
        asked: Asked,
        earlier: &mut EarlierAnswers,
    ) -> Result<(), Fault> {
        // One whose asker has gone is open no more.
        if slot.question.as_ref().is_some_and(|open| !open.reply.is_closed()) {
            // Whoever asked may have gone; then nobody has to know.
            let _gone = asked.reply.send(Err(AskError::Busy));
            return Ok(());
        }
        let said = question(&asked.question)?;
        let state = slot.fresh(service, self.scope(), self.id()).await?;
        if let Some(answer) = earlier.take(state, &said) {
            let _gone = asked.reply.send(Ok(answer));
            return Ok(());
        }
        let event = match asked.question.kind {
            QuestionKind::Input => Event::HandlerAsked(said),
            QuestionKind::Authorization => Event::HandlerAsksAuthorization(said),
        };
        self.change(service, slot, [event], None).await?;
        // A task that does not wait for it takes no question, and dropping it says so.
        let stands = slot.state.as_ref().and_then(State::task).map(|task| task.status.state);
        if stands.is_some_and(TaskState::is_interrupted) {
            slot.question = Some(asked);
        }
        if service.tasks.are_draining() {
            self.end_slot_if_waiting(service, slot).await;
        }
        Ok(())
    }

    /// Commits how the handler ended. Gives when it is run again, if it is.
    async fn finish(
        &self,
        service: &Service,
        capability: CapabilityIndex,
        outcome: Outcome,
        attempt: u32,
    ) -> Option<UnixMillis> {
        let descriptor = service.host.descriptor(capability);
        let again_at = || {
            let again = attempt <= descriptor.retries && !service.tasks.are_draining();
            again.then(|| service.clock.now().plus_millis(pause_millis(attempt)))
        };
        let event = match outcome {
            Outcome::Panicked if again_at().is_some() => {
                let why = format!("capability `{}` broke off unexpectedly", descriptor.name);
                Event::HandlerFailed { why: words(why), again_at: again_at() }
            }
            Outcome::Panicked => Event::HandlerPanicked { message_id: ids::message() },
            Outcome::Returned(result) => match service.host.check_output(capability, &result) {
                Ok(()) => Event::HandlerFinished(Ok(artifact(result))),
                Err(fault) => {
                    tracing::error!(error = %fault, "Capability broke its output schema");
                    Event::HandlerFinished(Err(words(fault.message)))
                }
            },
            Outcome::Rejected(fault) => Event::HandlerRejected(words(fault.message)),
            Outcome::Failed { fault, is_retryable } => {
                let again_at = if is_retryable { again_at() } else { None };
                Event::HandlerFailed { why: words(fault.message), again_at }
            }
        };
        self.insist(service, vec![event]).await;
        let slot = self.slot.lock().await;
        let state = slot.state.as_ref().filter(|state| !state.is_ended());
        state.and_then(|state: &State| state.work().retry_at)
    }

    /// Commits how the task goes on, which has to be kept. While the journal takes nothing, this
    /// waits for it; what it does not want at all is said instead, because a task that nobody works
    /// on must not stay working.
    pub(super) async fn insist(&self, service: &Service, events: Vec<Event>) {
        let mut offered = events;
        let mut is_replaced = false;
        while let Err(fault) = self.offer(service, offered.clone()).await {
            tracing::error!(task_id = %self.id(), error = %fault, "Task end was not stored");
            if fault.code == FaultCode::Unavailable {
                tokio::select! {
                    () = sleep(JOURNAL_PAUSE) => {}
                    // What is not stored by then is found by the node that comes next.
                    () = service.tasks.cut() => return,
                }
            } else if is_replaced {
                return;
            } else {
                is_replaced = true;
                let why = words(format!("the result could not be stored: {fault}"));
                offered = vec![Event::HandlerFinished(Err(why))];
            }
        }
    }

    async fn offer(&self, service: &Service, events: Vec<Event>) -> Result<(), Fault> {
        let mut slot = self.slot.lock().await;
        self.change(service, &mut slot, events, None).await
    }

    /// Waits until the task's deadline is over, for ever if it has none, and ends it then.
    async fn overdue(&self, service: &Service) {
        let Some(at) = self.terms().deadline else { return std::future::pending().await };
        loop {
            match at.0.saturating_sub(service.clock.now().0) {
                0 => break,
                // Looked at anew now and then, because the time of day may be set.
                left => sleep(Duration::from_millis(left).min(LOOK_AGAIN)).await,
            }
        }
        let message_id = ids::message();
        self.insist(service, vec![Event::DeadlinePassed { message_id }]).await;
    }
}

impl Outlet for Attempt {
    fn emit(&self, output: Output) -> BoxFuture<'_, Result<(), OutputError>> {
        Box::pin(self.output.put(Item::Output(output)))
    }

    fn leave(&self, output: Output) {
        self.output.put_now(Item::Output(output));
    }

    fn checkpoint(&self, value: Json) -> BoxFuture<'_, Result<(), OutputError>> {
        Box::pin(async move {
            let (done, kept) = oneshot::channel();
            self.output.put(Item::Checkpoint(value, done)).await?;
            kept.await.map_err(|_dropped| self.output.refusal().unwrap_or(OutputError::Ended))
        })
    }

    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Message, AskError>> {
        Box::pin(async move {
            let Some(task) = self.task.upgrade() else { return Err(OutputError::Ended.into()) };
            let max = task.questions.max();
            let share =
                task.questions.take(&task.scope().owner).ok_or(AskError::TooMany { max })?;
            drop(task);
            let (reply, answer) = oneshot::channel();
            self.output.put(Item::Question(Asked { question, reply, _share: share })).await?;
            // Dropped before the answer's receiver is, were it not declared after it.
            let mut withdraw = Withdraw { output: &self.output, answer: Some(answer) };
            let answered = match &mut withdraw.answer {
                Some(answer) => answer.await,
                None => return Err(OutputError::Ended.into()),
            };
            withdraw.answer = None;
            answered.unwrap_or_else(|_ended| {
                Err(self.output.refusal().unwrap_or(OutputError::Ended).into())
            })
        })
    }
}

/// Says that nobody waits for an answer any more, if it is dropped before there is one.
struct Withdraw<'a> {
    output: &'a Queue,
    answer: Option<oneshot::Receiver<Result<Message, AskError>>>,
}

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        // Closed first, because that is what the task looks at.
        if let Some(mut answer) = self.answer.take() {
            answer.close();
            self.output.put_now(Item::Withdrawal);
        }
    }
}

/// The instant of the monotonic clock that `at` is, if the time of day goes on as it does: a clock
/// that is set later moves no deadline that is being waited for.
fn instant(service: &Service, at: UnixMillis) -> Instant {
    let left = at.0.saturating_sub(service.clock.now().0);
    Instant::now() + Duration::from_millis(left.min(FAR_MILLIS))
}

/// As long as the runtime's timers go safely: a year, in milliseconds.
const FAR_MILLIS: u64 = 365 * 86_400_000;

/// The pause after attempt number `attempt`, in milliseconds.
fn pause_millis(attempt: u32) -> u64 {
    let doubled = 1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
    let bound = BACKOFF_FIRST.saturating_mul(doubled).min(BACKOFF_MAX).as_millis() as u64;
    Uuid::new_v4().as_u64_pair().0 % (bound + 1)
}
