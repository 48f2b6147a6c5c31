//! The orchestrator: has the work done by the worker.

use std::collections::BTreeMap;

use convoke::{
    CallError, Context, HandlerError, Json, RegistryEntry, agent, join_calls, json_field,
};
use schemars::JsonSchema;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

/// The worker's key in `agent_registry`.
const WORKER: &str = "document_worker";

/// The summarizer's key in `agent_registry`, if it is there.
const SUMMARIZER: &str = "summarizer";

/// Documents of one batch that the worker is asked about at a time.
const BATCH_CALLS_MAX: usize = 32;

/// Hands documents to the worker and puts its answers together.
#[derive(Debug, Clone, Copy, Default)]
pub struct DocumentOrchestrator;

/// What `process_document` gives.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ProcessReport {
    /// Always `completed`: operations may have failed, each on its own
    pub status: &'static str,
    /// The operations as they were asked for
    pub operations_performed: Vec<String>,
    /// Results by `analysis`, `word_count`, `sentiment` and `summary`; what failed, by its operation's name
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub results: Results,
    /// Name of the agent that did it
    pub processed_by: String,
}

/// Outcomes by key, in the order in which they came. A key that comes again keeps its place and
/// takes the new outcome.
#[derive(Debug, Default)]
pub struct Results(Vec<(String, Outcome)>);

/// What came of one operation.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Outcome {
    /// What the worker answered, as it wrote it.
    Done(Json),
    /// The worker did not do it.
    Failed {
        /// Why.
        error: String,
        /// Always `failed`.
        status: &'static str,
    },
    /// There is no such operation.
    Unknown {
        /// Always `Unknown operation`.
        error: &'static str,
    },
}

/// A document of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Document {
    /// The caller's name for it
    pub id: String,
    /// Document text to analyze
    pub text: String,
}

/// What `batch_process` gives.
#[derive(Debug, Serialize, JsonSchema)]
pub struct BatchReport {
    /// How many documents there were
    pub total_documents: usize,
    /// How many were analyzed
    pub successful: usize,
    /// How many were not
    pub failed: usize,
    /// One entry for each document, in their order
    pub results: Vec<DocumentReport>,
}

/// What came of one document of a batch.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DocumentReport {
    /// The caller's name for it
    pub id: String,
    /// `success` or `failed`
    pub status: &'static str,
    /// What the worker found
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub analysis: Option<Json>,
    /// Why it found nothing
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[agent]
impl DocumentOrchestrator {
    /// Process a document using worker agents
    #[capability]
    async fn process_document(
        &self,
        context: &Context,
        /// Document text to process
        text: String,
        /// Operations to perform: analyze, count, sentiment
        #[schemars(length(max = 100))]
        operations: Option<Vec<String>>,
    ) -> Result<ProcessReport, HandlerError> {
        let operations = operations.unwrap_or_else(|| vec!["analyze".to_owned()]);
        tracing::info!(
            operations = json_field(&operations),
            text_length = text.chars().count(),
            "Processing document"
        );
        let worker = context.config().registry(WORKER)?;
        let summarizer = context.config().agent_registry.get(SUMMARIZER);
        let mut results = Results::default();
        for operation in &operations {
            let known = match operation.as_str() {
                "analyze" => Some((worker, "analysis", "analyze_document")),
                "count" => Some((worker, "word_count", "count_words")),
                "sentiment" => Some((worker, "sentiment", "detect_sentiment")),
                "summarize" => summarizer.map(|agent| (agent, "summary", "summarize")),
                _ => None,
            };
            let (agent, key, capability) = match known {
                Some(known) => known,
                None => {
                    tracing::warn!("Unknown operation: {operation}");
                    results.set(operation, Outcome::Unknown { error: "Unknown operation" });
                    continue;
                }
            };
            match ask(context, agent, capability, &text).await {
                Ok(answer) => results.set(key, Outcome::Done(answer)),
                Err(error) => {
                    tracing::error!(%error, "Error calling worker for {operation}");
                    let error = error.to_string();
                    results.set(operation, Outcome::Failed { error, status: "failed" });
                }
            }
        }
        Ok(ProcessReport {
            status: "completed",
            operations_performed: operations,
            results,
            processed_by: context.config().metadata.name.clone(),
        })
    }

    /// Process multiple documents in batch
    #[capability]
    async fn batch_process(
        &self,
        context: &Context,
        documents: Vec<Document>,
    ) -> Result<BatchReport, HandlerError> {
        tracing::info!("Batch processing {} documents", documents.len());
        let worker = context.config().registry(WORKER)?;
        let calls = documents.iter().map(|one| ask(context, worker, "analyze_document", &one.text));
        let answers = join_calls(calls, BATCH_CALLS_MAX).await;

        let successful = answers.iter().filter(|answer| answer.is_ok()).count();
        let results: Vec<_> = documents
            .into_iter()
            .zip(answers)
            .map(|(Document { id, .. }, answer)| match answer {
                Ok(answer) => {
                    DocumentReport { id, status: "success", analysis: Some(answer), error: None }
                }
                Err(error) => {
                    let error = Some(error.to_string());
                    DocumentReport { id, status: "failed", analysis: None, error }
                }
            })
            .collect();
        let total_documents = results.len();
        Ok(BatchReport {
            total_documents,
            successful,
            failed: total_documents - successful,
            results,
        })
    }
}

/// Asks an agent about one text, for as long and as often as the configuration says. What these
/// agents do changes nothing, so asking twice is as good as asking once.
async fn ask(
    context: &Context,
    agent: &RegistryEntry,
    capability: &str,
    text: &str,
) -> Result<Json, CallError> {
    #[derive(Serialize)]
    struct Params<'a> {
        text: &'a str,
    }
    context.call_agent(agent, capability, Params { text }).idempotent().json().await
}

impl Results {
    fn set(&mut self, key: &str, outcome: Outcome) {
        match self.0.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => *old = outcome,
            None => self.0.push((key.to_owned(), outcome)),
        }
    }
}

impl Serialize for Results {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.0.len()))?;
        for (key, outcome) in &self.0 {
            map.serialize_entry(key, outcome)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::in_process::Network;

    const SENTENCE: &str =
        "This is a wonderful document. It contains great information and amazing insights.";

    async fn check(network: &Network, capability: &str, params: Value, expected: Value) {
        let result = network.call_orchestrator(capability, &params).await.unwrap();
        assert_eq!(result.to::<Value>().unwrap(), expected);
    }

    fn analysis(counts: (u32, u32, f64, u32), sentiment: &str) -> Value {
        let (words, sentences, average, characters) = counts;
        json!({
            "word_count": words, "sentence_count": sentences, "avg_word_length": average,
            "sentiment": sentiment, "character_count": characters,
            "analyzed_by": "Document Worker Agent",
        })
    }

    fn processed(operations: Value, results: Value) -> Value {
        json!({
            "status": "completed", "operations_performed": operations, "results": results,
            "processed_by": "Document Orchestrator Agent",
        })
    }

    #[tokio::test]
    async fn the_tutorials_document_is_processed() {
        let network = Network::new();
        let found = analysis((12, 2, 5.83, 81), "positive");
        let sentiment = json!({"sentiment": "positive", "confidence": "demonstration"});
        check(
            &network,
            "process_document",
            json!({"text": SENTENCE, "operations": ["analyze", "sentiment"]}),
            processed(
                json!(["analyze", "sentiment"]),
                json!({"analysis": found, "sentiment": sentiment}),
            ),
        )
        .await;
        check(
            &network,
            "process_document",
            json!({"text": SENTENCE}),
            processed(json!(["analyze"]), json!({"analysis": found})),
        )
        .await;
        check(
            &network,
            "process_document",
            json!({"text": "", "operations": []}),
            processed(json!([]), json!({})),
        )
        .await;
    }

    #[tokio::test]
    async fn results_come_in_the_order_of_the_operations() {
        let network = Network::new();
        let operations = ["sentiment", "dance", "count", "sentiment", "analyze", "dance"];
        let params = json!({"text": "a good day", "operations": operations});
        let result = network.call_orchestrator("process_document", &params).await.unwrap();
        assert_eq!(
            result.get(),
            concat!(
                r#"{"status":"completed","operations_performed":"#,
                r#"["sentiment","dance","count","sentiment","analyze","dance"],"results":{"#,
                r#""sentiment":{"sentiment":"positive","confidence":"demonstration"},"#,
                r#""dance":{"error":"Unknown operation"},"#,
                r#""word_count":{"word_count":3,"text_length":10},"#,
                r#""analysis":{"word_count":3,"sentence_count":1,"avg_word_length":2.67,"#,
                r#""sentiment":"positive","character_count":10,"#,
                r#""analyzed_by":"Document Worker Agent"}},"#,
                r#""processed_by":"Document Orchestrator Agent"}"#,
            )
        );
        assert_eq!(
            network.asked(),
            ["detect_sentiment", "count_words", "detect_sentiment", "analyze_document"]
        );
    }

    #[tokio::test]
    async fn a_failure_is_keyed_by_its_operation_and_stops_no_other() {
        let network = Network::new().failing_on("bad luck");
        let error = "spiffe://example.org/document-worker refused `analyze_document`: bad luck";
        check(
            &network,
            "process_document",
            json!({"text": "bad luck", "operations": ["analyze", "count"]}),
            processed(
                json!(["analyze", "count"]),
                json!({
                    "analyze": {"error": error, "status": "failed"},
                    "count": {
                        "error": error.replace("analyze_document", "count_words"),
                        "status": "failed",
                    },
                }),
            ),
        )
        .await;
        check(
            &network,
            "batch_process",
            json!({"documents": [
                {"id": "b", "text": "This is excellent!"},
                {"id": "a", "text": "bad luck"},
                {"id": "b", "text": "This is okay."},
            ]}),
            json!({"total_documents": 3, "successful": 2, "failed": 1, "results": [
                {"id": "b", "status": "success", "analysis": analysis((3, 1, 5.33, 18), "positive")},
                {"id": "a", "status": "failed", "error": error},
                {"id": "b", "status": "success", "analysis": analysis((3, 1, 3.67, 13), "neutral")},
            ]}),
        )
        .await;
    }

    #[tokio::test]
    async fn the_tutorials_batch_is_processed() {
        check(
            &Network::new(),
            "batch_process",
            json!({"documents": [
                {"id": "doc1", "text": "This is excellent!"},
                {"id": "doc2", "text": "This is terrible."},
                {"id": "doc3", "text": "This is okay."},
            ]}),
            json!({"total_documents": 3, "successful": 3, "failed": 0, "results": [
                {"id": "doc1", "status": "success",
                 "analysis": analysis((3, 1, 5.33, 18), "positive")},
                {"id": "doc2", "status": "success",
                 "analysis": analysis((3, 1, 5.0, 17), "negative")},
                {"id": "doc3", "status": "success",
                 "analysis": analysis((3, 1, 3.67, 13), "neutral")},
            ]}),
        )
        .await;
    }

    #[tokio::test]
    async fn a_batch_of_a_thousand_keeps_its_order() {
        let documents: Vec<_> = (0..1000)
            .map(|n| json!({"id": n.to_string(), "text": "word ".repeat(n % 7)}))
            .collect();
        let network = Network::new();
        let params = json!({"documents": documents});
        let result = network.call_orchestrator("batch_process", &params).await.unwrap();
        let result: Value = result.to().unwrap();
        assert_eq!(result["successful"], 1000);
        for (n, entry) in result["results"].as_array().unwrap().iter().enumerate() {
            assert_eq!(entry["id"], n.to_string());
            assert_eq!(entry["analysis"]["word_count"], n % 7);
        }
    }

    #[tokio::test]
    async fn what_is_missing_is_named_before_anybody_is_asked() {
        let network = Network::new();
        let refused = async |capability, params| {
            let refused = network.call_orchestrator(capability, &params).await;
            refused.unwrap_err().to_string()
        };
        assert_eq!(
            refused("batch_process", json!({"documents": [{"id": "1", "text": ""}, {"id": 2}]}))
                .await,
            "invalid parameters: /documents/1/text is missing; /documents/1/id must be of type \
             string"
        );
        assert_eq!(
            refused("process_document", json!({"operations": []})).await,
            "invalid parameters: /text is missing"
        );
        let many = vec!["analyze"; 101];
        assert_eq!(
            refused("process_document", json!({"text": "", "operations": many})).await,
            "invalid parameters: /operations value has more than 100 items"
        );
        assert!(network.asked().is_empty());
    }

    #[test]
    fn the_orchestrators_work_is_durable() {
        let network = Network::new();
        assert!(network.orchestrator.capabilities().iter().all(|one| !one.ephemeral));
    }
}
