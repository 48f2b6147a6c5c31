//! A world of its own for each test: a directory, an issuer, agents.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Done, PATIENCE, Process, json_object, run};

pub(crate) const WORKER: &str = "spiffe://example.org/document-worker";
pub(crate) const ORCHESTRATOR: &str = "spiffe://example.org/orchestrator";

/// The sentence of the tutorial.
pub(crate) const SENTENCE: &str =
    "This is a wonderful document. It contains great information and amazing insights.";

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_convoke");

/// How often a file that grows is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What would change how the binary behaves, and is not the test's to say.
const FOREIGN_VARIABLES: [&str; 7] = [
    "COLUMNS",
    "SPIFFE_ENDPOINT_SOCKET",
    "CONVOKE_LOG",
    "CONVOKE_DATA_DIR",
    "NO_COLOR",
    "RUST_BACKTRACE",
    "RUST_LOG",
];

/// A directory and what is known of the processes in it. It is removed at the end.
pub(crate) struct World {
    dir: TempDir,
}

/// An agent that serves.
pub(crate) struct Agent {
    process: Process,
    pub(crate) spiffe_id: &'static str,
    pub(crate) port: u16,
    /// The development listener, if there is one.
    pub(crate) dev: Option<SocketAddr>,
    /// The metrics listener.
    pub(crate) metrics: SocketAddr,
    audit: PathBuf,
}

/// How an agent differs from the tutorial's.
#[derive(Default)]
pub(crate) struct Setup<'a> {
    /// Another policy.
    pub(crate) policy: Option<&'a str>,
    /// Where the worker is, for an orchestrator.
    pub(crate) worker_port: Option<u16>,
    /// Also a development listener.
    pub(crate) dev: bool,
}

/// The tutorial's issuer, worker and orchestrator.
pub(crate) struct Tutorial {
    pub(crate) orchestrator: Agent,
    pub(crate) worker: Agent,
    pub(crate) issuer: Process,
    pub(crate) world: World,
}

impl Tutorial {
    pub(crate) fn start() -> Self {
        Self::with_worker_policy(document_pipeline::WORKER_POLICY)
    }

    pub(crate) fn with_worker_policy(policy: &str) -> Self {
        let world = World::new();
        let issuer = world.issuer("example.org");
        let worker = world.worker(&Setup { policy: Some(policy), ..Setup::default() });
        let worker_port = Some(worker.port);
        let orchestrator = world.orchestrator(&Setup { worker_port, ..Setup::default() });
        Self { orchestrator, worker, issuer, world }
    }

    /// Calls the orchestrator and gives its answer.
    pub(crate) fn ask(&self, capability: &str, params: &Value) -> Value {
        self.world.call(&self.orchestrator, capability, &params.to_string(), &[]).json()
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("convoke-test-").tempdir().unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Waits until there is no file of this name any more.
    pub(crate) fn wait_until_gone(&self, name: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.path(name).exists() {
            assert!(Instant::now() < deadline, "{name} is still there");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// The binary, in this world's directory and with nothing of the user's environment that could
    /// matter.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.program(Path::new(BINARY), args)
    }

    pub(crate) fn program(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        for name in FOREIGN_VARIABLES {
            command.env_remove(name);
        }
        command
            .args(args)
            .current_dir(self.dir.path())
            .env("XDG_STATE_HOME", self.path("state"))
            .env("TMPDIR", self.dir.path());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Done {
        run(&mut self.command(args), b"")
    }

    /// The Workload API's socket of a trust domain.
    pub(crate) fn socket(&self, domain: &str) -> String {
        self.path(format!("{domain}.sock")).to_str().unwrap().to_owned()
    }

    /// Starts an issuer and waits until it answers.
    pub(crate) fn issuer(&self, domain: &str) -> Process {
        let socket = self.socket(domain);
        let args = [
            "identity",
            "serve",
            "--trust-domain",
            domain,
            "--socket",
            &socket,
            "--until-stdin-ends",
        ];
        let process = Process::start(&format!("issuer of {domain}"), &mut self.command(&args));
        let started = process.wait_for_message("Issuer started");
        assert_eq!(
            (&started["trust_domain"], &started["socket"]),
            (&domain.into(), &socket.into())
        );
        process
    }

    pub(crate) fn worker(&self, setup: &Setup<'_>) -> Agent {
        self.write("config/worker.yaml", &self.config(document_pipeline::WORKER_CONFIG));
        let policy = setup.policy.unwrap_or(document_pipeline::WORKER_POLICY);
        self.write("policies/worker_policy.rego", policy);
        self.serve("document-worker", "config/worker.yaml", WORKER, setup)
    }

    pub(crate) fn orchestrator(&self, setup: &Setup<'_>) -> Agent {
        let config = self.config(document_pipeline::ORCHESTRATOR_CONFIG);
        let worker = format!("https://localhost:{}", setup.worker_port.unwrap_or(9));
        let config = replaced(&config, "https://localhost:8443", &worker);
        self.write("config/orchestrator.yaml", &config);
        let policy = setup.policy.unwrap_or(document_pipeline::ORCHESTRATOR_POLICY);
        self.write("policies/orchestrator_policy.rego", policy);
        self.serve("document-orchestrator", "config/orchestrator.yaml", ORCHESTRATOR, setup)
    }

    /// The tutorial's configuration on free ports and on this world's socket.
    pub(crate) fn config(&self, tutorial: &str) -> String {
        let socket = self.socket("example.org");
        let config = replaced(tutorial, "/tmp/spire-agent/public/api.sock", &socket);
        let config = replaced(&config, "0.0.0.0", "127.0.0.1");
        let port = |line: &str| line.trim_start().starts_with("port:");
        assert_eq!(config.lines().filter(|line| port(line)).count(), 2, "{config}");
        let zero =
            |line: &str| line.split_once(':').map_or(String::new(), |(key, _)| format!("{key}: 0"));
        let lines =
            config.lines().map(|line| if port(line) { zero(line) } else { line.to_owned() });
        lines.map(|line| line + "\n").collect()
    }

    /// Serves one of the binary's agents and waits until it does.
    pub(crate) fn serve(
        &self,
        agent: &str,
        config: &str,
        spiffe_id: &'static str,
        setup: &Setup<'_>,
    ) -> Agent {
        let mut args = vec!["serve", "--agent", agent, config, "--until-stdin-ends"];
        if setup.dev {
            args.extend(["--dev", "127.0.0.1:0"]);
        }
        let process = Process::start(agent, &mut self.command(&args));
        let started = process.wait_for_message("Agent server started");
        let port = |line: &Value| u16::try_from(line["port"].as_u64().unwrap()).unwrap();
        let dev = setup.dev.then(|| {
            process.wait_for("the development listener", |line| {
                let line = json_object(line);
                let is_dev = line["message"].as_str()?.starts_with("Development listener started");
                is_dev.then(|| line["address"].as_str().unwrap().parse().unwrap())
            })
        });
        let metrics = port(&process.wait_for_message("Metrics server started"));
        let audit = process.wait_for_message("Audit log opened");
        Agent {
            spiffe_id,
            port: port(&started),
            dev,
            metrics: (Ipv4Addr::LOCALHOST, metrics).into(),
            audit: self.path(audit["path"].as_str().unwrap()),
            process,
        }
    }

    /// `convoke call` with this world's issuer.
    pub(crate) fn call(
        &self,
        agent: &Agent,
        capability: &str,
        params: &str,
        more: &[&str],
    ) -> Done {
        let address = agent.address();
        self.call_at(agent.spiffe_id, &address, capability, params, more)
    }

    pub(crate) fn call_at(
        &self,
        spiffe_id: &str,
        address: &str,
        capability: &str,
        params: &str,
        more: &[&str],
    ) -> Done {
        let socket = self.socket("example.org");
        let mut args = vec!["call", "--agent", spiffe_id, "--address", address];
        args.extend(["--capability", capability, "--params", params]);
        if !more.contains(&"--socket") {
            args.extend(["--socket", &socket]);
        }
        args.extend(more);
        self.run(&args)
    }
}

impl Agent {
    pub(crate) fn address(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    pub(crate) fn mesh(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The decisions on record so far that are written out in full.
    pub(crate) fn audit(&self) -> Vec<Value> {
        let mut records = self.audit_lines();
        records.retain(|record| record["event_type"] == "authorization");
        records
    }

    /// Everything on record so far that is written out in full.
    pub(crate) fn audit_lines(&self) -> Vec<Value> {
        let text = match std::fs::read_to_string(&self.audit) {
            Ok(text) => text,
            // The log is made with its first record.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => panic!("{}: {error}", self.audit.display()),
        };
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(json_object).collect()
    }

    pub(crate) fn audit_text(&self) -> String {
        std::fs::read_to_string(&self.audit).unwrap()
    }

    /// Waits until there are `count` records, which are written shortly after the answer.
    pub(crate) fn audit_of(&self, count: usize) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let records = self.audit();
            if records.len() >= count {
                assert_eq!(records.len(), count, "{records:#?}");
                return records;
            }
            assert!(Instant::now() < deadline, "{count} records: {records:#?}");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Ends the agent, after which every record is written, and gives them all.
    pub(crate) fn final_audit(&mut self) -> Vec<Value> {
        assert!(self.stop().success());
        self.audit()
    }

    /// The most memory that the process ever had in use, in KiB.
    pub(crate) fn peak_memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Asserts that nothing panicked in it.
    pub(crate) fn assert_unbroken(&self) {
        let lines = self.lines();
        assert!(!lines.iter().any(|line| line.to_lowercase().contains("panicked")), "{lines:#?}");
    }

    /// Asserts that nothing went wrong in it that its operator would have to look at.
    pub(crate) fn assert_sound(&self) {
        self.assert_unbroken();
        let lines = self.lines();
        assert!(!lines.iter().any(|line| line.contains(r#""level":"ERROR""#)), "{lines:#?}");
    }
}

impl Deref for Agent {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Agent {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// Replaces text that has to be there.
pub(crate) fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "`{from}` is not in {text}");
    text.replace(from, to)
}
