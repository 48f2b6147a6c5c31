//! The pool against servers of ours and against servers that misbehave.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::server::{
    Body, ConnectionInfo, Handler, Limits, Opened, Protocol, Refuse, ResponseBody, Server,
    TlsSource, read_body,
};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(40);

/// Echoes, and remembers who came.
#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    certificates: Mutex<Vec<usize>>,
    /// While set, requests wait for the other half.
    hold: bool,
    entered: Notify,
    release: Notify,
}

struct Echo(Arc<Seen>);

impl Handler for Echo {
    type Connection = Protocol;

    fn connected(&self, info: &ConnectionInfo) -> Result<Opened<Protocol>, Refuse> {
        self.0.connections.fetch_add(1, Ordering::SeqCst);
        let certificates = info.tls.as_ref().map_or(0, |tls| tls.peer_certificates.len());
        self.0.certificates.lock().unwrap().push(certificates);
        Ok(Opened { connection: info.protocol, expires_in: None })
    }

    async fn call(
        &self,
        protocol: &Arc<Protocol>,
        request: Request<Body>,
    ) -> http::Response<ResponseBody> {
        if self.0.hold {
            self.0.entered.notify_one();
            self.0.release.notified().await;
        }
        let path = request.uri().to_string();
        let host = match **protocol {
            Protocol::Http1 => request.headers()["host"].to_str().unwrap().to_owned(),
            Protocol::Http2 => "over http/2".to_owned(),
        };
        let body = read_body(request.into_body(), 1 << 20).await.unwrap();
        let mut response = http::Response::new(ResponseBody::from(body));
        response.headers_mut().insert("x-path", path.parse().unwrap());
        response.headers_mut().insert("x-host", host.parse().unwrap());
        response
    }
}

struct Up {
    addr: SocketAddr,
    seen: Arc<Seen>,
    shutdown: CancellationToken,
}

impl Drop for Up {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn up(tls: impl Into<TlsSource>, limits: Limits, seen: Seen) -> Up {
    let seen = Arc::new(seen);
    let handler = Echo(Arc::clone(&seen));
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), tls, limits, handler).unwrap();
    let (addr, shutdown) = (server.local_addr(), CancellationToken::new());
    tokio::spawn(server.serve(shutdown.clone(), LONG));
    Up { addr, seen, shutdown }
}

fn plain_up() -> Up {
    up(None, Limits::default(), Seen::default())
}

fn pool() -> Pool {
    Pool::new(Dialer::default(), PoolLimits::default())
}

fn route(addr: SocketAddr) -> Route {
    let address =
        Address::parse_with_http(&format!("http://{addr}"), Provenance::Operator).unwrap();
    Route { address, tls: None, identity: "spiffe://example.org/worker".into(), revision: 1 }
}

fn tls_route(addr: SocketAddr, config: Arc<ClientConfig>) -> Route {
    let address = format!("https://localhost:{}/a2a", addr.port());
    let address = Address::parse(&address, Provenance::Operator).unwrap();
    Route { address, tls: Some(config), ..route(addr) }
}

fn post(body: &'static str) -> Request<Full<Bytes>> {
    Request::post("/call?x=1").body(Full::from(body)).unwrap()
}

async fn send(pool: &Pool, route: &Route, body: &'static str) -> Result<Response, SendError> {
    pool.send(route, post(body), Instant::now() + LONG).await
}

async fn check_echo(pool: &Pool, route: &Route) {
    assert_eq!(send(pool, route, "hello").await.unwrap().body(), "hello");
}

fn connections(up: &Up) -> usize {
    up.seen.connections.load(Ordering::SeqCst)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequential_calls_share_one_connection() {
    let (up, pool) = (plain_up(), pool());
    let route = route(up.addr);
    for _ in 0..50 {
        check_echo(&pool, &route).await;
    }
    assert_eq!((connections(&up), pool.idle()), (1, 1));
}

#[tokio::test]
async fn a_request_has_its_path_and_the_host_of_its_route() {
    let (up, pool) = (plain_up(), pool());
    let route = route(up.addr);
    for (uri, path) in [("/call?x=1", "/call?x=1"), ("http://elsewhere/p?q", "/p?q")] {
        let request = Request::post(uri).body(Full::from("")).unwrap();
        let response = pool.send(&route, request, Instant::now() + LONG).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["x-path"], path);
        assert_eq!(response.headers()["x-host"], up.addr.to_string());
    }
}

#[tokio::test]
async fn another_identity_or_a_later_revision_gets_its_own_connection() {
    let (up, pool) = (plain_up(), pool());
    let first = route(up.addr);
    check_echo(&pool, &first).await;
    let other = Route { identity: "spiffe://example.org/other".into(), ..first.clone() };
    check_echo(&pool, &other).await;
    assert_eq!((connections(&up), pool.idle()), (2, 2));
    // The first one's connection is retired; a straggler of the old revision is not kept.
    let later = Route { revision: 2, ..first.clone() };
    check_echo(&pool, &later).await;
    assert_eq!((connections(&up), pool.idle()), (3, 2));
    check_echo(&pool, &first).await;
    assert_eq!((connections(&up), pool.idle()), (4, 2));
    check_echo(&pool, &later).await;
    assert_eq!((connections(&up), pool.idle()), (4, 2));
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_replaced() {
    let limits = Limits { idle_timeout: SHORT, ..Limits::default() };
    let (up, pool) = (up(None, limits, Seen::default()), pool());
    let route = route(up.addr);
    for round in 1..=3 {
        check_echo(&pool, &route).await;
        assert_eq!(connections(&up), round);
        // A second client sees the same idle deadline, and so the event to wait for.
        let mut tcp = TcpStream::connect(up.addr).await.unwrap();
        tcp.write_all(b"POST / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        tcp.read_to_end(&mut Vec::new()).await.unwrap();
        up.seen.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_connection_that_ended_unseen_is_replaced() {
    // Answer and end arrive together, so the pool keeps what is already dead.
    const KEEP: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let addr = canned(&[KEEP, KEEP, KEEP, KEEP]).await;
    let pool = pool();
    for _ in 0..4 {
        assert_eq!(send(&pool, &route(addr), "body").await.unwrap().body(), "ok");
    }
}

#[tokio::test]
async fn old_connections_are_not_reused_and_idle_ones_are_closed() {
    for limits in [
        PoolLimits { idle_timeout: Duration::ZERO, ..PoolLimits::default() },
        PoolLimits { age_max: Duration::ZERO, ..PoolLimits::default() },
    ] {
        let (up, pool) = (plain_up(), Pool::new(Dialer::default(), limits));
        check_echo(&pool, &route(up.addr)).await;
        check_echo(&pool, &route(up.addr)).await;
        assert_eq!(connections(&up), 2);
    }

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let closed = tokio::spawn(async move {
        let mut tcp = listener.accept().await.unwrap().0;
        let mut read = Vec::new();
        while !read.ends_with(b"body") {
            assert_ne!(tcp.read_buf(&mut read).await.unwrap(), 0);
        }
        tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        tcp.read(&mut [0]).await.unwrap()
    });
    let limits = PoolLimits { idle_timeout: SHORT, ..PoolLimits::default() };
    let pool = Pool::new(Dialer::default(), limits);
    send(&pool, &route(addr), "body").await.unwrap();
    assert_eq!(closed.await.unwrap(), 0);
    assert_eq!(pool.idle(), 0);
}

#[tokio::test]
async fn many_at_once_stay_under_the_cap() {
    let up = plain_up();
    let limits = PoolLimits { per_destination_max: 2, idle_max: 1, ..PoolLimits::default() };
    let pool = Pool::new(Dialer::default(), limits);
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let (pool, route) = (pool.clone(), route(up.addr));
            tokio::spawn(async move { check_echo(&pool, &route).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(pool.idle(), 1);
}

#[tokio::test]
async fn a_request_that_waits_for_its_turn_was_not_sent() {
    let up = up(None, Limits::default(), Seen { hold: true, ..Seen::default() });
    let limits = PoolLimits { per_destination_max: 1, ..PoolLimits::default() };
    let pool = Pool::new(Dialer::default(), limits);
    let first = tokio::spawn({
        let (pool, route) = (pool.clone(), route(up.addr));
        async move { check_echo(&pool, &route).await }
    });
    up.seen.entered.notified().await;
    let error = pool.send(&route(up.addr), post(""), Instant::now() + SHORT).await.unwrap_err();
    assert!(matches!(error, SendError::TimedOut { sent: false, .. }), "{error:?}");
    let error = pool.send(&route(up.addr), post(""), Instant::now()).await.unwrap_err();
    assert!(matches!(error, SendError::TimedOut { sent: false, .. }), "{error:?}");
    up.seen.release.notify_one();
    first.await.unwrap();
}

#[tokio::test]
async fn a_request_without_an_answer_in_time_was_sent() {
    let up = up(None, Limits::default(), Seen { hold: true, ..Seen::default() });
    let pool = pool();
    let error = pool.send(&route(up.addr), post(""), Instant::now() + SHORT).await.unwrap_err();
    assert!(matches!(error, SendError::TimedOut { sent: true, .. }), "{error:?}");
    assert_eq!(pool.idle(), 0);
}

/// A server that reads one request on each connection and answers it with the next of `answers`.
async fn canned(answers: &'static [&'static str]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for answer in answers {
            let mut tcp = listener.accept().await.unwrap().0;
            let mut read = Vec::new();
            while !read.ends_with(b"body") {
                assert_ne!(tcp.read_buf(&mut read).await.unwrap(), 0);
            }
            tcp.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    addr
}

async fn check_canned(answer: &'static [&'static str], expected: fn(&SendError) -> bool) {
    let limits = PoolLimits { response_bytes_max: 8, ..PoolLimits::default() };
    let pool = Pool::new(Dialer::default(), limits);
    let error = send(&pool, &route(canned(answer).await), "body").await.unwrap_err();
    assert!(expected(&error) && error.was_sent(), "{error:?}");
    assert_eq!(pool.idle(), 0);
}

#[tokio::test]
async fn broken_answers_are_named_and_count_as_sent() {
    // One answer each: a second attempt would find nobody and fail differently.
    let broken: fn(&SendError) -> bool = |error| matches!(error, SendError::Http { .. });
    check_canned(&[""], broken).await;
    check_canned(&["HTTP/1.1 200 OK\r\ncontent-le"], broken).await;
    check_canned(&["HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf"], broken).await;
    check_canned(&["what is this?\r\n\r\n"], broken).await;
    let large: fn(&SendError) -> bool =
        |error| matches!(error, SendError::ResponseTooLarge { max: 8, .. });
    check_canned(&["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"], large).await;
    check_canned(
        &["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\n123456789\r\n0\r\n\r\n"],
        large,
    )
    .await;
}

#[tokio::test]
async fn only_a_fresh_connection_is_used_after_connection_close() {
    const CLOSE: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
    let addr = canned(&[CLOSE, CLOSE]).await;
    let pool = pool();
    for _ in 0..2 {
        assert_eq!(send(&pool, &route(addr), "body").await.unwrap().body(), "ok");
    }
}

#[tokio::test]
async fn what_cannot_be_reached_was_not_sent() {
    let pool = pool();
    let addr = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = send(&pool, &route(addr), "").await.unwrap_err();
    assert!(matches!(error, SendError::Connect { .. }) && !error.was_sent(), "{error:?}");
    assert_eq!(error.to_string(), format!("cannot connect to http://{addr}"));

    let (up, mut mixed) = (plain_up(), route(addr));
    mixed.address = Address::parse(&format!("https://{}", up.addr), Provenance::Operator).unwrap();
    let error = send(&pool, &mixed, "").await.unwrap_err();
    assert!(matches!(error, SendError::SchemeMismatch { .. }), "{error:?}");

    // Also when a connection to the same place is there for the taking.
    check_echo(&pool, &route(up.addr)).await;
    let mut peers = route(up.addr);
    peers.address =
        Address::parse_with_http(&format!("http://{}", up.addr), Provenance::Peer).unwrap();
    let error = send(&pool, &peers, "").await.unwrap_err();
    assert!(matches!(error, SendError::AddressRefused { .. }) && !error.was_sent());
    let error = Dialer::default().dial(&peers.address, Instant::now() + LONG).await.unwrap_err();
    assert!(matches!(error, SendError::AddressRefused { .. }));
    assert_eq!(connections(&up), 1);
}

struct Pki {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

fn pki() -> Pki {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    Pki { roots: Arc::new(roots), chain: vec![made.cert.der().clone()], key }
}

impl Pki {
    /// Asks for a client certificate of `clients`, and speaks both protocols.
    fn server(&self, clients: &Self) -> Arc<ServerConfig> {
        let verifier =
            rustls::server::WebPkiClientVerifier::builder(Arc::clone(&clients.roots)).build();
        let config = ServerConfig::builder()
            .with_client_cert_verifier(verifier.unwrap())
            .with_single_cert(self.chain.clone(), self.key.clone_key());
        let mut config = config.unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// Shows our certificate and trusts `servers`.
    fn client(&self, servers: &Self) -> Arc<ClientConfig> {
        let config = ClientConfig::builder()
            .with_root_certificates(Arc::clone(&servers.roots))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key());
        Arc::new(config.unwrap())
    }
}

#[tokio::test]
async fn calls_go_over_mutual_tls() {
    let (server, client) = (pki(), pki());
    let config = server.server(&client);
    let source = TlsSource::per_connection(move || Ok(Arc::clone(&config)));
    let (up, pool) = (up(source, Limits::default(), Seen::default()), pool());
    let route = tls_route(up.addr, client.client(&server));
    for _ in 0..5 {
        check_echo(&pool, &route).await;
    }
    assert_eq!(connections(&up), 1);
    assert_eq!(*up.seen.certificates.lock().unwrap(), [1]);
    // Another caller of the same process does not ride on the first one's certificate.
    let other = tls_route(up.addr, client.client(&server));
    check_echo(&pool, &other).await;
    assert_eq!(connections(&up), 2);
}

#[tokio::test]
async fn a_connection_retires_before_its_certificates() {
    for (life, expected) in [(Duration::ZERO, 2), (LONG, 1)] {
        let (server, client) = (pki(), pki());
        let up = up(Some(server.server(&client)), Limits::default(), Seen::default());
        let leaf = server.chain[0].clone();
        let pool = Pool::with_lifetime(Dialer::default(), PoolLimits::default(), move |chain| {
            assert_eq!(chain, std::slice::from_ref(&leaf));
            life
        });
        let route = tls_route(up.addr, client.client(&server));
        check_echo(&pool, &route).await;
        check_echo(&pool, &route).await;
        assert_eq!(connections(&up), expected, "{life:?}");
    }
}

#[tokio::test]
async fn with_tls_the_protocol_is_negotiated() {
    let pki = pki();
    let up = up(Some(pki.server(&pki)), Limits::default(), Seen::default());
    let mut config = (*pki.client(&pki)).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let route = tls_route(up.addr, Arc::new(config));
    let config = route.tls.clone().unwrap();
    let dialled = Dialer::default().dial_tls(&route.address, config, Instant::now() + LONG).await;
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(dialled.unwrap()),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    let request = Request::post("https://localhost/").body(Full::<Bytes>::from("hi")).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.headers()["x-host"], "over http/2");
}

#[tokio::test]
async fn a_server_we_do_not_trust_gets_nothing() {
    let (server, client) = (pki(), pki());
    let up = up(Some(server.server(&client)), Limits::default(), Seen::default());
    let error = send(&pool(), &tls_route(up.addr, client.client(&client)), "").await.unwrap_err();
    assert!(!error.was_sent());
    match error {
        SendError::Tls { source: rustls::Error::InvalidCertificate(_), .. } => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_server_without_a_part_to_play_says_that_the_fault_is_its_own() {
    let (server, client) = (pki(), pki());
    let (config, fit) = (server.server(&client), Arc::new(AtomicBool::new(false)));
    let asked = Arc::clone(&fit);
    let source = TlsSource::per_connection(move || match asked.load(Ordering::Relaxed) {
        true => Ok(Arc::clone(&config)),
        false => Err(std::io::Error::other("no certificate")),
    });
    let (up, pool) = (up(source, Limits::default(), Seen::default()), pool());
    let route = tls_route(up.addr, client.client(&server));
    for _ in 0..20 {
        let error = send(&pool, &route, "hello").await.unwrap_err();
        assert!(!error.was_sent());
        let alert = AlertDescription::InternalError;
        match error {
            SendError::Tls { source: rustls::Error::AlertReceived(found), .. } => {
                assert_eq!(found, alert);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(connections(&up), 0);
    fit.store(true, Ordering::Relaxed);
    check_echo(&pool, &route).await;
}

// On several threads, so that the alert also comes before the request is handed over.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_does_not_trust_us_says_so() {
    let (server, client) = (pki(), pki());
    let up = up(Some(server.server(&server)), Limits::default(), Seen::default());
    let route = tls_route(up.addr, client.client(&server));
    for _ in 0..200 {
        let error = send(&pool(), &route, "hello").await.unwrap_err();
        assert!(!error.was_sent());
        match error {
            SendError::PeerRefusedUs { alert, .. } => {
                assert!(
                    matches!(alert, AlertDescription::UnknownCA | AlertDescription::DecryptError),
                    "{alert:?}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(connections(&up), 0);
}

#[tokio::test]
async fn a_tls_server_cuts_a_peer_that_does_not_shake_hands() {
    let server = pki();
    let limits = Limits { handshake_timeout: SHORT, ..Limits::default() };
    let up = up(Some(server.server(&server)), limits, Seen::default());
    for begun in [&b""[..], b"\x16\x03\x01"] {
        let mut tcp = TcpStream::connect(up.addr).await.unwrap();
        tcp.write_all(begun).await.unwrap();
        assert_eq!(tcp.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    }
    // After the handshake a silent peer has only the time to its first byte.
    let limits = Limits { first_byte_timeout: SHORT, ..Limits::default() };
    let up = self::up(Some(server.server(&server)), limits, Seen::default());
    let route = tls_route(up.addr, server.client(&server));
    let config = route.tls.clone().unwrap();
    let dialled = Dialer::default().dial_tls(&route.address, config, Instant::now() + LONG).await;
    assert_eq!(dialled.unwrap().read_to_end(&mut Vec::new()).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_failed_handshake_ends_with_an_alert_and_not_with_a_reset() {
    let server = pki();
    let up = up(Some(server.server(&server)), Limits::default(), Seen::default());
    let mut tcp = TcpStream::connect(up.addr).await.unwrap();
    // More than the server reads before it knows that this is not TLS.
    tcp.write_all(&[b'x'; 48 * 1024]).await.unwrap();
    tcp.shutdown().await.unwrap();
    let mut read = Vec::new();
    tcp.read_to_end(&mut read).await.unwrap();
    // A record of the type `alert`.
    assert_eq!(read.first(), Some(&21));
}
