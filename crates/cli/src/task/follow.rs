//! A task followed to its end, or until it waits for its caller, or until its caller has enough.

use convoke::chain;
use convoke::task::{Event, Followed, Following, StreamItem};
use convoke_model::{Cursor, Task, TaskEvent, TaskId, TaskState, TaskStatus};

use super::asked::Asked;
use super::save::Saver;
use super::view::{self, Look, View};
use super::{At, quoted};
use crate::args::TaskAt;
use crate::exit::{Code, Failure, RENAME};
use crate::paint::{Paint, plain, say};
use crate::signals::Signals;

/// What is made of the events of a task.
pub(super) struct Follow {
    view: View,
    saver: Option<Saver>,
    /// The options by which the agent is reached again.
    reached_by: String,
    signals: Signals,
    task: Option<TaskId>,
    cursor: Option<Cursor>,
    status: Option<TaskStatus>,
    /// The status that was answered, if this follows an answer.
    answered: Option<TaskStatus>,
    /// Whether the stream broke and is not back.
    is_cut: bool,
    paint: Paint,
}

impl Follow {
    pub(super) fn new(
        at: &TaskAt,
        look: Look,
        saver: Option<Saver>,
        paint: Paint,
    ) -> Result<Self, Failure> {
        let signals =
            Signals::new().map_err(|error| Failure::of_file(Code::Failure, "signals", &error))?;
        Ok(Self {
            view: View::new(look, paint, saver.is_some()),
            saver,
            reached_by: At::of(at).options().to_owned(),
            signals,
            task: None,
            cursor: None,
            status: None,
            answered: None,
            is_cut: false,
            paint,
        })
    }

    /// What is followed comes of the answer to this.
    pub(super) fn answers(&mut self, question: TaskStatus) {
        self.answered = Some(question);
    }

    /// Does `work`, unless a signal comes first.
    pub(super) async fn unless_interrupted<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            (_, code) = self.signals.next() => Err(self.interrupted(code)),
            done = work => Ok(done),
        }
    }

    /// Follows to the end. The task's end is an error unless it completed.
    pub(super) async fn run(&mut self, mut following: Following) -> Result<(), Failure> {
        self.task = following.task().cloned();
        loop {
            let next = Box::pin(following.next());
            let next = self.unless_interrupted(next).await.inspect_err(|_| self.view.close());
            match next? {
                Ok(Some(Followed::Event { event, reset })) => {
                    self.resumed();
                    if self.heard(event, reset)? {
                        break;
                    }
                }
                // However often it is tried, one line says that it is.
                Ok(Some(Followed::Cut { error, .. })) => {
                    if !std::mem::replace(&mut self.is_cut, true) {
                        self.view.close();
                        let error = plain(&chain(&error));
                        let notice = self.paint.warn("the stream broke off:");
                        say(format!("{notice} {error}; taking it up again"));
                    }
                }
                Ok(Some(Followed::Resumed)) => self.resumed(),
                Ok(None) => break,
                Err(error) => {
                    self.view.close();
                    return Err(self.left(error.into()));
                }
            }
        }
        self.end()
    }

    fn resumed(&mut self) {
        if std::mem::replace(&mut self.is_cut, false) {
            say(self.paint.good("the stream is back"));
        }
    }

    /// As [`Self::run`] with a task that has ended already.
    pub(super) fn saw(&mut self, task: Task) -> Result<(), Failure> {
        self.heard(Event { item: StreamItem::Task(task), cursor: None }, false)?;
        self.end()
    }

    /// Takes an event in. Returns whether there is nothing to wait for behind it.
    fn heard(&mut self, event: Event, reset: bool) -> Result<bool, Failure> {
        self.cursor = event.cursor.or(self.cursor);
        let mut waits = false;
        match &event.item {
            StreamItem::Task(task) => {
                self.task = Some(task.id.clone());
                waits = self.moved(&task.status);
                if let Some(saver) = &mut self.saver {
                    saver.whole(task)?;
                }
            }
            // This repeats a status that was heard before.
            StreamItem::Update { said: Some(_), .. } => {}
            StreamItem::Update { event: TaskEvent::Status(status), .. } => {
                waits = self.moved(status);
            }
            StreamItem::Update { event: TaskEvent::Artifact { artifact, append, .. }, .. } => {
                if let Some(saver) = &mut self.saver {
                    saver.piece(artifact, *append)?;
                }
            }
            StreamItem::Update { .. } | StreamItem::Message(_) => {}
        }
        let is_last = event.item.is_last();
        self.view.show(&event, reset)?;
        Ok(waits || is_last)
    }

    /// Whether the task waits for its caller by this.
    fn moved(&mut self, status: &TaskStatus) -> bool {
        let waits = status.state.is_interrupted() && self.answered.as_ref() != Some(status);
        self.status = Some(status.clone());
        waits
    }

    fn end(&mut self) -> Result<(), Failure> {
        self.view.end(self.status.as_ref());
        if let Some(saver) = &self.saver
            && self.view.talks()
        {
            saver.report();
        }
        // A direct message has no state, and is the whole answer.
        let Some(status) = &self.status else { return Ok(()) };
        let told = view::said(status).map(|said| format!(": {said}")).unwrap_or_default();
        let ended = |code, how: &str| Err(Failure::new(code, format_args!("the task {how}{told}")));
        match status.state {
            TaskState::Completed => Ok(()),
            TaskState::Failed => ended(Code::AgentFailed, "failed"),
            TaskState::Rejected => ended(Code::AgentFailed, "was rejected"),
            TaskState::Canceled => ended(Code::TaskCanceled, "was canceled"),
            TaskState::InputRequired => ended(Code::TaskWaits, "waits for an answer")
                .map_err(|failure| failure.hint(self.answer(Asked::of(status).as_ref()))),
            TaskState::AuthRequired => {
                ended(Code::TaskWaits, "waits for you to sign in").map_err(|failure| {
                    let on = self.again("input", " done");
                    failure.hint(format!("once you have signed in, go on with\n{on}"))
                })
            }
            TaskState::Submitted | TaskState::Working => {
                let failure = Failure::new(Code::Failure, "the stream ended before the task did");
                Err(self.left(failure))
            }
        }
    }

    fn interrupted(&self, code: Code) -> Failure {
        let Some(task) = &self.task else {
            return Failure::new(code, "interrupted before the task had a name").hint(format!(
                "`convoke task list {}` shows whether there is one",
                self.reached_by
            ));
        };
        let task = plain(task.as_str());
        self.left(Failure::new(code, format_args!("interrupted; task {task} goes on")))
    }

    /// A failure that says how to come back to the task, which may still run.
    fn left(&self, failure: Failure) -> Failure {
        let is_about_it =
            failure.hint.is_some() && !matches!(failure.code, Code::Unreachable | Code::TimedOut);
        if self.task.is_none() || is_about_it {
            return failure;
        }
        // What was shown is not shown again, but files begin anew.
        let after = match self.cursor {
            Some(cursor) if self.saver.is_none() => format!(" --after {cursor}"),
            _ => String::new(),
        };
        let (follow, cancel) = (self.again("subscribe", &after), self.again("cancel", ""));
        failure.hint(format!("come back to it, or end it:\n{follow}\n{cancel}"))
    }

    /// An answer that the agent does not take says how one is given.
    pub(super) fn not_taken(&self, failure: Failure) -> Failure {
        match &self.answered {
            Some(question)
                if failure.code == Code::InvalidParams
                    && failure.hint.as_deref() != Some(RENAME) =>
            {
                let asked = Asked::of(question);
                let how = self.answer(asked.as_ref());
                failure.hint(format!("answer as it asks, with --data if that is no text:\n{how}"))
            }
            _ => failure,
        }
    }

    /// The command that answers what is asked.
    fn answer(&self, asked: Option<&Asked>) -> String {
        let options = asked.and_then(Asked::options).unwrap_or_else(|| "'ANSWER'".to_owned());
        self.again("input", &format!(" {options}"))
    }

    /// A command about the task.
    fn again(&self, command: &str, more: &str) -> String {
        let task = self.task.as_ref().map(|task| quoted(task.as_str())).unwrap_or_default();
        format!("convoke task {command} {} {task}{more}", self.reached_by)
    }
}
