//! The three agents together, over mTLS and under their own policies, as a user would test them.

#![allow(clippy::unwrap_used, reason = "tests may")]

use convoke::CallError;
use convoke::testing::{Mesh, MockCallee, PolicyTester, TestPolicy};
use document_pipeline::{DocumentOrchestrator, DocumentWorker, Summarizer};
use document_pipeline::{
    ORCHESTRATOR_POLICY, SUMMARIZER_POLICY, WORKER_POLICY_STRICT as WORKER_POLICY,
};
use serde_json::{Value, json};

const TEXT: &str = "Agents call agents. The weather was fine. Agents prove who they are. Good!";

async fn process(mesh: &convoke::testing::RunningMesh, operations: Value) -> Value {
    let params = json!({"text": TEXT, "operations": operations});
    let report = mesh.call_as("user/ann", "orchestrator", "process_document", params).await;
    report.unwrap().to::<Value>().unwrap()["results"].clone()
}

#[tokio::test]
async fn the_three_agents_work_together() {
    let mesh = Mesh::new("example.org")
        .agent("orchestrator", DocumentOrchestrator, ORCHESTRATOR_POLICY)
        .agent("document-worker", DocumentWorker, WORKER_POLICY)
        .agent("summarizer", Summarizer, SUMMARIZER_POLICY)
        .start()
        .await
        .unwrap();
    let results = process(&mesh, json!(["count", "summarize"])).await;
    assert_eq!(results["word_count"], json!({"word_count": 13, "text_length": 74}));
    assert_eq!(
        results["summary"],
        json!({
            "summary": "Agents call agents. Agents prove who they are.",
            "sentence_count": 2, "sentences_in_text": 4, "summarized_by": "summarizer",
        })
    );
    // Its policy lets the orchestrator in and nobody else.
    let params = json!({"text": TEXT});
    let refused = mesh.call_as("user/ann", "summarizer", "summarize", params).await;
    assert!(matches!(refused, Err(CallError::Refused(_))), "{refused:?}");
    mesh.stop().await;
}

#[tokio::test]
async fn a_summary_is_an_unknown_operation_to_who_knows_no_summarizer() {
    let mesh = Mesh::new("example.org")
        .agent("orchestrator", DocumentOrchestrator, ORCHESTRATOR_POLICY)
        .agent("document-worker", DocumentWorker, WORKER_POLICY)
        .start()
        .await
        .unwrap();
    let results = process(&mesh, json!(["summarize"])).await;
    assert_eq!(results, json!({"summarize": {"error": "Unknown operation"}}));
    mesh.stop().await;
}

#[tokio::test]
async fn a_worker_that_refuses_stops_no_other() {
    let worker = MockCallee::new().refuses("count_words").answers("detect_sentiment", "fine");
    let log = worker.log();
    let mesh = Mesh::new("example.org")
        .agent("orchestrator", DocumentOrchestrator, TestPolicy::allow_all())
        .mock("document-worker", worker)
        .start()
        .await
        .unwrap();
    let results = process(&mesh, json!(["count", "sentiment"])).await;
    assert_eq!(results["count"]["status"], "failed");
    assert_eq!(results["sentiment"], "fine");
    assert_eq!(log.capabilities(), ["detect_sentiment"]);
    mesh.stop().await;
}

#[test]
fn policies_let_in_whom_they_should() {
    let worker = PolicyTester::rego(WORKER_POLICY).agent("spiffe://example.org/document-worker");
    worker.assert_allows("spiffe://example.org/orchestrator", "count_words");
    worker.assert_denies("spiffe://example.org/user/ann", "count_words");
    worker.assert_denies("anonymous", "count_words");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/policies/summarizer_policy.rego");
    let summarizer = PolicyTester::file(path);
    summarizer.assert_allows("spiffe://example.org/orchestrator", "summarize");
    summarizer.assert_denies("spiffe://example.org/orchestrator", "translate");
    summarizer.assert_denies("spiffe://example.org/document-worker", "summarize");
}
