//! Names that the node makes: random, because knowing a task's name is half of access to it.
//!
//! Names of tasks and conversations are keys of the journal's indexes. If all of their bits were
//! random, every new one would change another page, and a commit of 64 tasks among 250,000 more than
//! a hundred pages. So those that a thread makes one after the other begin alike, in runs of [`RUN`]:
//! they are neighbours, and share pages. The other 90 bits are random in each, which nobody guesses.

use std::cell::Cell;

use convoke_model::{ArtifactId, ContextId, MessageId, RequestId, TaskId};
use uuid::Uuid;

/// How many names of a kind begin alike: some pages of an index. Whoever sees two that do learns that
/// they were made one after the other, and nothing about a third.
const RUN: u32 = 256;

/// What the names of a run begin with, and how many of it are left.
type Run = Cell<([u8; 4], u32)>;

/// A random UUID that begins like the others of its run.
fn of_run(run: &Run) -> Uuid {
    let mut bytes = Uuid::new_v4().into_bytes();
    let (mut first, mut left) = run.get();
    if left == 0 {
        // A new run begins with bits that no name has yet.
        (first, left) = ([bytes[0], bytes[1], bytes[2], bytes[3]], RUN);
    }
    run.set((first, left - 1));
    bytes[..4].copy_from_slice(&first);
    // Version and variant are behind what was replaced.
    Uuid::from_bytes(bytes)
}

macro_rules! named {
    ($(#[$doc:meta])* $name:ident -> $type:ident, $uuid:expr) => {
        $(#[$doc])*
        pub(crate) fn $name() -> $type {
            let mut buffer = Uuid::encode_buffer();
            let text = $uuid.hyphenated().encode_lower(&mut buffer);
            $type::parse(text).unwrap_or_else(|_| unreachable!("a UUID is within every id's bounds"))
        }
    };
}

macro_rules! random {
    ($(#[$doc:meta])* $name:ident -> $type:ident) => {
        named!($(#[$doc])* $name -> $type, Uuid::new_v4());
    };
}

macro_rules! random_in_runs {
    ($(#[$doc:meta])* $name:ident -> $type:ident) => {
        named!($(#[$doc])* $name -> $type, {
            thread_local!(static RUN_HERE: Run = const { Cell::new(([0; 4], 0)) });
            RUN_HERE.with(of_run)
        });
    };
}

random_in_runs!(
    /// A name for a new task.
    task -> TaskId
);
random_in_runs!(
    /// A name for a new conversation.
    context -> ContextId
);
random!(
    /// A name for a message of the agent's.
    message -> MessageId
);
random!(
    /// A name for a result.
    artifact -> ArtifactId
);
random!(
    /// A name for a request.
    request -> RequestId
);

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_of_a_run_begin_alike_and_are_random_otherwise() {
        let run = Run::default();
        let names: Vec<Uuid> = (0..3 * RUN).map(|_| of_run(&run)).collect();
        let begins: Vec<u32> = names.iter().map(|name| name.as_fields().0).collect();
        let (first, rest) = begins.split_at(RUN as usize);
        assert!(first.iter().all(|begin| *begin == first[0]));
        assert!(rest.iter().all(|begin| *begin != first[0]));
        let others: HashSet<u128> = names.iter().map(|name| name.as_u128() << 32).collect();
        assert_eq!(others.len(), names.len());
        for name in names {
            assert_eq!(name.get_version_num(), 4);
            assert_eq!(name.get_variant(), uuid::Variant::RFC4122);
        }
    }
}
