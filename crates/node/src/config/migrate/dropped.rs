//! Keys of the other shapes that have no meaning here, each with the reason.
//!
//! Source of the names: the reference's API documentation, its Helm chart and what its
//! documentation mentions beside them.

/// Paths, and why what is at or below each has no meaning here. The longest that fits counts.
const DROPPED: &[(&str, &str)] = &[
    ("agent.capabilities", "capabilities are methods of the agent's program, which declares them"),
    ("agent.labels", DEPLOYMENT),
    ("agent.annotations", DEPLOYMENT),
    (
        "identity.allowed_trust_domains",
        "a policy says who may call; a foreign trust domain is known when the issuer delivers its \
         bundle",
    ),
    (
        "spiffe.allowedTrustDomains",
        "a policy says who may call; a foreign trust domain is known when the issuer delivers its \
         bundle",
    ),
    ("identity.federation", "the issuer federates, and delivers the bundles of others"),
    ("identity.lightweight", PUSHED),
    ("identity.svid_cache_size", PUSHED),
    ("identity.bundle_refresh_interval", PUSHED),
    ("authorization.cache", REMEMBERED),
    ("authorization.cache_ttl_seconds", REMEMBERED),
    ("authorization.policy_cache_ttl", REMEMBERED),
    ("authz.policies", ONE_POLICY),
    ("authorization.sidecar", DEPLOYMENT),
    ("authorization.sidecar.policies", ONE_POLICY),
    ("authorization.opa_endpoints", "one server is asked; put what balances several before it"),
    (
        "authorization.failover_strategy",
        "one server is asked; without its answer the call is refused",
    ),
    ("authorization.circuit_breaker", "without an answer in time the call is refused"),
    ("authorization.audit.enabled", AUDIT_IS_ON),
    ("authorization.audit", AUDIT),
    ("observability.audit.enabled", AUDIT_IS_ON),
    ("observability.audit", AUDIT),
    ("transport.tls_min_version", TLS),
    ("transport.tlsMinVersion", TLS),
    ("transport.tls_max_version", TLS),
    ("transport.tls", TLS),
    ("transport.encryption", "connections are always encrypted, by TLS 1.3"),
    ("transport.cipher_suites", "those of TLS 1.3"),
    ("transport.fips_mode", "the library of the cryptography is a matter of the build"),
    ("transport.peer_verification", VERIFIED),
    ("transport.peerVerification", VERIFIED),
    ("transport.verify_peer", VERIFIED),
    ("transport.require_client_cert", VERIFIED),
    ("transport.tls_verify", VERIFIED),
    ("debug.disablePeerVerification", VERIFIED),
    (
        "transport.ca_cert_path",
        "peers are verified by the bundles of the identity; with `identity.provider: files` name \
         one in `identity.files.bundle`",
    ),
    ("transport.connect_timeout", "what is left of the call's time is the bound"),
    ("transport.connection_reuse", CONNECTIONS),
    ("transport.keepalive_interval", CONNECTIONS),
    ("transport.connection_pool", CONNECTIONS),
    ("transport.connectionPool", CONNECTIONS),
    ("transport.circuit_breaker", "one call is let through when the time is over, and decides"),
    ("transport.circuitBreaker", "one call is let through when the time is over, and decides"),
    ("transport.retry.backoff_multiplier", "each bound is twice the last"),
    ("transport.retry", "what is safe to repeat is repeated, which the failure and the call say"),
    ("server.protocol", "the mesh listener speaks A2A"),
    ("server.request_timeout_seconds", "the caller's deadline travels with the call"),
    ("server.request_timeout", "the caller's deadline travels with the call"),
    ("server.authentication", "callers are known by their certificates"),
    (
        "observability.metrics",
        "labels and buckets are fixed, so that the metrics of all agents can be added up",
    ),
    ("observability.monitoring", DEPLOYMENT),
    (
        "observability.tracing.headers",
        "a secret is not written into the file: write `headers.NAME.value_env` with the name of its \
         variable, or `value_file`",
    ),
    ("observability.logging.loggers", "one level is of all; `CONVOKE_LOG` has others by module"),
    ("observability.tracing", "what it said is fixed here"),
    (
        "observability.logging",
        "lines go to standard error, with caller and trace where there are any",
    ),
    (
        "observability.audit_log",
        "the audit log is a file of JSON lines; let what collects logs send it on",
    ),
    ("include", "one file for each agent; environment variables override its keys"),
    ("global", DEPLOYMENT),
    ("image", DEPLOYMENT),
    ("replicaCount", DEPLOYMENT),
    ("serviceAccount", DEPLOYMENT),
    ("service", DEPLOYMENT),
    ("resources", DEPLOYMENT),
    ("autoscaling", DEPLOYMENT),
    ("podDisruptionBudget", DEPLOYMENT),
    ("podSecurityContext", DEPLOYMENT),
    ("securityContext", DEPLOYMENT),
    ("podAnnotations", DEPLOYMENT),
    ("podLabels", DEPLOYMENT),
    ("nodeSelector", DEPLOYMENT),
    ("tolerations", DEPLOYMENT),
    ("affinity", DEPLOYMENT),
    ("networkPolicy", DEPLOYMENT),
    ("healthChecks", "health is served at `/health/live` and `/health/ready`, with no settings"),
    ("config", DEPLOYMENT),
    ("debug", "set `observability.logging.level` instead"),
    ("externalSecrets", DEPLOYMENT),
    ("azureKeyVault", DEPLOYMENT),
    ("extraEnv", DEPLOYMENT),
    ("extraEnvFrom", DEPLOYMENT),
    ("extraVolumes", DEPLOYMENT),
    ("extraVolumeMounts", DEPLOYMENT),
    ("imagePullSecrets", DEPLOYMENT),
    ("ingress", DEPLOYMENT),
    ("initContainers", DEPLOYMENT),
    ("monitoring", DEPLOYMENT),
    ("persistence", DEPLOYMENT),
    ("spire", "it is of the SPIRE server and its agents"),
    ("spireRegistration", REGISTRATION),
    ("spiffe.registration", REGISTRATION),
    ("topologySpreadConstraints", DEPLOYMENT),
    ("spiffe.socketPath", "`spiffe.endpointSocket` says the same"),
    ("spiffe.selectors", REGISTRATION),
    ("opa.image", DEPLOYMENT),
    ("opa.resources", DEPLOYMENT),
    ("opa.bundleServer", "the OPA server loads its bundles itself"),
];

/// The reason of what a chart says to Kubernetes.
const DEPLOYMENT: &str = "it is of the deployment, not of the agent";

/// Reasons that several keys have.
const AUDIT: &str = "the audit log is a file of JSON lines with a digest of the parameters; \
                     `authorization.decision_log` keeps more";
const AUDIT_IS_ON: &str = "the audit log has no switch: it is on";
const CONNECTIONS: &str = "connections are kept as long as they are used and certificates last";
const ONE_POLICY: &str = "one policy is loaded: name it in `authorization.policy_file`, and the data \
                          that it reads in `authorization.data_files`";
const PUSHED: &str =
    "certificates and bundles are pushed by the issuer, and the last ones are held";
const REGISTRATION: &str = "it is of the issuer's registration entries";
const REMEMBERED: &str = "decisions are remembered by the facts they read, and end with the policy";
const TLS: &str = "TLS 1.3 and nothing older";
const VERIFIED: &str = "peers are always verified";

/// Why the key at `path` has no meaning here.
pub(super) fn why(path: &str) -> &'static str {
    let is_at = |known: &str| {
        path.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let found = DROPPED.iter().filter(|(known, _)| is_at(known));
    found
        .max_by_key(|(known, _)| known.len())
        .map_or("it is no key that is known here", |(_, why)| why)
}

/// Whether all of the mapping at `path` is listed as one: there is a reason for it, and for nothing
/// below it another.
pub(super) fn is_whole(path: &str) -> bool {
    let is_below = |known: &str| known.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
    DROPPED.iter().any(|(known, _)| *known == path)
        && !DROPPED.iter().any(|(known, _)| is_below(known))
}
