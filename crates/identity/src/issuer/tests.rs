#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;

use convoke_model::SpiffeId;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;
use crate::source::{IdentityError, IdentitySource, WorkloadApiConfig};

const WORKER: &str = "spiffe://example.org/worker";
const CALLER: &str = "spiffe://example.org/caller";

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

fn config(dir: &TempDir) -> IssuerConfig {
    let trust_domain = TrustDomain::parse("example.org").unwrap();
    IssuerConfig::new(trust_domain, dir.path().join("data"), dir.path().join("run/api.sock"))
}

/// An issuer that serves until it is stopped.
struct Running {
    socket: PathBuf,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(config: IssuerConfig) -> Self {
        let bound = Issuer::open(config).unwrap().bind().await.unwrap();
        let (socket, shutdown) = (bound.socket().to_owned(), CancellationToken::new());
        let task = tokio::spawn(bound.serve(shutdown.clone()));
        Self { socket, shutdown, task }
    }

    async fn source(&self, name: &str) -> Result<IdentitySource, IdentityError> {
        IdentitySource::connect(self.asked_for(name)).await
    }

    fn asked_for(&self, name: &str) -> WorkloadApiConfig {
        WorkloadApiConfig::new(self.socket.clone(), id(name))
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

#[tokio::test]
async fn a_process_enrols_itself_under_two_ids() {
    let dir = TempDir::new().unwrap();
    let issuer = Running::start(config(&dir)).await;
    let worker = issuer.source(WORKER).await.unwrap();
    let caller = issuer.source(CALLER).await.unwrap();
    assert_eq!(worker.current().spiffe_id(), &id(WORKER));
    assert_eq!(caller.current().spiffe_id(), &id(CALLER));

    // The foreign client sees both, and the authority's bundle.
    let endpoint = format!("unix://{}", issuer.socket.display());
    let client = spiffe::WorkloadApiClient::connect_to(endpoint).await.unwrap();
    let context = client.fetch_x509_context().await.unwrap();
    let ids: Vec<_> = context.svids().iter().map(|svid| svid.spiffe_id().to_string()).collect();
    assert_eq!(ids, [WORKER, CALLER]);
    let domain = spiffe::TrustDomain::new("example.org").unwrap();
    assert_eq!(context.bundle_set().get(&domain).unwrap().authorities().len(), 1);
    assert_eq!(client.fetch_x509_bundles().await.unwrap().len(), 1);

    // What came is good for a handshake.
    let client = crate::tls::client_config(&caller, &id(WORKER), &[b"h2"]).unwrap();
    let server = crate::tls::server_config(&worker).unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let (connected, accepted) = tokio::join!(
        tokio_rustls::TlsConnector::from(client).connect(name, near),
        tokio_rustls::TlsAcceptor::from(server).accept(far)
    );
    connected.unwrap();
    accepted.unwrap();
    issuer.stop().await;
}

#[tokio::test]
async fn spiffe_s_own_source_takes_what_is_served() {
    let dir = TempDir::new().unwrap();
    let issuer = Running::start(config(&dir)).await;
    let _enrolled = issuer.source(WORKER).await.unwrap();
    let endpoint = format!("unix://{}", issuer.socket.display());
    let source = spiffe::X509Source::builder().endpoint(endpoint).build().await.unwrap();
    assert_eq!(source.svid().unwrap().spiffe_id().to_string(), WORKER);
    source.shutdown().await;
    issuer.stop().await;
}

#[tokio::test]
async fn rotation_is_pushed() {
    let dir = TempDir::new().unwrap();
    let short = IssuerConfig { svid_ttl: SVID_TTL_MIN, ..config(&dir) };
    let issuer = Running::start(short).await;
    let source = issuer.source(WORKER).await.unwrap();
    let mut changes = source.changes();
    let first = source.current();
    assert_eq!((first.revision(), *changes.borrow_and_update()), (1, 1));
    changes.changed().await.unwrap();
    let second = source.current();
    assert_eq!(second.revision(), 2);
    assert!(second.not_after() >= first.not_after());
    assert_ne!(first.chain(), second.chain());
    issuer.stop().await;
}

#[tokio::test]
async fn an_issuer_that_comes_back_is_found_again() {
    let dir = TempDir::new().unwrap();
    let issuer = Running::start(config(&dir)).await;
    let source = issuer.source(WORKER).await.unwrap();
    let (first, mut changes) = (source.current(), source.changes());
    issuer.stop().await;
    assert_eq!(source.current().revision(), first.revision());

    let issuer = Running::start(config(&dir)).await;
    changes.changed().await.unwrap();
    let second = source.current();
    assert_ne!(first.chain(), second.chain());
    issuer.stop().await;
}

#[tokio::test]
async fn each_reason_for_no_identity_has_its_name() {
    let dir = TempDir::new().unwrap();
    let missing = WorkloadApiConfig::new(dir.path().join("nothing.sock"), id(WORKER));
    let error = IdentitySource::connect(missing).await.unwrap_err();
    assert!(matches!(error, IdentityError::SocketMissing { .. }), "{error}");
    assert!(error.to_string().contains("convoke identity serve --trust-domain example.org"));

    let issuer = Running::start(config(&dir)).await;
    let unenrolled = WorkloadApiConfig { enrol: false, ..issuer.asked_for(WORKER) };
    let error = IdentitySource::connect(unenrolled.clone()).await.unwrap_err();
    assert!(matches!(error, IdentityError::NothingIssued { .. }), "{error}");

    let error = issuer.source("spiffe://other.org/worker").await.unwrap_err();
    assert!(matches!(error, IdentityError::TrustDomainMismatch { .. }), "{error}");

    let _enrolled = issuer.source(CALLER).await.unwrap();
    let error = IdentitySource::connect(unenrolled.clone()).await.unwrap_err();
    assert!(
        matches!(&error, IdentityError::NotAmongIssued { offered, .. } if *offered == [CALLER]),
        "{error}"
    );
    let foreign = WorkloadApiConfig { spiffe_id: id("spiffe://other.org/w"), ..unenrolled };
    let error = IdentitySource::connect(foreign).await.unwrap_err();
    assert!(matches!(error, IdentityError::TrustDomainMismatch { .. }), "{error}");
    issuer.stop().await;

    let silent = dir.path().join("silent.sock");
    let _listener = StdListener::bind(&silent).unwrap();
    let mut waiting = WorkloadApiConfig::new(silent, id(WORKER));
    waiting.connect_timeout = Duration::from_millis(20);
    let error = IdentitySource::connect(waiting).await.unwrap_err();
    assert!(matches!(error, IdentityError::Timeout { .. }), "{error}");
}

#[test]
fn only_root_the_own_user_and_the_configured_one_may_serve() {
    use crate::source::may_serve;
    for (found, issuer_uid, expected) in [
        (0, None, true),
        (1000, None, true),
        (1001, None, false),
        (1001, Some(1001), true),
        (1002, Some(1001), false),
    ] {
        assert_eq!(may_serve(found, 1000, issuer_uid), expected, "{found} {issuer_uid:?}");
    }
}

async fn ask(socket: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn post(body: &str) -> String {
    format!("POST /v1/enrol HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn the_admin_socket_answers_one_request() {
    let dir = TempDir::new().unwrap();
    let issuer = Running::start(config(&dir)).await;
    let admin = admin_socket(&issuer.socket);
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&admin), mode(&issuer.socket)), (0o600, 0o777));

    let long = format!(r#"{{"spiffe_id": "spiffe://example.org/{}"}}"#, "a".repeat(20_000));
    for (request, status, code) in [
        (post(r#"{"spiffe_id": "spiffe://example.org/worker"}"#), 200, "spiffe_id"),
        (post(r#"{"spiffe_id": "spiffe://other.org/worker"}"#), 403, "trust_domain"),
        (post(r#"{"spiffe_id": "worker"}"#), 400, "bad_request"),
        (post(r#"{"spiffe_id": "spiffe://example.org/w", "uid": 0}"#), 400, "bad_request"),
        (post("[[[["), 400, "bad_request"),
        (post(&long), 400, "bad_request"),
        ("GET /v1/enrol HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), 400, "bad_request"),
        ("POST /v2/enrol HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), 400, "bad_request"),
    ] {
        let answer = ask(&admin, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        assert!(answer.contains(code), "{request}: {answer}");
    }
    issuer.stop().await;
}

#[tokio::test]
async fn calls_without_the_security_header_and_unknown_ones_are_refused() {
    let dir = TempDir::new().unwrap();
    let issuer = Running::start(config(&dir)).await;
    let status = async |path: &'static str, header: Option<&'static str>| {
        let stream = UnixStream::connect(&issuer.socket).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(executor, io).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut request = http::Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc");
        if let Some(value) = header {
            request = request.header("workload.spiffe.io", value);
        }
        let body = http_body_util::Full::new(bytes::Bytes::from_static(&[0; 5]));
        let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
        let status = response.headers().get("grpc-status").map(|value| value.to_str().unwrap());
        let status = status.map(str::to_owned);
        connection.abort();
        status
    };
    let denied = Some("7".to_owned());
    let (invalid, unimplemented) = (Some("3".to_owned()), Some("12".to_owned()));
    let svid = "/SpiffeWorkloadAPI/FetchX509SVID";
    assert_eq!(status(svid, Some("true")).await, denied);
    assert_eq!(status(svid, None).await, invalid);
    assert_eq!(status(svid, Some("false")).await, invalid);
    for method in ["FetchX509Bundles", "FetchJWTSVID", "FetchJWTBundles", "ValidateJWTSVID"] {
        let path: &'static str = format!("/SpiffeWorkloadAPI/{method}").leak();
        assert_eq!(status(path, None).await, invalid, "{method}");
    }
    // Empty requests: no audience.
    assert_eq!(status("/SpiffeWorkloadAPI/FetchJWTSVID", Some("true")).await, invalid);
    assert_eq!(status("/SpiffeWorkloadAPI/ValidateJWTSVID", Some("true")).await, invalid);
    assert_eq!(status("/SpiffeWorkloadAPI/Nothing", Some("true")).await, unimplemented);
    issuer.stop().await;
}

#[tokio::test]
async fn sockets_are_replaced_when_stale_and_refused_otherwise() {
    let dir = TempDir::new().unwrap();
    let run = dir.path().join("run");
    fs::create_dir(&run).unwrap();
    let api = run.join("api.sock");
    let data = |name: &str| IssuerConfig { data_dir: dir.path().join(name), ..config(&dir) };

    // Left behind: the file is there and nobody listens.
    drop(StdListener::bind(&api).unwrap());
    assert!(fs::symlink_metadata(&api).unwrap().file_type().is_socket());
    let issuer = Running::start(data("a")).await;
    issuer.source(WORKER).await.unwrap();

    // In use: the second is refused, and the first goes on.
    let error = Issuer::open(data("b")).unwrap().bind().await.unwrap_err();
    assert!(matches!(error, IssuerError::SocketInUse { .. }), "{error}");
    issuer.source(CALLER).await.unwrap();
    issuer.stop().await;
    assert!(!api.exists() && !admin_socket(&api).exists());

    // Not a socket.
    fs::write(&api, "x").unwrap();
    let error = Issuer::open(data("c")).unwrap().bind().await.unwrap_err();
    assert!(matches!(error, IssuerError::WrongKind { .. }), "{error}");
    assert_eq!(fs::read(&api).unwrap(), b"x");
    // The admin socket was there first, and went again.
    assert!(!admin_socket(&api).exists());

    let long = dir.path().join("x".repeat(120));
    let long = IssuerConfig { socket: long, ..data("d") };
    let error = Issuer::open(long).unwrap().bind().await.unwrap_err();
    assert!(matches!(error, IssuerError::SocketPathTooLong { .. }), "{error}");
}

#[tokio::test]
async fn the_authority_survives_and_is_guarded() {
    let dir = TempDir::new().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("data/authority.pem"));
    let open = || Issuer::open(config(&dir));
    let first = open().unwrap();
    let root = first.shared.authority.bundle();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&data), mode(&file)), (0o700, 0o600));

    let error = open().unwrap_err();
    assert!(matches!(error, IssuerError::DataDirInUse { .. }), "{error}");
    drop(first);
    assert_eq!(open().unwrap().shared.authority.bundle(), root);

    let trust_domain = TrustDomain::parse("other.org").unwrap();
    let error = Issuer::open(IssuerConfig { trust_domain, ..config(&dir) }).unwrap_err();
    assert!(matches!(error, IssuerError::OtherTrustDomain { .. }), "{error}");

    for (path, wide, good) in [(&data, 0o750, 0o700), (&file, 0o640, 0o600), (&file, 0o604, 0o600)]
    {
        fs::set_permissions(path, Permissions::from_mode(wide)).unwrap();
        let error = open().unwrap_err();
        assert!(matches!(error, IssuerError::WideMode { wanted, .. } if wanted == good), "{error}");
        fs::set_permissions(path, Permissions::from_mode(good)).unwrap();
    }

    let kept = fs::read(&file).unwrap();
    fs::write(&file, &kept[..kept.len() / 3]).unwrap();
    let error = open().unwrap_err();
    assert!(matches!(error, IssuerError::Authority { .. }), "{error}");
    fs::write(&file, &kept).unwrap();

    fs::rename(&file, data.join("moved")).unwrap();
    std::os::unix::fs::symlink(data.join("moved"), &file).unwrap();
    let error = open().unwrap_err();
    assert!(matches!(error, IssuerError::WrongKind { .. }), "{error}");
}

#[tokio::test]
async fn a_renewed_authority_is_pushed_to_who_watches_bundles() {
    use futures_util::StreamExt;

    let dir = TempDir::new().unwrap();
    let bound = Issuer::open(config(&dir)).unwrap().bind().await.unwrap();
    let (shared, shutdown) = (Arc::clone(&bound.shared), CancellationToken::new());
    let endpoint = format!("unix://{}", bound.socket().display());
    let serving = tokio::spawn(bound.serve(shutdown.clone()));
    let client = spiffe::WorkloadApiClient::connect_to(endpoint).await.unwrap();
    let mut bundles = client.stream_x509_bundles().await.unwrap();
    let before = bundles.next().await.unwrap().unwrap();
    let due = SystemTime::now() + CA_TTL_DEFAULT;
    assert!(shared.authority.tend(due).unwrap());
    shared.tell_change();
    let after = bundles.next().await.unwrap().unwrap();
    assert_ne!(before, after);
    shutdown.cancel();
    assert!(bundles.next().await.is_none());
    serving.await.unwrap();
}

#[tokio::test]
async fn lives_that_contradict_each_other_are_refused() {
    let dir = TempDir::new().unwrap();
    let hour = Duration::from_secs(3600);
    let with = |svid_ttl, ca_ttl, jwt_svid_ttl| {
        let config = IssuerConfig { svid_ttl, ca_ttl, jwt_svid_ttl, ..config(&dir) };
        Issuer::open(config).unwrap_err().to_string()
    };
    for (error, expected) in [
        (with(hour / 3600, 10 * hour, hour), "a certificate good for 1s is too short; make it 2s"),
        (with(hour, 3 * hour, hour), "an authority good for 3h does not fit certificates good"),
        (with(hour, CA_TTL_MAX + hour, hour), "876000h at most"),
        (with(hour, 10 * hour, 2 * hour), "a token good for 2h is not made; make it 1s to 1h"),
        (with(hour, 10 * hour, hour / 7200), "a token good for 500ms"),
    ] {
        assert!(error.contains(expected), "{error}");
    }
    assert!(!dir.path().join("data").exists());
}

/// Calls a method that takes an empty message, over a connection that the test can follow.
struct Call {
    connection: JoinHandle<hyper::Result<()>>,
    sender: hyper::client::conn::http2::SendRequest<http_body_util::Full<bytes::Bytes>>,
}

impl Call {
    async fn connect(socket: &Path) -> Self {
        let io = hyper_util::rt::TokioIo::new(UnixStream::connect(socket).await.unwrap());
        let executor = hyper_util::rt::TokioExecutor::new();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(executor, io).await.unwrap();
        Self { connection: tokio::spawn(connection), sender }
    }

    async fn send(&mut self, method: &str) -> http::Response<hyper::body::Incoming> {
        let path = format!("http://localhost/SpiffeWorkloadAPI/{method}");
        let request = http::Request::post(path)
            .header("content-type", "application/grpc")
            .header("workload.spiffe.io", "true")
            .body(http_body_util::Full::new(bytes::Bytes::from_static(&[0; 5])))
            .unwrap();
        self.sender.send_request(request).await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn connections_without_a_call_end_and_those_with_one_stay() {
    use http_body_util::BodyExt;

    let dir = TempDir::new().unwrap();
    let issuer = Running::start(config(&dir)).await;
    // The clock runs as fast as everything else lets it.
    for says in [b"".as_slice(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"] {
        let mut silent = UnixStream::connect(&issuer.socket).await.unwrap();
        silent.write_all(says).await.unwrap();
        let mut heard = Vec::new();
        silent.read_to_end(&mut heard).await.unwrap();
    }

    let mut watching = Call::connect(&issuer.socket).await;
    let mut body = watching.send("FetchX509Bundles").await.into_body();
    assert!(body.frame().await.unwrap().unwrap().is_data());
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(!watching.connection.is_finished());
    // It is the open call that holds it.
    drop(body);
    watching.connection.await.unwrap().unwrap();
    issuer.stop().await;
}

#[tokio::test]
async fn one_user_cannot_have_every_watch() {
    let dir = TempDir::new().unwrap();
    let bound = Issuer::open(config(&dir)).unwrap().bind().await.unwrap();
    let (shared, socket) = (Arc::clone(&bound.shared), bound.socket().to_owned());
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(bound.serve(shutdown.clone()));
    let passes: Vec<_> =
        std::iter::from_fn(|| Gate::pass(&shared.watches, shared.own_uid)).take(10_000).collect();
    assert_eq!(passes.len(), WATCHES_PER_USER_MAX);
    let mut call = Call::connect(&socket).await;
    let status = |response: &http::Response<_>| response.headers().get("grpc-status").cloned();
    let exhausted = call.send("FetchX509Bundles").await;
    assert_eq!(status(&exhausted).unwrap(), "8");
    drop(passes);
    let response = call.send("FetchJWTBundles").await;
    assert_eq!(status(&response), None);
    drop((response, call));
    shutdown.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn a_file_of_entries_that_cannot_be_read_stops_the_start() {
    let dir = TempDir::new().unwrap();
    drop(Issuer::open(config(&dir)).unwrap());
    let file = dir.path().join("data/entries.json");
    fs::write(&file, "{}").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let error = Issuer::open(config(&dir)).unwrap_err();
    assert!(matches!(error, IssuerError::Entries { .. }), "{error}");
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let error = Issuer::open(config(&dir)).unwrap_err();
    assert!(matches!(error, IssuerError::WideMode { wanted: 0o600, .. }), "{error}");
}
