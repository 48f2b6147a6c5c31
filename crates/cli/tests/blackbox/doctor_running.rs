//! `convoke doctor` and `convoke health` on an agent that runs and is not what its files say.

use crate::doctor::{WORKER_FILE, assert_says, change, doctor, pin};
use crate::world::{ORCHESTRATOR, Setup, Tutorial, WORKER, World};

const POLICY: &str = "policies/worker_policy.rego";

#[test]
fn a_policy_that_the_agent_does_not_decide_by_is_told() {
    let world = World::new();
    let _issuer = world.issuer("example.org");
    let agent = world.worker(&Setup::default());
    pin(&world, WORKER_FILE, &agent);
    let asked = [WORKER_FILE, "--caller", ORCHESTRATOR, "--method", "count_words"];
    let findings = doctor(&world, &asked, 0);
    assert_says(&findings, "policy in use", "good", &["which is this file's"]);
    assert_says(&findings, "authorization", "good", &["may call count_words\""]);

    // The running agent keeps to the file that it was started with.
    let other = format!("{}\n# another\n", document_pipeline::WORKER_POLICY);
    world.write("policies/other.rego", &other);
    change(&world, WORKER_FILE, "worker_policy.rego", "other.rego");
    let findings = doctor(&world, &asked, 1);
    let words = ["the agent decides by", "this file is", "restart"];
    assert_says(&findings, "policy in use", "wrong", &words);
    assert_says(&findings, "authorization", "good", &["not what the agent decides by"]);
}

#[test]
fn a_reload_that_fails_is_told_by_health_and_by_the_doctor() {
    let world = World::new();
    let _issuer = world.issuer("example.org");
    let agent = world.worker(&Setup::default());
    pin(&world, WORKER_FILE, &agent);
    let address = format!("http://{}", agent.metrics);
    assert_eq!(world.run(&["health", &address]).json()["checks"]["policy"], "ok");

    world.write(POLICY, "package agentweave.authz\nallow if {\n");
    agent.signal("HUP");
    agent.wait_for_message("Policy was not reloaded; the last good one decides");
    let done = world.run(&["health", &address]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let health = done.json();
    let policy = health["checks"]["policy"].as_str().unwrap();
    assert!(policy.starts_with("reload failing since 2"), "{health}");
    assert_eq!(health["status"], "ready");
    let findings = doctor(&world, &[WORKER_FILE], 1);
    let words = ["reload failing since 2", "worker_policy.rego", "correct the policy"];
    assert_says(&findings, "policy in use", "wrong", &words);
}

#[test]
fn a_capability_that_the_agent_lacks_is_not_said_to_be_allowed() {
    let world = World::new();
    let _issuer = world.issuer("example.org");
    let agent = world.worker(&Setup::default());
    pin(&world, WORKER_FILE, &agent);
    let check = |method: &str, words: &[&str]| {
        let asked = [WORKER_FILE, "--caller", ORCHESTRATOR, "--method", method];
        let findings = doctor(&world, &asked, 1);
        assert_says(&findings, "authorization", "wrong", words);
        let allowed = findings.iter().any(|one| one["message"].to_string().contains("may call"));
        assert!(!allowed, "{findings:#?}");
    };
    check("count_wrods", &["no capability `count_wrods`", "did you mean count_words?"]);
    check("nope", &["no capability `nope`", "analyze_document, count_words"]);
}

#[test]
fn a_port_that_was_edited_is_told_in_one_line() {
    let world = World::new();
    let _issuer = world.issuer("example.org");
    let agent = world.worker(&Setup::default());
    pin(&world, WORKER_FILE, &agent);
    let (from, to) = (format!("port: {}", agent.port), "port: 9".to_owned());
    change(&world, WORKER_FILE, &from, &to);
    let findings = doctor(&world, &[WORKER_FILE], 1);
    let words = ["the running agent listens on another port", &agent.port.to_string()];
    assert_says(&findings, "port", "wrong", &words);
    let wrong = findings.iter().filter(|one| one["verdict"] == "wrong").count();
    assert_eq!(wrong, 1, "{findings:#?}");
    assert_says(&findings, "metrics port", "good", &["served by the agent"]);
}

#[test]
fn an_id_that_is_not_the_agents_is_cured_in_the_configuration() {
    let tutorial = Tutorial::start();
    let world = &tutorial.world;
    pin(world, WORKER_FILE, &tutorial.worker);
    // Without the agent's word, which is asked for on this port alone.
    let elsewhere = tutorial.orchestrator.address();
    let findings = doctor(world, &[WORKER_FILE, "--address", &elsewhere], 1);
    assert_says(&findings, "agent", "wrong", &[ORCHESTRATOR, "`identity.spiffe_id`"]);
    assert!(!findings.iter().any(|one| one["cure"].to_string().contains("--agent")));

    change(world, WORKER_FILE, WORKER, "spiffe://example.org/Document-Worker");
    let findings = doctor(world, &[WORKER_FILE], 1);
    let words = [WORKER, "Document-Worker", "case alone", "correct `identity.spiffe_id`"];
    assert_says(&findings, "agent", "wrong", &words);
}

#[test]
fn the_summary_says_that_the_agent_does_not_run() {
    let world = World::new();
    let _issuer = world.issuer("example.org");
    let mut agent = world.worker(&Setup::default());
    pin(&world, WORKER_FILE, &agent);
    let done = world.run(&["doctor", WORKER_FILE]);
    assert!(done.stderr.contains("nothing is wrong"), "{done:?}");
    assert!(agent.stop().success());
    let done = world.run(&["doctor", WORKER_FILE]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let words = "healthy: the configuration is right; the agent does not run";
    assert!(done.stderr.contains(words), "{done:?}");
}

#[test]
fn plain_http_to_the_port_of_tls_is_told_what_is_spoken_there() {
    let world = World::new();
    let _issuer = world.issuer("example.org");
    let agent = world.worker(&Setup::default());
    let address = format!("http://localhost:{}", agent.port);
    for command in [&["health"][..], &["card", "show"]] {
        let (error, hint) = world.run(&[command, &[&address]].concat()).failure(2);
        assert!(error.contains("TLS is spoken at"), "{error}");
        assert!(hint.contains("https://") && hint.contains("--agent"), "{hint}");
    }
}
