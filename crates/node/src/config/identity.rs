//! Finds what an identity comes from, before anything asks for it.

use std::collections::BTreeMap;
use std::path::Path;

use convoke_identity::regular_file;
use convoke_model::system_error;

use super::error::Problem;
use super::read::Position;
use super::text::{join, quote};
use super::{Config, ConfigError, IdentityFiles};

/// Where the paths of `identity.files` stand, by their keys.
pub(super) type Positions = BTreeMap<String, Position>;

/// The keys of `files` with the files that they name.
pub(super) fn named(files: &IdentityFiles) -> impl Iterator<Item = (String, &Path)> {
    let own = [
        ("certificate", &files.certificate),
        ("private_key", &files.private_key),
        ("bundle", &files.bundle),
    ];
    let own = own.into_iter().map(|(key, file)| (join("identity.files", key), file));
    let federated = files
        .federated
        .iter()
        .map(|(domain, file)| (join("identity.files.federated", &quote(domain.as_str())), file));
    own.chain(federated).map(|(key, file)| (key, file.as_path()))
}

/// Looks for what `config` takes its identity from. A socket comes with its server, which the agent
/// waits for, so that it is named is enough; files nobody waits for.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let Some(files) = &config.identity.files else {
        return config.workload_socket().map(drop);
    };
    let unreadable = named(files).filter_map(|(key, file)| {
        let why = regular_file::open(file).err()?;
        let message = format!("`{key}` is {}: {}", file.display(), system_error(&why));
        let mut problem = Problem::of_key(&key, message, None);
        (problem.line, problem.column) = config.files_at.get(&key).copied().unwrap_or_default();
        Some(problem)
    });
    let problems: Vec<_> = unreadable.collect();
    match problems.is_empty() {
        true => Ok(()),
        false => Err(ConfigError::new(&config.file.display().to_string(), problems)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    fn check(identity: &str, expected: &[&str]) {
        let text = format!("identity:\n  spiffe_id: spiffe://a.b/c\n{identity}data_dir: /d\n");
        let config = Config::parse_in(&text, "w.yaml", &Environment::default()).unwrap();
        let found = config.check_identity().err().map(|error| error.to_string());
        let found = found.unwrap_or_default();
        assert_eq!(found.lines().count(), expected.len(), "{found}");
        for (line, expected) in found.lines().zip(expected) {
            assert!(line.starts_with(expected), "{line}");
        }
    }

    #[test]
    fn a_socket_has_to_be_named_and_may_come_later() {
        check("  spire_socket: /nowhere/at/all.sock\n", &[]);
        check(
            "",
            &["w.yaml: `identity.spire_socket` is missing, and so is SPIFFE_ENDPOINT_SOCKET"],
        );
    }

    #[test]
    fn files_have_to_be_there_and_each_that_is_not_is_named_with_its_line() {
        let directory = tempfile::tempdir().unwrap();
        let good = directory.path().join("good.pem");
        std::fs::write(&good, "").unwrap();
        let (good, directory) = (good.display(), directory.path().display());
        let files = |key: &str, bundle: &str, partner: &str| {
            format!(
                "  provider: files\n  files:\n    certificate: {good}\n    private_key: {key}\n    \
                 bundle: {bundle}\n    federated:\n      partner.example: {partner}\n"
            )
        };
        let here = good.to_string();
        check(&files(&here, &here, &here), &[]);
        check(
            &files(&format!("{directory}/no.key"), &directory.to_string(), "/no/such.pem"),
            &[
                &format!(
                    "w.yaml:6:18: `identity.files.private_key` is {directory}/no.key: there is no"
                ),
                &format!("w.yaml:7:13: `identity.files.bundle` is {directory}: it is a directory"),
                "w.yaml:9:24: `identity.files.federated.partner.example` is /no/such.pem: there",
            ],
        );
    }
}
