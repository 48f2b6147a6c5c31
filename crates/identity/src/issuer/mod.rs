//! The embedded issuer: a small certificate authority that answers the SPIFFE Workload API.
//!
//! Workloads are told apart by what the kernel says of the other end of a unix socket. The user is
//! the boundary: processes of the issuer's own user may enrol themselves under any ID of the trust
//! domain, which they could anyway, because they can read the authority's key. An enrolment belongs
//! to the process that asked for it, so each receives just its own SVIDs.

mod admin;
mod api;
mod authority;
mod enrolments;
mod error;
mod socket;
mod workload;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use convoke_model::TrustDomain;
use tokio::net::UnixStream;
use tokio::net::unix::UCred;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::enrolment::admin_socket;
use crate::process::own_uid;
use authority::Authority;
use enrolments::Enrolments;
use socket::{Gate, Socket};

pub use error::IssuerError;

/// How long an SVID is valid unless it is configured. Source: SPIRE's default.
pub const SVID_TTL_DEFAULT: Duration = Duration::from_secs(3600);

/// How long the authority's certificate is valid unless it is configured: a year of 365 days. It is
/// renewed under the same key when half of it has passed.
pub const CA_TTL_DEFAULT: Duration = Duration::from_secs(365 * 24 * 3600);

/// Shortest life of an SVID. X.509 counts whole seconds, and a rotation needs time before it.
pub const SVID_TTL_MIN: Duration = Duration::from_secs(2);

/// Longest life of the authority's certificate: a hundred years, so that its end stays a date that
/// every reader of certificates knows.
pub const CA_TTL_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Most time between two looks at whether the authority's certificate is due for renewal.
const RENEWAL_CHECK_MAX: Duration = Duration::from_secs(3600);

/// How long connections may take to end after a shutdown before they are cut.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// Mode of the API socket: every user may ask, and the answer depends on who asks. SPIRE's is
/// the same.
const API_MODE: u32 = 0o777;

/// Mode of the admin socket: the issuer's own user alone.
const ADMIN_MODE: u32 = 0o600;

/// What an issuer needs to know.
#[derive(Debug, Clone)]
pub struct IssuerConfig {
    /// The domain whose IDs it issues.
    pub trust_domain: TrustDomain,
    /// Where the authority's key is kept; made if it is missing, with mode 0700.
    pub data_dir: PathBuf,
    /// Where the Workload API is served; the admin socket is beside it.
    pub socket: PathBuf,
    /// How long an SVID is valid; it is replaced at half of it.
    pub svid_ttl: Duration,
    /// How long the authority's certificate is valid; at least twice as long as an SVID.
    pub ca_ttl: Duration,
}

impl IssuerConfig {
    /// An issuer with the default lives of certificates.
    #[must_use]
    pub fn new(trust_domain: TrustDomain, data_dir: PathBuf, socket: PathBuf) -> Self {
        let (svid_ttl, ca_ttl) = (SVID_TTL_DEFAULT, CA_TTL_DEFAULT);
        Self { trust_domain, data_dir, socket, svid_ttl, ca_ttl }
    }
}

/// An issuer that has its key and is not serving yet.
#[derive(Debug)]
pub struct Issuer {
    socket: PathBuf,
    shared: Arc<Shared>,
}

/// An issuer whose sockets are there: workloads that connect now will be answered.
#[derive(Debug)]
pub struct BoundIssuer {
    api: Socket,
    admin: Socket,
    shared: Arc<Shared>,
}

/// What the connections of an issuer share.
#[derive(Debug)]
struct Shared {
    authority: Authority,
    enrolments: Enrolments,
    /// Counts everything that can change what a workload receives.
    changes: watch::Sender<u64>,
    /// The user that the issuer runs as.
    own_uid: u32,
}

impl Shared {
    fn tell_change(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

impl Issuer {
    /// Reads the authority's key and certificate from the data directory, and makes them if there
    /// are none. Must be called within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`IssuerError`] when the lives of certificates contradict each other, when the directory
    /// belongs to another user, another trust domain or another running issuer, or can be read by
    /// others, and when what is in it cannot be read.
    pub fn open(config: IssuerConfig) -> Result<Self, IssuerError> {
        let own_uid = own_uid().map_err(|source| IssuerError::OwnUser { source })?;
        let socket = config.socket.clone();
        let authority = Authority::open(config, own_uid)?;
        let (enrolments, changes) = (Enrolments::default(), watch::Sender::new(0));
        let shared = Arc::new(Shared { authority, enrolments, changes, own_uid });
        Ok(Self { socket, shared })
    }

    /// Makes the two sockets. A file that an issuer of ours left behind is replaced.
    ///
    /// # Errors
    ///
    /// [`IssuerError`] when somebody answers at a socket, when something else is in its place, and
    /// when the system refuses.
    pub async fn bind(self) -> Result<BoundIssuer, IssuerError> {
        let own_uid = self.shared.own_uid;
        socket::check_length(&admin_socket(&self.socket))?;
        // The admin socket comes first: whoever finds the API can then enrol.
        let admin = Socket::bind(admin_socket(&self.socket), ADMIN_MODE, own_uid).await?;
        let api = Socket::bind(self.socket, API_MODE, own_uid).await?;
        Ok(BoundIssuer { api, admin, shared: self.shared })
    }

    /// [`Issuer::bind`] and [`BoundIssuer::serve`] in one.
    ///
    /// # Errors
    ///
    /// As [`Issuer::bind`].
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), IssuerError> {
        self.bind().await?.serve(shutdown).await;
        Ok(())
    }
}

impl BoundIssuer {
    /// Where the Workload API is.
    #[must_use]
    pub fn socket(&self) -> &Path {
        self.api.path()
    }

    /// Where workloads enrol.
    #[must_use]
    pub fn admin_socket(&self) -> &Path {
        self.admin.path()
    }

    /// Who may get which identity, in a sentence for the operator.
    #[must_use]
    pub fn rule(&self) -> String {
        format!(
            "every process of uid {} may enrol itself under any id of {}; the uid is the isolation \
             boundary, and this ends with the first registration entry",
            self.shared.own_uid,
            self.shared.authority.trust_domain().uri(),
        )
    }

    /// Answers until `shutdown`, then removes the sockets and ends the connections; those that
    /// do not end are cut after a moment.
    pub async fn serve(self, shutdown: CancellationToken) {
        let connections = TaskTracker::new();
        // Counted apart, so that workloads that watch do not keep others from enrolling.
        let (api_gate, admin_gate) = (Arc::default(), Arc::default());
        let room = |gate| Room { gate, connections: &connections, shutdown: &shutdown };
        let (api_room, admin_room) = (room(&api_gate), room(&admin_gate));
        let api = api_room.accept(&self.api, |stream, peer| {
            api::serve(stream, peer, Arc::clone(&self.shared), shutdown.clone())
        });
        let admin = admin_room.accept(&self.admin, |stream, peer| {
            admin::serve(stream, peer, Arc::clone(&self.shared))
        });
        tokio::select! {
            () = api => {}
            () = admin => {}
            () = renew(&self.shared) => {}
            () = shutdown.cancelled() => {}
        }
        // First the sockets, so that nobody new comes while the last ones are seen off.
        drop((self.api, self.admin));
        connections.close();
        connections.wait().await;
    }
}

/// Where connections are counted and how they end.
struct Room<'a> {
    gate: &'a Arc<Gate>,
    connections: &'a TaskTracker,
    shutdown: &'a CancellationToken,
}

impl Room<'_> {
    /// Takes connections for as long as it is polled, and gives each to a task of its own.
    async fn accept<F>(&self, socket: &Socket, serve: impl Fn(UnixStream, UCred) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        loop {
            let (stream, peer) = socket.accept().await;
            let Some(pass) = Gate::pass(self.gate, peer.uid()) else {
                tracing::warn!(uid = peer.uid(), "too many connections of one user; refused one");
                continue;
            };
            let (connection, shutdown) = (serve(stream, peer), self.shutdown.clone());
            self.connections.spawn(async move {
                let cut = async {
                    shutdown.cancelled().await;
                    tokio::time::sleep(DRAIN_MAX).await;
                };
                tokio::select! {
                    () = connection => {}
                    () = cut => tracing::debug!("a connection did not end in time"),
                }
                drop(pass);
            });
        }
    }
}

/// Renews the authority's certificate when it is due, for as long as it is polled.
async fn renew(shared: &Shared) {
    loop {
        tokio::time::sleep(shared.authority.renewal_check().min(RENEWAL_CHECK_MAX)).await;
        match shared.authority.renew_if_due(SystemTime::now()) {
            Ok(true) => {
                tracing::info!("authority certificate renewed under the same key");
                shared.tell_change();
            }
            Ok(false) => {}
            Err(error) => {
                tracing::error!(error = %error::chain(&error), "authority certificate not renewed");
            }
        }
    }
}

#[cfg(test)]
mod tests;
