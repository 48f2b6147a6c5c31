//! Tables of cases: who asks what, and what a policy should say.

use std::path::{Path, PathBuf};

use convoke::{Json, SpiffeId};
use convoke_policy::{Explanation, Outcome, Policy};
use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::{MessageFormatter as _, UserMessageFormatter};

use crate::exit::{Code, Failure};
use crate::question::{Asking, Context, Who, instant, now, operation};

/// The agent that is asked where a table names none: any will do for a policy that does not look.
const AGENT_DEFAULT: &str = "spiffe://example.org/agent";

/// A table as it stands in a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    /// The policy, from the directory of the table.
    pub(crate) policy: Option<PathBuf>,
    /// The agent that is asked.
    agent: Option<String>,
    /// The agent's name.
    name: Option<String>,
    pub(crate) cases: Vec<Case>,
}

/// One line of a table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    caller: String,
    method: String,
    params: Option<Value>,
    operation: Option<String>,
    at: Option<String>,
    remote_addr: Option<String>,
    expect: Expect,
    /// The policy's own reason, if it has to give one.
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expect {
    Allow,
    Deny,
}

impl Table {
    /// Reads a table. YAML is read as well as JSON, which is a part of it.
    pub(crate) fn read(path: &Path, text: &str) -> Result<Self, Failure> {
        serde_saphyr::from_str(text).map_err(|error| {
            let place = error
                .location()
                .map_or_else(String::new, |place| format!(":{}:{}", place.line(), place.column()));
            let why = UserMessageFormatter.format_message(&error);
            Failure::new(Code::Usage, format_args!("{}{place}: {why}", path.display())).hint(
                "a table has `cases`, each with name, caller, method and expect: allow or deny",
            )
        })
    }

    /// What is asked in `case`.
    pub(crate) fn asking(&self, case: &Case) -> Result<Asking, String> {
        let agent = self.agent.as_deref().unwrap_or(AGENT_DEFAULT);
        Ok(Asking {
            caller: case.caller.parse::<Who>()?,
            agent: SpiffeId::parse(agent).map_err(|error| format!("agent `{agent}` {error}"))?,
            agent_name: self.name.clone(),
            method: case.method.clone(),
            params: match &case.params {
                None => None,
                Some(params) => Some(Json::of(params).map_err(|error| error.to_string())?),
            },
            operation: operation(case.operation.as_deref().unwrap_or("SendMessage"))?,
            at: match &case.at {
                None => now(),
                Some(text) => instant(text)?,
            },
            context: Context { remote_addr: case.remote_addr.clone(), ..Context::default() },
        })
    }
}

impl Case {
    /// Asks `policy`. `Err` says what came instead of what was expected.
    pub(crate) fn run(&self, asking: &Asking, policy: &Policy) -> Result<(), String> {
        let explanation = asking.explain(policy).map_err(|failure| failure.message)?;
        let reason = &explanation.decision.reason;
        let allowed = explanation.decision.is_allowed();
        if allowed != (self.expect == Expect::Allow) {
            let verb = if allowed { "allowed" } else { reason.as_str() };
            return Err(format!("is {verb}{}", why(&explanation)));
        }
        match (&self.reason, reason.detail()) {
            (Some(expected), Some(said)) if expected == said => Ok(()),
            (Some(expected), Some(said)) => Err(format!("says `{said}`, not `{expected}`")),
            (Some(expected), None) => Err(format!("gives no reason, not `{expected}`")),
            (None, _) => Ok(()),
        }
    }
}

/// Where the decision was made, or what the first rule failed by.
fn why(explanation: &Explanation) -> String {
    let attempt = explanation.tried.iter().find_map(|attempt| match &attempt.outcome {
        Outcome::NotTrue { condition, place } => {
            Some(format!("; not true at line {}: {condition}", place.line))
        }
        _ => None,
    });
    match (explanation.place, attempt) {
        (Some(place), _) if explanation.decision.is_allowed() => {
            format!(" by line {}", place.line)
        }
        (_, Some(attempt)) => attempt,
        (Some(place), None) => format!(" by line {}", place.line),
        (None, None) => String::new(),
    }
}
