//! The operations whose answers go on.

use std::sync::{Arc, Mutex, OnceLock};

use convoke_a2a::jsonrpc::stream::{task_tail, task_tail_in};
use convoke_agent::CapabilityIndex;
use convoke_journal::Events;
use convoke_model::{
    AuditRecord, Cursor, Fault, FaultCode, Json, Message, Operation, RequestId, Revision,
    SendMessage, SubscribeToTask, TaskId, TraceContext,
};
use tokio::sync::watch;

use super::{End, Replay, Seat, Subscriber, Subscription, Until};
use crate::answers::Search;
use crate::budget::Room;
use crate::connection::Connection;
use crate::operations::{Answer, Request, Subject};
use crate::service::Service;
use crate::tasks::{Join, Taken, ended, not_found};

/// A task that the caller is about to follow.
pub(crate) struct Follow {
    pub(super) subscription: Subscription,
    pub(super) rights: Rights,
    /// Seen as far as the decision that let the caller follow.
    pub(super) revision: watch::Receiver<Revision>,
    pub(super) seat: Seat,
}

/// What it takes to ask again whether a stream's caller may follow.
pub(super) struct Rights {
    pub(super) service: Arc<Service>,
    pub(super) connection: Arc<Connection>,
    pub(super) request_id: RequestId,
    trace: TraceContext,
    /// What was asked at first, without what was sent.
    operation: Operation,
    capability: CapabilityIndex,
    /// The parameters of the call, as a policy saw them.
    params: Option<Json>,
}

impl Rights {
    /// Asks as the caller did at first. A refusal is put on record as any other.
    pub(super) async fn check(&self) -> Result<(), Fault> {
        let request = Request {
            service: &self.service,
            connection: &self.connection,
            id: self.request_id.clone(),
            at: self.service.clock.now(),
            deadline: None,
            trace: self.trace,
            about: OnceLock::new(),
            room: Mutex::new(Room::default()),
            is_idempotent: false,
        };
        let subject = Subject { index: self.capability, params: self.params.clone() };
        request.authorize(self.operation.clone(), &subject).await.map(drop)
    }
}

impl Request<'_> {
    /// Sends as `SendMessage` does, and answers with all that becomes of it. `revision` was taken
    /// before policy decided.
    pub(crate) async fn send_streaming(
        &self,
        request: SendMessage,
        subject: Subject,
        audit: AuditRecord,
        revision: watch::Receiver<Revision>,
    ) -> Result<Answer, Fault> {
        let seat = match self.service.streams.seat(&self.connection.caller_name) {
            Ok(seat) => seat,
            Err(fault) => {
                self.service.put_on_record(Some(audit)).await?;
                return Err(fault);
            }
        };
        let subscriber = seat.subscriber(Until::Interrupted);
        let history = request.configuration.history_length;
        let (index, params) = (subject.index, subject.params.clone());
        let outline = Operation::SendStreamingMessage(outline(&request));
        let join = Join { subscriber, history };
        match self.take(request, subject, audit, Some(join)).await? {
            Taken::Message(message) => Ok(Answer::Message(message)),
            Taken::Task(_, Some(follower)) => {
                Ok(self.follow(follower, (index, params), outline, (seat, revision)))
            }
            Taken::Task(_, None) => Err(unseen()),
            // Sent before: whoever sends again follows the task from where it stands.
            Taken::Known(id) => {
                let follower =
                    self.rejoin(&id, seat.subscriber(Until::Interrupted), history).await?;
                Ok(self.follow(follower, (index, params), outline, (seat, revision)))
            }
        }
    }

    /// Follows a task: one that has not ended, or one that has from a place in it. `revision` was
    /// taken before policy decided.
    pub(crate) async fn subscribe(
        &self,
        request: SubscribeToTask,
        subject: Subject,
        audit: AuditRecord,
        revision: watch::Receiver<Revision>,
    ) -> Result<Answer, Fault> {
        let service = self.service;
        service.put_on_record(Some(audit)).await?;
        let seat = service.streams.seat(&self.connection.caller_name)?;
        let follower = match request.after {
            Some(after) => self.resume(&request.id, after, &seat).await?,
            None => match service.tasks.find(&self.connection.scope, &request.id) {
                Some(task) => {
                    let subscriber = seat.subscriber(Until::Ended);
                    task.join(service, &subscriber, None, false).await?
                }
                None => {
                    let stored = self.at_rest(&request.id).await?;
                    return Err(match stored.task.status.state.is_terminal() {
                        true => ended(&request.id),
                        false => service.tasks.not_at_hand(&request.id),
                    });
                }
            },
        };
        let asked = (subject.index, None);
        let operation = Operation::SubscribeToTask(request);
        Ok(self.follow(follower, asked, operation, (seat, revision)))
    }

    /// Follows the task `id` from behind `after`, also after its end. Where the place means nothing
    /// any more, from the task as it stands.
    async fn resume(&self, id: &TaskId, after: Cursor, seat: &Seat) -> Result<Subscription, Fault> {
        let (service, scope) = (self.service, &self.connection.scope);
        let subscriber = seat.subscriber(Until::Ended);
        let read = service.journal.events(scope, id, after).await;
        let events = read.map_err(|error| service.commit_fault(&error))?;
        let Some(events) = events else { return Err(not_found(id)) };
        let Events::Page { last_seq, .. } = events else {
            return self.rejoin(id, subscriber, None).await;
        };
        if let Some(task) = service.tasks.find(scope, id) {
            return task.join_after(service, &subscriber, after).await;
        }
        let stored = self.at_rest(id).await?;
        if !stored.task.status.state.is_terminal() {
            return Err(service.tasks.not_at_hand(id));
        }
        subscriber.replay_until(stored.last_seq.max(last_seq));
        let replay = Replay::events(scope, (id, &stored.task.context_id), after);
        Ok(at_its_end(id, subscriber, replay))
    }

    /// Follows the task `id` from where it stands, which may be its end.
    async fn rejoin(
        &self,
        id: &TaskId,
        subscriber: Arc<Subscriber>,
        history: Option<u32>,
    ) -> Result<Subscription, Fault> {
        let (service, scope) = (self.service, &self.connection.scope);
        if let Some(task) = service.tasks.find(scope, id) {
            return task.join(service, &subscriber, history, true).await;
        }
        let mut search = Search::new(&service.answers, &self.connection.caller_name);
        loop {
            let measure = {
                let stored = self.at_rest(id).await?;
                let task = &*stored.task;
                if !task.status.state.is_terminal() {
                    return Err(service.tasks.not_at_hand(id));
                }
                let measure = search.measure(task, history)?;
                if search.has_room(measure) {
                    let cursor = Cursor { epoch: service.journal.epoch(), seq: stored.last_seq };
                    let tail = match measure.capacity() {
                        None => task_tail(&task.showing(history), cursor),
                        Some(capacity) => task_tail_in(&task.showing(history), cursor, capacity),
                    };
                    let first = Replay::Task(search.found().hold(tail));
                    return Ok(at_its_end(id, subscriber, first));
                }
                measure
            };
            search.wait(measure).await?;
        }
    }

    fn follow(
        &self,
        subscription: Subscription,
        (capability, params): (CapabilityIndex, Option<Json>),
        operation: Operation,
        (seat, revision): (Seat, watch::Receiver<Revision>),
    ) -> Answer {
        let rights = Rights {
            service: Arc::clone(self.service),
            connection: Arc::clone(self.connection),
            request_id: self.id.clone(),
            trace: self.trace,
            operation,
            capability,
            params,
        };
        Answer::Follow(Box::new(Follow { subscription, rights, revision, seat }))
    }
}

/// Follows what is left of a task that has ended.
fn at_its_end(id: &TaskId, subscriber: Arc<Subscriber>, replay: Replay) -> Subscription {
    subscriber.end(End::Complete);
    Subscription { id: id.clone(), task: None, subscriber, replay }
}

fn unseen() -> Fault {
    Fault::new(FaultCode::Internal, "the task was not shown to who follows it")
}

/// The request as far as policy asks about it, without what was said.
fn outline(request: &SendMessage) -> SendMessage {
    let asked = &request.message;
    let mut message = Message::new(asked.message_id.clone(), asked.role, Vec::new());
    message.task_id.clone_from(&asked.task_id);
    message.context_id.clone_from(&asked.context_id);
    SendMessage {
        tenant: request.tenant.clone(),
        message,
        configuration: request.configuration.clone(),
        metadata: None,
    }
}
