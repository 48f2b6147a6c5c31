//! `convoke task`: work that outlives the command that sent it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use convoke::{SpiffeId, UnixMillis, limits};
use convoke_model::{ContextId, Cursor, MessageId, TaskId, TaskState};

use super::{AsWho, Output, duration};
use crate::question::instant;

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Send a message, and wait for the task that comes of it
    #[command(after_help = "\
Example:
  convoke task send --agent spiffe://example.org/orchestrator --address https://localhost:8444 \\
    --capability process_document --params '{\"text\": \"A good day.\", \"operations\": [\"count\"]}'
  convoke task send --address http://127.0.0.1:8080 'Summarize this' --no-wait

Prints the task once it has ended, or waits for its caller. Ctrl-C leaves it running.")]
    Send(TaskSend),
    /// Send a message, and look on
    #[command(after_help = "\
Example:
  convoke task stream --agent spiffe://example.org/orchestrator --address https://localhost:8444 \\
    --capability process_document --params '{\"text\": \"A good day.\", \"operations\": [\"count\"]}'

On a terminal, what the task gives is shown as it comes. Everything else gets one line of JSON for
each event, with its `cursor`. A stream that breaks is taken up again.")]
    Stream(TaskStream),
    /// Print a task
    #[command(after_help = "\
Example:
  convoke task get --address http://127.0.0.1:8080 3fa85f64-5717-4562-b3fc-2c963f66afa6 --history 2")]
    Get(TaskGet),
    /// List your tasks, the newest first
    #[command(after_help = "\
Example:
  convoke task list --address http://127.0.0.1:8080 --state working
  convoke task list --address http://127.0.0.1:8080 --since 1h --all --json

As JSON, a page is one object; with --all, each task is one.")]
    List(TaskList),
    /// End a task
    #[command(after_help = "\
Example:
  convoke task cancel --address http://127.0.0.1:8080 3fa85f64-5717-4562-b3fc-2c963f66afa6")]
    Cancel(TaskCancel),
    /// Follow a task
    #[command(after_help = "\
Example:
  convoke task subscribe --address http://127.0.0.1:8080 3fa85f64-5717-4562-b3fc-2c963f66afa6
  convoke task subscribe --address http://127.0.0.1:8080 3fa85f64-5717-4562-b3fc-2c963f66afa6 \\
    --after 1.7 --json

Shows it as `convoke task stream` does.")]
    Subscribe(TaskSubscribe),
    /// Answer a task that asks something, and follow it
    #[command(after_help = "\
Example:
  convoke task input --address http://127.0.0.1:8080 3fa85f64-5717-4562-b3fc-2c963f66afa6 'the first'")]
    Input(TaskInput),
}

/// Which agent is asked, and by whom.
#[derive(Debug, Args)]
pub(crate) struct TaskAt {
    /// Where the agent listens; http:// is for a development listener on this machine
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) address: String,
    /// Who is expected there; needed for https
    #[arg(long, value_name = "SPIFFE_ID")]
    pub(crate) agent: Option<SpiffeId>,
    /// How long to wait for each answer, such as 500ms, 30s or 2m; tasks may take longer
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) as_who: AsWho,
}

/// What is said.
#[derive(Debug, Args)]
pub(crate) struct Content {
    /// What is said, in words; `-` reads standard input
    #[arg(value_name = "TEXT", conflicts_with = "data")]
    pub(crate) text: Option<String>,
    /// What is said, as JSON; `@FILE` or `-` (standard input) reads it
    #[arg(long, value_name = "JSON|@FILE|-")]
    pub(crate) data: Option<String>,
    /// The name of the message [default: a random one]
    #[arg(long, value_name = "ID", value_parser = message_id)]
    pub(crate) message_id: Option<MessageId>,
    /// The same message, sent again, is the same task; needs --message-id to be of use later
    #[arg(long)]
    pub(crate) idempotent: bool,
}

/// A message that begins a task.
#[derive(Debug, Args)]
pub(crate) struct Message {
    #[command(flatten)]
    pub(crate) content: Content,
    /// The capability that is called [default: the agent's only or default one]
    #[arg(long, value_name = "NAME")]
    pub(crate) capability: Option<String>,
    /// The capability's parameters, a JSON object; `@FILE` or `-` (standard input) reads them
    #[arg(long, value_name = "JSON|@FILE|-", requires = "capability",
          conflicts_with_all = ["text", "data"])]
    pub(crate) params: Option<String>,
    /// The conversation that the task belongs to
    #[arg(long, value_name = "ID", value_parser = context_id)]
    pub(crate) context: Option<ContextId>,
    /// A task that the message speaks about
    #[arg(long, value_name = "TASK", value_parser = task_id)]
    pub(crate) reference: Vec<TaskId>,
    /// How urgent it is
    #[arg(long, value_enum)]
    pub(crate) priority: Option<Urgency>,
    /// When the result is of no more use: an instant, such as 2026-12-31T23:59:59Z, or from now, such as 10m
    #[arg(long, value_name = "TIME|DURATION", value_parser = deadline)]
    pub(crate) deadline: Option<When>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Urgency {
    /// When nothing else waits
    Low,
    /// The default
    Normal,
    /// Before the ordinary
    High,
    /// Before everything
    Urgent,
}

/// Where artifacts go.
#[derive(Debug, Args)]
pub(crate) struct Saving {
    /// Save the task's artifacts in this directory, each in a file
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) out: Option<PathBuf>,
    /// Write over files that are there
    #[arg(long, requires = "out")]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TaskSend {
    #[command(flatten)]
    pub(crate) message: Message,
    /// Print the task as soon as there is one
    #[arg(long, conflicts_with = "out")]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) saving: Saving,
    #[command(flatten)]
    pub(crate) at: TaskAt,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct TaskStream {
    #[command(flatten)]
    pub(crate) message: Message,
    #[command(flatten)]
    pub(crate) saving: Saving,
    #[command(flatten)]
    pub(crate) at: TaskAt,
    /// One line of JSON for each event; the default but on a terminal
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TaskGet {
    /// Which task
    #[arg(value_name = "TASK", value_parser = task_id)]
    pub(crate) task: TaskId,
    /// At most this many of its newest messages [default: all]
    #[arg(long, value_name = "N")]
    pub(crate) history: Option<u32>,
    #[command(flatten)]
    pub(crate) saving: Saving,
    #[command(flatten)]
    pub(crate) at: TaskAt,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct TaskList {
    /// Only tasks of this conversation
    #[arg(long, value_name = "ID", value_parser = context_id)]
    pub(crate) context: Option<ContextId>,
    /// Only tasks in this state, such as working or input-required
    #[arg(long, value_name = "STATE", value_parser = state)]
    pub(crate) state: Option<TaskState>,
    /// Only tasks whose state is of this instant or later, or of this time ago at most, such as 1h
    #[arg(long, value_name = "TIME|DURATION", value_parser = deadline)]
    pub(crate) since: Option<When>,
    /// How many tasks at a time
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::LIST_PAGE_MAX)))]
    pub(crate) page_size: Option<u32>,
    /// The page that another one names as its next
    #[arg(long, value_name = "TOKEN")]
    pub(crate) page: Option<String>,
    /// All pages
    #[arg(long)]
    pub(crate) all: bool,
    /// At most this many of the newest messages of each
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) history: u32,
    /// With their artifacts
    #[arg(long)]
    pub(crate) artifacts: bool,
    #[command(flatten)]
    pub(crate) at: TaskAt,
    /// As JSON; the default but on a terminal
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TaskCancel {
    /// Which task
    #[arg(value_name = "TASK", value_parser = task_id)]
    pub(crate) task: TaskId,
    #[command(flatten)]
    pub(crate) at: TaskAt,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct TaskSubscribe {
    /// Which task
    #[arg(value_name = "TASK", value_parser = task_id)]
    pub(crate) task: TaskId,
    /// Only what comes behind this `cursor` of an event
    #[arg(long, value_name = "CURSOR", value_parser = cursor, conflicts_with = "out")]
    pub(crate) after: Option<Cursor>,
    #[command(flatten)]
    pub(crate) saving: Saving,
    #[command(flatten)]
    pub(crate) at: TaskAt,
    /// One line of JSON for each event; the default but on a terminal
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TaskInput {
    /// Which task
    #[arg(value_name = "TASK", value_parser = task_id)]
    pub(crate) task: TaskId,
    #[command(flatten)]
    pub(crate) content: Content,
    #[command(flatten)]
    pub(crate) saving: Saving,
    #[command(flatten)]
    pub(crate) at: TaskAt,
    /// One line of JSON for each event; the default but on a terminal
    #[arg(long)]
    pub(crate) json: bool,
}

/// A point in time, as somebody gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    At(UnixMillis),
    /// That long from now; in which direction, the option says.
    Apart(Duration),
}

fn deadline(text: &str) -> Result<When, String> {
    if let Ok(apart) = duration(text) {
        return Ok(When::Apart(apart));
    }
    instant(text)
        .map(When::At)
        .map_err(|_| "is neither an instant, such as 2026-12-31T23:59:59Z, nor a duration".into())
}

fn task_id(text: &str) -> Result<TaskId, String> {
    TaskId::parse(text).map_err(|error| error.to_string())
}

fn cursor(text: &str) -> Result<Cursor, String> {
    text.parse()
        .map_err(|_| "is no `cursor` of an event, such as 1.7; lines of --json have it".into())
}

fn context_id(text: &str) -> Result<ContextId, String> {
    ContextId::parse(text).map_err(|error| error.to_string())
}

fn message_id(text: &str) -> Result<MessageId, String> {
    MessageId::parse(text).map_err(|error| error.to_string())
}

/// Reads `working`, `input-required`, `TASK_STATE_WORKING`.
fn state(text: &str) -> Result<TaskState, String> {
    let word = text.to_ascii_uppercase().replace('-', "_");
    let word = word.strip_prefix("TASK_STATE_").unwrap_or(&word);
    STATES
        .into_iter()
        .find(|state| state.as_str().strip_prefix("TASK_STATE_") == Some(word))
        .ok_or_else(|| format!("is no state; the states are {}", STATES.map(word_of).join(", ")))
}

/// The states, in the order of a task's life.
const STATES: [TaskState; 8] = [
    TaskState::Submitted,
    TaskState::Working,
    TaskState::InputRequired,
    TaskState::AuthRequired,
    TaskState::Completed,
    TaskState::Failed,
    TaskState::Canceled,
    TaskState::Rejected,
];

/// The word for a state that people read and write.
pub(crate) fn word_of(state: TaskState) -> String {
    let name = state.as_str();
    name.strip_prefix("TASK_STATE_").unwrap_or(name).to_ascii_lowercase().replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_plain_words() {
        for known in STATES {
            assert_eq!(state(&word_of(known)), Ok(known));
            assert_eq!(state(known.as_str()), Ok(known));
        }
        assert_eq!(state("Input_Required"), Ok(TaskState::InputRequired));
        assert!(state("lost").unwrap_err().contains("submitted, working, input-required"));
    }

    #[test]
    fn times_are_instants_or_distances() {
        assert_eq!(deadline("10m"), Ok(When::Apart(Duration::from_secs(600))));
        assert_eq!(deadline("1970-01-01T00:00:01Z"), Ok(When::At(UnixMillis(1000))));
        assert!(deadline("soon").is_err());
        assert!(cursor("1.7").is_ok());
        assert!(cursor("bogus").unwrap_err().contains("--json"));
    }
}
