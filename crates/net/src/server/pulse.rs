//! What a connection is doing right now, and until when it may go on doing that.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Limits;

/// A write this large, in bytes, is part of a response and shows that its reader makes progress.
/// Smaller ones may be answers to HTTP/2 pings, which keep no connection alive.
const PROGRESS_BYTES: usize = 1024;

/// Most that is read and thrown away so that a peer sees our last words, in bytes.
const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One connection's state, written by its I/O and its requests, read by its watch.
///
/// A request costs one look at the clock when its first byte arrives and one when it ends; timers
/// are touched only when something is late. Atomics are relaxed because each value stands for
/// itself and all of HTTP/1.1 runs in one task.
pub(crate) struct Pulse {
    origin: Instant,
    /// Requests share the connection, so bytes between them are not the head of one.
    multiplexed: AtomicBool,
    phase: AtomicU8,
    /// When the phase began, in microseconds after `origin`.
    since: AtomicU64,
    running: AtomicU32,
    finished: AtomicU64,
    finished_before_drain: AtomicU64,
    unread: AtomicBool,
    order: AtomicU8,
    review: AtomicBool,
    /// A review has come to the word that the connection may not go on.
    unwelcome: AtomicBool,
    waker: AtomicWaker,
}

/// What the peer is doing while no request of its runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// It has not sent a byte.
    Silent,
    /// It is sending the head of a request.
    Head,
    /// It keeps the connection for later.
    Idle,
    /// We have said our last words and wait until it has seen them.
    Lingering,
}

/// What the server wants of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Order {
    /// Go on.
    Serve,
    /// Finish what runs, take nothing new.
    Drain,
    /// End now.
    Cut,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self {
            origin: Instant::now(),
            multiplexed: AtomicBool::new(false),
            phase: AtomicU8::new(Phase::Silent as u8),
            since: AtomicU64::new(0),
            running: AtomicU32::new(0),
            finished: AtomicU64::new(0),
            finished_before_drain: AtomicU64::new(0),
            unread: AtomicBool::new(false),
            order: AtomicU8::new(Order::Serve as u8),
            review: AtomicBool::new(false),
            unwelcome: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    pub(super) fn set_multiplexed(&self) {
        self.multiplexed.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_multiplexed(&self) -> bool {
        self.multiplexed.load(Ordering::Relaxed)
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.touch();
    }

    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Silent,
            1 => Phase::Head,
            2 => Phase::Idle,
            _ => Phase::Lingering,
        }
    }

    /// Until when the present phase may last; nothing while a request runs.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<Instant> {
        let phase = self.phase();
        if phase != Phase::Lingering && self.running() > 0 {
            return None;
        }
        let allowed = match phase {
            Phase::Silent => limits.first_byte_timeout,
            Phase::Head => limits.header_timeout,
            Phase::Idle => limits.idle_timeout,
            Phase::Lingering => limits.linger,
        };
        Some(self.origin + Duration::from_micros(self.since.load(Ordering::Relaxed)) + allowed)
    }

    /// Requests that run now.
    pub(super) fn running(&self) -> u32 {
        self.running.load(Ordering::Relaxed)
    }

    /// Requests that have been answered since the order to drain; nothing without that order.
    pub(super) fn finished_since_drain(&self) -> Option<u64> {
        let before = self.finished_before_drain.load(Ordering::Relaxed);
        (self.ordered() >= Order::Drain)
            .then(|| self.finished.load(Ordering::Relaxed).saturating_sub(before))
    }

    /// A request's body was dropped before its end, so the peer may still be sending it.
    pub(crate) fn left_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// Tells the connection what to do. Orders only get stricter.
    pub(super) fn order(&self, order: Order) {
        if self.ordered() == Order::Serve {
            let finished = self.finished.load(Ordering::Relaxed);
            self.finished_before_drain.store(finished, Ordering::Relaxed);
        }
        self.order.fetch_max(order as u8, Ordering::Release);
        self.waker.wake();
    }

    pub(super) fn ordered(&self) -> Order {
        match self.order.load(Ordering::Acquire) {
            0 => Order::Serve,
            1 => Order::Drain,
            _ => Order::Cut,
        }
    }

    /// Asks the connection to find out whether it may go on.
    pub(super) fn ask_for_review(&self) {
        self.review.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether that was asked since the last look.
    pub(super) fn take_review(&self) -> bool {
        self.review.load(Ordering::Relaxed) && self.review.swap(false, Ordering::Acquire)
    }

    /// From now on the connection's requests are refused. HTTP/2 peers may go on sending them until
    /// they have read that the connection closes, and whoever is not trusted need not read it.
    pub(super) fn set_unwelcome(&self) {
        self.unwelcome.store(true, Ordering::Release);
    }

    pub(super) fn is_unwelcome(&self) -> bool {
        self.unwelcome.load(Ordering::Acquire)
    }

    /// Makes the next order wake this task. To be called before [`Self::ordered`] is looked at.
    pub(super) fn listen(&self, cx: &Context<'_>) {
        self.waker.register(cx.waker());
    }

    /// Resolves when the connection should no longer be set up.
    pub(super) async fn draining(&self) {
        std::future::poll_fn(|cx| {
            self.listen(cx);
            if self.ordered() == Order::Serve { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    fn touch(&self) {
        let micros = u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.since.store(micros, Ordering::Relaxed);
    }

    fn has_read(&self) {
        if self.running() > 0 {
            return;
        }
        match self.phase() {
            Phase::Silent => self.enter(Phase::Head),
            Phase::Idle if !self.multiplexed.load(Ordering::Relaxed) => self.enter(Phase::Head),
            Phase::Idle | Phase::Head | Phase::Lingering => {}
        }
    }

    fn has_written(&self, bytes: usize) {
        if bytes >= PROGRESS_BYTES && self.phase() != Phase::Lingering {
            self.touch();
        }
    }
}

/// A request that runs, for as long as this value lives.
pub(super) struct Running(Arc<Pulse>);

impl Running {
    pub(super) fn begin(of: Arc<Pulse>) -> Self {
        of.running.fetch_add(1, Ordering::Relaxed);
        Self(of)
    }

    /// The request has its whole answer. Without this it ends as one that was given up.
    pub(super) fn answered(self) {
        self.0.finished.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pulse = &self.0;
        // The phase is set first: once nothing runs, the deadline of the phase counts.
        if pulse.phase() != Phase::Lingering {
            pulse.enter(Phase::Idle);
        }
        pulse.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection's stream: gives back what was read to find out the protocol, keeps the pulse, and
/// closes so that the peer can read the last response.
pub(super) struct Stream<S> {
    inner: S,
    pulse: Arc<Pulse>,
    prefix: [u8; PREFIX_MAX],
    prefix_at: u8,
    prefix_end: u8,
    read_eof: bool,
    shut: bool,
    lingered: usize,
}

/// Longest prefix that [`Stream`] gives back, in bytes.
pub(super) const PREFIX_MAX: usize = 24;

impl<S> Stream<S> {
    pub(super) fn new(inner: S, pulse: Arc<Pulse>) -> Self {
        Self {
            inner,
            pulse,
            prefix: [0; PREFIX_MAX],
            prefix_at: 0,
            prefix_end: 0,
            read_eof: false,
            shut: false,
            lingered: 0,
        }
    }
}

impl<S: AsyncRead + Unpin> Stream<S> {
    /// Reads until the bytes either are `preface` or cannot become it, and says which. They are
    /// read again afterwards.
    pub(super) async fn begins_with(&mut self, preface: &[u8; PREFIX_MAX]) -> io::Result<bool> {
        use tokio::io::AsyncReadExt as _;
        loop {
            let end = usize::from(self.prefix_end);
            let (read, free) = self.prefix.split_at_mut(end);
            if *read != preface[..end] {
                return Ok(false);
            }
            if free.is_empty() {
                return Ok(true);
            }
            let count = self.inner.read(free).await?;
            if count == 0 {
                self.read_eof = true;
                return Ok(false);
            }
            self.pulse.has_read();
            // At most `PREFIX_MAX` in sum.
            self.prefix_end += u8::try_from(count).map_err(io::Error::other)?;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.prefix_at < this.prefix_end {
            let left = &this.prefix[usize::from(this.prefix_at)..usize::from(this.prefix_end)];
            let count = left.len().min(buf.remaining());
            buf.put_slice(&left[..count]);
            // At most `PREFIX_MAX`, so it always fits.
            this.prefix_at = this.prefix_at.saturating_add(u8::try_from(count).unwrap_or(u8::MAX));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            this.pulse.has_read();
        } else if buf.remaining() > 0 {
            this.read_eof = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.pulse.has_written(count);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, bufs))?;
        self.pulse.has_written(count);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    /// Ends our half. If a request's body was left unread, also waits for the peer's end: a socket
    /// closed with bytes unread is reset, and the reset may overtake the response that says why.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.shut {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
            this.shut = true;
            this.pulse.enter(Phase::Lingering);
        }
        if !this.pulse.unread.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let mut scrap = [0_u8; 8 * 1024];
        while !this.read_eof && this.lingered < LINGER_BYTES_MAX {
            let mut buf = ReadBuf::new(&mut scrap);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut buf))?;
            this.lingered += buf.filled().len();
            this.read_eof = buf.filled().is_empty();
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const PREFACE: &[u8; PREFIX_MAX] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    async fn check(sent: &[u8], expected: bool) {
        let (mut peer, ours) = tokio::io::duplex(64);
        peer.write_all(sent).await.unwrap();
        drop(peer);
        let mut stream = Stream::new(ours, Arc::new(Pulse::new()));
        assert_eq!(stream.begins_with(PREFACE).await.unwrap(), expected);
        let mut read = Vec::new();
        stream.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, sent);
    }

    #[tokio::test]
    async fn the_preface_is_found_and_given_back() {
        check(PREFACE, true).await;
        check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore", true).await;
        check(b"POST / HTTP/1.1\r\n\r\n", false).await;
        check(b"PRI * HTTP/1.1\r\n\r\n", false).await;
        check(b"PR", false).await;
        check(b"", false).await;
    }

    #[tokio::test]
    async fn a_phase_has_a_deadline_and_a_running_request_has_none() {
        let limits = Limits::default();
        let pulse = Arc::new(Pulse::new());
        let began = pulse.origin;
        assert_eq!(pulse.deadline(&limits), Some(began + limits.first_byte_timeout));
        pulse.has_read();
        assert_eq!(pulse.phase(), Phase::Head);
        let running = Running::begin(Arc::clone(&pulse));
        assert_eq!(pulse.deadline(&limits), None);
        running.answered();
        assert_eq!(pulse.phase(), Phase::Idle);
        assert_eq!(pulse.finished.load(Ordering::Relaxed), 1);
        pulse.set_multiplexed();
        pulse.has_read();
        assert_eq!(pulse.phase(), Phase::Idle);
    }

    #[test]
    fn orders_only_get_stricter() {
        let pulse = Pulse::new();
        pulse.order(Order::Cut);
        pulse.order(Order::Drain);
        assert_eq!(pulse.ordered(), Order::Cut);
    }
}
