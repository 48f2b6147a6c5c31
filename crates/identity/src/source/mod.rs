//! Where an agent's identity comes from, and how it stays fresh.

mod enrol;
mod error;
mod expiry;
mod files;
mod workload_api;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, Guard};
use convoke_model::SpiffeId;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::material::{Material, MaterialError};

pub use error::IdentityError;
pub use files::FilesConfig;
pub(crate) use workload_api::chain;
pub(crate) use workload_api::may_serve;

/// How an agent gets its identity from a SPIFFE Workload API.
#[derive(Debug, Clone)]
pub struct WorkloadApiConfig {
    /// The socket of the Workload API.
    pub socket: PathBuf,
    /// Who the agent is. It takes this SVID and no other.
    pub spiffe_id: SpiffeId,
    /// A user, beside root and the own one, as which the server of the socket may run.
    pub issuer_uid: Option<u32>,
    /// Whether to ask the embedded issuer, if it is one, for the identity first.
    pub enrol: bool,
    /// How long to wait for the first SVID.
    pub connect_timeout: Duration,
}

impl WorkloadApiConfig {
    /// The usual way: enrol where there is an embedded issuer, and wait 5 s.
    #[must_use]
    pub fn new(socket: PathBuf, spiffe_id: SpiffeId) -> Self {
        let connect_timeout = Duration::from_secs(5);
        Self { socket, spiffe_id, issuer_uid: None, enrol: true, connect_timeout }
    }
}

/// An identity that stays fresh. Clones share it; the last one to go ends the watch.
///
/// Certificate, key and roots are swapped as one, so no handshake sees parts of two rotations.
/// When the Workload API goes away, what is held stays in use until it expires, and the API is
/// looked for all the while; after that, handshakes fail.
#[derive(Debug, Clone)]
pub struct IdentitySource {
    shared: Arc<Shared>,
    /// Only held: its end is the end of the task that watches.
    _watch: Option<Arc<AbortOnDropHandle<()>>>,
}

/// What TLS configurations hold of a source: they follow its swaps without keeping its watch alive.
#[derive(Debug, Clone)]
pub(crate) struct Current(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    spiffe_id: SpiffeId,
    material: ArcSwap<Material>,
    revision: watch::Sender<u64>,
    /// Held over a swap, so that revisions and materials have one order.
    publishing: Mutex<()>,
    /// How often a successor could not be had.
    failures: AtomicU64,
}

impl IdentitySource {
    /// Takes the SVID of `config.spiffe_id` from the Workload API and starts to watch for its
    /// successors.
    ///
    /// # Errors
    ///
    /// An [`IdentityError`] that says what is missing and the cure.
    pub async fn connect(config: WorkloadApiConfig) -> Result<Self, IdentityError> {
        let (material, feed) = workload_api::open(&config).await?;
        let shared = Shared::new(material);
        let current = Current(Arc::clone(&shared));
        let watch = workload_api::watch(config, feed, current.clone());
        let watch = tokio::spawn(async { tokio::join!(watch, expiry::tell(current)).0 });
        Ok(Self { shared, _watch: Some(Arc::new(AbortOnDropHandle::new(watch))) })
    }

    /// Reads the identity from files and starts to watch them: what something else puts there is
    /// in use within about a second. Must be called within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// An [`IdentityError`] that says what is wrong with which file, and the cure.
    pub fn from_files(config: FilesConfig) -> Result<Self, IdentityError> {
        let (material, look) = files::open(&config)?;
        let shared = Shared::new(material);
        let current = Current(Arc::clone(&shared));
        let watch = files::watch(config, look, current.clone());
        let watch = tokio::spawn(async { tokio::join!(watch, expiry::tell(current)).0 });
        Ok(Self { shared, _watch: Some(Arc::new(AbortOnDropHandle::new(watch))) })
    }

    /// An identity that somebody else keeps fresh, through [`IdentitySource::publish`].
    #[must_use]
    pub fn from_material(material: Material) -> Self {
        Self { shared: Shared::new(material), _watch: None }
    }

    /// Replaces what is held, and says under which revision. Handshakes that begin afterwards use
    /// it.
    ///
    /// # Errors
    ///
    /// [`MaterialError::WrongId`] if `material` is somebody else's.
    pub fn publish(&self, material: Material) -> Result<u64, MaterialError> {
        self.shared.publish(material)
    }

    /// What is held now.
    #[must_use]
    pub fn current(&self) -> Arc<Material> {
        self.shared.material.load_full()
    }

    /// Tells of swaps: its value is the revision of what is held.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.revision.subscribe()
    }

    /// How often, since the start, a successor of what is held could not be had: the Workload API went
    /// away or pushed nothing that can be used, or the files hold nothing that can.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.shared.failures.load(Ordering::Relaxed)
    }

    /// Does `work` with `peer` for as long as the trust domain of `peer` is trusted: nothing if it is
    /// not, or no longer before the work is done.
    pub async fn while_trusting<T>(
        &self,
        peer: &SpiffeId,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        // The own domain always is, and most work is within it.
        if peer.trust_domain_str() == self.spiffe_id().trust_domain_str() {
            return Some(work.await);
        }
        let (mut changes, domain) = (self.changes(), peer.trust_domain());
        let withdrawn = async {
            while self.current().trusts(&domain) {
                if changes.changed().await.is_err() {
                    // Nobody can change it any more.
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            // The trust is looked at before the work: on a busy machine, work may be done when it is
            // looked at for the first time.
            biased;
            () = withdrawn => None,
            done = work => Some(done),
        }
    }

    /// Who this is.
    #[must_use]
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.shared.spiffe_id
    }

    pub(crate) fn current_handle(&self) -> Current {
        Current(Arc::clone(&self.shared))
    }
}

impl Current {
    pub(crate) fn load(&self) -> Guard<Arc<Material>> {
        self.0.material.load()
    }

    /// A successor could not be had.
    fn failed(&self) {
        self.0.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// How long the held SVID is still good.
    fn left(&self) -> Duration {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Duration::from_millis(self.load().not_after().0).saturating_sub(now)
    }
}

impl Shared {
    fn new(material: Material) -> Arc<Self> {
        let material = material.first();
        Arc::new(Self {
            spiffe_id: material.spiffe_id().clone(),
            revision: watch::Sender::new(material.revision()),
            material: ArcSwap::from_pointee(material),
            publishing: Mutex::new(()),
            failures: AtomicU64::new(0),
        })
    }

    fn publish(&self, material: Material) -> Result<u64, MaterialError> {
        if *material.spiffe_id() != self.spiffe_id {
            let (expected, found) = (self.spiffe_id.clone(), material.spiffe_id().clone());
            return Err(MaterialError::WrongId { expected, found });
        }
        let _publishing = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let material = material.after(&self.material.load());
        let revision = material.revision();
        self.material.store(Arc::new(material));
        self.revision.send_replace(revision);
        Ok(revision)
    }
}
