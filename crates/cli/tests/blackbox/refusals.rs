//! Calls that must not succeed: each has its own exit code and one clear line with the cure.

use std::net::TcpListener;

use serde_json::json;

use crate::process::json_object;
use crate::world::{SENTENCE, Setup, Tutorial, WORKER, World};

/// Parameters that every capability takes.
const TEXT: &str = r#"{"text": "good"}"#;

#[test]
fn a_killed_worker_fails_each_operation_under_its_own_name() {
    let mut tutorial = Tutorial::start();
    // Once with the worker up, so that there are connections that break.
    tutorial.ask("process_document", &json!({"text": SENTENCE}));
    tutorial.worker.kill();

    let operations = ["analyze", "translate", "count", "sentiment"];
    let params = json!({"text": SENTENCE, "operations": operations});
    let report = tutorial.ask("process_document", &params);
    assert_eq!(report["status"], "completed");
    assert_eq!(report["operations_performed"], json!(operations));
    let results = report["results"].as_object().unwrap();
    assert_eq!(results.keys().collect::<Vec<_>>(), ["analyze", "count", "sentiment", "translate"]);
    for operation in ["analyze", "count", "sentiment"] {
        let failed = &results[operation];
        assert_eq!(failed["status"], "failed", "{failed}");
        let error = failed["error"].as_str().unwrap();
        // After some failures the worker is not even called any more.
        let is_said = error.contains("cannot reach") || error.contains("is not called");
        assert!(error.contains(WORKER) && is_said, "{error}");
    }
    assert_eq!(results["translate"], json!({"error": "Unknown operation"}));

    let batch = tutorial.ask("batch_process", &crate::tutorial::batch());
    assert_eq!((&batch["successful"], &batch["failed"]), (&json!(0), &json!(3)));
    for (result, id) in batch["results"].as_array().unwrap().iter().zip(["doc1", "doc2", "doc3"]) {
        assert_eq!((&result["id"], &result["status"]), (&json!(id), &json!("failed")));
        assert!(result["error"].as_str().unwrap().contains(WORKER), "{result}");
    }
    let errors = tutorial.orchestrator.json_lines();
    let errors = errors.iter().filter(|line| line["level"] == "ERROR");
    assert_eq!(errors.filter(|line| line["error"].is_string()).count(), 3);

    let done = tutorial.world.call(&tutorial.worker, "count_words", TEXT, &[]);
    let (error, hint) = done.failure(4);
    assert!(error.contains(WORKER) && error.contains(&tutorial.worker.address()), "{error}");
    assert!(hint.contains("check that the agent runs"), "{hint}");
    // What was not sent was tried again.
    let line = done.stderr.lines().last().unwrap();
    assert!(line.starts_with("call: 3 attempts, trace "), "{line}");
    let done = tutorial.world.call(&tutorial.worker, "count_words", TEXT, &["--json"]);
    let error = &json_object(done.stderr.trim_end())["error"];
    assert_eq!((&error["attempts"], &error["code"]), (&json!(3), &json!("unreachable")));
    assert_eq!(error["trace_id"].as_str().unwrap().len(), 32, "{error}");
}

#[test]
fn a_refusal_names_agent_capability_and_cure() {
    let mut tutorial = Tutorial::with_worker_policy(document_pipeline::WORKER_POLICY_STRICT);
    let done = tutorial.world.call(&tutorial.worker, "count_words", TEXT, &[]);
    let (error, hint) = done.failure(3);
    assert!(error.starts_with(&format!("{WORKER} refused `count_words`: ")), "{error}");
    assert!(hint.contains("policy has to allow this caller"), "{hint}");
    // What decided is for the operator, not for who was refused.
    assert!(!error.contains("agentweave.authz"), "{error}");
    let trace = done.stderr.lines().last().unwrap().strip_prefix("call: one attempt, trace ");
    let trace = trace.unwrap_or_else(|| panic!("{done:?}")).to_owned();

    // The cure that the hint names works: the uid may take any identity of its own issuer.
    let orchestrator = ["--identity", crate::world::ORCHESTRATOR];
    let done = tutorial.world.call(&tutorial.worker, "count_words", TEXT, &orchestrator);
    assert_eq!(done.json()["word_count"], 1);

    let records = tutorial.worker.final_audit();
    let decisions: Vec<_> = records.iter().map(|record| &record["decision"]).collect();
    assert_eq!(decisions, ["deny", "allow"]);
    assert_eq!(records[0]["capability"], "count_words");
    // By the trace a refusal is found where it was made.
    assert_eq!(records[0]["trace_id"], trace);
}

#[test]
fn a_handler_that_is_refused_says_so_under_the_operation() {
    let strict = document_pipeline::WORKER_POLICY_STRICT;
    let policy = crate::world::replaced(strict, "\"count_words\", ", "");
    let tutorial = Tutorial::with_worker_policy(&policy);
    let params = json!({"text": SENTENCE, "operations": ["count", "sentiment"]});
    let results = &tutorial.ask("process_document", &params)["results"];
    assert_eq!(results["count"]["status"], "failed");
    let error = results["count"]["error"].as_str().unwrap();
    assert!(error.starts_with(&format!("{WORKER} refused `count_words`")), "{error}");
    assert_eq!(results["sentiment"]["sentiment"], "positive");
}

#[test]
fn a_peer_of_a_foreign_trust_domain_is_turned_away() {
    let world = World::new();
    let _issuer = world.issuer("example.org");
    let _other = world.issuer("stranger.example");
    let mut worker = world.worker(&Setup::default());
    let socket = world.socket("stranger.example");
    let identity = "spiffe://stranger.example/orchestrator";
    let more = ["--socket", &socket, "--identity", identity];
    let done = world.call(&worker, "count_words", TEXT, &more);
    // The stranger's own check comes first: it does not know the worker's domain either. That the
    // worker refuses one that does is for `tls::strangers_certificates_fail_the_handshake`.
    let (error, _hint) = done.failure(5);
    assert!(error.contains(WORKER) && error.contains("trust"), "{error}");
    assert_eq!(worker.final_audit(), [] as [serde_json::Value; 0]);
    worker.assert_sound();
}

#[test]
fn another_agent_at_the_right_address_is_not_talked_to() {
    let mut tutorial = Tutorial::start();
    let expected = "spiffe://example.org/document-checker";
    let address = tutorial.worker.address();
    let done = tutorial.world.call_at(expected, &address, "count_words", TEXT, &[]);
    let (error, hint) = done.failure(5);
    assert!(error.contains(expected) && error.contains(WORKER), "{error}");
    assert!(hint.contains("--agent"), "{hint}");
    assert_eq!(tutorial.worker.final_audit(), [] as [serde_json::Value; 0]);
}

#[test]
fn wrong_questions_are_answered_with_what_would_be_right() {
    let tutorial = Tutorial::start();
    let (world, worker) = (&tutorial.world, &tutorial.worker);

    let (error, hint) = world.call(worker, "analyse_document", TEXT, &[]).failure(6);
    assert!(error.contains("did you mean `analyze_document`"), "{error}");
    assert!(error.contains("analyze_document, count_words, detect_sentiment"), "{error}");
    assert!(hint.contains("convoke card show"), "{hint}");

    let (error, hint) = world.call(worker, "count_words", r#"{"text": 7}"#, &[]).failure(7);
    assert!(error.contains("/text must be of type string"), "{error}");
    assert!(hint.contains("schema"), "{hint}");
    let (error, _) = world.call(worker, "count_words", "{}", &[]).failure(7);
    assert!(error.contains("/text is missing"), "{error}");
    let params = r#"{"documents": [{"id": "a", "text": "b"}, {"id": 3, "text": "b"}]}"#;
    let done = world.call(&tutorial.orchestrator, "batch_process", params, &[]);
    let (error, _) = done.failure(7);
    assert!(error.contains("/documents/1/id"), "{error}");

    for (params, what) in [
        ("{\"text\": ", "--params is not JSON"),
        ("[1]", "--params is not a JSON object"),
        ("@no-such-file.json", "no-such-file.json"),
    ] {
        let (error, _) = world.call(worker, "count_words", params, &[]).failure(2);
        assert!(error.contains(what), "{error}");
    }
    let (error, _) = world.call(worker, "no such name", TEXT, &[]).failure(2);
    assert!(error.contains("--capability"), "{error}");
    // Clap's own errors have the same code.
    assert_eq!(world.run(&["call", "--timeout", "30"]).code, Some(2));
    assert_eq!(world.run(&["no-such-command"]).code, Some(2));
    worker.assert_sound();
}

#[test]
fn nobody_at_the_address_and_nobody_who_answers() {
    let world = World::new();
    let _issuer = world.issuer("example.org");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://localhost:{}", listener.local_addr().unwrap().port());

    // The kernel accepts, and then nothing happens.
    let more = ["--timeout", "300ms"];
    let (error, hint) = world.call_at(WORKER, &address, "count_words", TEXT, &more).failure(8);
    assert!(error.contains(WORKER) && error.contains("300ms"), "{error}");
    assert!(hint.contains("--timeout"), "{hint}");

    drop(listener);
    let (error, hint) = world.call_at(WORKER, &address, "count_words", TEXT, &[]).failure(4);
    assert!(error.contains(WORKER) && error.contains(&address), "{error}");
    assert!(hint.contains("address and port"), "{hint}");
}

#[test]
fn an_agent_that_hangs_is_given_up_in_time() {
    let tutorial = Tutorial::start();
    tutorial.worker.signal("STOP");
    let more = ["--timeout", "300ms"];
    let done = tutorial.world.call(&tutorial.worker, "count_words", TEXT, &more);
    let (error, _) = done.failure(8);
    assert!(error.contains(WORKER) && error.contains("count_words"), "{error}");
    tutorial.worker.signal("CONT");
    let done = tutorial.world.call(&tutorial.worker, "count_words", TEXT, &[]);
    assert_eq!(done.json()["word_count"], 1);
}

#[test]
fn without_an_issuer_there_is_nobody_to_call_as() {
    let world = World::new();
    let done = world.call_at(WORKER, "https://localhost:9", "count_words", TEXT, &[]);
    let (error, hint) = done.failure(10);
    assert!(error.contains(&world.socket("example.org")), "{error}");
    let cure = format!("{error} {hint}");
    assert!(cure.contains("convoke identity serve"), "{cure}");
}
