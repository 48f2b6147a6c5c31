//! Why an issuer cannot be.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub(super) use crate::source::chain;

/// Why an issuer cannot be.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// The lives of certificates contradict each other.
    #[error(
        "svid_ttl {svid:?} and ca_ttl {ca:?} do not fit: an SVID lives at least {svid_min:?}, the \
         authority at least twice as long as an SVID and at most {ca_max:?}"
    )]
    Ttl {
        /// The configured life of SVIDs.
        svid: Duration,
        /// The configured life of the authority's certificate.
        ca: Duration,
        /// The shortest life of an SVID.
        svid_min: Duration,
        /// The longest life of the authority's certificate.
        ca_max: Duration,
    },
    /// The user of this process could not be found out.
    #[error("cannot find out which user this process runs as")]
    OwnUser {
        /// What the system said.
        source: io::Error,
    },
    /// A file or directory could not be used.
    #[error("cannot {action} `{path}`")]
    File {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A secret file or directory belongs to another user.
    #[error("`{path}` belongs to uid {found}, not to uid {own}; use a directory of your own")]
    ForeignOwner {
        /// Which file or directory.
        path: PathBuf,
        /// Whose it is.
        found: u32,
        /// Who we are.
        own: u32,
    },
    /// A secret file or directory is open to others.
    #[error("`{path}` has mode {found:04o}, open to others; run `chmod {wanted:o} {path}`")]
    WideMode {
        /// Which file or directory.
        path: PathBuf,
        /// The mode that it has.
        found: u32,
        /// The mode that it should have.
        wanted: u32,
    },
    /// Something is not of the kind that it should be.
    #[error("`{path}` is not a {wanted}; move it away")]
    WrongKind {
        /// Which path.
        path: PathBuf,
        /// What it should be.
        wanted: &'static str,
    },
    /// Another issuer runs on the data directory.
    #[error("another issuer uses the data directory `{path}`")]
    DataDirInUse {
        /// Which directory.
        path: PathBuf,
    },
    /// The stored authority cannot be read.
    #[error("`{path}` does not hold an authority's key and certificate: {reason}")]
    Authority {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The stored authority is another domain's.
    #[error("`{path}` is the authority of `{found}`, not of `{expected}`; use another directory")]
    OtherTrustDomain {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate")]
    Certificate {
        /// What the library said.
        #[from]
        source: rcgen::Error,
    },
    /// The path does not fit a socket address.
    #[error("socket path `{path}` is longer than {max} bytes; choose a shorter one")]
    SocketPathTooLong {
        /// Which path.
        path: PathBuf,
        /// The limit, in bytes.
        max: usize,
    },
    /// Somebody answers at the socket.
    #[error("something already answers at `{path}`; stop it or choose another socket")]
    SocketInUse {
        /// Which socket.
        path: PathBuf,
    },
}
