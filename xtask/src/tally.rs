//! How many tests passed, read from what `cargo test` prints.

use std::collections::BTreeSet;
use std::fmt;

/// How a test that cannot run here says so: `skipped: <name>: <why>`, one line per test.
const SKIPPED: &str = "skipped: ";

/// The sum over all test programs of one run.
///
/// The programs run with `--show-output`, which is how a skipped test's line gets out of a
/// test that passed; the rest of what that option adds is not shown.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    skipped: BTreeSet<String>,
    /// Whether the lines now coming repeat what tests that passed had printed.
    in_successes: bool,
}

impl Tally {
    /// Takes one line of output and says whether a reader should see it.
    pub(crate) fn line(&mut self, line: &str) -> bool {
        if let Some(skipped) = line.trim_start().strip_prefix(SKIPPED) {
            self.skipped.insert(skipped.trim_end().to_owned());
        }
        if let Some(summary) = line.strip_prefix("test result: ") {
            self.in_successes = false;
            self.passed += count(summary, "passed");
            self.failed += count(summary, "failed");
            self.ignored += count(summary, "ignored");
            return true;
        }
        match line {
            "successes:" => self.in_successes = true,
            "failures:" => self.in_successes = false,
            _ => {}
        }
        !self.in_successes
    }

    /// The tests that said why they could not run, as `<name>: <why>`, in order.
    pub(crate) fn skipped(&self) -> impl Iterator<Item = &str> {
        self.skipped.iter().map(String::as_str)
    }
}

/// `N passed, N failed, N skipped`.
///
/// The test program counts a test that skipped itself as passed; it is skipped here, and so
/// are the tests marked `#[ignore]`.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let skipped = self.skipped.len() as u64;
        let passed = self.passed.saturating_sub(skipped);
        write!(f, "{passed} passed, {} failed, {} skipped", self.failed, self.ignored + skipped)
    }
}

/// Reads `3` from `ok. 3 passed; 0 failed; …` when asked for `passed`.
fn count(summary: &str, what: &str) -> u64 {
    summary
        .split(';')
        .find_map(|part| part.trim().strip_suffix(what)?.split_whitespace().last()?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_PROGRAMS: &str = "
running 3 tests
test a ... ok
test b ... ok
test c ... ignored

successes:

---- b stdout ----
skipped: b: CONVOKE_SEEDS names no directory
chatter


successes:
    a
    b

test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

running 2 tests
test d ... ok
test e ... FAILED

successes:

successes:
    d

failures:

---- e stdout ----
assertion failed

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.10s
";

    #[test]
    fn programs_are_summed_and_skips_are_named() {
        let mut tally = Tally::default();
        let shown: Vec<&str> = TWO_PROGRAMS.lines().filter(|line| tally.line(line)).collect();
        assert_eq!(tally.to_string(), "2 passed, 1 failed, 2 skipped");
        assert_eq!(tally.skipped().collect::<Vec<_>>(), ["b: CONVOKE_SEEDS names no directory"]);
        assert!(shown.contains(&"assertion failed"), "{shown:?}");
        assert!(!shown.contains(&"chatter"), "{shown:?}");
    }

    fn check_count(summary: &str, what: &str, expected: u64) {
        assert_eq!(count(summary, what), expected, "{summary}");
    }

    #[test]
    fn counts() {
        check_count("ok. 12 passed; 3 failed", "passed", 12);
        check_count("ok. 12 passed; 3 failed", "failed", 3);
        check_count("\u{1b}[32mok\u{1b}[0m. 4 passed; 0 failed", "passed", 4);
        check_count("something else", "passed", 0);
    }
}
