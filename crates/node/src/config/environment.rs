//! The environment variables that configuration may fall back to, as a value.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use convoke_model::SpiffeId;

/// What configuration takes from the environment. The default has nothing set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// `SPIFFE_ENDPOINT_SOCKET`, by the SPIFFE Workload Endpoint specification §4.
    pub spiffe_endpoint_socket: Option<String>,
    /// `CONVOKE_DATA_DIR`: the parent of all data directories.
    pub convoke_data_dir: Option<PathBuf>,
    /// `XDG_STATE_HOME`, by the XDG Base Directory specification.
    pub xdg_state_home: Option<PathBuf>,
    /// `HOME`.
    pub home: Option<PathBuf>,
}

impl Environment {
    /// What this process's environment says; an empty variable counts as unset.
    #[must_use]
    pub fn of_process() -> Self {
        let get = |name: &str| std::env::var_os(name).filter(|value: &OsString| !value.is_empty());
        Self {
            spiffe_endpoint_socket: get("SPIFFE_ENDPOINT_SOCKET")
                .map(|value| value.to_string_lossy().into_owned()),
            convoke_data_dir: get("CONVOKE_DATA_DIR").map(PathBuf::from),
            xdg_state_home: get("XDG_STATE_HOME").map(PathBuf::from),
            home: get("HOME").map(PathBuf::from),
        }
    }

    /// The directory in which everything of Convoke lives unless a file says otherwise:
    /// `$CONVOKE_DATA_DIR`, else `$XDG_STATE_HOME/convoke`, else `~/.local/state/convoke`.
    ///
    /// The XDG specification has relative paths ignored; `CONVOKE_DATA_DIR` may be relative.
    #[must_use]
    pub fn data_root(&self) -> Option<PathBuf> {
        let absolute = |path: &&PathBuf| path.is_absolute();
        self.convoke_data_dir
            .clone()
            .or_else(|| Some(self.xdg_state_home.as_ref().filter(absolute)?.join("convoke")))
            .or_else(|| Some(self.home.as_ref().filter(absolute)?.join(".local/state/convoke")))
    }

    /// The data directory of agent `id`: one per identity, by trust domain and path.
    ///
    /// The grammar of SPIFFE IDs has no `..` and no empty segment, so this stays below the root.
    pub(super) fn data_dir(&self, id: &SpiffeId) -> Option<PathBuf> {
        let path = Path::new(id.path().trim_start_matches('/'));
        Some(self.data_root()?.join(id.trust_domain_str()).join(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_three_names_the_data_directory() {
        let id = SpiffeId::parse("spiffe://example.org/team/worker").unwrap();
        let mut env = Environment::default();
        assert_eq!(env.data_dir(&id), None);
        env.home = Some("/home/ann".into());
        let expected = "/home/ann/.local/state/convoke/example.org/team/worker";
        assert_eq!(env.data_dir(&id), Some(expected.into()));
        env.xdg_state_home = Some("relative".into());
        assert_eq!(env.data_dir(&id), Some(expected.into()));
        env.xdg_state_home = Some("/state".into());
        assert_eq!(env.data_dir(&id), Some("/state/convoke/example.org/team/worker".into()));
        env.convoke_data_dir = Some("/data".into());
        assert_eq!(env.data_dir(&id), Some("/data/example.org/team/worker".into()));
    }
}
