//! Which process may get which identities.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use convoke_model::SpiffeId;

use crate::process::Process;

/// Most processes that are enrolled at a time.
const PROCESSES_MAX: usize = 4096;

/// Most identities of one process; a node hosts several agents.
const IDS_PER_PROCESS_MAX: usize = 64;

/// Self-made enrolments: they belong to a process and end with it.
#[derive(Debug, Default)]
pub(super) struct Enrolments {
    ids: Mutex<HashMap<Process, Vec<SpiffeId>>>,
}

/// Why there is no room for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum EnrolError {
    #[error("more than {IDS_PER_PROCESS_MAX} identities of one process")]
    Ids,
    #[error("more than {PROCESSES_MAX} enrolled processes")]
    Processes,
}

impl Enrolments {
    /// Enrols `process` under `spiffe_id`, whose trust domain has been checked, and says whether
    /// that is new.
    pub(super) fn add(&self, process: Process, spiffe_id: SpiffeId) -> Result<bool, EnrolError> {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if !ids.contains_key(&process) && ids.len() >= PROCESSES_MAX {
            ids.retain(|process, _| process.is_alive());
            if ids.len() >= PROCESSES_MAX {
                return Err(EnrolError::Processes);
            }
        }
        let of_process = ids.entry(process).or_default();
        if of_process.contains(&spiffe_id) {
            return Ok(false);
        }
        if of_process.len() >= IDS_PER_PROCESS_MAX {
            return Err(EnrolError::Ids);
        }
        of_process.push(spiffe_id);
        Ok(true)
    }

    /// Ends all enrolments, and says how many running processes had one.
    pub(super) fn clear(&self) -> u64 {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *ids).keys().map(|process| u64::from(process.is_alive())).sum()
    }

    /// The identities of `process`, in the order in which it enrolled. A process that has ended has
    /// none, even if another now has its number.
    pub(super) fn of(&self, process: &Process) -> Vec<SpiffeId> {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if !process.is_alive() {
            ids.remove(process);
            return Vec::new();
        }
        ids.get(process).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    fn id(number: usize) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://example.org/{number}")).unwrap()
    }

    fn this_process() -> Process {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        Process::of_peer(&ours.peer_cred().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_process_has_what_it_asked_for() {
        let (enrolments, process) = (Enrolments::default(), this_process());
        assert_eq!(enrolments.of(&process), []);
        assert_eq!(enrolments.add(process, id(1)), Ok(true));
        assert_eq!(enrolments.add(process, id(2)), Ok(true));
        assert_eq!(enrolments.add(process, id(1)), Ok(false));
        assert_eq!(enrolments.of(&process), [id(1), id(2)]);
        for number in 3..=IDS_PER_PROCESS_MAX {
            assert_eq!(enrolments.add(process, id(number)), Ok(true));
        }
        assert_eq!(enrolments.add(process, id(0)), Err(EnrolError::Ids));
    }

    #[tokio::test]
    async fn the_dead_have_nothing_and_make_room() {
        let (enrolments, process) = (Enrolments::default(), this_process());
        // No process has this number: it is above the kernel's highest.
        let dead = |started| Process::invented(process.uid, i32::MAX, started);
        for started in 0..PROCESSES_MAX as u64 {
            assert_eq!(enrolments.add(dead(started), id(1)), Ok(true));
        }
        assert_eq!(enrolments.of(&dead(1)), []);
        assert_eq!(enrolments.add(dead(1), id(1)), Ok(true));
        assert_eq!(enrolments.add(process, id(1)), Ok(true));
        assert_eq!(enrolments.ids.lock().unwrap().len(), 1);
        assert_eq!(enrolments.of(&process), [id(1)]);
        assert_eq!(enrolments.add(dead(1), id(1)), Ok(true));
        assert_eq!(enrolments.clear(), 1);
        assert_eq!(enrolments.of(&process), []);
    }
}
