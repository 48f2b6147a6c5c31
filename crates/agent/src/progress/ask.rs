//! Questions to the caller.

use std::future::IntoFuture;

use convoke_model::{Content, Fault, Json, Message, Part, limits};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::{AskError, OutputError, Question, QuestionKind, bounded};
use crate::schema::Compiled;
use crate::{BoxFuture, Context, IntoSchema, input_schema_of};

/// A question that has yet to be put; await it for the caller's message, or one of the methods for
/// what is in it.
#[derive(Debug)]
#[must_use = "a question is put when it is awaited"]
pub struct Ask<'a> {
    context: &'a Context,
    kind: QuestionKind,
    text: String,
    schema: Option<Result<serde_json::Value, String>>,
}

impl<'a> Ask<'a> {
    pub(super) fn new(context: &'a Context, kind: QuestionKind, text: String) -> Self {
        Self { context, kind, text, schema: None }
    }

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
            let Self { context, kind, text, schema } = self;
            let outlet = context.outlet().ok_or(AskError::Ephemeral)?;
            bounded(text.len())?;
            let schema = match schema {
                Some(schema) => Some(AnswerSchema::new(schema.map_err(AskError::Schema)?)?),
                None => None,
            };
            outlet.ask(Question { kind, text, schema }).await
        })
    }
}

/// What an answer has to be.
#[derive(Debug)]
pub struct AnswerSchema {
    json: Json,
    compiled: Compiled,
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
