//! The server against clients that are slow, greedy or gone, over real sockets.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;

use super::*;

const SHORT: Duration = Duration::from_millis(40);
const LONG: Duration = Duration::from_secs(60);

/// Answers by path: `/echo` the body, `/gate` once the test opens it, `/panic` never.
#[derive(Default)]
struct Scripted {
    expires_in: Option<Duration>,
    refuse: bool,
    /// Set once connections may no longer go on.
    unwelcome: AtomicBool,
    opened: AtomicUsize,
    protocols: Mutex<Vec<Protocol>>,
    entered: Notify,
    /// A request at the gate was dropped.
    dropped: Notify,
    gate: Gate,
}

/// Closed until permits are added.
struct Gate(Semaphore);

impl Default for Gate {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

struct NotifyOnDrop<'a>(&'a Notify);

impl Drop for NotifyOnDrop<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// So that a test keeps a handle on what the server owns.
#[derive(Default)]
struct Held(Arc<Scripted>);

impl Handler for Held {
    type Connection = ();

    fn connected(&self, info: &ConnectionInfo) -> Result<Opened<()>, Refuse> {
        self.0.opened.fetch_add(1, Ordering::SeqCst);
        self.0.protocols.lock().unwrap().push(info.protocol);
        if self.0.refuse {
            return Err(Refuse("not wanted".into()));
        }
        Ok(Opened { connection: (), expires_in: self.0.expires_in })
    }

    fn may_go_on(&self, (): &()) -> bool {
        !self.0.unwelcome.load(Ordering::SeqCst)
    }

    async fn call(
        &self,
        _: &Arc<()>,
        request: http::Request<Body>,
    ) -> http::Response<ResponseBody> {
        let (parts, body) = request.into_parts();
        match parts.uri.path() {
            "/gate" => {
                let left = NotifyOnDrop(&self.0.dropped);
                self.0.entered.notify_one();
                drop(self.0.gate.0.acquire().await.unwrap());
                std::mem::forget(left);
                http::Response::new("through the gate".into())
            }
            "/panic" => panic!("a handler's own fault"),
            "/stream" => {
                let body = Full::new(Bytes::from_static(b"piece")).map_err(StreamError::from);
                http::Response::new(ResponseBody::stream(body))
            }
            _ => match read_body(body, 1024).await {
                Ok(body) => http::Response::new(body.into()),
                Err(error) => {
                    let mut response = http::Response::new(error.to_string().into());
                    *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
                    response
                }
            },
        }
    }
}

struct Up {
    addr: SocketAddr,
    handler: Arc<Scripted>,
    reviews: Reviews,
    shutdown: CancellationToken,
    serving: JoinHandle<Drained>,
}

fn up(limits: Limits, handler: Held, drain: Duration) -> Up {
    let scripted = Arc::clone(&handler.0);
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), None, limits, handler).unwrap();
    let (addr, reviews) = (server.local_addr(), server.reviews());
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(server.serve(shutdown.clone(), drain));
    Up { addr, handler: scripted, reviews, shutdown, serving }
}

fn up_with(limits: Limits) -> Up {
    up(limits, Held::default(), LONG)
}

impl Up {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    async fn down(self) -> Drained {
        self.shutdown.cancel();
        self.serving.await.unwrap()
    }
}

/// Sends `bytes` and reads until the server closes.
async fn exchange(tcp: &mut TcpStream, bytes: &[u8]) -> String {
    tcp.write_all(bytes).await.unwrap();
    to_end(tcp).await
}

async fn to_end(tcp: &mut TcpStream) -> String {
    let mut read = Vec::new();
    tcp.read_to_end(&mut read).await.unwrap();
    String::from_utf8(read).unwrap()
}

/// Reads one response whose end is known by `last`.
async fn until(tcp: &mut TcpStream, last: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(last.as_bytes()) {
        assert_ne!(tcp.read_buf(&mut read).await.unwrap(), 0, "closed early: {read:?}");
    }
    String::from_utf8(read).unwrap()
}

fn echo(body: &str, more: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n{more}\r\n{body}")
        .into_bytes()
}

type H2 = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn h2(up: &Up) -> (H2, JoinHandle<hyper::Result<()>>) {
    let io = TokioIo::new(up.connect().await);
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    (sender, tokio::spawn(connection))
}

fn h2_request(path: &str, body: &'static str) -> http::Request<Full<Bytes>> {
    http::Request::post(format!("http://a{path}")).body(Full::from(body)).unwrap()
}

#[tokio::test]
async fn http1_answers_and_keeps_the_connection() {
    let up = up_with(Limits::default());
    let mut tcp = up.connect().await;
    tcp.write_all(&echo("one", "")).await.unwrap();
    assert!(until(&mut tcp, "one").await.starts_with("HTTP/1.1 200 OK\r\n"));
    let last = exchange(&mut tcp, &echo("two", "connection: close\r\n")).await;
    assert!(last.ends_with("\r\n\r\ntwo"), "{last}");
    assert_eq!(*up.handler.protocols.lock().unwrap(), [Protocol::Http1]);
    up.down().await;
}

#[tokio::test]
async fn a_streamed_body_arrives() {
    let up = up_with(Limits::default());
    let mut tcp = up.connect().await;
    let answer =
        exchange(&mut tcp, b"GET /stream HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(answer.ends_with("piece"), "{answer}");
    up.down().await;
}

#[tokio::test]
async fn http2_is_found_without_tls() {
    let up = up_with(Limits::default());
    let (mut sender, _connection) = h2(&up).await;
    for path in ["/echo", "/stream"] {
        let response = sender.send_request(h2_request(path, "piece")).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "piece");
    }
    assert_eq!(*up.handler.protocols.lock().unwrap(), [Protocol::Http2]);
    drop(sender);
    up.down().await;
}

#[tokio::test]
async fn too_many_headers_are_refused_on_both_protocols() {
    let up = up_with(Limits::default());
    let mut tcp = up.connect().await;
    let many: String = (0..101).map(|i| format!("h{i}: x\r\n")).collect();
    assert!(exchange(&mut tcp, &echo("", &many)).await.starts_with("HTTP/1.1 431"));
    let mut tcp = up.connect().await;
    let wide = format!("h: {}\r\n", "x".repeat(Limits::default().header_bytes_max));
    assert!(exchange(&mut tcp, &echo("", &wide)).await.starts_with("HTTP/1.1 431"));
    let (mut sender, _connection) = h2(&up).await;
    let mut request = h2_request("/echo", "");
    for i in 0..101 {
        let name = http::HeaderName::try_from(format!("h{i}")).unwrap();
        request.headers_mut().insert(name, http::HeaderValue::from_static("x"));
    }
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    drop(sender);
    up.down().await;
}

/// The server closes without an answer on a peer that sends `bytes` and nothing more.
async fn check_cut(limits: Limits, bytes: &[u8]) {
    let up = up_with(limits);
    let mut tcp = up.connect().await;
    assert_eq!(exchange(&mut tcp, bytes).await, "", "{:?}", String::from_utf8_lossy(bytes));
    up.down().await;
}

#[tokio::test]
async fn slow_peers_are_cut() {
    let silent = Limits { first_byte_timeout: SHORT, ..Limits::default() };
    check_cut(silent, b"").await;
    let slow = Limits { header_timeout: SHORT, ..Limits::default() };
    for begun in ["P", "PRI * HT", "POST /echo HTTP/1.1\r\n", "\r\n"] {
        check_cut(slow.clone(), begun.as_bytes()).await;
    }
}

#[tokio::test]
async fn a_bare_http2_preface_is_ended() {
    let up = up_with(Limits { header_timeout: SHORT, ..Limits::default() });
    let (_sender, connection) = h2(&up).await;
    // Both ends close; which of GOAWAY and the end of the stream is seen first does not matter.
    drop(connection.await.unwrap());
    up.down().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_slow_second_head_too() {
    let up = up_with(Limits { idle_timeout: SHORT, ..Limits::default() });
    let mut tcp = up.connect().await;
    assert!(exchange(&mut tcp, &echo("one", "")).await.ends_with("one"));
    up.down().await;

    let up = up_with(Limits { header_timeout: SHORT, ..Limits::default() });
    let mut tcp = up.connect().await;
    tcp.write_all(&echo("one", "")).await.unwrap();
    until(&mut tcp, "one").await;
    assert_eq!(exchange(&mut tcp, b"POST /").await, "");
    up.down().await;

    let up = up_with(Limits { idle_timeout: SHORT, ..Limits::default() });
    let (mut sender, connection) = h2(&up).await;
    assert!(sender.send_request(h2_request("/echo", "")).await.is_ok());
    drop(connection.await.unwrap());
    up.down().await;
}

#[tokio::test]
async fn a_running_request_outlives_the_timeouts_of_a_quiet_one() {
    let up = up_with(Limits {
        first_byte_timeout: SHORT,
        header_timeout: SHORT,
        idle_timeout: SHORT,
        ..Limits::default()
    });
    let mut slow = up.connect().await;
    slow.write_all(b"GET /gate HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    up.handler.entered.notified().await;
    // A connection that is opened later is cut; by then the first one's time would be over too.
    assert_eq!(to_end(&mut up.connect().await).await, "");
    assert_eq!(to_end(&mut up.connect().await).await, "");
    up.handler.gate.0.add_permits(1);
    assert!(to_end(&mut slow).await.ends_with("through the gate"));
    up.down().await;
}

#[tokio::test]
async fn a_request_ends_with_its_client() {
    let up = up_with(Limits::default());
    let mut tcp = up.connect().await;
    tcp.write_all(b"GET /gate HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    up.handler.entered.notified().await;
    drop(tcp);
    up.handler.dropped.notified().await;
    // On HTTP/2 a client gives up one request and keeps the connection.
    let (mut sender, _connection) = h2(&up).await;
    let on_h2 = tokio::spawn(sender.send_request(h2_request("/gate", "")));
    up.handler.entered.notified().await;
    on_h2.abort();
    up.handler.dropped.notified().await;
    assert!(sender.send_request(h2_request("/echo", "")).await.is_ok());
    assert_eq!(up.down().await, Drained::default());
}

#[tokio::test]
async fn a_body_over_the_bound_is_refused_and_the_refusal_arrives() {
    let up = up_with(Limits::default());
    let body = "x".repeat(4 * 1024 * 1024);
    let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let chunked =
        format!("POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunk}");
    for request in [echo(&body, ""), chunked.into_bytes()] {
        // All of the request is written before the answer is read, as simple clients do.
        let mut tcp = up.connect().await;
        let answer = exchange(&mut tcp, &request).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        assert!(answer.ends_with("the body is larger than 1024 bytes"), "{answer}");
    }
    up.down().await;
}

#[tokio::test]
async fn caps_close_what_is_over_them_and_places_come_back() {
    for limits in [
        Limits { connections_max: 1, ..Limits::default() },
        Limits { connections_per_ip_max: 1, ..Limits::default() },
    ] {
        let up = up_with(limits);
        let mut first = up.connect().await;
        first.write_all(&echo("one", "")).await.unwrap();
        until(&mut first, "one").await;
        let mut second = up.connect().await;
        assert_eq!(second.read(&mut [0]).await.unwrap_or(0), 0);
        drop(first);
        // The place is free as soon as the server has seen the end of the first.
        loop {
            let mut tcp = up.connect().await;
            let sent = tcp.write_all(&echo("two", "connection: close\r\n")).await;
            let mut read = Vec::new();
            if sent.is_ok() && tcp.read_to_end(&mut read).await.is_ok() && read.ends_with(b"two") {
                break;
            }
        }
        up.down().await;
    }
}

#[tokio::test]
async fn a_refused_connection_is_closed() {
    let handler = Scripted { refuse: true, ..Scripted::default() };
    let up = up(Limits::default(), Held(Arc::new(handler)), LONG);
    let mut tcp = up.connect().await;
    tcp.write_all(b"P").await.unwrap();
    tcp.write_all(b"O").await.unwrap_or(());
    assert_eq!(tcp.read(&mut [0]).await.unwrap_or(0), 0);
    assert_eq!(up.handler.opened.load(Ordering::SeqCst), 1);
    up.down().await;
}

#[tokio::test]
async fn a_panic_ends_one_connection_and_frees_its_place() {
    let up = up_with(Limits { connections_max: 1, ..Limits::default() });
    let mut tcp = up.connect().await;
    assert_eq!(exchange(&mut tcp, b"GET /panic HTTP/1.1\r\nhost: a\r\n\r\n").await, "");
    let (mut sender, _connection) = loop {
        let (mut sender, connection) = h2(&up).await;
        if sender.ready().await.is_ok()
            && sender.send_request(h2_request("/echo", "")).await.is_ok()
        {
            break (sender, connection);
        }
    };
    // On HTTP/2 the other streams live on.
    assert!(sender.send_request(h2_request("/panic", "")).await.is_err());
    assert!(sender.send_request(h2_request("/echo", "")).await.is_ok());
    drop(sender);
    up.down().await;
}

#[tokio::test]
async fn a_drain_finishes_what_runs_and_closes_what_is_idle() {
    let up = up_with(Limits::default());
    let mut silent = up.connect().await;
    let mut idle = up.connect().await;
    idle.write_all(&echo("one", "")).await.unwrap();
    until(&mut idle, "one").await;
    let mut running = up.connect().await;
    running.write_all(b"GET /gate HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    up.handler.entered.notified().await;
    let (mut sender, _connection) = h2(&up).await;
    let on_h2 = tokio::spawn(sender.send_request(h2_request("/gate", "")));
    up.handler.entered.notified().await;

    up.shutdown.cancel();
    assert_eq!(to_end(&mut idle).await, "");
    assert_eq!(to_end(&mut silent).await, "");
    assert!(TcpStream::connect(up.addr).await.is_err());
    up.handler.gate.0.add_permits(2);
    let answer = to_end(&mut running).await;
    assert!(answer.contains("connection: close") && answer.ends_with("through the gate"));
    assert!(on_h2.await.unwrap().is_ok());
    assert_eq!(up.serving.await.unwrap(), Drained { finished: 2, cut: 0 });
}

/// A request that meets the drain on its way is answered, with the word that it is the last one.
#[tokio::test]
async fn a_drain_answers_what_is_on_its_way() {
    let up = up_with(Limits { drain_idle: Duration::from_secs(60), ..Limits::default() });
    let mut kept = up.connect().await;
    kept.write_all(&echo("one", "")).await.unwrap();
    until(&mut kept, "one").await;
    // Before it has sent anything.
    let mut fresh = up.connect().await;
    up.shutdown.cancel();
    while TcpStream::connect(up.addr).await.is_ok() {}
    for connection in [&mut kept, &mut fresh] {
        connection.write_all(&echo("two", "")).await.unwrap();
        let answer = to_end(connection).await;
        assert!(answer.contains("connection: close") && answer.ends_with("two"), "{answer}");
    }
    assert_eq!(up.serving.await.unwrap().cut, 0);
}

#[tokio::test]
async fn a_drain_cuts_what_does_not_finish() {
    let up = up(Limits::default(), Held::default(), SHORT);
    let mut running = up.connect().await;
    running.write_all(b"GET /gate HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    up.handler.entered.notified().await;
    let (mut sender, _connection) = h2(&up).await;
    let on_h2 = tokio::spawn(sender.send_request(h2_request("/gate", "")));
    up.handler.entered.notified().await;
    up.shutdown.cancel();
    assert_eq!(to_end(&mut running).await, "");
    assert!(on_h2.await.unwrap().is_err());
    assert_eq!(up.serving.await.unwrap(), Drained { finished: 0, cut: 2 });
}

#[tokio::test]
async fn a_connection_ends_by_its_age() {
    let expires_in = Some(SHORT * 4);
    let scripted = || Scripted { expires_in, ..Scripted::default() };
    let up = up(Limits::default(), Held(Arc::new(scripted())), LONG);
    // Idle: closed. Running: cut at the end of its time.
    let mut idle = up.connect().await;
    assert!(exchange(&mut idle, &echo("one", "")).await.ends_with("one"));
    let mut running = up.connect().await;
    assert_eq!(exchange(&mut running, b"GET /gate HTTP/1.1\r\nhost: a\r\n\r\n").await, "");
    let (mut sender, connection) = h2(&up).await;
    assert!(sender.send_request(h2_request("/gate", "")).await.is_err());
    drop(connection.await.unwrap());
    up.down().await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let up = up_with(Limits::default());
    let error = Server::bind(up.addr, None, Limits::default(), Held::default()).err().unwrap();
    let port = up.addr.port();
    assert_eq!(
        error.to_string(),
        format!(
            "port {port} on 127.0.0.1 is in use; stop the process that holds it or choose \
             another port"
        )
    );
    up.down().await;
}

#[tokio::test]
async fn a_review_ends_what_may_not_go_on_and_nothing_else() {
    let limits = Limits { review_grace: LONG, ..Limits::default() };
    let up = up_with(limits);
    let (mut idle, mut busy) = (up.connect().await, up.connect().await);
    idle.write_all(&echo("one", "")).await.unwrap();
    until(&mut idle, "one").await;
    up.reviews.review();
    idle.write_all(&echo("two", "")).await.unwrap();
    until(&mut idle, "two").await;
    let (mut sender, connection) = h2(&up).await;
    sender.send_request(h2_request("/echo", "three")).await.unwrap();
    busy.write_all(b"GET /gate HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    up.handler.entered.notified().await;

    up.handler.unwelcome.store(true, Ordering::SeqCst);
    up.reviews.review();
    assert_eq!(to_end(&mut idle).await, "");
    connection.await.unwrap().unwrap();
    // What ran may end; nothing follows it.
    up.handler.gate.0.add_permits(1);
    let last = to_end(&mut busy).await;
    assert!(last.ends_with("through the gate"), "{last}");
    up.down().await;
}

/// Nothing new is served between the review and the end, whatever the peer makes of being told that
/// the connection closes.
#[tokio::test]
async fn what_may_not_go_on_is_served_nothing_new() {
    let limits = Limits { review_grace: LONG, ..Limits::default() };
    let up = up_with(limits);
    // A first request whose head is half there: closing would wait for it.
    let mut half = up.connect().await;
    half.write_all(b"GET /echo HTTP/1.1\r\n").await.unwrap();
    let pulses = || up.reviews.0.by_id().values().cloned().collect::<Vec<_>>();
    while !pulses().iter().any(|pulse| pulse.phase() == pulse::Phase::Head) {
        tokio::task::yield_now().await;
    }
    // Between the connection and its peer, so that this one hears of no end.
    let (near, far) = tokio::io::duplex(64 * 1024);
    let deaf = tokio::spawn(deaf(far, up.connect().await));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near))
            .await
            .unwrap();
    tokio::spawn(connection);
    let running = tokio::spawn(sender.send_request(h2_request("/gate", "")));
    up.handler.entered.notified().await;

    up.handler.unwelcome.store(true, Ordering::SeqCst);
    up.reviews.review();
    while !pulses().iter().all(|pulse| pulse.is_unwelcome()) {
        tokio::task::yield_now().await;
    }
    half.write_all(b"host: a\r\n\r\n").await.unwrap();
    let refused = to_end(&mut half).await;
    assert!(refused.starts_with("HTTP/1.1 421"), "{refused}");
    let refused = sender.send_request(h2_request("/echo", "new")).await.unwrap();
    assert_eq!(refused.status(), StatusCode::MISDIRECTED_REQUEST);
    // What ran may end.
    up.handler.gate.0.add_permits(1);
    assert_eq!(running.await.unwrap().unwrap().status(), StatusCode::OK);
    deaf.abort();
    up.down().await;
}

/// Carries HTTP/2 between a client and the server, but not the server's word that the connection
/// closes: GOAWAY, and the PING whose answer would end it for good (RFC 9113 §6.7 and §6.8).
async fn deaf(client: tokio::io::DuplexStream, mut server: TcpStream) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, mut to_server) = server.split();
    let out = tokio::io::copy(&mut from_client, &mut to_server);
    let back = async {
        let mut head = [0; 9];
        while from_server.read_exact(&mut head).await.is_ok() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut frame = vec![0; usize::try_from(length).unwrap()];
            from_server.read_exact(&mut frame).await.unwrap();
            if !matches!(head[3], 6 | 7) {
                to_client.write_all(&head).await.unwrap();
                to_client.write_all(&frame).await.unwrap();
            }
        }
    };
    tokio::select! {
        _ended = out => {}
        () = back => {}
    }
}

#[tokio::test]
async fn what_may_not_go_on_is_cut_when_its_grace_is_over() {
    let limits = Limits { review_grace: SHORT, ..Limits::default() };
    let up = up_with(limits);
    let mut busy = up.connect().await;
    busy.write_all(b"GET /gate HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    up.handler.entered.notified().await;
    up.handler.unwelcome.store(true, Ordering::SeqCst);
    up.reviews.review();
    up.handler.dropped.notified().await;
    assert_eq!(to_end(&mut busy).await, "");
    up.down().await;
}

#[tokio::test]
async fn head_has_no_body_over_http2_either() {
    let up = up_with(Limits::default());
    let (mut sender, _connection) = h2(&up).await;
    for (path, length) in [("/stream", "5"), ("/echo", "5")] {
        let mut request = h2_request(path, "hello");
        *request.method_mut() = http::Method::HEAD;
        let response = sender.send_request(request).await.unwrap();
        let found = response.headers().get("content-length");
        assert_eq!(found.unwrap(), length, "{path}");
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
    drop(sender);
    up.down().await;
}
