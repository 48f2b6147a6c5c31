//! An issuer that serves for the length of a test.

use std::path::{Path, PathBuf};

use convoke_identity::issuer::{
    AdminClient, Entry, Issuer, IssuerConfig, Registration, SVID_TTL_MIN, Selector,
};
use convoke_identity::{IdentityError, IdentitySource, WorkloadApiConfig};
use convoke_model::{SpiffeId, TrustDomain};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const WORKER: &str = "spiffe://example.org/worker";
pub(crate) const CALLER: &str = "spiffe://example.org/caller";

pub(crate) struct World {
    pub(crate) dir: TempDir,
    config: IssuerConfig,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// With SVIDs that are replaced each second.
    pub(crate) async fn short_lived() -> Self {
        Self::with(|config| config.svid_ttl = SVID_TTL_MIN).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut IssuerConfig)) -> Self {
        let dir = TempDir::new().unwrap();
        let path = |name: &str| dir.path().join(name);
        let domain = TrustDomain::parse("example.org").unwrap();
        let mut config = IssuerConfig::new(domain, path("data"), path("api.sock"));
        change(&mut config);
        let (shutdown, serving) = serve(&config).await;
        Self { dir, config, shutdown, serving }
    }

    /// Ends the issuer, and starts one on what it left.
    pub(crate) async fn restart(mut self) -> Self {
        self.shutdown.cancel();
        self.serving.await.unwrap();
        (self.shutdown, self.serving) = serve(&self.config).await;
        self
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.serving.await.unwrap();
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.config.socket
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    pub(crate) async fn client(&self) -> spiffe::WorkloadApiClient {
        spiffe::WorkloadApiClient::connect_to(self.endpoint()).await.unwrap()
    }

    pub(crate) fn admin(&self) -> AdminClient {
        AdminClient::new(self.socket(), None)
    }

    /// Gives an identity to whoever selectors hold for.
    pub(crate) async fn entry(&self, id: &str, selectors: &[Selector]) -> Entry {
        let registration =
            Registration { spiffe_id: self::id(id), selectors: selectors.to_vec(), ttl: None };
        self.admin().add(&registration).await.unwrap().entry
    }

    pub(crate) async fn source(&self, id: &str) -> Result<IdentitySource, IdentityError> {
        let config = WorkloadApiConfig::new(self.socket().to_owned(), self::id(id));
        IdentitySource::connect(config).await
    }
}

async fn serve(config: &IssuerConfig) -> (CancellationToken, JoinHandle<()>) {
    let bound = Issuer::open(config.clone()).unwrap().bind().await.unwrap();
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(bound.serve(shutdown.clone()));
    (shutdown, serving)
}

pub(crate) fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

/// The selector of the user that the tests run as.
pub(crate) fn our_uid() -> Selector {
    use std::os::unix::fs::MetadataExt;

    Selector::Uid(std::fs::metadata("/proc/self").unwrap().uid())
}

/// The selector of this test program.
pub(crate) fn our_program() -> Selector {
    Selector::Path(std::env::current_exe().unwrap().canonicalize().unwrap())
}

/// A selector that does not hold for this test program.
pub(crate) fn other_program() -> Selector {
    Selector::Path(PathBuf::from("/proc/none"))
}
