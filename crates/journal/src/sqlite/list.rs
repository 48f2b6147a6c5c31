//! Pages of lists: which tasks, how many there are, and as much of each as was asked for.
//!
//! A page costs the same among a million tasks as among a thousand: it begins where the page before
//! ended, in an index, and the number of all tasks is kept. What costs more is said where it does.

use std::collections::BTreeSet;

use convoke_model::{ContextId, TaskState};
use rusqlite::{Connection, ToSql, params};

use super::error::StoreError;
use super::lookup::{instant, millis, scope_no, task_by_no, unsigned};
use super::shown::shown;
use crate::page::{self, Place, Position};
use crate::stored::{state_number, state_of};
use crate::{ListQuery, Scope, TaskPage};

/// A page ends early when so much was read for it, in bytes of bodies: a hundred large tasks are no
/// answer that anybody can read.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Positions of one state, the newest first. Two numbers are compared where one says nearly all,
/// because only the first is looked up in the index.
const ALL_OF_STATE: &str = "SELECT status_at, task_no FROM tasks
     WHERE scope_no = ?1 AND state = ?2 AND status_at >= ?3 AND status_at <= ?4
         AND (status_at < ?4 OR task_no < ?5)
     ORDER BY status_at DESC, task_no DESC LIMIT ?6";

/// The same of some capabilities, given as a JSON array, so that there is one statement for any
/// number of them.
const SOME_OF_STATE: &str = "SELECT status_at, task_no FROM tasks
     WHERE scope_no = ?1 AND state = ?2 AND status_at >= ?3 AND status_at <= ?4
         AND (status_at < ?4 OR task_no < ?5)
         AND capability IN (SELECT value FROM json_each(?7))
     ORDER BY status_at DESC, task_no DESC LIMIT ?6";

/// Positions of a conversation, in no order that helps.
const OF_CONTEXT: &str =
    "SELECT status_at, task_no, state, capability FROM tasks WHERE scope_no = ? AND context_id = ?";

const COUNTS: &str = "SELECT capability, state, tasks FROM counts WHERE scope_no = ?";

/// How many of a state have come to it since an instant.
const COUNT_OF_ALL: &str =
    "SELECT count(*) FROM tasks WHERE scope_no = ?1 AND state = ?2 AND status_at >= ?3";

/// The same of some capabilities.
const COUNT_OF_SOME: &str =
    "SELECT count(*) FROM tasks WHERE scope_no = ?1 AND state = ?2 AND status_at >= ?3
         AND capability IN (SELECT value FROM json_each(?4))";

/// The page of `scope` that `query` asks for, behind `place`; `None` begins with the newest. `key`
/// is what tokens are made with. The caller has begun a transaction, so that all of it is of one
/// instant.
///
/// # Errors
///
/// [`StoreError`] if it cannot be read, or is not what was written.
pub(super) fn list(
    connection: &Connection,
    key: u64,
    scope: &Scope,
    query: &ListQuery,
    place: Option<Place>,
) -> Result<TaskPage, StoreError> {
    let nothing = |total| TaskPage { tasks: Vec::new(), next: None, total };
    let known = place.map_or(0, |place| place.total);
    let Some(scope_no) = scope_no(connection, scope)? else { return Ok(nothing(known)) };
    let Some(filter) = Filter::new(connection, scope_no, query)? else {
        return Ok(nothing(known));
    };
    let total = match place {
        Some(place) => place.total,
        None => filter.total(connection)?,
    };
    let page_size = usize::try_from(query.page_size).unwrap_or(usize::MAX);
    let behind = place.map(|place| place.position);
    // One more than is shown, to know whether there is a next page.
    let found = filter.positions(connection, behind, page_size.saturating_add(1))?;

    let mut tasks = Vec::new();
    let mut bytes = 0;
    let mut last = None;
    for position in found.iter().take(page_size) {
        let task_no = i64::try_from(position.number).unwrap_or(i64::MAX);
        let row = task_by_no(connection, task_no)?
            .ok_or_else(|| StoreError::Damaged(format!("task {task_no} is in an index alone")))?;
        tasks.push(shown(connection, &row, query, &mut bytes)?);
        last = Some(*position);
        if bytes > PAGE_BYTES_MAX {
            break;
        }
    }
    let position = last.filter(|_| tasks.len() < found.len());
    let next = position.map(|position| page::token(key, scope, query, Place { position, total }));
    Ok(TaskPage { tasks, next, total })
}

/// Which tasks of a scope are wanted.
struct Filter<'q> {
    scope_no: i64,
    context_id: Option<&'q ContextId>,
    /// In which states.
    states: Vec<TaskState>,
    since: Option<i64>,
    /// Of which capabilities; `None` if all that the scope has are wanted.
    capabilities: Option<Vec<&'q str>>,
    /// How many tasks are in these states and of these capabilities.
    counted: u64,
}

impl<'q> Filter<'q> {
    /// `None` if nothing can pass.
    fn new(
        connection: &Connection,
        scope_no: i64,
        query: &'q ListQuery,
    ) -> Result<Option<Self>, StoreError> {
        // Nothing has come to its status later than a column can say.
        let since = match query.since {
            Some(since) if since.0 > i64::MAX as u64 => return Ok(None),
            since => since.map(millis),
        };
        let wanted = query.capabilities.as_ref();
        let wanted: Option<BTreeSet<&str>> =
            wanted.map(|names| names.iter().map(|name| name.as_str()).collect());
        let mut states = Vec::new();
        let mut passing = BTreeSet::new();
        let (mut is_all, mut counted) = (true, 0);
        let mut statement = connection.prepare_cached(COUNTS)?;
        let mut rows = statement.query([scope_no])?;
        while let Some(row) = rows.next()? {
            let (name, number, tasks): (String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            if tasks <= 0 {
                continue;
            }
            let Some(known) = wanted.as_ref().map_or(Some(""), |set| set.get(&*name).copied())
            else {
                is_all = false;
                continue;
            };
            let state = state_of(number).ok_or_else(|| {
                StoreError::Damaged(format!("tasks are counted in state {number}"))
            })?;
            if query.state.is_some_and(|wanted| wanted != state) {
                continue;
            }
            passing.insert(known);
            counted += unsigned(tasks);
            if !states.contains(&state) {
                states.push(state);
            }
        }
        if states.is_empty() {
            return Ok(None);
        }
        // A capability of which the scope has no task needs no look at each row.
        let capabilities = (!is_all).then(|| passing.into_iter().collect());
        let context_id = query.context_id.as_ref();
        Ok(Some(Self { scope_no, context_id, states, since, capabilities, counted }))
    }

    /// How many tasks pass. With a conversation or an instant they are counted one by one, in an
    /// index; the token carries the number to the next pages.
    fn total(&self, connection: &Connection) -> Result<u64, StoreError> {
        if self.context_id.is_some() {
            let mut total = 0;
            self.each_of_context(connection, None, |_| total += 1)?;
            return Ok(total);
        }
        let Some(since) = self.since else { return Ok(self.counted) };
        let names = self.names();
        let mut total = 0;
        for state in &self.states {
            let number = state_number(*state);
            let mut params: Vec<&dyn ToSql> = vec![&self.scope_no, &number, &since];
            params.extend(names.iter().map(|names| names as &dyn ToSql));
            let count: i64 = connection
                .prepare_cached(if names.is_some() { COUNT_OF_SOME } else { COUNT_OF_ALL })?
                .query_row(&*params, |row| row.get(0))?;
            total += unsigned(count);
        }
        Ok(total)
    }

    /// The first `limit` positions behind `behind`.
    fn positions(
        &self,
        connection: &Connection,
        behind: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Position>, StoreError> {
        if self.context_id.is_some() {
            return self.positions_of_context(connection, behind, limit);
        }
        let (at, number) = match behind {
            Some(Position { at, number }) => {
                (millis(at), i64::try_from(number).unwrap_or(i64::MAX))
            }
            None => (i64::MAX, i64::MAX),
        };
        let since = self.since.unwrap_or(0);
        let rows_max = i64::try_from(limit).unwrap_or(i64::MAX);
        let names = self.names();
        let mut found = Vec::new();
        for state in &self.states {
            let state = state_number(*state);
            let mut params: Vec<&dyn ToSql> =
                vec![&self.scope_no, &state, &since, &at, &number, &rows_max];
            params.extend(names.iter().map(|names| names as &dyn ToSql));
            let sql = if names.is_some() { SOME_OF_STATE } else { ALL_OF_STATE };
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query(&*params)?;
            while let Some(row) = rows.next()? {
                found.push(Position { at: instant(row.get(0)?), number: unsigned(row.get(1)?) });
            }
        }
        found.sort_unstable_by(|one, other| other.cmp(one));
        found.truncate(limit);
        Ok(found)
    }

    /// The same in a conversation, whose tasks are all looked at, in memory for a page.
    fn positions_of_context(
        &self,
        connection: &Connection,
        behind: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Position>, StoreError> {
        let mut first = BTreeSet::new();
        self.each_of_context(connection, behind, |position| {
            first.insert(position);
            if first.len() > limit {
                first.pop_first();
            }
        })?;
        Ok(first.into_iter().rev().collect())
    }

    fn each_of_context(
        &self,
        connection: &Connection,
        behind: Option<Position>,
        mut each: impl FnMut(Position),
    ) -> Result<(), StoreError> {
        let context_id = self.context_id.map(ContextId::as_str);
        let mut statement = connection.prepare_cached(OF_CONTEXT)?;
        let mut rows = statement.query(params![self.scope_no, context_id])?;
        while let Some(row) = rows.next()? {
            let status_at = row.get(0)?;
            let position = Position { at: instant(status_at), number: unsigned(row.get(1)?) };
            let state = state_of(row.get(2)?);
            let capability = row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?;
            let passes = behind.is_none_or(|behind| position < behind)
                && self.since.is_none_or(|since| status_at >= since)
                && state.is_some_and(|state| self.states.contains(&state))
                && self.capabilities.as_ref().is_none_or(|names| names.contains(&capability));
            if passes {
                each(position);
            }
        }
        Ok(())
    }

    /// Whether only some of the scope's capabilities are wanted. Then each row that is passed over is
    /// looked at.
    fn names(&self) -> Option<String> {
        // Their grammar has no character that JSON escapes.
        self.capabilities.as_ref().map(|names| format!("[\"{}\"]", names.join("\",\"")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::shown::{EVENTS_BACK, NEWEST_STATUS, PIECES};

    /// What the planner says of each statement: nothing is scanned, and nothing is sorted that is
    /// not a page.
    #[test]
    fn every_statement_of_a_page_begins_in_an_index() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(include_str!("schema.sql")).unwrap();
        for (sql, wanted) in [
            (
                ALL_OF_STATE,
                "COVERING INDEX tasks_by_status (scope_no=? AND state=? AND status_at>? AND status_at<?)",
            ),
            (
                SOME_OF_STATE,
                "INDEX tasks_by_status (scope_no=? AND state=? AND status_at>? AND status_at<?)",
            ),
            (
                COUNT_OF_ALL,
                "COVERING INDEX tasks_by_status (scope_no=? AND state=? AND status_at>?)",
            ),
            (COUNT_OF_SOME, "INDEX tasks_by_status (scope_no=? AND state=? AND status_at>?)"),
            (OF_CONTEXT, "INDEX tasks_by_context (scope_no=? AND context_id=?)"),
            (COUNTS, "PRIMARY KEY (scope_no=?)"),
            (EVENTS_BACK, "PRIMARY KEY (task_no=? AND seq<?)"),
            (NEWEST_STATUS, "PRIMARY KEY (task_no=?)"),
            (PIECES, "PRIMARY KEY (task_no=?)"),
        ] {
            let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let count = statement.parameter_count();
            let params = rusqlite::params_from_iter(vec![rusqlite::types::Null; count]);
            let plan: Vec<String> = statement
                .query_map(params, |row| row.get(3))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            assert!(plan.iter().any(|step| step.contains(wanted)), "{sql}: {plan:?}");
            // The names of capabilities are no table.
            let is_dear = |step: &&String| {
                (step.contains("SCAN") && !step.contains("json_each"))
                    || step.contains("TEMP B-TREE")
            };
            assert_eq!(plan.iter().find(is_dear), None, "{sql}");
        }
    }
}
