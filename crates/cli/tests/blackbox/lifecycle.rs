//! Start and end of an agent, and the commands that look at one.

use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use crate::process::{Done, PATIENCE, Process, json_object};
use crate::wire::Request;
use crate::world::{Agent, BINARY, SENTENCE, Setup, Tutorial, WORKER, World, replaced};

/// What a call of the orchestrator ends in that waits for a worker which hangs, when the orchestrator
/// is asked to end meanwhile; `then` comes once it drains.
fn drained_while_it_calls(tutorial: &Tutorial, then: impl FnOnce(&Tutorial)) -> Done {
    tutorial.worker.signal("STOP");
    let params = json!({"text": SENTENCE, "operations": ["count"]}).to_string();
    let (world, orchestrator) = (&tutorial.world, &tutorial.orchestrator);
    thread::scope(|scope| {
        let call = scope.spawn(|| world.call(orchestrator, "process_document", &params, &[]));
        orchestrator.wait_for_message("Calling agent");
        orchestrator.signal("TERM");
        orchestrator.wait_for_message("Agent server draining");
        then(tutorial);
        call.join().unwrap()
    })
}

#[test]
fn a_running_request_finishes_after_sigterm() {
    let mut tutorial = Tutorial::start();
    let done = drained_while_it_calls(&tutorial, |tutorial| tutorial.worker.signal("CONT"));
    assert_eq!(done.json()["results"]["word_count"]["word_count"], 12);
    assert_eq!(tutorial.orchestrator.wait().code(), Some(0));
    let stopped = tutorial.orchestrator.wait_for_message("Agent server stopped");
    assert_eq!((&stopped["finished"], &stopped["cut"]), (&json!(1), &json!(0)), "{stopped}");
    assert!(TcpStream::connect(tutorial.orchestrator.mesh()).is_err());
    tutorial.orchestrator.assert_sound();

    tutorial.worker.signal("INT");
    assert_eq!(tutorial.worker.wait().code(), Some(0));
    tutorial.issuer.signal("TERM");
    assert_eq!(tutorial.issuer.wait().code(), Some(0));
    let socket = tutorial.world.socket("example.org");
    assert!(!std::path::Path::new(&socket).exists(), "the socket goes with its issuer");
}

#[test]
fn a_second_signal_cuts_the_drain_short() {
    let mut tutorial = Tutorial::start();
    let done = drained_while_it_calls(&tutorial, |tutorial| tutorial.orchestrator.signal("TERM"));
    assert_ne!(done.code, Some(0), "{done:?}");
    assert_eq!(tutorial.orchestrator.wait().code(), Some(143));
    let stopped = tutorial.orchestrator.wait_for_message("Agent server stopped");
    assert_eq!((&stopped["finished"], &stopped["cut"]), (&json!(0), &json!(1)), "{stopped}");
    let said = "error: ended by SIGTERM before it had drained; requests cut off: 1, tasks lost: 0, \
                tasks left for the next start: 1";
    let lines = tutorial.orchestrator.lines();
    assert!(lines.iter().any(|line| line == said), "{lines:#?}");
    let trail = tutorial.orchestrator.audit_lines();
    assert!(trail.iter().any(|line| line["event_type"] == "shutdown"), "{trail:#?}");
}

#[test]
fn a_second_signal_ends_an_issuer_that_somebody_holds_up() {
    let world = World::new();
    let mut issuer = world.issuer("example.org");
    let rule = issuer.wait_for("the admin socket", |line| {
        Some(json_object(line)["admin_socket"].as_str()?.to_owned())
    });
    // Whoever connects and says nothing is waited for.
    let _silent = UnixStream::connect(rule).unwrap();
    // Answered one after the other, so the connection before this one has been taken.
    world.run(&["identity", "entry", "list", "--socket", &world.socket("example.org")]);
    issuer.signal("INT");
    world.wait_until_gone("example.org.sock");
    issuer.signal("INT");
    assert_eq!(issuer.wait().code(), Some(130));
    let lines = issuer.lines();
    assert!(lines.iter().any(|line| line.starts_with("error: ended by SIGINT")), "{lines:#?}");
}

/// The line with the error of a command that also logs.
#[test]
fn a_file_that_may_not_grow_is_as_a_full_disk() {
    let world = World::new();
    let _issuer = world.issuer("example.org");
    // The only file that grows is the audit trail's.
    let config =
        world.config(document_pipeline::WORKER_CONFIG) + "journal:\n  durability: memory\n";
    world.write("config/worker.yaml", &config);
    world.write("policies/worker_policy.rego", document_pipeline::WORKER_POLICY);
    // Some records fit; the shell counts in blocks of 512 or 1024 bytes.
    let serve = format!(
        "ulimit -f 3; exec {BINARY} serve --agent document-worker config/worker.yaml \
         --until-stdin-ends"
    );
    let mut process = Process::start("worker", &mut world.program("sh".as_ref(), &["-c", &serve]));
    let port = process.wait_for_message("Agent server started")["port"].clone();
    let address = format!("https://localhost:{port}");
    // A reload of what has not changed, which is no reason to end either.
    process.signal("HUP");
    let call = || world.call_at(WORKER, &address, "count_words", r#"{"text": "a b"}"#, &[]);
    let refused = (0..20).map(|_| call()).find(|done| done.code != Some(0)).unwrap();
    assert!(refused.stderr.contains("audit"), "{refused:?}");
    assert_ne!(call().code, Some(0), "and it stays so");
    let socket = world.socket("example.org");
    // Health is looked at from time to time.
    let deadline = Instant::now() + PATIENCE;
    let health = ["health", "--agent", WORKER, "--socket", &socket, &address];
    while world.run(&health).code == Some(0) {
        assert!(Instant::now() < deadline, "it says that it is ready");
    }
    let failed = process.json_lines().into_iter().find(|line| line["level"] == "ERROR").unwrap();
    assert!(failed.to_string().contains("File too large"), "{failed}");
    assert!(process.stop().code().is_some(), "no signal ended it");
}

fn error_of(done: &Done) -> &str {
    let line = done.stderr.lines().find_map(|line| line.strip_prefix("error: "));
    line.unwrap_or_else(|| panic!("{done:?}"))
}

#[test]
fn a_port_that_is_taken_is_named() {
    let world = World::new();
    let _issuer = world.issuer("example.org");
    let worker = world.worker(&Setup::default());
    let port = format!("port: {}", worker.port);
    let config = world.config(document_pipeline::WORKER_CONFIG).replacen("port: 0", &port, 1);
    let refused = |config: &str, expected: &str| {
        world.write("config/second.yaml", config);
        let done = world.run(&["serve", "--agent", "document-worker", "config/second.yaml"]);
        assert_eq!(done.code, Some(1), "{done:?}");
        let error = error_of(&done);
        assert!(error.contains(expected), "{error}");
        assert!(!done.stderr.contains("Agent server started"), "{done:?}");
    };
    // Two agents with one identity have one trail by default, and a trail has one writer.
    refused(&config, "is being written by another process");
    let apart = format!("{config}\ndata_dir: ./second\n");
    refused(&apart, &format!("port {} on 127.0.0.1 is in use", worker.port));
}

#[test]
fn everything_that_is_wrong_with_a_configuration_is_said_before_anything_happens() {
    let world = World::new();
    let config = world.config(document_pipeline::WORKER_CONFIG);
    world.write("policies/worker_policy.rego", document_pipeline::WORKER_POLICY);
    let wrong = replaced(&config, "spiffe_id:", "spife_id:");
    let wrong =
        replaced(&wrong, "  enabled: true\n    cert_source", "  enabled: false\n    cert_source");
    let wrong = wrong.replacen("port: 0", "port: many", 1);
    world.write("wrong.yaml", &wrong);
    let serve = ["serve", "--agent", "document-worker"];
    for args in [
        [&serve[..], &["wrong.yaml"]].concat(),
        [&serve[..], &["wrong.yaml", "--check"]].concat(),
        vec!["validate", "wrong.yaml"],
    ] {
        let done = world.run(&args);
        assert_eq!((done.code, done.stdout.as_str()), (Some(2), ""), "{done:?}");
        for part in [
            "spife_id",
            "did you mean `spiffe_id`",
            "server.port",
            "server.mtls.enabled",
            "wrong.yaml",
        ] {
            assert!(done.stderr.contains(part), "no `{part}`: {}", done.stderr);
        }
        assert!(!done.stderr.contains("started"), "{done:?}");
    }

    for (file, text, part) in [
        ("missing.yaml", replaced(&config, "worker_policy.rego", "no_such.rego"), "no_such.rego"),
        ("policy.yaml", replaced(&config, "worker_policy.rego", "broken.rego"), "broken.rego"),
        (
            "production.yaml",
            replaced(&config, "deny_all", "allow_all") + "environment: production\n",
            "allow_all",
        ),
    ] {
        world.write("policies/broken.rego", "package agentweave.authz\nallow { \n");
        world.write(file, &text);
        let done = world.run(&[&serve[..], &[file]].concat());
        assert_eq!(done.code, Some(2), "{done:?}");
        assert!(error_of(&done).contains(part), "{done:?}");
    }
    let done = world.run(&[&serve[..], &["no-such.yaml"]].concat());
    assert!(done.failure(2).0.contains("no-such.yaml"), "{done:?}");
    // Nothing was bound, issued or written.
    assert!(!world.path("state").exists());
}

#[test]
fn a_good_configuration_is_said_to_be_good() {
    let world = World::new();
    world.write("worker.yaml", &world.config(document_pipeline::WORKER_CONFIG));
    world.write("policies/worker_policy.rego", document_pipeline::WORKER_POLICY);
    let check = ["serve", "--agent", "document-worker", "worker.yaml", "--check"];
    for args in [&check[..], &["validate", "worker.yaml"]] {
        let done = world.run(args);
        assert_eq!((done.code, done.stdout.as_str()), (Some(0), ""), "{done:?}");
        assert!(done.stderr.contains("valid: worker.yaml"), "{done:?}");
    }
    let said = world.run(&check).stderr;
    assert!(said.contains("\n  count_words       whom policy allows\n"), "{said}");
    let report = world.run(&[&check[..], &["--json"]].concat()).json();
    assert_eq!((&report["valid"], &report["spiffe_id"]), (&json!(true), &json!(WORKER)));
    let capability = json!({"name": "count_words", "ephemeral": true, "requires_peer": null});
    assert!(report["capabilities"].as_array().unwrap().contains(&capability), "{report}");
    let wrong = ["serve", "--agent", "document-worker", "none.yaml", "--check", "--json"];
    assert!(world.run(&wrong).failure(2).0.contains("none.yaml"));
    let report = world.run(&["validate", "--json", "worker.yaml"]).json();
    assert_eq!((&report[0]["config"], &report[0]["valid"]), (&json!("worker.yaml"), &json!(true)));
    assert_eq!(report[0]["problems"], json!([]));
    assert!(!world.path("state").exists());
}

#[test]
fn a_development_listener_is_for_this_machine_and_not_for_production() {
    let world = World::new();
    let config = world.config(document_pipeline::WORKER_CONFIG);
    world.write("policies/worker_policy.rego", document_pipeline::WORKER_POLICY);
    world.write("worker.yaml", &config);
    world.write("production.yaml", &(config + "environment: production\ndata_dir: /d\n"));
    for (file, address) in [("worker.yaml", "0.0.0.0:0"), ("production.yaml", "127.0.0.1:0")] {
        let done = world.run(&["serve", "--agent", "document-worker", file, "--dev", address]);
        assert_eq!(done.code, Some(2), "{done:?}");
        assert!(error_of(&done).contains("development listener"), "{done:?}");
    }
}

#[test]
fn an_agent_without_its_identity_does_not_start() {
    let world = World::new();
    world.write("worker.yaml", &world.config(document_pipeline::WORKER_CONFIG));
    world.write("policies/worker_policy.rego", document_pipeline::WORKER_POLICY);
    let serve = ["serve", "--agent", "document-worker", "worker.yaml"];
    let done = world.run(&serve);
    assert_eq!(done.code, Some(10), "{done:?}");
    assert!(error_of(&done).contains(&world.socket("example.org")), "{done:?}");

    // An issuer of another trust domain at the same socket gives none either.
    let socket = world.socket("example.org");
    let args = ["identity", "serve", "--trust-domain", "other.example", "--socket", &socket];
    let issuer = Process::start("issuer", world.command(&args).arg("--until-stdin-ends"));
    issuer.wait_for_message("Issuer started");
    let done = world.run(&serve);
    assert_eq!(done.code, Some(10), "{done:?}");
    assert!(error_of(&done).contains(WORKER), "{done:?}");
    assert!(!done.stderr.contains("Agent server started"), "{done:?}");
}

#[test]
fn an_agent_can_be_looked_at() {
    let world = World::new();
    let _issuer = world.issuer("example.org");
    let worker = world.worker(&Setup { dev: true, ..Setup::default() });
    let socket = world.socket("example.org");
    let ask = |command: &[&str]| {
        let address = worker.address();
        let secure = [command, &["--agent", WORKER, "--socket", &socket, &address]].concat();
        let plain = format!("http://{}", worker.dev.unwrap());
        let plain = [command, &[&plain]].concat();
        let (secure, plain) = (world.run(&secure).json(), world.run(&plain).json());
        (secure, plain)
    };
    let (card, plain) = ask(&["card", "show"]);
    assert_eq!(card, plain);
    assert_eq!(
        (&card["name"], &card["version"]),
        (&json!("Document Worker Agent"), &json!("1.0.0"))
    );
    let skills: Vec<_> =
        card["skills"].as_array().unwrap().iter().map(|skill| &skill["id"]).collect();
    assert_eq!(skills, ["analyze_document", "count_words", "detect_sentiment"]);
    let interface = card["supportedInterfaces"][0]["url"].as_str().unwrap();
    assert_eq!(interface.trim_end_matches('/'), worker.address());

    let (health, _) = ask(&["health"]);
    assert_eq!(health["status"], "ready", "{health}");

    let (error, hint) = world.run(&["card", "show", &worker.address()]).failure(2);
    assert!(error.contains("https") && hint.contains("--agent"), "{error} {hint}");
    let (error, _) = world.run(&["card", "show", "http://192.0.2.1:80"]).failure(2);
    assert!(error.contains("not on this machine"), "{error}");

    let show = ["identity", "show", "--identity", WORKER, "--socket", &socket];
    let shown = world.run(&[&show[..], &["--json"]].concat()).json();
    assert_eq!(shown["spiffe_id"], WORKER);
    assert_eq!(shown["trust_domains"], json!(["example.org"]));
    assert!(shown["not_after"].is_string(), "{shown}");
}

#[test]
fn metrics_and_health_are_served_to_watchers() {
    let tutorial = Tutorial::start();
    tutorial.ask("process_document", &json!({"text": "good"}));
    let worker: &Agent = &tutorial.worker;
    let metrics = Request::get("/metrics").send(worker.metrics);
    assert_eq!(metrics.status, 200);
    let counted = metrics.body.lines().any(|line| {
        line.contains("analyze_document") && line.contains("success") && line.ends_with(" 1")
    });
    assert!(counted, "{}", metrics.body);
    for path in ["/health/live", "/health/ready", "/health"] {
        let health = Request::get(path).send(worker.metrics);
        assert_eq!(health.status, 200, "{health:?}");
        let _object: Value = health.json();
    }
    // Watchers ask; they do not call.
    assert_ne!(Request::post("{}").send(worker.metrics).status, 200);
}

#[test]
fn completions_are_scripts_that_know_the_commands() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish"] {
        let done = world.run(&["completions", shell]);
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{shell}");
        for word in ["convoke", "identity", "params"] {
            assert!(done.stdout.contains(word), "no `{word}` for {shell}");
        }
    }
}

#[test]
fn whom_nobody_named_is_explained() {
    let world = World::new();
    let _issuer = world.issuer("example.org");
    let call = ["call", "--agent", "spiffe://other.org/x", "--address", "https://localhost:1"];
    let socket = world.socket("example.org");
    let call = [&call[..], &["--capability", "x", "--socket", &socket]].concat();
    let (error, hint) = world.run(&call).failure(10);
    assert!(error.contains("spiffe://other.org/user/"), "{error}");
    assert!(hint.contains("--identity"), "{hint}");
    let named = [&call[..], &["--identity", "spiffe://other.org/me"]].concat();
    let (_, hint) = world.run(&named).failure(10);
    assert!(!hint.contains("--identity"), "{hint}");
}
