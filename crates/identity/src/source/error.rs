//! Why an agent has no identity, each with its cure.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use convoke_model::{SpiffeId, TrustDomain, UnixMillis};
use spiffe::WorkloadApiError;

use crate::material::MaterialError;

/// Why an agent has no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Nobody answers at the socket.
    #[error(
        "no Workload API answers at `{socket}`; start SPIRE, or `convoke identity serve \
         --trust-domain {trust_domain} --socket {socket}`"
    )]
    SocketMissing {
        /// Where it should be.
        socket: PathBuf,
        /// The trust domain of the identity that was wanted.
        trust_domain: TrustDomain,
        /// What the system said.
        source: io::Error,
    },
    /// The socket is there and cannot be used.
    #[error("the Workload API socket `{socket}` cannot be used")]
    Socket {
        /// Which socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The server of the socket runs as a user whom we have no reason to trust.
    #[error(
        "the Workload API at `{socket}` is served by uid {found}, which is neither root nor uid \
         {own}; if it is meant, set `identity.issuer_uid: {found}`"
    )]
    WrongOwner {
        /// Which socket.
        socket: PathBuf,
        /// Who serves it.
        found: u32,
        /// Who we are.
        own: u32,
    },
    /// The Workload API knows no identity for this process.
    #[error(
        "the Workload API at `{socket}` issues nothing to this process (uid {own}); register \
         `{wanted}` for it or, if the embedded issuer has never had an entry, run it as the \
         issuer's user so that it can enrol itself"
    )]
    NothingIssued {
        /// Which socket.
        socket: PathBuf,
        /// The identity that was wanted.
        wanted: SpiffeId,
        /// Who we are.
        own: u32,
    },
    /// No entry of the embedded issuer means this process, and none may enrol itself any more.
    #[error(
        "the Workload API at `{socket}` issues nothing to this process (uid {own}): processes do \
         not enrol themselves since the issuer's first registration entry; register this one with \
         `{}` or, to let all enrol themselves again, move both `entries.json` and \
         `enrolling-ended` out of the issuer's data directory and restart it",
        entry_add(.socket, .wanted, *.own, .program.as_deref())
    )]
    EnrollingEnded {
        /// Which socket.
        socket: PathBuf,
        /// The identity that was wanted.
        wanted: SpiffeId,
        /// Who we are.
        own: u32,
        /// The executable of this process, if it is known.
        program: Option<PathBuf>,
    },
    /// There are identities for this process, and the wanted one is not among them.
    #[error(
        "`{wanted}` is not among the identities that the Workload API at `{socket}` issues to this \
         process ({}); register it, or correct `identity.spiffe_id`", list(.offered)
    )]
    NotAmongIssued {
        /// Which socket.
        socket: PathBuf,
        /// The identity that was wanted.
        wanted: SpiffeId,
        /// What was offered instead.
        offered: Vec<String>,
    },
    /// The Workload API serves another trust domain.
    #[error(
        "`{wanted}` is not of the trust domain that the Workload API at `{socket}` serves: {detail}"
    )]
    TrustDomainMismatch {
        /// Which socket.
        socket: PathBuf,
        /// The identity that was wanted.
        wanted: SpiffeId,
        /// What it serves.
        detail: String,
    },
    /// The embedded issuer did not enrol this process.
    #[error("the issuer at `{socket}` refused to enrol `{wanted}`: {reason}")]
    EnrolmentRefused {
        /// Which admin socket.
        socket: PathBuf,
        /// The identity that was wanted.
        wanted: SpiffeId,
        /// What the issuer said.
        reason: String,
    },
    /// What came over the admin socket is not what an issuer says.
    #[error("the admin socket `{socket}` does not answer as an issuer does")]
    AdminProtocol {
        /// Which admin socket.
        socket: PathBuf,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The Workload API failed, or what came is not what it should say.
    #[error("the Workload API at `{socket}` does not answer as it should")]
    Protocol {
        /// Which socket.
        socket: PathBuf,
        /// What went wrong.
        source: Box<WorkloadApiError>,
    },
    /// No gRPC connection can be made over the socket.
    #[error("no gRPC connection over `{socket}`")]
    Transport {
        /// Which socket.
        socket: PathBuf,
        /// What went wrong.
        source: tonic::transport::Error,
    },
    /// What was issued cannot be used.
    #[error("what the Workload API at `{socket}` issued cannot be used")]
    Material {
        /// Which socket.
        socket: PathBuf,
        /// What is wrong with it.
        source: MaterialError,
    },
    /// A file of the identity cannot be read.
    #[error("the {what} `{path}` cannot be read")]
    FileUnreadable {
        /// Which of the files.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the identity is longer than is read.
    #[error("the {what} `{path}` is longer than {max} bytes")]
    FileTooLarge {
        /// Which of the files.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// The limit that was passed, in bytes.
        max: u64,
    },
    /// Others than its owner may use the private key.
    #[error(
        "the private key `{path}` has mode {mode:04o}, so others than its owner may use it; run \
         `chmod 600 {path}`"
    )]
    KeyMode {
        /// Where it is.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The private key belongs to a user whom we have no reason to trust.
    #[error(
        "the private key `{path}` belongs to uid {uid}, which is neither root nor uid {own}; run \
         `chown {own} {path}`"
    )]
    KeyOwner {
        /// Where it is.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
        /// Who we are.
        own: u32,
    },
    /// Everybody could change what is trusted.
    #[error("everybody may write the {what} `{path}` (mode {mode:04o}); run `chmod o-w {path}`")]
    WorldWritable {
        /// Which of the files.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The certificate in the file is no longer valid.
    #[error("the certificate `{path}` expired at {not_after}; put a new one and its key there")]
    FileExpired {
        /// Where it is.
        path: PathBuf,
        /// The last instant at which it was valid.
        not_after: UnixMillis,
    },
    /// The files are there and do not make an identity.
    #[error("the files of `{wanted}` do not make an identity")]
    Files {
        /// The identity that was wanted.
        wanted: SpiffeId,
        /// What is wrong with them.
        source: MaterialError,
    },
    /// No answer in time.
    #[error("the Workload API at `{socket}` did not answer within {waited:?}")]
    Timeout {
        /// Which socket.
        socket: PathBuf,
        /// How long we waited.
        waited: Duration,
    },
}

/// The command that registers a process.
fn entry_add(socket: &Path, wanted: &SpiffeId, own: u32, program: Option<&Path>) -> String {
    let (socket, program) = (socket.display(), program.map(Path::display));
    let program = program.map(|path| format!(" --selector unix:path:{path}")).unwrap_or_default();
    format!(
        "convoke identity entry add --socket {socket} --spiffe-id {wanted} --selector \
         unix:uid:{own}{program}"
    )
}

fn list(ids: &[String]) -> String {
    ids.iter().map(|id| format!("`{id}`")).collect::<Vec<_>>().join(", ")
}
