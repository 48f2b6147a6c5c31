//! The tutorial by hand: an issuer, two agents and `convoke call`, with computed values.

use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::process::run;
use crate::world::{ORCHESTRATOR, SENTENCE, Tutorial, WORKER};

/// What the worker has to find in [`SENTENCE`].
pub(crate) fn analysis() -> Value {
    json!({
        "word_count": 12, "sentence_count": 2, "avg_word_length": 5.83, "sentiment": "positive",
        "character_count": 81, "analyzed_by": "Document Worker Agent",
    })
}

/// What the orchestrator has to answer to the tutorial's first call.
pub(crate) fn processed() -> Value {
    json!({
        "status": "completed",
        "operations_performed": ["analyze", "sentiment"],
        "results": {
            "analysis": analysis(),
            "sentiment": {"sentiment": "positive", "confidence": "demonstration"},
        },
        "processed_by": "Document Orchestrator Agent",
    })
}

/// What the orchestrator has to answer to the tutorial's batch.
pub(crate) fn batched() -> Value {
    let analysis = |sentiment: &str, average: f64, characters: u32| {
        json!({
            "word_count": 3, "sentence_count": 1, "avg_word_length": average,
            "sentiment": sentiment, "character_count": characters,
            "analyzed_by": "Document Worker Agent",
        })
    };
    json!({
        "total_documents": 3, "successful": 3, "failed": 0,
        "results": [
            {"id": "doc1", "status": "success", "analysis": analysis("positive", 5.33, 18)},
            {"id": "doc2", "status": "success", "analysis": analysis("negative", 5.0, 17)},
            {"id": "doc3", "status": "success", "analysis": analysis("neutral", 3.67, 13)},
        ],
    })
}

/// The tutorial's batch.
pub(crate) fn batch() -> Value {
    json!({"documents": [
        {"id": "doc1", "text": "This is excellent!"},
        {"id": "doc2", "text": "This is terrible."},
        {"id": "doc3", "text": "This is okay."},
    ]})
}

#[test]
fn a_document_is_processed_by_two_agents() {
    let tutorial = Tutorial::start();
    let params = json!({"text": SENTENCE, "operations": ["analyze", "sentiment"]});
    assert_eq!(tutorial.ask("process_document", &params), processed());

    let params = json!({"text": SENTENCE, "operations": ["count"]});
    assert_eq!(
        tutorial.ask("process_document", &params)["results"],
        json!({"word_count": {"word_count": 12, "text_length": 81}})
    );

    assert_eq!(tutorial.ask("batch_process", &batch()), batched());
}

#[test]
fn values_are_computed_by_code_points_and_operations_have_a_default() {
    let tutorial = Tutorial::start();
    let ask = |text: &str, operations: &[&str]| {
        let params = json!({"text": text, "operations": operations});
        tutorial.ask("process_document", &params)
    };

    let empty = ask("", &["analyze", "count", "sentiment"]);
    assert_eq!(
        empty["results"],
        json!({
            "analysis": {
                "word_count": 0, "sentence_count": 0, "avg_word_length": 0.0,
                "sentiment": "neutral", "character_count": 0,
                "analyzed_by": "Document Worker Agent",
            },
            "word_count": {"word_count": 0, "text_length": 0},
            "sentiment": {"sentiment": "neutral", "confidence": "demonstration"},
        })
    );

    // 18 code points in 30 bytes; the waving hand with its skin tone is two of them.
    let foreign = ask("Grüße, 世界! \u{1f44b}\u{1f3fd} love", &["analyze", "count"]);
    assert_eq!(
        foreign["results"],
        json!({
            "analysis": {
                "word_count": 4, "sentence_count": 2, "avg_word_length": 3.75,
                "sentiment": "positive", "character_count": 18,
                "analyzed_by": "Document Worker Agent",
            },
            "word_count": {"word_count": 4, "text_length": 18},
        })
    );

    let unknown = ask("good", &["translate", "sentiment"]);
    assert_eq!(unknown["status"], "completed");
    assert_eq!(unknown["operations_performed"], json!(["translate", "sentiment"]));
    assert_eq!(
        unknown["results"],
        json!({
            "translate": {"error": "Unknown operation"},
            "sentiment": {"sentiment": "positive", "confidence": "demonstration"},
        })
    );

    let default = tutorial.ask("process_document", &json!({"text": SENTENCE}));
    assert_eq!(default["operations_performed"], json!(["analyze"]));
    assert_eq!(default["results"], json!({"analysis": analysis()}));
}

#[test]
fn a_thousand_documents_come_back_in_order_and_on_record() {
    let mut tutorial = Tutorial::start();
    let documents: Vec<Value> = (0..1000)
        .map(|n| json!({"id": format!("doc{n}"), "text": vec!["good"; n % 7].join(" ")}))
        .collect();
    let params = json!({"documents": documents}).to_string();
    let socket = tutorial.world.socket("example.org");
    let address = tutorial.orchestrator.address();
    let args = ["call", "--socket", &socket, "--agent", ORCHESTRATOR, "--address", &address];
    let args = [&args[..], &["--capability", "batch_process", "--params", "-"]].concat();
    let report = run(&mut tutorial.world.command(&args), params.as_bytes()).json();

    let results = report["results"].as_array().unwrap();
    let failed: Vec<_> = results.iter().filter(|result| result["status"] != "success").collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(results.len(), 1000);
    assert_eq!(
        (&report["total_documents"], &report["successful"], &report["failed"]),
        (&json!(1000), &json!(1000), &json!(0))
    );
    for (n, result) in results.iter().enumerate() {
        assert_eq!(result["id"], format!("doc{n}"));
        assert_eq!(result["analysis"]["word_count"], n % 7, "{result}");
    }

    let records = tutorial.worker.final_audit();
    assert_eq!(records.len(), 1000);
    assert!(records.iter().all(|record| record["decision"] == "allow"));
    let mut requests: Vec<_> = records.iter().map(|record| &record["request_id"]).collect();
    requests.sort_by_key(|id| id.as_str());
    requests.dedup();
    assert_eq!(requests.len(), 1000);
}

#[test]
fn parameters_and_results_take_the_forms_that_were_asked_for() {
    let tutorial = Tutorial::start();
    let world = &tutorial.world;
    let params = json!({"text": "good", "operations": ["sentiment"]}).to_string();
    let line = |params: &str, more: &[&str]| {
        let done = world.call(&tutorial.orchestrator, "process_document", params, more);
        assert_eq!(done.json()["results"]["sentiment"]["sentiment"], "positive");
        done.stdout
    };

    // On one line where it goes to a program, and then as the agent wrote it.
    let plain = line(&params, &[]);
    assert_eq!(plain.lines().count(), 1);
    assert!(plain.starts_with(r#"{"status":"completed","operations_performed":["#), "{plain}");
    assert_eq!(line(&params, &["--json"]), plain);
    let pretty = line(&params, &["--pretty"]);
    assert!(pretty.starts_with("{\n  \"status\": \"completed\",\n"), "{pretty}");
    assert_eq!(line(&params, &["--timeout", "30s"]), plain);

    world.write("params.json", &params);
    assert_eq!(line("@params.json", &[]), plain);

    let socket = world.socket("example.org");
    let address = tutorial.orchestrator.address();
    let args = ["call", "--socket", &socket, "--agent", ORCHESTRATOR, "--address", &address];
    let args = [&args[..], &["--capability", "process_document", "--params", "-"]].concat();
    assert_eq!(run(&mut world.command(&args), params.as_bytes()).stdout, plain);

    // The environment names the socket as well, also as the URI that SPIFFE has for it.
    let without_socket = [&["call"], &args[3..]].concat();
    for endpoint in [socket.clone(), format!("unix://{socket}")] {
        let mut command = world.command(&without_socket);
        let done = run(command.env("SPIFFE_ENDPOINT_SOCKET", endpoint), params.as_bytes());
        assert_eq!(done.stdout, plain, "{done:?}");
    }

    // The tutorial calls the binary by the name of its command line.
    symlink(crate::world::BINARY, world.path("agentweave-cli")).unwrap();
    let mut command = world.program(&world.path("agentweave-cli"), &args);
    assert_eq!(run(&mut command, params.as_bytes()).stdout, plain);
}

#[test]
fn logs_say_what_the_tutorial_shows() {
    let mut tutorial = Tutorial::start();
    let params = json!({"text": SENTENCE, "operations": ["analyze", "sentiment"]});
    tutorial.ask("process_document", &params);
    assert!(tutorial.orchestrator.stop().success());
    assert!(tutorial.worker.stop().success());

    let (worker, orchestrator) = (&tutorial.worker, &tutorial.orchestrator);
    let one = |agent: &crate::world::Agent, message: &str, fields: Value| {
        let found = agent.json_lines().into_iter().find(|line| {
            let mut fields = fields.as_object().unwrap().iter();
            line["message"] == message && fields.all(|(key, value)| line[key] == *value)
        });
        found.unwrap_or_else(|| panic!("no `{message}` with {fields}: {:#?}", agent.lines()))
    };
    for (agent, name) in
        [(worker, "Document Worker Agent"), (orchestrator, "Document Orchestrator Agent")]
    {
        one(agent, &format!("{name} initialized"), json!({"level": "INFO"}));
        let identity = json!({"level": "INFO", "spiffe_id": agent.spiffe_id});
        one(agent, "Loaded SPIFFE identity", identity);
        one(agent, "Agent server started", json!({"level": "INFO", "port": agent.port}));
        one(agent, "Agent server stopped", json!({"level": "INFO"}));
        for line in agent.json_lines() {
            assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
            assert!(line["message"].is_string(), "{line}");
        }
    }

    one(
        worker,
        "Analyzing document",
        json!({"level": "INFO", "caller": ORCHESTRATOR, "text_length": 81}),
    );
    let completed = json!({"level": "INFO", "capability": "analyze_document"});
    let completed = one(worker, "Request completed", completed);
    assert!(completed["duration_ms"].is_f64(), "{completed}");
    one(
        orchestrator,
        "Processing document",
        json!({"level": "INFO", "operations": ["analyze", "sentiment"], "text_length": 81}),
    );
    let calling = json!({"level": "INFO", "target": WORKER, "capability": "analyze_document"});
    one(orchestrator, "Calling agent", calling);
    let completed = one(orchestrator, "Agent call completed", json!({"level": "INFO"}));
    assert!(completed["duration_ms"].is_f64(), "{completed}");
}
