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
