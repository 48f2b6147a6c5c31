//! A node's handlers, which do what their scripts say.

use convoke_model::{Content, Json, Message, Role};

use super::node::{Crash, Happening, Then, World, artifact, id, said};
use super::script::Step;
use crate::{EarlierAnswers, Event};

/// A handler at work. It is gone with the node.
pub(super) struct Handler {
    pub(super) step: usize,
    pub(super) attempt: u32,
    pub(super) is_waiting: bool,
    pub(super) earlier: EarlierAnswers,
    /// The answers that it was given.
    pub(super) heard: Vec<String>,
}

impl World {
    pub(super) fn queue(&mut self, task: usize) {
        let cell = self.cell_mut(task);
        if !cell.is_queued && cell.handler.is_none() {
            cell.is_queued = true;
            self.bag.push(Happening::Begin { task });
        }
    }

    /// Runs the handler from its beginning, which is behind its last checkpoint.
    pub(super) fn begin_attempt(&mut self, task: usize) -> Result<(), Crash> {
        let now = self.now;
        let cell = self.cell_mut(task);
        cell.is_queued = false;
        if cell.state.is_ended() {
            return Ok(());
        }
        let checkpoint = cell.state.work().checkpoint.as_ref();
        let step = checkpoint.map_or(0, |checkpoint| checkpoint.value.to().unwrap());
        let handler = Handler {
            step,
            attempt: cell.state.work().attempt + 1,
            is_waiting: false,
            earlier: EarlierAnswers::of(&cell.state),
            heard: Vec::new(),
        };
        cell.handler = Some(handler);
        let is_due = cell.state.work().retry_at.is_none_or(|at| at <= now);
        self.must(is_due, "an attempt begins before it is due");
        self.must(step >= self.clients[task].checkpoint, "a kept checkpoint is lost");
        self.change(task, Event::HandlerStarted, Then::GoOn { step })
    }

    pub(super) fn go_on(&mut self, task: usize, step: usize) {
        if let Some(handler) = &mut self.cell_mut(task).handler {
            handler.step = step;
            self.bag.push(Happening::Goes { task });
        }
    }

    pub(super) fn take_step(&mut self, task: usize) -> Result<(), Crash> {
        let now = self.now;
        let again = now.plus_millis(1 + self.chance.below(50) as u64);
        let retries = self.scripts[task].retries;
        let Some(cell) = self.cells.get_mut(&task) else { return Ok(()) };
        let Some(handler) = &mut cell.handler else { return Ok(()) };
        let (step, attempt) = (handler.step, handler.attempt);
        let what = self.scripts[task].steps[step];
        let next = Then::GoOn { step: step + 1 };
        let again_at = (attempt <= retries).then_some(again);
        let (event, then) = match what {
            Step::Progress => (Event::HandlerProgress(said(Role::Agent, "on it")), next),
            Step::Piece => {
                let artifacts = cell.state.task().map_or(0, |task| task.artifacts.len());
                let artifact = artifact("piece");
                (Event::HandlerArtifact { artifact, append: artifacts > 0, last: false }, next)
            }
            Step::Checkpoint => {
                let value = Json::of(&(step + 1)).unwrap();
                (Event::HandlerCheckpoint(value), Then::Checkpointed { next: step + 1 })
            }
            Step::Ask { .. } if handler.is_waiting => {
                // It has waited long enough.
                handler.is_waiting = false;
                (Event::HandlerResumed, next)
            }
            Step::Ask { words, authorization, .. } => {
                let question = said(Role::Agent, &format!("question {words}"));
                if let Some(answer) = handler.earlier.take(&cell.state, &question) {
                    self.hear(task, &answer);
                    self.go_on(task, step + 1);
                    return Ok(());
                }
                let event = match authorization {
                    true => Event::HandlerAsksAuthorization(question),
                    false => Event::HandlerAsked(question),
                };
                (event, Then::Asked { step })
            }
            Step::FailsBefore(least) if attempt >= least => {
                self.go_on(task, step + 1);
                return Ok(());
            }
            Step::Hangs => return Ok(()),
            ends => {
                cell.handler = None;
                let why = said(Role::Agent, "why");
                let event = match ends {
                    Step::Panics => Event::HandlerPanicked { message_id: id("panic") },
                    Step::Rejects => Event::HandlerRejected(why),
                    Step::Finishes => Event::HandlerFinished(Ok(artifact("result"))),
                    _ => Event::HandlerFailed { why, again_at },
                };
                (event, Then::Nothing)
            }
        };
        self.change(task, event, then)
    }

    /// Hands the message that came last to the handler.
    pub(super) fn resume(&mut self, task: usize) {
        let cell = self.cell_mut(task);
        let Some(handler) = &mut cell.handler else { return };
        if !std::mem::take(&mut handler.is_waiting) {
            return;
        }
        let step = handler.step;
        let Some(answer) = cell.state.task().and_then(|task| task.history.last().cloned()) else {
            return;
        };
        self.hear(task, &answer);
        self.go_on(task, step + 1);
    }

    /// The handler is given an answer: one that is new to it, and that no checkpoint stands for.
    fn hear(&mut self, task: usize, answer: &Message) {
        let Content::Text(text) = &answer.parts[0].content else { return };
        self.must(answer.role == Role::User, "a handler hears itself");
        self.must(!self.clients[task].settled.contains(text), "a settled answer is given again");
        let handler = self.cell_mut(task).handler.as_mut();
        let is_new = handler.is_none_or(|handler| {
            let is_new = !handler.heard.contains(text);
            handler.heard.push(text.clone());
            is_new
        });
        self.must(is_new, "an answer is given twice");
    }
}
