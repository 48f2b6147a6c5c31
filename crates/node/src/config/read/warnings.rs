//! What is legal but probably unmeant, one sentence each.

use super::super::text::{nearest, quote, sounds_secret};
use super::super::{Config, DefaultPolicy, Stage};
use super::forms::is_plain_and_remote;

pub(super) fn of(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    warnings.extend(policy(config));
    for key in config.metadata.extra.keys() {
        // Metadata may hold any key, so a slip of the pen cannot be refused there.
        if let Some(known) = nearest(key, ["name", "version", "description"].into_iter()) {
            let key = quote(key);
            warnings.push(format!(
                "`metadata.{key}` is a key of the agent's own; did you mean `{known}`?"
            ));
        }
        if sounds_secret(key) {
            let key = quote(key);
            warnings.push(format!(
                "`metadata.{key}` sounds like a secret, and the file is no place for one"
            ));
        }
    }
    if let Some(tracing) = &config.observability.tracing
        && !tracing.headers.is_empty()
        && is_plain_and_remote(&tracing.otlp_endpoint)
    {
        warnings.push(
            "the secrets of `observability.tracing.headers` cross the network in the clear".into(),
        );
    }
    if config.stage == Some(Stage::Production)
        && !config.server.host.is_loopback()
        && config.server.advertise_address.is_none()
    {
        warnings.push(
            "`server.advertise_address` is not set, so the card says `localhost` to callers on \
             other machines"
                .into(),
        );
    }
    if config.authorization.decision_log.as_ref().is_some_and(|log| log.params) {
        warnings.push(
            "`authorization.decision_log.params` keeps the parameters of calls, which may be \
             personal"
                .into(),
        );
    }
    warnings
}

fn policy(config: &Config) -> Option<String> {
    let authorization = &config.authorization;
    let decides = match (&authorization.policy_file, &authorization.opa) {
        (_, Some(opa)) => Some(format!("the OPA server at {}", opa.url)),
        (Some(file), None) => Some(file.display().to_string()),
        (None, None) => None,
    };
    match (decides, authorization.default_policy) {
        (Some(who), DefaultPolicy::AllowAll) => {
            Some(format!("`authorization.default_policy: allow_all` has no effect: {who} decides"))
        }
        (None, DefaultPolicy::AllowAll) => Some(
            "no policy is loaded and `authorization.default_policy` is `allow_all`: every \
             verified caller may call everything"
                .to_owned(),
        ),
        (None, DefaultPolicy::DenyAll) => Some(
            "no policy is loaded and `authorization.default_policy` is `deny_all`: every call \
             is refused"
                .to_owned(),
        ),
        (Some(_), DefaultPolicy::DenyAll) => None,
    }
}
