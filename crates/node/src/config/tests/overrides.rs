//! Environment variables in the place of keys.

use std::os::unix::ffi::OsStringExt as _;

use super::*;

fn with(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let variables = variables.iter().copied().chain([("HOME", "/home/ann")]);
    Config::parse_in(text, "w.yaml", &Environment::of(variables.collect()))
}

fn check_wrong(text: &str, variables: &[(&str, &str)], expected: &str) {
    let error = with(text, variables).expect_err(expected);
    assert_eq!(error.problems.len(), 1, "{error}");
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_variable_goes_before_the_file_and_ours_before_the_seeds() {
    let text = format!("{ID}server:\n  port: 1\n");
    let port = |variables: &[(&str, &str)]| with(&text, variables).unwrap().server.port;
    assert_eq!(port(&[]), 1);
    assert_eq!(port(&[("AGENTWEAVE_SERVER_PORT", "2")]), 2);
    assert_eq!(port(&[("AGENTWEAVE_SERVER_PORT", "2"), ("CONVOKE_SERVER__PORT", "3")]), 3);
    assert_eq!(port(&[("CONVOKE_SERVER__PORT", "")]), 1);
    assert_eq!(with(ID, &[("CONVOKE_SERVER__PORT", "3")]).unwrap().server.port, 3);
}

#[test]
fn variables_have_the_types_of_the_table() {
    let config = with(
        ID,
        &[
            ("CONVOKE_SERVER__LIMITS__BODY_BYTES_MAX", "1MiB"),
            ("CONVOKE_SERVER__LIMITS__IDLE_TIMEOUT", "5s"),
            ("CONVOKE_OBSERVABILITY__AUDIT__SYNC", "true"),
            ("CONVOKE_OBSERVABILITY__LOGGING__SAMPLING_RATE", "0.25"),
            ("CONVOKE_OBSERVABILITY__LOGGING__REDACT", "iban, name"),
            ("CONVOKE_METADATA__VERSION", "2"),
            ("CONVOKE_METADATA__TEAM", "documents"),
            ("CONVOKE_ENVIRONMENT", "staging"),
        ],
    )
    .unwrap();
    assert_eq!(config.server.limits.body_bytes_max, 1 << 20);
    assert_eq!(config.server.limits.idle_timeout, Duration::from_secs(5));
    assert!(config.observability.audit.sync);
    assert_eq!(config.observability.logging.sampling_rate, 0.25);
    assert_eq!(config.observability.logging.redact, ["iban", "name"]);
    assert_eq!(config.metadata.version, "2");
    assert_eq!(config.metadata.extra["team"], "documents");
    assert_eq!(config.stage, Some(Stage::Staging));
}

#[test]
fn entries_of_the_registry_can_be_changed_and_made() {
    let text = format!(
        "{ID}agent_registry:\n  Document-Worker: {{spiffe_id: \"spiffe://td/w\", address: \"https://a\"}}\n"
    );
    let config = with(
        &text,
        &[
            ("CONVOKE_AGENT_REGISTRY__DOCUMENT_WORKER__ADDRESS", "https://b"),
            ("CONVOKE_AGENT_REGISTRY__DOCUMENT_WORKER__CALLS__RETRY__ATTEMPTS_MAX", "7"),
            ("CONVOKE_AGENT_REGISTRY__OTHER__SPIFFE_ID", "spiffe://td/o"),
            ("CONVOKE_AGENT_REGISTRY__OTHER__ADDRESS", "https://o"),
        ],
    )
    .unwrap();
    let worker = &config.agent_registry["Document-Worker"];
    assert_eq!((worker.address.as_str(), worker.calls.retry.attempts_max), ("https://b", 7));
    assert_eq!(config.agent_registry["other"].address, "https://o");
}

#[test]
fn the_seeds_names_are_understood() {
    let config = with(
        "",
        &[
            ("AGENTWEAVE_SPIFFE_ID", "spiffe://example.org/w"),
            ("AGENTWEAVE_TRUST_DOMAIN", "example.org"),
            ("AGENTWEAVE_AGENT_NAME", "w"),
            ("AGENTWEAVE_OPA_ENDPOINT", "http://127.0.0.1:8181"),
            ("AGENTWEAVE_AUTHZ_DEFAULT_ACTION", "deny"),
            ("AGENTWEAVE_SERVER_HOST", "0.0.0.0"),
            ("AGENTWEAVE_LOG_FORMAT", "text"),
            ("AGENTWEAVE_ENVIRONMENT", "dev"),
            ("AGENTWEAVE_METRICS_PORT", "9191"),
            ("AGENTWEAVE_DEBUG", "true"),
            ("AGENTWEAVE_IDENTITY_PROVIDER", "mtls-static"),
            ("AGENTWEAVE_CERT_PATH", "/c"),
            ("AGENTWEAVE_KEY_PATH", "/k"),
            ("AGENTWEAVE_CA_BUNDLE_PATH", "/b"),
            ("AGENTWEAVE_CONFIG_PATH", "w.yaml"),
        ],
    )
    .unwrap();
    assert_eq!(config.identity.files.unwrap().bundle, Path::new("/b"));
    assert_eq!(config.authorization.opa.unwrap().url, "http://127.0.0.1:8181");
    assert_eq!(config.observability.logging.format, Format::Pretty);
    assert_eq!(config.observability.logging.level, tracing::Level::DEBUG);
    assert_eq!(config.observability.metrics.unwrap().port, 9191);
    assert_eq!((config.metadata.name.as_str(), config.stage), ("w", Some(Stage::Development)));
    assert_eq!(
        config.warnings,
        ["the environment variable AGENTWEAVE_CONFIG_PATH has no meaning here"]
    );
}

#[test]
fn what_is_wrong_with_a_variable_is_said_of_the_variable() {
    check_wrong(
        ID,
        &[("CONVOKE_SERVER__PORT", "70000")],
        "CONVOKE_SERVER__PORT: `server.port` is 70000, not a whole number from 0 to 65535",
    );
    check_wrong(
        ID,
        &[("CONVOKE_SERVER__PORT", "http")],
        "CONVOKE_SERVER__PORT: `server.port` is \"http\", not a whole number from 0 to 65535",
    );
    check_wrong(
        ID,
        &[("AGENTWEAVE_LOG_LEVEL", "LOUD")],
        "AGENTWEAVE_LOG_LEVEL: `observability.logging.level` is `LOUD`, not one of `trace`, \
         `debug`, `info`, `warn`, `warning`, `error`",
    );
    check_wrong(
        ID,
        &[("AGENTWEAVE_AUTHZ_DEFAULT_ACTION", "log-only")],
        "AGENTWEAVE_AUTHZ_DEFAULT_ACTION: `authorization.default_policy` cannot be `log-only`; \
         there is no decision that is only logged; use `deny_all`, and see `convoke policy \
         explain` for what a policy would say",
    );
}

#[test]
fn variables_that_stand_for_nothing_are_refused_with_the_nearest() {
    let check = |name: &str, cure: &str| {
        let expected = format!("{name}: {name} is no variable that stands for a key; {cure}");
        check_wrong(ID, &[(name, "1")], &expected);
    };
    check("CONVOKE_SERVER__PROT", "did you mean CONVOKE_SERVER__PORT?");
    check("CONVOKE_SERVER_PORT", "did you mean CONVOKE_SERVER__PORT?");
    check("CONVOKE_server__port", "did you mean CONVOKE_SERVER__PORT?");
    check("CONVOKE_ENVIROMENT", "did you mean CONVOKE_ENVIRONMENT?");
    let example =
        "CONVOKE_SERVER__PORT is `server.port`; `convoke config show FILE` lists the keys";
    check("CONVOKE_X", example);
    check("CONVOKE_SERVER__LIMITS", example);
    check("CONVOKE_SERVER____PORT", "did you mean CONVOKE_SERVER__PORT?");
    check(
        "CONVOKE_AUTHORIZATION__OPA__TOKEN",
        "did you mean CONVOKE_AUTHORIZATION__OPA__TOKEN_ENV?",
    );
}

#[test]
fn other_variables_are_left_alone() {
    let others = [
        ("CONVOKE_LOG", "debug"),
        ("CONVOKE_DATA_DIR", "/d"),
        ("CONVOKE_TEST_NAMESPACE", "1"),
        // What Kubernetes makes of services called `convoke` and `convoke-worker`.
        ("CONVOKE_SERVICE_HOST", "10.0.0.1"),
        ("CONVOKE_SERVICE_PORT_MESH", "8443"),
        ("CONVOKE_PORT", "tcp://10.0.0.1:8443"),
        ("CONVOKE_PORT_8443_TCP_ADDR", "10.0.0.1"),
        ("CONVOKE_WORKER_SERVICE_HOST", "10.0.0.1"),
        ("CONVOKES", "1"),
    ];
    let config = with(ID, &others).unwrap();
    assert_eq!(config.data_dir, Path::new("/d/example.org/team/worker"));
    assert_eq!(config.server.port, 8443);
}

#[test]
fn a_value_that_is_not_utf_8_is_refused() {
    let value = std::ffi::OsString::from_vec(vec![0xff]);
    let env = Environment::of([("CONVOKE_METADATA__NAME", value)].into_iter().collect());
    let error = Config::parse_in(&format!("{ID}data_dir: /d\n"), "w", &env).unwrap_err();
    assert_eq!(
        error.to_string(),
        "CONVOKE_METADATA__NAME: the value of CONVOKE_METADATA__NAME is not UTF-8"
    );
}

/// The string literals `CONVOKE_…` of the Rust files below `directory` that have no `__`.
fn variables_below(directory: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let is = |name: &str| path.file_name().is_some_and(|found| found == name);
        if path.is_dir() {
            if !is("target") && !path.ends_with("node/src/config") {
                variables_below(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let literals = text.split('"').filter(|text| text.starts_with("CONVOKE_"));
            let is_name =
                |text: &&str| text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
            let names = literals.filter(is_name).filter(|name| !name.contains("__"));
            found.extend(names.map(str::to_owned));
        }
    }
}

#[test]
fn variables_that_this_project_has_otherwise_are_known() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = Vec::new();
    for directory in ["crates", "benches", "examples", "xtask"] {
        variables_below(&workspace.join(directory), &mut found);
    }
    assert!(found.iter().any(|name| name == "CONVOKE_LOG"), "{found:?}");
    for name in found {
        let is_known = super::super::overrides::is_known_otherwise(&name);
        assert!(is_known, "{name} keeps agents from starting: add it to `NOT_KEYS`");
    }
}
