//! `convoke policy test`: which files are what, and how their tests went.

use std::path::{Path, PathBuf};

use convoke_policy::{Policy, PolicyOptions, PolicySource, TestOutcome, run_tests};
use serde_json::{Value, json};

use super::cases::Table;
use super::{options, source};
use crate::args::PolicyTest;
use crate::authz::print;
use crate::exit::{Code, Failure};
use crate::input;
use crate::paint::{Paint, plain, say};
use crate::question::now;

/// Endings of tables in directories, where other YAML and JSON may be as well.
const TABLE_ENDINGS: [&str; 3] = [".cases.yaml", ".cases.yml", ".cases.json"];

/// Most files that directories are searched for.
const FILES_MAX: usize = 10_000;

/// The files of a run, by what they are.
#[derive(Default)]
struct Found {
    rego: Vec<PathBuf>,
    tables: Vec<PathBuf>,
}

/// One test and how it went; `why` is empty for one that passed.
struct Line {
    file: String,
    line: Option<u32>,
    name: String,
    outcome: &'static str,
    why: String,
}

pub(crate) fn run(command: &PolicyTest, paint: Paint) -> Result<(), Failure> {
    let options = options(&command.read)?;
    let mut found = Found::default();
    for path in &command.paths {
        found.add(path)?;
    }
    let sources: Vec<PolicySource> =
        found.rego.iter().map(|path| source(path)).collect::<Result<_, _>>()?;
    let mut lines = Vec::new();
    if !sources.is_empty() {
        rego(&sources, &options, &mut lines)?;
    }
    for path in &found.tables {
        table(path, &sources, &options, &mut lines)?;
    }
    if lines.is_empty() {
        return Err(Failure::new(Code::Usage, "no tests were found")
            .hint("tests are rules named `test_…` in .rego files, and tables named .cases.yaml"));
    }
    tell(&lines, command.json, paint)
}

impl Found {
    /// Adds a file, or what is below a directory in the order of names.
    fn add(&mut self, path: &Path) -> Result<(), Failure> {
        let fail = |error: std::io::Error| Failure::of_file(Code::Usage, path.display(), &error);
        if !std::fs::metadata(path).map_err(fail)?.is_dir() {
            return self.file(path, true);
        }
        let mut pending = vec![path.to_path_buf()];
        while let Some(directory) = pending.pop() {
            let mut entries: Vec<_> = std::fs::read_dir(&directory)
                .and_then(Iterator::collect::<Result<_, _>>)
                .map_err(fail)?;
            entries.sort_by_key(std::fs::DirEntry::file_name);
            for entry in entries {
                // A link to a directory may lead back here.
                if entry.file_type().map_err(fail)?.is_dir() {
                    pending.push(entry.path());
                } else {
                    self.file(&entry.path(), false)?;
                }
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, named: bool) -> Result<(), Failure> {
        let name = path.to_string_lossy();
        let is_table = TABLE_ENDINGS.iter().any(|ending| name.ends_with(ending));
        let is_data = [".yaml", ".yml", ".json"].iter().any(|ending| name.ends_with(ending));
        if name.ends_with(".rego") {
            self.rego.push(path.to_path_buf());
        } else if is_table || (named && is_data) {
            self.tables.push(path.to_path_buf());
        } else if named {
            let message = format_args!("{name} is neither Rego nor a table of cases");
            return Err(Failure::new(Code::Usage, message)
                .hint("policies and tests end with .rego, tables with .yaml or .json"));
        }
        if self.rego.len() + self.tables.len() > FILES_MAX {
            let message = format_args!("there are more than {FILES_MAX} files");
            return Err(Failure::new(Code::Usage, message).hint("name a smaller directory"));
        }
        Ok(())
    }
}

fn rego(
    sources: &[PolicySource],
    options: &PolicyOptions,
    lines: &mut Vec<Line>,
) -> Result<(), Failure> {
    let tests =
        run_tests(sources, options, now()).map_err(|error| Failure::new(Code::Usage, error))?;
    lines.extend(tests.into_iter().map(|test| {
        let (outcome, why) = match test.outcome {
            TestOutcome::Passed => ("passed", String::new()),
            TestOutcome::Failed => ("failed", "is not true".to_owned()),
            TestOutcome::Skipped => ("skipped", "is to do".to_owned()),
            TestOutcome::Broken(message) => ("failed", message),
        };
        let line = Some(test.place.line);
        Line { file: test.file, line, name: test.name, outcome, why }
    }));
    Ok(())
}

fn table(
    path: &Path,
    sources: &[PolicySource],
    options: &PolicyOptions,
    lines: &mut Vec<Line>,
) -> Result<(), Failure> {
    let file = path.display().to_string();
    let table = Table::read(path, &input::text(&file)?)?;
    let policy = match &table.policy {
        Some(policy) => {
            let directory = path.parent().unwrap_or(Path::new(""));
            Policy::load(&source(&directory.join(policy))?, options)
                .map_err(|error| Failure::new(Code::Usage, error))?
        }
        None => the_policy(&file, sources, options)?,
    };
    for case in &table.cases {
        let went = match table.asking(case) {
            Ok(asking) => case.run(&asking, &policy),
            Err(message) => {
                let message = format_args!("{file}: case `{}`: {message}", case.name);
                return Err(Failure::new(Code::Usage, message));
            }
        };
        let outcome = if went.is_ok() { "passed" } else { "failed" };
        let (why, name) = (went.err().unwrap_or_default(), case.name.clone());
        lines.push(Line { file: file.clone(), line: None, name, outcome, why });
    }
    Ok(())
}

/// The one policy among `sources`, which are tests besides.
fn the_policy(
    table: &str,
    sources: &[PolicySource],
    options: &PolicyOptions,
) -> Result<Policy, Failure> {
    let candidates: Vec<&PolicySource> =
        sources.iter().filter(|source| !source.name.ends_with("_test.rego")).collect();
    match &candidates[..] {
        [only] => Policy::load(only, options).map_err(|error| Failure::new(Code::Usage, error)),
        _ => {
            let message = format_args!(
                "{table} names no policy, and there are {} beside it",
                candidates.len()
            );
            Err(Failure::new(Code::Usage, message)
                .hint("write `policy: FILE` into the table, or name one policy"))
        }
    }
}

fn tell(lines: &[Line], as_json: bool, paint: Paint) -> Result<(), Failure> {
    let count = |outcome: &str| lines.iter().filter(|line| line.outcome == outcome).count();
    let (passed, failed, skipped) = (count("passed"), count("failed"), count("skipped"));
    if as_json {
        let tests: Vec<Value> = lines
            .iter()
            .map(|line| {
                json!({
                    "file": line.file, "line": line.line, "name": line.name,
                    "outcome": line.outcome, "why": line.why,
                })
            })
            .collect();
        print(&json!({"passed": passed, "failed": failed, "skipped": skipped, "tests": tests}))?;
    } else {
        for line in lines.iter().filter(|line| line.outcome != "passed") {
            let word = format!("{}:", line.outcome);
            let word = if line.outcome == "failed" { paint.bad(&word) } else { paint.dim(&word) };
            let place = line.line.map_or(String::new(), |line| format!(":{line}"));
            let (file, name, why) = (plain(&line.file), plain(&line.name), plain(&line.why));
            say(format!("{word} {file}{place}: {name}: {why}"));
        }
        say(format!("{passed} passed, {failed} failed, {skipped} skipped"));
    }
    match failed {
        0 => Ok(()),
        1 => Err(Failure::new(Code::Failure, "one test failed")),
        many => Err(Failure::new(Code::Failure, format_args!("{many} tests failed"))),
    }
}
