//! What the words of the reference's other shapes, and of the seed's variables, are here.

use super::keys::Key;

/// What the text of another shape is as a value of `key`; without an entry it is the same here.
///
/// # Errors
///
/// Why there is no such thing here, and what to do.
pub(super) fn translate<'t>(key: &Key, text: &'t str) -> Result<&'t str, &'static str> {
    let word = text.to_ascii_lowercase();
    Ok(match (key.path, word.as_str()) {
        ("identity.provider", "spiffe") => "workload_api",
        ("identity.provider", "mtls-static") => "files",
        ("authorization.default_policy", "deny") => "deny_all",
        ("authorization.default_policy", "log-only" | "log_only") => {
            return Err("there is no decision that is only logged; use `deny_all`, and see \
                        `convoke policy explain` for what a policy would say");
        }
        ("environment", "prod") => "production",
        ("environment", "dev") => "development",
        ("environment", "stage") => "staging",
        ("observability.logging.level", "critical") => "error",
        // The seed's reference has a switch where we have a level.
        ("observability.logging.level", "1" | "true" | "yes") => "debug",
        ("observability.audit.path", _) => match text.strip_prefix("file://") {
            Some(path) => path,
            None if text.contains("://") || matches!(word.as_str(), "stdout" | "stderr") => {
                return Err("records are written to a file; let what collects logs read that");
            }
            None => text,
        },
        _ => text,
    })
}
