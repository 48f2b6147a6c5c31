//! Lists of tasks: the question, and pages as they come back.

use bytes::Bytes;
use convoke_model::{ListTasks, Task, limits};
use http::{HeaderMap, StatusCode};

use super::{AnswerError, headers, request, result_in};
use crate::jsonrpc::RequestIdJson;
use crate::read;
use crate::reader::{Path, Problems, Reader, array, object};
use crate::scalar::{count, string};
use crate::write::Object;

/// A page of tasks as an agent gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskPage {
    /// The tasks, with as much of each as was asked for.
    pub tasks: Vec<Task>,
    /// What asks for the page that follows; `None` after the last.
    pub next: Option<String>,
    /// How many tasks pass the filters, over all pages, as the agent counts them.
    pub total: u32,
}

/// The request that reads a page of tasks.
#[must_use]
pub fn build_list(list: &ListTasks, id: &RequestIdJson) -> (HeaderMap, Bytes) {
    let body = request("ListTasks", id, 256, |out| {
        let mut request = Object::begin(out);
        request.optional("tenant", list.tenant.as_deref());
        request.optional("contextId", list.context_id.as_ref().map(|id| id.as_str()));
        request.optional("status", list.state.map(|state| state.as_str()));
        if let Some(size) = list.page_size {
            request.word("pageSize", &size.to_string());
        }
        request.optional("pageToken", list.page_token.as_deref());
        if let Some(length) = list.history_length {
            request.word("historyLength", &length.to_string());
        }
        if let Some(since) = list.since {
            request.string("statusTimestampAfter", since.to_text().as_str());
        }
        if list.include_artifacts {
            request.word("includeArtifacts", "true");
        }
        request.end();
    });
    (headers(), body)
}

/// Reads the answer to the [`ListTasks`] that was request `id`.
///
/// # Errors
///
/// As [`parse_response`](super::parse_response).
pub fn parse_list(
    id: &RequestIdJson,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<TaskPage, AnswerError> {
    result_in(id, status, headers, body, page)
}

fn page(text: &str) -> Result<TaskPage, AnswerError> {
    const NAMES: &[&str] = &["tasks", "nextPageToken", "totalSize"];
    let mut problems = Problems::default();
    let (mut tasks, mut next, mut total) = (Vec::new(), None, None);
    let (reader, at) = (&mut Reader::new(text), &Path::Root);
    object(reader, at, &mut problems, NAMES, None, |field, reader, at, problems| match field {
        "tasks" => tasks = array(reader, at, problems, limits::JSON_ITEMS_MAX, read::task),
        "nextPageToken" => next = string(reader, at, problems, limits::PAGE_TOKEN_BYTES_MAX),
        _ => total = count(reader, at, problems),
    });
    if !problems.0.is_empty() {
        return Err(AnswerError::Shape(problems.0));
    }
    // ProtoJSON may leave out what is empty or zero.
    let next = next.filter(|token| !token.is_empty()).map(std::borrow::Cow::into_owned);
    let total = total.unwrap_or_default();
    Ok(TaskPage { tasks, next, total })
}

#[cfg(test)]
mod tests {
    use convoke_model::{ContextId, TaskId, TaskState, TaskStatus, UnixMillis};

    use super::*;
    use crate::jsonrpc::{TaskList, encode_list};

    fn parse(body: &[u8]) -> Result<TaskPage, AnswerError> {
        parse_list(&RequestIdJson::from(1), StatusCode::OK, &headers(), body)
    }

    #[test]
    fn what_the_server_half_lists_is_read() {
        let task = Task {
            id: TaskId::parse("t").unwrap(),
            context_id: ContextId::parse("c").unwrap(),
            status: TaskStatus {
                state: TaskState::Working,
                message: None,
                timestamp: UnixMillis(5),
            },
            artifacts: Vec::new(),
            history: Vec::new(),
            metadata: None,
        };
        let tasks = vec![task.clone(), task];
        for next in [None, Some("x\"y")] {
            let list =
                TaskList { tasks: &tasks, next_page_token: next, page_size: 2, total_size: 9 };
            let page = parse(&encode_list(&1.into(), &list)).unwrap();
            assert_eq!((page.tasks, page.next.as_deref(), page.total), (tasks.clone(), next, 9));
        }
        let empty = parse(br#"{"jsonrpc":"2.0","id":1,"result":{}}"#).unwrap();
        assert_eq!(empty, TaskPage { tasks: Vec::new(), next: None, total: 0 });
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let check = |result: &str, expected: &str| {
            let body = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#);
            let error = parse(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{result}: {error}");
        };
        check("[]", "must be an object");
        check(r#"{"tasks":{}}"#, "tasks must be an array");
        check(r#"{"tasks":[{"id":"t"}]}"#, "tasks[0].contextId is required");
        check(r#"{"nextPageToken":5}"#, "nextPageToken must be a string");
        check(
            &format!(r#"{{"nextPageToken":"{}"}}"#, "x".repeat(limits::PAGE_TOKEN_BYTES_MAX + 1)),
            "longer than",
        );
        check(r#"{"totalSize":-1}"#, "totalSize must not be negative");
    }
}
