//! The trail: one record for each decision, with nothing of what was said.

use serde_json::{Value, json};

use crate::world::{ORCHESTRATOR, SENTENCE, Tutorial, WORKER};

#[test]
fn each_decision_is_on_record_and_no_parameter_is() {
    let mut tutorial = Tutorial::with_worker_policy(document_pipeline::WORKER_POLICY_STRICT);
    let params = json!({"text": SENTENCE, "operations": ["analyze", "count", "sentiment"]});
    tutorial.ask("process_document", &params);
    // The same, asked by somebody whom the worker's policy does not name.
    let text = json!({"text": SENTENCE}).to_string();
    tutorial.world.call(&tutorial.worker, "analyze_document", &text, &[]).failure(3);

    let caller = tutorial.world.run(&[
        "identity",
        "show",
        "--json",
        "--trust-domain",
        "example.org",
        "--socket",
        &tutorial.world.socket("example.org"),
    ]);
    let caller = caller.json()["spiffe_id"].clone();

    let records = tutorial.orchestrator.final_audit();
    assert_eq!(records.len(), 1, "{records:#?}");
    let record = &records[0];
    check(record, &caller, ORCHESTRATOR, "process_document", "allow");
    assert!(record["task_id"].is_string(), "a task came of it: {record}");

    let records = tutorial.worker.final_audit();
    assert_eq!(records.len(), 4, "{records:#?}");
    let allowed = ["analyze_document", "count_words", "detect_sentiment"];
    for (record, capability) in records.iter().zip(allowed) {
        check(record, &ORCHESTRATOR.into(), WORKER, capability, "allow");
        assert_eq!(record["reason"], "allowed");
    }
    check(&records[3], &caller, WORKER, "analyze_document", "deny");
    assert_ne!(records[3]["reason"], "allowed");
    // The two were asked the same, so what is kept of the parameters is the same.
    assert_eq!(records[0]["params_sha256"], records[3]["params_sha256"]);

    for text in [tutorial.worker.audit_text(), tutorial.orchestrator.audit_text()] {
        assert!(!text.contains("wonderful"), "{text}");
    }
}

fn check(record: &Value, caller: &Value, agent: &str, capability: &str, decision: &str) {
    assert_eq!(
        (&record["event_type"], &record["caller_spiffe_id"], &record["operation"]),
        (&json!("authorization"), caller, &json!("SendMessage")),
        "{record}"
    );
    assert_eq!(
        (&record["agent_spiffe_id"], &record["capability"], &record["decision"]),
        (&json!(agent), &json!(capability), &json!(decision)),
        "{record}"
    );
    assert_eq!(record["rule"], "data.agentweave.authz.allow", "{record}");
    assert!(record["decision_us"].is_u64(), "{record}");
    for field in ["timestamp", "request_id", "reason", "policy_revision", "remote_addr"] {
        assert!(record[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {record}");
    }
    let digest = record["params_sha256"].as_str().unwrap();
    assert!(digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()), "{record}");
}

#[test]
fn what_the_node_logs_can_be_found_in_its_audit() {
    let mut tutorial = Tutorial::start();
    tutorial.ask("process_document", &json!({"text": "good"}));
    let records = tutorial.worker.final_audit();
    let id = &records[0]["request_id"];
    let lines = tutorial.worker.json_lines();
    let of_request: Vec<_> = lines.iter().filter(|line| line["request_id"] == *id).collect();
    assert!(of_request.iter().any(|line| line["message"] == "Analyzing document"), "{lines:#?}");
    assert!(of_request.iter().any(|line| line["message"] == "Request completed"), "{lines:#?}");
}

#[test]
fn the_node_s_own_life_is_on_record() {
    let mut tutorial = Tutorial::start();
    assert!(tutorial.worker.stop().success());
    let lines = tutorial.worker.audit_lines();
    let types: Vec<_> = lines.iter().map(|line| line["event_type"].as_str().unwrap()).collect();
    assert_eq!(types, ["startup", "shutdown"]);
    assert_eq!(lines[0]["agent_spiffe_id"], WORKER);
    assert_eq!(lines[1]["version"], 1);
}
