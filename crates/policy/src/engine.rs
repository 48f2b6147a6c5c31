//! Evaluation: one engine for each policy and worker thread.

use std::cell::{Cell, RefCell};
use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use convoke_model::{Json, Reason, Revision, UnixMillis};
use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, LimitError, Value};

use crate::Question;
use crate::field::{Field, Fields};
use crate::input::Inputs;
use crate::memo::{Memo, Recalled};
use crate::said::{Said, tidy};

/// Most engines that one thread keeps; the one that was asked longest ago makes room.
///
/// Source: an engine of a small policy takes some tens of KiB and 0.3 ms to load, and a node with
/// more policies than this on one thread is slower, not wrong.
pub(crate) const ENGINES_PER_THREAD_MAX: usize = 64;

/// Steps of evaluation between two looks at the clock.
const STEPS_PER_CLOCK_READ: NonZeroU32 = NonZeroU32::new(16).unwrap();

/// A policy that has been checked, as every thread loads it.
pub(crate) struct Program {
    /// Tells programs apart for the lifetime of the process, as an address would not.
    pub(crate) id: ProgramId,
    /// The file's name, for messages.
    pub(crate) name: String,
    /// The text, with the imports that its dialect needs.
    pub(crate) text: String,
    /// Whether the text is Rego v0.
    pub(crate) v0: bool,
    /// What is asked of it.
    pub(crate) ask: Ask,
    /// The full name of the rule that decides, such as `data.agentweave.authz.allow`.
    pub(crate) rule: Arc<str>,
    /// The full name of the rule that gives the reason beside `allow`.
    pub(crate) reason_rule: Option<String>,
    /// The fields of the input document that the policy can see; the others are not built.
    pub(crate) reads: Fields,
    /// Whether equal fields always have equal answers.
    pub(crate) pure: bool,
    /// See [`crate::PolicyOptions::time_max`].
    pub(crate) time_max: Duration,
    /// See [`crate::PolicyOptions::input_bytes_max`].
    pub(crate) input_bytes_max: usize,
    /// Which policy this is.
    pub(crate) revision: Revision,
}

/// What a program's rule is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// A boolean.
    Allow,
    /// An object with a boolean `allow` and perhaps a string `reason`.
    Decision,
}

/// Names a program. Dropping it tells the threads to look for engines that nobody needs.
pub(crate) struct ProgramId(u64);

static PROGRAMS_MADE: AtomicU64 = AtomicU64::new(0);
static PROGRAMS_DROPPED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static ENGINES: RefCell<Vec<Kept>> = const { RefCell::new(Vec::new()) };
    /// [`PROGRAMS_DROPPED`] when this thread last looked.
    static DROPS_SEEN: Cell<u64> = const { Cell::new(0) };
}

#[cfg(test)]
thread_local! {
    static EVALUATIONS: Cell<u64> = const { Cell::new(0) };
}

/// An engine that waits on its thread for the next question.
struct Kept {
    id: u64,
    program: Weak<Program>,
    worker: Box<Worker>,
}

/// One thread's own copy of a policy, and what it keeps from question to question.
struct Worker {
    engine: Engine,
    inputs: Inputs,
    /// `None` if each question has to be evaluated.
    memo: Option<Memo>,
    /// The instant that `time.now_ns` gives, in nanoseconds since 1970.
    now_ns: Arc<AtomicI64>,
    // The thread's own copies: a count that all threads change would be contended.
    rule: Arc<str>,
    revision: Revision,
}

/// Answers `question` on this thread. Gives the rule and the revision along.
pub(crate) fn decide(
    program: &Arc<Program>,
    question: &Question<'_>,
    monotonic: &dyn Fn() -> Duration,
) -> (Reason, Arc<str>, Revision) {
    // The worker is taken out of the thread's store while it is asked and put back only after a
    // clean evaluation. So one that failed or panicked, whose state nobody can vouch for, is
    // never asked again.
    let mut kept = match take(program) {
        Some(kept) => kept,
        None => match Worker::load(program) {
            Ok(worker) => Kept {
                id: program.id.0,
                program: Arc::downgrade(program),
                worker: Box::new(worker),
            },
            Err(said) => {
                let reason = Reason::Error(said.in_file(&program.name));
                return (reason, program.rule.clone(), program.revision.clone());
            }
        },
    };
    let (rule, revision) = (kept.worker.rule.clone(), kept.worker.revision.clone());
    let reason = match kept.worker.ask(program, question, monotonic) {
        Ok(reason) => {
            keep(kept);
            reason
        }
        Err(reason) => reason,
    };
    (reason, rule, revision)
}

impl Worker {
    fn load(program: &Program) -> Result<Self, Said> {
        let mut engine = new_engine(program.v0);
        engine.set_execution_timer_config(ExecutionTimerConfig {
            limit: program.time_max,
            check_interval: STEPS_PER_CLOCK_READ,
        });
        let now_ns = Arc::new(AtomicI64::new(0));
        let shared = now_ns.clone();
        // An extension goes before the built-in function of the same name.
        let clock = move |_: Vec<Value>| Ok(Value::from(shared.load(Ordering::Relaxed)));
        engine
            .add_extension("time.now_ns".to_owned(), 0, Box::new(clock))
            .map_err(|error| Said::of(&error))?;
        engine
            .add_policy(program.name.clone(), program.text.clone())
            .map_err(|error| Said::of(&error))?;
        // Prepares the engine, which the first evaluation would otherwise do in its own time.
        engine.compile_with_entrypoint(&program.rule).map_err(|error| Said::of(&error))?;
        Ok(Self {
            engine,
            inputs: Inputs::new(program.reads),
            memo: if program.pure { Memo::of(program.reads) } else { None },
            now_ns,
            rule: Arc::from(&*program.rule),
            revision: Revision(Arc::from(&*program.revision.0)),
        })
    }

    /// `Err` is a refusal after which this worker must not be asked again.
    fn ask(
        &mut self,
        program: &Program,
        question: &Question<'_>,
        monotonic: &dyn Fn() -> Duration,
    ) -> Result<Reason, Reason> {
        let params = if program.reads.has(Field::Params) { question.params } else { None };
        // Before the memo, because the size is of all texts and the memo knows the readable alone.
        if question.document_bytes(params) > program.input_bytes_max {
            return Ok(Reason::InputTooLarge);
        }
        let key = match self.memo.as_mut().map(|memo| memo.recall(question)) {
            Some(Recalled::Known(reason)) => return Ok(reason),
            Some(Recalled::Unknown(key)) => Some(key),
            Some(Recalled::TooLong) | None => None,
        };
        let reason = self.evaluate(program, question, params, monotonic)?;
        if let (Some(memo), Some(key)) = (&mut self.memo, key) {
            memo.keep(key, &reason);
        }
        Ok(reason)
    }

    /// Asks the engine. `Err` is as in [`Worker::ask`].
    fn evaluate(
        &mut self,
        program: &Program,
        question: &Question<'_>,
        params: Option<&Json>,
        monotonic: &dyn Fn() -> Duration,
    ) -> Result<Reason, Reason> {
        #[cfg(test)]
        EVALUATIONS.set(EVALUATIONS.get() + 1);
        let input = match self.inputs.document(question, params) {
            Ok(input) => input,
            Err(said) => return Ok(Reason::Error(format!("request.params: {}", said.message))),
        };
        self.now_ns.store(nanos(question.at), Ordering::Relaxed);
        self.engine.set_input(input);

        let began = monotonic();
        // The engine panics on some numbers. That is a refusal like its other errors, so that it is
        // put on record; this worker is dropped, whatever the panic left of it.
        let answer =
            catch_unwind(AssertUnwindSafe(|| self.answer(program))).unwrap_or_else(|_panic| {
                let message = "the policy engine broke off".to_owned();
                Err(Failure::Other(Said { at: (0, 0), message }))
            });
        // `print` in a policy has nowhere to go; kept, its lines would pile up.
        let printed = self.engine.take_prints();
        let over = monotonic().saturating_sub(began) > program.time_max;
        // Parameters may be megabytes, and the thread may not be asked again. What else a document
        // holds is small, and the next one takes its place.
        if params.is_some() {
            self.engine.set_input(Value::Undefined);
        }
        match (answer, printed) {
            (Err(Failure::Time), _) => Err(Reason::OverTime),
            (Err(Failure::Other(_)), _) if over => Err(Reason::OverTime),
            (Err(Failure::Other(said)), _) => Err(Reason::Error(said.in_file(&program.name))),
            (Ok(_), Err(error)) => Err(Reason::Error(Said::of(&error).in_file(&program.name))),
            (Ok(_), Ok(_)) if over => Ok(Reason::OverTime),
            (Ok(reason), Ok(_)) => Ok(reason),
        }
    }

    fn answer(&mut self, program: &Program) -> Result<Reason, Failure> {
        let value = self.rule_value(&program.rule)?;
        if program.ask == Ask::Decision {
            return Ok(match value {
                Value::Undefined => Reason::Undefined,
                Value::Object(fields) => {
                    let text = fields.get(&self.inputs.reason).and_then(string);
                    match fields.get(&self.inputs.allow) {
                        Some(Value::Bool(true)) => Reason::Allowed(text),
                        Some(Value::Bool(false)) => Reason::Denied(text),
                        _ => Reason::NotADecision,
                    }
                }
                _ => Reason::NotADecision,
            });
        }
        let allowed = match value {
            Value::Bool(allowed) => allowed,
            Value::Undefined => return Ok(Reason::Undefined),
            _ => return Ok(Reason::NotADecision),
        };
        let text = match &program.reason_rule {
            Some(rule) => string(&self.rule_value(rule)?),
            None => None,
        };
        Ok(if allowed { Reason::Allowed(text) } else { Reason::Denied(text) })
    }

    fn rule_value(&mut self, rule: &str) -> Result<Value, Failure> {
        self.engine.eval_rule(rule.to_owned()).map_err(|error| {
            match error.downcast_ref::<LimitError>() {
                Some(LimitError::TimeLimitExceeded { .. }) => Failure::Time,
                _ => Failure::Other(Said::of(&error)),
            }
        })
    }
}

enum Failure {
    Time,
    Other(Said),
}

/// An engine without a policy, set up as both loading and asking need it.
pub(crate) fn new_engine(v0: bool) -> Engine {
    let mut engine = Engine::new();
    engine.set_rego_v0(v0);
    // A built-in function that fails must not become undefined, which `not` would make true.
    engine.set_strict_builtin_errors(true);
    // Otherwise `print` writes what it is given to standard error.
    engine.set_gather_prints(true);
    engine
}

/// Takes the program's worker out of this thread's store. Forgets the engines of dropped programs
/// on the way, if any program has been dropped.
fn take(program: &Program) -> Option<Kept> {
    ENGINES
        .try_with(|engines| {
            let mut engines = engines.borrow_mut();
            let drops = PROGRAMS_DROPPED.load(Ordering::Acquire);
            if DROPS_SEEN.replace(drops) != drops {
                engines.retain(|kept| kept.program.strong_count() > 0);
            }
            let at = engines.iter().rposition(|kept| kept.id == program.id.0)?;
            Some(engines.remove(at))
        })
        // A thread that is ending keeps nothing; it still gets its answer, from a fresh engine.
        .unwrap_or(None)
}

/// Puts a worker back as the one that was asked last.
fn keep(kept: Kept) {
    let dropped = ENGINES.try_with(|engines| {
        let mut engines = engines.borrow_mut();
        let oldest = (engines.len() >= ENGINES_PER_THREAD_MAX).then(|| engines.remove(0));
        engines.push(kept);
        oldest
    });
    drop(dropped);
}

impl ProgramId {
    pub(crate) fn new() -> Self {
        Self(PROGRAMS_MADE.fetch_add(1, Ordering::Relaxed))
    }
}

impl Drop for ProgramId {
    fn drop(&mut self) {
        PROGRAMS_DROPPED.fetch_add(1, Ordering::Release);
    }
}

fn nanos(at: UnixMillis) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX).saturating_mul(1_000_000)
}

fn string(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(tidy(text)),
        _ => None,
    }
}

/// How many engines this thread keeps.
#[cfg(test)]
pub(crate) fn engines_kept() -> usize {
    ENGINES.with_borrow(Vec::len)
}

/// How often this thread has asked an engine.
#[cfg(test)]
pub(crate) fn evaluations() -> u64 {
    EVALUATIONS.get()
}
