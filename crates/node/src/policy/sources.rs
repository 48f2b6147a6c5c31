//! The files that a policy is made of, from disk to a policy.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use convoke_policy::{
    DATA_BYTES_MAX, Fixed, Language, LoadError, Policy, PolicyData, PolicyOptions, PolicySource,
};

use super::remote::PolicyServer;
use crate::config::{AuthorizationConfig, Config, DefaultPolicy, RegoVersion};
use crate::digest::sha256_hex;
use crate::node::StartError;
use crate::path_metrics::PathMetrics;

/// The texts of a policy and of its data.
pub(super) struct Sources {
    policy: Option<PolicySource>,
    data: Vec<PolicyData>,
    paths: Vec<PathBuf>,
}

/// What tells two states of a file apart without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    /// Changes with every write, also with one that sets the time of modification back.
    changed: (i64, i64),
}

/// Loads the policy that `config` names, or the fixed one where it names none.
///
/// Where a policy server decides, its settings are checked, the server is not asked, and the policy
/// is the one that refuses everything: what is given here never decides in its place.
///
/// # Errors
///
/// [`StartError::Config`] if the file is not there, [`StartError::Policy`] if it is no policy,
/// [`StartError::PolicyData`] if its data cannot be read, [`StartError::PolicyServer`] if the server
/// cannot be asked as it is configured.
pub fn load_policy(config: &Config) -> Result<Policy, StartError> {
    if let Some(opa) = &config.authorization.opa {
        PolicyServer::new(opa, &Arc::default(), &PathMetrics::default())?;
        return Ok(Policy::fixed(Fixed::DenyAll));
    }
    Ok(Sources::read(config)?.load(&config.authorization)?)
}

impl Sources {
    /// Reads the files that `config` names.
    ///
    /// # Errors
    ///
    /// As [`load_policy`], if one cannot be read.
    pub(super) fn read(config: &Config) -> Result<Self, StartError> {
        let authorization = &config.authorization;
        let Some(found) = config.policy()? else {
            return Ok(Self { policy: None, data: Vec::new(), paths: Vec::new() });
        };
        let directory = directory_of(authorization, config.file.parent(), &found.path);
        let mut paths = vec![found.path.clone()];
        let mut data = Vec::with_capacity(authorization.data_files.len());
        for file in &authorization.data_files {
            let path = directory.join(file);
            let text = read_bounded(&path)
                .map_err(|source| StartError::PolicyData { path: path.clone(), source })?;
            data.push(PolicyData { name: path.display().to_string(), text });
            paths.push(path);
        }
        let policy = PolicySource { name: found.path.display().to_string(), text: found.text };
        Ok(Self { policy: Some(policy), data, paths })
    }

    /// Makes the policy of these texts.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if they are none.
    pub(super) fn load(&self, authorization: &AuthorizationConfig) -> Result<Policy, LoadError> {
        let Some(policy) = &self.policy else {
            return Ok(Policy::fixed(match authorization.default_policy {
                DefaultPolicy::DenyAll => Fixed::DenyAll,
                DefaultPolicy::AllowAll => Fixed::AllowAll,
            }));
        };
        let options = PolicyOptions {
            package: authorization.package.clone(),
            language: authorization.rego_version.map(|version| match version {
                RegoVersion::V0 => Language::V0,
                RegoVersion::V1 => Language::V1,
            }),
            data: self.data.clone(),
            ..PolicyOptions::default()
        };
        Policy::load(policy, &options)
    }

    /// Equal texts have equal digests.
    pub(super) fn digest(&self) -> String {
        let texts = self.policy.iter().map(|policy| &policy.text);
        let texts = texts.chain(self.data.iter().map(|data| &data.text));
        let digests: String = texts.map(|text| sha256_hex(text)).collect();
        sha256_hex(&digests)
    }

    /// The files, the policy's first; empty where the configuration names no policy.
    pub(super) fn paths(&self) -> &[PathBuf] {
        &self.paths
    }
}

impl Stamp {
    /// The state of the file at `path`; `None` while there is none that can be looked at.
    pub(super) fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|metadata| Self::new(&metadata))
    }

    fn new(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The `policy_path` that the policy was found below: as it is, or below the directory of the
/// configuration.
fn directory_of(
    authorization: &AuthorizationConfig,
    beside: Option<&Path>,
    policy: &Path,
) -> PathBuf {
    let plain = authorization.policy_path.clone();
    let file = authorization.policy_file.as_deref().unwrap_or(Path::new(""));
    match beside {
        Some(beside) if plain.join(file) != policy => beside.join(plain),
        _ => plain,
    }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let limit = u64::try_from(DATA_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(limit).read_to_string(&mut text)?;
    if text.len() > DATA_BYTES_MAX {
        let why = format!("it has more than {DATA_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_servers_settings_are_checked_and_nothing_here_decides_for_it() {
        let check = |url: &str, expected: Result<&str, &str>| {
            let yaml = serde_json::json!({
                "identity": {"spiffe_id": "spiffe://example.org/worker"},
                "data_dir": "/d",
                "authorization": {"opa": {"enabled": true, "url": "http://localhost:8181"}},
            });
            let mut config = Config::parse(&yaml.to_string(), "test.yaml").unwrap();
            config.authorization.opa.as_mut().unwrap().url = url.to_owned();
            let loaded = load_policy(&config);
            let loaded = loaded.as_ref().map(|policy| &*policy.revision().0);
            match (loaded, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().contains(expected), "{error}");
                }
                (found, _) => panic!("{found:?}"),
            }
        };
        check("http://localhost:8181", Ok("deny_all"));
        check("http://opa.example:8181", Err("plain http"));
    }
}
