//! A task followed to its end, over as many streams as it takes.

use std::time::Duration;

use convoke_a2a::client::StreamItem;
use convoke_agent::RetrySettings;
use convoke_model::{
    Cursor, FaultCode, GetTask, SendMessage, SubscribeToTask, TaskEvent, TaskId, TaskState,
};
use tokio::time::Instant;

use super::events::Broke;
use super::way::Opening;
use super::{Event, Events, TaskError, Tasks, is_idempotent, name};
use crate::backoff::pause;
use crate::random::Random;

/// A stream that gives signs for as long as this shows that the agent is there, be it without news.
/// Agents of ours give one every 15 seconds; and no agent makes us come again more often than this
/// for ever.
const ALIVE: Duration = Duration::from_secs(10);

/// The longest pause before a stream is taken up again, and the first: whoever follows a task is back
/// within two seconds of its agent, and a thousand followers are no storm.
const PAUSE_MAX: Duration = Duration::from_secs(2);
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// What whoever follows a task hears.
#[derive(Debug)]
pub enum Followed {
    /// Something happened, told once.
    Event {
        /// What.
        event: Event,
        /// It is the task as it stands, and what was heard before is in it or no longer true: events
        /// in between were lost, or the agent keeps none.
        reset: bool,
    },
    /// The stream broke. It is taken up again after a pause, which the next question waits for.
    Cut {
        /// How it broke.
        error: TaskError,
        /// How long the pause is.
        pause: Duration,
    },
    /// The stream goes on: the agent answers again, be it without news.
    Resumed,
}

/// Follows a task over streams that may break. Each event is told once. A stream is taken up again
/// behind what was heard, after pauses that grow from a tenth of a second to two seconds, or less where
/// the settings of calls say so, until no stream has come for as long as [`Tasks::patience`] says. That
/// is no call: it does not open the agent's circuit breaker, and is not held by it. What cannot be begun
/// at all is an error at once.
#[derive(Debug)]
pub struct Following {
    tasks: Tasks,
    begin: Begin,
    events: Option<Events>,
    /// The task, once it has said its name.
    task: Option<TaskId>,
    state: Option<TaskState>,
    cursor: Option<Cursor>,
    /// Whether anything has come yet.
    any: bool,
    is_over: bool,
    /// How often the stream broke since something new came.
    failures: u32,
    /// When it broke for the first time since the agent answered with one.
    since: Instant,
    resume_at: Option<Instant>,
    random: Random,
}

#[derive(Debug)]
enum Begin {
    Send(Box<SendMessage>),
    Subscribe(SubscribeToTask),
}

impl Following {
    pub(super) fn of_send(tasks: Tasks, send: SendMessage) -> Self {
        Self::new(tasks, Begin::Send(Box::new(send)), None, None)
    }

    pub(super) fn of_task(tasks: Tasks, subscribe: SubscribeToTask) -> Self {
        let (task, cursor) = (Some(subscribe.id.clone()), subscribe.after);
        Self::new(tasks, Begin::Subscribe(subscribe), task, cursor)
    }

    fn new(tasks: Tasks, begin: Begin, task: Option<TaskId>, cursor: Option<Cursor>) -> Self {
        Self {
            tasks,
            begin,
            events: None,
            task,
            state: None,
            cursor,
            any: false,
            is_over: false,
            failures: 0,
            since: Instant::now(),
            resume_at: None,
            random: Random::new(),
        }
    }

    /// The task that is followed, once that is known.
    #[must_use]
    pub fn task(&self) -> Option<&TaskId> {
        self.task.as_ref()
    }

    /// Up to where the task was heard of; what follows it can be asked for by anybody who has it.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        self.cursor
    }

    /// What is heard next; `None` after the end of the task, or of a message that is the whole
    /// answer, and where a stream ends while its task waits for the caller.
    ///
    /// # Errors
    ///
    /// [`TaskError`]; the task itself may go on.
    pub async fn next(&mut self) -> Result<Option<Followed>, TaskError> {
        loop {
            if self.is_over {
                return Ok(None);
            }
            if let Some(at) = self.resume_at.take() {
                tokio::time::sleep_until(at).await;
            }
            let broke = match &mut self.events {
                None => match Box::pin(self.open()).await {
                    Ok(Opened::Stream(events)) => {
                        self.events = Some(events);
                        if self.failures > 0 {
                            return Ok(Some(Followed::Resumed));
                        }
                        continue;
                    }
                    Ok(Opened::Ended(event)) => {
                        let reset = self.any;
                        self.heard(&event);
                        self.is_over = true;
                        return Ok(Some(Followed::Event { event, reset }));
                    }
                    Err(error) => {
                        let begun = self.any || self.failures > 0;
                        Broke { may_pass: begun && error.may_pass(), error }
                    }
                },
                Some(events) => match events.next_or_broke().await {
                    Ok(Some(event)) if self.is_known(&event) => continue,
                    Ok(Some(event)) => {
                        let reset = self.any && matches!(event.item, StreamItem::Task(_));
                        self.heard(&event);
                        return Ok(Some(Followed::Event { event, reset }));
                    }
                    // Many agents end a stream where the task waits for the caller.
                    Ok(None) if self.state.is_some_and(TaskState::is_interrupted) => {
                        self.is_over = true;
                        return Ok(None);
                    }
                    Ok(None) => Broke { error: self.ended(), may_pass: true },
                    Err(broke) => broke,
                },
            };
            // A stream that lives has nothing to tell as long as nothing happens.
            let lived = self.events.take().map(|events| events.lived());
            if lived.is_some_and(|lived| lived >= ALIVE) {
                self.failures = 0;
            }
            // An agent that gave a stream is there. One that only says why it gives none is not.
            if lived.is_some() && broke.error.code().is_none() {
                self.since = Instant::now();
            }
            return self.cut(broke).map(Some);
        }
    }

    /// A stream that goes on behind what was heard.
    async fn open(&self) -> Result<Opened, TaskError> {
        let opening = if self.any || self.failures > 0 { Opening::Again } else { Opening::First };
        let subscribe = match (&self.begin, &self.task) {
            (Begin::Send(send), None) => {
                return self.tasks.open_stream(send, opening).await.map(Opened::Stream);
            }
            (Begin::Send(send), Some(task)) => {
                let (tenant, id) = (send.tenant.clone(), task.clone());
                SubscribeToTask { tenant, id, after: self.cursor }
            }
            (Begin::Subscribe(first), _) => SubscribeToTask { after: self.cursor, ..first.clone() },
        };
        match self.tasks.open_subscription(&subscribe, opening).await {
            Ok(events) => Ok(Opened::Stream(events)),
            // A task that has ended is not followed at agents that keep no events. It is read.
            Err(error) if error.code() == Some(FaultCode::UnsupportedOperation) => {
                let SubscribeToTask { tenant, id, .. } = subscribe;
                let task = self.tasks.get(&GetTask { tenant, id, history_length: None }).await?;
                if !task.status.state.is_terminal() {
                    return Err(error);
                }
                Ok(Opened::Ended(Event { item: StreamItem::Task(task), cursor: None }))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the event was told already.
    fn is_known(&self, event: &Event) -> bool {
        match (&event.item, event.cursor, self.cursor) {
            (StreamItem::Update { .. }, Some(new), Some(last)) => {
                new.epoch == last.epoch && new.seq <= last.seq
            }
            _ => false,
        }
    }

    fn heard(&mut self, event: &Event) {
        match &event.item {
            StreamItem::Task(task) => {
                self.task = Some(task.id.clone());
                self.state = Some(task.status.state);
            }
            StreamItem::Update { task_id, event, .. } => {
                self.task.get_or_insert_with(|| task_id.clone());
                if let TaskEvent::Status(status) = event {
                    self.state = Some(status.state);
                }
            }
            StreamItem::Message(_) => {}
        }
        self.cursor = event.cursor.or(self.cursor);
        self.any = true;
        self.is_over = event.item.is_last();
        self.failures = 0;
    }

    /// What follows from a stream that broke.
    fn cut(&mut self, broke: Broke) -> Result<Followed, TaskError> {
        let Broke { error, may_pass } = broke;
        let retry = &self.tasks.calls.retry;
        self.is_over = true;
        if !may_pass || retry.attempts_max <= 1 {
            return Err(error);
        }
        if let (Begin::Send(send), None) = (&self.begin, &self.task)
            && !is_idempotent(send)
        {
            return Err(TaskError::Unnamed { source: Box::new(error) });
        }
        if self.failures == 0 {
            self.since = Instant::now();
        }
        self.failures = self.failures.saturating_add(1);
        let pause = pause(&patient(retry), self.failures, self.random.next());
        let resume_at = Instant::now() + pause;
        let after = self.tasks.patience;
        if resume_at.duration_since(self.since) >= after {
            return Err(TaskError::Lost { after, source: Box::new(error) });
        }
        self.is_over = false;
        self.resume_at = Some(resume_at);
        Ok(Followed::Cut { error, pause })
    }

    fn ended(&self) -> TaskError {
        let kind = match self.begin {
            Begin::Send(_) => convoke_model::OperationKind::SendStreamingMessage,
            Begin::Subscribe(_) => convoke_model::OperationKind::SubscribeToTask,
        };
        let (asked, address) =
            (name(kind).as_str().to_owned(), self.tasks.way.address().to_owned());
        TaskError::Ended { asked, address }
    }
}

/// What `retry` says of calls, for streams that are taken up again.
fn patient(retry: &RetrySettings) -> RetrySettings {
    RetrySettings {
        backoff_min: retry.backoff_min.min(PAUSE_MIN),
        backoff_max: retry.backoff_max.min(PAUSE_MAX),
        ..retry.clone()
    }
}

/// What came of asking for a stream.
enum Opened {
    Stream(Events),
    /// The task has ended, and this is how.
    Ended(Event),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_follows_is_back_within_two_seconds_whatever_calls_do() {
        let check = |min_ms, max_ms, failures, expected_ms: u128| {
            let (backoff_min, backoff_max) =
                (Duration::from_millis(min_ms), Duration::from_millis(max_ms));
            let calls = RetrySettings { attempts_max: 3, backoff_min, backoff_max };
            let longest = pause(&patient(&calls), failures, u64::MAX);
            assert_eq!((longest + Duration::from_nanos(1)).as_millis(), expected_ms);
        };
        check(5_000, 60_000, 1, 100);
        check(5_000, 60_000, 4, 800);
        check(5_000, 60_000, u32::MAX, 2_000);
        check(1, 1, u32::MAX, 1);
    }
}
