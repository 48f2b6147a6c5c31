//! SPIRE itself at the other end: the code path is the one that our issuer has.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use convoke_identity::{IdentityError, IdentitySource, WorkloadApiConfig};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::world::{WORKER, id, our_uid};

/// How long SPIRE may take until it gives an identity: its agent asks its server each 5 s.
const READY_MAX: Duration = Duration::from_secs(60);

/// Who the agent is to its server.
const AGENT: &str = "spiffe://example.org/agent";

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

#[tokio::test]
async fn a_spire_agent_needs_no_change() {
    if !on_path("spire-server") || !on_path("spire-agent") {
        println!(
            "skipped: a_spire_agent_needs_no_change: spire-server and spire-agent are not on PATH"
        );
        return;
    }
    let dir = TempDir::new().unwrap();
    let spire = Spire::start(dir.path()).await;
    let config = WorkloadApiConfig::new(dir.path().join("agent.sock"), id(WORKER));
    let source = retried(async || match IdentitySource::connect(config.clone()).await {
        Ok(source) => Some(source),
        Err(IdentityError::NothingIssued { .. } | IdentityError::SocketMissing { .. }) => None,
        Err(error) => panic!("{error}"),
    });
    let source = source.await;
    assert_eq!(source.current().spiffe_id(), &id(WORKER));
    drop(spire);
}

/// A server and an agent; both end with it.
struct Spire {
    _server: Child,
    _agent: Child,
}

impl Spire {
    async fn start(dir: &Path) -> Self {
        let port = free_port();
        let shown = dir.display();
        let server_socket = dir.join("server.sock");
        let server = format!(
            "server {{\n bind_address = \"127.0.0.1\"\n bind_port = \"{port}\"\n \
             socket_path = \"{}\"\n trust_domain = \"example.org\"\n \
             data_dir = \"{shown}/server\"\n log_level = \"ERROR\"\n}}\nplugins {{\n \
             DataStore \"sql\" {{\n plugin_data {{\n database_type = \"sqlite3\"\n \
             connection_string = \"{shown}/server.sqlite3\"\n }}\n }}\n \
             NodeAttestor \"join_token\" {{\n plugin_data {{}}\n }}\n \
             KeyManager \"memory\" {{\n plugin_data {{}}\n }}\n}}\n",
            server_socket.display()
        );
        let server = run(dir, "spire-server", &server);
        let ask = async |args: &[&str]| {
            let mut command = Command::new("spire-server");
            command.args(args).arg("-socketPath").arg(&server_socket).stdin(Stdio::null());
            let ran = command.output().await.unwrap();
            ran.status.success().then(|| String::from_utf8(ran.stdout).unwrap())
        };
        retried(async || ask(&["healthcheck"]).await).await;
        let token = ask(&["token", "generate", "-spiffeID", AGENT]).await.unwrap();
        let token = token.trim().strip_prefix("Token:").unwrap().trim();
        let selector = our_uid().to_string();
        let entry =
            ["entry", "create", "-parentID", AGENT, "-spiffeID", WORKER, "-selector", &selector];
        ask(&entry).await.unwrap();
        let agent = format!(
            "agent {{\n data_dir = \"{shown}/agent\"\n server_address = \"127.0.0.1\"\n \
             server_port = \"{port}\"\n socket_path = \"{shown}/agent.sock\"\n \
             trust_domain = \"example.org\"\n insecure_bootstrap = true\n \
             join_token = \"{token}\"\n log_level = \"ERROR\"\n}}\nplugins {{\n \
             NodeAttestor \"join_token\" {{\n plugin_data {{}}\n }}\n \
             KeyManager \"memory\" {{\n plugin_data {{}}\n }}\n \
             WorkloadAttestor \"unix\" {{\n plugin_data {{}}\n }}\n}}\n"
        );
        Self { _server: server, _agent: run(dir, "spire-agent", &agent) }
    }
}

fn run(dir: &Path, program: &str, config: &str) -> Child {
    let file = dir.join(program).with_extension("conf");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(program);
    command.arg("run").arg("-config").arg(file).stdin(Stdio::null()).kill_on_drop(true);
    command.spawn().unwrap()
}

/// A port that was free a moment ago.
#[allow(clippy::disallowed_methods, reason = "the server that listens is not ours")]
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Asks until there is an answer: SPIRE has no event that says that it is ready.
async fn retried<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let answer = async {
        loop {
            match ask().await {
                Some(answer) => return answer,
                None => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    };
    tokio::time::timeout(READY_MAX, answer).await.expect("SPIRE is ready in time")
}
