//! `convoke validate`: everything that can be wrong before anything runs.

use convoke::chain;
use convoke::serve::{Config, ConfigError, DecidedBy, StartError};
use serde_json::json;

use crate::args::Validate;
use crate::exit::{Code, Failure};
use crate::paint::{Paint, plain, say};

pub(crate) fn run(options: &Validate, paint: Paint) -> Result<(), Failure> {
    let mut reports = Vec::new();
    let mut wrong = 0_usize;
    for path in &options.configs {
        let name = path.display().to_string();
        let mut problems = Vec::new();
        let mut warnings = Vec::new();
        let mut decided_by = None;
        match Config::load(path) {
            Err(error) => problems = Wrong::all(&error),
            Ok(config) => {
                warnings.extend(config.warnings().iter().map(ToString::to_string));
                if let Err(error) = config.check_identity() {
                    problems = Wrong::all(&error);
                }
                match DecidedBy::of(&config) {
                    Ok(found) => decided_by = Some(found),
                    Err(StartError::Config(error)) => problems.extend(Wrong::all(&error)),
                    Err(error) => problems.push(Wrong::of(chain(&error))),
                }
            }
        }
        if options.strict {
            problems.extend(warnings.drain(..).map(Wrong::of));
        }
        wrong += usize::from(!problems.is_empty());
        if options.json {
            reports.push(json!({
                "config": name, "valid": problems.is_empty(), "problems": problems,
                "warnings": warnings,
                "policy_revision": decided_by.as_ref().and_then(DecidedBy::revision),
                "policy_server": decided_by.as_ref().and_then(DecidedBy::server),
            }));
            continue;
        }
        for warning in &warnings {
            say(format!("{} {name}: {}", paint.bold("warning:"), plain(warning)));
        }
        print(&problems, &name, paint);
        if let Some(decided_by) = decided_by.filter(|_| problems.is_empty()) {
            say(format!("{} {name}, {decided_by}", paint.good("valid:")));
        }
    }
    if options.json {
        let text = format!("{}\n", serde_json::Value::from(reports));
        std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())?;
    }
    match wrong {
        0 => Ok(()),
        1 => Err(Failure::new(Code::Usage, "one configuration is wrong")),
        many => Err(Failure::new(Code::Usage, format_args!("{many} configurations are wrong"))),
    }
}

/// Prints what is wrong with the configuration `name`, a line for each.
pub(crate) fn print(problems: &[Wrong], name: &str, paint: Paint) {
    for problem in problems {
        let place = problem.place(name);
        say(format!("{} {place}: {}", paint.bad("error:"), plain(&problem.message)));
    }
}

/// One thing that is wrong with a configuration or its policy.
#[derive(serde::Serialize)]
pub(crate) struct Wrong {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    variable: Option<String>,
    message: String,
}

impl Wrong {
    /// Everything in `error`.
    pub(crate) fn all(error: &ConfigError) -> Vec<Self> {
        let problems = error.problems.iter().map(|problem| Self {
            path: Some(problem.path.clone()).filter(|path| !path.is_empty()),
            line: problem.line,
            column: problem.column,
            variable: problem.variable.clone(),
            message: problem.to_string(),
        });
        let more = (error.unlisted > 0).then(|| Self::of(format!("and {} more", error.unlisted)));
        problems.chain(more).collect()
    }

    fn of(message: String) -> Self {
        Self { path: None, line: None, column: None, variable: None, message }
    }

    /// The variable that says it, or `NAME:LINE:COLUMN` as far as they are known.
    fn place(&self, name: &str) -> String {
        if let Some(variable) = &self.variable {
            return plain(variable);
        }
        let numbers = [self.line, self.column].into_iter().flatten();
        numbers.fold(name.to_owned(), |place, number| format!("{place}:{number}"))
    }
}
