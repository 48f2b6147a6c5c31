//! `convoke task`: work that outlives the command that sent it.

mod asked;
mod follow;
mod message;
mod save;
mod view;

use std::io::IsTerminal;
use std::time::{SystemTime, UNIX_EPOCH};

use convoke::task::Tasks;
use convoke::{SpiffeId, UnixMillis};
use convoke_a2a::client::{Answer, message_json, page_json, task_json};
use convoke_model::{CancelTask, GetTask, ListTasks, SubscribeToTask, Task as OneTask, TaskState};

use crate::args::{
    AsWho, Output, SOCKET_DEFAULT, Task, TaskAt, TaskCancel, TaskGet, TaskInput, TaskList,
    TaskSend, TaskStream, TaskSubscribe, When, word_of,
};
use crate::exit::{Code, Failure};
use crate::paint::{self, Paint, say};
use crate::{call, output};
use asked::Asked;
use follow::Follow;
use save::Saver;
use view::Look;

pub(crate) async fn run(command: Task, paint: Paint) -> Result<(), Failure> {
    match command {
        Task::Send(options) => send(options, paint).await,
        Task::Stream(options) => stream(options, paint).await,
        Task::Get(options) => get(options).await,
        Task::List(options) => list(options, paint).await,
        Task::Cancel(options) => cancel(options).await,
        Task::Subscribe(options) => subscribe(options, paint).await,
        Task::Input(options) => input(options, paint).await,
    }
}

/// What is waited for at first.
pub(crate) fn label(command: &Task) -> String {
    let at = match command {
        Task::Send(options) => &options.at,
        Task::Stream(options) => &options.at,
        Task::Get(options) => &options.at,
        Task::List(options) => &options.at,
        Task::Cancel(options) => &options.at,
        Task::Subscribe(options) => &options.at,
        Task::Input(options) => &options.at,
    };
    match &at.agent {
        Some(agent) => format!("{agent} at {}", at.address),
        None => at.address.clone(),
    }
}

/// The task is named before it is waited for, so that whoever is interrupted can come back to it.
async fn send(options: TaskSend, paint: Paint) -> Result<(), Failure> {
    let TaskSend { message, no_wait, saving, at, output } = options;
    let mut send = message::beginning(message, now())?;
    send.configuration.return_immediately = true;
    send.configuration.history_length = Some(0);
    let tasks = connect(&at).await?;
    let saver = Saver::of(&saving)?;
    let mut follow = Follow::new(&at, Look::Quiet, saver, paint)?;
    let task = match follow.unless_interrupted(tasks.send(&send)).await?? {
        Answer::Message(message) => return paint::result(&message_json(&message), output),
        Answer::Task(task) => task,
    };
    if no_wait {
        return paint::result(&task_json(&task), output);
    }
    let id = task.id.clone();
    let subscribe = SubscribeToTask { tenant: None, id: id.clone(), after: None };
    let following = tasks.subscribe_resuming(subscribe);
    let ended = if task.status.state.is_terminal() {
        follow.saw(task)
    } else {
        follow.run(following).await
    };
    // What the task has come to is printed however it ended, but for one that goes on unseen.
    match ended {
        Err(failure) if matches!(failure.code, Code::Interrupted | Code::Terminated) => {
            Err(failure)
        }
        ended => {
            let get = GetTask { tenant: None, id, history_length: Some(0) };
            paint::result(&task_json(&tasks.get(&get).await?), output)?;
            ended
        }
    }
}

async fn stream(options: TaskStream, paint: Paint) -> Result<(), Failure> {
    let TaskStream { message, saving, at, json } = options;
    let send = message::beginning(message, now())?;
    let tasks = connect(&at).await?;
    let saver = Saver::of(&saving)?;
    let mut follow = Follow::new(&at, Look::choose(json), saver, paint)?;
    follow.run(tasks.stream_resuming(send)).await
}

async fn subscribe(options: TaskSubscribe, paint: Paint) -> Result<(), Failure> {
    let TaskSubscribe { task, after, saving, at, json } = options;
    let tasks = connect(&at).await?;
    let saver = Saver::of(&saving)?;
    let mut follow = Follow::new(&at, Look::choose(json), saver, paint)?;
    follow.run(tasks.subscribe_resuming(SubscribeToTask { tenant: None, id: task, after })).await
}

async fn input(options: TaskInput, paint: Paint) -> Result<(), Failure> {
    let TaskInput { task, content, saving, at, json } = options;
    let is_new = !content.idempotent;
    let mut send = message::answer(content, task.clone())?;
    let tasks = connect(&at).await?;
    let saver = Saver::of(&saving)?;
    let mut follow = Follow::new(&at, Look::choose(json), saver, paint)?;
    // The question that is answered is not another one.
    let get = GetTask { tenant: None, id: task.clone(), history_length: Some(0) };
    let question = tasks.get(&get).await?.status;
    // The same answer, sent again, may be one that was taken before.
    if is_new && question.state.is_terminal() {
        let state = word_of(question.state);
        let task = quoted(task.as_str());
        let failure = Failure::new(Code::AgentFailed, format_args!("task {task} is {state}"));
        let on = format!("convoke task send {}", At::of(&at).options());
        return Err(failure.hint(format!(
            "it takes no answer any more; begin another one that speaks of it:\n\
             {on} --reference {task} 'MESSAGE'"
        )));
    }
    if let Some(asked) = Asked::of(&question) {
        message::fit(&mut send, &asked);
    }
    follow.answers(question);
    let ended = follow.run(tasks.stream_resuming(send)).await;
    ended.map_err(|failure| follow.not_taken(failure))
}

async fn get(options: TaskGet) -> Result<(), Failure> {
    let TaskGet { task, history, saving, at, output } = options;
    let get = GetTask { tenant: None, id: task, history_length: history };
    let tasks = connect(&at).await?;
    let saver = Saver::of(&saving)?;
    let task = tasks.get(&get).await?;
    save(saver, &task, output)?;
    paint::result(&task_json(&task), output)
}

fn save(saver: Option<Saver>, task: &OneTask, output: Output) -> Result<(), Failure> {
    let Some(mut saver) = saver else { return Ok(()) };
    saver.whole(task)?;
    if !output.json {
        saver.report();
    }
    Ok(())
}

async fn cancel(options: TaskCancel) -> Result<(), Failure> {
    let TaskCancel { task, at, output } = options;
    let tasks = connect(&at).await?;
    let task = tasks.cancel(&CancelTask { tenant: None, id: task, metadata: None }).await?;
    paint::result(&task_json(&task), output)
}

async fn list(options: TaskList, paint: Paint) -> Result<(), Failure> {
    let list = ListTasks {
        tenant: None,
        context_id: options.context,
        state: options.state,
        since: options.since.map(|since| match since {
            When::At(at) => at,
            When::Apart(ago) => UnixMillis(now().0.saturating_sub(millis(ago))),
        }),
        page_size: options.page_size,
        page_token: options.page,
        history_length: Some(options.history),
        include_artifacts: options.artifacts,
    };
    let as_json = options.json || !std::io::stdout().is_terminal();
    let mut pages = connect(&options.at).await?.pages(list);
    while let Some(page) = pages.next().await? {
        match (as_json, options.all) {
            (true, true) => {
                for task in &page.tasks {
                    view::print_line(&task_json(task))?;
                }
            }
            (true, false) => view::print_line(&page_json(&page))?,
            (false, _) => {
                for task in &page.tasks {
                    output::print_text(&row(task, paint))?;
                }
                if !options.all {
                    rest(page.tasks.len(), page.total, page.next.as_deref());
                }
            }
        }
        if !options.all {
            break;
        }
    }
    Ok(())
}

/// A task on one line: its state, since when, its name, and what it says of itself.
fn row(task: &OneTask, paint: Paint) -> String {
    let state = format!("{:<14}", word_of(task.status.state));
    let state = match task.status.state {
        TaskState::Completed => paint.good(&state),
        TaskState::Failed | TaskState::Rejected => paint.bad(&state),
        state_now if state_now.is_interrupted() => paint.warn(&state),
        _ => state,
    };
    let said = view::said(&task.status).map(|said| format!("  {said}")).unwrap_or_default();
    let id = paint.name(&paint::plain(task.id.as_str()));
    format!("{state}  {}  {id}{said}\n", task.status.timestamp)
}

fn rest(shown: usize, total: u32, next: Option<&str>) {
    if let Some(next) = next {
        let next = quoted(next);
        say(format!(
            "{shown} of {total}; the next ones with --page {next}, all of them with --all"
        ));
    } else if shown == 0 {
        say("no task is as asked for");
    }
}

/// The tasks of the caller at the agent: with mutual TLS for https, plainly for http on this machine.
async fn connect(at: &TaskAt) -> Result<Tasks, Failure> {
    let address = at.address.strip_suffix('/').unwrap_or(&at.address);
    let tasks = if address.starts_with("http://") {
        Tasks::open(address)?
    } else {
        let agent = at.agent.as_ref().ok_or_else(|| {
            Failure::new(Code::Usage, "who is expected at an https address has to be said")
                .hint("add --agent spiffe://…; anybody else who answers there is refused")
        })?;
        call::check_address(address)?;
        call::connect(&at.as_who, Some(agent), None).await?.task(agent, address)?
    };
    Ok(tasks.timeout(at.timeout))
}

/// How an agent is reached, as somebody has to say it again.
pub(crate) struct At {
    options: String,
}

impl At {
    pub(crate) fn new(agent: Option<&SpiffeId>, as_who: &AsWho, address: &str) -> Self {
        let identity = as_who.identity.as_ref();
        let identity = identity.map(|id| format!("--identity {id} ")).unwrap_or_default();
        // What stands in the environment, or is where everybody looks, need not be said again.
        let socket = as_who.socket.as_str();
        let known = std::env::var("SPIFFE_ENDPOINT_SOCKET").is_ok_and(|known| known == socket)
            || socket == SOCKET_DEFAULT
            || agent.is_none();
        let socket = if known { String::new() } else { format!("--socket {} ", quoted(socket)) };
        let agent = agent.map(|agent| format!("--agent {agent} ")).unwrap_or_default();
        Self { options: format!("{agent}{identity}{socket}--address {address}") }
    }

    fn of(at: &TaskAt) -> Self {
        Self::new(at.agent.as_ref(), &at.as_who, &at.address)
    }

    /// The options of a command.
    pub(crate) fn options(&self) -> &str {
        &self.options
    }
}

/// An agent's word as one word of a command that somebody may copy into a shell.
pub(crate) fn quoted(word: &str) -> String {
    let word = paint::plain(word);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word;
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn now() -> UnixMillis {
    UnixMillis(millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()))
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_s_word_is_one_word_of_the_shell() {
        let check = |word: &str, expected: &str| assert_eq!(quoted(word), expected);
        check("3fa85f64-5717", "3fa85f64-5717");
        check("", "''");
        check("x; rm -rf ~", "'x; rm -rf ~'");
        check("it's $(y)\n", "'it'\\''s $(y) '");
    }
}
