//! What an agent says, as messages and artifacts.

use convoke_a2a::headers::CAPABILITY_EXTENSION;
use convoke_agent::{Output, Question};
use convoke_engine::Event;
use convoke_model::{Artifact, Content, Fault, FaultCode, Json, Message, Part, Role};
use serde_json::json;

use crate::ids;

/// What the engine is told of `output`.
pub(super) fn event_of(output: Output) -> Event {
    match output {
        Output::Progress { text, fraction } => {
            let mut message = words(text);
            // A share is a finite number, so there always is a JSON of it.
            if let Some(metadata) = fraction.and_then(|it| extension(json!({"progress": it})).ok())
            {
                message.metadata = Some(metadata);
                message.extensions = vec![CAPABILITY_EXTENSION.to_owned()];
            }
            Event::HandlerProgress(message)
        }
        Output::Artifact { artifact, append, last } => {
            Event::HandlerArtifact { artifact, append, last }
        }
    }
}

/// A question as the caller reads it, with the schema of its answer.
pub(super) fn question(question: &Question) -> Result<Message, Fault> {
    let mut message = words(question.text.clone());
    if let Some(schema) = &question.schema {
        message.metadata = Some(extension(json!({"answerSchema": schema.json()}))?);
        message.extensions = vec![CAPABILITY_EXTENSION.to_owned()];
    }
    Ok(message)
}

/// The metadata of a message that says `what` in the terms of our extension.
fn extension(what: serde_json::Value) -> Result<Json, Fault> {
    let metadata = json!({CAPABILITY_EXTENSION: what});
    Json::of(&metadata).map_err(|error| Fault::new(FaultCode::Internal, error.to_string()))
}

/// A handler's result.
pub(super) fn artifact(result: Json) -> Artifact {
    Artifact {
        artifact_id: ids::artifact(),
        name: None,
        description: None,
        parts: vec![Part::new(Content::Data(result))],
        metadata: None,
        extensions: Vec::new(),
        unknown: Vec::new(),
    }
}

/// A message of the agent's own.
pub(super) fn words(text: String) -> Message {
    Message::new(ids::message(), Role::Agent, vec![Part::new(Content::Text(text))])
}
