//! Trials: an agent under load while something happens to it, and a verdict.
//!
//! A benchmark says how fast; a trial says whether anything was lost. Each is bounded in time, uses
//! loopback alone, and ends its own processes.

pub(crate) mod agent;
mod drain;
mod ground;
mod overload;
mod reload;
mod rotation;

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::options::{Trial, TrialKind};
use crate::say;

/// What a trial found: what is told, and what is wrong.
#[derive(Debug, Default)]
struct Verdict {
    facts: Vec<(&'static str, String)>,
    wrong: Vec<String>,
}

impl Verdict {
    fn fact(&mut self, name: &'static str, value: impl ToString) {
        self.facts.push((name, value.to_string()));
    }

    /// A rule of the trial; `text` says what was found instead.
    fn rule(&mut self, kept: bool, text: impl FnOnce() -> String) {
        if !kept {
            self.wrong.push(text());
        }
    }
}

/// Makes the trial and prints its verdict.
///
/// # Errors
///
/// If the trial cannot be made, or anything was lost in it.
pub(crate) fn run(trial: &Trial, binary: &Path) -> Result<()> {
    let time = Duration::from_secs(trial.seconds.into());
    let (name, verdict) = match trial.kind {
        TrialKind::Rotation => ("rotation", rotation::trial(binary, time)?),
        TrialKind::Drain => ("drain", drain::trial(binary, trial.rounds)?),
        TrialKind::Overload => ("overload", overload::trial(binary, time)?),
        TrialKind::Reload => ("reload", reload::trial(binary, time)?),
    };
    for (fact, value) in &verdict.facts {
        say(&format!("{name}: {fact}: {value}"))?;
    }
    for wrong in &verdict.wrong {
        say(&format!("{name}: WRONG: {wrong}"))?;
    }
    ensure!(verdict.wrong.is_empty(), "the trial `{name}` failed");
    say(&format!("{name}: passed"))
}

/// The value below which `share` of the sorted `values` lie.
fn quantile(values: &mut [u32], share: f64) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    values.sort_unstable();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index within the slice"
    )]
    let at = ((values.len() - 1) as f64 * share) as usize;
    f64::from(values.get(at).copied().unwrap_or_default())
}
