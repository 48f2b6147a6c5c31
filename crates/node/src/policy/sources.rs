//! The files that a policy is made of, from disk to a policy.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use convoke_identity::regular_file;
use convoke_policy::{
    DATA_BYTES_MAX, Fixed, Language, LoadError, Policy, PolicyData, PolicyOptions, PolicySource,
};

use super::remote::PolicyServer;
use crate::config::{self, AuthorizationConfig, Config, DefaultPolicy, RegoVersion};
use crate::digest::sha256_hex;
use crate::path_metrics::PathMetrics;
use crate::start_error::StartError;

/// The texts of a policy and of its data.
pub(super) struct Sources {
    policy: Option<PolicySource>,
    data: Vec<PolicyData>,
    places: Places,
}

/// Where the files of a policy were found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Places {
    /// `None` where the configuration names no policy.
    policy: Option<PathBuf>,
    data: Vec<PathBuf>,
}

impl Places {
    /// What the files look like from outside now, the policy's first.
    pub(super) fn stamps(&self) -> Vec<Option<Stamp>> {
        self.policy.iter().chain(&self.data).map(|path| Stamp::of(path)).collect()
    }

    /// The policy's file, for messages.
    pub(super) fn policy(&self) -> &Path {
        self.policy.as_deref().unwrap_or(Path::new(""))
    }
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
    /// Reads the files that `config` names, wherever they are found.
    ///
    /// # Errors
    ///
    /// As [`load_policy`], if one cannot be read.
    pub(super) fn read(config: &Config) -> Result<Self, StartError> {
        let authorization = &config.authorization;
        let Some(found) = config.policy()? else {
            return Ok(Self { policy: None, data: Vec::new(), places: Places::default() });
        };
        let directory = directory_of(authorization, config.file.parent(), &found.path);
        let data = authorization.data_files.iter().map(|file| directory.join(file)).collect();
        Self::read_with(found, data)
    }

    /// Reads the files again that were found at `places` before. Others of the same names, which
    /// [`Sources::read`] would take in their stead once they are gone, are not looked for.
    ///
    /// # Errors
    ///
    /// As [`Sources::read`].
    pub(super) fn read_again(config: &Config, places: &Places) -> Result<Self, StartError> {
        let Some(policy) = &places.policy else {
            return Ok(Self { policy: None, data: Vec::new(), places: Places::default() });
        };
        Self::read_with(config.policy_again(policy)?, places.data.clone())
    }

    fn read_with(found: config::PolicySource, places: Vec<PathBuf>) -> Result<Self, StartError> {
        let mut data = Vec::with_capacity(places.len());
        for path in &places {
            let text = regular_file::read_text(path, DATA_BYTES_MAX)
                .map_err(|source| StartError::PolicyData { path: path.clone(), source })?;
            data.push(PolicyData { name: path.display().to_string(), text });
        }
        let policy = PolicySource { name: found.path.display().to_string(), text: found.text };
        let places = Places { policy: Some(found.path), data: places };
        Ok(Self { policy: Some(policy), data, places })
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

    /// Where the files were found.
    pub(super) fn places(&self) -> &Places {
        &self.places
    }
}

impl Stamp {
    /// The state of the file at `path`; `None` while there is none that can be looked at.
    fn of(path: &Path) -> Option<Self> {
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
