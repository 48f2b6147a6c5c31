//! Printing an error with everything behind it.

use std::error::Error;
use std::io;

use crate::system;

/// `error` and its sources on one line, joined by `: `.
///
/// An error's `Display` speaks for its own layer; whoever prints it last, once, prints the chain.
/// A source whose text the line already ends with is not repeated. An error of the operating system
/// is told as [`system_error`](crate::system_error) does, without its cure where the line has one
/// already, which stands behind a semicolon.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let text = text(source, &line);
        if !line.ends_with(&text) && !line.ends_with(&source.to_string()) {
            line.push_str(": ");
            line.push_str(&text);
        }
        next = source.source();
    }
    line
}

fn text(error: &(dyn Error + 'static), before: &str) -> String {
    match error.downcast_ref::<io::Error>() {
        Some(error) if before.contains("; ") => system::system_words(error),
        Some(error) => system::system_error(error),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_errors_have_one_cure_and_no_number() {
        #[derive(Debug, thiserror::Error)]
        #[error("{text}")]
        struct Opening {
            text: &'static str,
            source: io::Error,
        }
        let check = |text: &'static str, expected: &str| {
            let source = io::Error::from_raw_os_error(2);
            assert_eq!(chain(&Opening { text, source }), expected);
        };
        check(
            "`a` cannot be read",
            "`a` cannot be read: there is no such file or directory; check the path",
        );
        check("no `a`; make it", "no `a`; make it: there is no such file or directory");
    }

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
