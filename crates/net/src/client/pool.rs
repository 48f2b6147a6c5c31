//! Connections kept for reuse, and requests sent over them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use convoke_model::limits;
use http::{HeaderValue, Request, Uri, header};
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::{Address, Dialer, Provenance, SendError};
use crate::body::{CollectError, collect};

/// How long a connection that has just given its response may take to be ready again. It is a
/// matter of one turn of its task; what takes longer is not worth waiting for.
const READY_WAIT: Duration = Duration::from_millis(100);

/// Idle connections are looked through no more often than this, however short their time is.
const SWEEP_INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Most that a connection buffers in each direction, in bytes.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Keeps HTTP/1.1 connections and sends requests over them. Cloning is cheap and shares them.
///
/// A connection is reused only for the same scheme, host, port, expected identity, TLS
/// configuration and trust revision: what was proved for one of these says nothing about another.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

/// Where a request goes, and as whom and to whom.
#[derive(Debug, Clone)]
pub struct Route {
    /// The agent's address.
    pub address: Address,
    /// How to prove who we are and to check who answers; exactly for `https`. Connections are
    /// shared only between routes with the same value, so it has to be kept, not made anew for
    /// each call.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Who is expected to answer: a SPIFFE ID, or empty where nobody proves anything.
    pub identity: Arc<str>,
    /// Grows whenever our certificate or the trusted roots change. Connections of an earlier
    /// revision finish what they carry and are not used again.
    pub revision: u64,
}

/// A whole response: status, headers and body.
pub type Response = http::Response<Bytes>;

/// Bounds of a [`Pool`].
#[derive(Debug, Clone)]
pub struct PoolLimits {
    /// Most requests to one destination at a time, which is also the most connections to it. More
    /// requests wait, until their deadline.
    pub per_destination_max: usize,
    /// Most idle connections over all destinations.
    pub idle_max: usize,
    /// How long a connection is kept idle; less than servers keep it, so that they seldom close
    /// one under our hands.
    pub idle_timeout: Duration,
    /// The age above which a connection is not reused; less than servers allow, for the same
    /// reason.
    pub age_max: Duration,
    /// Largest response body, in bytes.
    pub response_bytes_max: usize,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            per_destination_max: 256,
            idle_max: 1024,
            idle_timeout: limits::IDLE_TIMEOUT * 4 / 5,
            age_max: limits::CONNECTION_AGE_MAX * 4 / 5,
            response_bytes_max: limits::RESPONSE_BYTES_MAX,
        }
    }
}

/// How much longer a connection may live by the certificates that the callee presented on it.
type Lifetime = dyn Fn(&[CertificateDer<'_>]) -> Duration + Send + Sync;

struct Inner {
    dialer: Dialer,
    limits: PoolLimits,
    lifetime: Option<Box<Lifetime>>,
    destinations: Mutex<HashMap<Key, Arc<Destination>>>,
    idle: AtomicUsize,
    open: Arc<AtomicUsize>,
    sweeping: AtomicBool,
}

/// Counts an open connection until it is dropped.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn count(all: &Arc<AtomicUsize>) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(all))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    https: bool,
    /// Host and port.
    host: HeaderValue,
    identity: Arc<str>,
    /// Where the TLS configuration lies. The destination keeps it alive, so no other can come to
    /// lie there.
    tls_at: usize,
}

struct Destination {
    permits: Semaphore,
    parked: Mutex<Parked>,
    _tls: Option<Arc<rustls::ClientConfig>>,
}

#[derive(Default)]
struct Parked {
    revision: u64,
    /// The most recently used last; it is the one most likely to be alive.
    idle: Vec<Connection>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// The task that drives it; gives the error that ended the connection, if one did.
    driver: JoinHandle<Option<hyper::Error>>,
    revision: u64,
    /// From when on it is not reused.
    retires_at: Instant,
    used_at: Instant,
    /// Nothing has come from the peer on it yet.
    fresh: bool,
    _open: Open,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(dialer: Dialer, limits: PoolLimits) -> Self {
        Self::build(dialer, limits, None)
    }

    /// As [`Self::new`], with connections that also retire by their certificates: `lifetime` is
    /// asked once for each TLS connection, right after its handshake, how long both ends'
    /// certificates are still good, and the connection is not reused after four fifths of that.
    pub fn with_lifetime(
        dialer: Dialer,
        limits: PoolLimits,
        lifetime: impl Fn(&[CertificateDer<'_>]) -> Duration + Send + Sync + 'static,
    ) -> Self {
        Self::build(dialer, limits, Some(Box::new(lifetime)))
    }

    fn build(dialer: Dialer, limits: PoolLimits, lifetime: Option<Box<Lifetime>>) -> Self {
        Self(Arc::new(Inner {
            dialer,
            limits,
            lifetime,
            destinations: Mutex::default(),
            idle: AtomicUsize::new(0),
            open: Arc::default(),
            sweeping: AtomicBool::new(false),
        }))
    }

    /// How many connections are kept or in use.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }

    /// Sends `request` to `route` and reads the whole response, all of it before `deadline`.
    ///
    /// The request's path is sent as it is, its host is the route's. A request that provably never
    /// left on a connection that had gone stale is sent once more on a fresh one; nothing else is
    /// ever sent twice.
    ///
    /// # Errors
    ///
    /// [`SendError`], which knows whether the request may have arrived.
    pub async fn send(
        &self,
        route: &Route,
        mut request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<Response, SendError> {
        let address = &route.address;
        // Asked here too, because an idle connection is reused without dialling.
        if address.provenance() == Provenance::Peer {
            return Err(SendError::AddressRefused { address: address.clone() });
        }
        if address.is_https() != route.tls.is_some() {
            return Err(SendError::SchemeMismatch { address: address.clone() });
        }
        let late = || SendError::TimedOut { address: address.clone(), sent: false };
        if deadline <= Instant::now() {
            return Err(late());
        }
        address_request(&mut request, address);

        let destination = self.0.destination(route);
        let Ok(permit) = timeout_at(deadline, destination.permits.acquire()).await else {
            return Err(late());
        };
        let mut reused = self.0.reuse(&destination, route.revision, deadline).await;
        loop {
            let was_reused = reused.is_some();
            let mut connection = match reused.take() {
                Some(connection) => connection,
                // On the heap, because it is large and seldom needed.
                None => Box::pin(self.0.connect(route, deadline)).await?,
            };
            match self.0.exchange(&mut connection, address, request, deadline).await {
                Ok(response) => {
                    self.0.park(&destination, connection);
                    drop(permit);
                    return Ok(response);
                }
                Err(Failed { unsent: Some(unsent), .. }) if was_reused => {
                    debug!(%address, "a kept connection had ended, opening another");
                    request = *unsent;
                }
                Err(failed) => return Err(failed.error),
            }
        }
    }
}

/// A request that got no response.
struct Failed {
    error: SendError,
    /// The request, if no byte of it left.
    unsent: Option<Box<Request<Full<Bytes>>>>,
}

impl From<SendError> for Failed {
    fn from(error: SendError) -> Self {
        Self { error, unsent: None }
    }
}

impl Inner {
    fn destinations(&self) -> MutexGuard<'_, HashMap<Key, Arc<Destination>>> {
        self.destinations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn destination(&self, route: &Route) -> Arc<Destination> {
        let key = Key {
            https: route.address.is_https(),
            host: route.address.host_header().clone(),
            identity: Arc::clone(&route.identity),
            tls_at: route.tls.as_ref().map_or(0, |tls| Arc::as_ptr(tls).addr()),
        };
        let mut destinations = self.destinations();
        let destination = destinations.entry(key).or_insert_with(|| {
            Arc::new(Destination {
                permits: Semaphore::new(
                    self.limits.per_destination_max.min(Semaphore::MAX_PERMITS),
                ),
                parked: Mutex::default(),
                _tls: route.tls.clone(),
            })
        });
        Arc::clone(destination)
    }

    /// The most recently used connection that is alive and of this revision.
    async fn reuse(
        &self,
        destination: &Destination,
        revision: u64,
        deadline: Instant,
    ) -> Option<Connection> {
        loop {
            let mut connection = self.unpark(destination, revision)?;
            let wait_until = deadline.min(Instant::now() + READY_WAIT);
            if let Ok(Ok(())) = timeout_at(wait_until, connection.sender.ready()).await {
                return Some(connection);
            }
        }
    }

    fn unpark(&self, destination: &Destination, revision: u64) -> Option<Connection> {
        let now = Instant::now();
        let mut parked = destination.parked();
        if parked.revision < revision {
            parked.revision = revision;
            self.idle.fetch_sub(parked.idle.len(), Ordering::Relaxed);
            parked.idle.clear();
        }
        if parked.revision != revision {
            return None;
        }
        while let Some(connection) = parked.idle.pop() {
            self.idle.fetch_sub(1, Ordering::Relaxed);
            if self.is_usable(&connection, now) {
                return Some(connection);
            }
        }
        None
    }

    fn is_usable(&self, connection: &Connection, now: Instant) -> bool {
        !connection.sender.is_closed()
            && now.saturating_duration_since(connection.used_at) < self.limits.idle_timeout
            && now < connection.retires_at
    }

    /// Keeps a connection for the next request, unless there is a reason not to.
    fn park(&self, destination: &Destination, connection: Connection) {
        let mut parked = destination.parked();
        if connection.revision != parked.revision || connection.sender.is_closed() {
            return;
        }
        // Counted before it is compared: many may park at once.
        if self.idle.fetch_add(1, Ordering::Relaxed) < self.limits.idle_max {
            parked.idle.push(connection);
        } else {
            self.idle.fetch_sub(1, Ordering::Relaxed);
        }
    }

    async fn connect(
        self: &Arc<Self>,
        route: &Route,
        deadline: Instant,
    ) -> Result<Connection, SendError> {
        let address = &route.address;
        let mut life = self.limits.age_max;
        let (sender, driver) = match &route.tls {
            None => start(address, self.dialer.dial(address, deadline).await?).await?,
            Some(tls) => {
                let dialled = self.dialer.dial_tls(address, Arc::clone(tls), deadline).await?;
                if let Some(lifetime) = &self.lifetime {
                    let certificates = dialled.get_ref().1.peer_certificates().unwrap_or_default();
                    life = life.min(lifetime(certificates) * 4 / 5);
                }
                start(address, dialled).await?
            }
        };
        if !self.sweeping.swap(true, Ordering::Relaxed) {
            let every = (self.limits.idle_timeout / 4).max(SWEEP_INTERVAL_MIN);
            tokio::spawn(sweep(Arc::downgrade(self), every));
        }
        let now = Instant::now();
        let revision = route.revision;
        let retires_at = now + life;
        let _open = Open::count(&self.open);
        Ok(Connection { sender, driver, revision, retires_at, used_at: now, fresh: true, _open })
    }

    async fn exchange(
        &self,
        connection: &mut Connection,
        address: &Address,
        request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<Response, Failed> {
        // From here on the request is hyper's, so a deadline cannot prove that it was not sent.
        let late = || SendError::TimedOut { address: address.clone(), sent: true };
        let response = match timeout_at(deadline, connection.sender.try_send_request(request)).await
        {
            Err(_elapsed) => return Err(late().into()),
            Ok(Ok(response)) => response,
            Ok(Err(mut error)) => {
                // The request comes back exactly when none of it was written.
                let unsent = error.take_message().map(Box::new);
                let (fresh, sent) = (connection.fresh, unsent.is_none());
                // A peer that refuses us at once ends the connection before the request is taken,
                // and then only the connection itself knows why.
                let why = connection.why_it_ended().await.unwrap_or_else(|| error.into_error());
                return Err(Failed {
                    error: SendError::of_http(address, why, fresh, sent),
                    unsent,
                });
            }
        };
        let (parts, mut body) = response.into_parts();
        let max = self.limits.response_bytes_max;
        let body = collect(&mut body, max, |_| deadline).await.map_err(|error| match error {
            CollectError::TooLarge => SendError::ResponseTooLarge { address: address.clone(), max },
            CollectError::TimedOut => late(),
            CollectError::Broken(error) => SendError::of_http(address, error, false, true),
        })?;
        connection.fresh = false;
        connection.used_at = Instant::now();
        Ok(http::Response::from_parts(parts, body))
    }

    /// Drops what has been idle for too long, and forgets destinations that nobody uses.
    fn sweep(&self) {
        let now = Instant::now();
        self.destinations().retain(|_, destination| {
            let mut parked = destination.parked();
            let before = parked.idle.len();
            parked.idle.retain(|connection| self.is_usable(connection, now));
            self.idle.fetch_sub(before - parked.idle.len(), Ordering::Relaxed);
            !parked.idle.is_empty() || Arc::strong_count(destination) > 1
        });
    }
}

impl Connection {
    /// The error that ended the connection, if it has ended by one. A connection whose sender has
    /// failed is at its end, so there is next to nothing to wait for.
    async fn why_it_ended(&mut self) -> Option<hyper::Error> {
        if self.driver.is_finished() || self.sender.is_closed() {
            timeout_at(Instant::now() + READY_WAIT, &mut self.driver).await.ok()?.ok()?
        } else {
            None
        }
    }
}

impl Destination {
    fn parked(&self) -> MutexGuard<'_, Parked> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sweeps until the pool is gone.
async fn sweep(pool: Weak<Inner>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        match pool.upgrade() {
            Some(pool) => pool.sweep(),
            None => return,
        }
    }
}

/// Starts HTTP/1.1 on a stream, in a task of its own that ends with the connection.
pub(super) async fn start<S>(
    address: &Address,
    stream: S,
) -> Result<(SendRequest<Full<Bytes>>, JoinHandle<Option<hyper::Error>>), SendError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_header_size(limits::HEADER_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|source| SendError::Http { address: address.clone(), sent: false, source })?;
    let address = address.clone();
    let driver = tokio::spawn(async move {
        let error = connection.await.err()?;
        debug!(%address, %error, "connection ended");
        Some(error)
    });
    Ok((sender, driver))
}

/// Gives a request the form that HTTP/1.1 wants: a path alone, and the host in a header.
pub(super) fn address_request(request: &mut Request<Full<Bytes>>, address: &Address) {
    let uri = request.uri_mut();
    if uri.authority().is_some() || uri.path_and_query().is_none() {
        let path = uri.path_and_query().unwrap_or(address.request_path()).clone();
        *uri = Uri::from(path);
    }
    request.headers_mut().insert(header::HOST, address.host_header().clone());
}

#[cfg(test)]
impl Pool {
    /// Connections that are kept now.
    pub(super) fn idle(&self) -> usize {
        self.0.idle.load(Ordering::Relaxed)
    }
}
