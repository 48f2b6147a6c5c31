//! Names that the node makes: random, because knowing a task's name is half of access to it.

use convoke_model::{
    ArtifactId, ContextId, MessageId, RequestId, TRACEPARENT, TaskId, TraceContext,
};
use http::HeaderMap;
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

/// The span of a request: of the trace that the caller names, or the first of a trace of its own.
pub(crate) fn span_of(headers: &HeaderMap) -> TraceContext {
    let span_id = Uuid::new_v4().as_u64_pair().1;
    let mut named = headers.get_all(TRACEPARENT).iter();
    let parent = match (named.next(), named.next()) {
        // Several values contradict each other, so none counts. Source: W3C Trace Context §3.2.
        (Some(value), None) => value.to_str().ok().and_then(TraceContext::parse),
        _ => None,
    };
    match parent {
        Some(parent) => parent.child(span_id),
        None => TraceContext::root(Uuid::new_v4().as_u128(), span_id, false),
    }
}
