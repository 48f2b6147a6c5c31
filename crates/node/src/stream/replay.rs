//! What a subscriber is shown before what happens from then on: the task as it stands, or the events
//! behind a place at which it was before.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use convoke_a2a::jsonrpc::stream::update_tail;
use convoke_journal::{Events, Scope};
use convoke_model::{
    ContextId, Cursor, Fault, FaultCode, TaskEvent, TaskId, TaskState, TaskStatus, UnixMillis,
};

use super::backlog::Account;
use crate::service::Service;
use crate::tasks::not_found;

/// What comes first in a stream.
#[derive(Debug)]
pub(crate) enum Replay {
    /// The task as it stands, which holds room if it is large.
    Task(Bytes),
    /// The events behind a place, from the journal.
    Journal(Box<Journal>),
    /// Nothing more.
    Done,
}

/// The events of one task, read a page at a time.
#[derive(Debug)]
pub(crate) struct Journal {
    scope: Scope,
    id: TaskId,
    context_id: ContextId,
    /// The newest event that was seen.
    at: Cursor,
    /// The status that the task had come to there, if it has been read.
    status: Option<TaskStatus>,
}

impl Replay {
    /// The events of a task behind `after`.
    pub(crate) fn events(
        scope: &Scope,
        (id, context_id): (&TaskId, &ContextId),
        after: Cursor,
    ) -> Self {
        Self::Journal(Box::new(Journal {
            scope: scope.clone(),
            id: id.clone(),
            context_id: context_id.clone(),
            at: after,
            status: None,
        }))
    }

    /// The place that its reader was at before.
    pub(super) fn after(&self) -> Option<Cursor> {
        match self {
            Self::Journal(journal) => Some(journal.at),
            Self::Task(_) | Self::Done => None,
        }
    }
}

impl Journal {
    /// The newest event that was read.
    pub(super) fn at(&self) -> u64 {
        self.at.seq
    }

    /// The next events, none of them behind number `until`, held by `account`.
    ///
    /// # Errors
    ///
    /// The fault that ends the stream: the journal could not be asked, or no longer has the events.
    pub(super) async fn next(
        &mut self,
        service: &Service,
        until: u64,
        account: &Arc<Account>,
    ) -> Result<VecDeque<Bytes>, Fault> {
        // A message is shown with the status that it follows, so one event more is read at first.
        if self.status.is_none() {
            let from = Cursor { seq: self.at.seq.saturating_sub(1), ..self.at };
            let tails = self.page(service, from, until, account).await?;
            // A large event comes alone, and so does the one before it.
            if !tails.is_empty() {
                return Ok(tails);
            }
        }
        let tails = self.page(service, self.at, until, account).await?;
        // Without progress there would be no end.
        if tails.is_empty() { Err(self.lost()) } else { Ok(tails) }
    }

    /// The events behind `from` that were not read yet.
    async fn page(
        &mut self,
        service: &Service,
        from: Cursor,
        until: u64,
        account: &Arc<Account>,
    ) -> Result<VecDeque<Bytes>, Fault> {
        let read = service.journal.events(&self.scope, &self.id, from).await;
        let events = read.map_err(|error| service.commit_fault(&error))?;
        let Some(events) = events else { return Err(not_found(&self.id)) };
        let Events::Page { events, .. } = events else { return Err(self.lost()) };
        let mut tails = VecDeque::with_capacity(events.len());
        for (seq, event) in events {
            if let TaskEvent::Status(status) = &event {
                self.status = Some(status.clone());
            }
            if seq <= self.at.seq || seq > until {
                continue;
            }
            self.at.seq = seq;
            let unknown = TaskStatus {
                state: TaskState::Working,
                message: None,
                timestamp: UnixMillis::default(),
            };
            let status = self.status.get_or_insert(unknown);
            let tail = update_tail(&self.id, &self.context_id, &event, status, self.at);
            tails.extend(tail.map(|tail| account.hold(tail)));
        }
        Ok(tails)
    }

    fn lost(&self) -> Fault {
        let text = format!(
            "what followed in task `{}` is no longer kept event by event; follow it again from the \
             beginning",
            self.id
        );
        Fault::new(FaultCode::Unavailable, text).with("taskId", self.id.as_str())
    }
}
