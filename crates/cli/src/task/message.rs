//! The message that the command line describes.

use convoke::{CapabilityName, Json, UnixMillis};
use convoke_a2a::capability::capability_metadata;
use convoke_a2a::headers::{CAPABILITY_EXTENSION, IDEMPOTENT_SEND_EXTENSION};
use convoke_a2a::terms::{DEADLINE, PRIORITY};
use convoke_a2a::{ScanLimits, scan};
use convoke_model::{
    Content, Message, MessageId, Part, Priority, Role, SendConfiguration, SendMessage, TaskId,
};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::asked::Asked;
use super::millis;
use crate::args::{self, Urgency, When};
use crate::exit::{Code, Failure};
use crate::input;

/// A message that begins a task, sent at `now`.
pub(super) fn beginning(options: args::Message, now: UnixMillis) -> Result<SendMessage, Failure> {
    let args::Message { content, capability, params, context, reference, priority, deadline } =
        options;
    let capability = capability.map(|name| {
        CapabilityName::parse(&name).map_err(|error| {
            Failure::new(Code::Usage, format_args!("--capability `{name}` {error}"))
        })
    });
    let capability = capability.transpose()?;
    let said = match (&content.text, &content.data) {
        (None, None) if capability.is_some() => {
            Content::Data(input::params(params.as_deref().unwrap_or("{}"))?)
        }
        _ => said(&content)?,
    };
    let mut message = message(&content, said)?;
    if let Some(name) = &capability {
        message.metadata = Some(capability_metadata(name));
        message.extensions.push(CAPABILITY_EXTENSION.to_owned());
    }
    message.context_id = context;
    message.reference_task_ids = reference;
    let mut terms = Map::new();
    if let Some(priority) = priority {
        terms.insert(PRIORITY.into(), word(priority).into());
    }
    if let Some(deadline) = deadline {
        let at = match deadline {
            When::At(at) => at,
            When::Apart(apart) => now.plus_millis(millis(apart)),
        };
        terms.insert(DEADLINE.into(), at.to_string().into());
    }
    let metadata = (!terms.is_empty()).then(|| Json::of(&Value::Object(terms))).transpose();
    let metadata = metadata.map_err(|error| Failure::new(Code::Usage, error))?;
    Ok(SendMessage { metadata, ..plain(message) })
}

/// A message to a task that waits for it.
pub(super) fn answer(content: args::Content, task: TaskId) -> Result<SendMessage, Failure> {
    let said = said(&content)?;
    let mut message = message(&content, said)?;
    message.task_id = Some(task);
    Ok(plain(message))
}

/// Says as JSON what was given as a text that is some, where no text is an answer.
pub(super) fn fit(send: &mut SendMessage, asked: &Asked) {
    if !asked.takes_no_text() {
        return;
    }
    for part in &mut send.message.parts {
        if let Content::Text(text) = &part.content
            && let Ok(json) = checked(text)
        {
            part.content = Content::Data(json);
        }
    }
}

fn plain(message: Message) -> SendMessage {
    let configuration = SendConfiguration::default();
    SendMessage { tenant: None, message, configuration, metadata: None }
}

fn said(content: &args::Content) -> Result<Content, Failure> {
    match (&content.text, &content.data) {
        (Some(text), _) if text == "-" => input::text("-").map(Content::Text),
        (Some(text), _) => Ok(Content::Text(text.clone())),
        (None, Some(data)) => json(data).map(Content::Data),
        (None, None) => Err(Failure::new(Code::Usage, "nothing is said")
            .hint("give a text, or --data, or --capability with its --params")),
    }
}

/// Any JSON value, as far as an agent would take it.
fn json(source: &str) -> Result<Json, Failure> {
    checked(&input::json_text(source)?)
}

fn checked(text: &str) -> Result<Json, Failure> {
    let text = text.trim();
    scan(text.as_bytes(), &ScanLimits::REQUEST)
        .map_err(|error| Failure::new(Code::Usage, format_args!("--data: {error}")))?;
    Json::parse(text)
        .map_err(|error| Failure::new(Code::Usage, format_args!("--data is not JSON: {error}")))
}

fn message(content: &args::Content, said: Content) -> Result<Message, Failure> {
    let id = match &content.message_id {
        Some(id) => id.clone(),
        None => MessageId::parse(&Uuid::new_v4().to_string())
            .map_err(|error| Failure::new(Code::Failure, error))?,
    };
    let mut message = Message::new(id, Role::User, vec![Part::new(said)]);
    if content.idempotent {
        message.extensions.push(IDEMPOTENT_SEND_EXTENSION.to_owned());
    }
    Ok(message)
}

fn word(urgency: Urgency) -> &'static str {
    match urgency {
        Urgency::Low => Priority::Low,
        Urgency::Normal => Priority::Normal,
        Urgency::High => Priority::High,
        Urgency::Urgent => Priority::Urgent,
    }
    .as_str()
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use convoke_a2a::capability::named_capability;
    use convoke_a2a::terms::terms_of;

    use super::*;
    use crate::args::{Cli, Command, Task};

    fn sent(line: &[&str]) -> Result<SendMessage, Failure> {
        let line = ["convoke", "task", "send", "--address", "http://h"].iter().chain(line);
        match Cli::try_parse_from(line).map(|cli| cli.command) {
            Ok(Command::Task(Task::Send(options))) => beginning(options.message, UnixMillis(1000)),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(Failure::new(Code::Usage, error)),
        }
    }

    #[test]
    fn what_is_said_is_text_json_or_parameters() {
        let check = |line: &[&str], expected: Content| {
            assert_eq!(sent(line).unwrap().message.parts, [Part::new(expected)], "{line:?}");
        };
        let data = |text: &str| Content::Data(Json::parse(text).unwrap());
        check(&["hello"], Content::Text("hello".into()));
        check(&["--data", "[1.0]"], data("[1.0]"));
        check(&["--capability", "count"], data("{}"));
        check(&["--capability", "count", "--params", r#"{"n":42.0}"#], data(r#"{"n":42.0}"#));
        check(&["--capability", "count", "hello"], Content::Text("hello".into()));
        for wrong in [
            &[][..],
            &["a", "--data", "1"],
            &["--data", "{"],
            &["--data", r#"{"a":1,"a":2}"#],
            &["--params", "{}"],
            &["--capability", "a b"],
            &["--capability", "count", "--params", "[]"],
            &["--capability", "count", "--params", "{}", "hello"],
            &["a", "--message-id", "a\n"],
            &["a", "--no-wait", "--out", "x"],
        ] {
            assert_eq!(sent(wrong).unwrap_err().code, Code::Usage, "{wrong:?}");
        }
    }

    #[test]
    fn what_stands_beside_the_words_is_where_agents_read_it() {
        let line = [
            "hello",
            "--capability",
            "count",
            "--message-id",
            "m1",
            "--idempotent",
            "--context",
            "c1",
            "--reference",
            "t1",
            "--reference",
            "t2",
            "--priority",
            "high",
            "--deadline",
            "2s",
        ];
        let send = sent(&line).unwrap();
        let message = &send.message;
        assert_eq!(message.message_id.as_str(), "m1");
        assert_eq!(named_capability(message).unwrap(), CapabilityName::parse("count").ok());
        assert_eq!(message.extensions, [IDEMPOTENT_SEND_EXTENSION, CAPABILITY_EXTENSION]);
        assert_eq!(message.context_id.as_ref().unwrap().as_str(), "c1");
        let references: Vec<_> = message.reference_task_ids.iter().map(TaskId::as_str).collect();
        assert_eq!(references, ["t1", "t2"]);
        let terms = terms_of(&send).unwrap();
        assert_eq!(terms.priority, Priority::High);
        assert_eq!(terms.deadline, Some(UnixMillis(3000)));
        let bare = sent(&["hello"]).unwrap();
        assert_eq!((bare.metadata, bare.message.metadata), (None, None));
        assert_ne!(bare.message.message_id, sent(&["hello"]).unwrap().message.message_id);
    }
}
