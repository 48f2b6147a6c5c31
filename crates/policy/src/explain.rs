//! Why a policy decided as it did: which rule allowed, or what kept each rule from allowing.
//!
//! A rule's conditions are asked one after the other, each time with those before it, in a copy of
//! the policy that has one rule more. That costs an engine for each condition, so it is for people
//! and never on the path of a request.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use convoke_model::{Decision, Reason};
use regorus::Value;
use regorus::unstable::{Expr, Literal, LiteralStmt, Module, Query, Rule, RuleAssign, RuleHead};

use crate::Question;
use crate::engine::{Program, engine_of, nanos, timer};
use crate::field::Field;
use crate::input::Inputs;
use crate::inspect::path;
use crate::said::Said;
use crate::spans::{Place, place, text};

/// The name of the rule that is added. No policy has it, or its own rule would get another value.
const PROBE: &str = "__convoke_probe";

/// Most attempts that one explanation lists.
const ATTEMPTS_MAX: usize = 200;

/// Most conditions of one rule that are asked one by one.
const CONDITIONS_MAX: usize = 64;

/// Most evaluations for one explanation.
const PROBES_MAX: usize = 2000;

/// Longest evaluation of one condition, by the clock on the wall: nobody waits but a person.
const PROBE_TIME_MAX: Duration = Duration::from_secs(2);

/// Deepest chain of rules that refer to each other which is followed.
const DEPTH_MAX: usize = 8;

/// A decision with its reasons.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// What [`crate::Policy::decide`] says.
    pub decision: Decision,
    /// The file of the policy; `None` if none is loaded.
    pub file: Option<String>,
    /// Where the rule is that decided: the one that allowed or refused on purpose, or the default.
    /// `None` if no rule did.
    pub place: Option<Place>,
    /// The rules that could have decided, in the order of the file, each followed by those that it
    /// failed by.
    pub tried: Vec<Attempt>,
}

/// One body of a rule, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The rule's name in its package, such as `allow`.
    pub rule: String,
    /// Where the body's rule begins, or its `else`.
    pub place: Place,
    /// How many rules have led here: 0 for the rule that decides.
    pub depth: usize,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a rule's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All conditions are true, and the rule has this value, as JSON.
    Holds(String),
    /// This condition, as it stands in the file, is the first that is not true.
    NotTrue {
        /// The condition's text.
        condition: String,
        /// Where it is.
        place: Place,
    },
    /// This condition could not be evaluated, which refuses the whole operation.
    Fails {
        /// The condition's text.
        condition: String,
        /// Where it is.
        place: Place,
        /// What the engine says.
        message: String,
    },
    /// It cannot be told which condition is not true, and why not.
    Unknown(&'static str),
}

/// Explains `decision`, which the policy of `program` gave to `question`.
pub(crate) fn explain(
    program: &Program,
    question: &Question<'_>,
    decision: Decision,
) -> Result<Explanation, Said> {
    let params = if program.reads.has(Field::Params) { question.params } else { None };
    let file = Some(program.name.clone());
    if matches!(decision.reason, Reason::InputTooLarge) {
        return Ok(Explanation { decision, file, place: None, tried: Vec::new() });
    }
    let mut bench = Bench {
        program,
        input: Inputs::new(program.reads).document(question, params)?,
        data: program.data_document()?,
        now_ns: Arc::new(AtomicI64::new(0)),
        probes: 0,
    };
    bench.now_ns.store(nanos(question.at), Ordering::Relaxed);
    let mut parsed = engine_of(program, &program.text, &bench.data, &bench.now_ns)?;
    let Some(module) = parsed.get_modules().first().cloned() else {
        return Ok(Explanation { decision, file, place: None, tried: Vec::new() });
    };
    let mut tried = Vec::new();
    let name = program.rule.rsplit('.').next().unwrap_or_default();
    bench.attempts(&module, name, 0, &mut BTreeSet::new(), &mut tried);

    let is = |attempt: &&Attempt, expected: Option<bool>| match (&attempt.outcome, expected) {
        (Outcome::Holds(value), Some(allowed)) => attempt.depth == 0 && decides(value, allowed),
        (Outcome::Fails { .. }, None) => true,
        _ => false,
    };
    let expected = match decision.reason {
        Reason::Allowed(_) => Some(true),
        Reason::Denied(_) => Some(false),
        _ => None,
    };
    let place = tried.iter().find(|attempt| is(attempt, expected)).map(|attempt| attempt.place);
    let default = || expected.and_then(|_| default_of(&module, name));
    Ok(Explanation { place: place.or_else(default), decision, file, tried })
}

/// Whether a rule's value, as JSON, is this decision.
fn decides(value: &str, allowed: bool) -> bool {
    match Value::from_json_str(value) {
        Ok(Value::Bool(value)) => value == allowed,
        Ok(Value::Object(fields)) => {
            fields.get(&Value::from("allow")) == Some(&Value::Bool(allowed))
        }
        _ => false,
    }
}

fn default_of(module: &Module, name: &str) -> Option<Place> {
    module.policy.iter().find_map(|rule| match &**rule {
        Rule::Default { span, refr, args, .. } if args.is_empty() && path(refr) == [name] => {
            Some(place(span))
        }
        _ => None,
    })
}

/// One question, and the policy that it is asked of with one rule more each time.
struct Bench<'a> {
    program: &'a Program,
    input: Value,
    data: Value,
    now_ns: Arc<AtomicI64>,
    probes: usize,
}

/// What a probe says.
enum Answer {
    Value(Value),
    Undefined,
    Failed(String),
    /// It does not compile: a variable of it is bound by a condition that it lacks.
    NotRego,
}

impl Bench<'_> {
    /// Goes through the bodies of the rule `name`, and of the rules by which they fail.
    fn attempts(
        &mut self,
        module: &Module,
        name: &str,
        depth: usize,
        seen: &mut BTreeSet<String>,
        tried: &mut Vec<Attempt>,
    ) {
        if !seen.insert(name.to_owned()) {
            return;
        }
        for rule in &module.policy {
            let Rule::Spec { span, head: RuleHead::Compr { refr, assign, .. }, bodies } = &**rule
            else {
                continue;
            };
            if path(refr) != [name] {
                continue;
            }
            let whole = [(span, assign.as_ref(), None)];
            let each = bodies.iter().enumerate().map(|(index, body)| {
                let span = if index == 0 { span } else { &body.span };
                // An `else` without a value is true; a further body has the value of the head.
                let value = match &body.assign {
                    None if !body.is_else => assign.as_ref(),
                    own => own.as_ref(),
                };
                (span, value, Some(&*body.query))
            });
            let bodies: Vec<_> =
                if bodies.is_empty() { whole.into_iter().collect() } else { each.collect() };
            for (span, value, query) in bodies {
                if tried.len() >= ATTEMPTS_MAX {
                    return;
                }
                let (outcome, failed_by) = self.body(query, value);
                let done = matches!(outcome, Outcome::Holds(_));
                tried.push(Attempt { rule: name.to_owned(), place: place(span), depth, outcome });
                if let Some(name) = failed_by.filter(|_| depth < DEPTH_MAX) {
                    self.attempts(module, &name, depth + 1, seen, tried);
                }
                if done {
                    break;
                }
            }
        }
    }

    /// What becomes of one body, and the rule whose want of a value is the reason.
    fn body(
        &mut self,
        query: Option<&Query>,
        value: Option<&RuleAssign>,
    ) -> (Outcome, Option<String>) {
        let value = value.map_or("true", |assign| text(assign.value.span()));
        let statements: &[LiteralStmt] = query.map_or(&[], |query| &query.stmts);
        let texts: Vec<&str> = statements.iter().map(|statement| text(&statement.span)).collect();
        let whole: Vec<usize> = (0..statements.len()).collect();
        match self.probe(&texts, &whole, value) {
            Answer::Value(value) => {
                let json = value.to_json_str().unwrap_or_else(|_| value.to_string());
                return (Outcome::Holds(json), None);
            }
            Answer::NotRego => {
                return (Outcome::Unknown("the body cannot be asked by itself"), None);
            }
            Answer::Undefined | Answer::Failed(_) => {}
        }
        if statements.len() > CONDITIONS_MAX {
            return (Outcome::Unknown("it has too many conditions to ask one by one"), None);
        }
        // Conditions may stand before those that bind their variables: the next one is the first
        // that can be asked together with those that hold.
        let mut holding: Vec<usize> = Vec::new();
        let mut open: Vec<usize> = whole;
        while !open.is_empty() {
            let mut next = None;
            for (at, index) in open.iter().copied().enumerate() {
                let mut with = holding.clone();
                with.push(index);
                match self.probe(&texts, &with, "true") {
                    Answer::NotRego => {}
                    said => {
                        next = Some((at, index, said));
                        break;
                    }
                }
            }
            let Some((at, index, said)) = next else {
                return (Outcome::Unknown("its conditions depend on each other"), None);
            };
            let (Some(statement), Some(text)) = (statements.get(index), texts.get(index)) else {
                return (Outcome::Unknown("its conditions depend on each other"), None);
            };
            let (condition, place) = (one_line(text), place(&statement.span));
            match said {
                Answer::Value(_) => {
                    open.remove(at);
                    holding.push(index);
                }
                Answer::Failed(message) => {
                    return (Outcome::Fails { condition, place, message }, None);
                }
                Answer::Undefined | Answer::NotRego => {
                    return (Outcome::NotTrue { condition, place }, rule_of(statement));
                }
            }
        }
        // Every condition holds, so it is the value that has none.
        let outcome = Outcome::NotTrue {
            condition: one_line(value),
            place: query.map_or(Place { line: 0, column: 0 }, |query| place(&query.span)),
        };
        (outcome, None)
    }

    /// The value `value` of a rule with the conditions of `texts` that `which` names.
    fn probe(&mut self, texts: &[&str], which: &[usize], value: &str) -> Answer {
        if self.probes >= PROBES_MAX {
            return Answer::NotRego;
        }
        self.probes += 1;
        let body: Vec<&str> = which.iter().filter_map(|index| texts.get(*index).copied()).collect();
        let body = if body.is_empty() { "true".to_owned() } else { body.join("\n") };
        let word = if self.program.v0 { "" } else { "if " };
        let rule = format!("\n{PROBE} = {value} {word}{{\n{body}\n}}\n");
        let rule = if self.program.v0 { rule } else { rule.replacen(" = ", " := ", 1) };
        let text = [self.program.text.as_str(), &rule].concat();
        let name: Arc<str> = match self.program.rule.rsplit_once('.') {
            Some((package, _)) => format!("{package}.{PROBE}").into(),
            None => return Answer::NotRego,
        };
        let Ok(mut engine) = engine_of(self.program, &text, &self.data, &self.now_ns) else {
            return Answer::NotRego;
        };
        if engine.compile_with_entrypoint(&name).is_err() {
            return Answer::NotRego;
        }
        engine.set_execution_timer_config(timer(PROBE_TIME_MAX));
        engine.set_input(self.input.clone());
        let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            engine.eval_rule(name.to_string())
        }));
        match asked {
            Ok(Ok(Value::Undefined)) => Answer::Undefined,
            Ok(Ok(value)) => Answer::Value(value),
            Ok(Err(error)) => Answer::Failed(Said::of(&error).message),
            Err(_panic) => Answer::Failed("the policy engine broke off".to_owned()),
        }
    }
}

/// The rule that a condition is nothing but the name of.
fn rule_of(statement: &LiteralStmt) -> Option<String> {
    match &statement.literal {
        Literal::Expr { expr, .. } if statement.with_mods.is_empty() => match &**expr {
            Expr::Var { span, .. } => Some(span.text().to_owned()),
            _ => None,
        },
        _ => None,
    }
}

/// A text without its line breaks.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
