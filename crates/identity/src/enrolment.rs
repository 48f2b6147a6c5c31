//! The words of the admin socket, which the issuer and its workloads share.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where a workload asks for its enrolment.
pub(crate) const ENROL_PATH: &str = "/v1/enrol";

/// Where registration entries are added, listed and, each below it, removed.
pub(crate) const ENTRIES_PATH: &str = "/v1/entries";

/// Largest body of a request or of an answer to an enrolment, in bytes: an entry with a long ID and
/// long paths, and the JSON around it.
pub(crate) const BODY_BYTES_MAX: usize = 16 * 1024;

/// What a workload asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnrolRequest {
    pub(crate) spiffe_id: String,
}

/// Why it was refused.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EnrolRefusal {
    pub(crate) code: RefusalCode,
    pub(crate) message: String,
}

/// The closed list of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RefusalCode {
    /// Not one of the requests that there are.
    BadRequest,
    /// The ID belongs to another trust domain.
    TrustDomain,
    /// The caller runs as another user, or cannot be named.
    NotPermitted,
    /// A table is full.
    Exhausted,
    /// There have been registration entries, so processes do not enrol themselves any more.
    Registered,
    /// An entry says the same already.
    Exists,
    /// There is no such entry.
    NotFound,
    /// The issuer could not do it; its log says why.
    Failed,
}

/// Where the admin socket of the Workload API at `socket` is: beside it, with `.admin` added to
/// its name, so that two issuers can share a directory.
#[must_use]
pub fn admin_socket(socket: &Path) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(".admin");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_socket_is_beside_the_api() {
        assert_eq!(admin_socket(Path::new("/run/a/api.sock")), Path::new("/run/a/api.sock.admin"));
    }
}
