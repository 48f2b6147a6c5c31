//! Why an issuer cannot be.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub(super) use crate::source::chain;

/// Why an issuer cannot be.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// SVIDs would be replaced all the time.
    #[error(
        "a certificate replaced after {} is replaced too often; make it {} or more",
        human(.found), human(.min)
    )]
    SvidRenewal {
        /// The configured age.
        found: Duration,
        /// The least one.
        min: Duration,
    },
    /// An SVID would end before it can be replaced.
    #[error("a certificate good for {} is too short; make it {} or more", human(.found), human(.min))]
    SvidTtl {
        /// The configured life of SVIDs.
        found: Duration,
        /// The shortest life of an SVID.
        min: Duration,
    },
    /// The authority would end too early for what it signs, or later than certificates can say.
    #[error(
        "an authority good for {} does not fit certificates good for {}: it has to be good for \
         four times as long or more, and for {} at most",
        human(.found), human(.svid), human(.max)
    )]
    CaTtl {
        /// The configured life of the authority's certificate.
        found: Duration,
        /// The configured life of SVIDs.
        svid: Duration,
        /// The longest life of the authority's certificate.
        max: Duration,
    },
    /// A token would live too short or too long.
    #[error("a token good for {} is not made; make it {} to {}", human(.found), human(.min), human(.max))]
    JwtSvidTtl {
        /// The configured life of tokens.
        found: Duration,
        /// The shortest one.
        min: Duration,
        /// The longest one.
        max: Duration,
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
    /// The stored entries cannot be read.
    #[error(
        "`{path}` does not hold this issuer's registration entries: {reason}; put a copy back, or \
         move it away to begin without entries: processes still may not enrol themselves, and get \
         no identity before there is an entry for them"
    )]
    Entries {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of ours is larger than it can have become.
    #[error("`{path}` has more than {max} bytes, so it is not this issuer's")]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// The limit that was passed, in bytes.
        max: usize,
    },
    /// A bundle of another trust domain cannot be used.
    #[error("`{path}` does not hold the bundle of `{trust_domain}`: {reason}")]
    Federated {
        /// Which file.
        path: PathBuf,
        /// Whose bundle it should be.
        trust_domain: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Every generation of the authority has ended, and no new one could be made.
    #[error("the authority has ended and could not be renewed; the log says why")]
    Ended,
    /// A key for tokens is not of the kind that signs them.
    #[error("cannot make a key for tokens")]
    JwtKey,
    /// The keys for tokens do not make a key set.
    #[error("the keys for tokens cannot be published: {reason}")]
    JwtKeys {
        /// What is wrong with them.
        reason: String,
    },
    /// A token could not be made.
    #[error("cannot make a token")]
    Jwt {
        /// What the library said.
        source: jsonwebtoken::errors::Error,
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

/// A duration as it is written on a command line, such as `90s` or `8760h`.
fn human(duration: &Duration) -> String {
    let seconds = duration.as_secs();
    match (duration.subsec_millis(), seconds) {
        (0, _) if seconds > 0 && seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        (0, _) if seconds > 0 && seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        (0, _) => format!("{seconds}s"),
        _ => format!("{}ms", duration.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_they_are_read() {
        for (millis, expected) in [
            (0, "0s"),
            (1, "1ms"),
            (1000, "1s"),
            (1500, "1500ms"),
            (90_000, "90s"),
            (120_000, "2m"),
            (86_400_000, "24h"),
        ] {
            assert_eq!(human(&Duration::from_millis(millis)), expected);
        }
        let (found, min) = (Duration::from_secs(1), Duration::from_secs(2));
        let error = IssuerError::SvidTtl { found, min };
        assert_eq!(error.to_string(), "a certificate good for 1s is too short; make it 2s or more");
    }
}
