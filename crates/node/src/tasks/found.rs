//! Tasks whose turn has come, and those that an earlier process left.
//!
//! At its start a node claims what the journal has that has not ended. Answers begin before that is
//! over. What waits for its turn keeps waiting, now here; what was at work goes on if its capability
//! says how, and has failed otherwise.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use convoke_agent::CapabilityIndex;
use convoke_engine::{Event, State};
use convoke_journal::{Claimed, Scope};
use convoke_model::{
    Caller, Fault, FaultCode, Json, Principal, SpiffeId, TaskState, TraceContext, UnixMillis,
};
use futures_util::FutureExt;
use futures_util::stream::{StreamExt, iter};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Tasks;
use super::board::Seat;
use super::running::{Origin, Outset, Running};
use super::said::words;
use crate::ids;
use crate::service::Service;

/// How many tasks are claimed at a time.
const CLAIMED_AT_A_TIME: usize = 1_000;

/// How many tasks that cannot go on are ended at a time: enough for the journal to commit them
/// together.
const ENDED_AT_A_TIME: usize = 64;

/// How often a task is begun at most. One whose work ends the process would end it for ever.
const ATTEMPTS_MAX: u32 = 100;

/// How long to wait before the journal is asked again after it has failed.
const PAUSE: Duration = Duration::from_secs(1);

impl Tasks {
    /// Finds what an earlier process left, until `stop`.
    pub(crate) async fn find_all(&self, service: &Arc<Service>, stop: &CancellationToken) {
        let begun = service.clock.monotonic();
        let (mut waiting, mut going_on, mut failed) = (0_usize, 0_usize, 0_usize);
        loop {
            let claimed = match service
                .journal
                .claim(&service.agent.spiffe_id, CLAIMED_AT_A_TIME)
                .await
            {
                Ok(claimed) => claimed,
                Err(error) => {
                    tracing::error!(error = %error, "Tasks of an earlier process were not found");
                    tokio::select! {
                        () = sleep(PAUSE) => continue,
                        () = stop.cancelled() => return,
                    }
                }
            };
            if claimed.is_empty() || stop.is_cancelled() {
                break;
            }
            let mut lost = Vec::new();
            for claimed in claimed {
                let found = Found::of(service, claimed, &self.questions);
                match (found.goes_on, found.state) {
                    (false, _) => lost.push(found),
                    (true, state) => {
                        match state {
                            TaskState::Submitted => waiting += 1,
                            _ => going_on += 1,
                        }
                        self.board.line_up_found(found.running, service.clock.now());
                    }
                }
            }
            failed += lost.len();
            iter(lost)
                .for_each_concurrent(ENDED_AT_A_TIME, |found| async move {
                    found.running.insist(service, found.end).await;
                })
                .await;
        }
        self.all_found.store(true, Ordering::Release);
        if waiting + going_on + failed > 0 {
            let took = service.clock.monotonic().saturating_sub(begun);
            let duration_ms = crate::context::millis(took);
            tracing::info!(
                waiting,
                going_on,
                failed,
                duration_ms,
                "Tasks of an earlier process found"
            );
        }
    }

    /// Begins tasks as their turn comes, and ends those whose deadline is over before, until `stop`.
    pub(crate) async fn serve_line(&self, service: &Arc<Service>, stop: &CancellationToken) {
        loop {
            while let Some(seat) = self.board.next() {
                let service = Arc::clone(service);
                self.handlers.spawn(async move { begin(&service, seat).await });
            }
            let now = service.clock.now();
            for overdue in self.board.overdue(now) {
                let (service, board) = (Arc::clone(service), Arc::clone(&self.board));
                self.handlers.spawn(async move {
                    let message_id = ids::message();
                    overdue.insist(&service, vec![Event::DeadlinePassed { message_id }]).await;
                    board.leave(&overdue);
                });
            }
            let deadline = self.board.next_deadline();
            let alarm = async {
                match deadline {
                    // Looked at anew now and then, because the time of day may be set.
                    Some(UnixMillis(at)) => {
                        let left = Duration::from_millis(at.saturating_sub(now.0));
                        sleep(left.min(Duration::from_secs(60))).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.board.changed() => {}
                () = alarm => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

/// A task of an earlier process.
struct Found {
    running: Arc<Running>,
    state: TaskState,
    /// Whether it waits for its turn, or its capability says how to go on.
    goes_on: bool,
    /// What happens to it otherwise.
    end: Vec<Event>,
}

impl Found {
    fn of(service: &Service, claimed: Claimed, questions: &Arc<crate::quota::Quota>) -> Self {
        let Claimed { scope, id, fence, state, capability, terms } = claimed;
        let origin = Origin {
            caller: caller_of(&scope, &service.agent.spiffe_id),
            request_id: ids::request(),
            trace: root(),
        };
        let known = service.host.find(&capability);
        let message_id = ids::message();
        let (goes_on, end) = match known {
            Some(index) => {
                let descriptor = service.host.descriptor(index);
                // Of those whose attempts are made again only the task itself says whether it waits
                // for one.
                let goes_on =
                    descriptor.resume || descriptor.retries > 0 || state == TaskState::Submitted;
                let resumable = descriptor.resume;
                (goes_on, vec![Event::Recovered { resumable, message_id }])
            }
            None => {
                let text = format!("the agent no longer has capability `{capability}`");
                (false, failed(text))
            }
        };
        let outset = Outset { id, scope, capability: known, terms, origin };
        let running = Running::new(outset, questions);
        running.is_ours_by(fence);
        Self { running, state, goes_on, end }
    }
}

/// A task that cannot be begun fails. Where it waits for another attempt, that one is what fails.
fn failed(text: String) -> Vec<Event> {
    vec![Event::HandlerStarted, Event::HandlerFinished(Err(words(text)))]
}

/// What is to be done with a task whose turn has come.
enum Turn {
    /// Its handler is run, with these parameters; that is committed.
    Work(CapabilityIndex, Json),
    /// Its next attempt is due then.
    Wait(UnixMillis),
    /// Nothing.
    Nothing,
}

/// Begins a task whose turn has come, and works on it.
async fn begin(service: &Arc<Service>, seat: Seat) {
    let running = Arc::clone(seat.task());
    let whole = async {
        loop {
            let pause = match try_begin(service, &running).await {
                Ok(Turn::Work(index, params)) => {
                    return running.work(service, (index, params)).await;
                }
                Ok(Turn::Nothing) => return,
                Ok(Turn::Wait(at)) => {
                    Duration::from_millis(at.0.saturating_sub(service.clock.now().0)).min(PAUSE)
                }
                Err(fault) => {
                    tracing::error!(task_id = %running.id(), error = %fault, "Task was not begun");
                    if fault.code != FaultCode::Unavailable {
                        return running.insist(service, failed(fault.message)).await;
                    }
                    PAUSE
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = running.stop().cancelled() => return,
                () = service.tasks.cut() => return,
            }
        }
    };
    if AssertUnwindSafe(whole).catch_unwind().await.is_err() {
        tracing::error!(task_id = %running.id(), "Task broke off");
        running.break_off(service).await;
    }
    drop(seat);
}

/// Commits that the task begins, or goes on.
async fn try_begin(service: &Service, running: &Arc<Running>) -> Result<Turn, Fault> {
    let mut slot = running.slot.lock().await;
    let state = slot.fresh(service, running.scope(), running.id()).await?;
    let now = service.clock.now();
    let Some(task) = state.task().filter(|_| !state.is_ended()) else { return Ok(Turn::Nothing) };
    let deadline = running.terms().deadline;
    if deadline.is_some_and(|deadline| deadline <= now) {
        let passed = Event::DeadlinePassed { message_id: ids::message() };
        running.change(service, &mut slot, [passed], None).await?;
        return Ok(Turn::Nothing);
    }
    // One that waits for its caller has come to its question, and may wait over many restarts.
    if state.work().attempt >= ATTEMPTS_MAX && !task.status.state.is_interrupted() {
        let text = format!("the task was begun {ATTEMPTS_MAX} times and never came to its end");
        return Err(Fault::new(FaultCode::CapabilityFailed, text));
    }
    let Some(asked) = task.history.first() else { return Err(super::not_found(running.id())) };
    // As when it was sent: the message says so, and the agent's schemas may be others by now.
    let named = convoke_a2a::capability::named_capability(asked)?;
    let (index, params) = service.host.resolve(asked, named.as_ref())?;
    if Some(index) != running.capability() {
        let text = "the agent would give the message to another capability by now; send it again";
        return Err(Fault::new(FaultCode::UnsupportedOperation, text));
    }
    service.host.check_input(index, &params)?;
    if let Some(at) = state.work().retry_at {
        if at > now {
            return Ok(Turn::Wait(at));
        }
        running.change(service, &mut slot, [Event::RetryDue, Event::HandlerStarted], None).await?;
    } else {
        let resumable = service.host.descriptor(index).resume;
        let recovered = Event::Recovered { resumable, message_id: ids::message() };
        running.change(service, &mut slot, [recovered, Event::HandlerStarted], None).await?;
    }
    let has_ended = slot.state.as_ref().is_none_or(State::is_ended);
    Ok(if has_ended { Turn::Nothing } else { Turn::Work(index, params) })
}

/// Who sent a task, as its scope remembers it.
fn caller_of(scope: &Scope, agent: &SpiffeId) -> Caller {
    match SpiffeId::parse(&scope.owner) {
        Ok(id) => {
            let mut principal = Principal::from_verified_svid(id, agent);
            principal.tenant = Arc::clone(&scope.tenant);
            principal.app = Arc::clone(&scope.app);
            Caller::Principal(Arc::new(principal))
        }
        // No SPIFFE ID is the word that stands for a caller without one.
        Err(_) => Caller::Anonymous,
    }
}

/// The beginning of a trace, which is not recorded.
fn root() -> TraceContext {
    let (trace, span) = (Uuid::new_v4().as_u128(), Uuid::new_v4().as_u64_pair().1);
    TraceContext::root(trace, span, false)
}
