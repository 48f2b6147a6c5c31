//! `convoke doctor`: one thing broken at a time, and the sentence that names it.

use std::net::TcpListener;

use serde_json::Value;

use crate::process::Done;
use crate::world::{Agent, ORCHESTRATOR, Setup, Tutorial, WORKER, World, replaced};

pub(crate) const WORKER_FILE: &str = "config/worker.yaml";
const ORCHESTRATOR_FILE: &str = "config/orchestrator.yaml";

/// What the doctor says of `args`, which ends with `code`.
pub(crate) fn doctor(world: &World, args: &[&str], code: i32) -> Vec<Value> {
    let done = world.run(&[&["doctor", "--json"], args].concat());
    assert_eq!(done.code, Some(code), "{done:?}");
    let report: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(report["healthy"], code == 0, "{report}");
    report["findings"].as_array().unwrap().clone()
}

/// Asserts that `check` came to `verdict` with a sentence that has all of `words`.
pub(crate) fn assert_says(findings: &[Value], check: &str, verdict: &str, words: &[&str]) {
    let is = |finding: &&Value| {
        let text = format!("{} {}", finding["message"], finding["cure"]);
        let has = words.iter().all(|word| text.contains(word));
        finding["check"] == check && finding["verdict"] == verdict && has
    };
    let found = findings.iter().find(is);
    assert!(found.is_some(), "{check} {verdict} {words:?}: {findings:#?}");
}

/// The configurations of agents that serve, with the ports that they have got.
fn pin_ports(tutorial: &Tutorial) {
    pin(&tutorial.world, WORKER_FILE, &tutorial.worker);
    pin(&tutorial.world, ORCHESTRATOR_FILE, &tutorial.orchestrator);
}

/// Writes the ports that `agent` has got into its configuration.
pub(crate) fn pin(world: &World, file: &str, agent: &Agent) {
    for port in [agent.port, agent.metrics.port()] {
        let text = std::fs::read_to_string(world.path(file)).unwrap();
        world.write(file, &text.replacen("port: 0", &format!("port: {port}"), 1));
    }
}

/// Rewrites a file of the world.
pub(crate) fn change(world: &World, file: &str, from: &str, to: &str) {
    let text = std::fs::read_to_string(world.path(file)).unwrap();
    world.write(file, &replaced(&text, from, to));
}

#[test]
fn agents_that_run_and_may_call_each_other_are_healthy() {
    let tutorial = Tutorial::start();
    pin_ports(&tutorial);
    let world = &tutorial.world;
    let findings = doctor(world, &[WORKER_FILE, ORCHESTRATOR_FILE], 0);
    for check in ["configuration", "policy", "data directory", "audit file", "identity"] {
        assert_says(&findings, check, "good", &[]);
    }
    for check in ["certificate", "port", "agent", "clock", "metrics port"] {
        assert_says(&findings, check, "good", &[]);
    }
    assert_says(&findings, "registry", "good", &["document_worker", "TLS"]);
    assert_says(&findings, "authorization", "good", &[ORCHESTRATOR, "count_words"]);

    let words = world.run(&["doctor", WORKER_FILE]);
    assert_eq!((words.code, words.stdout.as_str()), (Some(0), ""), "{words:?}");
    assert!(words.stderr.contains("✓ agent: answers"), "{words:?}");

    // A port that is not the worker's, said without asking anybody.
    let right = format!("https://localhost:{}", tutorial.worker.port);
    change(world, ORCHESTRATOR_FILE, &right, "https://localhost:9");
    let findings = doctor(world, &[WORKER_FILE, ORCHESTRATOR_FILE], 1);
    assert_says(&findings, "registry", "wrong", &["server.port", "https://localhost:9"]);
    // Without the worker's file it is refused there.
    let findings = doctor(world, &[ORCHESTRATOR_FILE], 1);
    assert_says(&findings, "registry", "wrong", &["cannot reach", "firewall"]);
    change(world, ORCHESTRATOR_FILE, "https://localhost:9", &right);

    // The case of an ID.
    change(world, ORCHESTRATOR_FILE, WORKER, "spiffe://example.org/Document-Worker");
    let findings = doctor(world, &[ORCHESTRATOR_FILE, WORKER_FILE], 1);
    assert_says(&findings, "registry", "wrong", &["case alone"]);
    let findings = doctor(world, &[ORCHESTRATOR_FILE], 1);
    assert_says(&findings, "registry", "wrong", &["case-sensitive"]);
}

#[test]
fn a_refusal_names_the_rule_with_its_line() {
    let world = World::new();
    world.write(WORKER_FILE, &world.config(document_pipeline::WORKER_CONFIG));
    let policy = document_pipeline::WORKER_POLICY_STRICT;
    world.write("policies/worker_policy.rego", policy);
    let args = [WORKER_FILE, "--method", "count_words", "--caller"];
    let findings = doctor(&world, &[&args[..], &["spiffe://example.org/nobody"]].concat(), 1);
    let words = ["count_words", "worker_policy.rego:", "rule `allow`", "is not true"];
    assert_says(&findings, "authorization", "wrong", &words);
}

#[test]
fn each_broken_thing_has_its_sentence() {
    let world = World::new();
    let config = world.config(document_pipeline::WORKER_CONFIG);
    let socket = world.socket("example.org");
    world.write("policies/worker_policy.rego", document_pipeline::WORKER_POLICY);
    let check = |config: &str, check: &str, words: &[&str]| {
        world.write(WORKER_FILE, config);
        assert_says(&doctor(&world, &[WORKER_FILE], 1), check, "wrong", words);
    };
    check(&format!("{config}\nserfer: 1\n"), "configuration", &["worker.yaml:", "serfer"]);
    check(&config, "identity", &["no Workload API answers", &socket, "convoke identity serve"]);
    let elsewhere = replaced(&config, "worker_policy.rego", "worker_polcy.rego");
    check(&elsewhere, "policy", &["there is no policy", "did you mean `worker_policy.rego`"]);
    world.write("policies/broken.rego", "package agentweave.authz\nallow if {\n");
    let broken = replaced(&config, "worker_policy.rego", "broken.rego");
    check(&broken, "policy", &["broken.rego", "convoke policy check"]);
    world.write("file", "");
    let data = format!("{config}\ndata_dir: {}\n", world.path("file/data").display());
    check(&data, "data directory", &["is no directory", "data_dir"]);
    let traced = replaced(
        &config,
        "observability:\n",
        "observability:\n  tracing:\n    enabled: true\n    otlp_endpoint: http://localhost:9\n",
    );
    world.write(WORKER_FILE, &traced);
    let findings = doctor(&world, &[WORKER_FILE], 1);
    assert_says(&findings, "collector", "warning", &["localhost:9", "otlp_endpoint"]);
    let remote = replaced(
        &config,
        "authorization:\n",
        "authorization:\n  opa:\n    enabled: true\n    url: http://localhost:9\n",
    );
    let remote: String = remote
        .lines()
        .filter(|line| !line.contains("policy_file:") && !line.contains("policy_path:"))
        .map(|line| format!("{line}\n"))
        .collect();
    check(&remote, "policy server", &["localhost:9", "authorization.opa.url"]);

    // Somebody else on the port, and on that of the metrics.
    let issuer = world.issuer("example.org");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let pid = format!("pid {}", std::process::id());
    let mesh = config.replacen("port: 0", &format!("port: {port}"), 1);
    let both = mesh.replacen("port: 0", &format!("port: {port}"), 1);
    check(&both, "configuration", &["observability.metrics.port", "server.port"]);
    // Whoever it is never answers a handshake, so it ends the connection instead.
    let ends = std::thread::spawn(move || drop(taken.accept().unwrap()));
    check(&mesh, "port", &["is in use by", &pid, "server.port"]);
    ends.join().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let (head, tail) = config.rsplit_once("port: 0").unwrap();
    check(&format!("{head}port: {port}{tail}"), "metrics port", &["is in use by", &pid]);

    // An identity that is not of the issuer's trust domain.
    let other = config.replace("example.org/document-worker", "other.org/worker");
    let other = replaced(&other, "trust_domain: \"example.org\"", "trust_domain: \"other.org\"");
    check(&other, "identity", &["spiffe://other.org/worker"]);
    drop(issuer);
}

#[test]
fn an_audit_file_that_another_agent_writes_is_named_with_its_writer() {
    let world = World::new();
    let _issuer = world.issuer("example.org");
    let agent = world.worker(&Setup::default());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    drop(taken);
    let config = world.config(document_pipeline::WORKER_CONFIG);
    world.write("config/second.yaml", &config.replacen("port: 0", &format!("port: {port}"), 1));
    let findings = doctor(&world, &["config/second.yaml"], 1);
    let pid = format!("pid {}", agent.pid());
    assert_says(&findings, "audit file", "wrong", &["is locked by", &pid]);
    assert_says(&findings, "port", "warning", &["nothing listens"]);
}

#[test]
fn an_audit_file_whose_lock_cannot_be_taken_is_not_said_to_be_good() {
    let world = World::new();
    world.write(WORKER_FILE, &world.config(document_pipeline::WORKER_CONFIG));
    world.write("policies/worker_policy.rego", document_pipeline::WORKER_POLICY);
    let lock = world.path("state/convoke/example.org/document-worker/audit.jsonl.lock");
    std::fs::create_dir_all(&lock).unwrap();
    let findings = doctor(&world, &[WORKER_FILE], 1);
    let words = ["audit.jsonl.lock is a directory", "remove it"];
    assert_says(&findings, "audit file", "wrong", &words);
    std::fs::remove_dir(&lock).unwrap();
    assert_says(&doctor(&world, &[WORKER_FILE], 1), "audit file", "good", &["can be written"]);
}

#[test]
fn the_doctor_changes_nothing() {
    let world = World::new();
    world.write(WORKER_FILE, &world.config(document_pipeline::WORKER_CONFIG));
    world.write("policies/worker_policy.rego", document_pipeline::WORKER_POLICY);
    let done: Done = world.run(&["doctor", WORKER_FILE]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(!world.path("state").exists(), "the data directory was made");
}
