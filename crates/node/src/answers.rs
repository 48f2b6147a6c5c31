//! Answers in the order in which they cost memory: measured, given room, and only then copied and
//! written. The other way round, everybody who waits for room would hold what it waits for.

use std::sync::Arc;

use bytes::Bytes;
use convoke_a2a::jsonrpc::{self, RequestIdJson};
use convoke_a2a::size;
use convoke_model::limits::SMALL_BODY_BYTES_MAX;
use convoke_model::{Fault, FaultCode, Message, OperationKind, Task};
use futures_util::FutureExt;

use crate::budget::{Budget, Room, too_large};

/// How often a task is measured again that grew while there was no room for it.
const LOOKS_MAX: u32 = 4;

/// What a task at work may grow by, at least, while there is no room for it, in bytes. Source: what
/// its handler may have said without waiting for the task.
const GROWTH_BYTES: usize = 1024 * 1024;

/// A task with room for the answer that shows it.
pub(crate) struct TaskAnswer {
    /// As it is shown.
    task: Arc<Task>,
    measure: Measure,
    room: Room,
}

/// At most how many bytes an answer takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measure {
    bytes: usize,
    /// What it may have grown by when there is room for it, in bytes.
    growth: usize,
}

/// Finds room for a task. Nothing of the task is held or copied before, so whoever has one looks at
/// it, and again once there is room:
///
/// ```text
/// loop {
///     {
///         let task = …;
///         let measure = search.measure(&task, history)?;
///         if search.has_room(measure) { return …; }
///     }
///     search.wait(measure).await?;
/// }
/// ```
pub(crate) struct Search<'a> {
    budget: &'a Budget,
    owner: &'a Arc<str>,
    room: Room,
    looks: u32,
}

impl<'a> Search<'a> {
    /// A search for `owner`.
    pub(crate) fn new(budget: &'a Budget, owner: &'a Arc<str>) -> Self {
        Self { budget, owner, room: Room::default(), looks: 0 }
    }

    /// Measures `task` with at most `history` of its messages.
    ///
    /// # Errors
    ///
    /// [`FaultCode::UnsupportedOperation`] if there is no room so large at all.
    pub(crate) fn measure(&self, task: &Task, history: Option<u32>) -> Result<Measure, Fault> {
        let bytes = size::task_bytes_max(task, history, SMALL_BODY_BYTES_MAX);
        let largest = self.budget.largest();
        if bytes > largest {
            let without = size::task_bytes_max(task, Some(0), SMALL_BODY_BYTES_MAX);
            let cure = if without <= largest {
                "ask for fewer of its messages with `historyLength`"
            } else {
                "its artifacts are sent one by one to who follows it from its beginning with \
                 `SendStreamingMessage`"
            };
            let what = format!("task `{}`", task.id);
            return Err(too_large(&what, bytes, largest, cure).with("taskId", task.id.as_str()));
        }
        let growth = if task.status.state.is_terminal() { 0 } else { GROWTH_BYTES + bytes / 8 };
        Ok(Measure { bytes, growth: growth.min(largest - bytes) })
    }

    /// Whether there is room for what was measured, without waiting for it.
    pub(crate) fn has_room(&mut self, measure: Measure) -> bool {
        if self.room.fits(measure.bytes) {
            return true;
        }
        self.room = Room::default();
        match self.budget.room(self.owner, measure.bytes).now_or_never() {
            Some(Ok(room)) => {
                self.room = room;
                true
            }
            _ => false,
        }
    }

    /// Waits for room for what was measured.
    ///
    /// # Errors
    ///
    /// As [`Budget::room`], and [`FaultCode::Unavailable`] if the task outgrew its room again and
    /// again.
    pub(crate) async fn wait(&mut self, measure: Measure) -> Result<(), Fault> {
        self.looks += 1;
        if self.looks > LOOKS_MAX {
            let text = "the task grows faster than there is room to show it; ask again later, or \
                        for fewer of its messages with `historyLength`";
            return Err(Fault::new(FaultCode::Unavailable, text));
        }
        // First, because who holds some while it waits for more may wait for itself.
        self.room = Room::default();
        self.room = self.budget.room(self.owner, measure.bytes + measure.growth).await?;
        Ok(())
    }

    /// The room that was found.
    pub(crate) fn found(self) -> Room {
        self.room
    }

    /// The answer that is `task`, which was measured and has room, as it is shown.
    pub(crate) fn answer(self, task: Arc<Task>, measure: Measure) -> TaskAnswer {
        TaskAnswer { task, measure, room: self.room }
    }
}

impl Measure {
    /// How large a buffer has to be so that it need not grow, in bytes; `None` for small answers,
    /// which are written by guess.
    pub(crate) fn capacity(self) -> Option<usize> {
        (self.bytes > SMALL_BODY_BYTES_MAX).then_some(self.bytes)
    }
}

impl TaskAnswer {
    /// The bytes that answer the request `id`; they hold their room until they are sent.
    pub(crate) fn encode(self, id: &RequestIdJson, kind: OperationKind) -> Bytes {
        self.room.hold(match self.measure.capacity() {
            None => jsonrpc::encode_task(id, kind, &self.task),
            Some(capacity) => jsonrpc::encode_task_in(id, kind, &self.task, capacity),
        })
    }
}

/// Room for the answer that is `message`, and how many bytes it takes at most. It was made before
/// anybody could know how large it becomes, so that it is held while this waits.
///
/// # Errors
///
/// As [`Budget::room_for_held`].
pub(crate) async fn room_for_message(
    budget: &Budget,
    owner: &Arc<str>,
    message: &Message,
) -> Result<(Room, Measure), Fault> {
    let bytes = size::message_bytes_max(message, SMALL_BODY_BYTES_MAX);
    let measure = Measure { bytes, growth: 0 };
    if bytes <= SMALL_BODY_BYTES_MAX {
        return Ok((Room::default(), measure));
    }
    if bytes > budget.largest() {
        let cure = "ask the capability for less at a time";
        return Err(too_large("the answer", bytes, budget.largest(), cure));
    }
    Ok((budget.room_for_held(owner, bytes).await?, measure))
}

#[cfg(test)]
mod tests {
    use super::*;
    use convoke_model::{
        Content, ContextId, MessageId, Part, Role, TaskId, TaskState, TaskStatus, UnixMillis,
    };

    const LARGE: usize = 1024 * 1024;

    fn task(state: TaskState, messages: usize, bytes: usize) -> Task {
        let part = || Part::new(Content::Text("x".repeat(bytes)));
        let id = || MessageId::parse("m").unwrap();
        Task {
            id: TaskId::parse("t").unwrap(),
            context_id: ContextId::parse("c").unwrap(),
            status: TaskStatus { state, message: None, timestamp: UnixMillis(0) },
            artifacts: Vec::new(),
            history: (0..messages).map(|_| Message::new(id(), Role::User, vec![part()])).collect(),
            metadata: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_can_never_be_sent_is_refused_with_what_can_be() {
        let budget = Budget::new(4 * LARGE, LARGE);
        let ann = "ann".into();
        let search = Search::new(&budget, &ann);
        let many = task(TaskState::Completed, 8, LARGE / 4);
        let refused = search.measure(&many, None).unwrap_err();
        assert_eq!(refused.code, FaultCode::UnsupportedOperation);
        assert!(refused.message.contains("historyLength"), "{refused}");
        assert!(search.measure(&many, Some(3)).is_ok());
        let mut one = task(TaskState::Completed, 0, 0);
        one.metadata = Some(convoke_model::Json::of(&"x".repeat(2 * LARGE)).unwrap());
        let refused = search.measure(&one, None).unwrap_err();
        assert!(!refused.message.contains("historyLength"), "{refused}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_grew_while_it_waited_is_measured_again_and_not_for_ever() {
        let budget = Budget::new(64 * LARGE, LARGE);
        let ann = "ann".into();
        let mut search = Search::new(&budget, &ann);
        let at = |bytes| task(TaskState::Working, 1, bytes);
        let mut bytes = LARGE / 8;
        for _ in 0..LOOKS_MAX {
            let measure = search.measure(&at(bytes), None).unwrap();
            // All that one caller may have is in use.
            let others = budget.room(&ann, budget.largest()).await.unwrap();
            assert!(!search.has_room(measure));
            let (waited, ()) = tokio::join!(search.wait(measure), async { drop(others) });
            waited.unwrap();
            let little_more = search.measure(&at(bytes + GROWTH_BYTES), None).unwrap();
            assert!(search.room.fits(little_more.bytes));
            search.room = Room::default();
            bytes += 2 * GROWTH_BYTES;
        }
        let measure = search.measure(&at(bytes), None).unwrap();
        let refused = search.wait(measure).now_or_never().unwrap().unwrap_err();
        assert_eq!(refused.code, FaultCode::Unavailable);
    }

    #[tokio::test(start_paused = true)]
    async fn who_looks_for_more_room_gives_back_what_it_has() {
        let budget = Budget::new(4 * LARGE, LARGE);
        let ann = "ann".into();
        let mut search = Search::new(&budget, &ann);
        for bytes in [LARGE / 2, LARGE * 3 / 4] {
            let measure = search.measure(&task(TaskState::Completed, 1, bytes), None).unwrap();
            assert!(search.has_room(measure));
        }
    }
}
