//! Finding rows, for the writer and for readers, and what their columns mean.

use std::time::{SystemTime, UNIX_EPOCH};

use convoke_model::{CapabilityName, Priority, SpiffeId, TaskId, TaskState, Terms, UnixMillis};
use rusqlite::{Connection, OptionalExtension, Params, params};

use super::error::StoreError;
use super::rows::{TaskRow, scope_sum, verify};
use crate::Scope;
use crate::stored::state_of;

/// What stands in `outbox.kind` for a line of the audit log.
pub(super) const AUDIT: &str = "audit";

/// The number of a scope, if it has one.
///
/// # Errors
///
/// [`StoreError`] if it cannot be read.
pub(super) fn scope_no(connection: &Connection, scope: &Scope) -> Result<Option<i64>, StoreError> {
    let names = names(scope);
    let found = connection
        .prepare_cached(
            "SELECT scope_no, sum FROM scopes
             WHERE agent = ? AND tenant = ? AND app = ? AND owner = ?",
        )?
        .query_row(names, |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)))
        .optional()?;
    let Some((scope_no, sum)) = found else { return Ok(None) };
    verify(sum, scope_sum(scope_no, names), || format!("scope {scope_no}"))?;
    Ok(Some(scope_no))
}

/// The scope of a number.
///
/// # Errors
///
/// [`StoreError`] if it cannot be read; it has to be there.
pub(super) fn scope_by_no(connection: &Connection, scope_no: i64) -> Result<Scope, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT agent, tenant, app, owner, sum FROM scopes WHERE scope_no = ?")?;
    let mut rows = statement.query([scope_no])?;
    let missing = || StoreError::Damaged(format!("scope {scope_no} is missing"));
    let row = rows.next()?.ok_or_else(missing)?;
    let [agent, tenant, app, owner]: [String; 4] =
        [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?];
    let sum = scope_sum(scope_no, [&agent, &tenant, &app, &owner]);
    verify(row.get(4)?, sum, || format!("scope {scope_no}"))?;
    let agent = SpiffeId::parse(&agent).map_err(|error| {
        StoreError::Damaged(format!("the agent of scope {scope_no} is none: {error}"))
    })?;
    Ok(Scope { agent, tenant: tenant.into(), app: app.into(), owner: owner.into() })
}

/// The texts of a scope, in the order of its columns.
pub(super) fn names(scope: &Scope) -> [&str; 4] {
    [scope.agent.as_str(), &scope.tenant, &scope.app, &scope.owner]
}

/// The task of that name in a scope.
///
/// # Errors
///
/// [`StoreError`] if it cannot be read.
pub(super) fn task_by_id(
    connection: &Connection,
    scope_no: i64,
    id: &TaskId,
) -> Result<Option<TaskRow>, StoreError> {
    let by_id = "WHERE scope_no = ? AND task_id = ?";
    task_where(connection, by_id, params![scope_no, id.as_str()])
}

/// The task of that number.
///
/// # Errors
///
/// [`StoreError`] if it cannot be read.
pub(super) fn task_by_no(
    connection: &Connection,
    task_no: i64,
) -> Result<Option<TaskRow>, StoreError> {
    task_where(connection, "WHERE task_no = ?", [task_no])
}

fn task_where(
    connection: &Connection,
    condition: &str,
    params: impl Params,
) -> Result<Option<TaskRow>, StoreError> {
    let sql = format!("SELECT {} FROM tasks {condition}", TaskRow::COLUMNS);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params)?;
    rows.next()?.map(TaskRow::read).transpose()
}

/// The tasks in a scope that have ended or not are found by their states.
pub(super) fn open_states() -> impl Iterator<Item = TaskState> {
    (1..=8).filter_map(state_of).filter(|state| !state.is_terminal())
}

impl TaskRow {
    /// # Errors
    ///
    /// [`StoreError::Damaged`] if it is none of format 1.
    pub(super) fn state(&self) -> Result<TaskState, StoreError> {
        let state = self.moving.state;
        state_of(state).ok_or_else(|| {
            StoreError::Damaged(format!("task {} is in state {state}", self.task_no))
        })
    }

    /// # Errors
    ///
    /// [`StoreError::Damaged`] if it is none.
    pub(super) fn capability(&self) -> Result<CapabilityName, StoreError> {
        CapabilityName::parse(&self.capability)
            .map_err(|error| StoreError::unreadable(self, &error))
    }

    /// # Errors
    ///
    /// [`StoreError::Damaged`] if it is none.
    pub(super) fn id(&self) -> Result<TaskId, StoreError> {
        TaskId::parse(&self.task_id).map_err(|error| StoreError::unreadable(self, &error))
    }

    /// # Errors
    ///
    /// [`StoreError::Damaged`] if they are none of format 1.
    pub(super) fn terms(&self) -> Result<Terms, StoreError> {
        let priority = usize::try_from(self.priority).ok().and_then(|at| Priority::ALL.get(at));
        let priority = *priority.ok_or_else(|| {
            StoreError::Damaged(format!("task {} has priority {}", self.task_no, self.priority))
        })?;
        Ok(Terms { priority, deadline: self.deadline_at.map(instant) })
    }
}

/// The number of a priority in its column: its place, the least urgent first.
pub(super) fn priority_number(priority: Priority) -> i64 {
    match priority {
        Priority::Low => 0,
        Priority::Normal => 1,
        Priority::High => 2,
        Priority::Urgent => 3,
    }
}

/// An instant as a column has it. One that lies 292 million years ahead comes a little sooner.
pub(super) fn millis(instant: UnixMillis) -> i64 {
    i64::try_from(instant.0).unwrap_or(i64::MAX)
}

/// The instant of a column.
pub(super) fn instant(millis: i64) -> UnixMillis {
    UnixMillis(u64::try_from(millis).unwrap_or_default())
}

/// A number of a column that begins at zero.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// What the machine's clock says.
pub(super) fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
