//! What is no longer kept: ended tasks after a time or beyond a number, names of messages whose time
//! is over, and the pieces in which artifacts of ended tasks came.
//!
//! All of it goes step by step, in turns of the writer that take some milliseconds, so that commits
//! never wait for it. A task that has more rows than a step may touch first moves to the scope of
//! nobody, number zero, where no caller finds it, and is then taken apart; a process that ends
//! half-way leaves it there for the next.

use std::time::Duration;

use convoke_model::UnixMillis;
use rusqlite::{Connection, params};

use super::compact::fold;
use super::error::StoreError;
use super::lookup::{millis, open_states, task_by_no, unsigned};
use super::rows::{TaskRow, scope_sum};
use crate::stored::state_number;

/// How many tasks a step deletes at most.
const TASKS_A_STEP: usize = 200;

/// How many rows of tasks a step deletes at most.
const ROWS_A_STEP: usize = 5_000;

/// How many places a step looks at at most.
const LOOKS_A_STEP: usize = 1_000;

/// How long nothing is looked for once everything was.
const PAUSE: Duration = Duration::from_secs(10);

/// The scope of nobody: of tasks that are being taken apart.
pub(super) const NOBODY: i64 = 0;

/// How long what has ended is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Tasks that ended so long ago are deleted; `None` keeps them.
    pub ended_after: Option<Duration>,
    /// Of tasks that have ended, so many are kept; beyond that, those that were made first go first.
    /// `None` keeps them.
    pub tasks_max: Option<u64>,
    /// The pieces of tasks that ended so long ago are kept as what they came to. Until then whoever
    /// was cut off goes on where it was; later it is given the task as a whole.
    pub compact_after: Duration,
}

/// One round after the other through what is to be deleted or folded.
#[derive(Debug)]
pub(super) struct Sweep {
    retention: Retention,
    phase: Phase,
    /// Of everything that ended up to here, pieces were folded.
    folded_to: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Tasks of nobody.
    Remains,
    /// Names of messages whose time is over.
    Sends,
    /// Ended tasks by age, behind this scope and state.
    Aged { scope_no: i64, state: i64 },
    /// Ended tasks beyond the number, behind this task.
    Surplus { task_no: i64 },
    /// Pieces to fold, behind this scope and state, of tasks that ended by an instant.
    Pieces { scope_no: i64, state: i64, from: Ended, to: i64 },
    /// Nothing until then.
    Rest { until: i64 },
}

/// A task by its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ended {
    at: i64,
    task_no: i64,
}

/// What a step may still do.
struct Budget {
    tasks: usize,
    rows: usize,
    looks: usize,
}

impl Default for Retention {
    /// Everything is kept; pieces of what ended an hour ago are folded.
    fn default() -> Self {
        Self { ended_after: None, tasks_max: None, compact_after: Duration::from_hours(1) }
    }
}

impl Sweep {
    pub(super) fn new(retention: Retention) -> Self {
        Self { retention, phase: Phase::Remains, folded_to: -1 }
    }

    /// Does one step, within a transaction that the caller commits. Returns how long there is nothing
    /// to do afterwards; zero if there is more.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; everything has to be taken back, and the round begins anew.
    pub(super) fn step(
        &mut self,
        connection: &Connection,
        now: UnixMillis,
    ) -> Result<Duration, StoreError> {
        let now = millis(now);
        let mut budget = Budget { tasks: TASKS_A_STEP, rows: ROWS_A_STEP, looks: LOOKS_A_STEP };
        while budget.is_left() {
            let (phase, is_over) = match self.phase {
                Phase::Rest { until } if now < until => {
                    let rest = u64::try_from(until - now).unwrap_or_default();
                    // A clock that was set back does not make it wait for hours.
                    return Ok(Duration::from_millis(rest).min(PAUSE));
                }
                Phase::Rest { .. } => (Phase::Remains, false),
                phase => self.phase_step(connection, phase, now, &mut budget)?,
            };
            self.phase = if is_over { self.after(phase, now) } else { phase };
        }
        Ok(Duration::ZERO)
    }

    /// Goes on in a phase as far as `budget` allows. Returns where it is then, and whether the phase
    /// is over.
    fn phase_step(
        &self,
        connection: &Connection,
        phase: Phase,
        now: i64,
        budget: &mut Budget,
    ) -> Result<(Phase, bool), StoreError> {
        Ok(match phase {
            Phase::Remains => (phase, take_apart(connection, budget)?),
            Phase::Sends => (phase, forget_sends(connection, now, budget)?),
            Phase::Aged { scope_no, state } => {
                let before = self.retention.ended_after.map(|age| before(now, age));
                let Some(before) = before else { return Ok((phase, true)) };
                match next_pair(connection, scope_no, state, budget)? {
                    Some(pair) => {
                        let is_over = delete_aged(connection, pair, before, budget)?;
                        let (scope_no, state) = if is_over { pair } else { (scope_no, state) };
                        (Phase::Aged { scope_no, state }, false)
                    }
                    None => (phase, true),
                }
            }
            Phase::Surplus { task_no } => {
                let Some(tasks_max) = self.retention.tasks_max else { return Ok((phase, true)) };
                let read_by = before(now, READ_WITHIN);
                let (task_no, is_over) =
                    delete_surplus(connection, task_no, (tasks_max, read_by), budget)?;
                (Phase::Surplus { task_no }, is_over)
            }
            Phase::Pieces { scope_no, state, from, to } => {
                let Some(pair) = next_pair(connection, scope_no, state, budget)? else {
                    return Ok((phase, true));
                };
                match fold_ended(connection, pair, from, to, budget)? {
                    Some(from) => (Phase::Pieces { scope_no, state, from, to }, false),
                    None => {
                        let from = Ended { at: self.folded_to, task_no: i64::MAX };
                        (Phase::Pieces { scope_no: pair.0, state: pair.1, from, to }, false)
                    }
                }
            }
            Phase::Rest { .. } => (phase, true),
        })
    }

    /// What comes after a phase.
    fn after(&mut self, phase: Phase, now: i64) -> Phase {
        match phase {
            Phase::Remains => Phase::Sends,
            // No scope but nobody's has a number below one.
            Phase::Sends => Phase::Aged { scope_no: NOBODY, state: i64::MAX },
            Phase::Aged { .. } => Phase::Surplus { task_no: 0 },
            Phase::Surplus { .. } => {
                let from = Ended { at: self.folded_to, task_no: i64::MAX };
                let to = before(now, self.retention.compact_after);
                Phase::Pieces { scope_no: NOBODY, state: i64::MAX, from, to }
            }
            Phase::Pieces { to, .. } => {
                self.folded_to = self.folded_to.max(to);
                Phase::Rest { until: now.saturating_add(in_millis(PAUSE)) }
            }
            Phase::Rest { .. } => Phase::Remains,
        }
    }
}

impl Budget {
    fn is_left(&self) -> bool {
        self.tasks > 0 && self.rows > 0 && self.looks > 0
    }

    fn look(&mut self, places: usize) {
        self.looks = self.looks.saturating_sub(places);
    }
}

/// The next scope and state behind these that has ended tasks.
fn next_pair(
    connection: &Connection,
    scope_no: i64,
    state: i64,
    budget: &mut Budget,
) -> Result<Option<(i64, i64)>, StoreError> {
    let mut after = (scope_no, state);
    while budget.looks > 0 {
        budget.look(1);
        // The scope's other states, then the next scope; each is one look into an index.
        let next_state: Option<i64> = connection
            .prepare_cached("SELECT min(state) FROM tasks WHERE scope_no = ? AND state > ?")?
            .query_row([after.0, after.1], |row| row.get(0))?;
        match next_state {
            Some(state) if is_open(state) => after.1 = state,
            Some(state) => return Ok(Some((after.0, state))),
            None => {
                let next_scope: Option<i64> = connection
                    .prepare_cached("SELECT min(scope_no) FROM scopes WHERE scope_no > ?")?
                    .query_row([after.0], |row| row.get(0))?;
                let Some(scope_no) = next_scope else { return Ok(None) };
                after = (scope_no, i64::MIN);
            }
        }
    }
    // A place in between has no ended tasks, so that the caller goes on behind it.
    Ok(Some(after))
}

fn is_open(state: i64) -> bool {
    open_states().any(|open| state_number(open) == state)
}

/// Deletes tasks of a scope and state that ended before an instant. Returns whether none is left.
fn delete_aged(
    connection: &Connection,
    (scope_no, state): (i64, i64),
    before: i64,
    budget: &mut Budget,
) -> Result<bool, StoreError> {
    if is_open(state) {
        return Ok(true);
    }
    let newest = newest(connection)?;
    let found: Vec<i64> = connection
        .prepare_cached(
            "SELECT task_no FROM tasks WHERE scope_no = ? AND state = ? AND status_at < ?
             ORDER BY status_at, task_no LIMIT ?",
        )?
        .query_map(params![scope_no, state, before, TASKS_A_STEP as i64], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for task_no in &found {
        if !budget.is_left() {
            return Ok(false);
        }
        if *task_no != newest {
            delete(connection, *task_no, budget)?;
        }
    }
    Ok(found.len() < TASKS_A_STEP)
}

/// How long a task is kept after its end however many there are: those that were made first are the
/// first to go, and one of them may have ended only now.
const READ_WITHIN: Duration = Duration::from_secs(10 * 60);

/// Deletes tasks behind `after` that ended before `read_by`, while more than `tasks_max` have ended.
/// Returns how far it came, and whether it is done.
fn delete_surplus(
    connection: &Connection,
    after: i64,
    (tasks_max, read_by): (u64, i64),
    budget: &mut Budget,
) -> Result<(i64, bool), StoreError> {
    budget.look(1);
    let tasks: i64 = connection
        .prepare_cached(
            "SELECT coalesce(sum(tasks), 0) FROM counts
             WHERE scope_no <> 0 AND state IN (3, 4, 5, 7)",
        )?
        .query_row([], |row| row.get(0))?;
    let mut surplus = unsigned(tasks).saturating_sub(tasks_max);
    if surplus == 0 {
        return Ok((after, true));
    }
    let newest = newest(connection)?;
    let looks = budget.looks as i64;
    let mut statement = connection.prepare_cached(
        "SELECT task_no, state, status_at FROM tasks
         WHERE task_no > ? AND task_no < ? AND scope_no <> 0 ORDER BY task_no LIMIT ?",
    )?;
    let found: Vec<(i64, i64, i64)> = statement
        .query_map([after, newest, looks], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_, _>>()?;
    let mut at = after;
    for (task_no, state, status_at) in &found {
        if surplus == 0 || !budget.is_left() {
            return Ok((at, surplus == 0));
        }
        budget.look(1);
        at = *task_no;
        if !is_open(*state) && *status_at < read_by {
            delete(connection, at, budget)?;
            surplus -= 1;
        }
    }
    Ok((at, (found.len() as i64) < looks))
}

/// Folds the pieces of tasks of a scope and state that ended behind `from`, up to `to`. Returns where
/// to go on; `None` if there are no more.
fn fold_ended(
    connection: &Connection,
    (scope_no, state): (i64, i64),
    from: Ended,
    to: i64,
    budget: &mut Budget,
) -> Result<Option<Ended>, StoreError> {
    if is_open(state) {
        return Ok(None);
    }
    let looks = budget.looks as i64;
    let mut statement = connection.prepare_cached(
        "SELECT status_at, task_no FROM tasks
         WHERE scope_no = ?1 AND state = ?2 AND status_at >= ?3 AND status_at <= ?4
             AND (status_at > ?3 OR task_no > ?5)
         ORDER BY status_at, task_no LIMIT ?6",
    )?;
    let found: Vec<Ended> = statement
        .query_map([scope_no, state, from.at, to, from.task_no, looks], |row| {
            Ok(Ended { at: row.get(0)?, task_no: row.get(1)? })
        })?
        .collect::<Result<_, _>>()?;
    let mut at = from;
    for ended in &found {
        if !budget.is_left() {
            return Ok(Some(at));
        }
        budget.look(1);
        let Some(row) = task_by_no(connection, ended.task_no)? else { continue };
        let is_folded = fold(connection, &row, &mut budget.rows)?;
        if !is_folded {
            return Ok(Some(at));
        }
        at = *ended;
    }
    Ok(((found.len() as i64) == looks).then_some(at))
}

/// Deletes a task that has ended, or moves it to nobody if that is too much for what is left of the
/// step.
fn delete(connection: &Connection, task_no: i64, budget: &mut Budget) -> Result<(), StoreError> {
    let Some(row) = task_by_no(connection, task_no)? else { return Ok(()) };
    budget.tasks = budget.tasks.saturating_sub(1);
    count(connection, &row, -1)?;
    let rows = unsigned(row.moving.last_seq.saturating_add(row.moving.last_record));
    if usize::try_from(rows).is_ok_and(|rows| rows <= budget.rows) {
        for table in ["pieces", "events", "records", "tasks"] {
            let sql = format!("DELETE FROM {table} WHERE task_no = ?");
            let deleted = connection.prepare_cached(&sql)?.execute([task_no])?;
            budget.rows = budget.rows.saturating_sub(deleted);
        }
        return Ok(());
    }
    move_to_nobody(connection, row)
}

/// Counts one task more or less.
fn count(connection: &Connection, row: &TaskRow, by: i64) -> Result<(), StoreError> {
    let place = params![row.scope_no, row.capability, row.moving.state, by];
    connection
        .prepare_cached(
            "INSERT INTO counts (scope_no, capability, state, tasks) VALUES (?, ?, ?, ?)
             ON CONFLICT DO UPDATE SET tasks = tasks + excluded.tasks",
        )?
        .execute(place)?;
    connection
        .prepare_cached(
            "DELETE FROM counts WHERE scope_no = ? AND capability = ? AND state = ? AND tasks = 0",
        )?
        .execute(params![row.scope_no, row.capability, row.moving.state])?;
    Ok(())
}

fn move_to_nobody(connection: &Connection, mut row: TaskRow) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO scopes (scope_no, agent, tenant, app, owner, sum)
             VALUES (?, '', '', '', '', ?)",
        )?
        .execute([NOBODY, scope_sum(NOBODY, [""; 4])])?;
    // Tasks of two owners may have one name. Of what is being taken apart nothing is missing.
    (row.scope_no, row.task_id) = (NOBODY, row.task_no.to_string());
    row.moving.folded_seq = row.moving.last_seq;
    let sum = row.moving.sum(row.fixed().sum());
    connection
        .prepare_cached(
            "UPDATE tasks SET scope_no = ?, task_id = ?, folded_seq = last_seq, sum = ?
             WHERE task_no = ?",
        )?
        .execute(params![row.scope_no, row.task_id, sum, row.task_no])?;
    count(connection, &row, 1)
}

/// Deletes rows of nobody's tasks. Returns whether none is left.
fn take_apart(connection: &Connection, budget: &mut Budget) -> Result<bool, StoreError> {
    while budget.is_left() {
        budget.look(1);
        let task_no: Option<i64> = connection
            .prepare_cached("SELECT min(task_no) FROM tasks WHERE scope_no = ?")?
            .query_row([NOBODY], |row| row.get(0))?;
        let Some(task_no) = task_no else { return Ok(true) };
        for (table, number) in [("pieces", "seq"), ("events", "seq"), ("records", "record_no")] {
            let sql = format!(
                "DELETE FROM {table} WHERE task_no = ?1 AND {number} IN
                     (SELECT {number} FROM {table} WHERE task_no = ?1 LIMIT ?2)"
            );
            let limit = budget.rows as i64;
            let deleted = connection.prepare_cached(&sql)?.execute([task_no, limit])?;
            budget.rows = budget.rows.saturating_sub(deleted);
            if budget.rows == 0 {
                return Ok(false);
            }
        }
        if let Some(row) = task_by_no(connection, task_no)? {
            count(connection, &row, -1)?;
        }
        connection.prepare_cached("DELETE FROM tasks WHERE task_no = ?")?.execute([task_no])?;
        budget.tasks = budget.tasks.saturating_sub(1);
    }
    Ok(false)
}

/// Forgets names of messages whose time is over. Returns whether none is left.
fn forget_sends(
    connection: &Connection,
    now: i64,
    budget: &mut Budget,
) -> Result<bool, StoreError> {
    let limit = budget.rows.min(LOOKS_A_STEP);
    let deleted = connection
        .prepare_cached(
            "DELETE FROM sends WHERE (scope_no, message_id) IN
                 (SELECT scope_no, message_id FROM sends WHERE until_at <= ? LIMIT ?)",
        )?
        .execute(params![now, limit as i64])?;
    budget.rows = budget.rows.saturating_sub(deleted);
    Ok(deleted < limit)
}

/// The newest task, which always stays: the next one's number is found from it.
fn newest(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection
        .prepare_cached("SELECT coalesce(max(task_no), 0) FROM tasks")?
        .query_row([], |row| row.get(0))?)
}

/// The instant that lies `age` before `now`.
fn before(now: i64, age: Duration) -> i64 {
    now.saturating_sub(in_millis(age))
}

fn in_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
