//! Which tasks are at work, and whether there is room for one more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use convoke_journal::Scope;
use convoke_model::{Fault, FaultCode, TaskId};

use super::Running;
use crate::admission::CALLERS_PART;
use crate::quota::{Quota, Share};

/// The tasks of one agent that are at work, up to a number, of which a caller has a part.
pub(super) struct Seats {
    max: usize,
    taken: Mutex<HashMap<TaskId, Arc<Running>>>,
    parts: Arc<Quota>,
}

/// A task's place among those at work, given back whatever ends its work.
pub(super) struct Seat {
    seats: Arc<Seats>,
    task: Arc<Running>,
    _part: Share,
}

/// Why there is no seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoSeat {
    /// The caller has its part of them.
    #[error(
        "{0} of your tasks are at work here, as many as one caller may have; try again when some \
         have ended"
    )]
    Caller(usize),
    /// All are taken.
    #[error("the agent is at work on {0} tasks; try again later")]
    All(usize),
}

impl Seats {
    /// `max` for everybody together.
    pub(super) fn new(max: usize) -> Arc<Self> {
        let parts = Quota::new(max.div_ceil(CALLERS_PART).max(1));
        Arc::new(Self { max, taken: Mutex::default(), parts })
    }

    /// A seat for `task`.
    ///
    /// # Errors
    ///
    /// [`NoSeat`] says who has them all.
    pub(super) fn take(self: &Arc<Self>, task: &Arc<Running>) -> Result<Seat, NoSeat> {
        // The caller's part first: who has all of it is told so, however many others are here.
        let caller = &task.scope.owner;
        let part = self.parts.take(caller).ok_or(NoSeat::Caller(self.parts.max()))?;
        let mut taken = self.taken();
        if taken.len() >= self.max {
            return Err(NoSeat::All(self.max));
        }
        taken.insert(task.id().clone(), Arc::clone(task));
        Ok(Seat { seats: Arc::clone(self), task: Arc::clone(task), _part: part })
    }

    /// The task `id` if it is at work and belongs to `scope`.
    pub(super) fn find(&self, scope: &Scope, id: &TaskId) -> Option<Arc<Running>> {
        self.taken().get(id).filter(|task| task.scope == *scope).cloned()
    }

    /// All tasks that are at work.
    pub(super) fn all(&self) -> Vec<Arc<Running>> {
        self.taken().values().cloned().collect()
    }

    /// How many tasks are at work.
    pub(super) fn count(&self) -> usize {
        self.taken().len()
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<TaskId, Arc<Running>>> {
        // Nothing panics while the map is held, and a map is whole after any of its methods.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NoSeat {
    /// What the caller is told.
    pub(super) fn fault(self) -> Fault {
        let code = match self {
            Self::Caller(_) => FaultCode::ResourceExhausted,
            Self::All(_) => FaultCode::Unavailable,
        };
        Fault::new(code, self.to_string())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken().remove(self.task.id());
        self.task.abandon();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use convoke_engine::State;
    use convoke_model::{CapabilityName, SpiffeId};

    use super::*;
    use crate::ids;

    fn task_of(owner: &str) -> Arc<Running> {
        let agent = SpiffeId::parse("spiffe://example.org/agent/worker").unwrap();
        let id = ids::task();
        let state = State::new(id.clone(), ids::context(), CapabilityName::parse("work").unwrap());
        let scope = Scope { agent, tenant: "example.org".into(), owner: owner.into() };
        Running::new(id, scope, state, &Quota::new(1))
    }

    fn take(seats: &Arc<Seats>, owner: &str) -> Result<Seat, NoSeat> {
        seats.take(&task_of(owner))
    }

    #[test]
    fn who_has_its_part_gets_no_more_and_everybody_else_does() {
        let seats = Seats::new(8);
        let mut held = vec![take(&seats, "ann").unwrap(), take(&seats, "ann").unwrap()];
        assert_eq!(take(&seats, "ann").err(), Some(NoSeat::Caller(2)));
        for owner in ["ben", "ben", "cid", "cid", "dan", "dan"] {
            held.push(take(&seats, owner).unwrap());
        }
        // Somebody new meets a full agent; who has its part is told that, also now.
        assert_eq!(take(&seats, "eve").err(), Some(NoSeat::All(8)));
        assert_eq!(take(&seats, "ann").err(), Some(NoSeat::Caller(2)));

        // Who was turned away has taken nothing, neither a seat nor any of its part.
        drop(held.drain(..2));
        held.push(take(&seats, "eve").unwrap());
        held.push(take(&seats, "eve").unwrap());
        assert_eq!(take(&seats, "eve").err(), Some(NoSeat::Caller(2)));
        drop(held);
        assert_eq!(seats.count(), 0);
        take(&seats, "ann").unwrap();
    }

    #[test]
    fn a_seat_is_free_again_whatever_becomes_of_the_work() {
        let seats = Seats::new(1);
        let (task, next) = (task_of("ann"), task_of("ann"));
        let seat = seats.take(&task).unwrap();
        assert!(seats.find(&task.scope, task.id()).is_some());
        assert!(seats.find(&task_of("ben").scope, task.id()).is_none());
        assert!(seats.take(&next).is_err());
        // As a future that is dropped, unpolled or half done, or that panics, drops it.
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _seat = seat;
            std::panic::resume_unwind(Box::new("on purpose"));
        }));
        assert!(panicked.is_err());
        assert!(seats.find(&task.scope, task.id()).is_none());
        seats.take(&next).unwrap();
    }

    #[test]
    fn a_caller_learns_whether_it_or_everybody_is_too_much() {
        assert_eq!(NoSeat::Caller(2500).fault().code, FaultCode::ResourceExhausted);
        assert_eq!(NoSeat::All(10_000).fault().code, FaultCode::Unavailable);
    }
}
