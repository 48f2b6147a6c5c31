//! The answer of `ListTasks`: a page of tasks.

use bytes::Bytes;
use convoke_model::Task;

use super::{RequestIdJson, result};
use crate::write::{self, Object, array};

/// A page of tasks as it is answered.
#[derive(Debug, Clone, Copy)]
pub struct TaskList<'a> {
    /// The tasks, with as much of each as is shown: a task without artifacts and history is written
    /// without them.
    pub tasks: &'a [Task],
    /// What asks for the page that follows; `None` after the last.
    pub next_page_token: Option<&'a str>,
    /// How many tasks a page has at most.
    pub page_size: u32,
    /// How many tasks pass the filters, over all pages. The wire has 31 bits for it, so more than
    /// that is written as that.
    pub total_size: u64,
}

/// The answer that is `list`. Its four fields are always there (A2A 1.0.1 §3.1.4).
#[must_use]
pub fn encode_list(id: &RequestIdJson, list: &TaskList<'_>) -> Bytes {
    let tasks = list.tasks.iter().map(write::task_bytes).sum::<usize>();
    encode_list_in(id, list, 128 + list.next_page_token.map_or(0, str::len) + tasks)
}

/// The same, in a buffer of `capacity` bytes: where
/// [`list_bytes_max`](crate::size::list_bytes_max) has said how much it takes at most, it does not
/// grow beyond that.
#[must_use]
pub fn encode_list_in(id: &RequestIdJson, list: &TaskList<'_>, capacity: usize) -> Bytes {
    const TOTAL_MAX: u64 = i32::MAX as u64;
    result(id, capacity, |out| {
        let mut payload = Object::begin(out);
        array(payload.key("tasks"), list.tasks, write::task);
        payload.string("nextPageToken", list.next_page_token.unwrap_or_default());
        payload.word("pageSize", &list.page_size.to_string());
        payload.word("totalSize", &list.total_size.min(TOTAL_MAX).to_string());
        payload.end();
    })
}

#[cfg(test)]
mod tests {
    use convoke_model::{ContextId, TaskId, TaskState, TaskStatus, UnixMillis};

    use super::*;

    #[test]
    fn a_list_has_its_four_fields() {
        let task = |id: &str| Task {
            id: TaskId::parse(id).unwrap(),
            context_id: ContextId::parse("c").unwrap(),
            status: TaskStatus {
                state: TaskState::Working,
                message: None,
                timestamp: UnixMillis(0),
            },
            artifacts: Vec::new(),
            history: Vec::new(),
            metadata: None,
        };
        let check = |list: TaskList<'_>, expected: &str| {
            let expected = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{expected}}}"#);
            assert_eq!(encode_list(&1.into(), &list), expected);
        };
        let none =
            TaskList { tasks: &[], next_page_token: None, page_size: 50, total_size: u64::MAX };
        check(none, r#"{"tasks":[],"nextPageToken":"","pageSize":50,"totalSize":2147483647}"#);
        let tasks = [task("a"), task("b")];
        let page =
            TaskList { tasks: &tasks, next_page_token: Some("x\"y"), page_size: 2, total_size: 7 };
        check(
            page,
            concat!(
                r#"{"tasks":[{"id":"a","contextId":"c","status":{"state":"TASK_STATE_WORKING"}},"#,
                r#"{"id":"b","contextId":"c","status":{"state":"TASK_STATE_WORKING"}}],"#,
                r#""nextPageToken":"x\"y","pageSize":2,"totalSize":7}"#
            ),
        );
    }
}
