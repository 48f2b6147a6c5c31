//! The summarizer: says the same in fewer sentences.

use std::collections::HashMap;

use convoke::{Context, agent};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::{length, words};

/// Sentences of a summary when the caller does not say.
const SENTENCES_DEFAULT: u8 = 2;

/// Shortest word that says something, in code points. Articles and prepositions are frequent in any
/// text, and most are shorter.
const WORD_LENGTH_MIN: usize = 4;

/// Summarizes texts by their own sentences. It calls nobody and remembers nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Summarizer;

/// What `summarize` finds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// The chosen sentences in their order, with a space between them
    pub summary: String,
    /// How many sentences were chosen
    pub sentence_count: usize,
    /// How many there are in the text
    pub sentences_in_text: usize,
    /// Name of the agent that did it
    pub summarized_by: String,
}

#[agent]
impl Summarizer {
    /// Summarize a text by its most telling sentences
    #[capability(ephemeral)]
    async fn summarize(
        &self,
        context: &Context,
        /// Text to summarize
        text: String,
        /// How many sentences the summary has at most; by default 2
        #[schemars(range(min = 1, max = 100))]
        sentences: Option<u8>,
    ) -> Summary {
        let all = sentences_of(&text);
        let chosen = most_telling(&all, usize::from(sentences.unwrap_or(SENTENCES_DEFAULT)));
        tracing::info!(of = all.len(), chosen = chosen.len(), "Summarized a text");
        Summary {
            summary: chosen.join(" "),
            sentence_count: chosen.len(),
            sentences_in_text: all.len(),
            summarized_by: context.config().metadata.name.clone(),
        }
    }
}

/// The sentences of a text with their marks: each ends with `.`, `!` or `?` before white space, or
/// with the text. `3.14` is within one.
fn sentences_of(text: &str) -> Vec<&str> {
    let mut sentences = Vec::new();
    let mut begin = 0;
    let mut after_mark = false;
    for (at, c) in text.char_indices() {
        if after_mark && c.is_whitespace() {
            sentences.push(text[begin..at].trim());
            begin = at;
        }
        after_mark = matches!(c, '.' | '!' | '?');
    }
    sentences.push(text[begin..].trim());
    // A mark that stands alone is no sentence.
    sentences.retain(|sentence| sentence.contains(char::is_alphanumeric));
    sentences
}

/// At most `count` of `sentences`, in their order: those whose words are the most frequent in all
/// of them. The score of a sentence is the mean frequency of its words, so that a long one is not
/// better for being long; of equals the earlier one is taken.
fn most_telling<'a>(sentences: &[&'a str], count: usize) -> Vec<&'a str> {
    let words_of: Vec<Vec<String>> =
        sentences.iter().map(|sentence| telling_words(sentence)).collect();
    let mut frequency: HashMap<&str, u128> = HashMap::new();
    for word in words_of.iter().flatten() {
        *frequency.entry(word).or_default() += 1;
    }
    let scores: Vec<(u128, u128)> = words_of
        .iter()
        .map(|words| {
            let sum = words.iter().filter_map(|word| frequency.get(word.as_str())).sum();
            (sum, u128::try_from(words.len().max(1)).unwrap_or(u128::MAX))
        })
        .collect();
    let mut best: Vec<usize> = (0..sentences.len()).collect();
    // Means are compared as fractions, which are exact. The sort keeps the order of equals.
    best.sort_by(|&a, &b| (scores[b].0 * scores[a].1).cmp(&(scores[a].0 * scores[b].1)));
    best.truncate(count);
    best.sort_unstable();
    best.into_iter().map(|at| sentences[at]).collect()
}

/// The words of a sentence that say something, in lower case and without marks around them.
fn telling_words(sentence: &str) -> Vec<String> {
    words(sentence)
        .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase())
        .filter(|word| length(word) >= WORD_LENGTH_MIN)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, count: usize, expected: &[&str]) {
        assert_eq!(most_telling(&sentences_of(text), count), expected, "{text:?}");
    }

    const TEXT: &str = "Agents call agents. The weather was fine that day! Agents prove who they \
                        are before agents answer. Who would have thought?";

    #[test]
    fn the_sentences_with_the_most_frequent_words_are_taken_in_their_order() {
        check(TEXT, 1, &["Agents call agents."]);
        check(TEXT, 2, &["Agents call agents.", "Agents prove who they are before agents answer."]);
        check(TEXT, 9, &sentences_of(TEXT));
        // Of equals the earlier one.
        check("Nothing here. Something there.", 1, &["Nothing here."]);
        check(
            "The end is near. So is the beginning, beginning!",
            1,
            &["So is the beginning, beginning!"],
        );
    }

    #[test]
    fn sentences_end_with_a_mark_and_white_space() {
        let check = |text: &str, expected: &[&str]| assert_eq!(sentences_of(text), expected);
        check("Pi is 3.14. It goes on", &["Pi is 3.14.", "It goes on"]);
        check("Really?! Yes...  No.\nMaybe", &["Really?!", "Yes...", "No.", "Maybe"]);
        check("Grüße! 世界です。 Ja.", &["Grüße!", "世界です。 Ja."]);
        check("", &[]);
        check(" . ! ", &[]);
    }
}
