//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use convoke_model::limits;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::pulse::{Order, PREFIX_MAX, Phase, Pulse, Running, Stream};
use super::{ConnectionInfo, Handler, Limits, Opened, Protocol, TlsInfo, TlsSource};
use crate::body::{Body, Content, ResponseBody, StreamError};

/// HTTP/2's connection preface. Source: RFC 9113 §3.4.
const H2_PREFACE: &[u8; PREFIX_MAX] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Most that a connection buffers in each direction, in bytes.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// What all requests of one HTTP/2 connection may have sent that we have not read, in bytes.
const H2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// What one HTTP/2 request may have sent that we have not read, in bytes.
const H2_STREAM_WINDOW_BYTES: u32 = 256 * 1024;

/// Resets by the peer that may wait for us before the connection ends: the bound on rapid resets.
///
/// Source: h2's own default, stated so that it cannot change unseen.
const H2_PENDING_RESETS_MAX: usize = 20;

/// Resets by us, for streams that break the protocol, before the connection ends.
const H2_LOCAL_RESETS_MAX: usize = 128;

/// How often an HTTP/2 peer is asked whether it is still there, and how long it may take to say so.
const H2_PING_INTERVAL: Duration = Duration::from_secs(20);

/// Most that is read from a peer whose handshake failed, in bytes, while it reads our alert.
const REFUSED_BYTES_MAX: usize = 64 * 1024;

/// The record of a fatal alert `internal_error`. Source: RFC 8446 §5.1 and §6.2.
const INTERNAL_ERROR: &[u8; 7] = &[21, 3, 3, 0, 2, 2, 80];

// hyper's parser stops at this count unless told otherwise, and being told costs an allocation for
// each request.
const _: () = assert!(limits::HEADERS_MAX == 100);

/// What every connection of a listener shares.
pub(super) struct Shared<H> {
    pub(super) handler: H,
    pub(super) limits: Limits,
    pub(super) tls: TlsSource,
    pub(super) local_addr: SocketAddr,
    /// Counts every task that belongs to a connection.
    pub(super) tasks: TaskTracker,
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// By either side, after its last response.
    Closed,
    /// The transport or the protocol broke.
    Broken(hyper::Error),
    /// The peer was too slow at what it did.
    TooSlow(Phase),
    /// Its time was over while requests were running.
    Cut {
        /// How many.
        running: u32,
    },
}

/// Serves one accepted connection to its end.
pub(super) async fn serve<H: Handler>(
    shared: Arc<Shared<H>>,
    tcp: TcpStream,
    remote_addr: SocketAddr,
    pulse: Arc<Pulse>,
) -> Ended {
    let limits = &shared.limits;
    let config = match shared.tls.config() {
        Ok(config) => config,
        Err(error) => {
            shared.handler.turned_away(remote_addr, &error);
            let deadline = Instant::now() + limits.handshake_timeout;
            drop(timeout_at(deadline, say_internal_error(tcp)).await);
            return Ended::Closed;
        }
    };
    let Some(config) = config else {
        let mut stream = Stream::new(tcp, Arc::clone(&pulse));
        let protocol = match detect(&mut stream, &pulse, limits).await {
            Ok(protocol) => protocol,
            Err(ended) => return ended,
        };
        return speak(&shared, stream, remote_addr, protocol, None, pulse).await;
    };

    let deadline = Instant::now() + limits.handshake_timeout;
    let accept = tokio_rustls::TlsAcceptor::from(config).accept(tcp).into_fallible();
    let accepted = tokio::select! {
        accepted = timeout_at(deadline, accept) => accepted,
        // Who has begun to connect may have a request ready.
        () = async {
            pulse.draining().await;
            tokio::time::sleep(limits.drain_idle).await;
        } => return Ended::Closed,
    };
    let stream = match accepted {
        Err(_elapsed) => {
            debug!(%remote_addr, "tls handshake took too long");
            return Ended::TooSlow(Phase::Silent);
        }
        Ok(Err((error, tcp))) => {
            shared.handler.turned_away(remote_addr, &error);
            // Cut short at the handshake's own deadline, so a refused peer gains no time.
            drop(timeout_at(deadline, let_it_read(tcp)).await);
            return Ended::Closed;
        }
        Ok(Ok(stream)) => stream,
    };
    let session = stream.get_ref().1;
    let protocol = match session.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    };
    let peer_certificates = session.peer_certificates().unwrap_or_default().to_vec();
    let tls = TlsInfo { peer_certificates };
    pulse.enter(Phase::Silent);
    let stream = Stream::new(stream, Arc::clone(&pulse));
    speak(&shared, stream, remote_addr, protocol, Some(tls), pulse).await
}

/// Finds out by its first bytes which HTTP a plaintext connection speaks.
async fn detect(
    stream: &mut Stream<TcpStream>,
    pulse: &Arc<Pulse>,
    limits: &Limits,
) -> Result<Protocol, Ended> {
    let mut timer = pin!(sleep_until(Instant::now() + limits.first_byte_timeout));
    let mut begins = pin!(stream.begins_with(H2_PREFACE));
    let mut drains_until = None;
    std::future::poll_fn(|cx| {
        pulse.listen(cx);
        match pulse.ordered() {
            Order::Serve => {}
            Order::Drain => {
                drains_until.get_or_insert_with(|| Instant::now() + limits.drain_idle);
            }
            Order::Cut => return Poll::Ready(Err(Ended::Closed)),
        }
        if let Poll::Ready(begins) = begins.as_mut().poll(cx) {
            return Poll::Ready(match begins {
                Ok(true) => Ok(Protocol::Http2),
                Ok(false) => Ok(Protocol::Http1),
                Err(_reset) => Err(Ended::Closed),
            });
        }
        // No request runs yet, so there always is a deadline.
        let deadline = pulse.deadline(limits).unwrap_or_else(Instant::now);
        let until = drains_until.map_or(deadline, |until| until.min(deadline));
        ready!(wait_until(timer.as_mut(), until, cx));
        Poll::Ready(Err(if until < deadline {
            Ended::Closed
        } else {
            Ended::TooSlow(pulse.phase())
        }))
    })
    .await
}

/// Ends the connection of a peer whose handshake cannot begin, for a reason on our side.
async fn say_internal_error(mut tcp: TcpStream) -> std::io::Result<()> {
    tcp.write_all(INTERNAL_ERROR).await?;
    let_it_read(tcp).await
}

/// Gives a peer whose handshake failed the chance to read the alert: closing with its bytes unread
/// would reset the connection, and the reset may overtake the alert.
async fn let_it_read(mut tcp: TcpStream) -> std::io::Result<()> {
    use tokio::io::AsyncReadExt as _;
    tcp.shutdown().await?;
    let mut scrap = [0_u8; 1024];
    let mut left = REFUSED_BYTES_MAX;
    while left > 0 {
        match tcp.read(&mut scrap).await? {
            0 => break,
            count => left = left.saturating_sub(count),
        }
    }
    Ok(())
}

async fn speak<H: Handler, S>(
    shared: &Arc<Shared<H>>,
    stream: Stream<S>,
    remote_addr: SocketAddr,
    protocol: Protocol,
    tls: Option<TlsInfo>,
    pulse: Arc<Pulse>,
) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let info = ConnectionInfo { remote_addr, local_addr: shared.local_addr, protocol, tls };
    let Opened { connection, expires_in } = match shared.handler.connected(&info) {
        Ok(opened) => opened,
        Err(refuse) => {
            debug!(%remote_addr, reason = %refuse, "connection refused");
            return Ended::Closed;
        }
    };
    let limits = &shared.limits;
    let life = expires_in.map_or(limits.connection_age_max, |it| it.min(limits.connection_age_max));
    let here = Arc::new(Here {
        shared: Arc::clone(shared),
        connection: Arc::new(connection),
        pulse: Arc::clone(&pulse),
    });
    let io = TokioIo::new(stream);
    let (handler, of) = (&shared.handler, Arc::clone(&here.connection));
    let may_go_on = move || handler.may_go_on(&of);
    match protocol {
        Protocol::Http1 => {
            let service = service_fn(move |request| respond(Arc::clone(&here), request));
            let connection = hyper::server::conn::http1::Builder::new()
                // The watch has deadlines of its own, which tell idle from slow.
                .header_read_timeout(None)
                .max_header_size(limits.header_bytes_max)
                .max_buf_size(BUFFER_BYTES_MAX)
                .serve_connection(io, service);
            watch(pin!(connection), &pulse, limits, life, may_go_on).await
        }
        Protocol::Http2 => {
            pulse.set_multiplexed();
            let tasks = Tasks(shared.tasks.clone());
            let service = service_fn(move |request| respond_h2(Arc::clone(&here), request));
            let header_bytes_max = u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX);
            let connection = hyper::server::conn::http2::Builder::new(tasks)
                .timer(TokioTimer::new())
                .keep_alive_interval(H2_PING_INTERVAL)
                .keep_alive_timeout(H2_PING_INTERVAL)
                .max_concurrent_streams(limits.h2_streams_max)
                .max_header_list_size(header_bytes_max)
                .max_pending_accept_reset_streams(H2_PENDING_RESETS_MAX)
                .max_local_error_reset_streams(H2_LOCAL_RESETS_MAX)
                .initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
                .initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
                .max_send_buf_size(BUFFER_BYTES_MAX)
                .serve_connection(io, service);
            watch(pin!(connection), &pulse, limits, life, may_go_on).await
        }
    }
}

/// Drives a connection and holds it to its deadlines and its orders.
///
/// One timer stands for all deadlines. It is set forward only when it fires, so requests that are
/// quick never touch it.
async fn watch<C: Graceful>(
    mut connection: Pin<&mut C>,
    pulse: &Pulse,
    limits: &Limits,
    life: Duration,
    may_go_on: impl Fn() -> bool,
) -> Ended {
    let started = Instant::now();
    // When everything must be over, and when the last requests are taken.
    let mut ends_at = started + life;
    let closes_at = ends_at - limits.close_grace.min(life / 4);
    let mut closing = false;
    let mut drains_until: Option<Instant> = None;
    let mut timer = pin!(sleep_until(started + limits.first_byte_timeout));
    std::future::poll_fn(|cx| {
        pulse.listen(cx);
        loop {
            match pulse.ordered() {
                Order::Serve => {}
                Order::Drain if closing => {}
                // What is idle is told with its next answer, see `respond`.
                Order::Drain if pulse.running() == 0 && !pulse.is_multiplexed() => {
                    drains_until.get_or_insert_with(|| Instant::now() + limits.drain_idle);
                }
                Order::Drain => {
                    closing = true;
                    connection.as_mut().close();
                }
                Order::Cut => return Poll::Ready(Ended::Cut { running: pulse.running() }),
            }
            if pulse.take_review() && !may_go_on() {
                pulse.set_unwelcome();
                ends_at = ends_at.min(Instant::now() + limits.review_grace);
                if !closing {
                    closing = true;
                    connection.as_mut().close();
                }
            }
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                return Poll::Ready(result.map_or_else(Ended::Broken, |()| Ended::Closed));
            }

            let of_life = match drains_until {
                _ if closing => ends_at,
                Some(until) => closes_at.min(until),
                None => closes_at,
            };
            let of_phase = pulse.deadline(limits);
            let deadline = of_phase.map_or(of_life, |it| it.min(of_life));
            if wait_until(timer.as_mut(), deadline, cx).is_pending() {
                return Poll::Pending;
            }
            if of_life <= deadline {
                if closing {
                    return Poll::Ready(Ended::Cut { running: pulse.running() });
                }
                closing = true;
                connection.as_mut().close();
                continue;
            }
            match pulse.phase() {
                // Idle ends politely, but what is left to write gets no more than the grace.
                Phase::Idle if !closing => {
                    closing = true;
                    ends_at = ends_at.min(Instant::now() + limits.close_grace);
                    pulse.enter(Phase::Idle);
                    connection.as_mut().close();
                }
                Phase::Lingering => return Poll::Ready(Ended::Closed),
                phase => return Poll::Ready(Ended::TooSlow(phase)),
            }
        }
    })
    .await
}

/// Ready once `deadline` has passed; pending with `timer` set to fire no later than that.
fn wait_until(mut timer: Pin<&mut Sleep>, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
    if deadline < timer.deadline() {
        timer.as_mut().reset(deadline);
    }
    while timer.as_mut().poll(cx).is_ready() {
        if deadline <= Instant::now() {
            return Poll::Ready(());
        }
        timer.as_mut().reset(deadline);
    }
    Poll::Pending
}

/// A connection of either protocol that can be asked to come to an end.
trait Graceful: Future<Output = hyper::Result<()>> {
    /// Takes no new requests, lets running ones finish, then closes.
    fn close(self: Pin<&mut Self>);
}

impl<I, S, B> Graceful for hyper::server::conn::http1::Connection<I, S>
where
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<StreamError>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    B: http_body::Body + 'static,
    B::Error: Into<StreamError>,
{
    fn close(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, S, B, E> Graceful for hyper::server::conn::http2::Connection<I, S, E>
where
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<StreamError>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    B: http_body::Body + 'static,
    B::Error: Into<StreamError>,
    E: hyper::rt::bounds::Http2ServerConnExec<S::Future, B>,
{
    fn close(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// What the requests of one connection share.
struct Here<H: Handler> {
    shared: Arc<Shared<H>>,
    connection: Arc<H::Connection>,
    pulse: Arc<Pulse>,
}

async fn respond<H: Handler>(
    here: Arc<Here<H>>,
    request: http::Request<Incoming>,
) -> Result<http::Response<Served>, Infallible> {
    let (response, running) = answer(here, request).await;
    Ok(response.map(|body| Served::new(body, running)))
}

/// The handler's response; the request runs until it is on its way.
async fn answer<H: Handler>(
    here: Arc<Here<H>>,
    request: http::Request<Incoming>,
) -> (http::Response<ResponseBody>, Running) {
    let running = Running::begin(Arc::clone(&here.pulse));
    let request = request.map(|body| Body::incoming(body, &here.pulse));
    let (handler, connection) = (&here.shared.handler, &here.connection);
    if here.pulse.is_unwelcome() {
        return (handler.unwelcome(connection), running);
    }
    let mut response = handler.call(connection, request).await;
    if here.pulse.ordered() != Order::Serve && !here.pulse.is_multiplexed() {
        let close = http::HeaderValue::from_static("close");
        response.headers_mut().insert(http::header::CONNECTION, close);
    }
    (response, running)
}

/// As [`respond`], for a protocol whose parser bounds the bytes of a header but not the count, and
/// that sends an answer to `HEAD` as it is given.
async fn respond_h2<H: Handler>(
    here: Arc<Here<H>>,
    request: http::Request<Incoming>,
) -> Result<http::Response<Served>, Infallible> {
    if request.headers().len() > limits::HEADERS_MAX {
        let running = Running::begin(Arc::clone(&here.pulse));
        let mut response = http::Response::new(Served::new(ResponseBody::empty(), running));
        *response.status_mut() = http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Ok(response);
    }
    let is_head = request.method() == http::Method::HEAD;
    let (response, running) = answer(here, request).await;
    let response = if is_head { head_of(response) } else { response };
    Ok(response.map(|body| Served::new(body, running)))
}

/// The answer to `HEAD`: everything but the body. Source: RFC 9110 §9.3.2.
fn head_of(response: http::Response<ResponseBody>) -> http::Response<ResponseBody> {
    let (mut head, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        head.headers.entry(http::header::CONTENT_LENGTH).or_insert(length.into());
    }
    http::Response::from_parts(head, ResponseBody::empty())
}

/// A response on its way. Its request runs until a stream ends; a whole body is done when it is
/// handed over, and from then on the connection's idle deadline bounds a peer that does not read.
struct Served {
    body: ResponseBody,
    running: Option<Running>,
}

impl Served {
    fn new(body: ResponseBody, running: Running) -> Self {
        let running = match body.0 {
            Content::Whole(_) => {
                running.answered();
                None
            }
            Content::Stream(_) => Some(running),
        };
        Self { body, running }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // A stream whose end is plain to see may not be asked for it again.
        if let Some(running) = self.running.take()
            && self.body.is_end_stream()
        {
            running.answered();
        }
    }
}

impl http_body::Body for Served {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none()
            && let Some(running) = self.running.take()
        {
            running.answered();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Runs the requests of HTTP/2 connections; the server waits for them when it ends.
#[derive(Clone)]
struct Tasks(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}
