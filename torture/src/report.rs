//! What came of one case.

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How many violations are told in words; the others are counted.
const TOLD_MAX: usize = 20;

/// What came of one case.
#[derive(Debug)]
pub struct Report {
    /// Its name, such as `R-01`.
    pub case: &'static str,
    /// What was done, with numbers.
    pub runs: String,
    /// What should not have been, in words.
    pub violations: Vec<String>,
    /// How long it took.
    pub took: Duration,
    /// Where the files are, if there is something to look at.
    pub kept: Option<PathBuf>,
    /// Why it could not be done here.
    pub skipped: Option<String>,
}

impl Report {
    /// A case that was done.
    #[must_use]
    pub fn new(case: &'static str, begun: Instant, runs: String, violations: Vec<String>) -> Self {
        let took = begun.elapsed();
        Self { case, runs, violations, took, kept: None, skipped: None }
    }

    /// A case that cannot be done here.
    #[must_use]
    pub fn skipped(case: &'static str, why: impl Into<String>) -> Self {
        let skipped = Some(why.into());
        let (runs, took) = (String::new(), Duration::ZERO);
        Self { case, runs, violations: Vec::new(), took, kept: None, skipped }
    }

    /// The first violations in words, one to a line, and how many others there are.
    #[must_use]
    pub fn told(&self) -> String {
        let mut text = String::new();
        for violation in self.violations.iter().take(TOLD_MAX) {
            text.push_str("  ");
            // A task with all its pieces may be long; the files have all of it.
            text.extend(violation.chars().take(600));
            text.push('\n');
        }
        let others = self.violations.len().saturating_sub(TOLD_MAX);
        if others > 0 {
            text.push_str(&format!("  and {others} others\n"));
        }
        text
    }
}
