//! `convoke policy`: a policy checked, linted, explained and tested, without an agent.

mod cases;
mod suite;

use std::path::Path;

use convoke_policy::{
    Finding, Language, Policy, PolicyData, PolicyOptions, PolicySource, Severity,
};
use serde_json::{Value, json};

use crate::args::{self, PolicyCheck, PolicyExplain, PolicyFile, PolicyLint, Rego};
use crate::authz::{print, tell};
use crate::exit::{Code, Failure};
use crate::input;
use crate::paint::{Paint, plain, say};
use crate::question::{Asking, Context, now};

pub(crate) fn run(command: args::Policy, paint: Paint) -> Result<(), Failure> {
    match command {
        args::Policy::Check(options) => check(&options, paint),
        args::Policy::Lint(options) => lint(&options, paint),
        args::Policy::Explain(options) => explain(options, paint),
        args::Policy::Test(options) => suite::run(&options, paint),
    }
}

/// Reads a file as the text of a policy.
fn source(path: &Path) -> Result<PolicySource, Failure> {
    let name = path.display().to_string();
    Ok(PolicySource { text: input::text(&name)?, name })
}

fn options(read: &PolicyFile) -> Result<PolicyOptions, Failure> {
    let data = read.data.iter().map(|path| {
        let name = path.display().to_string();
        Ok(PolicyData { text: input::text(&name)?, name })
    });
    Ok(PolicyOptions {
        package: read.package.clone(),
        language: read.rego_version.map(|version| match version {
            Rego::V0 => Language::V0,
            Rego::V1 => Language::V1,
        }),
        data: data.collect::<Result<_, Failure>>()?,
        ..PolicyOptions::default()
    })
}

fn check(command: &PolicyCheck, paint: Paint) -> Result<(), Failure> {
    let options = options(&command.read)?;
    let mut reports = Vec::new();
    let mut wrong = 0_usize;
    for path in &command.files {
        let source = source(path)?;
        let loaded = Policy::load(&source, &options);
        wrong += usize::from(loaded.is_err());
        if command.json {
            reports.push(match &loaded {
                Ok(policy) => json!({
                    "file": source.name, "valid": true, "rule": policy.rule(),
                    "language": policy.language().map(language),
                    "policy_revision": &*policy.revision().0,
                }),
                Err(error) => json!({
                    "file": source.name, "valid": false,
                    "line": error.line(), "message": error.to_string(),
                }),
            });
            continue;
        }
        match loaded {
            Ok(policy) => say(format!(
                "{} {}: {} in Rego {}, revision {}",
                paint.good("valid:"),
                plain(&source.name),
                plain(policy.rule()),
                policy.language().map_or("", language),
                policy.revision().0
            )),
            Err(error) => say(format!("{} {}", paint.bad("error:"), plain(&error.to_string()))),
        }
    }
    if command.json {
        print(&Value::from(reports))?;
    }
    match wrong {
        0 => Ok(()),
        1 => Err(Failure::new(Code::Usage, "one policy is wrong")),
        many => Err(Failure::new(Code::Usage, format_args!("{many} policies are wrong"))),
    }
}

fn language(language: Language) -> &'static str {
    match language {
        Language::V0 => "v0",
        Language::V1 => "v1",
    }
}

fn lint(command: &PolicyLint, paint: Paint) -> Result<(), Failure> {
    let options = options(&command.read)?;
    let mut reports = Vec::new();
    let (mut errors, mut warnings) = (0_usize, 0_usize);
    for path in &command.files {
        let source = source(path)?;
        for finding in Policy::lint(&source, &options) {
            errors += usize::from(finding.severity == Severity::Error);
            warnings += usize::from(finding.severity == Severity::Warning);
            if command.json {
                reports.push(json!({
                    "file": source.name, "line": finding.line, "column": finding.column,
                    "severity": finding.severity.as_str(), "rule": finding.rule,
                    "message": finding.message, "cure": finding.cure,
                }));
            } else {
                say_finding(&source.name, &finding, paint);
            }
        }
    }
    if command.json {
        print(&Value::from(reports))?;
    }
    let told = |code, count: usize, what: &str| {
        let count = match count {
            1 => format!("one {what}"),
            many => format!("{many} {what}s"),
        };
        Err(Failure::new(code, format_args!("the linter found {count}")))
    };
    match (errors, warnings) {
        (0, 0) => Ok(()),
        (0, warnings) if command.strict => told(Code::Failure, warnings, "warning"),
        (0, _) => Ok(()),
        (errors, _) => told(Code::Usage, errors, "error"),
    }
}

fn say_finding(file: &str, finding: &Finding, paint: Paint) {
    let word = format!("{}:", finding.severity);
    let word = match finding.severity {
        Severity::Error => paint.bad(&word),
        Severity::Warning => paint.bold(&word),
        Severity::Info => paint.dim(&word),
    };
    let numbers = [finding.line, finding.column];
    let place: String =
        numbers.iter().filter(|number| **number > 0).map(|number| format!(":{number}")).collect();
    let place = format!("{file}{place}: ");
    // A policy that does not load says its place itself.
    let message = finding.message.strip_prefix(&place).unwrap_or(&finding.message);
    say(format!("{word} {}{} [{}]", plain(&place), plain(message), finding.rule));
    say(format!("  {} {}", paint.dim("hint:"), plain(&finding.cure)));
}

fn explain(command: PolicyExplain, paint: Paint) -> Result<(), Failure> {
    let asking = match (&command.input, command.caller, command.agent, command.asked.method) {
        (Some(input), ..) => Asking::of_input(&input::json_text(input)?)?,
        (None, Some(caller), Some(agent), Some(method)) => Asking {
            caller,
            agent,
            agent_name: None,
            method,
            params: command.asked.params.as_deref().map(input::params).transpose()?,
            operation: command.asked.operation,
            at: command.asked.at.unwrap_or_else(now),
            context: Context::default(),
        },
        _ => {
            let message = "--caller, --agent and --method belong together";
            return Err(Failure::new(Code::Usage, message).hint("or give a document with --input"));
        }
    };
    let options = options(&command.read)?;
    let policy = Policy::load(&source(&command.file)?, &options)
        .map_err(|error| Failure::new(Code::Usage, error))?;
    let explanation = asking.explain(&policy)?;
    tell(&asking, &explanation, command.json, paint)
}
