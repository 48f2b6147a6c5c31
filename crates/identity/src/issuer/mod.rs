//! The embedded issuer: a small certificate authority that answers the SPIFFE Workload API.
//!
//! Workloads are told apart by what the kernel says of the other end of a unix socket. Registration
//! entries say which of them get which identities. Until there has been one, processes of the
//! issuer's own user may enrol themselves under any ID of the trust domain, which they could
//! anyway, because they can read the authority's keys: the user is the boundary. An enrolment
//! belongs to the process that asked for it, so each receives just its own SVIDs.

mod admin;
mod admin_client;
mod api;
mod attestation;
mod authority;
mod data_dir;
mod enrolments;
mod entries;
mod error;
mod federated;
mod generation;
mod hardening;
mod messages;
mod repair;
mod selector;
mod socket;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use convoke_model::{SpiffeId, TrustDomain};
use tokio::net::UnixStream;
use tokio::net::unix::UCred;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::enrolment::admin_socket;
use crate::process::own_uid;
use attestation::Workload;
use authority::Authority;
use data_dir::DataDir;
use enrolments::Enrolments;
use entries::{Entries, TtlLimits};
use federated::Federation;
use socket::{Gate, Socket};

pub use admin_client::{AdminClient, AdminError, Refusal};
pub use entries::{Added, Entry, Registration};
pub use error::IssuerError;
pub use hardening::harden_process;
#[doc(hidden)]
pub use repair::fuzz_repair;
pub use selector::{Selector, SelectorError};

/// How long an SVID is valid unless it is configured. Source: SPIRE's default.
pub const SVID_TTL_DEFAULT: Duration = Duration::from_secs(3600);

/// How long a JWT-SVID is valid unless it is configured. Source: SPIRE's default.
pub const JWT_SVID_TTL_DEFAULT: Duration = Duration::from_secs(300);

/// Shortest life of a JWT-SVID; its instants are whole seconds.
pub const JWT_SVID_TTL_MIN: Duration = Duration::from_secs(1);

/// Longest life of a JWT-SVID. Nobody can take a token back, so it has to end soon.
pub const JWT_SVID_TTL_MAX: Duration = Duration::from_secs(3600);

/// How long a certificate of the authority is valid unless it is configured: a year of 365 days. It
/// is followed by one of a new key long before its end.
pub const CA_TTL_DEFAULT: Duration = Duration::from_secs(365 * 24 * 3600);

/// Shortest life of an SVID. X.509 counts whole seconds, and a rotation needs time before it.
pub const SVID_TTL_MIN: Duration = Duration::from_secs(2);

/// Shortest age at which an SVID is replaced: sooner, an issuer would do little else.
pub const SVID_RENEW_AFTER_MIN: Duration = Duration::from_secs(1);

/// Longest life of the authority's certificate: a hundred years, so that its end stays a date that
/// every reader of certificates knows.
pub const CA_TTL_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Most time between two looks at whether the authority has to be renewed. What is due, is due by
/// the calendar, and a machine may have been suspended meanwhile.
const TENDING_INTERVAL_MAX: Duration = Duration::from_secs(60);

/// Most connections of one user at a time. A watching workload needs one.
const CONNECTIONS_PER_USER_MAX: usize = 256;

/// Most watching calls of one user at a time, over all its connections.
const WATCHES_PER_USER_MAX: usize = 1024;

/// Most identities of one process.
const IDENTITIES_MAX: usize = 64;

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
    /// How long an SVID is valid.
    pub svid_ttl: Duration,
    /// At which age an SVID is replaced, if that is sooner than half of its life, at which it is
    /// in any case.
    pub svid_renew_after: Option<Duration>,
    /// How long a certificate of the authority is valid; at least four times as long as an SVID.
    pub ca_ttl: Duration,
    /// How long a JWT-SVID is valid.
    pub jwt_svid_ttl: Duration,
    /// Other trust domains whose peers the workloads shall be able to verify, with the file of each
    /// one's bundle: certificates in PEM, or a SPIFFE bundle document. Read again when they change.
    pub federate: Vec<(TrustDomain, PathBuf)>,
}

impl IssuerConfig {
    /// An issuer with the default lives of certificates.
    #[must_use]
    pub fn new(trust_domain: TrustDomain, data_dir: PathBuf, socket: PathBuf) -> Self {
        Self {
            trust_domain,
            data_dir,
            socket,
            svid_ttl: SVID_TTL_DEFAULT,
            svid_renew_after: None,
            ca_ttl: CA_TTL_DEFAULT,
            jwt_svid_ttl: JWT_SVID_TTL_DEFAULT,
            federate: Vec::new(),
        }
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
    entries: Entries,
    federated: Arc<Federation>,
    /// Counts the watching calls of each user.
    watches: Arc<Gate>,
    /// Counts everything that can change what a workload receives.
    changes: watch::Sender<u64>,
    /// The user that the issuer runs as.
    own_uid: u32,
}

/// One identity of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    spiffe_id: SpiffeId,
    ttl: Duration,
}

impl Shared {
    fn tell_change(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Everything that a workload gets: from the entries if there has ever been one, and what it
    /// enrolled itself under otherwise. What means it twice gives the shorter life.
    fn identities(&self, workload: &Workload) -> Vec<Identity> {
        if !workload.is_same() {
            return Vec::new();
        }
        let given = if self.entries.never_any() {
            let own = self.enrolments.of(&workload.process);
            own.into_iter().map(|spiffe_id| (spiffe_id, None)).collect()
        } else {
            self.entries.of(workload)
        };
        let mut identities: Vec<Identity> = Vec::with_capacity(given.len());
        for (spiffe_id, ttl) in given {
            // An entry of former times may say more than the authority's life now leaves.
            let ttl = ttl.unwrap_or_else(|| self.authority.svid_ttl());
            let ttl = ttl.min(self.authority.svid_ttl_max());
            let known = identities.iter().position(|identity| identity.spiffe_id == spiffe_id);
            if let Some(identity) = known.and_then(|at| identities.get_mut(at)) {
                identity.ttl = identity.ttl.min(ttl);
            } else if identities.len() < IDENTITIES_MAX {
                identities.push(Identity { spiffe_id, ttl });
            } else {
                let (pid, uid) = (workload.process.pid(), workload.process.uid);
                tracing::warn!(%spiffe_id, pid, uid, "process has too many identities; left out one");
            }
        }
        identities
    }

    fn ttl_limits(&self) -> TtlLimits {
        TtlLimits { min: SVID_TTL_MIN, max: self.authority.svid_ttl_max() }
    }
}

impl Issuer {
    /// Reads the authority's keys and certificates and the registration entries from the data
    /// directory, and makes an authority if there is none. Must be called within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`IssuerError`] when the lives of certificates contradict each other, when the directory
    /// belongs to another user, another trust domain or another running issuer, or can be read by
    /// others, and when what is in it cannot be read.
    pub fn open(config: IssuerConfig) -> Result<Self, IssuerError> {
        let own_uid = own_uid().map_err(|source| IssuerError::OwnUser { source })?;
        authority::check_lives(&config)?;
        let federated = Federation::open(config.federate.clone(), &config.trust_domain)?;
        let dir = Arc::new(DataDir::open(config.data_dir.clone(), own_uid)?);
        let authority = Authority::open(&config, Arc::clone(&dir), SystemTime::now())?;
        let shared = Shared {
            authority,
            enrolments: Enrolments::default(),
            entries: Entries::open(dir, config.trust_domain)?,
            federated: Arc::new(federated),
            watches: Gate::new(WATCHES_PER_USER_MAX),
            changes: watch::Sender::new(0),
            own_uid,
        };
        Ok(Self { socket: config.socket, shared: Arc::new(shared) })
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
        let Shared { own_uid, entries, authority, .. } = &*self.shared;
        if entries.never_any() {
            format!(
                "every process of uid {own_uid} may enrol itself under any id of {}; the uid is \
                 the isolation boundary, and this ends with the first registration entry",
                authority.trust_domain().uri(),
            )
        } else {
            format!(
                "registration entries say which process gets which identity ({} of them); no \
                 process may enrol itself",
                entries.all().len()
            )
        }
    }

    /// Answers until `shutdown`, then removes the sockets and ends the connections; those that
    /// do not end are cut after a moment.
    pub async fn serve(self, shutdown: CancellationToken) {
        let connections = TaskTracker::new();
        // Counted apart, so that workloads that watch do not keep others from enrolling.
        let gate = || Gate::new(CONNECTIONS_PER_USER_MAX);
        let (api_gate, admin_gate) = (gate(), gate());
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
            () = tend(&self.shared) => {}
            () = federated::watch(&self.shared.federated, || self.shared.tell_change()) => {}
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

/// Takes the authority from generation to generation, for as long as it is polled.
async fn tend(shared: &Shared) {
    loop {
        tokio::time::sleep(shared.authority.tending_interval().min(TENDING_INTERVAL_MAX)).await;
        match shared.authority.tend(SystemTime::now()) {
            Ok(true) => {
                tracing::info!("the authority's bundle has changed");
                shared.tell_change();
            }
            Ok(false) => {}
            Err(error) => {
                tracing::error!(error = %error::chain(&error), "authority not renewed");
            }
        }
    }
}

#[cfg(test)]
mod tests;
