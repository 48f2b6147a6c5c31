//! `convoke doctor` on identities and clocks that are wrong, with certificates of the test's own.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use convoke::UnixMillis;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::doctor::{assert_says, doctor, pin};
use crate::process::{PATIENCE, Process};
use crate::world::{Setup, WORKER, World, replaced};

const FILE: &str = "config/worker.yaml";

/// A user that has nothing, on every Linux. Source: the kernel's overflowuid.
const NOBODY: u32 = 65534;

/// The years in which a certificate is valid.
#[derive(Clone, Copy)]
struct Years(i32, i32);

const NOW: Years = Years(2000, 2100);

fn params(uri: &str, years: Years) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    (params.not_before, params.not_after) =
        (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
    params
}

/// Writes the worker's configuration with an identity from files, whose certificate is valid in
/// `years`.
fn worker_of_files(world: &World, years: Years) {
    issue(world, params(WORKER, years));
    let path = |name: &str| world.path(name).to_str().unwrap().to_owned();
    let text = format!(
        "identity:\n  spiffe_id: {WORKER}\n  provider: files\n  files:\n    certificate: {}\n    \
         private_key: {}\n    bundle: {}\n",
        path("svid.pem"),
        path("svid.key"),
        path("bundle.pem")
    );
    world.write(FILE, &text);
}

/// Writes the worker's certificate with its key and root.
fn issue(world: &World, mut svid: CertificateParams) {
    let mut authority = params("spiffe://example.org", NOW);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().unwrap();
    world.write("bundle.pem", &authority.self_signed(&key).unwrap().pem());
    let issuer = Issuer::new(authority, key);
    svid.is_ca = IsCa::ExplicitNoCa;
    svid.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    svid.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    svid.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().unwrap();
    world.write("svid.pem", &svid.signed_by(&key, &issuer).unwrap().pem());
    world.write("svid.key", &key.serialize_pem());
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(world.path("svid.key"), mode).unwrap();
}

/// An agent with the worker's identity whose clock is `behind`: where it listens.
fn agent_behind(world: &World, behind: Duration) -> String {
    let certificate = CertificateDer::from_pem_file(world.path("svid.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(world.path("svid.key")).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut tls = StreamOwned::new(session, stream.unwrap());
            let date = http_date(SystemTime::now() - behind);
            let answer =
                format!("HTTP/1.1 200 OK\r\ndate: {date}\r\ncontent-length: 2\r\n\r\n{{}}");
            // Whoever only looks whether somebody listens asks nothing.
            if matches!(tls.read(&mut [0; 4096]), Ok(read) if read > 0) {
                let _gone = tls.write_all(answer.as_bytes()).and_then(|()| tls.flush());
            }
        }
    });
    address
}

/// An instant as HTTP writes it. Source: RFC 9110 §5.6.7.
fn http_date(at: SystemTime) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let since = at.duration_since(UNIX_EPOCH).unwrap();
    let text = UnixMillis(since.as_millis().try_into().unwrap()).to_string();
    let (day, clock) = text.split_once('T').unwrap();
    let [year, month, day]: [&str; 3] = day.split('-').collect::<Vec<_>>().try_into().unwrap();
    // 1970 began on a Thursday.
    let weekday = DAYS[usize::try_from(since.as_secs() / 86_400 % 7).unwrap()];
    let month = MONTHS[month.parse::<usize>().unwrap() - 1];
    format!("{weekday}, {day} {month} {year} {} GMT", &clock[..8])
}

#[test]
fn an_expired_certificate_is_named_with_its_end() {
    let world = World::new();
    worker_of_files(&world, Years(2020, 2021));
    let findings = doctor(&world, &[FILE], 1);
    let words = ["svid.pem", "expired at 2021-01-01T00:00:00", "put a new one"];
    assert_says(&findings, "identity", "wrong", &words);
    assert_says(&findings, "certificate", "skipped", &[]);
}

#[test]
fn an_agent_whose_certificate_ended_is_named_as_such() {
    let world = World::new();
    worker_of_files(&world, NOW);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut svid = params(WORKER, NOW);
    svid.not_after = date_time_ymd(1970, 1, 1) + since + Duration::from_secs(4);
    issue(&world, svid);
    let config = std::fs::read_to_string(world.path(FILE)).unwrap();
    let config = format!(
        "{config}server:\n  host: 127.0.0.1\n  port: 0\nobservability:\n  metrics:\n    \
         enabled: true\n    port: 0\n"
    );
    world.write(FILE, &config);
    let agent = world.serve("document-worker", FILE, WORKER, &Setup::default());
    pin(&world, FILE, &agent);

    let health = ["health", &format!("http://{}", agent.metrics)];
    let deadline = Instant::now() + PATIENCE;
    while world.run(&health).code == Some(0) {
        assert!(Instant::now() < deadline, "its certificate does not end");
    }
    let findings = doctor(&world, &[FILE], 1);
    assert_says(&findings, "port", "good", &["is served by"]);
    assert_says(&findings, "agent", "wrong", &["its certificate ended at 2", "new files"]);
    assert_says(&findings, "metrics port", "good", &["served by the agent"]);
}

#[test]
fn a_socket_that_is_none_is_said_to_be_none() {
    let world = World::new();
    world.write(FILE, &world.config(document_pipeline::WORKER_CONFIG));
    world.write("example.org.sock", "");
    let findings = doctor(&world, &[FILE], 1);
    assert_says(&findings, "identity", "wrong", &["is no socket but a regular file"]);
}

#[test]
fn a_certificate_that_is_not_valid_yet_is_named_with_its_beginning() {
    let world = World::new();
    worker_of_files(&world, Years(2090, 2100));
    let findings = doctor(&world, &[FILE], 1);
    assert_says(&findings, "identity", "good", &[WORKER]);
    let words = ["not valid before 2090-01-01T00:00:00", "clock"];
    assert_says(&findings, "certificate", "wrong", &words);
}

#[test]
fn a_clock_that_is_wrong_is_measured() {
    let world = World::new();
    worker_of_files(&world, NOW);
    let look = |behind: Duration, code: i32| {
        let address = agent_behind(&world, behind);
        let findings = doctor(&world, &[FILE, "--address", &address], code);
        assert_says(&findings, "agent", "good", &[&address]);
        findings
    };
    let wrong = look(Duration::from_secs(300), 1);
    assert_says(&wrong, "clock", "wrong", &["5 min behind", "NTP"]);
    let doubtful = look(Duration::from_secs(30), 0);
    assert_says(&doubtful, "clock", "warning", &[" s behind", "NTP"]);
    assert_says(&look(Duration::ZERO, 0), "clock", "good", &["agree"]);
}

#[test]
fn a_socket_that_a_stranger_serves_is_not_believed() {
    // Only root can start somebody else's process.
    if let Err(why) = Command::new("true").uid(NOBODY).status() {
        println!("skipped: another user's process: {why}");
        return;
    }
    let world = World::new();
    let stranger = world.path("stranger");
    std::fs::create_dir(&stranger).unwrap();
    for (path, mode) in [(&world.path(""), 0o755), (&stranger, 0o777)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let path = |name: &str| stranger.join(name).to_str().unwrap().to_owned();
    let (socket, data) = (path("api.sock"), path("data"));
    let mut command = world.command(&["identity", "serve", "--trust-domain", "example.org"]);
    command.args(["--socket", &socket, "--data-dir", &data, "--until-stdin-ends"]);
    let issuer = Process::start("a stranger's issuer", command.uid(NOBODY));
    issuer.wait_for_message("Issuer started");

    let config = world.config(document_pipeline::WORKER_CONFIG);
    let config = replaced(&config, &world.socket("example.org"), &socket);
    world.write(FILE, &config);
    world.write("policies/worker_policy.rego", document_pipeline::WORKER_POLICY);
    let findings = doctor(&world, &[FILE], 1);
    let nobody = format!("served by uid {NOBODY}");
    let cure = format!("identity.issuer_uid: {NOBODY}");
    assert_says(&findings, "identity", "wrong", &[&socket, &nobody, &cure]);
}
