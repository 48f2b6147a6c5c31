//! What a handler says before its end: how far it is, results as they come, and questions.
//!
//! All of it belongs to the handler's task and leaves in the order in which it was said. None of it
//! can be seen before the task itself is kept.

use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use convoke_model::{Artifact, ArtifactId, Content, Fault, IdError, Json, Message, Part, limits};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::schema::Compiled;
use crate::{BoxFuture, Context, HandlerError, IntoSchema, input_schema_of};

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
    /// In words.
    pub text: String,
    /// What an answer has to be; `None` takes any message.
    pub schema: Option<AnswerSchema>,
}

/// What an answer has to be.
#[derive(Debug)]
pub struct AnswerSchema {
    json: Json,
    compiled: Compiled,
}

/// Why something that a handler said was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    /// Ephemeral calls have no task that could hold an artifact.
    #[error("an ephemeral capability gives no artifacts; take `ephemeral` away from it")]
    Ephemeral,
    /// The task has ended, for example because its owner cancelled it.
    #[error("the task has ended")]
    Ended,
    /// More than goes out in one piece.
    #[error("a piece may have {PIECE_BYTES_MAX} bytes, and this has {bytes}; send it in several")]
    TooLarge {
        /// How many it has.
        bytes: usize,
    },
    /// A name that no artifact can have.
    #[error("the artifact's name {0}")]
    Name(#[from] IdError),
    /// A value that JSON cannot hold.
    #[error("the piece is no JSON: {0}")]
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
        ArtifactWriter {
            outlet: self.outlet().cloned(),
            id: ArtifactId::parse(name),
            begun: false,
            held: None,
        }
    }

    /// Asks the caller: the task waits in `TASK_STATE_INPUT_REQUIRED` until the caller sends a
    /// message that names it. Without a schema any message is an answer; with one, what does not
    /// fit is refused, and the task goes on waiting.
    ///
    /// A question has no end of its own; `tokio::time::timeout` around it withdraws it.
    ///
    /// ```
    /// # async fn handler(ctx: convoke_agent::Context) -> Result<(), convoke_agent::HandlerError> {
    /// let colour: String = ctx.ask("which colour?").into().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "a question is put when it is awaited"]
    pub fn ask(&self, question: impl Into<String>) -> Ask<'_> {
        Ask { context: self, text: question.into(), schema: None }
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

/// A result that is given piece by piece. Each piece can be seen as soon as it is committed, except
/// that data and bytes wait for what follows: only then is it known whether they were the last.
///
/// Dropped without [`finish`](Self::finish) it has all of its pieces, and nobody is told that it is
/// complete.
pub struct ArtifactWriter {
    outlet: Option<Arc<dyn Outlet>>,
    id: Result<ArtifactId, IdError>,
    /// Whether a piece was taken.
    begun: bool,
    /// Data or bytes that go out with the next piece, as the last one, or on drop.
    held: Option<Part>,
}

impl ArtifactWriter {
    /// Adds text. Readers who come later get texts that follow each other as one.
    ///
    /// # Errors
    ///
    /// [`OutputError`].
    pub async fn text(&mut self, text: impl Into<String>) -> Result<(), OutputError> {
        let text = text.into();
        bounded(text.len())?;
        self.release(false).await?;
        self.emit(Part::new(Content::Text(text)), false).await
    }

    /// Adds a value as data.
    ///
    /// # Errors
    ///
    /// [`OutputError`].
    pub async fn data(&mut self, value: impl Serialize) -> Result<(), OutputError> {
        let json = Json::of(&value).map_err(|error| OutputError::Json(error.to_string()))?;
        bounded(json.get().len())?;
        self.hold(Part::new(Content::Data(json))).await
    }

    /// Adds bytes of a media type, such as `image/png`.
    ///
    /// # Errors
    ///
    /// [`OutputError`].
    pub async fn bytes(&mut self, bytes: &[u8], media_type: &str) -> Result<(), OutputError> {
        bounded(bytes.len().div_ceil(3) * 4)?;
        let mut part = Part::new(Content::Raw(BASE64_STANDARD.encode(bytes)));
        part.media_type = Some(media_type.to_owned());
        self.hold(part).await
    }

    /// Says that the artifact is complete. One without a piece is not made.
    ///
    /// # Errors
    ///
    /// [`OutputError`].
    pub async fn finish(mut self) -> Result<(), OutputError> {
        if self.held.is_some() {
            return self.release(true).await;
        }
        if !self.begun {
            return Ok(());
        }
        // A piece has a part. An empty text is joined to the text before it.
        self.emit(Part::new(Content::Text(String::new())), true).await
    }

    async fn hold(&mut self, part: Part) -> Result<(), OutputError> {
        self.outlet()?;
        self.release(false).await?;
        self.held = Some(part);
        Ok(())
    }

    async fn release(&mut self, last: bool) -> Result<(), OutputError> {
        match self.held.take() {
            Some(part) => self.emit(part, last).await,
            None => Ok(()),
        }
    }

    async fn emit(&mut self, part: Part, last: bool) -> Result<(), OutputError> {
        let outlet = self.outlet()?;
        let output = self.output(part, last)?;
        // Before the wait: if that is dropped, the piece may have been taken.
        self.begun = true;
        outlet.emit(output).await
    }

    fn output(&self, part: Part, last: bool) -> Result<Output, OutputError> {
        let artifact_id = self.id.clone()?;
        let artifact = Artifact {
            name: Some(artifact_id.to_string()),
            artifact_id,
            description: None,
            parts: vec![part],
            metadata: None,
            extensions: Vec::new(),
            unknown: Vec::new(),
        };
        Ok(Output::Artifact { artifact, append: self.begun, last })
    }

    fn outlet(&self) -> Result<Arc<dyn Outlet>, OutputError> {
        self.id.as_ref().map_err(|error| OutputError::Name(error.clone()))?;
        self.outlet.clone().ok_or(OutputError::Ephemeral)
    }
}

impl Drop for ArtifactWriter {
    fn drop(&mut self) {
        if let Some(part) = self.held.take()
            && let (Ok(outlet), Ok(output)) = (self.outlet(), self.output(part, false))
        {
            outlet.leave(output);
        }
    }
}

impl fmt::Debug for ArtifactWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArtifactWriter").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A question that has yet to be put; await it for the caller's message, or one of the methods for
/// what is in it.
#[derive(Debug)]
#[must_use = "a question is put when it is awaited"]
pub struct Ask<'a> {
    context: &'a Context,
    text: String,
    schema: Option<Result<serde_json::Value, String>>,
}

impl<'a> Ask<'a> {
    /// Takes only answers that pass `schema`. The caller reads the schema with the question.
    pub fn schema(mut self, schema: impl IntoSchema) -> Self {
        self.schema = Some(schema.into_schema());
        self
    }

    /// The answer's text.
    ///
    /// # Errors
    ///
    /// [`AskError`].
    pub async fn text(self) -> Result<String, AskError> {
        let is_text = serde_json::json!({"type": "string"});
        let asked = if self.schema.is_some() { self } else { self.schema(is_text) };
        asked.read().await
    }

    /// The answer's value: its data part, or its text as a JSON string.
    ///
    /// # Errors
    ///
    /// [`AskError`].
    pub async fn json(self) -> Result<Json, AskError> {
        let asked = if self.schema.is_some() { self } else { self.schema(serde_json::json!({})) };
        let message = asked.await?;
        value_of(&message).map_err(|fault| AskError::Shape(fault.message))
    }

    /// The answer as a `T`, whose schema it has to pass unless another one was given.
    ///
    /// # Errors
    ///
    /// [`AskError`].
    pub async fn into<T: DeserializeOwned + JsonSchema>(self) -> Result<T, AskError> {
        let asked = if self.schema.is_some() { self } else { self.schema(input_schema_of::<T>()) };
        asked.read().await
    }

    async fn read<T: DeserializeOwned>(self) -> Result<T, AskError> {
        let json = self.json().await?;
        json.to().map_err(|error| AskError::Shape(format!("cannot be read: {error}")))
    }
}

impl<'a> IntoFuture for Ask<'a> {
    type Output = Result<Message, AskError>;
    type IntoFuture = BoxFuture<'a, Result<Message, AskError>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { context, text, schema } = self;
            let outlet = context.outlet().ok_or(AskError::Ephemeral)?;
            bounded(text.len())?;
            let schema = match schema {
                Some(schema) => Some(AnswerSchema::new(schema.map_err(AskError::Schema)?)?),
                None => None,
            };
            outlet.ask(Question { text, schema }).await
        })
    }
}

impl AnswerSchema {
    /// Compiles `schema`.
    ///
    /// # Errors
    ///
    /// [`AskError::Schema`] if it is none, and [`AskError::Output`] if it is larger than a question
    /// may be.
    pub fn new(schema: serde_json::Value) -> Result<Self, AskError> {
        let compiled = Compiled::new(&schema).map_err(AskError::Schema)?;
        let json = Json::of(&schema).map_err(|error| AskError::Schema(error.to_string()))?;
        // It travels as metadata, and readers take no larger ones.
        if json.get().len() > limits::METADATA_BYTES_MAX / 2 {
            return Err(OutputError::TooLarge { bytes: json.get().len() }.into());
        }
        Ok(Self { json, compiled })
    }

    /// The schema as the caller reads it.
    #[must_use]
    pub fn json(&self) -> &Json {
        &self.json
    }

    /// Whether `answer` is one: its value is that of its only data part, or its only text part as a
    /// JSON string.
    ///
    /// # Errors
    ///
    /// [`InvalidParams`](convoke_model::FaultCode::InvalidParams) with the first violations.
    pub fn check(&self, answer: &Message) -> Result<(), Fault> {
        match self.compiled.violations(&value_of(answer)?) {
            none if none.is_empty() => Ok(()),
            violations => Err(Fault::invalid_params(violations)),
        }
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

/// The value that a message stands for.
fn value_of(message: &Message) -> Result<Json, Fault> {
    let wrong = |what: String| Err(Fault::invalid_field("message.parts", what));
    match message.parts.as_slice() {
        [Part { content: Content::Data(data), .. }] => Ok(data.clone()),
        [Part { content: Content::Text(text), .. }] => {
            Json::of(text).or_else(|error| wrong(error.to_string()))
        }
        [_] => wrong("must be one data part or one text part, not a file".to_owned()),
        parts => wrong(format!("must be one data part or one text part, not {}", parts.len())),
    }
}

fn bounded(bytes: usize) -> Result<(), OutputError> {
    if bytes > PIECE_BYTES_MAX { Err(OutputError::TooLarge { bytes }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
