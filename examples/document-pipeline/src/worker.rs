//! The worker: does the work itself.

use convoke::{Context, agent};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::{self, Sentiment};

/// Analyzes documents. It calls nobody and remembers nothing, so all it does is ephemeral.
#[derive(Debug, Clone, Copy, Default)]
pub struct DocumentWorker;

/// What `analyze_document` finds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Analysis {
    /// Words between white space
    pub word_count: usize,
    /// Pieces between `.`, `!` and `?` that are not blank
    pub sentence_count: usize,
    /// Mean length of the words in code points, to two places
    pub avg_word_length: f64,
    /// How the text sounds
    pub sentiment: Sentiment,
    /// Length of the text in code points
    pub character_count: usize,
    /// Name of the agent that did it
    pub analyzed_by: String,
}

/// What `count_words` finds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WordCount {
    /// Words between white space
    pub word_count: usize,
    /// Length of the text in code points
    pub text_length: usize,
}

/// What `detect_sentiment` finds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SentimentReport {
    /// How the text sounds
    pub sentiment: Sentiment,
    /// Not a number: nothing was measured that could give one
    pub confidence: String,
}

#[agent]
impl DocumentWorker {
    /// Analyze a document and return comprehensive statistics
    #[capability(ephemeral)]
    async fn analyze_document(
        &self,
        context: &Context,
        /// Document text to analyze
        text: String,
    ) -> Analysis {
        let character_count = text::length(&text);
        tracing::info!(
            caller = context.caller().name(),
            text_length = character_count,
            "Analyzing document"
        );
        let (word_count, letters) = text::words(&text)
            .fold((0, 0), |(count, letters), word| (count + 1, letters + text::length(word)));
        Analysis {
            word_count,
            sentence_count: text::sentence_count(&text),
            avg_word_length: text::average(letters, word_count),
            sentiment: text::sentiment(&text),
            character_count,
            analyzed_by: context.config().metadata.name.clone(),
        }
    }

    /// Count words in a text
    #[capability(ephemeral)]
    async fn count_words(&self, _context: &Context, text: String) -> WordCount {
        let word_count = text::words(&text).count();
        tracing::info!("Counted {word_count} words");
        WordCount { word_count, text_length: text::length(&text) }
    }

    /// Detect sentiment of text (positive, negative, neutral)
    #[capability(ephemeral)]
    async fn detect_sentiment(&self, _context: &Context, text: String) -> SentimentReport {
        SentimentReport { sentiment: text::sentiment(&text), confidence: "demonstration".into() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::in_process::Network;

    #[tokio::test]
    async fn results_have_the_tutorials_fields_in_its_order() {
        let network = Network::new();
        let text = json!({"text": "Grüße, this is great. Is it?"});
        let result = network.call_worker("analyze_document", &text).await.unwrap();
        assert_eq!(
            result.get(),
            r#"{"word_count":6,"sentence_count":2,"avg_word_length":3.83,"sentiment":"positive","character_count":28,"analyzed_by":"Document Worker Agent"}"#
        );
        let result = network.call_worker("count_words", &text).await.unwrap();
        assert_eq!(result.get(), r#"{"word_count":6,"text_length":28}"#);
        let result = network.call_worker("detect_sentiment", &text).await.unwrap();
        assert_eq!(result.get(), r#"{"sentiment":"positive","confidence":"demonstration"}"#);
    }

    #[tokio::test]
    async fn a_text_is_needed_and_may_be_empty() {
        let network = Network::new();
        let none = network.call_worker("count_words", &json!({})).await.unwrap_err();
        assert_eq!(none.to_string(), "invalid parameters: /text is missing");
        let number = network.call_worker("count_words", &json!({"text": 7})).await.unwrap_err();
        assert_eq!(number.to_string(), "invalid parameters: /text must be of type string");
        let empty = network.call_worker("analyze_document", &json!({"text": ""})).await.unwrap();
        let empty: Analysis = empty.to().unwrap();
        assert_eq!((empty.word_count, empty.avg_word_length), (0, 0.0));
        assert_eq!(empty.sentiment, Sentiment::Neutral);
    }

    #[test]
    fn the_card_shows_the_tutorials_capabilities() {
        let shown: Vec<_> = Network::new()
            .worker
            .capabilities()
            .iter()
            .map(|one| (one.name.to_string(), one.description.clone(), one.ephemeral))
            .collect();
        let is = |name: &str, description: &str| (name.to_owned(), description.to_owned(), true);
        assert_eq!(
            shown,
            [
                is("analyze_document", "Analyze a document and return comprehensive statistics"),
                is("count_words", "Count words in a text"),
                is("detect_sentiment", "Detect sentiment of text (positive, negative, neutral)"),
            ]
        );
    }
}
