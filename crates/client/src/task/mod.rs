//! The tasks of one agent, as one caller has them: sent, followed, listed, ended.
//!
//! A call ([`Client::call`]) is a question with an answer. A task outlives its question: it is named,
//! it can be asked for again, and its events can be followed from any place on.

mod error;
mod events;
mod follow;
#[cfg(test)]
mod tests;
mod way;

use std::time::Duration;

use convoke_a2a::capability::named_capability;
use convoke_a2a::client::{
    Answer, build_cancel, build_get, build_list, build_message, build_message_streaming,
    build_subscribe, parse_list, parse_response,
};
use convoke_a2a::headers::IDEMPOTENT_SEND_EXTENSION;
use convoke_a2a::jsonrpc::RequestIdJson;
use convoke_agent::{CallError, CallSettings, RetrySettings};
use convoke_model::{
    CancelTask, CapabilityName, GetTask, ListTasks, OperationKind, SendMessage, SpiffeId,
    SubscribeToTask, Task,
};
use uuid::Uuid;

use crate::Client;
use crate::open::OpenError;
use way::{Ask, Opening, Way};

pub use convoke_a2a::client::{StreamItem, TaskPage};
pub use error::TaskError;
pub use events::{Event, Events};
pub use follow::{Followed, Following};

/// How long a broken stream is taken up again without anything new, unless somebody says otherwise:
/// an agent that is started anew is back by then.
const PATIENCE: Duration = Duration::from_secs(60);

/// The tasks of one agent. Cloning is cheap; clones share their connections.
#[derive(Clone)]
pub struct Tasks {
    way: Way,
    calls: CallSettings,
    patience: Duration,
}

/// Asks for one page of a list after the other.
#[derive(Debug)]
pub struct Pages {
    tasks: Tasks,
    /// What asks for the next page; `None` after the last.
    list: Option<ListTasks>,
}

impl Client {
    /// The tasks that this client has, or is going to have, at `agent`, which is at `address`, an
    /// `https` URL.
    ///
    /// # Errors
    ///
    /// [`CallError`] if that is no address, or there is no identity to call with.
    pub fn task(&self, agent: &SpiffeId, address: &str) -> Result<Tasks, CallError> {
        let endpoint = self.endpoint(agent, address, self.0.calls.concurrency_max)?;
        let way = Way::Mesh { client: self.clone(), endpoint };
        Ok(Tasks { way, calls: self.0.calls.clone(), patience: PATIENCE })
    }
}

impl Tasks {
    /// The tasks of callers without a name at a development listener: plain HTTP, on this machine.
    /// What fails there is not asked again, but for streams that break.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if the address is none, or not on this machine.
    pub fn open(address: &str) -> Result<Self, OpenError> {
        let way = Way::open(address)?;
        Ok(Self { way, calls: CallSettings::default(), patience: PATIENCE })
    }

    /// How long to wait for an answer, over all attempts, and for the beginning of a stream.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.calls.timeout = timeout;
        self
    }

    /// Asks again as `retry` says. With one attempt, a broken stream is not taken up again.
    #[must_use]
    pub fn retry(mut self, retry: RetrySettings) -> Self {
        self.calls.retry = retry;
        self
    }

    /// For how long a broken stream is taken up again without anything new.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sends a message, and waits for what becomes of it unless its configuration says not to. A
    /// message that asks for [`IDEMPOTENT_SEND_EXTENSION`] is sent again where that may help.
    ///
    /// # Errors
    ///
    /// [`TaskError`]. A task that failed is an answer.
    pub async fn send(&self, send: &SendMessage) -> Result<Answer, TaskError> {
        let id = fresh_id();
        let (headers, body) = build_message(send, &id);
        let (name, idempotent) = (name_of(send, OperationKind::SendMessage), is_idempotent(send));
        let ask = Ask { name, idempotent, id, headers, body };
        self.way.ask(&self.calls, ask, parse_response).await
    }

    /// Sends a message, and follows what becomes of it.
    ///
    /// # Errors
    ///
    /// [`TaskError`] if no stream came of it.
    pub async fn stream(&self, send: &SendMessage) -> Result<Events, TaskError> {
        self.open_stream(send, Opening::First).await
    }

    async fn open_stream(&self, send: &SendMessage, opening: Opening) -> Result<Events, TaskError> {
        let id = fresh_id();
        let (headers, body) = build_message_streaming(send, &id);
        let kind = OperationKind::SendStreamingMessage;
        let (name, idempotent) = (name_of(send, kind), is_idempotent(send));
        let ask = Ask { name, idempotent, id, headers, body };
        self.way.follow(&self.calls, ask, opening).await
    }

    /// As [`stream`](Self::stream), taking a stream up again that breaks.
    #[must_use]
    pub fn stream_resuming(&self, send: SendMessage) -> Following {
        Following::of_send(self.clone(), send)
    }

    /// Reads a task.
    ///
    /// # Errors
    ///
    /// [`TaskError`]; that of a task that is somebody else's is that of one that is none.
    pub async fn get(&self, get: &GetTask) -> Result<Task, TaskError> {
        let id = fresh_id();
        let (headers, body) = build_get(get, &id);
        let ask = Ask { name: name(OperationKind::GetTask), idempotent: true, id, headers, body };
        self.one(ask).await
    }

    /// Reads a page of the caller's tasks.
    ///
    /// # Errors
    ///
    /// [`TaskError`].
    pub async fn list(&self, list: &ListTasks) -> Result<TaskPage, TaskError> {
        let id = fresh_id();
        let (headers, body) = build_list(list, &id);
        let ask = Ask { name: name(OperationKind::ListTasks), idempotent: true, id, headers, body };
        self.way.ask(&self.calls, ask, parse_list).await
    }

    /// Reads one page after the other, from the one that `list` asks for.
    #[must_use]
    pub fn pages(&self, list: ListTasks) -> Pages {
        Pages { tasks: self.clone(), list: Some(list) }
    }

    /// Ends a task, and gives it as it stands then. It is asked once: after an answer that was lost,
    /// the second would be that the task has ended.
    ///
    /// # Errors
    ///
    /// [`TaskError`]; a task that has ended before is not cancelled.
    pub async fn cancel(&self, cancel: &CancelTask) -> Result<Task, TaskError> {
        let id = fresh_id();
        let (headers, body) = build_cancel(cancel, &id);
        let name = name(OperationKind::CancelTask);
        self.one(Ask { name, idempotent: false, id, headers, body }).await
    }

    /// Follows a task, from the place on that the caller has seen.
    ///
    /// # Errors
    ///
    /// [`TaskError`] if no stream came of it.
    pub async fn subscribe(&self, subscribe: &SubscribeToTask) -> Result<Events, TaskError> {
        self.open_subscription(subscribe, Opening::First).await
    }

    async fn open_subscription(
        &self,
        subscribe: &SubscribeToTask,
        opening: Opening,
    ) -> Result<Events, TaskError> {
        let id = fresh_id();
        let (headers, body) = build_subscribe(subscribe, &id);
        let name = name(OperationKind::SubscribeToTask);
        let ask = Ask { name, idempotent: true, id, headers, body };
        self.way.follow(&self.calls, ask, opening).await
    }

    /// As [`subscribe`](Self::subscribe), taking a stream up again that breaks.
    #[must_use]
    pub fn subscribe_resuming(&self, subscribe: SubscribeToTask) -> Following {
        Following::of_task(self.clone(), subscribe)
    }

    async fn one(&self, ask: Ask) -> Result<Task, TaskError> {
        let name = ask.name.clone();
        match self.way.ask(&self.calls, ask, parse_response).await? {
            Answer::Task(task) => Ok(task),
            Answer::Message(_) => {
                Err(self.way.unreadable(&name, "a message came instead of a task".into()))
            }
        }
    }
}

impl Pages {
    /// The next page; `None` after the last.
    ///
    /// # Errors
    ///
    /// [`TaskError`], also if the agent says that the page is followed by itself. After an error, the
    /// same page is asked for again.
    pub async fn next(&mut self) -> Result<Option<TaskPage>, TaskError> {
        let Some(list) = &mut self.list else { return Ok(None) };
        let page = self.tasks.list(list).await?;
        match &page.next {
            None => self.list = None,
            Some(next) if list.page_token.as_ref() == Some(next) => {
                let name = name(OperationKind::ListTasks);
                let what = "a page of the list is followed by itself".to_owned();
                return Err(self.tasks.way.unreadable(&name, what));
            }
            Some(next) => list.page_token = Some(next.clone()),
        }
        Ok(Some(page))
    }
}

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tasks").field("at", &self.way.address()).finish_non_exhaustive()
    }
}

/// Random, so that no agent can tell from one request how many others were made.
fn fresh_id() -> RequestIdJson {
    RequestIdJson::string(&Uuid::new_v4().to_string())
}

/// What errors name: the capability, if the message does, and otherwise the operation.
fn name_of(send: &SendMessage, kind: OperationKind) -> CapabilityName {
    named_capability(&send.message).ok().flatten().unwrap_or_else(|| name(kind))
}

fn name(kind: OperationKind) -> CapabilityName {
    CapabilityName::parse(kind.as_str())
        .unwrap_or_else(|_| unreachable!("the operations are named with letters alone"))
}

fn is_idempotent(send: &SendMessage) -> bool {
    send.message.extensions.iter().any(|uri| uri == IDEMPOTENT_SEND_EXTENSION)
}
