//! One task at work: its events are decided one after the other, committed, and shown to those who
//! follow it.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use convoke_a2a::jsonrpc::stream::{task_tail, task_tail_in, update_tail};
use convoke_agent::{AskError, CapabilityIndex, Context, OutputError, Question};
use convoke_engine::{Action, Effects, Event, State, decide};
use convoke_journal::Scope;
use convoke_model::{AuditRecord, Fault, FaultCode, Json, Message, TaskEvent, TaskId, TaskState};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::output::{Asked, Batch, Item, Queue};
use super::said::{artifact, event_of, question, words};
use super::{CANCEL_GRACE, not_found, state_of};
use crate::answers::{Search, TaskAnswer};
use crate::handler::{Outcome, contained};
use crate::ids;
use crate::quota::Quota;
use crate::service::Service;
use crate::stream::{Audience, End, Shown, Subscriber, Subscription, state_after};

/// One task at work. Whoever changes it holds its slot until the change is committed, so events of
/// one task are decided one after the other.
pub(crate) struct Running {
    pub(super) id: TaskId,
    pub(super) scope: Scope,
    /// When it was made.
    begun: Instant,
    pub(super) slot: Mutex<Slot>,
    stop: CancellationToken,
    /// True while those who wait for the task can be answered.
    answer: watch::Sender<bool>,
    /// What its handler says before its end.
    pub(super) output: Queue,
    audience: Audience,
    /// How many questions a caller may leave open.
    pub(super) questions: Arc<Quota>,
}

#[derive(Default)]
pub(super) struct Slot {
    /// `None` once a commit has failed: what the state says may then not be what is stored.
    pub(super) state: Option<State>,
    /// The question that the task waits for an answer to.
    pub(super) question: Option<Asked>,
}

impl Running {
    pub(super) fn new(id: TaskId, scope: Scope, state: State, questions: &Arc<Quota>) -> Arc<Self> {
        Arc::new(Self {
            id,
            scope,
            begun: Instant::now(),
            slot: Mutex::new(Slot { state: Some(state), question: None }),
            stop: CancellationToken::new(),
            answer: watch::Sender::new(false),
            output: Queue::new(),
            audience: Audience::default(),
            questions: Arc::clone(questions),
        })
    }

    /// The task's name.
    pub(crate) fn id(&self) -> &TaskId {
        &self.id
    }

    /// Cancelled when the handler's answer is of no more use.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// The answer to `caller` that shows the task as it stands once there is room for it, with at
    /// most `history` of its messages.
    pub(crate) async fn answer(
        &self,
        service: &Service,
        caller: &Arc<str>,
        history: Option<u32>,
    ) -> Result<TaskAnswer, Fault> {
        let mut search = Search::new(&service.answers, caller);
        loop {
            let measure = {
                let mut slot = self.slot.lock().await;
                let state = slot.fresh(service, &self.scope, &self.id).await?;
                let Some(task) = state.task() else { return Err(not_found(&self.id)) };
                let measure = search.measure(task, history)?;
                if search.has_room(measure) {
                    return Ok(search.answer(Arc::new(task.showing(history)), measure));
                }
                measure
            };
            // Without the slot, or nothing that the handler says would be taken meanwhile.
            search.wait(measure).await?;
        }
    }

    /// Waits until those who wait for the task can be answered.
    pub(crate) async fn answered(&self) {
        let mut answer = self.answer.subscribe();
        // An error would mean that the sender is gone; it lives in `self`.
        let _still_there = answer.wait_for(|answered| *answered).await;
    }

    /// Lets `subscriber` follow the task, from the task as it stands once there is room to show it:
    /// no event is missed, and none comes twice. At most `history` of its messages are shown. It
    /// follows until what this gives is dropped.
    ///
    /// # Errors
    ///
    /// [`FaultCode::UnsupportedOperation`] if the task is too large to be shown, or has ended, unless
    /// `even_if_ended`: then the task is all that there is to see. As [`Search::wait`] if there is no
    /// room.
    pub(crate) async fn join(
        self: &Arc<Self>,
        service: &Service,
        subscriber: &Arc<Subscriber>,
        history: Option<u32>,
        even_if_ended: bool,
    ) -> Result<Subscription, Fault> {
        let mut search = Search::new(&service.answers, &self.scope.owner);
        loop {
            let measure = {
                let mut slot = self.slot.lock().await;
                let state = slot.fresh(service, &self.scope, &self.id).await?;
                let Some(task) = state.task() else { return Err(not_found(&self.id)) };
                if task.status.state.is_terminal() && !even_if_ended {
                    return Err(ended(&self.id));
                }
                let measure = search.measure(task, history)?;
                if search.has_room(measure) {
                    let last_seq = state.last_seq();
                    let is_whole = task.newest(history).len() == task.history.len();
                    let tail = |task| match measure.capacity() {
                        None => task_tail(task, last_seq),
                        Some(capacity) => task_tail_in(task, last_seq, capacity),
                    };
                    let tail = if is_whole { tail(task) } else { tail(&task.showing(history)) };
                    let first = search.found().hold(tail);
                    return Ok(self.show_to(subscriber, task.status.state, first));
                }
                measure
            };
            // Without the slot, or nothing that the handler says would be taken meanwhile.
            search.wait(measure).await?;
        }
    }

    /// Lets `subscriber` follow the task, which is in `state` and shown in `first`. The slot is held.
    fn show_to(
        self: &Arc<Self>,
        subscriber: &Arc<Subscriber>,
        state: TaskState,
        first: Bytes,
    ) -> Subscription {
        // One who watches a task that waits sees more of it; one who has just sent does not.
        if subscriber.begin(state) {
            self.audience.add(subscriber);
        }
        Subscription { task: Arc::clone(self), subscriber: Arc::clone(subscriber), first }
    }

    pub(crate) fn leave(&self, subscriber: &Arc<Subscriber>) {
        self.audience.remove(subscriber);
    }

    /// Ends what follows a task that nobody works on any more, and lets go who waits for it. Where
    /// it has ended, this changes nothing.
    pub(super) fn abandon(&self) {
        self.output.close(OutputError::Ended);
        self.audience.end(End::Lost);
        // Who waits gets the task as it stands: nothing more will come of it.
        self.answer.send_replace(true);
    }

    /// Runs the handler to its end, or a little beyond the task's, and commits what it says.
    pub(super) async fn work(
        &self,
        service: &Service,
        capability: CapabilityIndex,
        context: Context,
        params: Json,
    ) {
        let handler = async {
            let mut handler = pin!(contained(service.host.call(capability, context, params)));
            let outcome = tokio::select! {
                biased;
                outcome = &mut handler => Some(outcome),
                () = self.stop.cancelled() => {
                    self.output.close(OutputError::Ended);
                    // What it makes of the time is its own; the task has ended already.
                    let _tidied = timeout(CANCEL_GRACE, handler).await;
                    None
                }
            };
            self.output.close(OutputError::Ended);
            outcome
        };
        // One task for both: what the handler says is committed while it goes on.
        let (outcome, ()) = tokio::join!(handler, self.pump(service));
        if let Some(outcome) = outcome {
            self.finish(service, capability, outcome.told()).await;
        }
    }

    /// Ends the task on its owner's behalf.
    pub(super) async fn cancel(&self, service: &Service, audit: AuditRecord) -> Result<(), Fault> {
        let mut slot = self.slot.lock().await;
        self.change(service, &mut slot, [Event::Cancel], Some(audit)).await
    }

    /// Takes a message of the owner's: the answer that the task waits for. What does not fit the
    /// question is refused, and the task goes on waiting.
    pub(super) async fn tell(
        &self,
        service: &Service,
        message: Message,
        audit: AuditRecord,
    ) -> Result<(), Fault> {
        let mut slot = self.slot.lock().await;
        let refused = match &slot.question {
            Some(asked) if asked.reply.is_closed() => {
                let text = format!("task `{}` goes on without an answer", self.id);
                Err(Fault::new(FaultCode::UnsupportedOperation, text))
            }
            Some(Asked { question: Question { schema: Some(schema), .. }, .. }) => {
                schema.check(&message)
            }
            _ => Ok(()),
        };
        if let Err(fault) = refused {
            service.put_on_record(Some(audit)).await?;
            return Err(fault);
        }
        self.change(service, &mut slot, [Event::Message(message)], Some(audit)).await
    }

    /// Commits what the handler says, as it says it.
    async fn pump(&self, service: &Service) {
        while let Some(batch) = self.output.take().await {
            let room = batch.room();
            if let Err(fault) = self.commit(service, batch).await {
                tracing::error!(task_id = %self.id, error = %fault, "Handler output was not kept");
                self.output.close(OutputError::Refused(fault.message));
            }
            self.output.done(room);
            self.audience.catch_up().await;
        }
    }

    async fn commit(&self, service: &Service, batch: Batch) -> Result<(), Fault> {
        let mut slot = self.slot.lock().await;
        let mut events = Vec::new();
        for item in batch.items {
            match item {
                Item::Output(output) => events.push(event_of(output)),
                // Whoever asked has thought better of it.
                Item::Question(asked) if asked.reply.is_closed() => {}
                Item::Question(asked) => {
                    let said = std::mem::take(&mut events);
                    self.change(service, &mut slot, said, None).await?;
                    self.put(service, &mut slot, asked).await?;
                }
                Item::Withdrawal => {
                    if slot.question.as_ref().is_some_and(|asked| asked.reply.is_closed()) {
                        slot.question = None;
                        events.push(Event::HandlerResumed);
                    }
                }
            }
        }
        if events.is_empty() {
            return Ok(());
        }
        self.change(service, &mut slot, events, None).await
    }

    /// Puts a question to the owner.
    async fn put(&self, service: &Service, slot: &mut Slot, asked: Asked) -> Result<(), Fault> {
        if slot.question.is_some() {
            // Whoever asked may have gone; then nobody has to know.
            let _gone = asked.reply.send(Err(AskError::Busy));
            return Ok(());
        }
        let event = Event::HandlerAsked(question(&asked.question)?);
        self.change(service, slot, [event], None).await?;
        // A task that has ended takes no question, and dropping it says so.
        if slot.state.as_ref().is_some_and(|state| !state.is_ended()) {
            slot.question = Some(asked);
        }
        if service.tasks.are_draining() {
            self.end_slot_if_waiting(service, slot).await;
        }
        Ok(())
    }

    async fn finish(&self, service: &Service, capability: CapabilityIndex, outcome: Outcome) {
        let event = match (outcome, self.output.refusal()) {
            (Outcome::Panicked, _) => Event::HandlerPanicked { message_id: ids::message() },
            // A result without what came before it would pass for the whole.
            (Outcome::Returned(Ok(_)), Some(why)) => {
                Event::HandlerFinished(Err(words(why.to_string())))
            }
            (Outcome::Returned(Ok(result)), None) => {
                match service.host.check_output(capability, &result) {
                    Ok(()) => Event::HandlerFinished(Ok(artifact(result))),
                    Err(fault) => {
                        tracing::error!(error = %fault, "Capability broke its output schema");
                        Event::HandlerFinished(Err(words(fault.message)))
                    }
                }
            }
            (Outcome::Returned(Err(fault)), _) => Event::HandlerFinished(Err(words(fault.message))),
        };
        if let Err(fault) = self.step(service, event).await {
            // The result could not be kept; that it could not is kept instead, because a task that
            // nobody works on must not stay working.
            tracing::error!(task_id = %self.id, error = %fault, "Task result was not stored");
            let why = words(format!("the result could not be stored: {fault}"));
            if let Err(fault) = self.step(service, Event::HandlerFinished(Err(why))).await {
                tracing::error!(task_id = %self.id, error = %fault, "Task end was not stored");
                self.answer.send_replace(true);
            }
        }
    }

    async fn step(&self, service: &Service, event: Event) -> Result<(), Fault> {
        let mut slot = self.slot.lock().await;
        self.change(service, &mut slot, [event], None).await
    }

    /// Decides events, commits what follows from all of them at once, shows it and acts on it. If
    /// one is refused, so is what comes after it, and what came before it is kept.
    pub(super) async fn change(
        &self,
        service: &Service,
        slot: &mut Slot,
        events: impl IntoIterator<Item = Event>,
        audit: Option<AuditRecord>,
    ) -> Result<(), Fault> {
        // Taken out while it is ahead of the journal: whatever ends this early, the next event
        // finds no state and asks the journal.
        let mut state = match slot.state.take() {
            Some(state) => state,
            None => reload(service, &self.scope, &self.id).await?,
        };
        let mut effects = Effects::new();
        let now = service.clock.now();
        let refused =
            events.into_iter().find_map(|event| decide(&mut state, event, now, &mut effects).err());
        if effects.records.is_empty() {
            slot.state = Some(state);
            service.put_on_record(audit).await?;
        } else {
            let records = effects.records;
            let count = u64::try_from(records.len()).unwrap_or(u64::MAX);
            let expected = state.last_seq().saturating_sub(count);
            let shown = self.shown(&state, &records, expected);
            let committed =
                service.journal.append(&self.scope, &self.id, expected, records, audit).await;
            committed.map_err(|error| service.commit_fault(&error))?;
            self.audience.show(&shown);
            let stands = state.task().map(|task| task.status.state);
            let waits = stands.is_some_and(|it| it.is_terminal() || it.is_interrupted());
            self.answer.send_if_modified(|answer| std::mem::replace(answer, waits) != waits);
            if let (true, Some(end)) = (state.is_ended(), stands) {
                service.metrics.task_ended(end, self.begun.elapsed());
                // Whoever asked may go on beside its handler, and would wait for ever.
                slot.question = None;
            }
            slot.state = Some(state);
        }
        for action in effects.actions {
            match action {
                Action::StopHandler => self.stop.cancel(),
                Action::ResumeHandler => slot.resume(),
                // Said above, where the state says it.
                Action::Answer => {}
                // The handler was started when the task was made, and a task has one.
                Action::RunHandler => {}
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// The events as those who follow the task get them; nothing if nobody does. Nobody can join
    /// while the slot is held.
    fn shown(&self, state: &State, records: &[TaskEvent], before: u64) -> Vec<Shown> {
        if self.audience.is_empty() {
            return Vec::new();
        }
        (before + 1..)
            .zip(records)
            .filter_map(|(seq, event)| {
                let bytes = update_tail(state.id(), state.context_id(), event, seq)?;
                Some(Shown { bytes, state: state_after(event) })
            })
            .collect()
    }
}

impl Slot {
    /// The state, from the journal if need be.
    pub(super) async fn fresh(
        &mut self,
        service: &Service,
        scope: &Scope,
        id: &TaskId,
    ) -> Result<&State, Fault> {
        let state = match self.state.take() {
            Some(state) => state,
            None => reload(service, scope, id).await?,
        };
        Ok(self.state.insert(state))
    }

    /// Gives the handler the message that came last.
    fn resume(&mut self) {
        let history = self.state.as_ref().and_then(State::task).map(|task| &task.history);
        let message = history.and_then(|history| history.last()).cloned();
        if let (Some(asked), Some(message)) = (self.question.take(), message) {
            // A handler that has just gone on by itself has no use for it.
            let _gone = asked.reply.send(Ok(message));
        }
    }
}

/// The state of a task as it is stored.
async fn reload(service: &Service, scope: &Scope, id: &TaskId) -> Result<State, Fault> {
    match service.journal.read(scope, id).await.map_err(|error| service.commit_fault(&error))? {
        Some(stored) => Ok(state_of(stored)),
        None => Err(not_found(id)),
    }
}

/// What is said to who wants to follow a task that has ended.
pub(crate) fn ended(id: &TaskId) -> Fault {
    let text = format!("task `{id}` has ended, so nothing follows; read it with `GetTask`");
    Fault::new(FaultCode::UnsupportedOperation, text).with("taskId", id.as_str())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use convoke_model::{Caller, CapabilityName, SpiffeId};
    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    use super::*;
    use crate::stream::Until;

    fn running() -> Arc<Running> {
        let agent = SpiffeId::parse("spiffe://example.org/agent/worker").unwrap();
        let id = ids::task();
        let capability = CapabilityName::parse("work").unwrap();
        let state = State::new(id.clone(), ids::context(), capability);
        Running::new(id, Scope::new(agent, &Caller::Anonymous), state, &Quota::new(1))
    }

    #[test]
    fn who_waits_for_a_task_that_nobody_works_on_any_more_is_answered() {
        let running = running();
        assert_eq!(running.answered().now_or_never(), None);
        running.abandon();
        assert_eq!(running.answered().now_or_never(), Some(()));
    }

    #[test]
    fn who_has_gone_before_the_task_was_made_does_not_follow_it() {
        let running = running();
        for has_gone in [false, true] {
            let (say, mut said) = oneshot::channel();
            if has_gone {
                said.close();
            }
            let subscriber = Subscriber::new(Until::Ended);
            let follower =
                running.show_to(&subscriber, TaskState::Working, Bytes::from_static(b"task"));
            assert!(!running.audience.is_empty());
            drop(say.send(follower));
            assert_eq!(running.audience.is_empty(), has_gone);
        }
    }
}
