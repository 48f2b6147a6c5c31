//! The running agent, and whom it needs: is it there, is it the right one, and where does the time
//! go?

use std::time::Duration;

use convoke::serve::Config;
use convoke::{AgentCallError, CallError, Client, Ping, SpiffeId, UnixMillis, open};
use convoke_a2a::card::{Card, WELL_KNOWN_PATH};

use super::identity::words;
use super::report::Report;
use super::{Patient, running, system};
use crate::exit::Failure;
use crate::ping::steps;
use crate::question::now;

/// A step of a ping that takes longer is slow, on a machine or in a data centre.
const SLOW: Duration = Duration::from_millis(100);

/// From here on a difference of clocks is worth a word: the other's is told in whole seconds.
const SKEW_WARNED: Duration = Duration::from_secs(3);

/// From here on certificates that live an hour begin to be refused.
const SKEW_WRONG: Duration = Duration::from_secs(60);

/// Mean decision by a policy from which on it is slow. Source: the bound of design §11, p99 of the
/// interpreter, times 25.
const DECISION_SLOW: Duration = Duration::from_millis(1);

/// Mean time in a capability from which on it is where to look.
const HANDLER_SLOW: Duration = Duration::from_secs(1);

/// Looks at the agent's port and at the agent.
pub(super) async fn examine(patient: &mut Patient, report: &mut Report) {
    let id = patient.config.identity.spiffe_id.clone();
    let at = patient.config.server.address();
    // An agent that is looked at elsewhere is not the one that answers here.
    let is_here = patient.address.ends_with(&format!(":{}", at.port()));
    let running = patient.running.clone().filter(|_| is_here);
    if let Some(port) = running.as_ref().and_then(|running| running.other_port(at.port())) {
        let text = format!("the running agent listens on another port: {port}");
        let cure = format!("restart it to have it on {}, or correct `server.port`", at.port());
        report.wrong("port", text, cure);
        return report.skip("agent", "it is not where the configuration says");
    }
    let listener = system::listener(at.ip(), at.port()).filter(|_| at.port() != 0);
    if at.port() == 0 && is_here {
        report.skip("port", "`server.port` is 0, any free one; name the agent's with --address");
        return report.skip("agent", "where it listens is not known");
    }
    if is_here && listener.is_none() {
        let cure = "start the agent; `convoke serve --check` or `validate` say whether it can";
        let text = format!("nothing listens at {at}, so the agent does not run here");
        report.warn("port", text, cure.to_owned());
        report.does_not_run();
        return report.skip("agent", "it does not run");
    }
    let who = listener.map(|listener| listener.who()).filter(|_| is_here);
    if let Some(running) = &running {
        let who = who.as_deref().unwrap_or("the agent");
        if running.tell_certificate(report) {
            report.good("port", format!("{at} is served by {who}"));
            patient.decides_otherwise = !running.compare(patient.policy.as_ref(), report);
            return;
        }
        if running.tell_case(&id, report) {
            return report.good("port", format!("{at} is served by {who}"));
        }
        running.tell_checks(report);
    }
    let Some(client) = &patient.client else {
        match who {
            Some(who) if running.is_some() => {
                report.good("port", format!("{at} is served by {who}"));
            }
            Some(who) => report.warn("port", format!("{at} is in use by {who}"), None),
            None => report.skip("port", "the agent is elsewhere"),
        }
        if let Some(running) = running {
            patient.decides_otherwise = !running.compare(patient.policy.as_ref(), report);
        }
        return report.skip("agent", "without its identity it cannot be asked who it is");
    };
    match client.ping(&id, &patient.address).await {
        Ok(ping) => {
            match who {
                Some(who) => report.good("port", format!("{at} is served by {who}")),
                None => report.skip("port", "the agent is elsewhere"),
            }
            report.good("agent", format!("answers at {}: {}", patient.address, steps(&ping)));
            clock(&ping, report);
            latency(&patient.config, &ping, report).await;
            patient.capabilities = capabilities(client, &id, &patient.address).await;
        }
        Err(error) => {
            match who {
                Some(who) if running.is_some() => {
                    report.good("port", format!("{at} is served by {who}"));
                }
                Some(who) => report.wrong(
                    "port",
                    format!("{at} is in use by {who}, which does not answer as this agent"),
                    "if it is another program, stop it, or choose another `server.port`".to_owned(),
                ),
                None => report.skip("port", "the agent is elsewhere"),
            }
            refused(error, report);
        }
    }
    if let Some(running) = running {
        patient.decides_otherwise = !running.compare(patient.policy.as_ref(), report);
    } else if patient.policy.is_some() {
        let why = "which policy the agent decides by is told only on its metrics listener, here";
        report.skip("policy in use", why);
    }
}

/// Why the agent did not answer. The doctor takes who is expected from the configuration, so the
/// cure is there.
fn refused(error: CallError, report: &mut Report) {
    let is_other = matches!(&error, CallError::Failed(AgentCallError::WrongPeer { .. }));
    let failure = Failure::from(error);
    let cure = "compare `identity.spiffe_id` with the SPIFFE ID of the agent at that address; IDs \
                are case-sensitive";
    let hint = if is_other { Some(cure.to_owned()) } else { failure.hint };
    report.wrong("agent", failure.message, hint);
}

/// What the agent's card lists. Nothing, if there is none: that is the card's own matter.
async fn capabilities(client: &Client, id: &SpiffeId, address: &str) -> Vec<String> {
    let Ok((200, body)) = client.get(id, address, WELL_KNOWN_PATH).await else {
        return Vec::new();
    };
    let card = Card::read(&body);
    card.map(|card| card.skills.into_iter().map(|skill| skill.id).collect()).unwrap_or_default()
}

fn clock(ping: &Ping, report: &mut Report) {
    let check = "clock";
    let Some(theirs) = ping.date else {
        return report.skip(check, "the agent does not say what time it is");
    };
    let (skew, word) = difference(now(), theirs);
    let text = format!("the agent's is {} {word} this one", words(skew));
    let cure = "set both by NTP; certificates that live shortly are refused by a wrong clock";
    if skew >= SKEW_WRONG {
        report.wrong(check, text, cure.to_owned());
    } else if skew >= SKEW_WARNED {
        report.warn(check, text, cure.to_owned());
    } else {
        report.good(check, "the agent's and this one agree");
    }
}

/// How far another clock is from ours, and which way.
fn difference(ours: UnixMillis, theirs: UnixMillis) -> (Duration, &'static str) {
    let apart = Duration::from_millis(ours.0.abs_diff(theirs.0));
    (apart, if theirs > ours { "ahead of" } else { "behind" })
}

/// Where the time of a call goes: on the way by the ping, within by the agent's own metrics.
async fn latency(config: &Config, ping: &Ping, report: &mut Report) {
    let check = "latency";
    let way = [
        ("connect", ping.connect, "look at the network, and at the name's resolution"),
        ("TLS", ping.tls, "the machine may be overloaded; clients should keep their connections"),
        ("the first answer", ping.answer, "the agent may be overloaded: see its metrics"),
    ];
    let mut is_slow = false;
    for (what, took, cure) in way.into_iter().filter(|(_, took, _)| *took > SLOW) {
        is_slow = true;
        report.warn(check, format!("{what} took {} ms", took.as_millis()), cure.to_owned());
    }
    let Some(metrics) = &config.observability.metrics else {
        return report.skip(check, "policy and handlers: metrics are not enabled");
    };
    let Some(address) = running::metrics_address(config) else {
        let why = "policy and handlers: metrics are not at a known port of the loopback address";
        return report.skip(check, why);
    };
    let text = match open::get(&address, &metrics.path).await {
        Ok((200, body)) => String::from_utf8_lossy(&body).into_owned(),
        Ok((status, _)) => return report.skip(check, format!("metrics answer {status}")),
        Err(error) => return report.skip(check, format!("policy and handlers: {error}")),
    };
    let within = [
        (
            "a decision of the policy",
            "agentweave_authz_duration_seconds",
            DECISION_SLOW,
            "`convoke policy lint` says what makes a policy slow; an OPA server adds its own time",
        ),
        (
            "a request",
            "agentweave_request_duration_seconds",
            HANDLER_SLOW,
            "the handlers, or the agents that they call: traces and `agent_call_duration` say which",
        ),
    ];
    let mut told = Vec::new();
    for (what, name, slow, cure) in within {
        let Some(mean) = mean_of(&text, name) else { continue };
        let text = format!("{what} takes {:.3} ms on average", mean.as_secs_f64() * 1000.0);
        if mean > slow {
            is_slow = true;
            report.warn(check, text, cure.to_owned());
        } else {
            told.push(text);
        }
    }
    if !is_slow {
        let told =
            if told.is_empty() { "nothing has been asked yet".to_owned() } else { told.join(", ") };
        report.good(check, told);
    }
}

/// The mean of a histogram over all its labels, in the text of a Prometheus page.
fn mean_of(page: &str, name: &str) -> Option<Duration> {
    let total = |suffix: &str| -> f64 {
        let key = format!("{name}_{suffix}");
        let lines = page.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let own = series.split('{').next() == Some(key.as_str());
            own.then(|| value.parse::<f64>().ok()).flatten()
        });
        lines.sum()
    };
    let (sum, count) = (total("sum"), total("count"));
    if count > 0.0 { Duration::try_from_secs_f64(sum / count).ok() } else { None }
}

/// Looks at the servers that the configuration names.
pub(super) async fn outside(config: &Config, report: &mut Report) {
    match &config.observability.tracing {
        Some(tracing) => {
            let cure = "start the collector, or correct `observability.tracing.otlp_endpoint`; \
                        spans are dropped meanwhile, and calls go on";
            match open::reach(&tracing.otlp_endpoint).await {
                Ok(_) => report.good("collector", format!("{} answers", tracing.otlp_endpoint)),
                Err(error) => report.warn("collector", error.to_string(), cure.to_owned()),
            }
        }
        None => report.skip("collector", "`observability.tracing` is not enabled"),
    }
    match &config.authorization.opa {
        Some(opa) => {
            let cure = "start OPA, or correct `authorization.opa.url`; every call is refused \
                        meanwhile";
            match open::reach(&opa.url).await {
                Ok(_) => report.good("policy server", format!("{} answers", opa.url)),
                Err(error) => report.wrong("policy server", error.to_string(), cure.to_owned()),
            }
        }
        None => report.skip("policy server", "the embedded engine decides"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_has_a_mean() {
        let page = "# HELP a_seconds x\na_seconds_sum{x=\"1 2\"} 3\na_seconds_sum{x=\"2\"} 1\n\
                    a_seconds_count{x=\"1 2\"} 1\na_seconds_count{x=\"2\"} 1\nab_seconds_count 9\n";
        assert_eq!(mean_of(page, "a_seconds"), Some(Duration::from_secs(2)));
        assert_eq!(mean_of(page, "b_seconds"), None);
        assert_eq!(mean_of("a_sum NaN\na_count 1\n", "a"), None);
    }

    #[test]
    fn clocks_differ_in_both_directions() {
        let (a, b) = (UnixMillis(1000), UnixMillis(61_000));
        assert_eq!(difference(a, b), (Duration::from_secs(60), "ahead of"));
        assert_eq!(difference(b, a), (Duration::from_secs(60), "behind"));
    }
}
