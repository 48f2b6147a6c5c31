//! The workers of each thread. Engines are never shared by threads, since they would contend for
//! their reference counts.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crate::engine::{Program, Worker};

/// Most engines that one thread keeps; the one that was asked longest ago makes room.
///
/// Source: an engine of a small policy takes some tens of KiB and 0.3 ms to load, and a node with
/// more policies than this on one thread is slower, not wrong.
pub(crate) const ENGINES_PER_THREAD_MAX: usize = 64;

/// Names a program. Dropping it tells the threads to look for engines that nobody needs.
pub(crate) struct ProgramId(u64);

static PROGRAMS_MADE: AtomicU64 = AtomicU64::new(0);
static PROGRAMS_DROPPED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static ENGINES: RefCell<Vec<Kept>> = const { RefCell::new(Vec::new()) };
    /// [`PROGRAMS_DROPPED`] when this thread last looked.
    static DROPS_SEEN: Cell<u64> = const { Cell::new(0) };
}

/// A worker that waits on its thread for the next question.
pub(crate) struct Kept {
    id: u64,
    program: Weak<Program>,
    pub(crate) worker: Box<Worker>,
}

impl Kept {
    pub(crate) fn new(program: &Arc<Program>, worker: Worker) -> Self {
        Self { id: program.id.0, program: Arc::downgrade(program), worker: Box::new(worker) }
    }
}

/// Takes the program's worker out of this thread's store. Forgets the engines of dropped programs
/// on the way, if any program has been dropped.
pub(crate) fn take(program: &Program) -> Option<Kept> {
    ENGINES
        .try_with(|engines| {
            let mut engines = engines.borrow_mut();
            let drops = PROGRAMS_DROPPED.load(Ordering::Acquire);
            if DROPS_SEEN.replace(drops) != drops {
                engines.retain(|kept| kept.program.strong_count() > 0);
            }
            let at = engines.iter().rposition(|kept| kept.id == program.id.0)?;
            Some(engines.remove(at))
        })
        // A thread that is ending keeps nothing; it still gets its answer, from a fresh engine.
        .unwrap_or(None)
}

/// Puts a worker back as the one that was asked last.
pub(crate) fn keep(kept: Kept) {
    let dropped = ENGINES.try_with(|engines| {
        let mut engines = engines.borrow_mut();
        let oldest = (engines.len() >= ENGINES_PER_THREAD_MAX).then(|| engines.remove(0));
        engines.push(kept);
        oldest
    });
    drop(dropped);
}

impl ProgramId {
    pub(crate) fn new() -> Self {
        Self(PROGRAMS_MADE.fetch_add(1, Ordering::Relaxed))
    }
}

impl Drop for ProgramId {
    fn drop(&mut self) {
        PROGRAMS_DROPPED.fetch_add(1, Ordering::Release);
    }
}

/// How many workers this thread keeps.
#[cfg(test)]
pub(crate) fn engines_kept() -> usize {
    ENGINES.with_borrow(Vec::len)
}
