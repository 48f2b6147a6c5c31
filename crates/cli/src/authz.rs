//! `convoke authz`, and how an explained decision is told.

use convoke::chain;
use convoke::serve::{Config, load_policy};
use convoke_policy::{Attempt, Explanation, Outcome, Place};
use serde_json::{Value, json};

use crate::args::{Authz, AuthzCheck};
use crate::exit::{Code, Failure};
use crate::input;
use crate::paint::{Paint, plain, say};
use crate::question::{Asking, Context, now};

pub(crate) fn run(command: Authz, paint: Paint) -> Result<(), Failure> {
    let Authz::Check(options) = command;
    check(options, paint)
}

fn check(options: AuthzCheck, paint: Paint) -> Result<(), Failure> {
    let params = options.params.as_deref().map(input::params).transpose()?;
    let config =
        Config::load(&options.config).map_err(|error| Failure::new(Code::Usage, chain(&error)))?;
    if let Some(server) = &config.authorization.opa {
        let message = format_args!("decisions of this agent are made by {}", server.url);
        return Err(Failure::new(Code::Usage, message)
            .hint("ask that server; `convoke policy explain` explains a policy in a file"));
    }
    let policy = load_policy(&config).map_err(|error| Failure::new(Code::Usage, chain(&error)))?;
    let asking = Asking {
        caller: options.caller,
        agent: config.identity.spiffe_id.clone(),
        agent_name: Some(config.metadata.name),
        method: options.method,
        params,
        operation: options.operation,
        at: options.at.unwrap_or_else(now),
        context: Context::default(),
    };
    let explanation = asking.explain(&policy)?;
    tell(&asking, &explanation, options.json, paint)
}

/// Prints a decision, and ends with its exit code.
pub(crate) fn tell(
    asking: &Asking,
    explanation: &Explanation,
    as_json: bool,
    paint: Paint,
) -> Result<(), Failure> {
    if as_json {
        print(&json_of(asking, explanation))?;
    } else {
        words(asking, explanation, paint);
    }
    if explanation.decision.is_allowed() {
        return Ok(());
    }
    let refused = format_args!("refused: {}", explanation.decision.reason.as_str());
    Err(Failure::new(Code::Refused, refused))
}

/// One line of JSON on standard output.
pub(crate) fn print(json: &Value) -> Result<(), Failure> {
    std::io::Write::write_all(&mut std::io::stdout(), format!("{json}\n").as_bytes())?;
    Ok(())
}

fn json_of(asking: &Asking, explanation: &Explanation) -> Value {
    let decision = &explanation.decision;
    let tried: Vec<Value> = explanation.tried.iter().map(attempt).collect();
    json!({
        "allowed": decision.is_allowed(),
        "outcome": decision.reason.as_str(),
        "reason": decision.reason.detail(),
        "rule": &*decision.rule,
        "file": explanation.file,
        "line": explanation.place.map(|place| place.line),
        "column": explanation.place.map(|place| place.column),
        "policy_revision": &*decision.revision.0,
        "caller": asking.caller.to_string(),
        "agent": asking.agent.as_str(),
        "method": asking.method,
        "operation": asking.operation.as_str(),
        "tried": tried,
    })
}

fn attempt(attempt: &Attempt) -> Value {
    let Place { line, column } = attempt.place;
    let mut json = json!({
        "rule": attempt.rule, "line": line, "column": column, "depth": attempt.depth,
    });
    match &attempt.outcome {
        Outcome::Holds(value) => {
            json["outcome"] = "holds".into();
            // A value of the engine that JSON has not, such as a set, stays a text.
            json["value"] = serde_json::from_str(value).unwrap_or_else(|_| value.as_str().into());
        }
        Outcome::NotTrue { condition, place } => {
            json["outcome"] = "not_true".into();
            json["condition"] = condition.as_str().into();
            json["condition_line"] = place.line.into();
        }
        Outcome::Fails { condition, place, message } => {
            json["outcome"] = "fails".into();
            json["condition"] = condition.as_str().into();
            json["condition_line"] = place.line.into();
            json["message"] = message.as_str().into();
        }
        Outcome::Unknown(why) => {
            json["outcome"] = "unknown".into();
            json["message"] = (*why).into();
        }
    }
    json
}

fn words(asking: &Asking, explanation: &Explanation, paint: Paint) {
    let decision = &explanation.decision;
    let verdict = if decision.is_allowed() {
        paint.good("allowed:")
    } else {
        paint.bad(&format!("{}:", decision.reason.as_str()))
    };
    let (caller, agent) = (asking.caller.to_string(), asking.agent.as_str());
    say(format!(
        "{verdict} {} of {} by {} ({})",
        plain(&asking.method),
        paint.name(agent),
        paint.name(&plain(&caller)),
        asking.operation.as_str()
    ));
    let place = match (&explanation.file, explanation.place) {
        (Some(file), Some(place)) => format!("{}:{}", plain(file), place.line),
        (Some(file), None) => format!("{}, where no rule says so", plain(file)),
        (None, _) => "the configuration, which names no policy".to_owned(),
    };
    say(format!("  by {} in {place}", plain(&decision.rule)));
    if let Some(detail) = decision.reason.detail() {
        say(format!("  because {}", plain(detail)));
    }
    for attempt in &explanation.tried {
        let what = match &attempt.outcome {
            Outcome::Holds(value) => format!("is {}", plain(value)),
            Outcome::NotTrue { condition, place } => {
                format!("not true at line {}: {}", place.line, plain(condition))
            }
            Outcome::Fails { condition, place, message } => {
                let (condition, message) = (plain(condition), plain(message));
                format!("fails at line {}: {condition}: {message}", place.line)
            }
            Outcome::Unknown(why) => format!("not known, because {why}"),
        };
        let indent = "  ".repeat(attempt.depth + 1);
        say(format!("{indent}{} at line {} {what}", plain(&attempt.rule), attempt.place.line));
    }
}
