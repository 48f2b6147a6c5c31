//! The keys of a configuration, their defaults, and what they may not say together.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use convoke_agent::{CallSettings, Metadata, RegistryEntry};
use convoke_model::{SpiffeId, TrustDomain, limits};

use super::reader::{Problems, Section, nearest, quote};
use super::{
    AuditConfig, AuthorizationConfig, Config, ConfigError, DefaultPolicy, Durability, Environment,
    IdentityConfig, JournalConfig, LimitsConfig, LoggingConfig, MetricsConfig, ObservabilityConfig,
    RegoVersion, ServerConfig, Stage, yaml,
};
use crate::observe::logging::Format;

/// Longest path of a unix socket, in bytes. Source: `sun_path` of unix(7) is 108 with its end.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Most entries of `agent_registry`.
const REGISTRY_ENTRIES_MAX: usize = 1024;

/// The mesh port when none is given. Source: the first seed.
const SERVER_PORT_DEFAULT: u16 = 8443;

/// The metrics port when none is given. Source: the first seed.
const METRICS_PORT_DEFAULT: u16 = 9090;

/// The package when none is given. Source: the policies of the first seed.
const PACKAGE_DEFAULT: &str = "agentweave.authz";

/// Reads and checks `text`, reporting all that is wrong with it.
pub(super) fn config(text: &str, name: &str, env: &Environment) -> Result<Config, ConfigError> {
    let tree = yaml::parse(text).map_err(|problem| ConfigError::new(name, vec![*problem]))?;
    let problems = Problems::default();
    let mut root = Section::root(&tree, &problems);
    if root.is_wrong() {
        return Err(ConfigError::new(name, problems.take()));
    }

    let identity = identity(root.section("identity"), env);
    let authorization = authorization(root.section("authorization"));
    let server = server(root.section("server"));
    let agent_registry = agent_registry(&mut root);
    let observability = observability(root.section("observability"));
    let metadata = metadata(root.section("metadata"), identity.as_ref());
    let stage = root.word(
        "environment",
        &[
            ("development", Stage::Development),
            ("staging", Stage::Staging),
            ("production", Stage::Production),
        ],
    );
    let journal = journal(root.section("journal"));
    let data_dir = root.text("data_dir").map(PathBuf::from).or_else(|| {
        // Without an identity the file is refused anyway, and for a better reason.
        let identity = identity.as_ref()?;
        let found = env.data_dir(&identity.spiffe_id);
        if found.is_none() {
            root.missing("data_dir", "set it, CONVOKE_DATA_DIR, XDG_STATE_HOME or HOME");
        }
        found
    });
    if stage == Some(Stage::Production) && authorization.default_policy == DefaultPolicy::AllowAll {
        root.problem(
            "environment",
            "`authorization.default_policy` is `allow_all` in `environment: production`".to_owned(),
            Some("write a policy and `default_policy: deny_all`"),
        );
    }
    if let Some(metrics) = &observability.metrics
        && collide(&server, metrics)
    {
        root.problem(
            "observability",
            format!("`observability.metrics.port` and `server.port` are both {}", server.port),
            Some("give metrics a port of its own"),
        );
    }
    root.finish();

    let warnings = warnings(&authorization, &metadata);
    match (identity, data_dir, problems.into_inner()) {
        (Some(identity), Some(data_dir), problems) if problems.is_empty() => Ok(Config {
            file: PathBuf::from(name),
            observability: observability.finish(&data_dir),
            identity,
            authorization,
            server,
            agent_registry,
            calls: CallSettings::default(),
            metadata,
            stage,
            journal,
            data_dir,
            warnings,
        }),
        (_, _, problems) => Err(ConfigError::new(name, problems)),
    }
}

fn identity(mut section: Section<'_>, env: &Environment) -> Option<IdentityConfig> {
    #[derive(Clone, Copy, PartialEq)]
    enum Provider {
        WorkloadApi,
        Files,
    }
    let providers = [("workload_api", Provider::WorkloadApi), ("files", Provider::Files)];
    if section.word("provider", &providers) == Some(Provider::Files) {
        let message = format!("`identity.provider` is `files`, which {LATER}");
        section.problem("provider", message, Some("use `workload_api`"));
    }
    let written = section.has("spiffe_id");
    let spiffe_id = section.parsed("spiffe_id", SpiffeId::parse);
    if !written {
        section.missing("spiffe_id", "name the agent, as in spiffe://example.org/worker");
    }
    let trust_domain = section.parsed("trust_domain", TrustDomain::parse);
    if let (Some(id), Some(domain)) = (&spiffe_id, &trust_domain)
        && id.trust_domain_str() != domain.as_str()
    {
        let own = id.trust_domain_str();
        let message = format!(
            "`identity.trust_domain` is `{domain}`, but `identity.spiffe_id` is of `{own}`"
        );
        section.problem("trust_domain", message, Some("leave `trust_domain` out"));
    }
    let socket = if section.has("spire_socket") {
        section.parsed("spire_socket", socket_path)
    } else {
        env.spiffe_endpoint_socket.as_deref().and_then(|text| match socket_path(text) {
            Ok(path) => Some(path),
            Err(why) => {
                let message = format!("SPIFFE_ENDPOINT_SOCKET is `{}`: {why}", quote(text));
                section.problem("spire_socket", message, None);
                None
            }
        })
    };
    let issuer_uid = section
        .number("issuer_uid", 0..=u64::from(u32::MAX))
        .and_then(|uid| u32::try_from(uid).ok());
    section.finish();
    let spiffe_id = spiffe_id?;
    let trust_domain = spiffe_id.trust_domain();
    Some(IdentityConfig { trust_domain, spiffe_id, socket, issuer_uid, files: None })
}

fn authorization(mut section: Section<'_>) -> AuthorizationConfig {
    // OPA's language is what the seed means by its engine; the evaluator is the embedded one.
    section.word("engine", &[("opa", ()), ("rego", ())]);
    let default_policy = section.word(
        "default_policy",
        &[("deny_all", DefaultPolicy::DenyAll), ("allow_all", DefaultPolicy::AllowAll)],
    );
    let policy_path = section.text("policy_path");
    let policy_file = section.text("policy_file").map(PathBuf::from);
    if policy_path.is_some() && policy_file.as_ref().is_some_and(|file| file.is_absolute()) {
        section.problem(
            "policy_file",
            "`authorization.policy_file` is absolute, so `authorization.policy_path` has no effect"
                .to_owned(),
            Some("leave one of the two out"),
        );
    }
    let package = section.parsed("package", package);
    let rego_version =
        section.word("rego_version", &[("v0", RegoVersion::V0), ("v1", RegoVersion::V1)]);
    section.finish();
    AuthorizationConfig {
        default_policy: default_policy.unwrap_or(DefaultPolicy::DenyAll),
        policy_path: PathBuf::from(policy_path.unwrap_or_else(|| ".".to_owned())),
        policy_file,
        package: package.unwrap_or_else(|| PACKAGE_DEFAULT.to_owned()),
        rego_version,
        data_files: Vec::new(),
        reload_interval: Some(Duration::from_secs(1)),
        opa: None,
        decision_log: None,
    }
}

fn server(mut section: Section<'_>) -> ServerConfig {
    let host = section.parsed("host", listen_host);
    let port = port(&mut section);
    let advertise_address = section.parsed("advertise_address", https_address);

    let mut mtls = section.section("mtls");
    if mtls.flag("enabled") == Some(false) {
        mtls.problem(
            "enabled",
            "`server.mtls.enabled` is false, but the mesh listener never goes without".to_owned(),
            Some("for a plaintext listener on loopback start with `--dev` instead"),
        );
    }
    mtls.word("cert_source", &[("spire", ())]);
    mtls.finish();

    let limits = limits(section.section("limits"));
    section.finish();
    ServerConfig {
        host: host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        port: port.unwrap_or(SERVER_PORT_DEFAULT),
        advertise_address,
        limits,
        drain_timeout: Duration::from_secs(30),
    }
}

fn limits(mut section: Section<'_>) -> LimitsConfig {
    let mut size = |key, range, default| {
        section
            .number(key, range)
            .and_then(|number| usize::try_from(number).ok())
            .unwrap_or(default)
    };
    let body_bytes_max = size("body_bytes_max", 1024..=64 << 20, limits::BODY_BYTES_MAX);
    let connections_max = size("connections_max", 1..=1_000_000, limits::CONNECTIONS_MAX);
    let mut time = |key, default| section.duration(key).unwrap_or(default);
    let idle_timeout = time("idle_timeout", limits::IDLE_TIMEOUT);
    let connection_age_max = time("connection_age_max", limits::CONNECTION_AGE_MAX);
    section.finish();
    LimitsConfig {
        body_bytes_max,
        connections_max,
        idle_timeout,
        connection_age_max,
        requests_max: limits::REQUESTS_MAX,
        queue_time_max: limits::QUEUE_TIME_MAX,
    }
}

fn agent_registry(root: &mut Section<'_>) -> BTreeMap<String, RegistryEntry> {
    let mut entries = BTreeMap::<String, RegistryEntry>::new();
    let sections = root.named_sections("agent_registry");
    if sections.len() > REGISTRY_ENTRIES_MAX {
        let message = format!("`agent_registry` has more than {REGISTRY_ENTRIES_MAX} entries");
        root.problem("agent_registry", message, None);
        return entries;
    }
    for (key, mut section) in sections {
        let written = (section.has("spiffe_id"), section.has("address"));
        let spiffe_id = section.parsed("spiffe_id", SpiffeId::parse);
        let address = section.parsed("address", https_address);
        if !written.0 {
            section.missing("spiffe_id", "say who must answer at the address");
        }
        if !written.1 {
            section.missing("address", "say where the agent is, as in https://localhost:8443");
        }
        section.finish();
        if let (Some(spiffe_id), Some(address)) = (spiffe_id, address) {
            entries.insert(key.to_owned(), RegistryEntry::new(spiffe_id, address));
        }
    }
    entries
}

/// `observability` before the data directory is known.
struct Observability {
    logging: LoggingConfig,
    metrics: Option<MetricsConfig>,
    audit_path: Option<PathBuf>,
    audit_sync: bool,
}

impl Observability {
    fn finish(self, data_dir: &std::path::Path) -> ObservabilityConfig {
        let path = self.audit_path.unwrap_or_else(|| data_dir.join("audit.jsonl"));
        ObservabilityConfig {
            logging: self.logging,
            metrics: self.metrics,
            tracing: None,
            audit: AuditConfig { path, sync: self.audit_sync, rotate_bytes: None, keep: 5 },
        }
    }
}

fn observability(mut section: Section<'_>) -> Observability {
    let mut logging = section.section("logging");
    // `WARNING` is how the seed's language spells the level.
    let level = logging.word(
        "level",
        &[
            ("trace", tracing::Level::TRACE),
            ("debug", tracing::Level::DEBUG),
            ("info", tracing::Level::INFO),
            ("warn", tracing::Level::WARN),
            ("warning", tracing::Level::WARN),
            ("error", tracing::Level::ERROR),
        ],
    );
    let format = logging.word("format", &[("json", Format::Json), ("pretty", Format::Pretty)]);
    logging.finish();

    let written = section.has("metrics");
    let mut metrics = section.section("metrics");
    // A section that is written is meant.
    let enabled = metrics.flag("enabled").unwrap_or(written);
    let metrics_host = metrics.parsed("host", listen_host);
    let metrics_port = port(&mut metrics);
    metrics.finish();

    let mut audit = section.section("audit");
    let audit_path = audit.text("path").map(PathBuf::from);
    let audit_sync = audit.flag("sync").unwrap_or(false);
    audit.finish();
    section.finish();

    Observability {
        logging: LoggingConfig {
            level: level.unwrap_or(tracing::Level::INFO),
            format: format.unwrap_or(Format::Json),
            sampling_rate: 1.0,
            redact: Vec::new(),
        },
        metrics: enabled.then(|| MetricsConfig {
            host: metrics_host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            port: metrics_port.unwrap_or(METRICS_PORT_DEFAULT),
        }),
        audit_path,
        audit_sync,
    }
}

fn metadata(mut section: Section<'_>, identity: Option<&IdentityConfig>) -> Metadata {
    let name = section.text("name");
    let version = section.text("version");
    let description = section.parsed("description", |text| Ok::<_, String>(text.to_owned()));
    let last_segment = identity.and_then(|own| own.spiffe_id.path().rsplit('/').next());
    Metadata {
        name: name.unwrap_or_else(|| last_segment.unwrap_or_default().to_owned()),
        version: version.unwrap_or_else(|| "0.0.0".to_owned()),
        description: description.unwrap_or_default(),
        extra: section.rest().into_iter().collect(),
    }
}

fn journal(mut section: Section<'_>) -> JournalConfig {
    #[derive(Clone, Copy)]
    enum Word {
        Memory,
        OnDisk(&'static str),
    }
    let words = [
        ("memory", Word::Memory),
        ("relaxed", Word::OnDisk("relaxed")),
        ("strict", Word::OnDisk("strict")),
    ];
    if let Some(Word::OnDisk(word)) = section.word("durability", &words) {
        let message = format!("`journal.durability` is `{word}`, which {LATER}");
        section.problem("durability", message, Some("use `memory`, which loses tasks at exit"));
    }
    section.finish();
    JournalConfig { durability: Durability::Memory }
}

/// What messages say of a value that the design has and this version has not.
const LATER: &str = "comes with a later version";

fn warnings(authorization: &AuthorizationConfig, metadata: &Metadata) -> Vec<String> {
    let policy = match (&authorization.policy_file, authorization.default_policy) {
        (Some(file), DefaultPolicy::AllowAll) => Some(format!(
            "`authorization.default_policy: allow_all` has no effect: {} decides",
            file.display()
        )),
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
    };
    // Metadata may hold any key, so a slip of the pen cannot be refused there.
    let near = metadata.extra.keys().filter_map(|key| {
        let known = nearest(key, ["name", "version", "description"].into_iter())?;
        let key = quote(key);
        Some(format!("`metadata.{key}` is a key of the agent's own; did you mean `{known}`?"))
    });
    policy.into_iter().chain(near).collect()
}

/// Whether both listeners would ask for the same socket. Port 0 never collides.
fn collide(server: &ServerConfig, metrics: &MetricsConfig) -> bool {
    let same_host = server.host == metrics.host
        || server.host.is_unspecified()
        || metrics.host.is_unspecified();
    server.port != 0 && server.port == metrics.port && same_host
}

fn port(section: &mut Section<'_>) -> Option<u16> {
    section.number("port", 0..=u64::from(u16::MAX)).and_then(|port| u16::try_from(port).ok())
}

/// An address to listen on. Names are not resolved, because what they mean can change.
fn listen_host(text: &str) -> Result<IpAddr, &'static str> {
    if text == "localhost" {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    text.parse().map_err(|_| "a host to listen on is an IP address or `localhost`")
}

/// The path of a unix socket, plain as in the seed or as SPIFFE's `unix://` URI.
fn socket_path(text: &str) -> Result<PathBuf, String> {
    let path = match text.split_once(':') {
        Some(("unix", rest)) => rest.strip_prefix("//").unwrap_or(rest),
        Some((scheme, rest)) if rest.starts_with("//") => {
            return Err(format!("only unix sockets carry the Workload API here, not {scheme}"));
        }
        _ => text,
    };
    if !path.starts_with('/') {
        return Err("a socket's path begins with `/`".to_owned());
    }
    if path.len() > SOCKET_PATH_BYTES_MAX {
        return Err(format!("a socket's path has at most {SOCKET_PATH_BYTES_MAX} bytes"));
    }
    if path.chars().any(char::is_control) {
        return Err("it has a control character".to_owned());
    }
    Ok(PathBuf::from(path))
}

/// The `https` URL of an agent: host, port if not 443, and a path if it has one.
fn https_address(text: &str) -> Result<String, &'static str> {
    let uri: http::Uri = text.parse().map_err(|_| "an address is a URL")?;
    let authority = uri.authority().ok_or("an address begins with `https://`")?;
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") => return Err("agents speak mutual TLS; write `https://`"),
        _ => return Err("an address begins with `https://`"),
    }
    if authority.as_str().contains('@') {
        return Err("an address has no user");
    }
    if authority.host().is_empty() {
        return Err("an address has a host");
    }
    if authority.as_str() != authority.host() && authority.port_u16().is_none_or(|port| port == 0) {
        return Err("the port of an address is a number from 1 to 65535");
    }
    if uri.query().is_some() || text.contains('#') {
        return Err("an address has no query and no fragment");
    }
    Ok(text.to_owned())
}

/// A Rego package: names with dots between them.
fn package(text: &str) -> Result<String, &'static str> {
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if text.len() <= 256 && text.split('.').all(is_name) && !text.starts_with("data.") {
        Ok(text.to_owned())
    } else {
        Err("a package is names with dots between them, without `data`, as in agentweave.authz")
    }
}
