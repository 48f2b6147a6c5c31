//! `authorization`: which policy decides, and what is kept of its decisions.

use std::path::{Path, PathBuf};

use super::super::reader::Section;
use super::super::{
    AuthorizationConfig, DecisionLogConfig, DefaultPolicy, Environment, OpaConfig, RegoVersion,
};
use super::forms::{opa_path, package, server_url};
use super::secrets;

/// Most data files of one policy.
const DATA_FILES_MAX: usize = 64;

/// `authorization` before the data directory is known.
pub(super) struct Authorization {
    config: AuthorizationConfig,
    log: Option<Log>,
}

/// `decision_log` before the data directory is known.
struct Log {
    path: Option<PathBuf>,
    params: bool,
    rotate_bytes: Option<u64>,
    keep: u32,
}

impl Authorization {
    pub(super) fn finish(self, root: &Section<'_>, data_dir: &Path) -> AuthorizationConfig {
        let decision_log = self.log.map(|Log { path, params, rotate_bytes, keep }| {
            let path = path.unwrap_or_else(|| {
                let path = data_dir.join("decisions.jsonl");
                root.worked_out("authorization.decision_log.path", path.display());
                path
            });
            DecisionLogConfig { path, params, rotate_bytes, keep }
        });
        AuthorizationConfig { decision_log, ..self.config }
    }
}

pub(super) fn read(section: &Section<'_>, env: &Environment) -> Option<Authorization> {
    // OPA's language is what the seed means by its engine; the evaluator is the embedded one.
    section.word("engine", &[("opa", ()), ("rego", ())]);
    let default_policy = section.word(
        "default_policy",
        &[("deny_all", DefaultPolicy::DenyAll), ("allow_all", DefaultPolicy::AllowAll)],
    );
    let policy_path = section.text("policy_path");
    let policy_file = section.text("policy_file").map(PathBuf::from);
    if section.has("policy_path") && policy_file.as_ref().is_some_and(|file| file.is_absolute()) {
        section.problem(
            "policy_file",
            "`authorization.policy_file` is absolute, so `authorization.policy_path` has no effect",
            Some("leave one of the two out"),
        );
    }
    let package = section.parsed("package", package);
    let rego_version =
        section.word("rego_version", &[("v0", RegoVersion::V0), ("v1", RegoVersion::V1)]);
    let data_files = section.texts("data_files", DATA_FILES_MAX);
    let reload_interval = section.duration_or_never("reload_interval");
    let opa = opa(&section.section("opa"), package.as_deref(), env);
    let is_remote = opa.as_ref().is_some_and(Option::is_some);
    for key in ["policy_file", "data_files", "rego_version"] {
        if is_remote && section.has(key) {
            let message =
                format!("`authorization.{key}` has no effect while `authorization.opa` decides");
            section.problem(key, &message, Some("leave one of the two out"));
        }
    }
    if !is_remote && section.has("data_files") && !section.has("policy_file") {
        let message = "`authorization.data_files` has no effect without a policy";
        section.problem("data_files", message, Some("name the policy in `policy_file`"));
    }
    let log = decision_log(&section.section("decision_log"))?;
    Some(Authorization {
        config: AuthorizationConfig {
            default_policy: default_policy?,
            policy_path: PathBuf::from(policy_path?),
            policy_file,
            package: package?,
            rego_version,
            data_files: data_files?.into_iter().map(PathBuf::from).collect(),
            reload_interval: reload_interval?,
            opa: opa?,
            decision_log: None,
        },
        log,
    })
}

/// The inner `None` is the embedded engine.
fn opa(
    section: &Section<'_>,
    package: Option<&str>,
    env: &Environment,
) -> Option<Option<OpaConfig>> {
    let enabled = section.enabled()?;
    let url = section.parsed("url", server_url);
    let path = match section.has("path") {
        true => section.parsed("path", opa_path),
        false => {
            section.parsed("path", opa_path);
            let path = package.map(|package| package.replace('.', "/"));
            if let Some(path) = &path {
                section.worked_out("path", path);
            }
            path
        }
    };
    let timeout = section.duration("timeout");
    // A secret that is not used is not asked for: the file may be of another machine.
    let token = match enabled {
        true => secrets::read(section, "token_file", "token_env", env),
        false => {
            section.text("token_file");
            section.text("token_env");
            Some(None)
        }
    };
    let opa = OpaConfig { url: url?, path: path?, timeout: timeout?, token: token? };
    Some(enabled.then_some(opa))
}

/// How decisions are kept; the inner `None` does not keep them.
fn decision_log(section: &Section<'_>) -> Option<Option<Log>> {
    let enabled = section.enabled();
    let path = section.text("path").map(PathBuf::from);
    let params = section.flag("params");
    let rotate_bytes = section.size("rotate_bytes");
    let keep = section.number("keep");
    let log = Log { path, params: params?, rotate_bytes: rotate_bytes?, keep: keep? };
    Some(enabled?.then_some(log))
}
