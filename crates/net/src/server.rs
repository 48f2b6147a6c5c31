//! The accept loop: connections in, bounded before anything is parsed, each driven by its own task.
//!
//! ```text
//! accept ─ caps ─ TLS handshake ─ protocol ─ Handler::connected ─ requests ─ Handler::call
//! ```

mod admission;
mod connection;
mod limits;
mod pulse;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, warn};

use admission::{Admission, Permit};
use connection::{Ended, Shared};
pub use limits::Limits;
use pulse::Order;
pub(crate) use pulse::Pulse;

use crate::socket::tune;

pub use crate::body::{Body, BodyError, ResponseBody, StreamError, read_body, read_body_at};

/// Connections that the kernel may hold for us; it lowers this to its own bound.
const BACKLOG: u32 = 1024;

/// First and longest pause when accepting fails for want of a resource.
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(5);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Refused connections are reported together, no more often than this.
const REFUSED_REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// What a listener does with connections and requests.
pub trait Handler: Send + Sync + 'static {
    /// What is known about a connection, found once and shared by its requests, such as the
    /// caller's identity.
    type Connection: Send + Sync + 'static;

    /// Looks at a new connection, after its TLS handshake and before its first request.
    ///
    /// # Errors
    ///
    /// [`Refuse`] closes the connection without an answer.
    fn connected(&self, info: &ConnectionInfo) -> Result<Opened<Self::Connection>, Refuse>;

    /// Whether a connection that was let in may go on. Asked of each after [`Reviews::review`], in
    /// the connection's own task; one that may not takes no new requests, and the running ones get
    /// a few seconds.
    fn may_go_on(&self, connection: &Self::Connection) -> bool {
        let _ = connection;
        true
    }

    /// Answers a request that still came on a connection which may not go on; [`Self::call`] does
    /// not see it.
    fn unwelcome(&self, connection: &Self::Connection) -> http::Response<ResponseBody> {
        let _ = connection;
        // RFC 9110 §15.5.20: it may be asked again on another connection.
        let mut response = http::Response::new(ResponseBody::empty());
        *response.status_mut() = http::StatusCode::MISDIRECTED_REQUEST;
        response
    }

    /// Hears of a peer whose TLS handshake failed and who is turned away. `error` has what our
    /// verifier said of its certificate. Peers decide how often this happens, so whatever is done
    /// here has to be cheap and bounded.
    fn turned_away(&self, remote_addr: SocketAddr, error: &io::Error) {
        debug!(%remote_addr, %error, "tls handshake failed");
    }

    /// Answers one request. Its future is dropped when the client goes away or the server stops;
    /// what must go on belongs in a task of its own. A panic here ends an HTTP/1.1 connection, or
    /// one HTTP/2 stream, and nothing else.
    fn call(
        &self,
        connection: &Arc<Self::Connection>,
        request: http::Request<Body>,
    ) -> impl Future<Output = http::Response<ResponseBody>> + Send;
}

/// A new connection as a [`Handler`] sees it.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// The peer's end.
    pub remote_addr: SocketAddr,
    /// The listener's address.
    pub local_addr: SocketAddr,
    /// Which HTTP it speaks.
    pub protocol: Protocol,
    /// What TLS established; nothing on a plaintext listener.
    pub tls: Option<TlsInfo>,
}

/// Which HTTP a connection speaks: by ALPN with TLS, by its first bytes without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1 or 1.0.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What a TLS handshake established.
#[derive(Debug, Clone)]
pub struct TlsInfo {
    /// The client's certificates, leaf first, as the server's verifier accepted them; empty when
    /// it sent none.
    pub peer_certificates: Vec<CertificateDer<'static>>,
}

/// A connection that may go on.
#[derive(Debug)]
pub struct Opened<C> {
    /// Given to every request of the connection.
    pub connection: C,
    /// The longest that the connection may live, for example until a certificate of either side
    /// ends. It takes no new requests during the last part of that time
    /// ([`Limits::close_grace`]), and is cut at its end.
    pub expires_in: Option<Duration>,
}

/// A connection is not wanted; the text says why, for the log alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refuse(pub String);

/// Where the TLS configuration of new connections comes from.
#[derive(Clone)]
pub struct TlsSource(Source);

#[derive(Clone)]
enum Source {
    Plaintext,
    Fixed(Arc<rustls::ServerConfig>),
    PerConnection(Arc<dyn Fn() -> io::Result<Arc<rustls::ServerConfig>> + Send + Sync>),
}

impl TlsSource {
    /// Asks `provider` for each connection, so that a change holds from the next one on. It is
    /// called in the connection's task and should do no more than clone.
    ///
    /// Its error says that this side has no part in TLS to play at the moment. The peer is then told
    /// that the fault is not its own, by the alert `internal_error`, and [`Handler::turned_away`]
    /// hears of the error.
    pub fn per_connection<F>(provider: F) -> Self
    where
        F: Fn() -> io::Result<Arc<rustls::ServerConfig>> + Send + Sync + 'static,
    {
        Self(Source::PerConnection(Arc::new(provider)))
    }

    /// `None` is plaintext.
    fn config(&self) -> io::Result<Option<Arc<rustls::ServerConfig>>> {
        match &self.0 {
            Source::Plaintext => Ok(None),
            Source::Fixed(config) => Ok(Some(Arc::clone(config))),
            Source::PerConnection(provider) => provider().map(Some),
        }
    }
}

/// `None` is plaintext.
impl From<Option<Arc<rustls::ServerConfig>>> for TlsSource {
    fn from(config: Option<Arc<rustls::ServerConfig>>) -> Self {
        Self(config.map_or(Source::Plaintext, Source::Fixed))
    }
}

impl fmt::Debug for TlsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::Plaintext => "TlsSource::Plaintext",
            Source::Fixed(_) => "TlsSource::Fixed",
            Source::PerConnection(_) => "TlsSource::PerConnection",
        })
    }
}

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Something else listens there.
    #[error(
        "port {} on {} is in use; stop the process that holds it or choose another port",
        address.port(), address.ip()
    )]
    InUse {
        /// Where.
        address: SocketAddr,
    },
    /// The operating system does not allow it.
    #[error("no permission to listen on {address}; choose a port of 1024 or above")]
    NoPermission {
        /// Where.
        address: SocketAddr,
    },
    /// This machine does not have the address.
    #[error("this machine has no address {}; listen on one that it has", address.ip())]
    NoSuchAddress {
        /// Where.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {address}")]
    Other {
        /// Where.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
}

/// What became of the requests that ran when a server was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drained {
    /// Requests that were answered after the stop.
    pub finished: u64,
    /// Requests that were still running when the time was over.
    pub cut: u64,
}

/// A listener that is open and does not serve yet.
pub struct Server<H: Handler> {
    listener: TcpListener,
    shared: Arc<Shared<H>>,
    open: Arc<Open>,
}

/// Has the open connections of a server looked at again, for when what they were let in by has
/// changed.
#[derive(Clone)]
pub struct Reviews(Arc<Open>);

impl Reviews {
    /// Has [`Handler::may_go_on`] asked of every connection that was accepted before now. A
    /// connection that is still being set up is asked about as soon as it is.
    pub fn review(&self) {
        for pulse in self.0.by_id().values() {
            pulse.ask_for_review();
        }
    }
}

impl<H: Handler> Server<H> {
    /// Opens a listener on `addr`. Must be called within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`BindError`], which names the address and the cure.
    pub fn bind(
        addr: SocketAddr,
        tls: impl Into<TlsSource>,
        limits: Limits,
        handler: H,
    ) -> Result<Self, BindError> {
        let (listener, local_addr) = listen(addr).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { address: addr },
            io::ErrorKind::PermissionDenied => BindError::NoPermission { address: addr },
            io::ErrorKind::AddrNotAvailable => BindError::NoSuchAddress { address: addr },
            _ => BindError::Other { address: addr, source },
        })?;
        let tasks = TaskTracker::new();
        let shared = Shared { handler, limits, tls: tls.into(), local_addr, tasks };
        Ok(Self { listener, shared: Arc::new(shared), open: Arc::default() })
    }

    /// The way to have this server's connections looked at again.
    #[must_use]
    pub fn reviews(&self) -> Reviews {
        Reviews(Arc::clone(&self.open))
    }

    /// The address that is listened on, with the port that the kernel chose if none was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local_addr
    }

    /// Serves until `shutdown`, then drains: no new connection, idle ones closed after a moment in
    /// which a request that is on its way still arrives ([`Limits::drain_idle`]), running requests
    /// finished within `drain`, and what is left is cut.
    pub async fn serve(self, shutdown: CancellationToken, drain: Duration) -> Drained {
        self.serve_until(shutdown, async move { tokio::time::sleep(drain).await }).await
    }

    /// As [`Self::serve`], with a drain that ends when `enough` does, which is polled from the
    /// beginning of the drain on.
    pub async fn serve_until(
        self,
        shutdown: CancellationToken,
        enough: impl Future<Output = ()> + Send,
    ) -> Drained {
        let Self { listener, shared, open } = self;
        let limits = &shared.limits;
        let mut acceptor = Acceptor {
            admission: Admission::new(limits.connections_max, limits.connections_per_ip_max),
            open,
            next_id: 0,
            refused: 0,
            refused_reported: None,
        };
        let mut pause = ACCEPT_PAUSE_MIN;
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((tcp, remote_addr)) => {
                    pause = ACCEPT_PAUSE_MIN;
                    acceptor.accepted(&shared, tcp, remote_addr);
                }
                Err(error) if is_of_one_connection(&error) => debug!(%error, "accept failed"),
                Err(error) => {
                    // Out of file descriptors or memory: trying again at once would only spin.
                    warn!(%error, pause_ms = pause.as_millis(), "accept failed, pausing");
                    tokio::select! {
                        () = shutdown.cancelled() => break,
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
                }
            }
        }
        acceptor.take_the_rest(&shared, listener);
        acceptor.open.order(Order::Drain);
        shared.tasks.close();
        tokio::select! {
            biased;
            () = shared.tasks.wait() => {}
            () = enough => {
                acceptor.open.order(Order::Cut);
                shared.tasks.wait().await;
            }
        }
        *acceptor.open.drained.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn listen(addr: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Without it a restart would wait for the old connections' TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    let listener = socket.listen(BACKLOG)?;
    let local_addr = listener.local_addr()?;
    Ok((listener, local_addr))
}

/// Whether an error of `accept` is about the connection alone. Linux passes on errors that the new
/// socket already has; `accept(2)` says to treat them as a reason to try again.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(
        error.kind(),
        K::ConnectionAborted
            | K::ConnectionReset
            | K::ConnectionRefused
            | K::Interrupted
            | K::TimedOut
            | K::HostUnreachable
            | K::NetworkUnreachable
            | K::NetworkDown
    )
}

struct Acceptor {
    admission: Arc<Admission>,
    open: Arc<Open>,
    next_id: u64,
    refused: u64,
    refused_reported: Option<Instant>,
}

impl Acceptor {
    fn accepted<H: Handler>(
        &mut self,
        shared: &Arc<Shared<H>>,
        tcp: TcpStream,
        remote_addr: SocketAddr,
    ) {
        let permit = match self.admission.admit(remote_addr.ip()) {
            Ok(permit) => permit,
            Err(full) => return self.refuse(remote_addr, full.as_str()),
        };
        if let Err(error) = tune(&tcp) {
            debug!(%remote_addr, %error, "connection ended before it was served");
            return;
        }
        let pulse = Arc::new(Pulse::new());
        let id = self.next_id;
        self.next_id += 1;
        self.open.by_id().insert(id, Arc::clone(&pulse));
        let seat = Seat { id, open: Arc::clone(&self.open), remote_addr, _permit: permit };
        let serving = connection::serve(Arc::clone(shared), tcp, remote_addr, Arc::clone(&pulse));
        shared.tasks.spawn(async move {
            let seat = seat;
            let ended = serving.await;
            seat.ended(&ended, &pulse);
        });
    }

    /// Takes the connections that the kernel has accepted in our name, and closes the listener. Their
    /// peers see them as open, and closing the listener would reset them.
    fn take_the_rest<H: Handler>(&mut self, shared: &Arc<Shared<H>>, listener: TcpListener) {
        let listener = match listener.into_std() {
            Ok(listener) => listener,
            Err(error) => return debug!(%error, "listener closed"),
        };
        // It does not block, so this ends with what is there.
        loop {
            let accepted = listener.accept().and_then(|(tcp, remote_addr)| {
                tcp.set_nonblocking(true)?;
                Ok((TcpStream::from_std(tcp)?, remote_addr))
            });
            match accepted {
                Ok((tcp, remote_addr)) => self.accepted(shared, tcp, remote_addr),
                Err(error) if is_of_one_connection(&error) => debug!(%error, "accept failed"),
                Err(_none_left) => return,
            }
        }
    }

    /// Drops a connection over a cap. Under attack a line for each would be an attack on the log.
    fn refuse(&mut self, remote_addr: SocketAddr, reason: &'static str) {
        self.refused += 1;
        debug!(%remote_addr, reason, "connection refused");
        let now = Instant::now();
        if self.refused_reported.is_none_or(|last| now - last >= REFUSED_REPORT_INTERVAL) {
            let ip: IpAddr = remote_addr.ip();
            warn!(last_remote_ip = %ip, count = self.refused, reason, "connections refused");
            self.refused = 0;
            self.refused_reported = Some(now);
        }
    }
}

/// The connections that are open now.
#[derive(Default)]
struct Open {
    by_id: Mutex<HashMap<u64, Arc<Pulse>>>,
    drained: Mutex<Drained>,
}

impl Open {
    fn by_id(&self) -> MutexGuard<'_, HashMap<u64, Arc<Pulse>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self, order: Order) {
        for pulse in self.by_id().values() {
            pulse.order(order);
        }
    }
}

/// A connection's place among the open ones, given back on drop, also when its task panics.
struct Seat {
    id: u64,
    open: Arc<Open>,
    remote_addr: SocketAddr,
    _permit: Permit,
}

impl Seat {
    fn ended(&self, ended: &Ended, pulse: &Pulse) {
        let remote_addr = self.remote_addr;
        let cut = match ended {
            Ended::Closed => 0,
            Ended::Broken(error) => {
                debug!(%remote_addr, %error, "connection broke");
                0
            }
            Ended::TooSlow(phase) => {
                debug!(%remote_addr, ?phase, "connection too slow");
                0
            }
            Ended::Cut { running } => {
                if *running > 0 {
                    warn!(%remote_addr, running, "connection cut with requests running");
                }
                u64::from(*running)
            }
        };
        if let Some(finished) = pulse.finished_since_drain() {
            let mut drained = self.open.drained.lock().unwrap_or_else(PoisonError::into_inner);
            drained.finished += finished;
            drained.cut += cut;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!(remote_addr = %self.remote_addr, "connection ended by a panic");
        }
        self.open.by_id().remove(&self.id);
    }
}
