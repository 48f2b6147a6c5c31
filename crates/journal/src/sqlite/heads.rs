//! What the writer remembers of tasks, so that a step needs no look at what is stored.

use std::collections::HashMap;

use convoke_model::{ArtifactId, CapabilityName, TaskId, TaskState};

use super::rows::{Sum, TaskMoving};

/// How many tasks are remembered at least before one that was not used for long is forgotten: some
/// more than a node works on at a time, at about 300 bytes each.
const HEADS: usize = 16_384;

/// Of how many artifacts of a task it is remembered that they are there. Of others the store is
/// asked.
const ARTIFACTS: usize = 32;

/// A task that has not ended, as far as its next step needs it.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) task_no: i64,
    pub(super) capability: CapabilityName,
    pub(super) state: TaskState,
    pub(super) moving: TaskMoving,
    /// The sum of the columns that never change.
    pub(super) fixed_sum: Sum,
    /// The number of the record that has the last checkpoint.
    pub(super) checkpoint_no: Option<i64>,
    artifacts: Vec<ArtifactId>,
}

/// By scope and name.
type Key = (i64, TaskId);

/// The heads of the tasks that had a step lately.
///
/// Two generations: a head that is used moves to the young one; when that is full, it becomes the
/// old one, and what was not used since is forgotten.
#[derive(Debug, Default)]
pub(super) struct Heads {
    young: HashMap<Key, Head>,
    old: HashMap<Key, Head>,
}

impl Head {
    pub(super) fn new(
        task_no: i64,
        capability: CapabilityName,
        state: TaskState,
        (moving, fixed_sum): (TaskMoving, Sum),
        checkpoint_no: Option<i64>,
    ) -> Self {
        let artifacts = Vec::new();
        Self { task_no, capability, state, moving, fixed_sum, checkpoint_no, artifacts }
    }

    /// Whether the artifact is known to be there; `false` says nothing.
    pub(super) fn knows(&self, id: &ArtifactId) -> bool {
        self.artifacts.contains(id)
    }

    /// Remembers that the artifact is there.
    pub(super) fn learn(&mut self, id: &ArtifactId) {
        if self.artifacts.len() < ARTIFACTS && !self.knows(id) {
            self.artifacts.push(id.clone());
        }
    }
}

impl Heads {
    /// Takes a head out, to be put back when its step is staged.
    pub(super) fn take(&mut self, scope_no: i64, id: &TaskId) -> Option<Head> {
        let key = (scope_no, id.clone());
        self.young.remove(&key).or_else(|| self.old.remove(&key))
    }

    pub(super) fn put(&mut self, scope_no: i64, id: TaskId, head: Head) {
        if self.young.len() >= HEADS {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert((scope_no, id), head);
    }

    pub(super) fn contains(&self, scope_no: i64, id: &TaskId) -> bool {
        let key = (scope_no, id.clone());
        self.young.contains_key(&key) || self.old.contains_key(&key)
    }

    /// Forgets all: what was staged was not committed, or somebody else has changed tasks.
    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::rows::TaskFixed;

    fn head(task_no: i64) -> Head {
        let fixed = TaskFixed {
            task_no,
            scope_no: 1,
            task_id: "t",
            context_id: "c",
            capability: "p",
            subject: None,
            priority: 1,
            deadline_at: None,
            created_at: 1,
        };
        let moving =
            TaskMoving { state: 1, status_at: 1, last_seq: 1, last_record: 0, folded_seq: 0 };
        let capability = CapabilityName::parse("p").unwrap();
        Head::new(task_no, capability, TaskState::Submitted, (moving, fixed.sum()), None)
    }

    #[test]
    fn what_is_used_stays_and_the_number_is_bounded() {
        let mut heads = Heads::default();
        let used = TaskId::parse("used").unwrap();
        heads.put(1, used.clone(), head(0));
        for task_no in 1..=4 * HEADS as i64 {
            heads.put(1, TaskId::parse(&task_no.to_string()).unwrap(), head(task_no));
            let found = heads.take(1, &used).unwrap();
            assert_eq!(found.task_no, 0);
            heads.put(1, used.clone(), found);
            assert!(heads.young.len() + heads.old.len() <= 2 * HEADS);
        }
        assert!(!heads.contains(1, &TaskId::parse("1").unwrap()));
        assert!(!heads.contains(2, &used), "another scope's task of that name");
        heads.clear();
        assert!(heads.take(1, &used).is_none());
    }

    #[test]
    fn few_artifacts_are_remembered() {
        let mut head = head(1);
        let id = |n: usize| ArtifactId::parse(&format!("a{n}")).unwrap();
        for n in 0..2 * ARTIFACTS {
            head.learn(&id(n));
            head.learn(&id(n));
        }
        assert_eq!(head.artifacts.len(), ARTIFACTS);
        assert!(head.knows(&id(ARTIFACTS - 1)) && !head.knows(&id(ARTIFACTS)));
    }
}
