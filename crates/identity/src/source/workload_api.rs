//! The client of the Workload API: the first SVID, and the watch for its successors.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use convoke_model::{SpiffeId, TrustDomain};
use futures_util::{Stream, StreamExt};
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use spiffe::{WorkloadApiClient, WorkloadApiError, X509Context};
use tokio::net::UnixStream;

use super::enrol::{self, Enrolling};
use super::{Current, IdentityError, WorkloadApiConfig};
use crate::material::{Bundle, Material, MaterialError};
use crate::process::own_uid;

/// The first wait before the Workload API is looked for again. The waits double.
const RECONNECT_AFTER_MIN: Duration = Duration::from_millis(250);

/// The longest wait before the Workload API is looked for again. While the held SVID is good, no wait
/// is longer than a quarter of the time that it has left.
const RECONNECT_AFTER_MAX: Duration = Duration::from_secs(30);

/// What the Workload API pushes.
pub(super) type Feed =
    Pin<Box<dyn Stream<Item = Result<X509Context, WorkloadApiError>> + Send + 'static>>;

/// Connects, enrols if that is wanted and possible, and takes the first SVID.
pub(super) async fn open(config: &WorkloadApiConfig) -> Result<(Material, Feed), IdentityError> {
    let waited = config.connect_timeout;
    tokio::time::timeout(waited, open_unbounded(config))
        .await
        .map_err(|_| IdentityError::Timeout { socket: config.socket.clone(), waited })?
}

async fn open_unbounded(config: &WorkloadApiConfig) -> Result<(Material, Feed), IdentityError> {
    let own = own_uid().map_err(|source| socket_error(&config.socket, source))?;
    let stream = dial(config, own).await?;
    let enrolling = match config.enrol {
        true => enrol::enrol(config, own).await?,
        false => Enrolling::Open,
    };
    let client = client_over(&config.socket, stream).await?;
    let refused = |error: WorkloadApiError| match (refusal(config, own, error), enrolling) {
        (IdentityError::NothingIssued { socket, wanted, own }, Enrolling::Ended) => {
            let program = std::env::current_exe().ok();
            IdentityError::EnrollingEnded { socket, wanted, own, program }
        }
        (error, _) => error,
    };
    let mut feed: Feed = Box::pin(client.stream_x509_contexts().await.map_err(refused)?);
    let first = match feed.next().await {
        Some(first) => first.map_err(refused)?,
        None => return Err(refused(WorkloadApiError::EmptyResponse)),
    };
    Ok((select(config, &first)?, feed))
}

/// What the Workload API says instead of an update.
fn refusal(config: &WorkloadApiConfig, own: u32, error: WorkloadApiError) -> IdentityError {
    let socket = config.socket.clone();
    match error {
        WorkloadApiError::NoIdentityIssued | WorkloadApiError::PermissionDenied(_) => {
            IdentityError::NothingIssued { socket, wanted: config.spiffe_id.clone(), own }
        }
        error => IdentityError::Protocol { socket, source: Box::new(error) },
    }
}

/// Connects to the socket and looks at who serves it. The socket may lie in a directory in which
/// anybody can make one, so what it says counts for nothing before its server is known.
async fn dial(config: &WorkloadApiConfig, own: u32) -> Result<UnixStream, IdentityError> {
    let socket = &config.socket;
    let stream = UnixStream::connect(socket).await.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            let trust_domain = config.spiffe_id.trust_domain();
            IdentityError::SocketMissing { socket: socket.clone(), trust_domain, source }
        }
        _ => socket_error(socket, source),
    })?;
    let found = stream.peer_cred().map_err(|source| socket_error(socket, source))?.uid();
    if !may_serve(found, own, config.issuer_uid) {
        return Err(IdentityError::WrongOwner { socket: socket.clone(), found, own });
    }
    Ok(stream)
}

/// Whether a server that runs as `found` may tell us who we are.
pub(crate) fn may_serve(found: u32, own: u32, issuer_uid: Option<u32>) -> bool {
    found == 0 || found == own || Some(found) == issuer_uid
}

fn socket_error(socket: &Path, source: io::Error) -> IdentityError {
    IdentityError::Socket { socket: socket.to_owned(), source }
}

/// A client over the very connection whose server was looked at. When that connection ends, so
/// does the client: another connection would have to be looked at again.
async fn client_over(
    socket: &Path,
    stream: UnixStream,
) -> Result<WorkloadApiClient, IdentityError> {
    // The authority is not looked at on a unix socket; gRPC needs one that is valid.
    let channel = tonic::transport::Endpoint::from_static("http://localhost")
        .connect_with_connector(OneConnection(Arc::new(Mutex::new(Some(stream)))))
        .await
        .map_err(|source| IdentityError::Transport { socket: socket.to_owned(), source })?;
    let endpoint = spiffe::transport::Endpoint::Unix(socket.to_owned());
    Ok(WorkloadApiClient::new_with_channel(endpoint, channel))
}

/// Gives its connection to the first who asks.
struct OneConnection(Arc<Mutex<Option<UnixStream>>>);

impl tower_service::Service<http::Uri> for OneConnection {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        std::future::ready(
            stream.map(TokioIo::new).ok_or_else(|| io::ErrorKind::ConnectionAborted.into()),
        )
    }
}

/// The SVID of the configured ID, never simply the first one, with the roots beside it.
fn select(config: &WorkloadApiConfig, context: &X509Context) -> Result<Material, IdentityError> {
    let (socket, wanted) = (&config.socket, &config.spiffe_id);
    let svid = context.svids().iter().find(|svid| {
        let offered = svid.spiffe_id();
        offered.trust_domain_name() == wanted.trust_domain_str() && offered.path() == wanted.path()
    });
    let Some(svid) = svid else {
        return Err(not_offered(socket, wanted, context));
    };
    let chain = svid.cert_chain().iter().map(|cert| CertificateDer::from(cert.as_bytes().to_vec()));
    let key = PrivatePkcs8KeyDer::from(svid.private_key().as_bytes().to_vec());
    let bundles = context.bundle_set().iter().filter_map(|(domain, bundle)| {
        // A domain that is no domain by our rules can name no peer either.
        let trust_domain = TrustDomain::parse(domain.as_str()).ok()?;
        let authorities = bundle.authorities().iter();
        let authorities = authorities.map(|root| root.as_bytes().to_vec().into()).collect();
        Some(Bundle { trust_domain, authorities })
    });
    Material::from_der(wanted.clone(), chain.collect(), PrivateKeyDer::Pkcs8(key), bundles)
        .map_err(|source: MaterialError| IdentityError::Material { socket: socket.clone(), source })
}

fn not_offered(socket: &Path, wanted: &SpiffeId, context: &X509Context) -> IdentityError {
    let (socket, wanted) = (socket.to_owned(), wanted.clone());
    let svids = context.svids();
    let domain = |svid: &&Arc<spiffe::X509Svid>| {
        svid.spiffe_id().trust_domain_name() == wanted.trust_domain_str()
    };
    match svids.first() {
        None => IdentityError::NotAmongIssued { socket, wanted, offered: Vec::new() },
        Some(first) if !svids.iter().any(|svid| domain(&svid)) => {
            let detail = format!("it issues `{}`", first.spiffe_id());
            IdentityError::TrustDomainMismatch { socket, wanted, detail }
        }
        Some(_) => {
            let offered = svids.iter().map(|svid| svid.spiffe_id().to_string()).collect();
            IdentityError::NotAmongIssued { socket, wanted, offered }
        }
    }
}

/// Publishes whatever the Workload API pushes, and looks for it again when it goes away. Ends only
/// with the task it runs on.
pub(super) async fn watch(config: WorkloadApiConfig, feed: Feed, current: Current) {
    watch_through(&config, feed, &current, || open(&config)).await;
}

/// As [`watch`], with `open` as the way to find the Workload API again.
async fn watch_through<F>(
    config: &WorkloadApiConfig,
    mut feed: Feed,
    current: &Current,
    open: impl Fn() -> F,
) where
    F: Future<Output = Result<(Material, Feed), IdentityError>>,
{
    loop {
        let end = follow(config, &mut feed, current).await;
        current.failed();
        let state = Trouble::of(&end);
        state.say(config, current, &end);
        feed = reconnect(config, current, state, &open).await;
    }
}

/// Publishes pushes until there are no more, and says why.
async fn follow(config: &WorkloadApiConfig, feed: &mut Feed, current: &Current) -> IdentityError {
    loop {
        let protocol = |error: WorkloadApiError| match own_uid() {
            Ok(own) => refusal(config, own, error),
            Err(source) => socket_error(&config.socket, source),
        };
        // An API that has let the SVID expire without a word is not there, whatever its socket says.
        let silence = current.left().max(RECONNECT_AFTER_MAX);
        let context = match tokio::time::timeout(silence, feed.next()).await {
            Ok(Some(Ok(context))) => context,
            Ok(Some(Err(error))) => return protocol(error),
            Ok(None) => return protocol(WorkloadApiError::EmptyResponse),
            Err(_) => {
                return IdentityError::Timeout { socket: config.socket.clone(), waited: silence };
            }
        };
        match select(config, &context) {
            Ok(material) => publish(config, current, material),
            Err(error) => {
                current.failed();
                tracing::warn!(
                    spiffe_id = %config.spiffe_id, error = %chain(&error),
                    "workload API pushed an update without a usable identity; the held one stays"
                );
            }
        }
    }
}

/// What is wrong with a Workload API that has not answered with the identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Nobody answers, or not as a Workload API does.
    Away,
    /// It is there and gives this process nothing, or not the wanted identity.
    Refuses,
}

impl Trouble {
    fn of(error: &IdentityError) -> Self {
        match error {
            IdentityError::NothingIssued { .. }
            | IdentityError::EnrollingEnded { .. }
            | IdentityError::NotAmongIssued { .. }
            | IdentityError::TrustDomainMismatch { .. }
            | IdentityError::EnrolmentRefused { .. } => Self::Refuses,
            _ => Self::Away,
        }
    }

    fn say(self, config: &WorkloadApiConfig, current: &Current, error: &IdentityError) {
        let (socket, spiffe_id) = (config.socket.display(), &config.spiffe_id);
        let (valid_until, error) = (current.load().not_after(), chain(error));
        match self {
            Self::Away => tracing::warn!(
                %socket, %spiffe_id, %valid_until, error,
                "workload API went away; the identity that is held stays in use until it expires"
            ),
            Self::Refuses => tracing::warn!(
                %socket, %spiffe_id, %valid_until, error,
                "workload API refuses to renew the identity; what is held stays in use until it \
                 expires"
            ),
        }
    }
}

/// Looks for the Workload API until it answers with the identity. `trouble` has been said.
async fn reconnect<F>(
    config: &WorkloadApiConfig,
    current: &Current,
    mut trouble: Trouble,
    open: impl Fn() -> F,
) -> Feed
where
    F: Future<Output = Result<(Material, Feed), IdentityError>>,
{
    let mut wait = RECONNECT_AFTER_MIN;
    loop {
        tokio::time::sleep(jittered(wait.min(longest_wait(current.left())))).await;
        match open().await {
            Ok((material, feed)) => {
                publish(config, current, material);
                tracing::info!(
                    socket = %config.socket.display(), spiffe_id = %config.spiffe_id,
                    valid_until = %current.load().not_after(),
                    "workload API is back and has renewed the identity"
                );
                return feed;
            }
            Err(error) => {
                tracing::debug!(error = %chain(&error), "workload API is still away");
                // From away to refusing is news. The way back is not: it may only be restarting.
                if trouble == Trouble::Away && Trouble::of(&error) == Trouble::Refuses {
                    trouble = Trouble::Refuses;
                    trouble.say(config, current, &error);
                }
                wait = (wait * 2).min(RECONNECT_AFTER_MAX);
            }
        }
    }
}

fn publish(config: &WorkloadApiConfig, current: &Current, material: Material) {
    let not_after = material.not_after();
    match current.0.publish(material) {
        Ok(revision) => tracing::debug!(
            spiffe_id = %config.spiffe_id, revision, %not_after, "identity rotated"
        ),
        Err(error) => {
            current.failed();
            tracing::error!(%error, "identity was not rotated");
        }
    }
}

/// The longest wait while the held SVID is good for `left`.
fn longest_wait(left: Duration) -> Duration {
    if left.is_zero() {
        return RECONNECT_AFTER_MAX;
    }
    (left / 4).clamp(RECONNECT_AFTER_MIN, RECONNECT_AFTER_MAX)
}

/// Between three quarters of `wait` and all of it, so that the agents of a machine do not come back
/// in step. The clock's nanoseconds are random enough for that.
fn jittered(wait: Duration) -> Duration {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    wait * 3 / 4 + wait / 4 * (nanos.subsec_nanos() % 1024) / 1024
}

/// An error and its sources in one line, for a log.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
