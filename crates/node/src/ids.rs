//! Names that the node makes: random, because knowing a task's name is half of access to it.

use convoke_model::{ArtifactId, ContextId, MessageId, RequestId, TaskId};
use uuid::Uuid;

macro_rules! random {
    ($(#[$doc:meta])* $name:ident -> $type:ident) => {
        $(#[$doc])*
        pub(crate) fn $name() -> $type {
            let mut buffer = Uuid::encode_buffer();
            let text = Uuid::new_v4().hyphenated().encode_lower(&mut buffer);
            $type::parse(text).unwrap_or_else(|_| unreachable!("a UUID is within every id's bounds"))
        }
    };
}

random!(
    /// A name for a new task.
    task -> TaskId
);
random!(
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
