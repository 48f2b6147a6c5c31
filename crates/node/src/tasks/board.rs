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
    part: Option<Share>,
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
        Some(Seat { board: Arc::clone(self), task: Arc::clone(task), part: Some(part) })
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
        // Whoever learns its name finds it here, and waits for its submission to be committed.
        let place = Place { task: Arc::clone(task), turn: None };
        inside.tasks.insert(task.id().clone(), place);
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
        Some(Seat { board: Arc::clone(self), task, part: Some(part) })
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

    /// All tasks that stand in line.
    pub(super) fn in_line(&self) -> Vec<Arc<Running>> {
        let inside = self.inside();
        let waiting = inside.tasks.values().filter(|place| place.turn.is_some());
        waiting.map(|place| Arc::clone(&place.task)).collect()
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
            let mut inside = self.board.inside();
            inside.in_line -= 1;
            inside.tasks.remove(self.task.id());
            drop(inside);
            self.task.abandon();
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
        // Its part of the seats first: whoever is told looks whether there is one.
        drop(self.part.take());
        self.board.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use convoke_model::{Caller, SpiffeId, Terms, TraceContext};

    use super::super::running::{Origin, Outset};
    use super::*;
    use crate::ids;

    const NOW: UnixMillis = UnixMillis(10_000_000);

    fn task_of(owner: &str, terms: Terms) -> Arc<Running> {
        let agent = SpiffeId::parse("spiffe://example.org/agent/worker").unwrap();
        let (tenant, app) = ("example.org".into(), "".into());
        let origin = Origin {
            caller: Caller::Anonymous,
            request_id: ids::request(),
            trace: TraceContext::root(1, 1, false),
        };
        let scope = Scope { agent, tenant, app, owner: owner.into() };
        let outset = Outset { id: ids::task(), scope, capability: None, terms, origin };
        Running::new(outset, &Quota::new(1))
    }

    fn task(owner: &str) -> Arc<Running> {
        task_of(owner, Terms::default())
    }

    fn board(concurrency_max: usize, queue_max: usize) -> Arc<Board> {
        Board::new(TasksConfig { concurrency_max, queue_max })
    }

    fn line_up(board: &Arc<Board>, task: &Arc<Running>, at: UnixMillis) {
        board.reserve(task).unwrap_or_else(|none| panic!("{none}")).line_up(at);
    }

    /// The owners of those whose turn it is, one after the other, each leaving before the next.
    fn turns(board: &Arc<Board>) -> Vec<String> {
        std::iter::from_fn(|| board.next())
            .map(|seat| seat.task().scope().owner.to_string())
            .collect()
    }

    #[test]
    fn who_has_its_part_waits_and_everybody_else_does_not() {
        let board = board(8, 8);
        let mut seats = vec![board.seat(&task("ann")).unwrap(), board.seat(&task("ann")).unwrap()];
        let next = task("ann");
        assert!(board.seat(&next).is_none());
        line_up(&board, &next, NOW);
        // Her line is no reason for others to wait.
        for owner in ["ben", "ben", "cid", "cid", "dan", "dan"] {
            seats.push(board.seat(&task(owner)).unwrap());
        }
        assert!(board.seat(&task("eve")).is_none());
        assert_eq!(board.counts(), (8, 1));
        drop(seats.pop());
        assert!(board.next().is_none(), "the seat is not hers");
        drop(seats.remove(0));
        let seat = board.next().unwrap();
        assert_eq!(seat.task().id(), next.id());
        drop((seat, seats));
        assert_eq!(board.counts(), (0, 0));
        assert!(board.all().is_empty());
    }

    #[test]
    fn callers_take_turns_by_when_they_came() {
        let board = board(1, 100);
        let seat = board.seat(&task("ann")).unwrap();
        for (owner, at) in [("ann", 1), ("ann", 2), ("ann", 4), ("ben", 3), ("cid", 5)] {
            line_up(&board, &task(owner), UnixMillis(at));
        }
        assert!(board.next().is_none());
        drop(seat);
        assert_eq!(turns(&board), ["ann", "ann", "ben", "ann", "cid"]);
    }

    #[test]
    fn the_urgent_overtake_and_nobody_waits_for_ever() {
        let board = board(1, 100);
        let seat = board.seat(&task("first")).unwrap();
        let minute = |minutes: u64| UnixMillis(NOW.0 + 60_000 * minutes);
        let line_up = |owner: &str, priority, at| {
            line_up(&board, &task_of(owner, Terms { priority, deadline: None }), at);
        };
        line_up("low", Priority::Low, NOW);
        line_up("normal", Priority::Normal, NOW);
        line_up("high", Priority::High, NOW);
        line_up("urgent", Priority::Urgent, minute(2));
        line_up("later", Priority::High, minute(3));
        line_up("much later", Priority::Urgent, minute(62));
        drop(seat);
        assert_eq!(turns(&board), ["urgent", "high", "normal", "low", "later", "much later"]);
    }

    #[test]
    fn a_place_in_line_is_given_back_if_nothing_was_committed() {
        let board = board(1, 4);
        let seat = board.seat(&task("ann")).unwrap();
        let reserved = board.reserve(&task("ann")).unwrap_or_else(|none| panic!("{none}"));
        assert_eq!(board.reserve(&task("ann")).err(), Some(NoPlace::Caller(1)));
        drop(reserved);
        for owner in ["ann", "ben", "cid", "dan"] {
            line_up(&board, &task(owner), NOW);
        }
        assert_eq!(board.reserve(&task("eve")).err(), Some(NoPlace::All(4)));
        // Who has its part is told that, also now.
        assert_eq!(board.reserve(&task("ann")).err(), Some(NoPlace::Caller(1)));
        // What an earlier process took is not turned away.
        board.line_up_found(task("eve"), NOW);
        assert_eq!(board.counts(), (1, 5));
        drop(seat);
        assert_eq!(turns(&board).len(), 5);
        let none = super::Board::new(TasksConfig { concurrency_max: 1, queue_max: 0 });
        assert_eq!(none.reserve(&task("ann")).err(), Some(NoPlace::All(0)));
    }

    #[test]
    fn who_has_ended_in_line_is_not_begun_and_deadlines_are_told_once() {
        let board = board(1, 100);
        let seat = board.seat(&task("ann")).unwrap();
        let by = |at| Terms { deadline: Some(UnixMillis(at)), ..Terms::default() };
        let (soon, late, gone) = (task_of("ann", by(5)), task_of("ben", by(9)), task("cid"));
        for task in [&soon, &late, &gone] {
            line_up(&board, task, UnixMillis(1));
        }
        assert_eq!(board.next_deadline(), Some(UnixMillis(5)));
        assert!(board.overdue(UnixMillis(4)).is_empty());
        let overdue = board.overdue(UnixMillis(5));
        assert_eq!(overdue.iter().map(|task| task.id()).collect::<Vec<_>>(), [soon.id()]);
        assert_eq!(board.next_deadline(), Some(UnixMillis(9)));
        board.leave(&soon);
        board.leave(&gone);
        board.leave(&gone);
        assert!(board.find(gone.scope(), gone.id()).is_none());
        assert!(board.find(gone.scope(), late.id()).is_none(), "a foreign task is none");
        drop(seat);
        assert_eq!(turns(&board), ["ben"]);
        assert_eq!(board.next_deadline(), None);
    }

    #[test]
    fn a_seat_is_free_again_whatever_becomes_of_the_work() {
        let board = board(1, 1);
        let (first, next) = (task("ann"), task("ann"));
        let seat = board.seat(&first).unwrap();
        assert!(board.find(first.scope(), first.id()).is_some());
        // As a future that is dropped, unpolled or half done, or that panics, drops it.
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _seat = seat;
            std::panic::resume_unwind(Box::new("on purpose"));
        }));
        assert!(panicked.is_err());
        assert!(board.find(first.scope(), first.id()).is_none());
        assert!(board.seat(&next).is_some());
    }

    #[test]
    fn a_caller_learns_whether_it_or_everybody_is_too_much() {
        assert_eq!(NoPlace::Caller(2500).fault().code, FaultCode::ResourceExhausted);
        assert_eq!(NoPlace::All(10_000).fault().code, FaultCode::Unavailable);
    }
}
