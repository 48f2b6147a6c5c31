//! Configurations as files: wrong ones, each with what has to be said of it and where, and right
//! ones that have to load.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;

/// At least so many wrong ones. Source: the plan of the foundation.
const WRONG_MIN: usize = 100;

/// One line `# expect: LINE:COLUMN: words`.
struct Expected {
    place: Option<(usize, usize)>,
    words: String,
}

pub(super) fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(name)
}

pub(super) fn files(name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory(name)).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

pub(super) fn environment() -> Environment {
    let variables = [("HOME", "/home/ann"), ("TOKEN_SET", "s3cret"), ("TOKEN_LINES", "a\nb")];
    Environment::of(variables.into_iter().collect())
}

fn expected(text: &str) -> Vec<Expected> {
    let lines = text.lines().map_while(|line| line.strip_prefix("# expect: "));
    lines
        .map(|line| {
            let mut parts = line.splitn(3, ':');
            let mut number = || parts.next()?.parse().ok();
            let place = number().zip(number());
            let words = match place {
                Some(_) => parts.next().unwrap().trim_start(),
                None => line,
            };
            Expected { place, words: words.to_owned() }
        })
        .collect()
}

#[test]
fn wrong_ones_are_refused_with_line_column_and_cure() {
    let files = files("wrong");
    assert!(files.len() >= WRONG_MIN, "{}", files.len());
    let mut failures = Vec::new();
    let mut numbers = BTreeSet::new();
    for path in files {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(numbers.insert(name[..3].to_owned()), "{name}: its number is taken");
        let text = fs::read_to_string(&path).unwrap();
        let expected = expected(&text);
        assert!(!expected.is_empty(), "{name} does not say what is expected");
        let Err(error) = Config::parse_in(&text, name, &environment()) else {
            failures.push(format!("{name}: it loads"));
            continue;
        };
        let found = &error.problems;
        let matches = |(expected, found): (&Expected, &Problem)| {
            expected.place.is_none_or(|place| Some(place) == found.line.zip(found.column))
                && found.to_string().contains(&expected.words)
        };
        if expected.len() != found.len() || !expected.iter().zip(found).all(matches) {
            failures.push(error.to_string());
        }
        assert_eq!(error.to_string().lines().count(), found.len(), "{name}: {error}");
        assert!(!error.to_string().contains("hunter2"), "{name}: {error}");
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn right_ones_load() {
    for path in files("right") {
        let name = path.display().to_string();
        let text = fs::read_to_string(&path).unwrap();
        Config::parse_in(&text, &name, &environment()).unwrap();
    }
}
