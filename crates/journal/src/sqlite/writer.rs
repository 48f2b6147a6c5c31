//! The one thread that writes: it gathers jobs, and commits them together.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use super::commit::Committer;
use super::error::StoreError;
use super::job::{JOBS_MAX, Job};
use super::outcome::Outcome;
use super::shared::Shared;
use super::store::Refused;
use super::wait::wait;
use crate::AuditError;

/// The part of a commit's duration for which the next batch is gathered at most. With less, callers
/// that were answered together miss the batch that follows; with more, they wait for each other.
const GATHER_PART: u32 = 4;

/// How much of the recent peak is remembered from one batch to the next.
const PEAK_KEPT: f64 = 0.9;

/// The writer.
pub(super) struct Writer {
    jobs: Receiver<Job>,
    committer: Committer,
    shared: Arc<Shared>,
    pace: Pace,
}

/// How many jobs come together.
///
/// Committing whatever is there when the last commit is over settles at half of what could be:
/// callers that are answered together ask again together, while the other half is being committed.
/// So the writer waits a moment for as many as there were lately.
#[derive(Debug)]
struct Pace {
    peak: f64,
    /// How long the last commit took.
    commit: Duration,
}

impl Writer {
    pub(super) fn new(jobs: Receiver<Job>, committer: Committer, shared: Arc<Shared>) -> Self {
        let pace = Pace { peak: 0.0, commit: Duration::ZERO };
        Self { jobs, committer, shared, pace }
    }

    /// Works until it is told to close, or nobody is left who could ask.
    pub(super) fn run(mut self) {
        let _ended = Ended(Arc::clone(&self.shared));
        loop {
            let (batch, is_last) = self.gather();
            self.pace.learn(batch.len());
            let (chores, batch): (Vec<Job>, Vec<Job>) =
                batch.into_iter().partition(|job| matches!(job, Job::Chore(_)));
            self.commit(batch);
            for chore in chores {
                if let Job::Chore(chore) = chore {
                    self.committer.run_chore(chore);
                }
            }
            if is_last {
                break;
            }
        }
        self.committer.close();
    }

    /// Waits for jobs and takes them, in the order in which they came, and whether they are the
    /// last ones.
    fn gather(&mut self) -> (Vec<Job>, bool) {
        let mut batch = Vec::new();
        match self.jobs.recv() {
            Ok(Job::Close) | Err(_) => return (batch, true),
            Ok(job) => batch.push(job),
        }
        let began = Instant::now();
        while batch.len() < JOBS_MAX {
            match self.jobs.try_recv() {
                Ok(Job::Close) | Err(TryRecvError::Disconnected) => return (batch, true),
                Ok(job) => batch.push(job),
                Err(TryRecvError::Empty) => {
                    if self.pace.is_enough(batch.len(), began.elapsed()) {
                        break;
                    }
                    std::thread::yield_now();
                }
            }
        }
        (batch, false)
    }

    /// Does what a batch asks for in one commit, and tells everybody how it ended.
    fn commit(&mut self, mut jobs: Vec<Job>) {
        while !jobs.is_empty() {
            let recorded: Vec<bool> = jobs.iter().map(Job::has_audit).collect();
            match self.try_commit(&mut jobs, recorded.contains(&true)) {
                Ok(outcomes) => {
                    for (job, outcome) in jobs.into_iter().zip(outcomes) {
                        outcome.tell(job);
                    }
                    return;
                }
                Err(Failed::Store(error)) => {
                    for job in jobs {
                        job.refuse(&self.shared, error.clone());
                    }
                    return;
                }
                // What was to be recorded is not done; the others have nothing to do with it.
                Err(Failed::Audit(error)) => {
                    let mut others = Vec::new();
                    for (job, is_recorded) in jobs.into_iter().zip(recorded) {
                        if is_recorded {
                            Outcome::Refused(error.clone().into()).tell(job);
                        } else {
                            others.push(job);
                        }
                    }
                    jobs = others;
                }
            }
        }
    }

    fn try_commit(&mut self, jobs: &mut [Job], has_audit: bool) -> Result<Vec<Outcome>, Failed> {
        let began = Instant::now();
        let is_durable = jobs.iter().any(Job::is_durable);
        let mut commit = self.committer.begin(is_durable).map_err(Failed::Store)?;
        let mut outcomes = Vec::with_capacity(jobs.len());
        for job in jobs.iter_mut() {
            outcomes.push(match commit.stage(job) {
                Ok(outcome) => outcome,
                Err(Refused::Job(error)) => Outcome::Refused(error),
                Err(Refused::Store(error)) => return Err(Failed::Store(commit.fail(error))),
            });
        }
        if has_audit && self.shared.sink.waits() {
            // One wait for the whole batch, as its commit is one. Without a commit, dropping it
            // takes everything back.
            wait(self.shared.sink.flush()).map_err(Failed::Audit)?;
        }
        let bytes = jobs.iter().map(Job::bytes).sum();
        if commit.finish(jobs.len(), bytes).map_err(Failed::Store)? {
            self.pace.commit = began.elapsed();
        }
        Ok(outcomes)
    }
}

impl Pace {
    /// Notes that a batch had so many jobs.
    fn learn(&mut self, jobs: usize) {
        // Exact up to 2^53 jobs.
        let jobs = jobs as f64;
        self.peak = self.peak.max(jobs) * PEAK_KEPT + jobs * (1.0 - PEAK_KEPT);
    }

    /// Whether a batch of so many jobs, gathered for so long, is worth a commit. A lone caller waits
    /// for nobody.
    fn is_enough(&self, jobs: usize, gathered: Duration) -> bool {
        jobs as f64 >= self.peak.floor() || gathered >= self.commit / GATHER_PART
    }
}

/// Why a batch was not committed.
enum Failed {
    Store(StoreError),
    /// What was to be recorded first could not be.
    Audit(AuditError),
}

/// Says that nothing is written any more when the writer ends by a panic, so that health shows it.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.note(&StoreError::Closed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_caller_waits_for_nobody_and_a_crowd_for_itself() {
        let commit = Duration::from_millis(4);
        let mut pace = Pace { peak: 0.0, commit };
        for _ in 0..100 {
            pace.learn(1);
            assert!(pace.is_enough(1, Duration::ZERO));
        }
        pace.learn(64);
        assert!(!pace.is_enough(32, Duration::ZERO));
        assert!(pace.is_enough(64, Duration::ZERO));
        assert!(pace.is_enough(32, commit / GATHER_PART), "but not for long");
        // The crowd has gone, which is noticed after some commits.
        for _ in 0..60 {
            pace.learn(1);
        }
        assert!(pace.is_enough(1, Duration::ZERO));
    }
}
