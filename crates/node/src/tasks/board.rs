//! Which tasks are at work, which wait for their turn, and whose turn it is.
//!
//! A task that finds a free seat begins at once. The others stand in line, one line for each caller,
//! so that who sends many makes nobody wait but itself: the next to begin is the first, over all
//! lines, of the callers who have not had their part of the seats. Urgent tasks are counted as if
//! they had come earlier, and not as if they came before everything, so that nobody waits for ever.

use std::collections::{BTreeMap, HashMap, hash_map::Entry};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use convoke_journal::Scope;
use convoke_model::{Fault, FaultCode, Priority, TaskId, UnixMillis};
use tokio::sync::Notify;

use super::Running;
use crate::admission::CALLERS_PART;
use crate::config::TasksConfig;
use crate::quota::{Quota, Share};

/// The tasks of one agent that have not ended, up to a number, of which a caller has a part.
pub(super) struct Board {
    limits: TasksConfig,
    inside: Mutex<Inside>,
    /// Whose seats are taken.
    parts: Arc<Quota>,
    /// Whose tasks stand in line.
    waiting: Arc<Quota>,
    /// Told when there may be somebody whose turn it is.
    changed: Notify,
}

#[derive(Default)]
struct Inside {
    /// Every task, at work or in line.
    tasks: HashMap<TaskId, Place>,
    /// How many seats are taken.
    seated: usize,
    /// How many stand in line, those included whose submission is not committed yet.
    in_line: usize,
    /// The lines, by caller; none is empty.
    lines: HashMap<Arc<str>, BTreeMap<Turn, InLine>>,
    /// Deadlines of tasks in line.
    deadlines: BTreeMap<(UnixMillis, Turn), Arc<Running>>,
    /// How many turns were given out.
    turns: u64,
}

/// Where a task is.
struct Place {
    task: Arc<Running>,
    /// Its turn, while it stands in line.
    turn: Option<Turn>,
}

/// One place in a line.
struct InLine {
    task: Arc<Running>,
    _share: Option<Share>,
}

/// When it is a task's turn, compared with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    /// When it came, or would have had to come to be as urgent.
    came: u64,
    number: u64,
}

/// A task's place among those at work, given back whatever ends its work.
pub(super) struct Seat {
    board: Arc<Board>,
    task: Arc<Running>,
    _part: Share,
}

/// A place in line that is kept for a task until its submission is committed, and given up if it is
/// not.
pub(super) struct Reserved {
    board: Arc<Board>,
    task: Arc<Running>,
    share: Option<Share>,
}

/// Why there is neither a seat nor a place in line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoPlace {
    /// The caller has its part of the line.
    #[error(
        "{0} of your tasks wait here already, as many as one caller may have; try again when some \
         have ended"
    )]
    Caller(usize),
    /// The line is full.
    #[error("{0} tasks wait here already; try again later")]
    All(usize),
}

impl Board {
    pub(super) fn new(limits: TasksConfig) -> Arc<Self> {
        let part = |max: usize| Quota::new(max.div_ceil(CALLERS_PART).max(1));
        Arc::new(Self {
            limits,
            inside: Mutex::default(),
            parts: part(limits.concurrency_max),
            waiting: part(limits.queue_max),
            changed: Notify::new(),
        })
    }

    /// A seat for `task`, which is new, if it may begin at once.
    pub(super) fn seat(self: &Arc<Self>, task: &Arc<Running>) -> Option<Seat> {
        let mut inside = self.inside();
        if inside.seated >= self.limits.concurrency_max {
            return None;
        }
        // Who stands in line already, and could begin, comes first.
        if !inside.lines.is_empty() && self.first(&inside).is_some() {
            return None;
        }
        let part = self.parts.take(&task.scope().owner)?;
        inside.seated += 1;
        let place = Place { task: Arc::clone(task), turn: None };
        inside.tasks.insert(task.id().clone(), place);
        Some(Seat { board: Arc::clone(self), task: Arc::clone(task), _part: part })
    }

    /// A place in line for `task`, which is new.
    ///
    /// # Errors
    ///
    /// [`NoPlace`] says who has them all.
    pub(super) fn reserve(self: &Arc<Self>, task: &Arc<Running>) -> Result<Reserved, NoPlace> {
        let max = self.limits.queue_max;
        // The caller's part first: who has all of it is told so, however many others are here.
        let share = match self.waiting.take(&task.scope().owner) {
            Some(share) if max > 0 => share,
            _ if max == 0 => return Err(NoPlace::All(0)),
            _ => return Err(NoPlace::Caller(self.waiting.max())),
        };
        let mut inside = self.inside();
        if inside.in_line >= max {
            return Err(NoPlace::All(max));
        }
        inside.in_line += 1;
        let (board, task) = (Arc::clone(self), Arc::clone(task));
        Ok(Reserved { board, task, share: Some(share) })
    }

    /// Puts a task in line that was here before the node was: it has been taken already, so no bound
    /// holds.
    pub(super) fn line_up_found(&self, task: Arc<Running>, now: UnixMillis) {
        let mut inside = self.inside();
        inside.in_line += 1;
        inside.line_up(InLine { task, _share: None }, now);
        drop(inside);
        self.changed.notify_one();
    }

    /// The next task to begin, with its seat, if there is one.
    pub(super) fn next(self: &Arc<Self>) -> Option<Seat> {
        let mut inside = self.inside();
        if inside.seated >= self.limits.concurrency_max {
            return None;
        }
        let (caller, part) = self.first(&inside)?;
        let line = inside.lines.get_mut(&caller)?;
        let (turn, InLine { task, _share }) = line.pop_first()?;
        if line.is_empty() {
            inside.lines.remove(&caller);
        }
        inside.in_line -= 1;
        inside.forget_deadline(&task, turn);
        inside.seated += 1;
        if let Some(place) = inside.tasks.get_mut(task.id()) {
            place.turn = None;
        }
        Some(Seat { board: Arc::clone(self), task, _part: part })
    }

    /// The caller whose line is next, with its part of a seat.
    fn first(&self, inside: &Inside) -> Option<(Arc<str>, Share)> {
        let mut heads: Vec<_> = inside
            .lines
            .iter()
            .filter_map(|(caller, line)| Some((line.first_key_value()?.0, caller)))
            .collect();
        heads.sort_unstable();
        heads
            .into_iter()
            .find_map(|(_, caller)| Some((Arc::clone(caller), self.parts.take(caller)?)))
    }

    /// Takes `task` out of its line, if it stands in one. It has ended.
    pub(super) fn leave(&self, task: &Running) {
        let mut inside = self.inside();
        let Some(Place { turn: Some(turn), .. }) = inside.tasks.get(task.id()) else { return };
        let turn = *turn;
        let Entry::Occupied(mut line) = inside.lines.entry(Arc::clone(&task.scope().owner)) else {
            return;
        };
        let left = line.get_mut().remove(&turn);
        if line.get().is_empty() {
            line.remove();
        }
        inside.in_line -= 1;
        inside.forget_deadline(task, turn);
        inside.tasks.remove(task.id());
        drop(inside);
        drop(left);
        task.abandon();
    }

    /// The tasks in line whose deadline is over at `now`. They stay in line until they
    /// [`leave`](Self::leave) it.
    pub(super) fn overdue(&self, now: UnixMillis) -> Vec<Arc<Running>> {
        let mut inside = self.inside();
        let mut overdue = Vec::new();
        while let Some(first) = inside.deadlines.first_entry()
            && first.key().0 <= now
        {
            overdue.push(first.remove());
        }
        overdue
    }

    /// When the next deadline of a task in line is over.
    pub(super) fn next_deadline(&self) -> Option<UnixMillis> {
        self.inside().deadlines.first_key_value().map(|((at, _), _)| *at)
    }

    /// Waits until it may be somebody's turn.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The task `id` if it belongs to `scope`, at work or in line.
    pub(super) fn find(&self, scope: &Scope, id: &TaskId) -> Option<Arc<Running>> {
        let inside = self.inside();
        let place = inside.tasks.get(id).filter(|place| place.task.scope() == scope)?;
        Some(Arc::clone(&place.task))
    }

    /// All tasks that are at work or in line.
    pub(super) fn all(&self) -> Vec<Arc<Running>> {
        self.inside().tasks.values().map(|place| Arc::clone(&place.task)).collect()
    }

    /// How many tasks are at work, and how many stand in line.
    pub(super) fn counts(&self) -> (usize, usize) {
        let inside = self.inside();
        (inside.seated, inside.in_line)
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        // Nothing panics while it is held, and its parts are whole after any of their methods.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    fn line_up(&mut self, place: InLine, now: UnixMillis) {
        self.turns += 1;
        let terms = place.task.terms();
        let turn = Turn { came: as_if_come(terms.priority, now), number: self.turns };
        let task = &place.task;
        if let Some(at) = terms.deadline {
            self.deadlines.insert((at, turn), Arc::clone(task));
        }
        let here = Place { task: Arc::clone(task), turn: Some(turn) };
        self.tasks.insert(task.id().clone(), here);
        let owner = Arc::clone(&task.scope().owner);
        self.lines.entry(owner).or_default().insert(turn, place);
    }

    fn forget_deadline(&mut self, task: &Running, turn: Turn) {
        if let Some(at) = task.terms().deadline {
            self.deadlines.remove(&(at, turn));
        }
    }
}

/// When a task of this priority would have had to come to be as urgent as an ordinary one, in
/// milliseconds: an urgent one overtakes what came within the last hour, and so on.
fn as_if_come(priority: Priority, now: UnixMillis) -> u64 {
    let minutes = |minutes: u64| 60_000 * minutes;
    match priority {
        Priority::Low => now.0.saturating_add(minutes(1)),
        Priority::Normal => now.0,
        Priority::High => now.0.saturating_sub(minutes(1)),
        Priority::Urgent => now.0.saturating_sub(minutes(60)),
    }
}

impl Seat {
    /// Whose seat it is.
    pub(super) fn task(&self) -> &Arc<Running> {
        &self.task
    }
}

impl Reserved {
    /// The task's submission is committed: from here on it may be its turn.
    pub(super) fn line_up(mut self, now: UnixMillis) {
        if let Some(share) = self.share.take() {
            let place = InLine { task: Arc::clone(&self.task), _share: Some(share) };
            self.board.inside().line_up(place, now);
            self.board.changed.notify_one();
        }
    }
}

impl NoPlace {
    /// What the caller is told.
    pub(super) fn fault(self) -> Fault {
        let code = match self {
            Self::Caller(_) => FaultCode::ResourceExhausted,
            Self::All(_) => FaultCode::Unavailable,
        };
        Fault::new(code, self.to_string())
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.share.is_some() {
            self.board.inside().in_line -= 1;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut inside = self.board.inside();
        inside.seated -= 1;
        inside.tasks.remove(self.task.id());
        drop(inside);
        self.task.abandon();
        self.board.changed.notify_one();
    }
}
