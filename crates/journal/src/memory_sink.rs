//! An audit sink for tests: it keeps the records, and does as it is told.

use std::sync::{Mutex, MutexGuard, PoisonError};

use convoke_model::{AuditEvent, AuditRecord};
use tokio::sync::watch;

use crate::{AuditCounts, AuditError, AuditSink, BoxFuture};

/// Keeps audit records in memory, up to a number, and can be told to make effects wait.
pub struct MemorySink {
    kept: Mutex<Kept>,
    records_max: usize,
    waits: bool,
    /// Whether a flush returns.
    released: watch::Sender<bool>,
}

#[derive(Default)]
struct Kept {
    records: Vec<AuditRecord>,
    lines: Vec<String>,
    events: Vec<AuditEvent>,
    refused: u64,
}

impl MemorySink {
    /// Takes at most `records_max` records, then it is full.
    #[must_use]
    pub fn new(records_max: usize) -> Self {
        let released = watch::Sender::new(true);
        Self { kept: Mutex::default(), records_max, waits: false, released }
    }

    /// Like [`new`](Self::new), but every effect waits for its record, which is written only when
    /// [`release`](Self::release) is called.
    #[must_use]
    pub fn holding(records_max: usize) -> Self {
        let released = watch::Sender::new(false);
        Self { kept: Mutex::default(), records_max, waits: true, released }
    }

    /// Lets everything be written, from now on at once.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    /// The records that were taken, in their order.
    #[must_use]
    pub fn records(&self) -> Vec<AuditRecord> {
        self.lock().records.clone()
    }

    /// The lines that were handed over again, in their order.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// The events that were noted, in their order.
    #[must_use]
    pub fn events(&self) -> Vec<AuditEvent> {
        self.lock().events.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AuditSink for MemorySink {
    fn submit(&self, record: AuditRecord) -> Result<(), AuditError> {
        let mut kept = self.lock();
        if kept.records.len() >= self.records_max {
            kept.refused += 1;
            return Err(AuditError::Full { records_max: self.records_max });
        }
        kept.records.push(record);
        Ok(())
    }

    fn resubmit(&self, line: String) -> Result<(), AuditError> {
        self.lock().lines.push(line);
        Ok(())
    }

    fn note(&self, event: AuditEvent) -> Result<(), AuditError> {
        self.lock().events.push(event);
        Ok(())
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), AuditError>> {
        let mut released = self.released.subscribe();
        Box::pin(async move {
            released.wait_for(|released| *released).await.map_err(|_| AuditError::Closed)?;
            Ok(())
        })
    }

    fn waits(&self) -> bool {
        self.waits
    }

    fn healthy(&self) -> bool {
        self.lock().records.len() < self.records_max
    }

    fn counts(&self) -> AuditCounts {
        let kept = self.lock();
        let written = u64::try_from(kept.records.len()).unwrap_or(u64::MAX);
        AuditCounts { written, refused: kept.refused }
    }
}
