//! Tests that are written in Rego, run as `opa test` runs them: every rule whose name begins with
//! `test_` has to be true.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use convoke_model::UnixMillis;
use regorus::Value;
use regorus::unstable::Rule;

use crate::engine::{nanos, new_engine, timer};
use crate::inspect::{head, path};
use crate::load::read_any;
use crate::said::Said;
use crate::spans::{Place, place};
use crate::{LoadError, PolicyOptions, PolicySource, data, guard};

/// Longest evaluation of one test, by the clock on the wall.
const TEST_TIME_MAX: Duration = Duration::from_secs(5);

/// A test and how it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegoTest {
    /// The rule's full name, such as `data.agentweave.authz.test_strangers_are_refused`.
    pub name: String,
    /// The file that it is in.
    pub file: String,
    /// Where it begins.
    pub place: Place,
    /// How it went.
    pub outcome: TestOutcome,
}

/// How a test went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TestOutcome {
    /// It is true.
    Passed,
    /// It is anything else.
    Failed,
    /// Its name begins with `todo_test_`.
    Skipped,
    /// It could not be evaluated.
    Broken(String),
}

/// Runs the tests in `files`, which are policies and their tests together, of any package. `at` is
/// what `time.now_ns` gives where a test does not say otherwise. No tests are no error.
///
/// Of the options, the language and the data count.
///
/// # Errors
///
/// [`LoadError`] of the first file that is no Rego, or that does not go with the others.
pub fn run_tests(
    files: &[PolicySource],
    options: &PolicyOptions,
    at: UnixMillis,
) -> Result<Vec<RegoTest>, LoadError> {
    let data = data::merge(&options.data, None)?;
    let now_ns = Arc::new(AtomicI64::new(nanos(at)));
    let mut engine = new_engine(false);
    let broken = |said: Said| LoadError::Syntax {
        name: files.first().map(|file| file.name.clone()).unwrap_or_default(),
        line: said.at.0,
        message: said.message,
        cure: "",
    };
    let clock = move |_: Vec<Value>| Ok(Value::from(now_ns.load(Ordering::Relaxed)));
    engine
        .add_extension("time.now_ns".to_owned(), 0, Box::new(clock))
        .and_then(|()| guard::install(&mut engine, &guard::all().collect::<Vec<_>>()))
        .and_then(|()| engine.add_data(data))
        .map_err(|error| broken(Said::of(&error)))?;
    engine.set_execution_timer_config(timer(TEST_TIME_MAX));
    for file in files {
        let (v0, text) = read_any(file, options.language)?;
        engine.set_rego_v0(v0);
        engine.add_policy(file.name.clone(), text).map_err(|error| {
            let said = Said::of(&error);
            let (name, line) = (file.name.clone(), said.at.0);
            LoadError::Syntax { name, line, message: said.message, cure: "" }
        })?;
    }
    let mut tests = Vec::new();
    for module in engine.get_modules() {
        let package = path(&module.package.refr).join(".");
        for rule in &module.policy {
            let Rule::Spec { span, .. } = &**rule else { continue };
            let (refr, args) = head(rule);
            let names = path(refr);
            let Some(name) = names.first().filter(|_| names.len() == 1 && args == 0) else {
                continue;
            };
            let name_in_full = format!("data.{package}.{name}");
            let is_test = name.starts_with("test_") || name.starts_with("todo_test_");
            if is_test && !tests.iter().any(|test: &RegoTest| test.name == name_in_full) {
                let outcome = TestOutcome::Skipped;
                let file = span.source.file().to_owned();
                tests.push(RegoTest { name: name_in_full, file, place: place(span), outcome });
            }
        }
    }
    for test in &mut tests {
        let own_name = test.name.rsplit('.').next().unwrap_or_default();
        if own_name.starts_with("todo_") {
            continue;
        }
        // A test that breaks may leave its `with` behind.
        let mut engine = engine.clone();
        let asked = catch_unwind(AssertUnwindSafe(|| engine.eval_rule(test.name.clone())));
        test.outcome = match asked {
            Ok(Ok(Value::Bool(true))) => TestOutcome::Passed,
            Ok(Ok(_)) => TestOutcome::Failed,
            Ok(Err(error)) => TestOutcome::Broken(Said::of(&error).message),
            Err(_panic) => TestOutcome::Broken("the policy engine broke off".to_owned()),
        };
    }
    Ok(tests)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PolicyData;
    use crate::fixture::{SEED_WORKER, patient};

    fn file(name: &str, text: &str) -> PolicySource {
        PolicySource { name: name.to_owned(), text: text.to_owned() }
    }

    fn check(files: &[PolicySource], expected: &[&str]) {
        let data = PolicyData { name: "d.json".to_owned(), text: r#"{"n": 7}"#.to_owned() };
        let options = PolicyOptions { data: vec![data], ..patient() };
        let tests = run_tests(files, &options, UnixMillis(1_000)).unwrap();
        let line = |test: &RegoTest| {
            format!("{}:{} {} {:?}", test.file, test.place.line, test.name, test.outcome)
        };
        assert_eq!(tests.iter().map(line).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn tests_are_run_as_opa_runs_them() {
        let tests = r#"package agentweave.authz_test

import rego.v1
import data.agentweave.authz

test_the_orchestrator_counts if {
    authz.allow with input as {"caller": {"spiffe_id": "spiffe://example.org/orchestrator"}, "request": {"method": "count_words"}}
}

test_strangers_are_refused if {
    not authz.allow with input as {"caller": {"spiffe_id": "spiffe://other.org/x"}, "agent": {"trust_domain": "example.org"}}
}

test_this_fails if authz.allow with input as {}

test_this_is_false := false

test_this_breaks if to_number("x") == 1

test_time if time.now_ns() == 1000000000

test_other_time if {
    time.now_ns() == 5 with time.now_ns as 5
}

test_data if data.n == 7

todo_test_later if false

helper if true
"#;
        check(
            &[file("worker.rego", SEED_WORKER), file("worker_test.rego", tests)],
            &[
                "worker_test.rego:6 data.agentweave.authz_test.test_the_orchestrator_counts Passed",
                "worker_test.rego:10 data.agentweave.authz_test.test_strangers_are_refused Passed",
                "worker_test.rego:14 data.agentweave.authz_test.test_this_fails Failed",
                "worker_test.rego:16 data.agentweave.authz_test.test_this_is_false Failed",
                "worker_test.rego:18 data.agentweave.authz_test.test_this_breaks \
                 Broken(\"could not parse string as number\")",
                "worker_test.rego:20 data.agentweave.authz_test.test_time Passed",
                "worker_test.rego:22 data.agentweave.authz_test.test_other_time Passed",
                "worker_test.rego:26 data.agentweave.authz_test.test_data Passed",
                "worker_test.rego:28 data.agentweave.authz_test.todo_test_later Skipped",
            ],
        );
    }

    #[test]
    fn files_that_are_no_rego_are_named() {
        let files = [file("a.rego", "package a\nx := 1"), file("b.rego", "package b\nx := {")];
        let error = run_tests(&files, &patient(), UnixMillis(0)).unwrap_err();
        assert_eq!(error.to_string(), "b.rego:2: expecting expression");
        check(&[file("a.rego", "package a\nx := 1")], &[]);
    }
}
