//! Steps of tasks as changes of rows, inside a transaction that somebody else begins and commits.

use std::collections::HashMap;
use std::sync::Arc;

use convoke_model::{CapabilityName, EventError, TaskEvent, TaskId, TaskState};
use rusqlite::{Connection, OptionalExtension, params};

use super::claims::Claims;
use super::error::StoreError;
use super::heads::{Head, Heads};
use super::insert::advance;
use super::job::{Append, Audit, Create};
use super::lookup::{
    AUDIT, millis, names, now, priority_number, scope_no, task_by_id, task_by_no, unsigned,
};
use super::rows::{TaskFixed, TaskMoving, outbox_sum, scope_sum, send_sum, verify};
use crate::stored::{CHECKPOINT, state_number};
use crate::{AuditSink, Created, Fence, JournalError, Scope, SendKey};

/// How many scopes are remembered with their numbers; beyond that all are forgotten and found again.
const SCOPES: usize = 65_536;

/// The tables as the writer changes them, and what it remembers of them.
pub(super) struct Store {
    pub(super) connection: Connection,
    pub(super) heads: Heads,
    claims: Arc<Claims>,
    sink: Arc<dyn AuditSink>,
    fence: Fence,
    scopes: HashMap<Scope, i64>,
    /// The numbers of the next rows.
    next: Numbers,
    /// The same as of the last commit.
    committed: Numbers,
    /// By how much counts of tasks have changed since the last commit.
    counts: HashMap<(i64, CapabilityName, i64), i64>,
    /// Whether anything was changed since the last commit.
    is_changed: bool,
}

#[derive(Debug, Clone, Copy)]
struct Numbers {
    task: i64,
    scope: i64,
    item: i64,
}

/// Why a job was not staged.
pub(super) enum Refused {
    /// It cannot be done; nothing was changed.
    Job(JournalError),
    /// The store failed; what was changed since the last commit has to be rolled back.
    Store(StoreError),
}

impl Store {
    /// # Errors
    ///
    /// [`StoreError`] if the tables cannot be read.
    pub(super) fn new(
        connection: Connection,
        claims: Arc<Claims>,
        sink: Arc<dyn AuditSink>,
        fence: Fence,
    ) -> Result<Self, StoreError> {
        let after = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        let next = Numbers {
            task: after("SELECT coalesce(max(task_no), 0) + 1 FROM tasks")?,
            scope: after("SELECT coalesce(max(scope_no), 0) + 1 FROM scopes")?,
            item: after("SELECT coalesce(max(item_no), 0) + 1 FROM outbox")?,
        };
        Ok(Self {
            connection,
            heads: Heads::default(),
            claims,
            sink,
            fence,
            scopes: HashMap::new(),
            next,
            committed: next,
            counts: HashMap::new(),
            is_changed: false,
        })
    }

    /// Stages a new task.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub(super) fn create(&mut self, job: &mut Create) -> Result<Created, Refused> {
        let Some(TaskEvent::Submitted { at, .. }) = job.changes.events.first() else {
            return Err(EventError::NotSubmitted.into());
        };
        let created_at = millis(*at);
        let rest = job.changes.events.get(1..).unwrap_or_default();
        TaskState::Submitted.admits(rest, |_| false)?;

        let known_scope = self.find_scope(&job.scope)?;
        if let Some(scope_no) = known_scope {
            if let Some(key) = &job.send
                && let Some(known) = self.find_sent(scope_no, key)?
            {
                self.audit(job.audit.take())?;
                return Ok(Created::Known(known));
            }
            if self.heads.contains(scope_no, &job.id) || self.exists(scope_no, &job.id)? {
                return Err(Refused::Job(JournalError::Exists { id: job.id.clone() }));
            }
        }
        self.audit(job.audit.take())?;

        let scope_no = match known_scope {
            Some(scope_no) => scope_no,
            None => self.add_scope(&job.scope)?,
        };
        let task_no = self.next.task;
        let fixed = TaskFixed {
            task_no,
            scope_no,
            task_id: job.id.as_str(),
            context_id: job.context_id.as_str(),
            capability: job.capability.as_str(),
            subject: job.subject.as_deref(),
            priority: priority_number(job.terms.priority),
            deadline_at: job.terms.deadline.map(millis),
            created_at,
        };
        let state = TaskState::Submitted;
        let begin = TaskMoving {
            state: state_number(state),
            status_at: created_at,
            last_seq: 0,
            last_record: 0,
            folded_seq: 0,
        };
        let capability = job.capability.clone();
        let mut head = Head::new(task_no, capability, state, (begin, fixed.sum()), None);
        advance(&mut head, &job.changes);
        self.insert_task(fixed, &head)?;
        self.insert_changes(&mut head, begin, &job.changes)?;
        if let Some(key) = &job.send {
            self.insert_send(scope_no, key, task_no)?;
        }
        self.next.task += 1;
        self.is_changed = true;
        self.count(scope_no, &head.capability, head.moving.state, 1);
        let last_seq = unsigned(head.moving.last_seq);
        self.keep(scope_no, &job.id, head);
        Ok(Created::New { last_seq, fence: self.fence })
    }

    /// Stages a step of a task.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub(super) fn append(&mut self, job: &mut Append) -> Result<u64, Refused> {
        let missing = || Refused::Job(JournalError::NotFound { id: job.id.clone() });
        let scope_no = self.find_scope(&job.scope)?.ok_or_else(missing)?;
        let mut head = match self.heads.take(scope_no, &job.id) {
            Some(head) => head,
            None => self.load_head(scope_no, &job.id)?.ok_or_else(missing)?,
        };
        let outcome = self.append_to(&mut head, scope_no, job);
        self.keep(scope_no, &job.id, head);
        outcome
    }

    fn append_to(
        &mut self,
        head: &mut Head,
        scope_no: i64,
        job: &mut Append,
    ) -> Result<u64, Refused> {
        let id = || job.id.clone();
        let actual = unsigned(head.moving.last_seq);
        if actual != job.expected_seq {
            let expected = job.expected_seq;
            return Err(Refused::Job(JournalError::Conflict { id: id(), expected, actual }));
        }
        if job.fence != self.fence || !self.claims.are_held(&job.scope.agent, head.task_no) {
            return Err(Refused::Job(JournalError::Fenced { id: id() }));
        }
        self.admits(head, &job.changes.events)?;
        self.audit(job.audit.take())?;
        if job.changes.are_empty() {
            return Ok(actual);
        }
        let before = head.moving;
        advance(head, &job.changes);
        self.insert_changes(head, before, &job.changes)?;
        self.update_task(head, before)?;
        self.is_changed = true;
        if before.state != head.moving.state {
            self.count(scope_no, &head.capability, before.state, -1);
            self.count(scope_no, &head.capability, head.moving.state, 1);
        }
        Ok(unsigned(head.moving.last_seq))
    }

    /// Whether `events` can follow.
    fn admits(&self, head: &Head, events: &[TaskEvent]) -> Result<(), Refused> {
        let mut failed = None;
        let admitted = head.state.admits(events, |id| {
            head.knows(id)
                || self.has_artifact(head.task_no, id.as_str()).unwrap_or_else(|error| {
                    failed = Some(error);
                    false
                })
        });
        match failed {
            Some(error) => Err(Refused::Store(error)),
            None => Ok(admitted?),
        }
    }

    /// Hands an audit record to the sink, which may refuse the job, and keeps its line until the
    /// sink has written it. A sink that is waited for has written it before the commit.
    fn audit(&mut self, audit: Option<Audit>) -> Result<(), Refused> {
        let Some(Audit { record, line }) = audit else { return Ok(()) };
        self.sink.submit(record).map_err(|error| Refused::Job(error.into()))?;
        if self.sink.waits() {
            return Ok(());
        }
        let item_no = self.next.item;
        self.connection
            .prepare_cached("INSERT INTO outbox (item_no, kind, body, sum) VALUES (?, ?, ?, ?)")?
            .execute(params![item_no, AUDIT, line, outbox_sum(item_no, AUDIT, &line)])?;
        self.next.item += 1;
        self.is_changed = true;
        Ok(())
    }

    /// Writes the counts, the last of what a commit has.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; everything has to be rolled back.
    pub(super) fn finish(&mut self) -> Result<(), StoreError> {
        let mut update = self.connection.prepare_cached(
            "INSERT INTO counts (scope_no, capability, state, tasks) VALUES (?, ?, ?, ?)
             ON CONFLICT DO UPDATE SET tasks = tasks + excluded.tasks",
        )?;
        for ((scope_no, capability, state), by) in self.counts.drain() {
            if by != 0 {
                update.execute(params![scope_no, capability.as_str(), state, by])?;
            }
        }
        Ok(())
    }

    /// Whether there is anything to commit.
    pub(super) fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// Says that something was changed beside tasks.
    pub(super) fn set_changed(&mut self) {
        self.is_changed = true;
    }

    /// What was staged is committed. Returns the newest item of the outbox.
    pub(super) fn committed(&mut self) -> i64 {
        self.committed = self.next;
        self.is_changed = false;
        self.next.item - 1
    }

    /// What was staged is not committed, so nothing that was remembered can be relied on.
    pub(super) fn rolled_back(&mut self) {
        self.next = self.committed;
        self.is_changed = false;
        self.counts.clear();
        self.scopes.clear();
        self.heads.clear();
    }

    fn count(&mut self, scope_no: i64, capability: &CapabilityName, state: i64, by: i64) {
        *self.counts.entry((scope_no, capability.clone(), state)).or_default() += by;
    }

    /// Remembers where the task stands, unless it has ended and has no more steps.
    fn keep(&mut self, scope_no: i64, id: &TaskId, head: Head) {
        if !head.state.is_terminal() {
            self.heads.put(scope_no, id.clone(), head);
        }
    }

    fn find_scope(&mut self, scope: &Scope) -> Result<Option<i64>, StoreError> {
        if let Some(scope_no) = self.scopes.get(scope) {
            return Ok(Some(*scope_no));
        }
        let found = scope_no(&self.connection, scope)?;
        if let Some(scope_no) = found {
            self.remember(scope, scope_no);
        }
        Ok(found)
    }

    fn add_scope(&mut self, scope: &Scope) -> Result<i64, StoreError> {
        let scope_no = self.next.scope;
        let [agent, tenant, app, owner] = names(scope);
        let sum = scope_sum(scope_no, [agent, tenant, app, owner]);
        self.connection
            .prepare_cached(
                "INSERT INTO scopes (scope_no, agent, tenant, app, owner, sum)
                 VALUES (?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![scope_no, agent, tenant, app, owner, sum])?;
        self.next.scope += 1;
        self.remember(scope, scope_no);
        Ok(scope_no)
    }

    fn remember(&mut self, scope: &Scope, scope_no: i64) {
        if self.scopes.len() >= SCOPES {
            self.scopes.clear();
        }
        self.scopes.insert(scope.clone(), scope_no);
    }

    /// The task that was made of the same message, if that is still remembered.
    fn find_sent(&self, scope_no: i64, key: &SendKey) -> Result<Option<TaskId>, Refused> {
        let found = self
            .connection
            .prepare_cached(
                "SELECT digest, task_no, until_at, sum FROM sends
                 WHERE scope_no = ? AND message_id = ?",
            )?
            .query_row(params![scope_no, key.message_id.as_str()], |row| {
                Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })
            .optional()?;
        let Some((digest, task_no, until_at, sum)) = found else { return Ok(None) };
        let computed = send_sum(scope_no, key.message_id.as_str(), &digest, task_no, until_at);
        verify(sum, computed, || format!("what was sent for task {task_no}"))?;
        if until_at < millis(now()) {
            return Ok(None);
        }
        // The task may have been deleted before its time, or be about to be: then it is nobody's.
        let task = task_by_no(&self.connection, task_no)?;
        let Some(row) = task.filter(|row| row.scope_no == scope_no) else { return Ok(None) };
        if digest != key.digest {
            let message_id = key.message_id.clone();
            return Err(Refused::Job(JournalError::SendConflict { message_id }));
        }
        Ok(Some(row.id()?))
    }

    fn insert_send(&self, scope_no: i64, key: &SendKey, task_no: i64) -> Result<(), StoreError> {
        let (message_id, until_at) = (key.message_id.as_str(), millis(key.until));
        let sum = send_sum(scope_no, message_id, &key.digest, task_no, until_at);
        // What is replaced has been looked at: its time is over, or its task is gone.
        self.connection
            .prepare_cached(
                "INSERT OR REPLACE INTO sends (scope_no, message_id, digest, task_no, until_at, sum)
                 VALUES (?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![scope_no, message_id, key.digest, task_no, until_at, sum])?;
        Ok(())
    }

    fn exists(&self, scope_no: i64, id: &TaskId) -> Result<bool, StoreError> {
        Ok(self
            .connection
            .prepare_cached("SELECT 1 FROM tasks WHERE scope_no = ? AND task_id = ?")?
            .exists(params![scope_no, id.as_str()])?)
    }

    fn has_artifact(&self, task_no: i64, artifact_id: &str) -> Result<bool, StoreError> {
        // Pieces come in the order of their numbers, and an artifact's first one is near those of
        // the others, so this looks at few of them, unless there is no such artifact.
        Ok(self
            .connection
            .prepare_cached("SELECT 1 FROM pieces WHERE task_no = ? AND artifact_id = ?")?
            .exists(params![task_no, artifact_id])?)
    }

    fn load_head(&self, scope_no: i64, id: &TaskId) -> Result<Option<Head>, StoreError> {
        let Some(row) = task_by_id(&self.connection, scope_no, id)? else { return Ok(None) };
        let (state, capability) = (row.state()?, row.capability()?);
        let checkpoint_no = self
            .connection
            .prepare_cached("SELECT max(record_no) FROM records WHERE task_no = ? AND kind = ?")?
            .query_row([row.task_no, CHECKPOINT], |row| row.get(0))?;
        let sums = (row.moving, row.fixed_sum);
        Ok(Some(Head::new(row.task_no, capability, state, sums, checkpoint_no)))
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<EventError> for Refused {
    fn from(error: EventError) -> Self {
        Self::Job(error.into())
    }
}
