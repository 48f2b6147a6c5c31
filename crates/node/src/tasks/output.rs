//! What a handler has said and its task has yet to take: bounded, in order.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use convoke_agent::{AskError, Output, OutputError, Question};
use convoke_model::{Artifact, Content, Json, Message, Part};
use tokio::sync::{Notify, Semaphore, oneshot};

use crate::quota::Share;

/// What may lie here, in bytes. Source: the design's contract of the engine.
const BYTES_MAX: usize = 1024 * 1024;

/// How many events may lie here. Each counts as the share of the bytes that this leaves it, at
/// least, so that one bound is both. Source: as above.
const EVENTS_MAX: usize = 256;

/// How much of it is committed at a time, in bytes and as above in events: enough for one commit
/// to pay for many, and little enough for those who follow the task to take it in one go.
const BATCH_BYTES: usize = BYTES_MAX / 4;

/// A queue between a handler and its task. A handler that is faster than its task's commits waits.
#[derive(Debug)]
pub(crate) struct Queue {
    room: Semaphore,
    inside: Mutex<Inside>,
    ready: Notify,
}

#[derive(Debug, Default)]
struct Inside {
    items: VecDeque<Item>,
    /// Set once nothing more is taken.
    closed: Option<OutputError>,
}

/// One thing that a handler said.
#[derive(Debug)]
pub(crate) enum Item {
    Output(Output),
    /// From here the handler can go on; who said so is told once it is kept.
    Checkpoint(Json, oneshot::Sender<()>),
    Question(Asked),
    /// Nobody waits for the answer of the open question any more.
    Withdrawal,
}

/// A question and who waits for its answer.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) question: Question,
    pub(crate) reply: oneshot::Sender<Result<Message, AskError>>,
    /// Its place among the questions of the caller.
    pub(crate) _share: Share,
}

/// What was said next, and the room that it takes.
pub(crate) struct Batch {
    pub(crate) items: Vec<Item>,
    room: usize,
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self { room: Semaphore::new(BYTES_MAX), inside: Mutex::default(), ready: Notify::new() }
    }

    /// Takes `item`, once there is room for it.
    pub(crate) async fn put(&self, item: Item) -> Result<(), OutputError> {
        let room = u32::try_from(item.room()).unwrap_or(u32::MAX);
        let permit = self.room.acquire_many(room).await;
        let mut inside = self.inside();
        if let Some(why) = &inside.closed {
            return Err(why.clone());
        }
        inside.items.push_back(item);
        if let Ok(permit) = permit {
            permit.forget();
        }
        drop(inside);
        self.ready.notify_one();
        Ok(())
    }

    /// Takes `item` at once, over the bounds if need be: it is one that ends something.
    pub(crate) fn put_now(&self, item: Item) {
        let mut inside = self.inside();
        if inside.closed.is_none() {
            inside.items.push_back(item);
            drop(inside);
            self.ready.notify_one();
        }
    }

    /// What was said next, once there is something; `None` when nothing will come.
    pub(crate) async fn take(&self) -> Option<Batch> {
        loop {
            {
                let mut inside = self.inside();
                if !inside.items.is_empty() {
                    let (mut items, mut room) = (Vec::new(), 0);
                    while room < BATCH_BYTES
                        && let Some(item) = inside.items.pop_front()
                    {
                        room += item.room();
                        items.push(item);
                    }
                    return Some(Batch { items, room });
                }
                if inside.closed.is_some() {
                    return None;
                }
            }
            self.ready.notified().await;
        }
    }

    /// The room of a batch is free again.
    pub(crate) fn done(&self, room: usize) {
        // What came over the bounds gives back more than was taken, which is not to add up.
        let free = BYTES_MAX.saturating_sub(self.room.available_permits());
        self.room.add_permits(room.min(free));
    }

    /// Takes nothing more, because of `why`; the first reason stays. What is here is still given
    /// out.
    pub(crate) fn close(&self, why: OutputError) {
        self.inside().closed.get_or_insert(why);
        self.room.close();
        self.ready.notify_one();
    }

    /// The task could not keep what its handler said, if that is why the queue is closed.
    pub(crate) fn refusal(&self) -> Option<OutputError> {
        self.inside().closed.clone().filter(|why| matches!(why, OutputError::Refused(_)))
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        // Nothing panics while it is held.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Batch {
    pub(crate) fn room(&self) -> usize {
        self.room
    }
}

impl Item {
    fn room(&self) -> usize {
        let bytes = match self {
            Self::Output(Output::Progress { text, .. }) => text.len(),
            Self::Output(Output::Artifact { artifact, .. }) => artifact_bytes(artifact),
            Self::Checkpoint(value, _) => value.get().len(),
            Self::Question(asked) => asked.question.text.len(),
            Self::Withdrawal => 0,
        };
        bytes.clamp(BYTES_MAX / EVENTS_MAX, BYTES_MAX)
    }
}

fn artifact_bytes(artifact: &Artifact) -> usize {
    let part = |part: &Part| match &part.content {
        Content::Text(text) | Content::Raw(text) | Content::Url(text) => text.len(),
        Content::Data(json) => json.get().len(),
    };
    artifact.parts.iter().map(part).sum()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn says(bytes: usize) -> Item {
        Item::Output(Output::Progress { text: "x".repeat(bytes), fraction: None })
    }

    #[tokio::test]
    async fn a_full_queue_suspends_until_a_batch_is_done() {
        for (bytes, fit, batch) in
            [(1, EVENTS_MAX, EVENTS_MAX / 4), (BYTES_MAX / 4, 4, 1), (BYTES_MAX * 2, 1, 1)]
        {
            let queue = Queue::new();
            for _ in 0..fit {
                // The runtime has its own idea of how much one task may do at a time.
                let put = tokio::task::unconstrained(queue.put(says(bytes)));
                assert_eq!(put.now_or_never(), Some(Ok(())));
            }
            let mut next = Box::pin(queue.put(says(bytes)));
            assert!((&mut next).now_or_never().is_none());
            let taken = queue.take().await.unwrap();
            assert_eq!(taken.items.len(), batch);
            assert!((&mut next).now_or_never().is_none(), "taken is not yet committed");
            queue.done(taken.room());
            assert_eq!(next.await, Ok(()));
        }
    }

    #[tokio::test]
    async fn a_closed_queue_gives_what_it_has_and_says_why_it_takes_nothing() {
        let queue = Queue::new();
        queue.put(says(BYTES_MAX)).await.unwrap();
        let waiting = queue.put(says(1));
        queue.put_now(says(1));
        queue.close(OutputError::Refused("full".into()));
        queue.close(OutputError::Ended);
        assert_eq!(waiting.await, Err(OutputError::Refused("full".into())));
        assert_eq!(queue.put(says(1)).await, Err(OutputError::Refused("full".into())));
        queue.put_now(says(1));
        for _ in 0..2 {
            let batch = queue.take().await.unwrap();
            assert_eq!(batch.items.len(), 1);
            queue.done(batch.room());
        }
        assert!(queue.take().await.is_none());
        assert!(queue.refusal().is_some());
    }

    #[tokio::test]
    async fn what_came_over_the_bounds_makes_no_room() {
        let queue = Queue::new();
        for _ in 0..3 {
            queue.put_now(says(BYTES_MAX));
        }
        for _ in 0..3 {
            let batch = queue.take().await.unwrap();
            queue.done(batch.room());
        }
        assert_eq!(queue.room.available_permits(), BYTES_MAX);
    }
}
