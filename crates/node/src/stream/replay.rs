//! What a subscriber is shown before what happens from then on: the task as it stands, or the events
//! behind a place at which it was before.

use std::collections::VecDeque;

use bytes::Bytes;
use convoke_a2a::jsonrpc::stream::update_tail;
use convoke_journal::{Events, Scope};
use convoke_model::{
    ContextId, Cursor, Fault, FaultCode, TaskEvent, TaskId, TaskState, TaskStatus, UnixMillis,
};

use crate::service::Service;
use crate::tasks::not_found;

/// What comes first in a stream.
#[derive(Debug)]
pub(crate) struct Replay(Source);

#[derive(Debug)]
enum Source {
    /// The task, which holds room if it is large.
    Task(Bytes),
    /// Events from the journal.
    Journal(Box<Journal>),
    /// Nothing more.
    Done,
}

#[derive(Debug)]
struct Journal {
    scope: Scope,
    id: TaskId,
    context_id: ContextId,
    /// The newest event that was seen.
    at: Cursor,
    /// The last one that is shown from here; what follows it comes to the subscriber.
    until: u64,
    /// The status that the task had come to there, if it has been read.
    status: Option<TaskStatus>,
}

impl Replay {
    /// The task as it stands.
    pub(crate) fn task(first: Bytes) -> Self {
        Self(Source::Task(first))
    }

    /// The events of a task behind `after`, up to number `until`.
    pub(crate) fn events(
        scope: &Scope,
        (id, context_id): (&TaskId, &ContextId),
        after: Cursor,
        until: u64,
    ) -> Self {
        if after.seq >= until {
            return Self(Source::Done);
        }
        Self(Source::Journal(Box::new(Journal {
            scope: scope.clone(),
            id: id.clone(),
            context_id: context_id.clone(),
            at: after,
            until,
            status: None,
        })))
    }

    /// Whether everything was given.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.0, Source::Done)
    }

    /// What comes next.
    ///
    /// # Errors
    ///
    /// The fault that ends the stream: the journal could not be asked, or no longer has the events.
    pub(crate) async fn next(&mut self, service: &Service) -> Result<VecDeque<Bytes>, Fault> {
        match std::mem::replace(&mut self.0, Source::Done) {
            Source::Task(first) => Ok([first].into()),
            Source::Done => Ok(VecDeque::new()),
            Source::Journal(mut journal) => {
                let tails = journal.next(service).await?;
                if journal.at.seq < journal.until {
                    self.0 = Source::Journal(journal);
                }
                Ok(tails)
            }
        }
    }
}

impl Journal {
    async fn next(&mut self, service: &Service) -> Result<VecDeque<Bytes>, Fault> {
        // A message is shown with the status that it follows, so one event more is read at first.
        let from = match self.status {
            Some(_) => self.at,
            None => Cursor { seq: self.at.seq.saturating_sub(1), ..self.at },
        };
        let read = service.journal.events(&self.scope, &self.id, from).await;
        let events = read.map_err(|error| service.commit_fault(&error))?;
        let Some(events) = events else { return Err(not_found(&self.id)) };
        let Events::Page { events, .. } = events else { return Err(self.lost()) };
        let mut tails = VecDeque::with_capacity(events.len());
        let before = self.at.seq;
        for (seq, event) in events {
            if let TaskEvent::Status(status) = &event {
                self.status = Some(status.clone());
            }
            if seq <= self.at.seq || seq > self.until {
                continue;
            }
            self.at.seq = seq;
            let unknown = TaskStatus {
                state: TaskState::Working,
                message: None,
                timestamp: UnixMillis::default(),
            };
            let status = self.status.get_or_insert(unknown);
            tails.extend(update_tail(&self.id, &self.context_id, &event, status, self.at));
        }
        // Without progress there would be no end.
        if self.at.seq == before { Err(self.lost()) } else { Ok(tails) }
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
