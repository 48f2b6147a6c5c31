use std::time::Duration;

use convoke_model::SpiffeId;
use serde_json::json;

use super::*;
use crate::observe::logging::Format;

const ID: &str = "identity:\n  spiffe_id: spiffe://example.org/team/worker\n";

fn environment() -> Environment {
    Environment { home: Some("/home/ann".into()), ..Environment::default() }
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse_in(text, "worker.yaml", &environment())
}

#[test]
fn defaults_are_these() {
    let id = SpiffeId::parse("spiffe://example.org/team/worker").unwrap();
    let data_dir = PathBuf::from("/home/ann/.local/state/convoke/example.org/team/worker");
    let expected = Config {
        file: "worker.yaml".into(),
        identity: IdentityConfig {
            trust_domain: id.trust_domain(),
            spiffe_id: id,
            socket: None,
            issuer_uid: None,
            files: None,
        },
        authorization: AuthorizationConfig {
            default_policy: DefaultPolicy::DenyAll,
            policy_path: ".".into(),
            policy_file: None,
            package: "agentweave.authz".into(),
            rego_version: None,
            data_files: Vec::new(),
            reload_interval: Some(Duration::from_secs(1)),
            opa: None,
            decision_log: None,
        },
        server: ServerConfig {
            host: [127, 0, 0, 1].into(),
            port: 8443,
            advertise_address: None,
            limits: LimitsConfig {
                body_bytes_max: 4 * 1024 * 1024,
                connections_max: 10_000,
                idle_timeout: Duration::from_secs(75),
                connection_age_max: Duration::from_secs(3600),
                requests_max: 4096,
                queue_time_max: Duration::from_millis(100),
            },
            drain_timeout: Duration::from_secs(30),
        },
        agent_registry: BTreeMap::new(),
        calls: Default::default(),
        observability: ObservabilityConfig {
            logging: LoggingConfig {
                level: tracing::Level::INFO,
                format: Format::Json,
                sampling_rate: 1.0,
                redact: Vec::new(),
            },
            tracing: None,
            metrics: None,
            audit: AuditConfig {
                path: data_dir.join("audit.jsonl"),
                sync: false,
                rotate_bytes: None,
                keep: 5,
            },
        },
        metadata: Metadata {
            name: "worker".into(),
            version: "0.0.0".into(),
            description: String::new(),
            extra: BTreeMap::new(),
        },
        stage: None,
        journal: JournalConfig { durability: Durability::Memory },
        data_dir,
        warnings: vec![
            "no policy is loaded and `authorization.default_policy` is `deny_all`: every call is \
             refused"
                .into(),
        ],
    };
    assert_eq!(parse(ID), Ok(expected));
}

/// Source: the first seed, `config/worker.yaml`.
const SEED_WORKER: &str = r#"identity:
  spiffe_id: "spiffe://example.org/document-worker"
  spire_socket: "/tmp/spire-agent/public/api.sock"
  trust_domain: "example.org"

authorization:
  engine: "opa"
  default_policy: "deny_all"  # Production setting
  policy_path: "./policies"
  policy_file: "worker_policy.rego"

server:
  host: "0.0.0.0"
  port: 8443  # Worker port
  mtls:
    enabled: true
    cert_source: "spire"

observability:
  logging:
    level: "INFO"
    format: "json"
  metrics:
    enabled: true
    port: 9090

metadata:
  name: "Document Worker Agent"
  version: "1.0.0"
  description: "Analyzes documents for the orchestrator"
"#;

/// Source: the first seed, `config/orchestrator.yaml`.
const SEED_ORCHESTRATOR: &str = r#"identity:
  spiffe_id: "spiffe://example.org/orchestrator"
  spire_socket: "/tmp/spire-agent/public/api.sock"
  trust_domain: "example.org"

authorization:
  engine: "opa"
  default_policy: "allow_all"  # Orchestrator accepts user requests
  policy_path: "./policies"
  policy_file: "orchestrator_policy.rego"

server:
  host: "0.0.0.0"
  port: 8444  # Different port from worker
  mtls:
    enabled: true
    cert_source: "spire"

# Agent registry - known agents this orchestrator can call
agent_registry:
  document_worker:
    spiffe_id: "spiffe://example.org/document-worker"
    address: "https://localhost:8443"  # Worker's address

observability:
  logging:
    level: "INFO"
    format: "json"
  metrics:
    enabled: true
    port: 9091  # Different from worker

metadata:
  name: "Document Orchestrator Agent"
  version: "1.0.0"
  description: "Orchestrates document processing tasks"
"#;

#[test]
fn the_seeds_files_load_unchanged() {
    let worker = parse(SEED_WORKER).unwrap();
    assert_eq!(worker.identity.spiffe_id.as_str(), "spiffe://example.org/document-worker");
    assert_eq!(worker.workload_socket().unwrap(), Path::new("/tmp/spire-agent/public/api.sock"));
    assert_eq!(worker.server.address(), "0.0.0.0:8443".parse().unwrap());
    let metrics = worker.observability.metrics.as_ref().unwrap();
    assert_eq!(metrics.address(), "127.0.0.1:9090".parse().unwrap());
    assert_eq!(worker.authorization.default_policy, DefaultPolicy::DenyAll);
    assert_eq!(worker.authorization.policy_path, Path::new("./policies"));
    assert_eq!(worker.authorization.policy_file.as_deref(), Some(Path::new("worker_policy.rego")));
    assert_eq!(worker.metadata.name, "Document Worker Agent");
    assert_eq!(worker.metadata.description, "Analyzes documents for the orchestrator");
    assert!(worker.warnings().is_empty());

    let orchestrator = parse(SEED_ORCHESTRATOR).unwrap();
    let agent = orchestrator.agent_config();
    let known = agent.registry("document_worker").unwrap();
    assert_eq!(known.spiffe_id, worker.identity.spiffe_id);
    assert_eq!(known.address, "https://localhost:8443");
    assert_eq!(agent.metadata.version, "1.0.0");
    assert_eq!(orchestrator.authorization.default_policy, DefaultPolicy::AllowAll);
    assert_eq!(
        orchestrator.warnings(),
        [
            "`authorization.default_policy: allow_all` has no effect: orchestrator_policy.rego decides"
        ]
    );
}

#[test]
fn every_key_is_read() {
    let config = parse(
        r#"
identity: {provider: workload_api, spiffe_id: "spiffe://td/a", spire_socket: "unix:///s", issuer_uid: 7}
authorization: {engine: Rego, policy_file: /p.rego, package: a.b_c, rego_version: V0}
server:
  host: "::1"
  port: 0
  advertise_address: https://a.example:1/x
  mtls: {}
  limits: {body_bytes_max: 1024, connections_max: 1, idle_timeout: 500ms, connection_age_max: 5m}
observability:
  logging: {level: warning, format: pretty}
  metrics: {host: localhost, port: 0}
  audit: {path: /a.jsonl, sync: true}
metadata: {cloud: aws, zones: [1, 2.5, {a: null}], description: ""}
environment: production
journal: {durability: memory}
data_dir: /d
"#,
    )
    .unwrap();
    assert_eq!((config.identity.socket, config.identity.issuer_uid), (Some("/s".into()), Some(7)));
    assert_eq!(config.authorization.policy_file.as_deref(), Some(Path::new("/p.rego")));
    assert_eq!(config.authorization.package, "a.b_c");
    assert_eq!(config.authorization.rego_version, Some(RegoVersion::V0));
    assert_eq!(config.server.address(), "[::1]:0".parse().unwrap());
    assert_eq!(config.server.advertise_address.as_deref(), Some("https://a.example:1/x"));
    let limits = LimitsConfig {
        body_bytes_max: 1024,
        connections_max: 1,
        idle_timeout: Duration::from_millis(500),
        connection_age_max: Duration::from_secs(300),
        requests_max: 4096,
        queue_time_max: Duration::from_millis(100),
    };
    assert_eq!(config.server.limits, limits);
    assert_eq!(
        config.observability,
        ObservabilityConfig {
            logging: LoggingConfig {
                level: tracing::Level::WARN,
                format: Format::Pretty,
                sampling_rate: 1.0,
                redact: Vec::new(),
            },
            tracing: None,
            metrics: Some(MetricsConfig { host: [127, 0, 0, 1].into(), port: 0 }),
            audit: AuditConfig { path: "/a.jsonl".into(), sync: true, rotate_bytes: None, keep: 5 },
        }
    );
    let extra = json!({"cloud": "aws", "zones": [1, 2.5, {"a": null}]});
    assert_eq!(json!(config.metadata.extra), extra);
    assert_eq!((config.stage, config.data_dir), (Some(Stage::Production), "/d".into()));
}

#[test]
fn the_socket_may_come_from_the_environment() {
    let mut env = environment();
    env.spiffe_endpoint_socket = Some("unix:///run/spire.sock".into());
    let config = Config::parse_in(ID, "w", &env).unwrap();
    assert_eq!(config.workload_socket().unwrap(), Path::new("/run/spire.sock"));
    env.spiffe_endpoint_socket = Some("tcp://127.0.0.1:8000".into());
    let own = format!("{ID}  spire_socket: /own.sock\n");
    let config = Config::parse_in(&own, "w", &env).unwrap();
    assert_eq!(config.workload_socket().unwrap(), Path::new("/own.sock"));
    let error = Config::parse_in(ID, "w", &env).unwrap_err().to_string();
    assert!(
        error.contains("SPIFFE_ENDPOINT_SOCKET is `tcp://127.0.0.1:8000`: only unix"),
        "{error}"
    );
    let error = parse(ID).unwrap().workload_socket().unwrap_err();
    assert_eq!(error.problems[0].path, "identity.spire_socket");
}

#[test]
fn without_a_home_the_data_directory_has_to_be_named() {
    let error = Config::parse_in(ID, "w", &Environment::default()).unwrap_err();
    assert_eq!(error.problems[0].path, "data_dir");
    assert_eq!(error.problems.len(), 1);
}

#[test]
fn all_problems_are_reported_at_once() {
    let error = parse(
        "identity:\n  spife_id: spiffe://example.org/a\nserver:\n  port: 70000\n  hots: x\nlogs: 1\n",
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "worker.yaml:2:3: `identity.spiffe_id` is missing; name the agent, as in \
         spiffe://example.org/worker\n\
         worker.yaml:2:3: unknown key `identity.spife_id`; did you mean `spiffe_id`?\n\
         worker.yaml:4:9: `server.port` is 70000, not a whole number from 0 to 65535\n\
         worker.yaml:5:3: unknown key `server.hots`; did you mean `host`?\n\
         worker.yaml:6:1: unknown key `logs`; known keys are identity, authorization, server, \
         agent_registry, observability, metadata, environment, journal, data_dir"
    );
}

#[test]
fn a_file_is_read_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("worker.yaml");
    let check = |bytes: &[u8], expected: &str| {
        std::fs::write(&path, bytes).unwrap();
        let error = Config::load(&path).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.starts_with(&path.display().to_string()), "{error}");
    };
    check(&vec![b'#'; 1024 * 1024 + 1], "longer than 1048576 bytes");
    check(b"\xff\xfe", "UTF-8");
    std::fs::write(&path, format!("{ID}data_dir: /d\n")).unwrap();
    assert_eq!(Config::load(&path).unwrap().file, path);
    std::fs::remove_file(&path).unwrap();
    let error = Config::load(&path).unwrap_err().to_string();
    assert!(error.contains("the configuration cannot be read: No such file"), "{error}");
}

/// `text` comes after a valid `identity`; the first problem is at `path` and says `message`.
fn check_wrong(text: &str, path: &str, message: &str) {
    check_wrong_file(&format!("{ID}{text}\n"), path, message);
}

fn check_wrong_file(text: &str, path: &str, message: &str) {
    let error = parse(text).expect_err(text);
    let problem = &error.problems[0];
    assert_eq!(problem.path, path, "{error}");
    assert!(problem.to_string().contains(message), "{error}\nlacks: {message}");
    assert_eq!(error.problems.len(), 1, "{error}");
    assert!(problem.line.is_some(), "{error}");
    assert_eq!(error.to_string().lines().count(), 1, "{error}");
}

#[test]
fn wrong_identities_are_refused() {
    let wrong = |text: &str, key: &str, message: &str| {
        check_wrong_file(&format!("identity:\n{text}\n"), &format!("identity.{key}"), message);
    };
    let with_id = |text: &str, key: &str, message: &str| {
        check_wrong(text, &format!("identity.{key}"), message)
    };
    wrong("  issuer_uid: 1", "spiffe_id", "`identity.spiffe_id` is missing; name the agent");
    wrong("  spiffe_id:", "spiffe_id", "`identity.spiffe_id` is missing");
    wrong(
        "  spiffe_id: example.org/a",
        "spiffe_id",
        "`example.org/a`: a SPIFFE ID begins with `spiffe://`",
    );
    wrong("  spiffe_id: spiffe://example.org", "spiffe_id", "the path is empty");
    wrong("  spiffe_id: spiffe://Example.org/a", "spiffe_id", "trust domain has `E`");
    wrong("  spiffe_id: [a]", "spiffe_id", "`identity.spiffe_id` is a list, not text");
    wrong("  spiffe_id: 12", "spiffe_id", "is 12 where text is expected; put it in quotes");
    with_id(
        "  trust_domain: other.org",
        "trust_domain",
        "is `other.org`, but `identity.spiffe_id` is of `example.org`",
    );
    with_id("  trust_domain: \"a\\e[31m\"", "trust_domain", "has `\\u001b`");
    with_id("  trust_domain: spiffe://example.org", "trust_domain", "trust domain has `:`");
    with_id(
        "  provider: files",
        "provider",
        "is `files`, which comes with a later version; use `workload_api`",
    );
    with_id("  provider: workloadapi", "provider", "did you mean `workload_api`?");
    with_id("  spire_socket: api.sock", "spire_socket", "a socket's path begins with `/`");
    with_id(
        "  spire_socket: tcp://127.0.0.1:1",
        "spire_socket",
        "only unix sockets carry the Workload API here, not tcp",
    );
    with_id("  spire_socket: \"/a\\nb\"", "spire_socket", "control character");
    with_id(&format!("  spire_socket: /{}", "a".repeat(107)), "spire_socket", "at most 107 bytes");
    with_id(
        "  issuer_uid: root",
        "issuer_uid",
        "is \"root\", not a whole number from 0 to 4294967295",
    );
    with_id("  issuer_uid: -1", "issuer_uid", "is -1, not a whole number");
    with_id("  issuer_uid: 1.5", "issuer_uid", "is 1.5, not a whole number");
    with_id(
        "  trust_domian: example.org",
        "trust_domian",
        "unknown key `identity.trust_domian`; did you mean `trust_domain`?",
    );
}

#[test]
fn wrong_authorizations_are_refused() {
    let wrong = |text: &str, key: &str, message: &str| {
        check_wrong(&format!("authorization:\n{text}"), &format!("authorization.{key}"), message);
    };
    wrong(
        "  engine: cedar",
        "engine",
        "`authorization.engine` is `cedar`, not one of `opa`, `rego`",
    );
    wrong(
        "  default_policy: deny-all",
        "default_policy",
        "not one of `deny_all`, `allow_all`; did you mean `deny_all`?",
    );
    wrong("  default_policy: false", "default_policy", "is false where text is expected");
    wrong("  policy_file: \"\"", "policy_file", "it has to say something");
    wrong(
        "  policy_path: ./p\n  policy_file: /p.rego",
        "policy_file",
        "is absolute, so `authorization.policy_path` has no effect",
    );
    wrong("  package: data.authz", "package", "without `data`");
    wrong("  package: a..b", "package", "a package is names with dots");
    wrong("  rego_version: v2", "rego_version", "not one of `v0`, `v1`");
    wrong("  opa: {url: x}", "opa", "unknown key `authorization.opa`; known keys are engine, ");
    check_wrong(
        "authorization: deny_all",
        "authorization",
        "`authorization` is text, not a mapping",
    );
    check_wrong(
        "authorization: {default_policy: allow_all}\nenvironment: production",
        "environment",
        "is `allow_all` in `environment: production`",
    );
    check_wrong(
        "environment: prod",
        "environment",
        "not one of `development`, `staging`, `production`",
    );
}

#[test]
fn wrong_servers_are_refused() {
    let wrong = |text: &str, key: &str, message: &str| {
        check_wrong(&format!("server:\n{text}"), &format!("server.{key}"), message);
    };
    wrong("  host: example.org", "host", "a host to listen on is an IP address or `localhost`");
    wrong("  port: \"8443\"", "port", "is \"8443\", not a whole number from 0 to 65535");
    wrong("  port: 65536", "port", "is 65536, not a whole number");
    wrong(
        "  advertise_address: http://a",
        "advertise_address",
        "agents speak mutual TLS; write `https://`",
    );
    wrong(
        "  advertise_address: a.example",
        "advertise_address",
        "an address begins with `https://`",
    );
    wrong("  advertise_address: https://u@a", "advertise_address", "an address has no user");
    wrong("  advertise_address: https://a?b", "advertise_address", "no query and no fragment");
    wrong("  advertise_address: https://a:99999", "advertise_address", "a number from 1 to 65535");
    wrong(
        "  mtls: {enabled: false}",
        "mtls.enabled",
        "the mesh listener never goes without; for a plaintext",
    );
    wrong("  mtls: {enabled: \"true\"}", "mtls.enabled", "is \"true\", not true or false");
    wrong("  mtls: {enabled: yes}", "mtls.enabled", "is \"yes\", not true or false");
    wrong("  mtls: {cert_source: file}", "mtls.cert_source", "not one of `spire`");
    wrong("  mtls: true", "mtls", "`server.mtls` is a boolean, not a mapping");
    wrong("  limits: {body_bytes_max: 100}", "limits.body_bytes_max", "from 1024 to 67108864");
    wrong("  limits: {idle_timeout: 10}", "limits.idle_timeout", "is 10 where text is expected");
    wrong(
        "  limits: {idle_timeout: 10 s}",
        "limits.idle_timeout",
        "a whole number with a unit: `500ms`",
    );
    wrong("  limits: {idle_timeout: 1ms}", "limits.idle_timeout", "from 100ms to 86400s");
    wrong("  limits: {body_bytes: 1}", "limits.body_bytes", "unknown key");
}

#[test]
fn wrong_registries_are_refused() {
    let wrong = |text: &str, key: &str, message: &str| {
        check_wrong(&format!("agent_registry:\n{text}"), &format!("agent_registry{key}"), message);
    };
    wrong("  w: {address: https://a}", ".w.spiffe_id", "is missing; say who must answer");
    wrong("  w: {spiffe_id: \"spiffe://td/w\"}", ".w.address", "is missing; say where");
    wrong("  w: {spiffe_id: w, address: https://a}", ".w.spiffe_id", "begins with `spiffe://`");
    wrong(
        "  w: {spiffe_id: \"spiffe://td/w\", address: http://a}",
        ".w.address",
        "write `https://`",
    );
    wrong(
        "  w: {spiffe_id: \"spiffe://td/w\", adress: x, address: https://a}",
        ".w.adress",
        "did you mean `address`?",
    );
    wrong("  w: https://a", ".w", "`agent_registry.w` is text, not a mapping");
    wrong("  - w", "", "`agent_registry` is a list, not a mapping");
    let many: String = (0..1025).map(|n| format!("  w{n}: {{}}\n")).collect();
    wrong(&many, "", "more than 1024 entries");
}

#[test]
fn the_rest_is_refused_too() {
    check_wrong(
        "observability: {logging: {level: LOUD}}",
        "observability.logging.level",
        "not one of `trace`",
    );
    check_wrong(
        "observability: {logging: {format: jsn}}",
        "observability.logging.format",
        "did you mean `json`?",
    );
    check_wrong(
        "observability: {metrics: {host: any}}",
        "observability.metrics.host",
        "IP address",
    );
    check_wrong("observability: {metrics: {port: -1}}", "observability.metrics.port", "is -1");
    check_wrong(
        "observability: {audit: {sync: 1}}",
        "observability.audit.sync",
        "is 1, not true or false",
    );
    check_wrong(
        "observability: {tracing: {}}",
        "observability.tracing",
        "unknown key `observability.tracing`",
    );
    check_wrong(
        "observability: {metrics: {port: 8443}}",
        "observability",
        "`server.port` are both 8443",
    );
    check_wrong(
        "metadata: {version: 1.0}",
        "metadata.version",
        "is 1.0 where text is expected; put it in quotes",
    );
    check_wrong(
        "metadata: {name: \"a\\u001b[31m\"}",
        "metadata.name",
        "`a\\u001b[31m`: it has a control character",
    );
    check_wrong("metadata: {name: [a]}", "metadata.name", "is a list, not text");
    check_wrong(
        "journal: {durability: strict}",
        "journal.durability",
        "is `strict`, which comes with a later version",
    );
    check_wrong("journal: {durability: disk}", "journal.durability", "not one of `memory`");
    check_wrong("data_dir: \" \"", "data_dir", "it has to say something");
    check_wrong("Server: {port: 1}", "Server", "unknown key `Server`; did you mean `server`?");
    check_wrong(ID, "", "duplicate mapping key: identity");
    check_wrong("server: [", "", "not readable as YAML");
    check_wrong_file("- a\n", "", "the file is a list, not a mapping");
}

#[test]
fn ports_of_one_host_may_differ_and_hosts_of_one_port_too() {
    for text in [
        "server: {port: 0}\nobservability: {metrics: {port: 0}}",
        "server: {port: 1}\nobservability: {metrics: {port: 2}}",
        "server: {host: 127.0.0.2, port: 1}\nobservability: {metrics: {port: 1}}",
        "server: {port: 1}\nobservability: {metrics: {enabled: false, port: 1}}",
    ] {
        assert!(parse(&format!("{ID}{text}\n")).is_ok(), "{text}");
    }
}

#[test]
fn what_is_allowed_without_a_policy_is_said() {
    let text = format!("{ID}authorization: {{default_policy: allow_all}}\n");
    let config = parse(&text).unwrap();
    assert_eq!(config.warnings().len(), 1);
    assert!(config.warnings()[0].ends_with("every verified caller may call everything"));
}

#[test]
fn a_slip_in_metadata_is_said() {
    let config = parse(&format!("{SEED_WORKER}  desciption: x\n  cloud: aws\n")).unwrap();
    assert_eq!(
        config.warnings(),
        ["`metadata.desciption` is a key of the agent's own; did you mean `description`?"]
    );
}

#[test]
fn no_text_makes_it_panic() {
    for end in (0..SEED_ORCHESTRATOR.len()).step_by(7) {
        let (start, rest) = SEED_ORCHESTRATOR.split_at(end);
        for piece in [
            "",
            "\0",
            "[",
            "&a *a",
            ": - !!int \"",
            "\u{1b}",
            "!!binary =",
            "99999999999999999999999 ",
        ] {
            for text in [format!("{start}{piece}"), format!("{start}{piece}{rest}")] {
                if let Err(error) = parse(&text) {
                    let lines = error.to_string();
                    assert_eq!(lines.lines().count(), error.problems.len(), "{lines:?}");
                    assert!(!lines.contains(['\u{1b}', '\0']), "{lines:?}");
                }
            }
        }
    }
}
