//! One task that has not ended: its events are decided one after the other, committed, and shown to
//! those who follow it.

use std::sync::{Arc, Mutex as Lock, OnceLock, PoisonError};

use convoke_a2a::headers::CAPABILITY_EXTENSION;
use convoke_a2a::jsonrpc::stream::{task_tail, task_tail_in, update_tail};
use convoke_agent::{AnswerSchema, CapabilityIndex, OutputError, Question};
use convoke_engine::{Action, Effects, Event, State, decide};
use convoke_journal::{Fence, JournalError, Scope, Step};
use convoke_model::{
    AuditRecord, Caller, Cursor, Fault, FaultCode, Message, RequestId, TaskEvent, TaskId,
    TaskState, Terms, TraceContext,
};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::output::{Asked, Queue};
use super::{not_found, state_of};
use crate::answers::{Search, TaskAnswer};
use crate::quota::Quota;
use crate::service::Service;
use crate::stream::{Audience, End, Replay, Shown, Subscriber, Subscription, state_after};

/// One task that has not ended. Whoever changes it holds its slot until the change is committed, so
/// events of one task are decided one after the other.
pub(crate) struct Running {
    id: TaskId,
    scope: Scope,
    capability: Option<CapabilityIndex>,
    terms: Terms,
    origin: Origin,
    /// The right to work on it; zero until its submission is committed, and nobody else has seen it
    /// by then.
    fence: OnceLock<Fence>,
    /// When it was made, or found.
    begun: Instant,
    pub(super) slot: Mutex<Slot>,
    stop: CancellationToken,
    /// Cancelled when the node that comes next is to go on with it.
    left: CancellationToken,
    /// True while those who wait for the task can be answered.
    answer: watch::Sender<bool>,
    /// What its handler says before its end, while it has one.
    output: Lock<Option<Arc<Queue>>>,
    audience: Audience,
    /// How many questions a caller may leave open.
    pub(super) questions: Arc<Quota>,
}

/// What a task's handlers are told of the request that made it.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) caller: Caller,
    pub(crate) request_id: RequestId,
    pub(crate) trace: TraceContext,
}

/// What is fixed about a task before it begins.
pub(crate) struct Outset {
    pub(crate) id: TaskId,
    pub(crate) scope: Scope,
    /// `None` if the agent no longer has the capability that it was sent to.
    pub(crate) capability: Option<CapabilityIndex>,
    pub(crate) terms: Terms,
    pub(crate) origin: Origin,
}

#[derive(Default)]
pub(super) struct Slot {
    /// `None` until somebody asks, and once a commit has failed: what the state says may then not be
    /// what is stored.
    pub(super) state: Option<State>,
    /// The question that the task waits for an answer to.
    pub(super) question: Option<Asked>,
}

impl Running {
    /// A task that is about to be made, or has just been found.
    pub(super) fn new(outset: Outset, questions: &Arc<Quota>) -> Arc<Self> {
        let Outset { id, scope, capability, terms, origin } = outset;
        Arc::new(Self {
            id,
            scope,
            capability,
            terms,
            origin,
            fence: OnceLock::new(),
            begun: Instant::now(),
            slot: Mutex::default(),
            stop: CancellationToken::new(),
            left: CancellationToken::new(),
            answer: watch::Sender::new(false),
            output: Lock::default(),
            audience: Audience::default(),
            questions: Arc::clone(questions),
        })
    }

    /// The task's name.
    pub(crate) fn id(&self) -> &TaskId {
        &self.id
    }

    /// Whose it is.
    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The capability that does its work, if the agent still has it.
    pub(crate) fn capability(&self) -> Option<CapabilityIndex> {
        self.capability
    }

    /// On which terms it was taken.
    pub(crate) fn terms(&self) -> Terms {
        self.terms
    }

    /// What its handlers are told of the request that made it.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Cancelled when the handler's answer is of no more use.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Cancelled when the task is left to the node that comes next: its handler is dropped where it
    /// stands, and the journal has what the other one needs.
    pub(super) fn left(&self) -> &CancellationToken {
        &self.left
    }

    /// Whoever works on it may do so by `fence`.
    pub(super) fn is_ours_by(&self, fence: Fence) {
        // A task is made or found once.
        let _first = self.fence.set(fence);
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
        let epoch = service.journal.epoch();
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
                    let cursor = Cursor { epoch, seq: state.last_seq() };
                    let is_whole = task.newest(history).len() == task.history.len();
                    let tail = |task| match measure.capacity() {
                        None => task_tail(task, cursor),
                        Some(capacity) => task_tail_in(task, cursor, capacity),
                    };
                    let tail = if is_whole { tail(task) } else { tail(&task.showing(history)) };
                    let first = search.found().hold(tail);
                    let stands = task.status.state;
                    return Ok(self.show_to(subscriber, stands, Replay::Task(first)));
                }
                measure
            };
            // Without the slot, or nothing that the handler says would be taken meanwhile.
            search.wait(measure).await?;
        }
    }

    /// Lets `subscriber` follow the task from behind `after`, which is a place in it: what follows it
    /// comes from the journal first.
    pub(crate) async fn join_after(
        self: &Arc<Self>,
        service: &Service,
        subscriber: &Arc<Subscriber>,
        after: Cursor,
    ) -> Result<Subscription, Fault> {
        let mut slot = self.slot.lock().await;
        let state = slot.fresh(service, &self.scope, &self.id).await?;
        let Some(task) = state.task() else { return Err(not_found(&self.id)) };
        subscriber.replay_until(state.last_seq());
        let replay = Replay::events(&self.scope, (&self.id, state.context_id()), after);
        Ok(self.show_to(subscriber, task.status.state, replay))
    }

    /// Lets `subscriber` follow the task, which is in `state` and shown in `replay`. The slot is held.
    fn show_to(
        self: &Arc<Self>,
        subscriber: &Arc<Subscriber>,
        state: TaskState,
        replay: Replay,
    ) -> Subscription {
        // One who watches a task that waits sees more of it; one who has just sent does not.
        if subscriber.begin(state) {
            self.audience.add(subscriber);
        }
        let (task, subscriber) = (Some(Arc::clone(self)), Arc::clone(subscriber));
        Subscription { id: self.id.clone(), task, subscriber, replay }
    }

    pub(crate) fn leave(&self, subscriber: &Arc<Subscriber>) {
        self.audience.remove(subscriber);
    }

    /// Ends what follows a task that nobody works on any more, and lets go who waits for it. Where
    /// it has ended, this changes nothing.
    pub(super) fn abandon(&self) {
        self.take_no_output();
        self.audience.end(if self.left.is_cancelled() { End::Left } else { End::Lost });
        // Nothing more will come of it.
        self.let_go();
    }

    /// Whoever waits for the task gets it as it stands.
    pub(super) fn let_go(&self) {
        self.answer.send_replace(true);
    }

    /// What the handler says from here on goes to `output`.
    pub(super) fn take_output(&self, output: &Arc<Queue>) {
        *self.output.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(output));
    }

    fn take_no_output(&self) {
        let output = self.output.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(output) = output {
            output.close(OutputError::Ended);
        }
    }

    /// Waits for those who follow the task and are behind, as long as they may keep it waiting.
    pub(super) async fn let_readers_catch_up(&self) {
        self.audience.catch_up().await;
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
        is_idempotent: bool,
        audit: AuditRecord,
    ) -> Result<(), Fault> {
        let mut slot = self.slot.lock().await;
        let state = slot.fresh(service, &self.scope, &self.id).await?;
        match sent_before(state, &message) {
            // What was said once is not said again, above all not to the next question.
            Some(true) if is_idempotent => return service.put_on_record(Some(audit)).await,
            Some(false) if is_idempotent => {
                service.put_on_record(Some(audit)).await?;
                let message_id = message.message_id;
                return Err(service.commit_fault(&JournalError::SendConflict { message_id }));
            }
            _ => {}
        }
        let asked_before = match &slot.question {
            Some(_) => None,
            None => schema_of(slot.fresh(service, &self.scope, &self.id).await?),
        };
        let refused = match &slot.question {
            None => asked_before.map_or(Ok(()), |schema| schema.check(&message)),
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
        let Effects { events, records, actions } = effects;
        if events.is_empty() && records.is_empty() {
            slot.state = Some(state);
            service.put_on_record(audit).await?;
        } else {
            let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
            let expected_seq = state.last_seq().saturating_sub(count);
            let shown = self.shown(service, &state, &events, expected_seq);
            let fence = self.fence.get().copied().unwrap_or(Fence(0));
            let step = Step { expected_seq, fence, events, records };
            let committed = service.journal.append(&self.scope, &self.id, step, audit).await;
            committed.map_err(|error| service.commit_fault(&error))?;
            self.committed(service, slot, state, &shown);
        }
        for action in actions {
            match action {
                Action::StopHandler => self.stop.cancel(),
                Action::ResumeHandler => slot.resume(),
                // Said above, where the state says it.
                Action::Answer => {}
                // Whoever works on the task sees to its handlers.
                Action::RunHandler => {}
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// The journal has what `state` says: those who follow the task are shown it, and those who wait
    /// for it are answered.
    pub(super) fn committed(
        &self,
        service: &Service,
        slot: &mut Slot,
        state: State,
        shown: &[Shown],
    ) {
        self.audience.show(shown);
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

    /// The events as those who follow the task get them; nothing if nobody does. Nobody can join
    /// while the slot is held.
    fn shown(
        &self,
        service: &Service,
        state: &State,
        events: &[TaskEvent],
        before: u64,
    ) -> Vec<Shown> {
        let Some(account) = self.audience.account() else { return Vec::new() };
        let epoch = service.journal.epoch();
        // The engine puts a message behind the status that it brings about.
        let Some(mut current) = state.task().map(|task| &task.status) else { return Vec::new() };
        let mut shown = Vec::with_capacity(events.len());
        for (seq, event) in (before + 1..).zip(events) {
            if let TaskEvent::Status(new) = event {
                current = new;
            }
            let cursor = Cursor { epoch, seq };
            let bytes = update_tail(state.id(), state.context_id(), event, current, cursor);
            let shows =
                |bytes| Shown { bytes: account.hold(bytes), seq, state: state_after(event) };
            shown.extend(bytes.map(shows));
        }
        shown
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

/// Whether the owner has said `message` in the task before; `false` is another one of that name.
fn sent_before(state: &State, message: &Message) -> Option<bool> {
    let history = &state.task()?.history;
    let same_name =
        |said: &&Message| said.role == message.role && said.message_id == message.message_id;
    let said = history.iter().rev().find(same_name)?;
    Some(said.parts == message.parts && said.metadata == message.metadata)
}

/// What an answer to the question has to be that the task waits with, though nobody who asked it is
/// here: the handler that goes on after a restart has not come back to it yet.
fn schema_of(state: &State) -> Option<AnswerSchema> {
    let status = &state.task()?.status;
    let asked = status.message.as_ref().filter(|_| status.state.is_interrupted())?;
    let metadata: serde_json::Value = asked.metadata.as_ref()?.to().ok()?;
    let schema = metadata.get(CAPABILITY_EXTENSION)?.get("answerSchema")?;
    AnswerSchema::new(schema.clone()).ok()
}

/// The state of a task as it is stored.
pub(super) async fn reload(service: &Service, scope: &Scope, id: &TaskId) -> Result<State, Fault> {
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

    use bytes::Bytes;
    use convoke_model::SpiffeId;
    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    use super::*;
    use crate::ids;
    use crate::stream::Until;

    fn running() -> Arc<Running> {
        let agent = SpiffeId::parse("spiffe://example.org/agent/worker").unwrap();
        let origin = Origin {
            caller: Caller::Anonymous,
            request_id: ids::request(),
            trace: TraceContext::root(1, 1, false),
        };
        let scope = Scope::new(agent, &Caller::Anonymous);
        let (id, terms) = (ids::task(), Terms::default());
        Running::new(Outset { id, scope, capability: None, terms, origin }, &Quota::new(1))
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
            let first = Replay::Task(Bytes::from_static(b"task"));
            let follower = running.show_to(&subscriber, TaskState::Working, first);
            assert!(running.audience.account().is_some());
            drop(say.send(follower));
            assert_eq!(running.audience.account().is_none(), has_gone);
        }
    }
}
