//! A server that requests are sent to, and whether it left the trail that it owes.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::child::Child;
use crate::load::Target;

/// How long a worker may take to write the last records. Source: the design counts repeated refusals
/// for 10 s, looks at what is due every second, and flushes within 10 ms; the rest is for a machine
/// that does much else.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);

/// How often an audit file that is not complete is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A server that requests are sent to.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) target: Target,
    child: Child,
    /// What a worker writes; a ceiling writes nothing.
    files: Option<Files>,
}

struct Files {
    audit: PathBuf,
    log: PathBuf,
}

impl Contender {
    pub(crate) fn worker(
        name: &'static str,
        target: Target,
        child: Child,
        audit: PathBuf,
        log: PathBuf,
    ) -> Self {
        Self { name, target, child, files: Some(Files { audit, log }) }
    }

    pub(crate) fn ceiling(name: &'static str, target: Target, child: Child) -> Self {
        Self { name, target, child, files: None }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Waits until a worker has put on record, since the last time, that it allowed `allowed`
    /// requests and refused `refused`, and makes room.
    ///
    /// # Errors
    ///
    /// If the record says anything else, or gives another reason for a refusal than that the
    /// decision was over time.
    pub(crate) fn settle(&self, allowed: u64, refused: u64) -> Result<()> {
        let Some(Files { audit, log }) = &self.files else { return Ok(()) };
        let give_up = Instant::now() + SETTLED_WITHIN;
        let mut file = BufReader::with_capacity(1 << 18, File::open(audit)?);
        let mut trail = Trail::default();
        loop {
            trail.follow(&mut file)?;
            if trail.allowed + trail.refused >= allowed + refused || Instant::now() >= give_up {
                break;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        ensure!(
            (trail.allowed, trail.refused) == (allowed, refused),
            "{}: {allowed} requests were answered and {refused} refused, but on record are {} and {}",
            self.name,
            trail.allowed,
            trail.refused
        );
        // Both files are appended to, so the worker goes on at their new beginning.
        empty(audit)?;
        empty(log)
    }
}

/// What an audit file says that grows.
#[derive(Debug, Default, PartialEq, Eq)]
struct Trail {
    allowed: u64,
    refused: u64,
    /// A line whose end has not been written yet.
    line: Vec<u8>,
}

/// How many refusals a record stands for beside its own.
#[derive(serde::Deserialize)]
struct Counted {
    #[serde(default)]
    repeated: u64,
}

impl Trail {
    fn follow(&mut self, file: &mut impl BufRead) -> Result<()> {
        while file.read_until(b'\n', &mut self.line)? > 0 && self.line.ends_with(b"\n") {
            let has = |words: &[u8]| self.line.windows(words.len()).any(|here| here == words);
            if has(br#""decision":"allow""#) {
                self.allowed += 1;
            } else if has(br#""decision":"deny""#) {
                let line = String::from_utf8_lossy(&self.line);
                ensure!(has(br#""reason":"over_time""#), "refused for no good reason: {line}");
                let counted: Counted = serde_json::from_slice(&self.line)?;
                self.refused += 1 + counted.repeated;
            }
            self.line.clear();
        }
        Ok(())
    }
}

fn empty(path: &Path) -> Result<()> {
    let file = File::options().write(true).open(path);
    Ok(file.with_context(|| path.display().to_string())?.set_len(0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: &str = "{\"decision\":\"allow\",\"reason\":\"allowed\"}\n";
    const OVER_TIME: &str = "{\"decision\":\"deny\",\"reason\":\"over_time\"}\n";

    #[test]
    fn whole_lines_are_counted_by_their_decision() {
        let mut trail = Trail::default();
        let (begin, end) = OVER_TIME.split_at(9);
        trail.follow(&mut format!("{ALLOWED}{ALLOWED}{begin}").as_bytes()).unwrap();
        assert_eq!((trail.allowed, trail.refused), (2, 0));
        trail.follow(&mut end.as_bytes()).unwrap();
        assert_eq!((trail.allowed, trail.refused), (2, 1));
    }

    #[test]
    fn a_record_counts_for_all_refusals_that_it_stands_for() {
        let mut trail = Trail::default();
        let repeated = OVER_TIME.replace('}', ",\"repeated\":41}");
        trail.follow(&mut format!("{OVER_TIME}{repeated}").as_bytes()).unwrap();
        assert_eq!((trail.allowed, trail.refused), (0, 43));
    }

    #[test]
    fn any_other_refusal_is_an_error() {
        let denied = OVER_TIME.replace("over_time", "denied");
        assert!(Trail::default().follow(&mut denied.as_bytes()).is_err());
    }
}
