//! The operations whose answers go on.

use std::sync::{Arc, Mutex, OnceLock};

use convoke_agent::CapabilityIndex;
use convoke_model::{
    AuditRecord, Fault, FaultCode, Json, Message, Operation, RequestId, Revision, SendMessage,
    SubscribeToTask, TraceContext,
};
use tokio::sync::watch;

use super::{Seat, Subscriber, Subscription, Until};
use crate::budget::Room;
use crate::connection::Connection;
use crate::operations::{Answer, Request, Subject};
use crate::service::Service;
use crate::tasks::{Join, Taken, ended};

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
        let subscriber = Subscriber::new(Until::Interrupted);
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
        }
    }

    /// Follows a task that has not ended. `revision` was taken before policy decided.
    pub(crate) async fn subscribe(
        &self,
        request: SubscribeToTask,
        subject: Subject,
        audit: AuditRecord,
        revision: watch::Receiver<Revision>,
    ) -> Result<Answer, Fault> {
        let service = self.service;
        service.put_on_record(Some(audit)).await?;
        let Some(task) = service.tasks.find(&self.connection.scope, &request.id) else {
            let stored = self.at_rest(&request.id).await?;
            return Err(if stored.task.status.state.is_terminal() {
                ended(&request.id)
            } else {
                Fault::new(FaultCode::Unavailable, "the task has just changed; ask again")
            });
        };
        let seat = service.streams.seat(&self.connection.caller_name)?;
        let subscriber = Subscriber::new(Until::Ended);
        let follower = task.join(service, &subscriber, None, false).await?;
        let asked = (subject.index, None);
        let operation = Operation::SubscribeToTask(request);
        Ok(self.follow(follower, asked, operation, (seat, revision)))
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
