//! What can be said of a text without understanding it. No agents here.
//!
//! The tutorial's reader can check every number by hand or with a line of Python: words are what
//! `str.split()` gives, lengths count code points, and averages are rounded as `round(x, 2)` does.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const POSITIVE: [&str; 8] =
    ["good", "great", "excellent", "amazing", "wonderful", "fantastic", "love", "happy"];

const NEGATIVE: [&str; 8] =
    ["bad", "terrible", "awful", "horrible", "hate", "sad", "angry", "disappointed"];

/// How a text sounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Sentiment {
    /// More of the good words than of the bad ones.
    Positive,
    /// More of the bad words than of the good ones.
    Negative,
    /// As many of the one as of the other.
    Neutral,
}

/// The words of a text: what stands between white space.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// The number of sentences: of pieces between `.`, `!` and `?` that are more than white space.
pub(crate) fn sentence_count(text: &str) -> usize {
    text.split(['.', '!', '?']).filter(|piece| !piece.chars().all(is_space)).count()
}

/// The length of a text in code points.
pub(crate) fn length(text: &str) -> usize {
    text.chars().count()
}

/// The mean length of `count` words of `total` code points together, to two places; zero if there
/// are none.
pub(crate) fn average(total: usize, count: usize) -> f64 {
    if count == 0 {
        return 0.0;
    }
    // A text that fits in a request has far fewer code points than a double can count.
    let mean = total as f64 / count as f64;
    // Formatting rounds the number's exact decimal value, half to even. Multiplying by a hundred
    // first would round twice.
    format!("{mean:.2}").parse().unwrap_or(mean)
}

/// Counts how many of the good and of the bad words occur in the text, each once and also inside
/// other words: "unhappy gloves" sounds positive.
pub(crate) fn sentiment(text: &str) -> Sentiment {
    let text = text.to_lowercase();
    let occurring = |words: &[&str]| words.iter().filter(|word| text.contains(**word)).count();
    match occurring(&POSITIVE).cmp(&occurring(&NEGATIVE)) {
        std::cmp::Ordering::Greater => Sentiment::Positive,
        std::cmp::Ordering::Less => Sentiment::Negative,
        std::cmp::Ordering::Equal => Sentiment::Neutral,
    }
}

/// White space as Python's `str.split` knows it: Unicode's, and the four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected values are what Python 3 computes.
    fn check(text: &str, expected: (usize, usize, f64, usize, Sentiment)) {
        let count = words(text).count();
        let total = words(text).map(length).sum();
        let found =
            (count, sentence_count(text), average(total, count), length(text), sentiment(text));
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn texts_are_measured_as_in_python() {
        use Sentiment::{Negative, Neutral, Positive};
        check(
            "This is a wonderful document. It contains great information and amazing insights.",
            (12, 2, 5.83, 81, Positive),
        );
        check("This is excellent!", (3, 1, 5.33, 18, Positive));
        check("This is terrible.", (3, 1, 5.0, 17, Negative));
        check("This is okay.", (3, 1, 3.67, 13, Neutral));
        check("", (0, 0, 0.0, 0, Neutral));
        check(" \t\n ", (0, 0, 0.0, 4, Neutral));
        check("...!?", (1, 0, 5.0, 5, Neutral));
        check("Grüße, 世界! 👋🏽", (3, 2, 3.67, 13, Neutral));
        check("a\u{1f}b\u{a0}c\u{3000}d\u{200b}e", (4, 1, 1.5, 9, Neutral));
        check("unhappy gloves", (2, 1, 6.5, 14, Positive));
        check("Whatever, a badge.", (3, 1, 5.33, 18, Negative));
        check("GOOD good Good, but BAD", (5, 1, 3.8, 23, Neutral));
    }

    #[test]
    fn averages_are_rounded_once_and_half_to_even() {
        for (total, count, expected) in [
            (1, 8, 0.12),
            (3, 8, 0.38),
            (41, 8, 5.12),
            (43, 8, 5.38),
            (107, 40, 2.67),
            (1, 3, 0.33),
        ] {
            assert_eq!(average(total, count), expected, "{total}/{count}");
        }
    }
}
