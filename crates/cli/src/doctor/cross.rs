//! Agents against each other: does the registry of one lead to the other, and does the other's
//! policy let it in?

use convoke::{AgentCallError, CallError, RegistryEntry};
use convoke_model::OperationKind;
use convoke_policy::{Explanation, Outcome};

use super::Patient;
use super::report::Report;
use crate::exit::Failure;
use crate::ping::steps;
use crate::question::{Asking, Context, Who, now};

const REGISTRY: &str = "registry";
const AUTHORIZATION: &str = "authorization";

/// Looks at the agents that `caller` may call: against the other files, and by reaching them.
pub(super) async fn registry(caller: &Patient, all: &[Patient], report: &mut Report) {
    report.begin(&caller.name);
    for (key, entry) in &caller.config.agent_registry {
        let agrees = all
            .iter()
            .filter(|other| !std::ptr::eq(*other, caller))
            .all(|other| compare(key, entry, other, report));
        if agrees {
            reach(key, entry, caller, report).await;
        }
    }
}

/// Compares an entry with the file of an agent that it may mean. `false` if they contradict.
fn compare(key: &str, entry: &RegistryEntry, other: &Patient, report: &mut Report) -> bool {
    let id = &other.config.identity.spiffe_id;
    let (wanted, found) = (entry.spiffe_id.as_str(), id.as_str());
    let correct = format!("correct `agent_registry.{key}.spiffe_id`, or that file");
    if wanted != found {
        if wanted.eq_ignore_ascii_case(found) {
            let text = format!(
                "`{key}` is {wanted}, but {} says {found}: they differ in case alone",
                other.name
            );
            report.wrong(REGISTRY, text, format!("SPIFFE IDs are case-sensitive: {correct}"));
            return false;
        }
        if is_at(&entry.address, other) {
            let text = format!(
                "`{key}` is {wanted} at {}, where {} serves {found}",
                entry.address, other.name
            );
            report.wrong(REGISTRY, text, correct);
            return false;
        }
        return true;
    }
    let port = other.config.server.port;
    // An agent that is advertised elsewhere, or that has any free port, is reached by other means.
    let is_known = port != 0 && other.config.server.advertise_address.is_none();
    if is_known && is_local(&entry.address) && port_of(&entry.address) != Some(port) {
        let text =
            format!("`{key}` is at {}, but {} has `server.port` {port}", entry.address, other.name);
        let cure = format!("correct the port in `agent_registry.{key}.address`, or `server.port`");
        report.wrong(REGISTRY, text, cure);
        return false;
    }
    true
}

/// Whether `address` leads to where `other` is configured to listen.
fn is_at(address: &str, other: &Patient) -> bool {
    let port = other.config.server.port;
    port != 0 && is_local(address) && port_of(address) == Some(port)
}

/// The port of an address that has been checked to be one.
fn port_of(address: &str) -> Option<u16> {
    let authority = address.strip_prefix("https://")?.split('/').next()?;
    match authority.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') => port.parse().ok(),
        _ => Some(443),
    }
}

fn is_local(address: &str) -> bool {
    let authority = address.strip_prefix("https://").unwrap_or(address);
    let host = ["localhost", "127.0.0.1", "[::1]"];
    host.iter().any(|host| {
        let rest = authority.strip_prefix(host);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
    })
}

/// Reaches the agent of an entry as the caller would.
async fn reach(key: &str, entry: &RegistryEntry, caller: &Patient, report: &mut Report) {
    let Some(client) = &caller.client else {
        let why = format!("`{key}` cannot be reached without the identity of the caller");
        return report.skip(REGISTRY, why);
    };
    match client.ping(&entry.spiffe_id, &entry.address).await {
        Ok(ping) => {
            let text = format!("`{key}` is {}: {}", entry.spiffe_id, steps(&ping));
            report.good(REGISTRY, text);
        }
        Err(error) => {
            let cure = cure(key, entry, &error);
            let failure = Failure::from(error);
            report.wrong(REGISTRY, format!("`{key}`: {}", failure.message), cure.or(failure.hint));
        }
    }
}

fn cure(key: &str, entry: &RegistryEntry, error: &CallError) -> Option<String> {
    let CallError::Failed(error) = error else { return None };
    match error {
        AgentCallError::WrongPeer { found: Some(found), .. } => {
            let alike = found.as_str().eq_ignore_ascii_case(entry.spiffe_id.as_str());
            let why = if alike { "SPIFFE IDs are case-sensitive: " } else { "" };
            Some(format!("{why}correct `agent_registry.{key}.spiffe_id`, or its address"))
        }
        AgentCallError::Unreachable { .. } => Some(format!(
            "start that agent, compare `agent_registry.{key}.address` with its `server.port`, and \
             look for a firewall"
        )),
        _ => None,
    }
}

/// Asks the policy of each agent about those of the others that have it in their registry.
pub(super) fn callers(all: &[Patient], methods: &[String], report: &mut Report) {
    for callee in all {
        let id = &callee.config.identity.spiffe_id;
        for caller in all.iter().filter(|other| !std::ptr::eq(*other, callee)) {
            let mut entries = caller.config.agent_registry.values();
            if entries.any(|entry| entry.spiffe_id == *id) {
                let who = Who::Agent(caller.config.identity.spiffe_id.clone());
                authorization(callee, who, methods, report);
            }
        }
    }
}

/// Asks the policy of `callee` whether it lets `who` call its capabilities.
pub(super) fn authorization(callee: &Patient, who: Who, methods: &[String], report: &mut Report) {
    report.begin(&callee.name);
    if let Some(opa) = &callee.config.authorization.opa {
        let why = format!("{} decides; its decision log says why", opa.url);
        return report.skip(AUTHORIZATION, why);
    }
    let Some(policy) = &callee.policy else {
        return report.skip(AUTHORIZATION, "there is no policy to ask");
    };
    let methods = if methods.is_empty() { &callee.capabilities } else { methods };
    let methods: Vec<&String> =
        methods.iter().filter(|method| is_known(method, &callee.capabilities, report)).collect();
    if methods.is_empty() && !callee.capabilities.is_empty() {
        return;
    }
    if methods.is_empty() {
        let why = "what the agent can do is known only while it runs; name it with --method";
        return report.skip(AUTHORIZATION, why);
    }
    let mut allowed = Vec::new();
    let mut refused = Vec::new();
    for method in methods {
        let asking = Asking {
            caller: who.clone(),
            agent: callee.config.identity.spiffe_id.clone(),
            agent_name: Some(callee.config.metadata.name.clone()),
            method: method.clone(),
            params: None,
            operation: OperationKind::SendMessage,
            at: now(),
            context: Context::default(),
        };
        match asking.explain(policy) {
            Ok(explanation) if explanation.decision.is_allowed() => allowed.push(method.as_str()),
            Ok(explanation) => refused.push((method.as_str(), why(&explanation))),
            Err(failure) => report.wrong(AUTHORIZATION, failure.message, failure.hint),
        }
    }
    if !allowed.is_empty() {
        let by = if callee.decides_otherwise {
            " by this file, which is not what the agent decides by"
        } else {
            ""
        };
        report.good(AUTHORIZATION, format!("{who} may call {}{by}", allowed.join(", ")));
    }
    for (method, why) in refused {
        let text = format!("{who} is refused `{method}`: {why}");
        let cure = format!(
            "if it is meant to be allowed, change that rule; `convoke authz check --config {} \
             --caller {who} --method {method}` shows all of them",
            callee.name
        );
        if allowed.is_empty() {
            report.wrong(AUTHORIZATION, text, cure);
        } else {
            // Whoever may do something is expected, and need not be allowed everything.
            report.warn(AUTHORIZATION, text, cure);
        }
    }
}

/// Whether the agent has `method`, as far as it has said what it has. What it lacks is told.
fn is_known(method: &str, has: &[String], report: &mut Report) -> bool {
    if has.is_empty() || has.iter().any(|name| name == method) {
        return true;
    }
    let near = near(method, has);
    let cure = match near.as_slice() {
        [] => format!("it has {}", has.join(", ")),
        near => format!("did you mean {}?", near.join(" or ")),
    };
    report.wrong(AUTHORIZATION, format!("the agent has no capability `{method}`"), cure);
    false
}

/// The names that `method` may have been meant to be, the nearest first.
fn near<'a>(method: &str, has: &'a [String]) -> Vec<&'a str> {
    /// How alike two names are that may be meant for each other, from 0 to 1; the agent's own answer
    /// lets a third of a name be wrong.
    const ALIKE: f64 = 2.0 / 3.0;
    let method = method.to_ascii_lowercase();
    let alike = |name: &String| {
        let name = name.to_ascii_lowercase();
        strsim::normalized_damerau_levenshtein(&method, &name)
    };
    let mut near: Vec<_> = has.iter().map(|name| (alike(name), name.as_str())).collect();
    near.retain(|(alike, _)| *alike >= ALIKE);
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    near.into_iter().map(|(_, name)| name).collect()
}

/// Why a policy refused: the rule and the condition that came nearest.
fn why(explanation: &Explanation) -> String {
    let file = explanation.file.as_deref().unwrap_or("the default policy");
    let nearest = explanation.tried.iter().rev().find_map(|attempt| match &attempt.outcome {
        Outcome::NotTrue { condition, place } => {
            Some((&attempt.rule, condition, place, "is not true"))
        }
        Outcome::Fails { condition, place, .. } => {
            Some((&attempt.rule, condition, place, "cannot be evaluated"))
        }
        _ => None,
    });
    match (nearest, explanation.place) {
        (Some((rule, condition, place, what)), _) => {
            format!("rule `{rule}`, {file}:{}: `{condition}` {what}", place.line)
        }
        (None, Some(place)) => format!("{} in {file}:{}", explanation.decision.rule, place.line),
        (None, None) => format!("{} by {file}", explanation.decision.rule),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_near_are_found() {
        let has = ["count_words", "count_word", "analyze_document"].map(str::to_owned);
        let check = |method: &str, expected: &[&str]| assert_eq!(near(method, &has), expected);
        check("count_wrods", &["count_words", "count_word"]);
        check("Analyse_Document", &["analyze_document"]);
        check("nope", &[]);
    }

    #[test]
    fn an_address_has_a_port_and_may_be_here() {
        let check = |address: &str, port: Option<u16>, local: bool| {
            assert_eq!((port_of(address), is_local(address)), (port, local), "{address}");
        };
        check("https://localhost:8443", Some(8443), true);
        check("https://localhost:8443/a:1", Some(8443), true);
        check("https://127.0.0.1", Some(443), true);
        check("https://[::1]:1", Some(1), true);
        check("https://[::1]", Some(443), true);
        check("https://localhost.example:8443", Some(8443), false);
        check("https://worker:8443", Some(8443), false);
    }
}
