//! What a handler says before its end: how far it is, results as they come, from where it could go
//! on, and questions.
//!
//! All of it belongs to the handler's task and leaves in the order in which it was said. None of it
//! can be seen before the task itself is kept.

mod artifact;
mod ask;
mod checkpoint;
#[cfg(test)]
mod tests;

use std::future::IntoFuture;

use convoke_model::{Artifact, IdError, Json, Message, limits};

use crate::{BoxFuture, Context, HandlerError};

pub use artifact::ArtifactWriter;
pub use ask::{AnswerSchema, Ask};

/// Largest piece of an artifact, and longest text of progress or a question, in bytes.
///
/// A quarter of what a slow reader may be behind, so that one piece is never what cuts it.
pub const PIECE_BYTES_MAX: usize = 256 * 1024;

/// Where what a handler says goes to; the node implements it for each task.
pub trait Outlet: Send + Sync + 'static {
    /// Takes `output`, and waits for room while readers and storage are behind. It is taken when
    /// this returns, and committed after what was taken before it and before the task's end.
    ///
    /// # Errors
    ///
    /// [`OutputError::Ended`] and [`OutputError::Refused`].
    fn emit(&self, output: Output) -> BoxFuture<'_, Result<(), OutputError>>;

    /// Takes `output` without waiting: the last words of a writer that is dropped.
    fn leave(&self, output: Output);

    /// Takes `value` as that from which the handler can go on, and waits until it is committed: as
    /// durable as a task is when its caller is told of it.
    ///
    /// # Errors
    ///
    /// [`OutputError::Ended`] and [`OutputError::Refused`].
    fn checkpoint(&self, value: Json) -> BoxFuture<'_, Result<(), OutputError>>;

    /// Asks the caller and waits for the answer, which has passed the question's schema. Dropping
    /// the future withdraws the question.
    ///
    /// # Errors
    ///
    /// [`AskError`] other than [`AskError::Ephemeral`] and [`AskError::Schema`].
    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Message, AskError>>;
}

/// Something that a handler says before its end.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// How far it is.
    Progress {
        /// In words.
        text: String,
        /// As a share of the whole, from 0 to 1.
        fraction: Option<f64>,
    },
    /// A result, or a piece of one.
    Artifact {
        /// The result, or the piece.
        artifact: Artifact,
        /// Whether it is added to what there is under its name.
        append: bool,
        /// Whether the result is complete with it.
        last: bool,
    },
}

/// What a handler asks its caller.
#[derive(Debug)]
pub struct Question {
    /// What the task waits for.
    pub kind: QuestionKind,
    /// In words.
    pub text: String,
    /// What an answer has to be; `None` takes any message.
    pub schema: Option<AnswerSchema>,
}

/// What a task waits for once its handler has asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum QuestionKind {
    /// An answer: `TASK_STATE_INPUT_REQUIRED`.
    #[default]
    Input,
    /// That the caller signs in somewhere, and says so: `TASK_STATE_AUTH_REQUIRED`.
    Authorization,
}

/// Why something that a handler said was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    /// Ephemeral calls have no task that could hold an artifact.
    #[error("an ephemeral capability gives no artifacts; take `ephemeral` away from it")]
    Ephemeral,
    /// Ephemeral calls have no task that could go on.
    #[error("an ephemeral capability has no checkpoints; take `ephemeral` away from it")]
    NoCheckpoint,
    /// The task has ended, for example because its owner cancelled it.
    #[error("the task has ended")]
    Ended,
    /// More than goes out in one piece.
    #[error("a piece may have {PIECE_BYTES_MAX} bytes, and this has {bytes}; send it in several")]
    TooLarge {
        /// How many it has.
        bytes: usize,
    },
    /// More than a checkpoint may have.
    #[error(
        "a checkpoint may have {} bytes, and this has {bytes}; keep the rest in an artifact, or \
         elsewhere",
        limits::CHECKPOINT_BYTES_MAX
    )]
    CheckpointTooLarge {
        /// How many it has.
        bytes: usize,
    },
    /// A name that no artifact can have.
    #[error("the artifact's name {0}")]
    Name(#[from] IdError),
    /// A value that JSON cannot hold.
    #[error("it is no JSON: {0}")]
    Json(String),
    /// The task could not keep it; neither can it keep what would follow.
    #[error("the task could not keep it: {0}")]
    Refused(String),
}

/// Why a handler has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Ephemeral calls have no task that could wait.
    #[error("an ephemeral capability cannot ask; take `ephemeral` away from it")]
    Ephemeral,
    /// One question at a time.
    #[error("the task has a question open already; await its answer first")]
    Busy,
    /// More tasks of the same caller wait than may.
    #[error("the caller has {max} tasks that wait for its answers; it has to answer some first")]
    TooMany {
        /// How many may.
        max: usize,
    },
    /// A schema that is none, or that we do not take.
    #[error("the answer's schema: {0}")]
    Schema(String),
    /// An answer that has passed the schema and is still of another shape than the handler wants.
    #[error("the answer {0}")]
    Shape(String),
    /// The question could not be put.
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Context {
    /// Says how far the work is: the task's status shows `text` until something else is said. In an
    /// ephemeral call nobody could see it, and it goes nowhere.
    ///
    /// ```
    /// # async fn handler(ctx: convoke_agent::Context) -> Result<(), convoke_agent::HandlerError> {
    /// ctx.progress("reading").await?;
    /// ctx.progress("half of it read").fraction(0.5).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "progress is said when it is awaited"]
    pub fn progress(&self, text: impl Into<String>) -> Progress<'_> {
        Progress { context: self, text: text.into(), fraction: None }
    }

    /// Begins a result that is given before the handler's end. `name` names it within the task: a
    /// second one of the same name replaces the first.
    ///
    /// ```
    /// # async fn handler(ctx: convoke_agent::Context) -> Result<(), convoke_agent::HandlerError> {
    /// let mut summary = ctx.artifact("summary");
    /// summary.text("It was a dark ").await?;
    /// summary.text("and stormy night").await?;
    /// summary.finish().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "an artifact is made by its first piece"]
    pub fn artifact(&self, name: &str) -> ArtifactWriter {
        ArtifactWriter::new(self, name)
    }

    /// Asks the caller: the task waits in `TASK_STATE_INPUT_REQUIRED` until the caller sends a
    /// message that names it. Without a schema any message is an answer; with one, what does not
    /// fit is refused, and the task goes on waiting.
    ///
    /// A question has no end of its own; `tokio::time::timeout` around it withdraws it.
    ///
    /// A handler that is run again asks again what it had asked, and is told at once what was
    /// answered then, so nobody is asked twice; a question is known by its words and its schema. What
    /// was answered before the last [`checkpoint`](Self::checkpoint) is not told again.
    ///
    /// ```
    /// # async fn handler(ctx: convoke_agent::Context) -> Result<(), convoke_agent::HandlerError> {
    /// let colour: String = ctx.ask("which colour?").into().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "a question is put when it is awaited"]
    pub fn ask(&self, question: impl Into<String>) -> Ask<'_> {
        Ask::new(self, QuestionKind::Input, question.into())
    }

    /// Asks the caller to sign in somewhere, as `instruction` says: the task waits in
    /// `TASK_STATE_AUTH_REQUIRED` until the caller sends a message that names it. In all else it is
    /// as [`ask`](Self::ask).
    ///
    /// That message is the word of the caller, and no credential; nothing is authorized by it.
    /// Whether the caller has signed in is for the handler to find out where it sent it to.
    ///
    /// ```
    /// # async fn handler(ctx: convoke_agent::Context) -> Result<(), convoke_agent::HandlerError> {
    /// ctx.authorization("let us read your calendar at https://calendar.example.org/grant").await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "a question is put when it is awaited"]
    pub fn authorization(&self, instruction: impl Into<String>) -> Ask<'_> {
        Ask::new(self, QuestionKind::Authorization, instruction.into())
    }
}

/// Progress that has yet to be said; await it.
#[derive(Debug)]
#[must_use = "progress is said when it is awaited"]
pub struct Progress<'a> {
    context: &'a Context,
    text: String,
    fraction: Option<f64>,
}

impl Progress<'_> {
    /// Adds how far the work is as a share of the whole: 0 is nothing of it and 1 all. What lies
    /// outside is moved to the nearer end, and what is no number is left out.
    pub fn fraction(mut self, fraction: f64) -> Self {
        self.fraction = (!fraction.is_nan()).then(|| fraction.clamp(0.0, 1.0));
        self
    }
}

impl<'a> IntoFuture for Progress<'a> {
    type Output = Result<(), OutputError>;
    type IntoFuture = BoxFuture<'a, Result<(), OutputError>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { context, text, fraction } = self;
            bounded(text.len())?;
            match context.outlet() {
                Some(outlet) => outlet.emit(Output::Progress { text, fraction }).await,
                None => Ok(()),
            }
        })
    }
}

/// The caller reads that the handler could not say something, and why.
impl From<OutputError> for HandlerError {
    fn from(error: OutputError) -> Self {
        Self::new(error.to_string()).caused_by(error)
    }
}

/// The caller reads why it was not asked.
impl From<AskError> for HandlerError {
    fn from(error: AskError) -> Self {
        Self::new(error.to_string()).caused_by(error)
    }
}

fn bounded(bytes: usize) -> Result<(), OutputError> {
    if bytes > PIECE_BYTES_MAX { Err(OutputError::TooLarge { bytes }) } else { Ok(()) }
}
