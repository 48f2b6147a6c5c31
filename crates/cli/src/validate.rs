//! `convoke validate`: everything that can be wrong before anything runs.

use convoke::chain;
use convoke::serve::{Config, load_policy};
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
        let mut policy = None;
        match Config::load(path) {
            Err(error) => {
                problems.extend(error.problems.iter().map(|problem| Wrong {
                    path: Some(problem.path.clone()).filter(|path| !path.is_empty()),
                    line: problem.line,
                    column: problem.column,
                    message: problem.to_string(),
                }));
                if error.unlisted > 0 {
                    problems.push(Wrong::of(format!("and {} more problems", error.unlisted)));
                }
            }
            Ok(config) => {
                warnings.extend(config.warnings().iter().map(ToString::to_string));
                match load_policy(&config) {
                    Ok(loaded) => policy = Some(loaded.revision().0.to_string()),
                    Err(error) => problems.push(Wrong::of(chain(&error))),
                }
            }
        }
        wrong += usize::from(!problems.is_empty());
        if options.json {
            reports.push(json!({
                "config": name, "valid": problems.is_empty(), "problems": problems,
                "warnings": warnings, "policy_revision": policy,
            }));
            continue;
        }
        for warning in &warnings {
            say(format!("{} {name}: {}", paint.bold("warning:"), plain(warning)));
        }
        for problem in &problems {
            say(format!(
                "{} {name}{}: {}",
                paint.bad("error:"),
                problem.place(),
                plain(&problem.message)
            ));
        }
        if let Some(revision) = policy.filter(|_| problems.is_empty()) {
            say(format!("{} {name}, policy {revision}", paint.good("valid:")));
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

/// One thing that is wrong with a configuration or its policy.
#[derive(serde::Serialize)]
struct Wrong {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    message: String,
}

impl Wrong {
    fn of(message: String) -> Self {
        Self { path: None, line: None, column: None, message }
    }

    /// `:LINE:COLUMN`, as far as they are known.
    fn place(&self) -> String {
        [self.line, self.column].iter().flatten().map(|number| format!(":{number}")).collect()
    }
}
