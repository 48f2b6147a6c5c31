//! What `environment: production` refuses: each thing that is only for development, by itself.
//!
//! Source of the first rules: the seed's reference (default deny, no allow-all, strict
//! verification, TLS, audit on). Verification and TLS have no switch here, so nothing is asked of
//! them; the development listener is refused where the command line asks for it.

use std::path::Path;

use super::super::reader::{Report, Section};
use super::super::yaml::Value;
use super::super::{Config, DefaultPolicy};
use super::forms::is_plain_and_remote;

/// Directories whose content everybody may put in place, or that do not outlive the machine.
const FLEETING: [&str; 4] = ["/tmp", "/var/tmp", "/dev", "/run/user"];

/// Reports what `config` says that production must not.
pub(super) fn check(config: &Config, root: &Section<'_>, report: &Report) {
    let refuse = |path: &str, message: String, cure: &str| {
        let at = root.place(path).or_else(|| root.place("environment"));
        let message = format!("{message} in `environment: production`");
        report.push(path.to_owned(), &at.cloned().unwrap_or_default(), &message, Some(cure));
    };
    if config.authorization.default_policy == DefaultPolicy::AllowAll {
        refuse(
            "authorization.default_policy",
            "`authorization.default_policy` is `allow_all`".to_owned(),
            "write a policy and `default_policy: deny_all`",
        );
    }
    let stays = |path: &str, found: &Path| {
        if let Some(directory) = fleeting(found) {
            refuse(
                path,
                format!("`{path}` is {}, which is below {directory},", found.display()),
                "name a place that only the agent writes to and that outlives the machine's start",
            );
        }
    };
    stays("data_dir", &config.data_dir);
    if fleeting(&config.data_dir).is_none() || root.place("observability.audit.path").is_some() {
        stays("observability.audit.path", &config.observability.audit.path);
    }
    if let Some(log) = &config.authorization.decision_log
        && (fleeting(&config.data_dir).is_none()
            || root.place("authorization.decision_log.path").is_some())
    {
        stays("authorization.decision_log.path", &log.path);
    }
    if let Some(files) = &config.identity.files {
        stays("identity.files.private_key", &files.private_key);
    }
    let says_public = root
        .below("observability.metrics.public")
        .is_some_and(|node| matches!(node.value, Value::Bool(true)));
    if let Some(metrics) = &config.observability.metrics
        && !metrics.host.is_loopback()
        && !says_public
    {
        refuse(
            "observability.metrics.host",
            format!("metrics are on {}, without authentication,", metrics.host),
            "write `observability.metrics.public: true` if a firewall or a network policy guards \
             them, or leave `host` out",
        );
    }
    if let Some(tracing) = &config.observability.tracing
        && !tracing.headers.is_empty()
        && is_plain_and_remote(&tracing.otlp_endpoint)
    {
        refuse(
            "observability.tracing.otlp_endpoint",
            "the secrets of `observability.tracing.headers` would cross the network in the clear"
                .to_owned(),
            "use an `https` endpoint, or a collector on this machine",
        );
    }
}

/// The directory of [`FLEETING`] that `path` is below.
fn fleeting(path: &Path) -> Option<&'static str> {
    FLEETING.into_iter().find(|directory| path.starts_with(directory))
}
