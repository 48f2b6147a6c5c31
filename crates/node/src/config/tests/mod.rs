mod corpus;
mod migration;
mod overrides;
mod table;

use std::time::Duration;

use convoke_agent::{BreakerSettings, RetrySettings};
use convoke_model::{Secret, SpiffeId, TrustDomain};
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
        journal: JournalConfig {
            durability: Durability::Strict,
            path: data_dir.join("journal"),
            keep_ended: Some(Duration::from_secs(30 * 86_400)),
            keep_tasks: 1_000_000,
        },
        tasks: TasksConfig { concurrency_max: 10_000, queue_max: 100_000 },
        data_dir,
        policy_at: (None, None),
        files_at: Default::default(),
        warnings: vec![
            "no policy is loaded and `authorization.default_policy` is `deny_all`: every call is \
             refused"
                .into(),
        ],
    };
    assert_eq!(parse(ID), Ok(expected));
}

/// Source: the first seed, `config/worker.yaml`.
const SEED_WORKER: &str = include_str!("../../../tests/config/right/seed-worker.yaml");

/// Source: the first seed, `config/orchestrator.yaml`.
const SEED_ORCHESTRATOR: &str = include_str!("../../../tests/config/right/seed-orchestrator.yaml");

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
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("token");
    std::fs::write(&secret, "s3cret\n").unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let text = r#"
identity: {provider: workload_api, spiffe_id: "spiffe://td/a", spire_socket: "unix:///s", issuer_uid: 7}
authorization:
  engine: Rego
  policy_file: /p.rego
  package: a.b_c
  rego_version: V0
  data_files: [a.json, b.json]
  reload_interval: never
  decision_log: {params: true, path: /d.jsonl, rotate_bytes: 2MiB, keep: 7}
server:
  host: "::1"
  port: 0
  advertise_address: a.example:1
  mtls: {}
  drain_timeout: 5s
  limits:
    body_bytes_max: 1KiB
    connections_max: 1
    idle_timeout: 500ms
    connection_age_max: 5m
    requests_max: 7
    queue_time_max: 1ms
calls:
  timeout: 10s
  retry: {attempts_max: 1, backoff_min: 1ms, backoff_max: 2ms}
  breaker: {failures_max: 0, open_for: 1s}
  concurrency_max: 3
  cache_ttl: 1m
  attempt_timeout: 2s
agent_registry:
  w: {spiffe_id: "spiffe://td/w", address: "https://w", calls: {timeout: 1s, cache_ttl: never}}
observability:
  logging: {level: warning, format: text, sampling_rate: 0.5, redact: [iban]}
  metrics: {host: localhost, port: 0, path: /m, public: true}
  tracing:
    otlp_endpoint: localhost:4317
    exporter: otlp
    sampling_rate: 0
    service_name: s
    logs: true
    headers: {Authorization: {value_file: SECRET}}
  audit: {path: /a.jsonl, sync: true, rotate_bytes: 100MiB, keep: 9}
metadata: {cloud: aws, zones: [1, 2.5, {a: null}], description: ""}
environment: staging
journal: {durability: memory, path: /j, keep_ended: never, keep_tasks: 1000}
tasks: {concurrency_max: 3, queue_max: 0}
data_dir: /d
"#;
    let config = parse(&text.replace("SECRET", &secret.display().to_string())).unwrap();
    assert_eq!((config.identity.socket, config.identity.issuer_uid), (Some("/s".into()), Some(7)));
    let authorization = AuthorizationConfig {
        default_policy: DefaultPolicy::DenyAll,
        policy_path: ".".into(),
        policy_file: Some("/p.rego".into()),
        package: "a.b_c".into(),
        rego_version: Some(RegoVersion::V0),
        data_files: vec!["a.json".into(), "b.json".into()],
        reload_interval: None,
        opa: None,
        decision_log: Some(DecisionLogConfig {
            path: "/d.jsonl".into(),
            params: true,
            rotate_bytes: Some(2 << 20),
            keep: 7,
        }),
    };
    assert_eq!(config.authorization, authorization);
    let limits = LimitsConfig {
        body_bytes_max: 1024,
        connections_max: 1,
        idle_timeout: Duration::from_millis(500),
        connection_age_max: Duration::from_secs(300),
        requests_max: 7,
        queue_time_max: Duration::from_millis(1),
    };
    let server = ServerConfig {
        host: "::1".parse().unwrap(),
        port: 0,
        advertise_address: Some("https://a.example:1".into()),
        limits,
        drain_timeout: Duration::from_secs(5),
    };
    assert_eq!(config.server, server);
    let calls = CallSettings {
        timeout: Duration::from_secs(10),
        retry: RetrySettings {
            attempts_max: 1,
            backoff_min: Duration::from_millis(1),
            backoff_max: Duration::from_millis(2),
        },
        breaker: BreakerSettings { failures_max: 0, open_for: Duration::from_secs(1) },
        concurrency_max: 3,
        attempt_timeout: Some(Duration::from_secs(2)),
        cache_ttl: Some(Duration::from_secs(60)),
    };
    assert_eq!(config.calls, calls);
    // What an entry does not say is as under `calls`, not as by default.
    let own = CallSettings { timeout: Duration::from_secs(1), cache_ttl: None, ..calls };
    assert_eq!(config.agent_registry["w"].calls, own);
    assert_eq!(
        config.observability,
        ObservabilityConfig {
            logging: LoggingConfig {
                level: tracing::Level::WARN,
                format: Format::Pretty,
                sampling_rate: 0.5,
                redact: vec!["iban".into()],
            },
            tracing: Some(TracingConfig {
                otlp_endpoint: "http://localhost:4317".into(),
                sampling_rate: 0.0,
                service_name: Some("s".into()),
                headers: [("authorization".into(), Secret::new("s3cret"))].into(),
                logs: true,
            }),
            metrics: Some(MetricsConfig {
                path: "/m".into(),
                host: [127, 0, 0, 1].into(),
                port: 0
            }),
            audit: AuditConfig {
                path: "/a.jsonl".into(),
                sync: true,
                rotate_bytes: Some(100 << 20),
                keep: 9
            },
        }
    );
    let extra = json!({"cloud": "aws", "zones": [1, 2.5, {"a": null}]});
    assert_eq!(json!(config.metadata.extra), extra);
    assert_eq!((config.stage, config.data_dir), (Some(Stage::Staging), "/d".into()));
}

#[test]
fn an_identity_may_come_from_files() {
    let config = parse(
        "identity:\n  provider: files\n  spiffe_id: spiffe://td/a\n  files: {certificate: /c, \
         private_key: /k, bundle: /b, federated: {other.org: /o}}\n",
    )
    .unwrap();
    let files = IdentityFiles {
        certificate: "/c".into(),
        private_key: "/k".into(),
        bundle: "/b".into(),
        federated: [(TrustDomain::parse("other.org").unwrap(), "/o".into())].into(),
    };
    assert_eq!(config.identity.files, Some(files));
    assert_eq!(config.identity.socket, None);
}

#[test]
fn an_opa_server_may_decide() {
    let opa = |text: &str, variables: &[(&str, &str)]| {
        let mut env = environment();
        env.variables = variables.iter().copied().collect();
        let text = format!("{ID}authorization:\n  package: a.b\n  opa: {text}\n");
        Config::parse_in(&text, "w", &env).unwrap().authorization.opa
    };
    let by_default = OpaConfig {
        url: "http://localhost:8181".into(),
        path: "a/b".into(),
        timeout: Duration::from_secs(1),
        token: None,
    };
    assert_eq!(opa("{}", &[]), Some(by_default));
    // A secret that is not used is not asked for.
    assert_eq!(opa("{enabled: false, token_env: UNSET}", &[]), None);
    let set = "{url: https://opa.example/, path: /v1/data/c/d, timeout: 50ms, token_env: T}";
    let expected = OpaConfig {
        url: "https://opa.example".into(),
        path: "c/d".into(),
        timeout: Duration::from_millis(50),
        token: Some(Secret::new("s3cret")),
    };
    assert_eq!(opa(set, &[("T", "s3cret\n")]), Some(expected));
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
        "worker.yaml:2:3: unknown key `identity.spife_id`; did you mean `spiffe_id`?\n\
         worker.yaml:2:3: `identity.spiffe_id` is missing; name the agent, as in \
         spiffe://example.org/worker\n\
         worker.yaml:4:9: `server.port` is 70000, not a whole number from 0 to 65535\n\
         worker.yaml:5:3: unknown key `server.hots`; did you mean `host`?\n\
         worker.yaml:6:1: unknown key `logs`; known keys are identity, authorization, server, \
         agent_registry, calls, observability, metadata, journal, tasks, environment, data_dir"
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
    assert!(error.contains("the configuration cannot be read: there is no such file"), "{error}");
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
