//! The rows of the table, in the order of the reference page.
//!
//! Numbers without a source of their own are those of [`convoke_model::limits`] and of
//! `convoke_agent::CallSettings`; a test holds them equal.

use super::{Default, Key, Kind};
use Default::{Is, Or, Required};
use Kind::{Duration, Flag, Number, Refused, Share, Size, Text, Texts, Words};

/// An hour in milliseconds.
const HOUR: u64 = 3_600_000;

/// The longest that a limit of time may be, in milliseconds: a day.
const DAY: u64 = 24 * HOUR;

const fn key(path: &'static str, kind: Kind, default: Default, doc: &'static str) -> Key {
    Key { path, kind, default, doc, since: "0.1", was: &[] }
}

impl Key {
    const fn was(self, was: &'static [&'static str]) -> Self {
        Self { was, ..self }
    }
}

const fn refused(path: &'static str, cure: &'static str) -> Key {
    key(path, Refused(cure), Or(""), "known from another shape of configuration, and refused")
}

/// The keys.
pub(in crate::config) const KEYS: &[Key] = &[
    key(
        "identity.provider",
        Words(&["workload_api", "files"]),
        Is("workload_api"),
        "where the identity comes from: the SPIFFE Workload API, or `identity.files`",
    )
    .was(&["AGENTWEAVE_IDENTITY_PROVIDER"]),
    key(
        "identity.spiffe_id",
        Text("SPIFFE ID"),
        Required,
        "who the agent is; it does not start under another ID",
    )
    .was(&["agent.spiffe_id", "agent.spiffeId", "AGENTWEAVE_SPIFFE_ID"]),
    key(
        "identity.trust_domain",
        Text("name"),
        Or("that of `spiffe_id`"),
        "may be given, and then has to match",
    )
    .was(&[
        "agent.trust_domain",
        "agent.trustDomain",
        "global.trustDomain",
        "AGENTWEAVE_TRUST_DOMAIN",
        "AGENTWEAVE_AGENT_TRUST_DOMAIN",
    ]),
    key(
        "identity.spire_socket",
        Text("path"),
        Or("`SPIFFE_ENDPOINT_SOCKET`"),
        "the Workload API's unix socket; also as `unix:///path`",
    )
    .was(&[
        "identity.spiffe_endpoint",
        "identity.spiffe_socket",
        "identity.socket_path",
        "spiffe.endpointSocket",
        "AGENTWEAVE_IDENTITY_SPIFFE_ENDPOINT",
    ]),
    key(
        "identity.issuer_uid",
        Number(0, u32::MAX as u64),
        Or("none"),
        "a user who may serve that socket, beside root and the agent's own",
    ),
    key(
        "identity.files.certificate",
        Text("file"),
        Or("required by `provider: files`"),
        "the X.509-SVID, leaf first, with its intermediates; read again when it changes",
    )
    .was(&["identity.certificate_path", "identity.cert_path", "AGENTWEAVE_CERT_PATH"]),
    key(
        "identity.files.private_key",
        Text("file"),
        Or("required by `provider: files`"),
        "its key, as PKCS #8; a file that only its owner may read",
    )
    .was(&["identity.private_key_path", "identity.key_path", "AGENTWEAVE_KEY_PATH"]),
    key(
        "identity.files.bundle",
        Text("file"),
        Or("required by `provider: files`"),
        "the roots of the agent's own trust domain",
    )
    .was(&["identity.ca_cert_path", "identity.ca_path", "AGENTWEAVE_CA_BUNDLE_PATH"]),
    key(
        "identity.files.federated.NAME",
        Text("file"),
        Or("none"),
        "the roots of the trust domain NAME, whose agents may then call and be called",
    ),
    key(
        "authorization.engine",
        Words(&["opa", "rego"]),
        Is("opa"),
        "both mean the embedded Rego engine; a server is asked with `authorization.opa`",
    ),
    key(
        "authorization.default_policy",
        Words(&["deny_all", "allow_all"]),
        Is("deny_all"),
        "the decision when no policy is loaded, and only then",
    )
    .was(&[
        "authorization.default_action",
        "authorization.defaultAction",
        "authz.default",
        "opa.defaultAction",
        "AGENTWEAVE_AUTHZ_DEFAULT_ACTION",
        "AGENTWEAVE_AUTHORIZATION_DEFAULT_ACTION",
    ]),
    key("authorization.policy_path", Text("directory"), Is("."), "where `policy_file` is")
        .was(&["AGENTWEAVE_POLICY_PATH"]),
    key(
        "authorization.policy_file",
        Text("file"),
        Or("none"),
        "the one [policy](policy.md) that is loaded",
    ),
    key(
        "authorization.package",
        Text("Rego package"),
        Is("agentweave.authz"),
        "the package whose `decision` or `allow` decides",
    ),
    key(
        "authorization.rego_version",
        Words(&["v0", "v1"]),
        Or("found out"),
        "which Rego the policy is written in",
    ),
    key(
        "authorization.data_files",
        Texts,
        Or("none"),
        "JSON files whose content the policy sees as `data`, from `policy_path`",
    ),
    key(
        "authorization.reload_interval",
        Duration(100, DAY, true),
        Is("1s"),
        "how often the policy's files are looked at for a change",
    ),
    key(
        "authorization.opa.enabled",
        Flag,
        Or("`true` if `opa` is written, else `false`"),
        "whether an OPA server decides",
    ),
    key(
        "authorization.opa.url",
        Text("URL"),
        Is("http://localhost:8181"),
        "where the server is; plain `http` is for this machine alone",
    )
    .was(&[
        "authorization.opa_endpoint",
        "authorization.opa_url",
        "authorization.opaEndpoint",
        "opa.endpoint",
        "AGENTWEAVE_OPA_ENDPOINT",
    ]),
    key(
        "authorization.opa.path",
        Text("path"),
        Or("`package`, with slashes"),
        "what is asked, below `/v1/data/`",
    )
    .was(&["authorization.policy_path", "authorization.policyPath", "opa.policyPath"]),
    key(
        "authorization.opa.timeout",
        Duration(10, 30_000, false),
        Is("1s"),
        "how long its answer may take; without one the call is refused",
    ),
    key(
        "authorization.opa.token_file",
        Text("file"),
        Or("none"),
        "holds a token that is sent as `Authorization: Bearer`",
    ),
    key(
        "authorization.opa.token_env",
        Text("variable"),
        Or("none"),
        "the environment variable that holds it instead",
    ),
    refused(
        "authorization.opa.token",
        "a secret is not written into the file: name its file with `token_file`, or its \
         environment variable with `token_env`",
    ),
    key(
        "authorization.decision_log.enabled",
        Flag,
        Or("`true` if `decision_log` is written, else `false`"),
        "whether decisions are kept with what they were decided on",
    ),
    key(
        "authorization.decision_log.path",
        Text("file"),
        Or("`decisions.jsonl` in `data_dir`"),
        "the file of JSON lines",
    ),
    key(
        "authorization.decision_log.params",
        Flag,
        Is("false"),
        "whether the parameters of calls are kept too",
    ),
    key(
        "authorization.decision_log.rotate_bytes",
        Size(1 << 20, 1 << 40, true),
        Is("never"),
        "size at which a new file is begun",
    ),
    key("authorization.decision_log.keep", Number(1, 1000), Is("5"), "how many old files are kept"),
    key(
        "server.host",
        Text("IP address or `localhost`"),
        Is("127.0.0.1"),
        "where the mesh listener is; `0.0.0.0` for all addresses",
    )
    .was(&["AGENTWEAVE_SERVER_HOST"]),
    key(
        "server.port",
        Number(0, u16::MAX as u64),
        Is("8443"),
        "its port; 0 takes a free one, which the log names",
    )
    .was(&["AGENTWEAVE_SERVER_PORT"]),
    key(
        "server.advertise_address",
        Text("`https` URL"),
        Or("`https://localhost:PORT/`"),
        "the address on the agent's card; also as `HOST:PORT`",
    ),
    key(
        "server.drain_timeout",
        Duration(100, HOUR, false),
        Is("30s"),
        "how long running requests may take to end when the agent is asked to",
    )
    .was(&["server.graceful_shutdown_seconds"]),
    key(
        "server.mtls.enabled",
        Flag,
        Is("true"),
        "`false` is refused: the mesh listener never goes without",
    ),
    key(
        "server.mtls.cert_source",
        Words(&["spire"]),
        Is("spire"),
        "the seed's word for `identity`, whoever issues that",
    ),
    key(
        "server.limits.body_bytes_max",
        Size(1024, 64 << 20, false),
        Is("4MiB"),
        "largest request body",
    ),
    key(
        "server.limits.connections_max",
        Number(1, 1_000_000),
        Is("10000"),
        "most connections at a time",
    )
    .was(&["server.max_connections"]),
    key(
        "server.limits.idle_timeout",
        Duration(100, DAY, false),
        Is("75s"),
        "how long a connection may be idle between requests",
    ),
    key(
        "server.limits.connection_age_max",
        Duration(100, DAY, false),
        Is("1h"),
        "longest life of a connection; it ends earlier if a certificate does",
    ),
    key(
        "server.limits.requests_max",
        Number(1, 1_000_000),
        Is("4096"),
        "most requests that are worked on at a time; further ones wait and are then turned away",
    )
    .was(&["server.max_concurrent_requests"]),
    key(
        "server.limits.queue_time_max",
        Duration(1, 60_000, false),
        Is("100ms"),
        "how long a request waits for its turn",
    ),
    key(
        "agent_registry.NAME.spiffe_id",
        Text("SPIFFE ID"),
        Required,
        "whom the agent calls by NAME, a word of your own",
    ),
    key(
        "agent_registry.NAME.address",
        Text("`https` URL"),
        Required,
        "where that agent listens; who answers has to prove the SPIFFE ID",
    ),
    key(
        "calls.timeout",
        Duration(1, DAY, false),
        Is("30s"),
        "how long a call waits for its answer, over all attempts, when the code does not say",
    )
    .was(&["transport.timeout_seconds", "transport.timeout"]),
    key(
        "calls.attempt_timeout",
        Duration(1, DAY, true),
        Is("never"),
        "how long each attempt may take at most; an idempotent call is then made again, in the time \
         that is left",
    ),
    key(
        "calls.retry.attempts_max",
        Number(1, 10),
        Is("3"),
        "most attempts of one call, the first included; what may have arrived is called again \
         only if the call is idempotent",
    )
    .was(&["transport.retry.max_attempts", "transport.retry.maxAttempts"]),
    key(
        "calls.retry.backoff_min",
        Duration(1, HOUR, false),
        Is("100ms"),
        "bound of the pause before the second attempt, drawn from zero to it; each further bound \
         is twice the last",
    )
    .was(&["transport.retry.backoff_base_seconds", "transport.retry.backoffBaseSeconds"]),
    key("calls.retry.backoff_max", Duration(1, HOUR, false), Is("30s"), "largest bound of a pause")
        .was(&["transport.retry.backoff_max_seconds", "transport.retry.backoffMaxSeconds"]),
    key(
        "calls.breaker.failures_max",
        Number(0, 1000),
        Is("5"),
        "failures in a row that open the breaker; 0 never does",
    )
    .was(&[
        "transport.circuit_breaker.failure_threshold",
        "transport.circuitBreaker.failureThreshold",
    ]),
    key(
        "calls.breaker.open_for",
        Duration(100, HOUR, false),
        Is("30s"),
        "how long it stays open before one call is let through to find out",
    )
    .was(&[
        "transport.circuit_breaker.recovery_timeout_seconds",
        "transport.circuitBreaker.recoveryTimeoutSeconds",
    ]),
    key(
        "calls.concurrency_max",
        Number(1, 10_000),
        Is("100"),
        "most calls of one agent at a time; further ones wait, within their timeout",
    )
    .was(&["transport.connection_pool.max_connections", "transport.connectionPool.maxConnections"]),
    key(
        "calls.cache_ttl",
        Duration(1, DAY, true),
        Is("never"),
        "how long an answer to an idempotent call is good for the same call again",
    ),
    key(
        "observability.logging.level",
        Words(&["trace", "debug", "info", "warn", "warning", "error"]),
        Is("info"),
        "the least severe level that is logged; `warning` is `warn`",
    )
    .was(&["AGENTWEAVE_LOG_LEVEL", "AGENTWEAVE_DEBUG"]),
    key(
        "observability.logging.format",
        Words(&["json", "pretty", "text"]),
        Is("json"),
        "`json` for programs, `pretty` for people; `text` is `pretty`",
    )
    .was(&["AGENTWEAVE_LOG_FORMAT"]),
    key(
        "observability.logging.sampling_rate",
        Share,
        Is("1.0"),
        "which share of the lines on requests that went well is written; warnings and errors \
         always are",
    ),
    key(
        "observability.logging.redact",
        Texts,
        Or("none"),
        "names of fields, beside those that always are, whose values are not written",
    )
    .was(&["observability.audit_log.redact_fields"]),
    refused(
        "observability.logging.include_caller",
        "leave it out: each line about a request names its caller",
    ),
    refused(
        "observability.logging.default_fields",
        "leave it out: labels of a process are added by what collects its log",
    ),
    key(
        "observability.metrics.enabled",
        Flag,
        Or("`true` if `metrics` is written, else `false`"),
        "whether metrics are served",
    ),
    key(
        "observability.metrics.host",
        Text("IP address or `localhost`"),
        Is("127.0.0.1"),
        "where; the listener has no authentication",
    ),
    key("observability.metrics.port", Number(0, u16::MAX as u64), Is("9090"), "its port")
        .was(&["AGENTWEAVE_METRICS_PORT"]),
    key("observability.metrics.path", Text("path"), Is("/metrics"), "the path of the metrics")
        .was(&["observability.metrics.prometheus.path"]),
    key(
        "observability.metrics.public",
        Flag,
        Is("false"),
        "says that metrics may be on another address than loopback in `environment: production`",
    ),
    refused(
        "observability.metrics.labels",
        "leave it out: labels of a process are added by what scrapes it",
    ),
    refused(
        "observability.metrics.latency_buckets",
        "leave it out: buckets are fixed, so that the metrics of all agents can be added up",
    ),
    key(
        "observability.tracing.enabled",
        Flag,
        Or("`true` if `tracing` is written, else `false`"),
        "whether spans are sent",
    ),
    key(
        "observability.tracing.exporter",
        Words(&["otlp"]),
        Is("otlp"),
        "OTLP over gRPC; Jaeger and Zipkin take it, or have a collector before them",
    ),
    key(
        "observability.tracing.otlp_endpoint",
        Text("URL"),
        Is("http://localhost:4317"),
        "where the collector is; also as `HOST:PORT`",
    )
    .was(&["observability.tracing.endpoint"]),
    key(
        "observability.tracing.sampling_rate",
        Share,
        Is("1.0"),
        "which share of the traces that begin here is recorded; others are as whoever began them \
         decided",
    )
    .was(&["observability.tracing.sample_rate"]),
    key(
        "observability.tracing.service_name",
        Text("text"),
        Or("`metadata.name`"),
        "the name of the agent in traces",
    ),
    key(
        "observability.tracing.headers.NAME.value_file",
        Text("file"),
        Or("none"),
        "holds the value of the header NAME",
    ),
    key(
        "observability.tracing.headers.NAME.value_env",
        Text("variable"),
        Or("none"),
        "the environment variable that holds it instead",
    ),
    key("observability.tracing.logs", Flag, Is("false"), "whether log lines are sent too"),
    key(
        "observability.audit.path",
        Text("file"),
        Or("`audit.jsonl` in `data_dir`"),
        "where decisions are recorded",
    )
    .was(&["authorization.audit.destination", "observability.audit.destination"]),
    key(
        "observability.audit.sync",
        Flag,
        Is("false"),
        "whether an effect waits until its record is on the disk",
    ),
    key(
        "observability.audit.rotate_bytes",
        Size(1 << 20, 1 << 40, true),
        Is("never"),
        "size at which a new file is begun",
    ),
    key("observability.audit.keep", Number(1, 1000), Is("5"), "how many old files are kept"),
    key(
        "metadata.name",
        Text("text"),
        Or("last segment of the SPIFFE ID"),
        "the agent's name, on the card and in logs",
    )
    .was(&["agent.name", "AGENTWEAVE_AGENT_NAME"]),
    key("metadata.version", Text("text"), Is("0.0.0"), "the agent's version, on the card")
        .was(&["agent.version"]),
    key("metadata.description", Text("text"), Or("empty"), "what the agent is, on the card")
        .was(&["agent.description"]),
    key(
        "environment",
        Words(&["development", "staging", "production"]),
        Or("none"),
        "in `production`, what is only for development is [refused](#production)",
    )
    .was(&["agent.environment", "AGENTWEAVE_ENV", "AGENTWEAVE_ENVIRONMENT"]),
    key(
        "journal.durability",
        Words(&["strict", "relaxed", "memory"]),
        Is("strict"),
        "what an acknowledged task survives: a power cut, the end of the process, or nothing",
    ),
    key(
        "journal.path",
        Text("directory"),
        Or("`journal` in `data_dir`"),
        "where tasks are stored; one node at a time uses it",
    ),
    key(
        "journal.keep_ended",
        Duration(1000, 3650 * DAY, true),
        Is("720h"),
        "how long tasks are kept after their end",
    ),
    key(
        "journal.keep_tasks",
        Number(1000, 1_000_000_000),
        Is("1000000"),
        "how many ended tasks are kept; beyond that the oldest go earlier",
    ),
    key(
        "tasks.concurrency_max",
        Number(1, 1_000_000),
        Is("10000"),
        "how many tasks are worked on at a time, those that wait for their caller included; one \
         caller may have a quarter",
    ),
    key(
        "tasks.queue_max",
        Number(0, 10_000_000),
        Is("100000"),
        "how many further tasks wait for their turn; one caller may have a quarter",
    ),
    key("data_dir", Text("directory"), Or("see below"), "for what the agent writes"),
];
