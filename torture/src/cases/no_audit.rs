//! An audit trail for stores that nobody asks anything of.

use convoke_journal::{AuditCounts, AuditError, AuditSink, BoxFuture};
use convoke_model::{AuditEvent, AuditRecord};

/// Takes every record and keeps none: what is damaged here is the store and not the trail.
pub(super) struct NoAudit;

impl AuditSink for NoAudit {
    fn submit(&self, _: AuditRecord) -> Result<(), AuditError> {
        Ok(())
    }

    fn resubmit(&self, _: String) -> Result<(), AuditError> {
        Ok(())
    }

    fn note(&self, _: AuditEvent) -> Result<(), AuditError> {
        Ok(())
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), AuditError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn waits(&self) -> bool {
        false
    }

    fn healthy(&self) -> bool {
        true
    }

    fn counts(&self) -> AuditCounts {
        AuditCounts::default()
    }
}
