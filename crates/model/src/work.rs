//! What is kept of a task's work beside its public events: on which terms it was taken, how often it
//! was begun, where it can go on.

use crate::{Json, UnixMillis};

/// How urgent a task is. Later ones are begun first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// When nothing else waits.
    Low,
    /// What is said when nothing is.
    #[default]
    Normal,
    /// Before the ordinary.
    High,
    /// Before everything.
    Urgent,
}

/// On which terms a task was taken. They never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Terms {
    /// How urgent it is.
    pub priority: Priority,
    /// When its result is of no more use, if anybody said.
    pub deadline: Option<UnixMillis>,
}

/// Something about a task's work that is committed and that nobody follows. Records have numbers of
/// their own, so that the numbers of the events have no gaps.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskRecord {
    /// A handler has begun.
    Started {
        /// Which attempt this is; the first is 1.
        attempt: u32,
        /// When.
        at: UnixMillis,
    },
    /// From here a handler can go on, if the one that said so cannot.
    Checkpoint(Checkpoint),
    /// The attempt failed, and another one is made.
    Retry {
        /// When at the earliest.
        at: UnixMillis,
    },
}

/// From where a handler can go on.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// What the handler said of it, for the one that goes on.
    pub value: Json,
    /// How many messages the task's history had then. The value stands for what became of the
    /// answers among them, so a handler that goes on from here is not given those again.
    pub heard: u32,
}

/// What the records of a task come to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Work {
    /// How many attempts have begun.
    pub attempt: u32,
    /// When the next attempt is due, if the last one has failed.
    pub retry_at: Option<UnixMillis>,
    /// The last checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// The number of the newest record; zero if there is none.
    pub last_record: u64,
}

impl Priority {
    /// All of them, the least urgent first.
    pub const ALL: [Self; 4] = [Self::Low, Self::Normal, Self::High, Self::Urgent];

    /// The word of messages, logs and stored tasks.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Urgent => "urgent",
        }
    }

    /// The priority of that word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| priority.as_str() == word)
    }
}

impl Work {
    /// Adds what the next record says.
    pub fn apply(&mut self, record: TaskRecord) {
        self.last_record += 1;
        match record {
            TaskRecord::Started { attempt, at: _ } => {
                self.attempt = attempt;
                self.retry_at = None;
            }
            TaskRecord::Checkpoint(checkpoint) => self.checkpoint = Some(checkpoint),
            TaskRecord::Retry { at } => self.retry_at = Some(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_add_up() {
        let mut work = Work::default();
        let first = || Checkpoint { value: Json::empty_object(), heard: 1 };
        let second = || Checkpoint { value: Json::parse("[1]").unwrap(), heard: 3 };
        for record in [
            TaskRecord::Started { attempt: 1, at: UnixMillis(1) },
            TaskRecord::Checkpoint(first()),
            TaskRecord::Checkpoint(second()),
            TaskRecord::Retry { at: UnixMillis(9) },
        ] {
            work.apply(record);
        }
        let expected = Work {
            attempt: 1,
            retry_at: Some(UnixMillis(9)),
            checkpoint: Some(second()),
            last_record: 4,
        };
        assert_eq!(work, expected);
        work.apply(TaskRecord::Started { attempt: 2, at: UnixMillis(9) });
        assert_eq!((work.attempt, work.retry_at), (2, None));
    }

    #[test]
    fn words_name_priorities_and_the_urgent_come_last() {
        for priority in Priority::ALL {
            assert_eq!(Priority::of_word(priority.as_str()), Some(priority));
        }
        assert_eq!(Priority::of_word("High"), None);
        assert!(Priority::ALL.is_sorted());
        assert_eq!(Priority::default(), Priority::Normal);
    }
}
