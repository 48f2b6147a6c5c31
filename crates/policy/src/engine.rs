//! Evaluation: one engine for each policy and worker thread.

use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use convoke_model::{Json, Reason, Revision, UnixMillis};
use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, LimitError, Value};

use crate::clock::thread_time;
use crate::field::{Field, Fields};
use crate::input::Inputs;
use crate::memo::{Memo, Recalled};
use crate::said::{Said, tidy};
use crate::store::{Kept, ProgramId, keep, take};
use crate::{Question, guard};

/// Most attempts at one evaluation: the first by the clock on the wall, which costs next to nothing
/// to read, the others by the thread's processor time.
///
/// The engine itself cuts by the wall alone, so each attempt is given twice as much of it as the one
/// before. Source: with 5 ms of processor time, the last is cut after 160 ms, which a thread of a
/// busy machine waits for its turn at most once in a while, and not six times in a row.
const ATTEMPTS_MAX: u32 = 6;

/// Steps of evaluation between two looks at the clock.
const STEPS_PER_CLOCK_READ: NonZeroU32 = NonZeroU32::new(16).unwrap();

/// A policy that has been checked, as every thread loads it.
pub(crate) struct Program {
    /// Tells programs apart for the lifetime of the process, as an address would not.
    pub(crate) id: ProgramId,
    /// The file's name, for messages.
    pub(crate) name: String,
    /// The texts of its data files, which have been checked.
    pub(crate) data: Vec<String>,
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
    /// The functions it may call whose result or work [`guard`] bounds.
    pub(crate) guarded: Vec<&'static str>,
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

#[cfg(test)]
thread_local! {
    static EVALUATIONS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// One thread's own copy of a policy, and what it keeps from question to question.
pub(crate) struct Worker {
    /// `None` after an evaluation that failed or panicked: nobody can vouch for what it left, so the
    /// next question is asked of a new one.
    engine: Option<Box<Engine>>,
    /// The data document, which is shared with the engine.
    data: Value,
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
    // The worker is taken out of the thread's store while it is asked, so that one that a panic has
    // left half way is never asked again.
    let mut kept = match take(program) {
        Some(kept) => kept,
        None => match Worker::load(program) {
            Ok(worker) => Kept::new(program, worker),
            Err(said) => {
                let reason = Reason::Error(said.in_file(&program.name));
                return (reason, program.rule.clone(), program.revision.clone());
            }
        },
    };
    let (rule, revision) = (kept.worker.rule.clone(), kept.worker.revision.clone());
    let reason = kept.worker.ask(program, question, monotonic);
    keep(kept);
    (reason, rule, revision)
}

impl Worker {
    fn load(program: &Program) -> Result<Self, Said> {
        let data = program.data_document()?;
        let now_ns = Arc::new(AtomicI64::new(0));
        Ok(Self {
            engine: Some(new_engine_of(program, &data, &now_ns)?),
            data,
            inputs: Inputs::new(program.reads),
            memo: if program.pure { Memo::of(program.reads) } else { None },
            now_ns,
            rule: Arc::from(&*program.rule),
            revision: Revision(Arc::from(&*program.revision.0)),
        })
    }

    fn ask(
        &mut self,
        program: &Program,
        question: &Question<'_>,
        monotonic: &dyn Fn() -> Duration,
    ) -> Reason {
        let params = if program.reads.has(Field::Params) { question.params } else { None };
        // Before the memo, because the size is of all texts and the memo knows the readable alone.
        if question.document_bytes(params) > program.input_bytes_max {
            return Reason::InputTooLarge;
        }
        let key = match self.memo.as_mut().map(|memo| memo.recall(question)) {
            Some(Recalled::Known(reason)) => return reason,
            Some(Recalled::Unknown(key)) => Some(key),
            Some(Recalled::TooLong) | None => None,
        };
        let reason = self.evaluate(program, question, params, monotonic);
        if let (Some(memo), Some(key)) = (&mut self.memo, key) {
            memo.keep(key, &reason);
        }
        reason
    }

    fn evaluate(
        &mut self,
        program: &Program,
        question: &Question<'_>,
        params: Option<&Json>,
        monotonic: &dyn Fn() -> Duration,
    ) -> Reason {
        let input = match self.inputs.document(question, params) {
            Ok(input) => input,
            Err(said) => return Reason::Error(format!("request.params: {}", said.message)),
        };
        self.now_ns.store(nanos(question.at), Ordering::Relaxed);
        let began = monotonic();
        let mut answer = self.attempt(program, input.clone(), program.time_max);
        // A thread has no more processor time than the wall has moved on.
        let mut surely_in_time = monotonic().saturating_sub(began) <= program.time_max;
        let mut wall = program.time_max;
        for _ in 1..ATTEMPTS_MAX {
            if surely_in_time && !matches!(answer, Err(Failure::Time)) {
                break;
            }
            wall = wall.saturating_mul(2);
            let began = thread_time();
            answer = self.attempt(program, input.clone(), wall);
            if thread_time().saturating_sub(began) > program.time_max {
                answer = Err(Failure::Time);
                break;
            }
            surely_in_time = true;
        }
        // Parameters may be megabytes, and the thread may not be asked again. What else a document
        // holds is small, and the next one takes its place.
        if let (Some(engine), Some(_)) = (&mut self.engine, params) {
            engine.set_input(Value::Undefined);
        }
        match answer {
            Ok(reason) => reason,
            Err(Failure::Time) => Reason::OverTime,
            Err(Failure::Other(said)) => Reason::Error(said.in_file(&program.name)),
        }
    }

    /// Asks the engine once, for at most `wall` by the clock on the wall between two of its steps.
    fn attempt(
        &mut self,
        program: &Program,
        input: Value,
        wall: Duration,
    ) -> Result<Reason, Failure> {
        #[cfg(test)]
        EVALUATIONS.set(EVALUATIONS.get() + 1);
        let mut engine = match self.engine.take() {
            Some(engine) => engine,
            None => new_engine_of(program, &self.data, &self.now_ns).map_err(Failure::Other)?,
        };
        if wall != program.time_max {
            engine.set_execution_timer_config(timer(wall));
        }
        engine.set_input(input);
        // The engine panics on some numbers. That is a refusal like its other errors, so that it is
        // put on record.
        let inputs = &self.inputs;
        let answer = catch_unwind(AssertUnwindSafe(|| {
            let reason = answer(&mut engine, inputs, program)?;
            // `print` in a policy has nowhere to go; kept, its lines would pile up.
            engine.take_prints().map_err(|error| Failure::Other(Said::of(&error)))?;
            if wall != program.time_max {
                engine.set_execution_timer_config(timer(program.time_max));
            }
            Ok((reason, engine))
        }));
        let (reason, engine) = answer.unwrap_or_else(|_panic| {
            let message = "the policy engine broke off".to_owned();
            Err(Failure::Other(Said { at: (0, 0), message }))
        })?;
        self.engine = Some(engine);
        Ok(reason)
    }
}

fn answer(engine: &mut Engine, inputs: &Inputs, program: &Program) -> Result<Reason, Failure> {
    let value = rule_value(engine, &program.rule)?;
    if program.ask == Ask::Decision {
        return Ok(match value {
            Value::Undefined => Reason::Undefined,
            Value::Object(fields) => {
                let text = fields.get(&inputs.reason).and_then(string);
                match fields.get(&inputs.allow) {
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
        Some(rule) => string(&rule_value(engine, rule)?),
        None => None,
    };
    Ok(if allowed { Reason::Allowed(text) } else { Reason::Denied(text) })
}

fn rule_value(engine: &mut Engine, rule: &str) -> Result<Value, Failure> {
    engine.eval_rule(rule.to_owned()).map_err(|error| match error.downcast_ref::<LimitError>() {
        Some(LimitError::TimeLimitExceeded { .. }) => Failure::Time,
        _ => Failure::Other(Said::of(&error)),
    })
}

enum Failure {
    Time,
    Other(Said),
}

pub(crate) fn timer(limit: Duration) -> ExecutionTimerConfig {
    ExecutionTimerConfig { limit, check_interval: STEPS_PER_CLOCK_READ }
}

/// An engine that is ready to be asked.
fn new_engine_of(
    program: &Program,
    data: &Value,
    now_ns: &Arc<AtomicI64>,
) -> Result<Box<Engine>, Said> {
    let mut engine = engine_of(program, &program.text, data, now_ns)?;
    engine.set_execution_timer_config(timer(program.time_max));
    // Prepares the engine, which the first evaluation would otherwise do in its own time.
    engine.compile_with_entrypoint(&program.rule).map_err(|error| Said::of(&error))?;
    Ok(engine)
}

/// An engine with `text`, which is the program's or has more rules, with the program's data and
/// functions, and without a bound on time.
pub(crate) fn engine_of(
    program: &Program,
    text: &str,
    data: &Value,
    now_ns: &Arc<AtomicI64>,
) -> Result<Box<Engine>, Said> {
    let mut engine = Box::new(new_engine(program.v0));
    let shared = now_ns.clone();
    // An extension goes before the built-in function of the same name.
    let clock = move |_: Vec<Value>| Ok(Value::from(shared.load(Ordering::Relaxed)));
    engine
        .add_extension("time.now_ns".to_owned(), 0, Box::new(clock))
        .map_err(|error| Said::of(&error))?;
    guard::install(&mut engine, &program.guarded).map_err(|error| Said::of(&error))?;
    engine.add_data(data.clone()).map_err(|error| Said::of(&error))?;
    engine.add_policy(program.name.clone(), text.to_owned()).map_err(|error| Said::of(&error))?;
    Ok(engine)
}

impl Program {
    /// What its data files say together.
    pub(crate) fn data_document(&self) -> Result<Value, Said> {
        let mut engine = Engine::new();
        for text in &self.data {
            engine.add_data_json(text).map_err(|error| Said::of(&error))?;
        }
        Ok(engine.get_data())
    }
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

pub(crate) fn nanos(at: UnixMillis) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX).saturating_mul(1_000_000)
}

fn string(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(tidy(text)),
        _ => None,
    }
}

/// How often this thread has asked an engine.
#[cfg(test)]
pub(crate) fn evaluations() -> u64 {
    EVALUATIONS.get()
}
