//! One client: what it asks goes into its history before it leaves, and what it hears before
//! anything depends on it.

use std::time::Duration;

use anyhow::{Context, Result};
use convoke::task::{Followed, TaskError, Tasks};
use convoke::{CapabilityName, FaultCode, RetrySettings};
use convoke_a2a::capability::capability_metadata;
use convoke_a2a::client::{Answer, event_json, task_json};
use convoke_a2a::headers::IDEMPOTENT_SEND_EXTENSION;
use convoke_model::{
    CancelTask, Content, Cursor, GetTask, Json, ListTasks, Message, MessageId, Part, Role,
    SendConfiguration, SendMessage, SubscribeToTask, TaskId,
};
use serde_json::Value;
use tokio::time::Instant;

use crate::history::{Entry, History};

/// How long an answer may take. A task that is waited for takes seconds at most.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// The pause before a question is asked again that had no answer.
const AGAIN_AFTER: Duration = Duration::from_millis(20);

/// How a broken stream is taken up again: soon, and for as long as a restart may take.
const TAKEN_UP: RetrySettings = RetrySettings {
    attempts_max: 1_000_000,
    backoff_min: Duration::from_millis(2),
    backoff_max: Duration::from_millis(50),
};

/// A client with its history.
pub struct Asker {
    tasks: Tasks,
    following: Tasks,
    history: History,
    /// The number of the next stream.
    streams: u64,
    /// When no question is asked again any more.
    until: Instant,
}

/// What became of a question that was asked until it had an answer.
pub type Answered<T> = Result<Option<T>>;

impl Asker {
    /// A client that asks through `tasks`, until `until` at the latest.
    #[must_use]
    pub fn new(tasks: Tasks, history: History, until: Instant) -> Self {
        let tasks = tasks.timeout(ANSWER_MAX);
        let following = tasks.clone().retry(TAKEN_UP).patience(ANSWER_MAX);
        Self { tasks, following, history, streams: 0, until }
    }

    /// What was asked and heard.
    #[must_use]
    pub fn into_history(self) -> History {
        self.history
    }

    /// Sends a message that makes a task, again under the same name until there is an answer; waits
    /// for the task's end if `waits`.
    ///
    /// # Errors
    ///
    /// If the history cannot be kept.
    pub async fn send(&mut self, send: &Send, waits: bool) -> Answered<Value> {
        let request = send.request(!waits)?;
        self.add(send.entry())?;
        self.history.keep()?;
        let tasks = self.tasks.clone();
        let answer = self.persist("SendMessage", || tasks.send(&request)).await?;
        let Some(Answer::Task(task)) = answer else { return Ok(None) };
        let task = value(&task_json(&task))?;
        self.add(Entry::Sent { message: send.message.clone(), task: task.clone() })?;
        self.history.keep()?;
        Ok(Some(task))
    }

    /// Reads a task.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn get(&mut self, id: &str) -> Answered<Value> {
        let get = GetTask { tenant: None, id: task_id(id)?, history_length: None };
        let tasks = self.tasks.clone();
        let Some(task) = self.persist("GetTask", || tasks.get(&get)).await? else {
            return Ok(None);
        };
        self.saw(&task)
    }

    /// Reads the first page of the client's tasks.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn list(&mut self) -> Result<()> {
        let list =
            ListTasks { page_size: Some(20), history_length: Some(0), ..ListTasks::default() };
        let tasks = self.tasks.clone();
        let page = self.persist("ListTasks", || tasks.list(&list)).await?;
        let tasks = page.into_iter().flat_map(|page| page.tasks);
        let brief = |task: convoke_model::Task| {
            (task.id.to_string(), task.status.state.as_str().to_owned())
        };
        self.add(Entry::Listed { tasks: tasks.map(brief).collect() })?;
        self.history.keep()
    }

    /// Cancels a task, whether or not it has ended meanwhile; whether it is cancelled by this.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn cancel(&mut self, id: &str) -> Answered<bool> {
        self.add(Entry::Cancels { task: id.to_owned() })?;
        self.history.keep()?;
        let cancel = CancelTask { tenant: None, id: task_id(id)?, metadata: None };
        let cancelled = loop {
            match self.tasks.cancel(&cancel).await {
                Ok(task) => {
                    let task = value(&task_json(&task))?;
                    self.add(Entry::Cancelled { task })?;
                    break true;
                }
                Err(error) if error.code() == Some(FaultCode::TaskNotCancelable) => {
                    self.add(Entry::NotCancelable { task: id.to_owned() })?;
                    break false;
                }
                Err(error) => {
                    if !self.failed("CancelTask", &error).await? {
                        return Ok(None);
                    }
                }
            }
        };
        self.history.keep()?;
        Ok(Some(cancelled))
    }

    /// Answers the question of a task, until it is answered or the task has ended.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn reply(&mut self, id: &str, word: &str) -> Answered<Value> {
        self.add(Entry::Replies { task: id.to_owned(), word: word.to_owned() })?;
        self.history.keep()?;
        for number in 0.. {
            let content = Content::Text(word.to_owned());
            let name = MessageId::parse(&format!("{id}-{number}"))?;
            let mut message = Message::new(name, Role::User, vec![Part::new(content)]);
            message.task_id = Some(task_id(id)?);
            let request = request(message, false);
            match self.tasks.send(&request).await {
                Ok(Answer::Task(task)) => return self.saw(&task),
                Ok(Answer::Message(_)) => return Ok(None),
                Err(error) => {
                    if !self.failed("SendMessage", &error).await? {
                        return Ok(None);
                    }
                }
            }
            // The answer may have been taken although nobody said so.
            match self.get(id).await? {
                Some(task) if task["status"]["state"] == "TASK_STATE_INPUT_REQUIRED" => {}
                other => return Ok(other),
            }
        }
        Ok(None)
    }

    /// Sends a message that makes a task, and follows it over all cuts, to its end or its question.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn stream(&mut self, send: &Send) -> Answered<Told> {
        let request = send.request(false)?;
        self.add(send.entry())?;
        self.history.keep()?;
        loop {
            let stream = self.begin(None)?;
            let following = self.following.stream_resuming(request.clone());
            if let Some(told) = self.hear(stream, following).await? {
                return Ok(Some(told));
            }
            if !self.again().await {
                return Ok(None);
            }
        }
    }

    /// Follows a task from behind `after`, over all cuts.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn follow(&mut self, id: &str, after: Option<Cursor>) -> Answered<Told> {
        let mut from = SubscribeToTask { tenant: None, id: task_id(id)?, after };
        let mut so_far = Told::default();
        loop {
            let stream = self.begin(from.after)?;
            let following = self.following.subscribe_resuming(from.clone());
            if let Some(told) = self.hear(stream, following).await? {
                so_far.events.extend(told.events);
                so_far.state = told.state.or(so_far.state);
                so_far.cursor = told.cursor.or(so_far.cursor);
                return Ok(Some(so_far));
            }
            from.after = so_far.cursor.or(from.after);
            if !self.again().await {
                return Ok(None);
            }
        }
    }

    /// Hears a stream to its end; `None` if it ended before anything was heard, or in the middle.
    async fn hear(
        &mut self,
        stream: u64,
        mut following: convoke::task::Following,
    ) -> Answered<Told> {
        let mut told = Told::default();
        loop {
            match following.next().await {
                Ok(Some(Followed::Event { event, reset })) => {
                    let cursor = event.cursor.map(|cursor| cursor.to_string());
                    let value = value(&event_json(&event.item, None, false))?;
                    let state = &value["statusUpdate"]["status"]["state"];
                    let state = state.as_str().or(value["task"]["status"]["state"].as_str());
                    told.state = state.map(str::to_owned).or(told.state);
                    told.cursor = event.cursor.or(told.cursor);
                    if let Some(task) = following.task() {
                        told.task = Some(task.to_string());
                    }
                    self.add(Entry::Heard {
                        stream,
                        cursor: cursor.clone(),
                        reset,
                        event: value.clone(),
                    })?;
                    told.events.push((cursor.unwrap_or_default(), value));
                    // A stream goes on while its task waits for whoever hears it.
                    if told.state.as_deref() == Some("TASK_STATE_INPUT_REQUIRED") {
                        self.history.keep()?;
                        return Ok(Some(told));
                    }
                }
                Ok(Some(Followed::Cut { error, .. })) => {
                    self.note("stream", &error)?;
                    self.history.keep()?;
                }
                Ok(Some(Followed::Resumed)) => {}
                Ok(None) => {
                    self.history.keep()?;
                    return Ok(Some(told));
                }
                Err(error) => {
                    self.note("stream", &error)?;
                    self.history.keep()?;
                    return Ok(None);
                }
            }
        }
    }

    fn begin(&mut self, after: Option<Cursor>) -> Result<u64> {
        let stream = self.streams;
        self.streams += 1;
        self.add(Entry::Follows { stream, after: after.map(|cursor| cursor.to_string()) })?;
        Ok(stream)
    }

    fn saw(&mut self, task: &convoke_model::Task) -> Answered<Value> {
        let task = value(&task_json(task))?;
        self.add(Entry::Saw { task: task.clone() })?;
        self.history.keep()?;
        Ok(Some(task))
    }

    /// Asks until there is an answer, or no more time.
    async fn persist<T, F>(&mut self, what: &str, ask: impl Fn() -> F) -> Answered<T>
    where
        F: Future<Output = Result<T, TaskError>>,
    {
        loop {
            match ask().await {
                Ok(answer) => return Ok(Some(answer)),
                Err(error) => {
                    if !self.failed(what, &error).await? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    async fn failed(&mut self, what: &str, error: &TaskError) -> Result<bool> {
        self.note(what, error)?;
        Ok(self.again().await)
    }

    fn note(&mut self, what: &str, error: &TaskError) -> Result<()> {
        let code = error.code().map(|code| format!("{code:?}"));
        let error = convoke_model::chain(error);
        self.add(Entry::Failed { what: what.to_owned(), code, error })
    }

    async fn again(&self) -> bool {
        tokio::time::sleep(AGAIN_AFTER).await;
        Instant::now() < self.until
    }

    fn add(&mut self, entry: Entry) -> Result<()> {
        self.history.add(entry)
    }
}

/// What a stream has told.
#[derive(Debug, Default)]
pub struct Told {
    /// The task, once it has said its name.
    pub task: Option<String>,
    /// Its last state.
    pub state: Option<String>,
    /// The place of the last event.
    pub cursor: Option<Cursor>,
    /// Places and events.
    pub events: Vec<(String, Value)>,
}

/// A message that makes a task, and that may be sent again.
#[derive(Debug, Clone)]
pub struct Send {
    /// Its name.
    pub message: String,
    /// What it calls.
    pub capability: &'static str,
    /// With what.
    pub params: Value,
}

impl Send {
    /// The message as a request.
    ///
    /// # Errors
    ///
    /// If it has no good name.
    pub fn request(&self, return_immediately: bool) -> Result<SendMessage> {
        let data = Content::Data(Json::of(&self.params).context("parameters are no JSON")?);
        let name = MessageId::parse(&self.message)?;
        let mut message = Message::new(name, Role::User, vec![Part::new(data)]);
        message.metadata = Some(capability_metadata(&CapabilityName::parse(self.capability)?));
        message.extensions = vec![IDEMPOTENT_SEND_EXTENSION.to_owned()];
        Ok(request(message, return_immediately))
    }

    /// The entry that says that it leaves.
    #[must_use]
    pub fn entry(&self) -> Entry {
        Entry::Sends {
            message: self.message.clone(),
            capability: self.capability.to_owned(),
            params: self.params.clone(),
        }
    }
}

fn request(message: Message, return_immediately: bool) -> SendMessage {
    let configuration = SendConfiguration { return_immediately, ..SendConfiguration::default() };
    SendMessage { tenant: None, message, configuration, metadata: None }
}

/// A task's name as the client has it.
///
/// # Errors
///
/// If it is none.
pub fn task_id(id: &str) -> Result<TaskId> {
    TaskId::parse(id).with_context(|| format!("`{id}` names no task"))
}

/// What was read, as JSON that can be compared.
///
/// # Errors
///
/// If it is none, which the client has checked.
pub fn value(json: &Json) -> Result<Value> {
    serde_json::from_str(json.get()).context("the client gave no JSON")
}
