//! The table of keys and what reads them agree.

use std::collections::BTreeSet;

use super::super::keys::{self, Default, KEYS, Kind};
use super::*;

/// A value that the key of `kind` does not take.
const WRONG: &str = "[[x]]";

/// A text in which `path` has `value`, and what has to be beside it.
fn with(path: &str, value: &str) -> String {
    let mut text = String::new();
    let segments: Vec<_> = path.split('.').collect();
    for (depth, segment) in segments.iter().enumerate() {
        let indent = "  ".repeat(depth);
        let end = if depth + 1 == segments.len() { format!(" {value}") } else { String::new() };
        text.push_str(&format!("{indent}{segment}:{end}\n"));
    }
    text
}

#[test]
fn every_key_of_the_table_is_read() {
    for key in KEYS {
        let error = parse(&with(key.path, WRONG)).expect_err(key.path).to_string();
        assert!(!error.contains("unknown key"), "{error}");
        let refused = matches!(key.kind, Kind::Refused(_));
        let said = format!("`{}` {}", key.path, if refused { "cannot be set here" } else { "is " });
        let listed = format!("`{}[0]` is", key.path);
        assert!(error.contains(&said) || error.contains(&listed), "{}: {error}", key.path);
    }
}

#[test]
fn nothing_is_read_that_the_table_does_not_have() {
    let text = format!(
        "{ID}observability: {{tracing: {{headers: {{a: {{value_env: HOME}}}}}}}}\n\
         agent_registry: {{NAME: {{spiffe_id: \"spiffe://td/w\", address: \"https://w\"}}}}\n"
    );
    let (_, settings) = Config::explain(&text, "w", &corpus::environment()).unwrap();
    let read: BTreeSet<_> = settings
        .iter()
        .map(|setting| setting.path.replace("headers.a.", "headers.NAME."))
        .collect();
    // Of the files of federated trust domains there is none, since this identity has no files.
    let known = KEYS.iter().filter(|key| !matches!(key.kind, Kind::Refused(_)));
    let known = known.map(|key| key.path.to_owned());
    let known: BTreeSet<_> = known.filter(|path| !path.contains("federated")).collect();
    assert_eq!(read, known);
}

#[test]
fn every_default_and_every_word_is_taken() {
    for key in KEYS {
        if key.path.contains(keys::NAME) {
            continue;
        }
        let taken = |value: &str| {
            let text = match key.path.strip_prefix("identity.") {
                Some(rest) => format!("{ID}  {rest}: {value}\n"),
                None => format!("{ID}{}", with(key.path, value)),
            };
            match parse(&text) {
                Ok(_) => true,
                // Words that are known and refused come with a reason, not with the list of words.
                Err(error) => !error.to_string().contains("not one of"),
            }
        };
        if let Default::Is(value) = key.default {
            let quoted = format!("\"{value}\"");
            let as_written = matches!(key.kind, Kind::Flag | Kind::Number(..) | Kind::Share);
            assert!(taken(if as_written { value } else { &quoted }), "{}", key.path);
        }
        let Kind::Words(words) = key.kind else { continue };
        for word in words {
            assert!(taken(word), "{} {word}", key.path);
            assert!(taken(&word.to_ascii_uppercase()), "{} {word}", key.path);
        }
        assert!(!taken("unheard_of"), "{}", key.path);
    }
}

#[test]
fn defaults_are_those_of_their_owners() {
    // `defaults_are_these` holds the rest; these are defined in other crates and copied.
    let config = parse(ID).unwrap();
    assert_eq!(config.calls, CallSettings::default());
    let limits = &config.server.limits;
    assert_eq!(limits.body_bytes_max, convoke_model::limits::BODY_BYTES_MAX);
    assert_eq!(limits.connections_max, convoke_model::limits::CONNECTIONS_MAX);
    assert_eq!(limits.idle_timeout, convoke_model::limits::IDLE_TIMEOUT);
    assert_eq!(limits.connection_age_max, convoke_model::limits::CONNECTION_AGE_MAX);
    assert_eq!(limits.requests_max, convoke_model::limits::REQUESTS_MAX);
    assert_eq!(limits.queue_time_max, convoke_model::limits::QUEUE_TIME_MAX);
}

#[test]
fn settings_say_what_holds_and_where_it_is_from() {
    let mut env = environment();
    env.variables = [("CONVOKE_SERVER__PORT", "1234")].into_iter().collect();
    let text =
        format!("{ID}observability:\n  audit: {{sync: true}}\nmetadata: {{db_password: x}}\n");
    let (_, settings) = Config::explain(&text, "w", &env).unwrap();
    let check = |path: &str, value: &str, origin: Origin| {
        let found = settings.iter().find(|setting| setting.path == path).expect(path);
        assert_eq!((found.value.as_deref(), &found.origin), (Some(value), &origin), "{path}");
    };
    check("identity.spiffe_id", "spiffe://example.org/team/worker", Origin::File { line: 2 });
    check("observability.audit.sync", "true", Origin::File { line: 4 });
    check("server.port", "1234", Origin::Variable("CONVOKE_SERVER__PORT".into()));
    check("server.limits.body_bytes_max", "4MiB", Origin::Default);
    check("metadata.name", "worker", Origin::Default);
    check("identity.trust_domain", "example.org", Origin::Default);
    check("observability.metrics.enabled", "false", Origin::Default);
    let data = "/home/ann/.local/state/convoke/example.org/team/worker";
    check("data_dir", data, Origin::Default);
    check("observability.audit.path", &format!("{data}/audit.jsonl"), Origin::Default);
    check("metadata.db_password", "[redacted]", Origin::File { line: 5 });
}
