//! Methods and their parameters.

use convoke_model::{
    CancelTask, ContextId, Cursor, Fault, FaultCode, GetTask, ListTasks, Operation,
    SendConfiguration, SendMessage, SubscribeToTask, TaskId, TaskState, limits,
};

use crate::fault;
use crate::read;
use crate::reader::{Path, Problems, Reader, object};
use crate::scalar::{boolean, choice, count, id, instant, metadata, name, names, string};

const SERVED: &str = "served are `SendMessage`, `SendStreamingMessage`, `GetTask`, `ListTasks`, \
                      `CancelTask`, `SubscribeToTask`";

/// The operation that `method` with `params` asks for. What the caller has seen of a task stands in
/// the header and not in the parameters; `after` reads it, for the method that it means something to.
pub(super) fn operation(
    method: &str,
    params: Option<&str>,
    after: impl FnOnce() -> Result<Option<Cursor>, Fault>,
) -> Result<Operation, Fault> {
    const PUSH: &str = "push notifications are not served yet; use `SubscribeToTask`";
    let unserved = |code, why: &str| Err(Fault::new(code, format!("`{method}`: {why}")));
    match method {
        "SendMessage" => send_message(params).map(Operation::SendMessage),
        "SendStreamingMessage" => send_message(params).map(Operation::SendStreamingMessage),
        "GetTask" => get_task(params).map(Operation::GetTask),
        "CancelTask" => cancel_task(params).map(Operation::CancelTask),
        "SubscribeToTask" => subscribe_to_task(params, after).map(Operation::SubscribeToTask),
        "ListTasks" => list_tasks(params).map(Operation::ListTasks),
        "GetExtendedAgentCard" => unserved(
            FaultCode::UnsupportedOperation,
            "there is no extended card; read `/.well-known/agent-card.json`",
        ),
        "CreateTaskPushNotificationConfig"
        | "GetTaskPushNotificationConfig"
        | "ListTaskPushNotificationConfigs"
        | "DeleteTaskPushNotificationConfig" => {
            unserved(FaultCode::PushNotificationNotSupported, PUSH)
        }
        _ => Err(Fault::new(
            FaultCode::MethodNotFound,
            format!("no method `{}`; {SERVED}", fault::clean(short(method))),
        )),
    }
}

/// What to say to a method of A2A before 1.0, whose names have a slash.
pub(super) fn legacy_method(method: &str) -> Option<Fault> {
    method.contains('/').then(|| {
        let message = format!(
            "method `{}` is of A2A before 1.0, which comes later; {SERVED}",
            fault::clean(short(method))
        );
        Fault::new(FaultCode::MethodNotFound, message)
    })
}

fn send_message(params: Option<&str>) -> Result<SendMessage, Fault> {
    const NAMES: &[&str] = &["tenant", "message", "configuration", "metadata"];
    let (mut tenant, mut message, mut attached) = (None, None, None);
    let mut configuration = Configuration::default();
    let read = fields(params, NAMES, |field, reader, at, problems| match field {
        "tenant" => tenant = name(reader, at, problems),
        "message" => message = read::message(reader, at, problems),
        "configuration" => configuration.read(reader, at, problems),
        _ => attached = metadata(reader, at, problems),
    });
    if configuration.push {
        return Err(Fault::new(
            FaultCode::PushNotificationNotSupported,
            "`configuration.taskPushNotificationConfig`: push notifications are not served yet",
        ));
    }
    let message = read.require("message", message)?;
    Ok(SendMessage { tenant, message, configuration: configuration.asked, metadata: attached })
}

#[derive(Default)]
struct Configuration {
    asked: SendConfiguration,
    push: bool,
}

impl Configuration {
    fn read(&mut self, reader: &mut Reader<'_>, at: &Path<'_>, problems: &mut Problems) {
        const NAMES: &[&str] = &[
            "acceptedOutputModes",
            "historyLength",
            "returnImmediately",
            "taskPushNotificationConfig",
        ];
        object(reader, at, problems, NAMES, None, |field, reader, at, problems| match field {
            "acceptedOutputModes" => self.asked.accepted_output_modes = names(reader, at, problems),
            "historyLength" => self.asked.history_length = count(reader, at, problems),
            "returnImmediately" => self.asked.return_immediately = boolean(reader, at, problems),
            _ => {
                self.push = true;
                reader.skip();
            }
        });
    }
}

fn get_task(params: Option<&str>) -> Result<GetTask, Fault> {
    let (mut tenant, mut task, mut history_length) = (None, None, None);
    let read =
        fields(
            params,
            &["tenant", "id", "historyLength"],
            |field, reader, at, problems| match field {
                "tenant" => tenant = name(reader, at, problems),
                "id" => task = id(reader, at, problems, TaskId::parse),
                _ => history_length = count(reader, at, problems),
            },
        );
    Ok(GetTask { tenant, id: read.require("id", task)?, history_length })
}

fn cancel_task(params: Option<&str>) -> Result<CancelTask, Fault> {
    let (mut tenant, mut task, mut attached) = (None, None, None);
    let read =
        fields(params, &["tenant", "id", "metadata"], |field, reader, at, problems| match field {
            "tenant" => tenant = name(reader, at, problems),
            "id" => task = id(reader, at, problems, TaskId::parse),
            _ => attached = metadata(reader, at, problems),
        });
    Ok(CancelTask { tenant, id: read.require("id", task)?, metadata: attached })
}

fn list_tasks(params: Option<&str>) -> Result<ListTasks, Fault> {
    const NAMES: &[&str] = &[
        "tenant",
        "contextId",
        "status",
        "pageSize",
        "pageToken",
        "historyLength",
        "statusTimestampAfter",
        "includeArtifacts",
    ];
    let mut list = ListTasks::default();
    // Nothing is required, so that parameters that are missing are parameters that are empty.
    let params = Some(params.unwrap_or("{}"));
    let read = fields(params, NAMES, |field, reader, at, problems| match field {
        "tenant" => list.tenant = name(reader, at, problems),
        "contextId" => list.context_id = id(reader, at, problems, ContextId::parse),
        "status" => list.state = state(reader, at, problems),
        "pageSize" => list.page_size = page_size(reader, at, problems),
        "pageToken" => list.page_token = page_token(reader, at, problems),
        "historyLength" => list.history_length = count(reader, at, problems),
        "statusTimestampAfter" => list.since = instant(reader, at, problems),
        _ => list.include_artifacts = boolean(reader, at, problems),
    });
    read.finish()?;
    Ok(list)
}

/// Reads a state to filter by. ProtoJSON may write the default of an enumeration, which means none.
fn state(reader: &mut Reader<'_>, at: &Path<'_>, problems: &mut Problems) -> Option<TaskState> {
    let text = reader.raw().unwrap_or_default();
    if matches!(text, "0" | "\"TASK_STATE_UNSPECIFIED\"") {
        return None;
    }
    choice(&mut Reader::new(text), at, problems, read::STATES)
}

fn page_size(reader: &mut Reader<'_>, at: &Path<'_>, problems: &mut Problems) -> Option<u32> {
    let size = count(reader, at, problems)?;
    if (1..=limits::LIST_PAGE_MAX).contains(&size) {
        return Some(size);
    }
    problems.add(at, format!("must be from 1 to {}", limits::LIST_PAGE_MAX));
    None
}

fn page_token(reader: &mut Reader<'_>, at: &Path<'_>, problems: &mut Problems) -> Option<String> {
    string(reader, at, problems, limits::PAGE_TOKEN_BYTES_MAX)
        .filter(|token| !token.is_empty())
        .map(std::borrow::Cow::into_owned)
}

fn subscribe_to_task(
    params: Option<&str>,
    after: impl FnOnce() -> Result<Option<Cursor>, Fault>,
) -> Result<SubscribeToTask, Fault> {
    let (mut tenant, mut task) = (None, None);
    let read = fields(params, &["tenant", "id"], |field, reader, at, problems| match field {
        "tenant" => tenant = name(reader, at, problems),
        _ => task = id(reader, at, problems, TaskId::parse),
    });
    Ok(SubscribeToTask { tenant, id: read.require("id", task)?, after: after()? })
}

/// Parameters that have been walked, with what was wrong in them.
struct Fields(Problems);

impl Fields {
    /// The required `field`, if nothing was wrong with it or with anything else.
    fn require<T>(mut self, field: &'static str, value: Option<T>) -> Result<T, Fault> {
        let value = self.0.require(&Path::Root, field, value);
        match value {
            Some(value) if self.0.0.is_empty() => Ok(value),
            _ => Err(Fault::invalid_params(self.0.0)),
        }
    }

    /// That nothing was wrong.
    fn finish(self) -> Result<(), Fault> {
        if self.0.0.is_empty() { Ok(()) } else { Err(Fault::invalid_params(self.0.0)) }
    }
}

fn fields<'a>(
    params: Option<&'a str>,
    names: &'static [&'static str],
    on: impl FnMut(&'static str, &mut Reader<'a>, &Path<'_>, &mut Problems),
) -> Fields {
    let mut problems = Problems::default();
    match params {
        Some(text) if text.starts_with('{') => {
            object(&mut Reader::new(text), &Path::Root, &mut problems, names, None, on);
        }
        Some(_) => problems.add(&Path::Field(&Path::Root, "params"), "must be an object"),
        None => problems.add(&Path::Field(&Path::Root, "params"), "is required"),
    }
    Fields(problems)
}

/// The beginning of a peer's word, as much of it as an answer repeats.
fn short(word: &str) -> &str {
    const SHOWN_MAX: usize = 64;
    word.char_indices().nth(SHOWN_MAX).map_or(word, |(end, _)| &word[..end])
}
