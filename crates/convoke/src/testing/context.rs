//! The context of a handler that is tested by itself: no network, no node.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use convoke_agent::{
    AgentCallError, AgentConfig, AskError, BoxFuture, CallError, CallSettings, Context,
    ContextParts, Metadata, Outbound, OutboundCall, Outlet, Output, OutputError, Question, Refusal,
    RegistryEntry,
};
use convoke_model::{
    Caller, Content, Json, Message, MessageId, Part, Principal, RequestId, Role, SpiffeId, TaskId,
    TraceContext,
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{CallLog, LoggedCall};

/// A context that is being made; [`build`](Self::build) makes it.
///
/// ```
/// use convoke::testing::context;
/// use convoke::{Context, HandlerError, agent};
/// use serde_json::json;
///
/// struct Greeter;
///
/// #[agent]
/// impl Greeter {
///     /// Greet whoever asks, by the name that the directory knows
///     #[capability]
///     async fn greet(&self, context: &Context) -> Result<String, HandlerError> {
///         context.progress("asking the directory").await?;
///         let directory = context.config().registry("directory")?;
///         let who = context.caller().name();
///         let name: String =
///             context.call_agent(directory, "name_of", json!({"id": who})).into().await?;
///         Ok(format!("hello {name}"))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let test = context()
///     .caller("spiffe://example.org/user/ann")
///     .knows("directory", "spiffe://example.org/directory")
///     .answers("name_of", "Ann")
///     .task();
/// assert_eq!(Greeter.greet(&test.build()).await.unwrap(), "hello Ann");
/// assert_eq!(test.calls().capabilities(), ["name_of"]);
/// assert_eq!(test.progress(), ["asking the directory"]);
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a context is made by `build`"]
pub struct TestContext {
    caller: Caller,
    config: AgentConfig,
    is_task: bool,
    deadline: Option<Duration>,
    cancelled: CancellationToken,
    attempt: u32,
    checkpoint: Option<Result<Json, String>>,
    checkpoints: Arc<Mutex<Vec<Json>>>,
    answers: BTreeMap<String, Prepared>,
    replies: Arc<Mutex<VecDeque<Result<Json, String>>>>,
    calls: CallLog,
    outputs: Arc<Mutex<Vec<Output>>>,
}

/// What a call comes to.
#[derive(Debug, Clone)]
enum Prepared {
    Answer(Result<Json, String>),
    Refusal(String),
    Nothing,
}

/// A context in which nobody asks the agent `spiffe://example.org/agent` for something ephemeral,
/// and which knows no other agent.
pub fn context() -> TestContext {
    TestContext {
        caller: Caller::Anonymous,
        config: AgentConfig {
            spiffe_id: id("spiffe://example.org/agent"),
            metadata: Metadata { name: "agent".to_owned(), ..Metadata::default() },
            agent_registry: BTreeMap::new(),
            calls: CallSettings::default(),
        },
        is_task: false,
        deadline: None,
        cancelled: CancellationToken::new(),
        attempt: 1,
        checkpoint: None,
        checkpoints: Arc::default(),
        answers: BTreeMap::new(),
        replies: Arc::default(),
        calls: CallLog::default(),
        outputs: Arc::default(),
    }
}

impl TestContext {
    /// Who asks.
    ///
    /// # Panics
    ///
    /// If it is no SPIFFE ID.
    pub fn caller(mut self, spiffe_id: &str) -> Self {
        let caller = Principal::from_verified_svid(id(spiffe_id), &self.config.spiffe_id);
        self.caller = Caller::Principal(Arc::new(caller));
        self
    }

    /// What the agent's configuration says under `metadata.name`.
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.config.metadata.name);
        self
    }

    /// Puts an agent into the registry under `key`.
    ///
    /// # Panics
    ///
    /// If it is no SPIFFE ID.
    pub fn knows(mut self, key: &str, spiffe_id: &str) -> Self {
        let address = format!("https://{key}.invalid");
        self.config
            .agent_registry
            .insert(key.to_owned(), RegistryEntry::new(id(spiffe_id), address));
        self
    }

    /// Calls of `capability`, on whichever agent, give `result`. Calls of what was never mentioned
    /// fail: the other agent has no such capability.
    pub fn answers(mut self, capability: &str, result: impl Serialize) -> Self {
        let result = Json::of(&result).map_err(|error| error.to_string());
        self.answers.insert(capability.to_owned(), Prepared::Answer(result));
        self
    }

    /// Calls of `capability` are refused with this sentence.
    pub fn refuses(mut self, capability: &str, message: &str) -> Self {
        self.answers.insert(capability.to_owned(), Prepared::Refusal(message.to_owned()));
        self
    }

    /// Calls of `capability` are never answered; they time out.
    pub fn never_answers(mut self, capability: &str) -> Self {
        self.answers.insert(capability.to_owned(), Prepared::Nothing);
        self
    }

    /// The handler works on a task: it may say how far it is, give artifacts, and ask.
    pub fn task(mut self) -> Self {
        self.is_task = true;
        self
    }

    /// The caller's answer to the next question of the handler that has none yet.
    pub fn replies(self, answer: impl Serialize) -> Self {
        let answer = Json::of(&answer).map_err(|error| error.to_string());
        lock(&self.replies).push_back(answer);
        self
    }

    /// The handler is run again, for this attempt at its task; the first is 1.
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// What the last checkpoint of an earlier attempt says.
    pub fn checkpoint(mut self, value: impl Serialize) -> Self {
        self.checkpoint = Some(Json::of(&value).map_err(|error| error.to_string()));
        self
    }

    /// The answer is of no more use after this long.
    pub fn deadline(mut self, after: Duration) -> Self {
        self.deadline = Some(after);
        self
    }

    /// Cancels what the handler works on when it is cancelled itself.
    pub fn cancelled_by(mut self, token: CancellationToken) -> Self {
        self.cancelled = token;
        self
    }

    /// The context. What is recorded of several is recorded together.
    ///
    /// # Panics
    ///
    /// If the checkpoint of an earlier attempt is no JSON.
    #[must_use]
    pub fn build(&self) -> Context {
        let outlet = Recorded {
            outputs: Arc::clone(&self.outputs),
            checkpoints: Arc::clone(&self.checkpoints),
            replies: Arc::clone(&self.replies),
        };
        Context::new(ContextParts {
            caller: self.caller.clone(),
            request_id: parsed(RequestId::parse("test-request")),
            task_id: self.is_task.then(|| parsed(TaskId::parse("test-task"))),
            context_id: None,
            deadline: self
                .deadline
                .and_then(|after| tokio::time::Instant::now().into_std().checked_add(after)),
            trace: TraceContext::root(1, 1, false),
            cancelled: self.cancelled.clone(),
            attempt: self.attempt,
            checkpoint: self.checkpoint.clone().map(|value| match value {
                Ok(value) => value,
                Err(cause) => panic!("the test's checkpoint is no JSON: {cause}"),
            }),
            config: Arc::new(self.config.clone()),
            span: tracing::Span::none(),
            outbound: Arc::new(Answers {
                caller: self.config.spiffe_id.clone(),
                answers: self.answers.clone(),
                calls: self.calls.clone(),
            }),
            outlet: self.is_task.then(|| Arc::new(outlet) as Arc<dyn Outlet>),
        })
    }

    /// The calls that handlers made of other agents.
    #[must_use]
    pub fn calls(&self) -> CallLog {
        self.calls.clone()
    }

    /// The progress that handlers told, in words.
    #[must_use]
    pub fn progress(&self) -> Vec<String> {
        let told = |output: &Output| match output {
            Output::Progress { text, .. } => Some(text.clone()),
            Output::Artifact { .. } => None,
        };
        lock(&self.outputs).iter().filter_map(told).collect()
    }

    /// The checkpoints that handlers left, the last one last.
    #[must_use]
    pub fn checkpoints(&self) -> Vec<Json> {
        lock(&self.checkpoints).clone()
    }

    /// Everything that handlers said before their ends.
    #[must_use]
    pub fn outputs(&self) -> Vec<Output> {
        lock(&self.outputs).clone()
    }
}

/// Answers calls as the test prepared them.
struct Answers {
    caller: SpiffeId,
    answers: BTreeMap<String, Prepared>,
    calls: CallLog,
}

impl Outbound for Answers {
    fn call(&self, call: OutboundCall) -> BoxFuture<'_, Result<Json, CallError>> {
        let OutboundCall { agent, capability, params, .. } = call;
        let caller = Principal::from_verified_svid(self.caller.clone(), &agent);
        let caller = Caller::Principal(Arc::new(caller));
        self.calls.add(LoggedCall { caller, capability: capability.clone(), params });
        let answer = match self.answers.get(capability.as_str()) {
            Some(Prepared::Answer(Ok(result))) => Ok(result.clone()),
            Some(Prepared::Answer(Err(cause))) => {
                let cause = format!("the test's answer is no JSON: {cause}");
                Err(AgentCallError::Protocol { agent, capability, cause }.into())
            }
            Some(Prepared::Refusal(message)) => {
                let message = message.clone();
                Err(Refusal { agent, capability, message, at_handshake: false }.into())
            }
            Some(Prepared::Nothing) => return Box::pin(std::future::pending()),
            None => {
                let (capability, message) =
                    (capability.to_string(), "the test prepared no answer".to_owned());
                Err(AgentCallError::UnknownCapability { agent, capability, message }.into())
            }
        };
        Box::pin(std::future::ready(answer))
    }
}

/// Keeps what a handler says, and answers its questions.
struct Recorded {
    outputs: Arc<Mutex<Vec<Output>>>,
    checkpoints: Arc<Mutex<Vec<Json>>>,
    replies: Arc<Mutex<VecDeque<Result<Json, String>>>>,
}

impl Outlet for Recorded {
    fn emit(&self, output: Output) -> BoxFuture<'_, Result<(), OutputError>> {
        self.leave(output);
        Box::pin(std::future::ready(Ok(())))
    }

    fn leave(&self, output: Output) {
        lock(&self.outputs).push(output);
    }

    fn checkpoint(&self, value: Json) -> BoxFuture<'_, Result<(), OutputError>> {
        lock(&self.checkpoints).push(value);
        Box::pin(std::future::ready(Ok(())))
    }

    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Message, AskError>> {
        let answered = || {
            let Some(reply) = lock(&self.replies).pop_front() else {
                let why = format!("the test prepared no answer to `{}`", question.text);
                return Err(OutputError::Refused(why).into());
            };
            let reply = reply.map_err(OutputError::Json)?;
            let id = parsed(MessageId::parse("test-answer"));
            let message = Message::new(id, Role::User, vec![Part::new(Content::Data(reply))]);
            match question.schema.as_ref().map(|schema| schema.check(&message)) {
                // In a mesh the caller would read this, and the task would go on waiting.
                Some(Err(fault)) => Err(AskError::Shape(fault.message)),
                _ => Ok(message),
            }
        };
        Box::pin(std::future::ready(answered()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn id(text: &str) -> SpiffeId {
    match SpiffeId::parse(text) {
        Ok(id) => id,
        Err(error) => panic!("`{text}`: {error}"),
    }
}

/// A name that is written in this file.
fn parsed<T, E: std::fmt::Display>(name: Result<T, E>) -> T {
    match name {
        Ok(name) => name,
        Err(error) => panic!("a name of the test utilities: {error}"),
    }
}
