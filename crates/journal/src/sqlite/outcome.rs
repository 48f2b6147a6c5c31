//! How jobs end.

use super::job::Job;
use crate::{Created, JournalError};

/// How a job of a committed batch ended.
pub(super) enum Outcome {
    Created(Created),
    /// The number of the newest event.
    Appended(u64),
    Done,
    Refused(JournalError),
}

impl Outcome {
    /// Tells whoever waits for the job, who may have gone.
    pub(super) fn tell(self, job: Job) {
        match (job, self) {
            (Job::Create(job), Self::Created(created)) => drop(job.reply.send(Ok(created))),
            (Job::Create(job), Self::Refused(error)) => drop(job.reply.send(Err(error))),
            (Job::Append(job), Self::Appended(last_seq)) => drop(job.reply.send(Ok(last_seq))),
            (Job::Append(job), Self::Refused(error)) => drop(job.reply.send(Err(error))),
            (Job::Flush(reply), Self::Done) => drop(reply.send(Ok(()))),
            (Job::Flush(reply), Self::Refused(error)) => drop(reply.send(Err(error))),
            // Nobody waits for the others.
            _ => {}
        }
    }
}
