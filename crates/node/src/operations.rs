//! The path of an operation: look up, authorise, put on record, do.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use convoke_a2a::jsonrpc::{self, RequestIdJson};
use convoke_a2a::terms::terms_of;
use convoke_agent::CapabilityIndex;
use convoke_engine::{Effects, Event, decide};
use convoke_journal::{SendKey, StoredTask};
use convoke_model::{
    AuditOutcome, AuditRecord, Caller, CancelTask, CapabilityName, Content, Fault, FaultCode,
    GetTask, Json, Message, Operation, OperationKind, Part, Reason, RequestId, Role, SendMessage,
    SubscribeToTask, TaskId, TraceContext, UnixMillis,
};
use convoke_policy::{Authorized, Question, Refused};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::answers::{Search, TaskAnswer};
use crate::budget::Room;
use crate::connection::{Connection, Listener};
use crate::digest::{sha256, sha256_hex};
use crate::handler::{Outcome, contained};
use crate::list::ListAnswer;
use crate::observe::trace::Kind;
use crate::service::Service;
use crate::stream::Follow;
use crate::tasks::{Join, Origin, Outset, Running, Submission, Taken, not_found, state_of};
use crate::{context, ids};

/// The wire by which operations come here, as policy and context see it.
const PROTOCOL: &str = "a2a/1.0";

/// How long a message that was sent is known by its name, in milliseconds: a day. Source: the
/// reliability reference, P4.
const SENDS_REMEMBERED_MILLIS: u64 = 86_400_000;

/// What an operation gives.
pub(crate) enum Answer {
    Message(Message),
    Task(TaskAnswer),
    List(ListAnswer),
    /// A task, and what becomes of it.
    Follow(Box<Follow>),
}

/// One request on its way through the node.
pub(crate) struct Request<'a> {
    pub(crate) service: &'a Arc<Service>,
    pub(crate) connection: &'a Arc<Connection>,
    pub(crate) id: RequestId,
    pub(crate) at: UnixMillis,
    /// When its caller stops to wait, if it said so.
    pub(crate) deadline: Option<Instant>,
    /// Its place in its trace.
    pub(crate) trace: TraceContext,
    /// Which capability it turned out to be about.
    pub(crate) about: OnceLock<CapabilityIndex>,
    /// Its share of what large bodies may take.
    pub(crate) room: Mutex<Room>,
    /// Whether its message, sent again, is to mean the same task.
    pub(crate) is_idempotent: bool,
}

/// What an operation is about, known before policy is asked.
pub(crate) struct Subject {
    pub(crate) index: CapabilityIndex,
    /// The parameters of a call; a task operation has none. Nor is its task kept here: the journal
    /// would have to copy it whenever it changes while a policy server or room is waited for.
    pub(crate) params: Option<Json>,
}

impl Request<'_> {
    /// Does `operation`, if policy allows it.
    pub(crate) async fn perform(&self, operation: Operation) -> Result<Answer, Fault> {
        self.admit(&operation).await?;
        let operation = match operation {
            // About no capability in particular.
            Operation::ListTasks(request) => return self.list(request).await,
            operation => operation,
        };
        let subject = self.look_up(&operation).await?;
        self.about.get_or_init(|| subject.index);
        // Before policy decides: one that takes its place from here on is news to a stream.
        let revision = self.service.policy.changes();
        let (authorized, audit) = self.authorize(operation, &subject).await?;
        match authorized.into_parts().0 {
            Operation::SendMessage(request) => self.send(request, subject, audit).await,
            Operation::GetTask(request) => self.get(request, audit).await,
            Operation::ListTasks(request) => self.list(request).await,
            Operation::CancelTask(request) => self.cancel(request, audit).await,
            Operation::SendStreamingMessage(request) => {
                self.send_streaming(request, subject, audit, revision).await
            }
            Operation::SubscribeToTask(request) => {
                self.subscribe(request, subject, audit, revision).await
            }
        }
    }

    /// Refuses who has no credential, and who claims another tenant than the credential's.
    async fn admit(&self, operation: &Operation) -> Result<(), Fault> {
        let caller = &self.connection.caller;
        if self.connection.listener == Listener::Mesh && *caller == Caller::Anonymous {
            self.refuse(operation, "no_credential").await?;
            return Err(Fault::new(
                FaultCode::Unauthenticated,
                "calls need a client certificate; without one only the card and health answer",
            ));
        }
        // The tenant of a request may match the credential's, never select one.
        let tenant = match caller {
            Caller::Principal(principal) => &*principal.tenant,
            Caller::Anonymous => "",
        };
        match operation.tenant() {
            Some(named) if !named.is_empty() && named != tenant => {
                self.refuse(operation, "foreign_tenant").await?;
                Err(match operation.task_id() {
                    // A foreign task looks exactly like a missing one.
                    Some(id) => not_found(id),
                    None => Fault::invalid_field("tenant", "is not the tenant of your credential"),
                })
            }
            _ => Ok(()),
        }
    }

    /// Finds out what the operation is about. What belongs to somebody else is not there.
    async fn look_up(&self, operation: &Operation) -> Result<Subject, Fault> {
        let task = match operation {
            Operation::SendMessage(request) | Operation::SendStreamingMessage(request) => {
                match &request.message.task_id {
                    Some(id) => id,
                    None => {
                        let named = convoke_a2a::capability::named_capability(&request.message)?;
                        let (index, params) =
                            self.service.host.resolve(&request.message, named.as_ref())?;
                        return Ok(Subject { index, params: Some(params) });
                    }
                }
            }
            Operation::GetTask(GetTask { id, .. })
            | Operation::SubscribeToTask(SubscribeToTask { id, .. })
            | Operation::CancelTask(CancelTask { id, .. }) => id,
            Operation::ListTasks(_) => {
                return Err(Fault::new(FaultCode::Internal, "a list is about no capability"));
            }
        };
        let running = self.service.tasks.find(&self.connection.scope, task);
        if let Some(index) = running.and_then(|running| running.capability()) {
            return Ok(Subject { index, params: None });
        }
        let head = self.service.journal.head(&self.connection.scope, task).await;
        let head = head
            .map_err(|error| self.service.commit_fault(&error))?
            .ok_or_else(|| not_found(task))?;
        // The capability of a stored task may have left the agent since.
        let index = self.service.host.find(&head.capability).ok_or_else(|| {
            let text = format!("the agent no longer has capability `{}`", head.capability);
            Fault::new(FaultCode::UnsupportedOperation, text)
        })?;
        Ok(Subject { index, params: None })
    }

    /// Asks policy. A refusal is put on record here; what is allowed is put on record with what it
    /// changes, or by whoever does it.
    pub(crate) async fn authorize(
        &self,
        operation: Operation,
        subject: &Subject,
    ) -> Result<(Authorized, AuditRecord), Fault> {
        match self.ask(operation, subject).await {
            (Ok(authorized), record) => Ok((authorized, record)),
            (Err(_), record) => {
                let name = &self.service.host.descriptor(subject.index).name;
                Err(self.refused(record, name).await?)
            }
        }
    }

    /// Asks policy, and gives the record of what it said.
    pub(crate) async fn ask(
        &self,
        operation: Operation,
        subject: &Subject,
    ) -> (Result<Authorized, Refused>, AuditRecord) {
        let service = self.service;
        let descriptor = service.host.descriptor(subject.index);
        let name = &descriptor.name;
        let kind = operation.kind();
        let task_id = operation.task_id().cloned();
        let context_id = operation.context_id().cloned();
        let question = Question {
            caller: &self.connection.caller,
            agent: &service.agent.spiffe_id,
            agent_name: &service.agent.metadata.name,
            operation: kind,
            method: name.as_str(),
            params: subject.params.as_ref(),
            at: self.at,
            protocol: PROTOCOL,
            remote_addr: &self.connection.remote_addr,
            request_id: self.id.as_str(),
            task_id: task_id.as_ref().map(TaskId::as_str),
            context_id: context_id.as_ref().map(|id| id.as_str()),
        };
        let mut span = service.tracer.part(self.trace, Kind::Internal, || "authorize".into());
        let guard = descriptor.requires_peer.as_ref();
        let decided = service.policy.authorize(&question, operation, guard, service.clock).await;
        let decision = match &decided {
            Ok(authorized) => authorized.decision().clone(),
            Err(refused) => refused.decision.clone(),
        };
        service.metrics.decision(Some(subject.index.get()), self.connection.peer, &decision);
        span.set("authz.direction", || "inbound".into());
        span.set("authz.reason", || decision.reason.as_str().into());
        span.set("authz.rule", || (&*decision.rule).into());
        span.set("agent.capability", || name.as_str().into());
        span.set("agent.caller.spiffe_id", || self.connection.caller.name().into());
        span.end(if decided.is_ok() { Ok(()) } else { Err("refused") });
        drop(span);
        let mut record = self.record(kind, Some(name.clone()), task_id.clone());
        record.params_sha256 = subject.params.as_ref().map(|params| sha256_hex(params.get()));
        record.outcome = AuditOutcome::Decided(decision);
        (decided, record)
    }

    /// Puts a refusal on record, and says what the caller is told.
    pub(crate) async fn refused(
        &self,
        record: AuditRecord,
        name: &CapabilityName,
    ) -> Result<Fault, Fault> {
        let AuditOutcome::Decided(decision) = &record.outcome else {
            return Err(Fault::new(FaultCode::Internal, "a refusal without a decision"));
        };
        tracing::warn!(
            caller = self.connection.caller.name(),
            capability = name.as_str(),
            reason = decision.reason.as_str(),
            rule = &*decision.rule,
            "Authorization denied"
        );
        let fault = match decision.reason {
            // Nothing was said against the caller, and asking again may help.
            Reason::OverTime => Fault::new(
                FaultCode::Unavailable,
                "the policy took too long to decide, so nothing is done; try again later",
            ),
            Reason::Unreachable(_) => Fault::new(
                FaultCode::Unavailable,
                "the policy cannot be asked at the moment, so nothing is done; try again later",
            ),
            _ => Fault::new(
                FaultCode::PermissionDenied,
                format!("authorization denied: `{name}` is not open to this caller"),
            ),
        };
        self.service.put_on_record(Some(record)).await?;
        Ok(fault.with("capability", name.as_str()).with("requestId", self.id.as_str()))
    }

    async fn send(
        &self,
        request: SendMessage,
        subject: Subject,
        audit: AuditRecord,
    ) -> Result<Answer, Fault> {
        let configuration = request.configuration.clone();
        let running = match self.take(request, subject, audit, None).await? {
            Taken::Message(message) => return Ok(Answer::Message(message)),
            Taken::Task(running, _) => running,
            Taken::Known(id) => match self.service.tasks.find(&self.connection.scope, &id) {
                Some(running) => running,
                None => return self.at_rest_shown(&id, configuration.history_length).await,
            },
        };
        if !configuration.return_immediately {
            self.until_the_deadline(running.answered()).await;
        }
        self.shown(&running, configuration.history_length).await
    }

    /// The answer that shows `running` as it stands now.
    async fn shown(&self, running: &Running, history: Option<u32>) -> Result<Answer, Fault> {
        running.answer(self.service, &self.connection.caller_name, history).await.map(Answer::Task)
    }

    /// Does what a message asks for: runs an ephemeral capability, makes a task, or gives a task
    /// the answer that it waits for. `join` is who follows the task.
    pub(crate) async fn take(
        &self,
        request: SendMessage,
        subject: Subject,
        mut audit: AuditRecord,
        join: Option<Join>,
    ) -> Result<Taken, Fault> {
        let service = self.service;
        let Some(params) = subject.params else {
            return self.tell(request.message, audit, join).await;
        };
        if let Err(fault) = service.host.check_input(subject.index, &params) {
            service.put_on_record(Some(audit)).await?;
            return Err(fault);
        }
        if service.host.descriptor(subject.index).ephemeral {
            service.put_on_record(Some(audit)).await?;
            return self.run(subject.index, params, &request.message).await.map(Taken::Message);
        }
        let id = ids::task();
        audit.task_id = Some(id.clone());
        let send = self.is_idempotent.then(|| send_key(&request.message, self.at));
        let terms = terms_of(&request)?;
        let origin = Origin {
            caller: self.connection.caller.clone(),
            request_id: self.id.clone(),
            trace: self.trace,
        };
        let (scope, capability) = (self.connection.scope.clone(), Some(subject.index));
        let outset = Outset { id, scope, capability, terms, origin };
        let message = request.message;
        let submission = Submission { outset, params, message, send, audit, join };
        let taken = service.tasks.submit(service, submission).await?;
        // The journal bounds what the task holds from here on.
        drop(std::mem::take(&mut *self.room.lock().unwrap_or_else(PoisonError::into_inner)));
        Ok(taken)
    }

    /// Gives a message to the task that it names.
    async fn tell(
        &self,
        message: Message,
        audit: AuditRecord,
        join: Option<Join>,
    ) -> Result<Taken, Fault> {
        let service = self.service;
        let Some(id) = message.task_id.clone() else {
            return Err(Fault::new(FaultCode::Internal, "a message without parameters or a task"));
        };
        let Some(running) = service.tasks.find(&self.connection.scope, &id) else {
            service.put_on_record(Some(audit)).await?;
            return Err(self.refuse_at_rest(&id, Event::Message(message)).await);
        };
        service.tasks.tell(service, &running, (message, self.is_idempotent), audit).await?;
        drop(std::mem::take(&mut *self.room.lock().unwrap_or_else(PoisonError::into_inner)));
        let follower = match join {
            Some(join) => Some(running.join(service, &join.subscriber, join.history, true).await?),
            None => None,
        };
        Ok(Taken::Task(running, follower))
    }

    /// Runs an ephemeral capability within the request: if the caller leaves, it is dropped.
    async fn run(
        &self,
        index: CapabilityIndex,
        params: Json,
        asked: &Message,
    ) -> Result<Message, Fault> {
        let service = self.service;
        let context_id = asked.context_id.clone().unwrap_or_else(ids::context);
        // Cancelled when this function ends, or is dropped because the caller left.
        let stop = CancellationToken::new();
        let _cancel = stop.clone().drop_guard();
        let context = context::of_request(self, stop, context_id.clone());
        let failed = |text: String| Fault::new(FaultCode::CapabilityFailed, text);
        let handler = contained(service.host.call(index, context, params));
        let handler = service.admission.line.stand(handler);
        let Some(outcome) = self.until_the_deadline(handler).await else {
            return Err(late());
        };
        let result = match outcome.told() {
            Outcome::Returned(result) => result,
            Outcome::Failed { fault, .. } | Outcome::Rejected(fault) => return Err(fault),
            Outcome::Panicked => {
                let name = &service.host.descriptor(index).name;
                return Err(failed(format!("capability `{name}` broke off unexpectedly")));
            }
        };
        service.host.check_output(index, &result).map_err(|fault| {
            tracing::error!(error = %fault, "Capability broke its output schema");
            failed(fault.message)
        })?;
        let part = Part::new(Content::Data(result));
        let mut message = Message::new(ids::message(), Role::Agent, vec![part]);
        message.context_id = Some(context_id);
        Ok(message)
    }

    /// Waits for `work`, at most as long as the caller does; `None` if that was too short, and then
    /// `work` is dropped.
    async fn until_the_deadline<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        match self.deadline {
            None => Some(work.await),
            Some(deadline) => timeout_at(deadline, work).await.ok(),
        }
    }

    async fn get(&self, request: GetTask, audit: AuditRecord) -> Result<Answer, Fault> {
        self.service.put_on_record(Some(audit)).await?;
        let history = request.history_length;
        match self.service.tasks.find(&self.connection.scope, &request.id) {
            Some(running) => self.shown(&running, history).await,
            None => self.at_rest_shown(&request.id, history).await,
        }
    }

    /// The answer that shows the task `id` as it is stored.
    async fn at_rest_shown(&self, id: &TaskId, history: Option<u32>) -> Result<Answer, Fault> {
        let (answers, caller) = (&self.service.answers, &self.connection.caller_name);
        let mut search = Search::new(answers, caller);
        loop {
            let measure = {
                let StoredTask { task, .. } = self.at_rest(id).await?;
                let measure = search.measure(&task, history)?;
                if search.has_room(measure) {
                    let is_whole = task.newest(history).len() == task.history.len();
                    let task = if is_whole { task } else { Arc::new(task.showing(history)) };
                    return Ok(Answer::Task(search.answer(task, measure)));
                }
                measure
            };
            search.wait(measure).await?;
        }
    }

    async fn cancel(&self, request: CancelTask, audit: AuditRecord) -> Result<Answer, Fault> {
        let service = self.service;
        match service.tasks.find(&self.connection.scope, &request.id) {
            Some(running) => {
                service.tasks.cancel(service, &running, audit).await?;
                self.shown(&running, None).await
            }
            None => {
                service.put_on_record(Some(audit)).await?;
                Err(self.refuse_at_rest(&request.id, Event::Cancel).await)
            }
        }
    }

    /// What the engine says of `event` to a task that nobody is at work on.
    async fn refuse_at_rest(&self, id: &TaskId, event: Event) -> Fault {
        let mut state = match self.at_rest(id).await {
            Ok(stored) => state_of(stored),
            Err(fault) => return fault,
        };
        match decide(&mut state, event, self.at, &mut Effects::new()) {
            Err(fault) => fault,
            Ok(()) => self.service.tasks.not_at_hand(id),
        }
    }

    /// The task `id` as it is stored now: it may have changed since it was looked up.
    pub(crate) async fn at_rest(&self, id: &TaskId) -> Result<StoredTask, Fault> {
        let read = self.service.journal.read(&self.connection.scope, id).await;
        read.map_err(|error| self.service.commit_fault(&error))?.ok_or_else(|| not_found(id))
    }

    async fn refuse(&self, operation: &Operation, why: &'static str) -> Result<(), Fault> {
        let mut record = self.record(operation.kind(), None, operation.task_id().cloned());
        record.outcome = AuditOutcome::Refused(why);
        self.service.metrics.refused(why);
        self.service.put_on_record(Some(record)).await
    }

    fn record(
        &self,
        operation: OperationKind,
        capability: Option<CapabilityName>,
        task_id: Option<TaskId>,
    ) -> AuditRecord {
        AuditRecord {
            at: self.at,
            request_id: self.id.clone(),
            trace: self.trace,
            agent: self.service.agent.spiffe_id.clone(),
            caller: Arc::clone(&self.connection.caller_name),
            remote_addr: Arc::clone(&self.connection.remote_addr),
            operation,
            capability,
            task_id,
            params_sha256: None,
            outcome: AuditOutcome::Refused("undecided"),
            repeated: 0,
        }
    }
}

/// Under what `message` may be sent again, and means the same task.
fn send_key(message: &Message, now: UnixMillis) -> SendKey {
    // As it would be written again: what the sender wrote in another order is another message.
    let said = jsonrpc::encode_message(&RequestIdJson::null(), message);
    SendKey {
        message_id: message.message_id.clone(),
        digest: sha256(&said),
        until: now.plus_millis(SENDS_REMEMBERED_MILLIS),
    }
}

/// What a caller is told whose deadline has passed, if it still listens.
pub(crate) fn late() -> Fault {
    Fault::new(FaultCode::DeadlineExceeded, "the deadline that you gave has passed")
}
