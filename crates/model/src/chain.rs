//! Printing an error with everything behind it.

use std::error::Error;

/// `error` and its sources on one line, joined by `: `.
///
/// An error's `Display` speaks for its own layer; whoever prints it last, once, prints the chain.
/// A source whose text the line already ends with is not repeated.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let text = source.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        next = source.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    #[test]
    fn every_layer_speaks_once() {
        let layer = |text, source: Option<Layer>| Layer { text, source: source.map(Box::new) };
        let error = layer("opening", Some(layer("reading", Some(layer("no such file", None)))));
        assert_eq!(chain(&error), "opening: reading: no such file");
        let repeating = layer("opening: no such file", Some(layer("no such file", None)));
        assert_eq!(chain(&repeating), "opening: no such file");
    }
}
