//! Which tasks of earlier processes are to be worked on, and which of them somebody works on.
//!
//! Whoever opened the store last has all tasks: there is one such process at a time. So what is left
//! to say is which of the tasks that it found were given out to be worked on.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use convoke_model::SpiffeId;
use rusqlite::{Connection, params};

use super::error::StoreError;
use super::lookup::{open_states, scope_by_no, task_by_no};
use crate::stored::state_number;
use crate::{Claimed, Fence};

/// What was found when the store was opened.
#[derive(Debug)]
pub(super) struct Claims {
    /// The newest task of an earlier process.
    last_old: i64,
    /// One caller at a time searches and loads, so that two do not get the same.
    searching: Mutex<()>,
    agents: Mutex<HashMap<SpiffeId, Waiting>>,
}

/// The tasks of an agent that were found, in the order in which they were made.
#[derive(Debug, Default)]
struct Waiting {
    tasks: VecDeque<i64>,
}

impl Claims {
    pub(super) fn new(last_old: i64) -> Self {
        Self { last_old, searching: Mutex::default(), agents: Mutex::default() }
    }

    /// The newest task of an earlier process.
    pub(super) fn last_old(&self) -> i64 {
        self.last_old
    }

    /// Whether somebody of this process works on the task.
    pub(super) fn are_held(&self, agent: &SpiffeId, task_no: i64) -> bool {
        if task_no > self.last_old {
            return true;
        }
        // They are given out in their order.
        let first = |waiting: &Waiting| waiting.tasks.front().copied();
        self.agents().get(agent).is_some_and(|waiting| first(waiting).is_none_or(|no| task_no < no))
    }

    /// Gives out up to `max` tasks of `agent` that nobody works on, once `load` has read them. They
    /// are looked for once, with `search`, in the order in which they were made.
    ///
    /// # Errors
    ///
    /// What `search` or `load` said; then none is given out.
    pub(super) fn take<T>(
        &self,
        agent: &SpiffeId,
        max: usize,
        search: impl FnOnce() -> Result<Vec<i64>, StoreError>,
        load: impl FnOnce(&[i64]) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // Both take a while, in which the writer may ask whether a task is held.
        let _searching = self.searching.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.agents().contains_key(agent) {
            let tasks = search()?.into();
            self.agents().insert(agent.clone(), Waiting { tasks });
        }
        let first = |waiting: &Waiting| waiting.tasks.iter().take(max).copied().collect();
        let first: Vec<i64> = self.agents().get(agent).map(first).unwrap_or_default();
        let loaded = load(&first)?;
        if let Some(waiting) = self.agents().get_mut(agent) {
            waiting.tasks.drain(..first.len());
            // Room for a million numbers is not kept after a start that has found as many.
            if waiting.tasks.is_empty() {
                waiting.tasks = VecDeque::new();
            }
        }
        Ok(loaded)
    }

    fn agents(&self) -> MutexGuard<'_, HashMap<SpiffeId, Waiting>> {
        // Every change is one call, so a panic leaves nothing half-done.
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tasks of `agent` up to `last_old` that have not ended, in the order in which they were made.
/// Of each scope only those are touched, so a million that have ended cost nothing.
pub(super) fn search(
    connection: &Connection,
    agent: &SpiffeId,
    last_old: i64,
) -> Result<Vec<i64>, StoreError> {
    let mut scopes = connection.prepare_cached("SELECT scope_no FROM scopes WHERE agent = ?")?;
    let mut tasks = connection.prepare_cached(
        "SELECT task_no FROM tasks WHERE scope_no = ? AND state = ? AND task_no <= ?",
    )?;
    let mut found = Vec::new();
    let mut rows = scopes.query([agent.as_str()])?;
    while let Some(row) = rows.next()? {
        let scope_no: i64 = row.get(0)?;
        for state in open_states() {
            let mut rows = tasks.query(params![scope_no, state_number(state), last_old])?;
            while let Some(row) = rows.next()? {
                found.push(row.get(0)?);
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// What whoever works on these tasks has to know.
pub(super) fn load(
    connection: &Connection,
    tasks: &[i64],
    fence: Fence,
) -> Result<Vec<Claimed>, StoreError> {
    let mut claimed = Vec::with_capacity(tasks.len());
    for task_no in tasks {
        // Nobody could end it before it was given out; only a person beside us could delete it.
        let Some(row) = task_by_no(connection, *task_no)? else { continue };
        claimed.push(Claimed {
            scope: scope_by_no(connection, row.scope_no)?,
            id: row.id()?,
            fence,
            state: row.state()?,
            capability: row.capability()?,
            terms: row.terms()?,
        });
    }
    Ok(claimed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_task_is_given_out_once_in_order_and_held_from_then_on() {
        let agent = SpiffeId::parse("spiffe://example.org/worker").unwrap();
        let claims = Claims::new(9);
        assert!(claims.are_held(&agent, 10) && !claims.are_held(&agent, 9));
        let load = |tasks: &[i64]| Ok(tasks.to_vec());
        assert_eq!(claims.take(&agent, 2, || Ok(vec![2, 5, 9]), load).unwrap(), [2, 5]);
        assert!(claims.are_held(&agent, 5) && !claims.are_held(&agent, 9));
        let never = || Err(StoreError::Closed);
        let unread = claims.take(&agent, 9, never, |_| Err::<(), _>(StoreError::Closed));
        assert!(unread.is_err() && !claims.are_held(&agent, 9));
        assert_eq!(claims.take(&agent, 9, never, load).unwrap(), [9]);
        assert!(claims.take(&agent, 9, never, load).unwrap().is_empty());
        assert!(claims.are_held(&agent, 9));
        let other = SpiffeId::parse("spiffe://example.org/other").unwrap();
        assert!(claims.take(&other, 1, never, load).is_err());
        assert!(!claims.are_held(&other, 3), "a failed search is no search");
    }
}
