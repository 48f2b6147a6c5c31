//! One agent, ready to be asked: what every request of it shares.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use convoke_agent::{AgentConfig, Host, Outbound};
use convoke_identity::IdentitySource;
use convoke_journal::{AuditSink, Journal, JournalError};
use convoke_model::{AuditEventKind, AuditRecord, Fault, FaultCode, chain};

use crate::admission::Admission;
use crate::budget::Budget;
use crate::card::CardReply;
use crate::clock::Clock;
use crate::observe;
use crate::observe::health::Health;
use crate::observe::metrics::Metrics;
use crate::observe::trace::Tracer;
use crate::policy::Decider;
use crate::refusals::Refusals;
use crate::sparse::Sparse;
use crate::stream::Streams;
use crate::tasks::Tasks;

/// One agent, ready to be asked.
pub(crate) struct Service {
    pub(crate) agent: Arc<AgentConfig>,
    pub(crate) host: Host,
    pub(crate) policy: Decider,
    /// Who may come in now, and who waits.
    pub(crate) admission: Arc<Admission>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) audit: Arc<dyn AuditSink>,
    /// Refusals that are counted before they are put on record.
    pub(crate) refusals: Refusals,
    pub(crate) identity: Arc<IdentitySource>,
    pub(crate) outbound: Arc<dyn Outbound>,
    pub(crate) tasks: Tasks,
    pub(crate) streams: Streams,
    pub(crate) metrics: Arc<Metrics>,
    /// Makes the spans of requests.
    pub(crate) tracer: Tracer,
    pub(crate) health: Arc<Health>,
    /// Set before the first connection is accepted.
    pub(crate) card: OnceLock<CardReply>,
    pub(crate) clock: Clock,
    /// Keeps peers who are turned away from filling the log.
    pub(crate) turned_away: Sparse,
    /// Keeps requests that are turned away from filling the log.
    pub(crate) rejected: Sparse,
    /// Keeps a journal in trouble from filling the log.
    pub(crate) troubled: Sparse,
    /// Room for large request bodies.
    pub(crate) bodies: Budget,
    /// Room for large answers.
    pub(crate) answers: Budget,
    /// Largest request body, in bytes.
    pub(crate) body_bytes_max: usize,
    /// Longest life of a connection.
    pub(crate) connection_age_max: Duration,
}

impl Service {
    /// Puts a decision without a change of state on record; a refusal without a task may be counted
    /// and put on record with others. What cannot be put on record is not done.
    pub(crate) async fn put_on_record(&self, record: Option<AuditRecord>) -> Result<(), Fault> {
        let Some(record) = record else { return Ok(()) };
        let put = |record| self.journal.record(record);
        let taken = if Refusals::concerns(&record) {
            self.refusals.take(record, self.clock.monotonic(), put)
        } else {
            put(record).map(|()| true)
        };
        let written = match taken {
            Ok(true) if self.audit.waits() => match self.refusals.write_all(put) {
                Ok(()) => self.journal.flush().await,
                Err(error) => Err(error),
            },
            taken => taken.map(drop),
        };
        written.map_err(|error| self.commit_fault(&error))
    }

    /// Puts refusals on record that were counted long enough.
    pub(crate) fn write_due_refusals(&self) {
        let put = |record| self.journal.record(record);
        note_untaken(self.refusals.write_due(self.clock.monotonic(), put));
    }

    /// Puts all refusals on record that were counted.
    pub(crate) fn write_all_refusals(&self) {
        note_untaken(self.refusals.write_all(|record| self.journal.record(record)));
    }

    /// Puts on record what happened to the node itself.
    pub(crate) fn note(&self, kind: AuditEventKind) {
        observe::audit::note(&*self.audit, &self.agent.spiffe_id, self.clock.now(), kind);
    }

    /// What a caller is told of a journal that does not take or give something.
    pub(crate) fn commit_fault(&self, error: &JournalError) -> Fault {
        match error {
            JournalError::OwnerFull { .. } => {
                Fault::new(FaultCode::ResourceExhausted, error.to_string())
            }
            JournalError::Full { .. } | JournalError::Busy => {
                Fault::new(FaultCode::Unavailable, error.to_string())
            }
            JournalError::SendConflict { .. } => {
                Fault::invalid_field("message.messageId", error.to_string())
            }
            JournalError::Storage { .. } => {
                if let Some(unsaid) = self.troubled.may_say(self.clock.monotonic()) {
                    let error = chain(error);
                    tracing::error!(error, unsaid, "Journal takes or gives nothing");
                }
                // Where the store is, and what its disk says, is the operator's to know.
                Fault::new(
                    FaultCode::Unavailable,
                    "the agent cannot store tasks at the moment, so nothing is done; try again \
                     later",
                )
            }
            JournalError::Audit(why) => {
                self.metrics.audit_refused();
                tracing::error!(error = %why, "Audit record was not taken");
                Fault::new(
                    FaultCode::Unavailable,
                    "the audit log takes no records at the moment, so nothing is done; try again \
                     later",
                )
            }
            other => {
                tracing::error!(error = %other, "Journal refused a change");
                Fault::new(FaultCode::Internal, "the journal refused the change")
            }
        }
    }
}

/// Says that counted refusals were not taken. Their callers have their answers, so there is nobody
/// to refuse.
fn note_untaken(taken: Result<(), JournalError>) {
    if let Err(error) = taken {
        tracing::error!(event_type = "authorization", %error, "Audit record was not taken");
    }
}
