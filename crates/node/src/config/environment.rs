//! The environment variables that configuration may fall back to, as a value.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
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
    /// All variables, for overrides of keys (`CONVOKE_SERVER__PORT`, and the seed's
    /// `AGENTWEAVE_…`) and for secrets that the file names.
    pub variables: Variables,
}

/// Environment variables. `Debug` shows their names alone, since some hold secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Variables(BTreeMap<String, OsString>);

impl Variables {
    /// The value of `name`; an empty variable counts as unset.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(name).map(OsString::as_os_str)
    }

    /// Those whose names begin with `prefix`, in the order of their names.
    pub(super) fn with_prefix<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a OsStr)> {
        let from =
            self.0.range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
        from.take_while(move |(name, _)| name.starts_with(prefix))
            .map(|(name, value)| (name.as_str(), value.as_os_str()))
    }
}

impl<N: Into<String>, V: Into<OsString>> FromIterator<(N, V)> for Variables {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let pairs = pairs.into_iter().map(|(name, value)| (name.into(), value.into()));
        Self(pairs.filter(|(_, value): &(String, OsString)| !value.is_empty()).collect())
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Environment {
    /// What this process's environment says; an empty variable counts as unset.
    #[must_use]
    pub fn of_process() -> Self {
        // A name that is not UTF-8 is none of those that anything here asks for.
        let all =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        Self::of(all.collect())
    }

    /// The environment that has these variables.
    #[must_use]
    pub fn of(variables: Variables) -> Self {
        let path = |name: &str| variables.get(name).map(PathBuf::from);
        Self {
            spiffe_endpoint_socket: variables
                .get("SPIFFE_ENDPOINT_SOCKET")
                .map(|value| value.to_string_lossy().into_owned()),
            convoke_data_dir: path("CONVOKE_DATA_DIR"),
            xdg_state_home: path("XDG_STATE_HOME"),
            home: path("HOME"),
            variables,
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

    #[test]
    fn variables_are_found_by_prefix_and_not_shown() {
        let all = [("CONVOKE_A", "1"), ("CONVOKE_B", ""), ("CONVOKE_C", "s3cret"), ("CONVOL", "x")];
        let env = Environment::of(all.into_iter().collect());
        let found: Vec<_> = env.variables.with_prefix("CONVOKE_").map(|(name, _)| name).collect();
        assert_eq!(found, ["CONVOKE_A", "CONVOKE_C"]);
        assert!(!format!("{env:?}").contains("s3cret"));
    }
}
