//! Lists of tasks: the caller's own, and of those only the tasks of capabilities that policy opens
//! to it.

use std::sync::Arc;

use convoke_a2a::jsonrpc::{self, RequestIdJson, TaskList};
use convoke_a2a::size::list_bytes_max;
use convoke_journal::{JournalError, ListQuery, TaskPage};
use convoke_model::limits::{LIST_PAGE_DEFAULT, SMALL_BODY_BYTES_MAX};
use convoke_model::{AuditRecord, Fault, FaultCode, ListTasks, Operation};

use bytes::Bytes;

use crate::budget::{Budget, Room, too_large};
use crate::operations::{Answer, Request, Subject};

/// A page of tasks with the room that its answer takes.
pub(crate) struct ListAnswer {
    page: TaskPage,
    page_size: u32,
    bytes: usize,
    room: Room,
}

impl Request<'_> {
    /// Reads a page of the caller's tasks.
    pub(crate) async fn list(&self, request: ListTasks) -> Result<Answer, Fault> {
        let service = self.service;
        let (request, audit, capabilities) = self.authorize_list(request).await?;
        service.put_on_record(Some(audit)).await?;
        let page_size = request.page_size.unwrap_or(LIST_PAGE_DEFAULT);
        let query = ListQuery {
            context_id: request.context_id,
            state: request.state,
            since: request.since,
            capabilities,
            page_size,
            page_token: request.page_token,
            history_length: request.history_length,
            artifacts: request.include_artifacts,
        };
        let read = service.journal.list(&self.connection.scope, query).await;
        let page = read.map_err(|error| match error {
            JournalError::PageToken => Fault::invalid_field("pageToken", error.to_string()),
            error => service.commit_fault(&error),
        })?;
        ListAnswer::of(page, page_size, &service.answers, &self.connection.caller_name)
            .await
            .map(Answer::List)
    }

    /// Asks policy about each capability: as whoever may call it may follow its tasks, so they may
    /// list them. Gives the capabilities whose tasks may be listed; `None` if that is all of them.
    async fn authorize_list(
        &self,
        request: ListTasks,
    ) -> Result<(ListTasks, AuditRecord, Option<Vec<convoke_model::CapabilityName>>), Fault> {
        let host = &self.service.host;
        let (mut names, mut allowed, mut refused) = (Vec::new(), None, None);
        for descriptor in host.capabilities() {
            let Some(index) = host.find(&descriptor.name) else { continue };
            let operation = Operation::ListTasks(request.clone());
            let subject = Subject { index, params: None };
            match self.ask(operation, &subject).await {
                (Ok(authorized), record) => {
                    names.push(descriptor.name.clone());
                    allowed.get_or_insert((authorized, record));
                }
                (Err(_), record) => {
                    refused.get_or_insert((record, descriptor.name.clone()));
                }
            }
        }
        let Some((authorized, mut audit)) = allowed else {
            let Some((record, name)) = refused else {
                return Err(Fault::new(FaultCode::Internal, "the agent has no capability"));
            };
            return Err(self.refused(record, &name).await?);
        };
        // It is about several.
        audit.capability = None;
        let Operation::ListTasks(request) = authorized.into_parts().0 else {
            return Err(Fault::new(FaultCode::Internal, "policy has changed the operation"));
        };
        Ok((request, audit, refused.is_some().then_some(names)))
    }
}

impl ListAnswer {
    async fn of(
        page: TaskPage,
        page_size: u32,
        budget: &Budget,
        caller: &Arc<str>,
    ) -> Result<Self, Fault> {
        let mut answer = Self { page, page_size, bytes: 0, room: Room::default() };
        answer.bytes = list_bytes_max(&answer.list(), SMALL_BODY_BYTES_MAX);
        let (bytes, largest) = (answer.bytes, budget.largest());
        if bytes > largest {
            let cure = "ask for a smaller `pageSize`, for fewer messages with `historyLength`, or \
                        without artifacts";
            return Err(too_large("the page", bytes, largest, cure));
        }
        if bytes > SMALL_BODY_BYTES_MAX {
            answer.room = budget.room_for_held(caller, bytes).await?;
        }
        Ok(answer)
    }

    fn list(&self) -> TaskList<'_> {
        TaskList {
            tasks: &self.page.tasks,
            next_page_token: self.page.next.as_deref(),
            page_size: self.page_size,
            total_size: self.page.total,
        }
    }

    /// The bytes that answer the request `id`; they hold their room until they are sent.
    pub(crate) fn encode(self, id: &RequestIdJson) -> Bytes {
        let list = self.list();
        let bytes = match self.bytes > SMALL_BODY_BYTES_MAX {
            false => jsonrpc::encode_list(id, &list),
            true => jsonrpc::encode_list_in(id, &list, self.bytes),
        };
        self.room.hold(bytes)
    }
}
