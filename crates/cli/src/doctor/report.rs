//! What was found, told as it is found, or as data at the end.

use serde::Serialize;
use serde_json::json;

use crate::exit::Failure;
use crate::output;
use crate::paint::{Paint, plain, say};

/// What a check comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Good,
    Warning,
    Wrong,
    Skipped,
}

/// What one check found.
#[derive(Debug, Serialize)]
struct Finding {
    config: String,
    check: &'static str,
    verdict: Verdict,
    message: String,
    cure: Option<String>,
}

/// Everything that was found.
pub(super) struct Report {
    as_json: bool,
    /// Whether each file's findings have its name above them.
    titled: bool,
    paint: Paint,
    config: String,
    /// The file whose name stands above what was told last.
    told: Option<String>,
    /// The files of the agents that do not run.
    not_running: Vec<String>,
    findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(as_json: bool, titled: bool, paint: Paint) -> Self {
        let (config, not_running, findings) = (String::new(), Vec::new(), Vec::new());
        Self { as_json, titled, paint, config, told: None, not_running, findings }
    }

    /// What follows is about the agent of `config`.
    pub(super) fn begin(&mut self, config: &str) {
        config.clone_into(&mut self.config);
    }

    pub(super) fn good(&mut self, check: &'static str, message: impl Into<String>) {
        self.add(check, Verdict::Good, message.into(), None);
    }

    pub(super) fn warn(
        &mut self,
        check: &'static str,
        message: impl Into<String>,
        cure: impl Into<Option<String>>,
    ) {
        self.add(check, Verdict::Warning, message.into(), cure.into());
    }

    pub(super) fn wrong(
        &mut self,
        check: &'static str,
        message: impl Into<String>,
        cure: impl Into<Option<String>>,
    ) {
        self.add(check, Verdict::Wrong, message.into(), cure.into());
    }

    pub(super) fn skip(&mut self, check: &'static str, why: impl Into<String>) {
        self.add(check, Verdict::Skipped, why.into(), None);
    }

    /// The agent of which the report is does not run, which is nothing wrong by itself.
    pub(super) fn does_not_run(&mut self) {
        self.not_running.push(self.config.clone());
    }

    fn add(
        &mut self,
        check: &'static str,
        verdict: Verdict,
        message: String,
        cure: Option<String>,
    ) {
        let config = self.config.clone();
        let finding = Finding { config, check, verdict, message, cure };
        if !self.as_json {
            self.tell(&finding);
        }
        self.findings.push(finding);
    }

    fn tell(&mut self, finding: &Finding) {
        let paint = self.paint;
        if self.titled && self.told.as_ref() != Some(&finding.config) {
            let blank = if self.told.is_some() { "\n" } else { "" };
            say(format!("{blank}{}", paint.bold(&plain(&finding.config))));
            self.told = Some(finding.config.clone());
        }
        let sign = match finding.verdict {
            Verdict::Good => paint.good("✓"),
            Verdict::Warning => paint.bold("!"),
            Verdict::Wrong => paint.bad("✗"),
            Verdict::Skipped => paint.dim("-"),
        };
        let skipped = if finding.verdict == Verdict::Skipped { "skipped: " } else { "" };
        say(format!("{sign} {}: {skipped}{}", finding.check, plain(&finding.message)));
        if let Some(cure) = &finding.cure {
            say(format!("  {} {}", paint.dim("cure:"), plain(cure)));
        }
    }

    /// Prints what is left to print, and says how much is wrong.
    pub(super) fn finish(self) -> Result<usize, Failure> {
        let count = |verdict| self.findings.iter().filter(|f| f.verdict == verdict).count();
        let (wrong, warnings) = (count(Verdict::Wrong), count(Verdict::Warning));
        if self.as_json {
            output::print(&json!({ "healthy": wrong == 0, "findings": self.findings }))?;
        } else if wrong == 0 {
            let warned = match warnings {
                0 => String::new(),
                1 => ", with one warning".to_owned(),
                many => format!(", with {many} warnings"),
            };
            let healthy = self.paint.good("healthy:");
            say(match self.not_running.as_slice() {
                [] => format!("\n{healthy} nothing is wrong{warned}"),
                _ if !self.titled => {
                    format!("\n{healthy} the configuration is right; the agent does not run")
                }
                files => {
                    let files = plain(&files.join(", "));
                    format!("\n{healthy} the configurations are right; not running: {files}")
                }
            });
        }
        Ok(wrong)
    }
}
