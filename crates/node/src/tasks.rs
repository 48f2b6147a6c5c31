//! Tasks at work: each is decided by the engine, committed to the journal, and acted on then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use convoke_agent::{CapabilityIndex, Context};
use convoke_engine::{Action, Effects, Event, State, decide};
use convoke_journal::{NewTask, Scope, StoredTask};
use convoke_model::{
    Artifact, AuditRecord, Content, Fault, FaultCode, Json, Message, Part, Role, Task, TaskId,
};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::handler::{Outcome, contained};
use crate::ids;
use crate::service::Service;

/// Most tasks of one agent that are at work at a time. A task costs its parameters and a future;
/// this many small ones are some tens of megabytes.
const ACTIVE_MAX: usize = 10_000;

/// The tasks of one agent that are at work.
#[derive(Default)]
pub(crate) struct Tasks {
    active: Mutex<HashMap<TaskId, Arc<Running>>>,
    handlers: TaskTracker,
}

/// One task at work. Whoever changes it holds its state until the change is committed, so events
/// of one task are decided one after the other.
pub(crate) struct Running {
    id: TaskId,
    scope: Scope,
    /// `None` once a commit has failed: what the state says may then not be what is stored.
    state: tokio::sync::Mutex<Option<State>>,
    stop: CancellationToken,
    /// Becomes true when those who wait for the task can be answered.
    answer: watch::Sender<bool>,
}

/// What a new task is made of.
pub(crate) struct Submission {
    pub(crate) scope: Scope,
    pub(crate) capability: CapabilityIndex,
    pub(crate) params: Json,
    pub(crate) message: Message,
    pub(crate) audit: AuditRecord,
}

impl Tasks {
    /// Commits a new task and starts its handler, whose context `context` makes.
    pub(crate) async fn submit(
        &self,
        service: &Arc<Service>,
        id: TaskId,
        new: Submission,
        context: impl FnOnce(&State, CancellationToken) -> Context,
    ) -> Result<Arc<Running>, Fault> {
        let context_id = new.message.context_id.clone().unwrap_or_else(ids::context);
        let name = service.host.descriptor(new.capability).name.clone();
        let mut state = State::new(id.clone(), context_id.clone(), name.clone());
        let mut effects = Effects::new();
        let now = service.clock.now();
        decide(&mut state, Event::Submit(new.message), now, &mut effects)?;
        // The handler starts at once, so that the task is submitted and working in one commit.
        decide(&mut state, Event::HandlerStarted, now, &mut effects)?;

        let stop = CancellationToken::new();
        let context = context(&state, stop.clone());
        let running = Arc::new(Running {
            id: id.clone(),
            scope: new.scope,
            state: tokio::sync::Mutex::new(Some(state)),
            stop: stop.clone(),
            answer: watch::Sender::new(false),
        });
        let task = NewTask {
            id: id.clone(),
            context_id,
            capability: name,
            subject: None,
            events: effects.records,
        };
        self.admit(&running)?;
        // From here on nothing depends on the caller: who hangs up while the commit is under way
        // must not leave half a task.
        let (say, said) = oneshot::channel();
        let (service, work) = (Arc::clone(service), Arc::clone(&running));
        let seat = Seat { service: Arc::clone(&service), id };
        self.handlers.spawn(
            async move {
                let _seat = seat;
                let created = service.journal.create(&work.scope, task, Some(new.audit)).await;
                let created = created.map_err(|error| service.commit_fault(&error));
                let stop_here = created.is_err();
                // A caller who has gone does not hear it; the task goes on all the same.
                let _gone = say.send(created.map(|_seq| ()));
                if stop_here {
                    return;
                }
                let handler = service.host.call(new.capability, context, new.params);
                let outcome = tokio::select! {
                    biased;
                    // Cancelled: the handler is dropped where it stands, and does not get to see
                    // its own calls fail because of it.
                    () = stop.cancelled() => None,
                    outcome = contained(handler) => Some(outcome),
                };
                if let Some(outcome) = outcome {
                    work.finish(&service, new.capability, outcome).await;
                }
            }
            .in_current_span(),
        );
        match said.await {
            Ok(created) => created.map(|()| running),
            Err(_dropped) => Err(Fault::new(FaultCode::Internal, "the task was not made")),
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
        let step = async move { running.step(&service, Event::Cancel, Some(audit)).await };
        match self.handlers.spawn(step.in_current_span()).await {
            Ok(done) => done,
            Err(_panic) => Err(Fault::new(FaultCode::Internal, "the task was not cancelled")),
        }
    }

    /// The task `id` if it is at work and belongs to `scope`.
    pub(crate) fn find(&self, scope: &Scope, id: &TaskId) -> Option<Arc<Running>> {
        self.active().get(id).filter(|running| running.scope == *scope).cloned()
    }

    /// Waits until no task is at work, at most until `deadline`, and says how many still are.
    /// Whoever calls this has seen to it that no task is added.
    pub(crate) async fn ended(&self, deadline: Instant) -> usize {
        self.handlers.close();
        match timeout_at(deadline, self.handlers.wait()).await {
            Ok(()) => 0,
            Err(_elapsed) => self.active().len(),
        }
    }

    fn admit(&self, running: &Arc<Running>) -> Result<(), Fault> {
        let mut active = self.active();
        if active.len() >= ACTIVE_MAX {
            let text = format!("the agent is at work on {ACTIVE_MAX} tasks; try again later");
            return Err(Fault::new(FaultCode::ResourceExhausted, text));
        }
        active.insert(running.id.clone(), Arc::clone(running));
        Ok(())
    }

    fn forget(&self, id: &TaskId) {
        self.active().remove(id);
    }

    fn active(&self) -> std::sync::MutexGuard<'_, HashMap<TaskId, Arc<Running>>> {
        // Nothing panics while the map is held, and a map is whole after any of its methods.
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task's place among those at work, given back whatever ends its work.
struct Seat {
    service: Arc<Service>,
    id: TaskId,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.service.tasks.forget(&self.id);
    }
}

impl Running {
    /// The task as it stands now.
    pub(crate) async fn task(&self, service: &Service) -> Result<Task, Fault> {
        if let Some(task) = self.state.lock().await.as_ref().and_then(State::task) {
            return Ok(task.clone());
        }
        match service
            .journal
            .read(&self.scope, &self.id)
            .await
            .map_err(|error| service.commit_fault(&error))?
        {
            Some(stored) => Ok(Arc::unwrap_or_clone(stored.task)),
            None => Err(not_found(&self.id)),
        }
    }

    /// Waits until those who wait for the task can be answered.
    pub(crate) async fn answered(&self) {
        let mut answer = self.answer.subscribe();
        // An error would mean that the sender is gone; it lives in `self`.
        let _still_there = answer.wait_for(|answered| *answered).await;
    }

    async fn finish(&self, service: &Service, capability: CapabilityIndex, outcome: Outcome) {
        let event = match outcome {
            Outcome::Panicked => Event::HandlerPanicked { message_id: ids::message() },
            Outcome::Returned(Ok(result)) => match service.host.check_output(capability, &result) {
                Ok(()) => Event::HandlerFinished(Ok(artifact(result))),
                Err(fault) => {
                    tracing::error!(error = %fault, "Capability broke its output schema");
                    Event::HandlerFinished(Err(words(fault.message)))
                }
            },
            Outcome::Returned(Err(fault)) => Event::HandlerFinished(Err(words(fault.message))),
        };
        if let Err(fault) = self.step(service, event, None).await {
            // The result could not be kept; that it could not is kept instead, because a task that
            // nobody works on must not stay working.
            tracing::error!(task_id = %self.id, error = %fault, "Task result was not stored");
            let why = words(format!("the result could not be stored: {fault}"));
            if let Err(fault) = self.step(service, Event::HandlerFinished(Err(why)), None).await {
                tracing::error!(task_id = %self.id, error = %fault, "Task end was not stored");
                self.answer.send_replace(true);
            }
        }
    }

    /// Decides an event, commits what follows and acts on it.
    async fn step(
        &self,
        service: &Service,
        event: Event,
        audit: Option<AuditRecord>,
    ) -> Result<(), Fault> {
        let mut slot = self.state.lock().await;
        // Taken out while it is ahead of the journal: whatever ends this early, the next event
        // finds no state and asks the journal.
        let mut state = match slot.take() {
            Some(state) => state,
            None => reload(service, &self.scope, &self.id).await?,
        };
        let mut effects = Effects::new();
        if let Err(fault) = decide(&mut state, event, service.clock.now(), &mut effects) {
            *slot = Some(state);
            service.put_on_record(audit).await?;
            return Err(fault);
        }
        if effects.records.is_empty() {
            service.put_on_record(audit).await?;
        } else {
            let count = u64::try_from(effects.records.len()).unwrap_or(u64::MAX);
            let expected = state.last_seq().saturating_sub(count);
            let records = effects.records;
            let committed =
                service.journal.append(&self.scope, &self.id, expected, records, audit).await;
            committed.map_err(|error| service.commit_fault(&error))?;
        }
        *slot = Some(state);
        for action in effects.actions {
            match action {
                Action::StopHandler => self.stop.cancel(),
                Action::Answer => drop(self.answer.send_replace(true)),
                // The handler was started when the task was made, and a task has one.
                Action::RunHandler | Action::ResumeHandler => {}
            }
        }
        Ok(())
    }
}

/// The engine's view of a stored task.
pub(crate) fn state_of(stored: StoredTask) -> State {
    State::of_stored(Arc::unwrap_or_clone(stored.task), stored.capability, stored.last_seq)
}

/// The state of a task as it is stored.
async fn reload(service: &Service, scope: &Scope, id: &TaskId) -> Result<State, Fault> {
    match service.journal.read(scope, id).await.map_err(|error| service.commit_fault(&error))? {
        Some(stored) => Ok(state_of(stored)),
        None => Err(not_found(id)),
    }
}

pub(crate) fn not_found(id: &TaskId) -> Fault {
    Fault::new(FaultCode::TaskNotFound, format!("task `{id}` does not exist"))
        .with("taskId", id.as_str())
}

fn artifact(result: Json) -> Artifact {
    Artifact {
        artifact_id: ids::artifact(),
        name: None,
        description: None,
        parts: vec![Part::new(Content::Data(result))],
        metadata: None,
        extensions: Vec::new(),
        unknown: Vec::new(),
    }
}

fn words(text: String) -> Message {
    Message::new(ids::message(), Role::Agent, vec![Part::new(Content::Text(text))])
}
