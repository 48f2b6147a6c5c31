//! The node, its clients, and what has to hold.

use std::collections::{BTreeMap, BTreeSet};

use convoke_model::{
    Artifact, ArtifactId, CapabilityName, Content, ContextId, Message, MessageId, Part, Role,
    TaskEvent, TaskId, TaskState, Terms, UnixMillis,
};

use super::handler::Handler;
use super::journal::Journal;
use super::script::{Chance, Script, Step};
use crate::{Action, Due, Effects, Event, State, Timer, decide, timers};

/// Something that is under way and will come to pass, in whatever order.
#[derive(Debug, PartialEq)]
pub(super) enum Happening {
    /// A client sends the message that makes its task, maybe not for the first time.
    Send {
        client: usize,
    },
    Answer {
        task: usize,
        serial: usize,
    },
    Cancel {
        task: usize,
    },
    /// The node finds a task after a crash.
    Found {
        task: usize,
    },
    /// A handler's turn has come.
    Begin {
        task: usize,
    },
    /// A handler takes its next step.
    Goes {
        task: usize,
    },
    Fires {
        task: usize,
        timer: Timer,
    },
    /// The journal has taken what was decided.
    Committed(Commit),
}

/// What is done once a commit is durable.
#[derive(Debug, PartialEq)]
pub(super) struct Commit {
    task: usize,
    last_seq: u64,
    /// Whether it is acknowledged before it is durable.
    is_lazy: bool,
    actions: Vec<Action>,
    then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Then {
    Nothing,
    /// The client learns of its task.
    Acknowledge {
        client: usize,
    },
    /// The handler goes on with this step.
    GoOn {
        step: usize,
    },
    Checkpointed {
        next: usize,
    },
    Asked {
        step: usize,
    },
}

/// The node is gone.
#[derive(Debug, PartialEq)]
pub(super) struct Crash;

/// What the node knows of a task, and forgets in a crash.
pub(super) struct Cell {
    pub(super) state: State,
    /// A commit is under way, and whoever wants to change the task waits for it.
    is_busy: bool,
    /// A handler waits for its turn.
    pub(super) is_queued: bool,
    pub(super) handler: Option<Handler>,
}

/// What is known outside of the node, and so survives it.
#[derive(Default)]
pub(super) struct Client {
    /// Whether it was told that its task is kept.
    is_acknowledged: bool,
    /// The number of the newest event that had to be durable when it was told of it.
    seq: u64,
    /// The step behind the last checkpoint whose handler was told that it is kept.
    pub(super) checkpoint: usize,
    /// The answers that such a checkpoint stands for.
    pub(super) settled: BTreeSet<String>,
}

/// Everything. A client has one task, and the number of the one is that of the other.
pub(super) struct World {
    seed: u64,
    pub(super) chance: Chance,
    crashes: Option<BTreeSet<usize>>,
    crashes_left: usize,
    boundaries: usize,
    happened: usize,
    pub(super) now: UnixMillis,
    pub(super) scripts: Vec<Script>,
    pub(super) clients: Vec<Client>,
    journal: Journal,
    pub(super) cells: BTreeMap<usize, Cell>,
    pub(super) bag: Vec<Happening>,
    serial: usize,
}

/// More than any world needs that does not go round in circles.
const HAPPENINGS_MAX: usize = 20_000;

impl World {
    pub(super) fn new(seed: u64, crashes: Option<&BTreeSet<usize>>) -> Self {
        let mut chance = Chance::seeded(seed);
        let scripts: Vec<_> = (0..=chance.below(3)).map(|_| Script::random(&mut chance)).collect();
        Self {
            seed,
            chance,
            crashes: crashes.cloned(),
            crashes_left: 6,
            boundaries: 0,
            happened: 0,
            now: UnixMillis(1),
            clients: scripts.iter().map(|_| Client::default()).collect(),
            scripts,
            journal: Journal::default(),
            cells: BTreeMap::new(),
            bag: Vec::new(),
            serial: 0,
        }
    }

    pub(super) fn boundaries(&self) -> usize {
        self.boundaries
    }

    /// Every client sends, some more than once.
    pub(super) fn begin(&mut self) {
        for client in 0..self.clients.len() {
            for _ in 0..=self.chance.below(3) {
                self.bag.push(Happening::Send { client });
            }
        }
    }

    /// What comes next; `None` once nothing more will.
    pub(super) fn next(&mut self) -> Option<Happening> {
        self.happened += 1;
        self.must(self.happened < HAPPENINGS_MAX, "it goes round in circles");
        if self.bag.is_empty() {
            self.drain();
        }
        let is_due = |happening: &Happening, now: UnixMillis| match happening {
            Happening::Fires { timer, .. } => timer.at <= now,
            _ => true,
        };
        if !self.bag.iter().any(|happening| is_due(happening, self.now)) {
            let at = self.bag.iter().filter_map(|happening| match happening {
                Happening::Fires { timer, .. } => Some(timer.at),
                _ => None,
            });
            self.now = at.min().unwrap_or(self.now);
        }
        self.now = self.now.plus_millis(self.chance.below(3) as u64);
        // What is not due yet now and then fires early, by a clock that is ahead.
        let ready: Vec<usize> = (0..self.bag.len())
            .filter(|&place| is_due(&self.bag[place], self.now) || self.chance.once_in(16))
            .collect();
        if ready.is_empty() {
            return None;
        }
        let place = ready[self.chance.below(ready.len())];
        Some(self.bag.swap_remove(place))
    }

    /// What clients do when nothing else happens: ask again, answer, and end what would never end.
    fn drain(&mut self) {
        for client in 0..self.clients.len() {
            let wanted = match self.committed(client) {
                _ if !self.clients[client].is_acknowledged => Happening::Send { client },
                Some(state) if state.is_ended() => continue,
                Some(state) if waits(&state) => self.answer(client),
                Some(_) => {
                    let hangs = matches!(self.scripts[client].steps.last(), Some(Step::Hangs));
                    self.must(hangs, "a task is left alone");
                    Happening::Cancel { task: client }
                }
                None => {
                    self.must(false, "an acknowledged task is lost");
                    continue;
                }
            };
            self.bag.push(wanted);
        }
    }

    fn answer(&mut self, task: usize) -> Happening {
        self.serial += 1;
        Happening::Answer { task, serial: self.serial }
    }

    pub(super) fn happen(&mut self, happening: Happening) -> Result<(), Crash> {
        match happening {
            Happening::Send { client } => self.send(client),
            Happening::Committed(commit) => self.committed_now(commit),
            Happening::Answer { task, .. }
            | Happening::Cancel { task }
            | Happening::Found { task }
            | Happening::Begin { task }
            | Happening::Goes { task }
            | Happening::Fires { task, .. }
                if self.cell(task).is_none_or(|cell| cell.is_busy) =>
            {
                // A task that the crash took with it has nobody who waits.
                if self.cells.contains_key(&task) {
                    self.bag.push(happening);
                }
                Ok(())
            }
            Happening::Answer { task, serial } => {
                let answer = said(Role::User, &format!("answer {serial}"));
                self.change(task, Event::Message(answer), Then::Nothing)
            }
            Happening::Cancel { task } => self.change(task, Event::Cancel, Then::Nothing),
            Happening::Found { task } => {
                let resumable = self.scripts[task].resumable;
                let found = Event::Recovered { resumable, message_id: id("restart") };
                self.change(task, found, Then::Nothing)?;
                self.arm(task);
                Ok(())
            }
            Happening::Begin { task } => self.begin_attempt(task),
            Happening::Goes { task } => self.take_step(task),
            Happening::Fires { task, timer } => {
                let is_early = self.now < timer.at;
                if is_early {
                    // It is still due, and whoever waits goes on waiting.
                    self.bag.push(Happening::Fires { task, timer });
                }
                let event = match timer.what {
                    Due::Retry => Event::RetryDue,
                    Due::Deadline if is_early => return Ok(()),
                    Due::Deadline => Event::DeadlinePassed { message_id: id("late") },
                };
                self.change(task, event, Then::Nothing)
            }
        }
    }

    fn send(&mut self, client: usize) -> Result<(), Crash> {
        if self.journal.known(client).is_some() {
            // Whoever is told of a task is told of one that is kept.
            self.boundary()?;
            self.journal.sync();
            self.boundary()?;
            self.clients[client].is_acknowledged = true;
            return Ok(());
        }
        let state = self.vacant(client);
        let cell = Cell { state, is_busy: false, is_queued: false, handler: None };
        self.cells.insert(client, cell);
        let submit = Event::Submit(said(Role::User, "do it"));
        self.change(client, submit, Then::Acknowledge { client })
    }

    /// Decides, and hands what follows to the journal. What is refused changes nothing.
    pub(super) fn change(&mut self, task: usize, event: Event, then: Then) -> Result<(), Crash> {
        self.boundary()?;
        let Some(cell) = self.cells.get_mut(&task) else { return Ok(()) };
        let mut effects = Effects::new();
        let is_new = cell.state.task().is_none();
        let is_of_client = matches!(event, Event::Message(_) | Event::Cancel);
        let is_refused = decide(&mut cell.state, event, self.now, &mut effects).is_err();
        let commit = Commit {
            task,
            last_seq: cell.state.last_seq(),
            is_lazy: effects.records.is_empty()
                && effects.events.iter().all(|event| matches!(event, TaskEvent::Artifact { .. })),
            actions: effects.actions,
            then,
        };
        cell.is_busy = !(effects.events.is_empty() && effects.records.is_empty());
        let is_busy = cell.is_busy;
        self.must(is_of_client || !is_refused, "a report is refused");
        if !is_busy {
            return self.act(commit);
        }
        let send = is_new.then_some(task);
        self.journal.write(task, send, effects.events, effects.records);
        self.boundary()?;
        self.bag.push(Happening::Committed(commit));
        Ok(())
    }

    fn committed_now(&mut self, commit: Commit) -> Result<(), Crash> {
        self.boundary()?;
        if !commit.is_lazy {
            self.journal.sync();
            self.boundary()?;
            self.clients[commit.task].seq = commit.last_seq;
        }
        if let Some(cell) = self.cells.get_mut(&commit.task) {
            cell.is_busy = false;
        }
        let task = commit.task;
        self.act(commit)?;
        self.arm(task);
        Ok(())
    }

    /// Takes the actions, and tells whoever waited for the commit.
    fn act(&mut self, commit: Commit) -> Result<(), Crash> {
        let task = commit.task;
        for action in commit.actions {
            self.boundary()?;
            match action {
                Action::RunHandler => {
                    // Said again, it means nothing.
                    for _ in 0..=self.chance.below(2) {
                        self.queue(task);
                    }
                }
                Action::ResumeHandler => self.resume(task),
                // Its handler may not notice at once.
                Action::StopHandler if self.chance.once_in(2) => {
                    self.cell_mut(task).handler = None;
                }
                Action::StopHandler | Action::Answer => {}
            }
        }
        self.boundary()?;
        match commit.then {
            Then::Nothing => {}
            Then::Acknowledge { client } => {
                self.clients[client].is_acknowledged = true;
                if self.scripts[client].is_cancelled {
                    self.bag.push(Happening::Cancel { task: client });
                }
            }
            Then::GoOn { step } => self.go_on(task, step),
            Then::Checkpointed { next } => {
                if !self.cell_mut(task).state.is_ended()
                    && let Some(handler) = &self.cell_mut(task).handler
                {
                    let heard = handler.heard.clone();
                    self.clients[task].checkpoint = next;
                    self.clients[task].settled.extend(heard);
                }
                self.go_on(task, next);
            }
            Then::Asked { step } => {
                let Step::Ask { withdraws, .. } = self.scripts[task].steps[step] else {
                    return Ok(());
                };
                let cell = self.cell_mut(task);
                let is_open = waits(&cell.state);
                if let Some(handler) = &mut cell.handler {
                    handler.is_waiting = is_open;
                }
                if is_open && withdraws {
                    self.bag.push(Happening::Goes { task });
                }
                // Not everybody answers before all else is done, and some say it twice.
                for _ in 0..self.chance.below(3) {
                    let answer = self.answer(task);
                    self.bag.push(answer);
                }
            }
        }
        Ok(())
    }

    /// Every timer of the state is set, and some are set twice.
    fn arm(&mut self, task: usize) {
        let Some(cell) = self.cells.get(&task) else { return };
        for timer in timers(&cell.state) {
            let fires = Happening::Fires { task, timer };
            if !self.bag.contains(&fires) || self.chance.once_in(8) {
                self.bag.push(fires);
            }
        }
    }

    /// A place between a decision and an effect, or between two effects.
    fn boundary(&mut self) -> Result<(), Crash> {
        let at = self.boundaries;
        self.boundaries += 1;
        let crashes = match &self.crashes {
            Some(places) => places.contains(&at),
            None => self.crashes_left > 0 && self.chance.once_in(40),
        };
        if crashes { Err(Crash) } else { Ok(()) }
    }

    /// The node is gone, and comes back. What clients have sent is still on its way.
    pub(super) fn crash(&mut self) {
        self.crashes_left = self.crashes_left.saturating_sub(1);
        self.journal.crash(&mut self.chance);
        self.cells.clear();
        self.bag.retain(|happening| {
            matches!(
                happening,
                Happening::Send { .. } | Happening::Answer { .. } | Happening::Cancel { .. }
            )
        });
        for task in 0..self.clients.len() {
            let Some(state) = self.committed(task) else {
                self.must(!self.clients[task].is_acknowledged, "an acknowledged task is lost");
                continue;
            };
            self.must(state.last_seq() >= self.clients[task].seq, "an acknowledged event is lost");
            if !state.is_ended() {
                self.bag.push(Happening::Found { task });
            }
        }
    }

    /// What has to be so when nothing more happens.
    pub(super) fn check_end(&self) {
        let made = self.journal.made();
        self.must(made == (self.clients.len(), self.clients.len()), "a message made two tasks");
        for task in 0..self.clients.len() {
            let (ends, retries) = self.journal.ends_and_retries(task);
            self.must(ends == 1, "a task ends once");
            self.must(retries <= self.scripts[task].retries as usize, "too many retries");
            let Some(state) = self.committed(task) else { continue };
            let Some(ended) = state.task() else { continue };
            let has_result = ended.artifacts.iter().any(|it| it.artifact_id.as_str() == "result");
            let is_complete = ended.status.state == TaskState::Completed;
            self.must(has_result == is_complete, "a result and its end belong together");
            self.must(timers(&state).next().is_none(), "an ended task waits for nothing");
        }
    }

    pub(super) fn must(&self, holds: bool, otherwise: &str) {
        let Self { seed, crashes, scripts, .. } = self;
        assert!(
            holds,
            "{otherwise}; again by `SIMULATION_SEED={seed} cargo test -p convoke-engine \
             simulation`, crashes at {crashes:?}, of {scripts:#?}"
        );
    }

    fn vacant(&self, task: usize) -> State {
        State::new(
            TaskId::parse(&format!("task-{task}")).unwrap(),
            ContextId::parse("context").unwrap(),
            CapabilityName::parse("work").unwrap(),
            Terms { deadline: self.scripts[task].deadline, ..Terms::default() },
        )
    }

    fn committed(&self, task: usize) -> Option<State> {
        self.journal.state(task, self.vacant(task))
    }

    /// The task's cell, from the journal if need be; `None` if there is no such task.
    fn cell(&mut self, task: usize) -> Option<&Cell> {
        if !self.cells.contains_key(&task) {
            let state = self.committed(task)?;
            let cell = Cell { state, is_busy: false, is_queued: false, handler: None };
            self.cells.insert(task, cell);
        }
        self.cells.get(&task)
    }

    /// The cell of a task that something happens to, which so has one.
    pub(super) fn cell_mut(&mut self, task: usize) -> &mut Cell {
        self.cells.get_mut(&task).unwrap()
    }
}

fn waits(state: &State) -> bool {
    state.task().is_some_and(|task| task.status.state.is_interrupted())
}

pub(super) fn id(text: &str) -> MessageId {
    MessageId::parse(text).unwrap()
}

pub(super) fn said(role: Role, text: &str) -> Message {
    Message::new(id("said"), role, vec![Part::new(Content::Text(text.to_owned()))])
}

pub(super) fn artifact(name: &str) -> Artifact {
    Artifact {
        artifact_id: ArtifactId::parse(name).unwrap(),
        name: None,
        description: None,
        parts: vec![Part::new(Content::Text(name.to_owned()))],
        metadata: None,
        extensions: Vec::new(),
        unknown: Vec::new(),
    }
}
