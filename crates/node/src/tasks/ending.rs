//! Tasks that the node ends itself: nobody works on them any more, or nobody can answer them.

use convoke_engine::Event;
use convoke_journal::Durability;
use convoke_model::{AuditEventKind, Fault};

use super::running::{Running, Slot};
use super::said::words;
use crate::ids;
use crate::service::Service;

/// Why the node ends a task.
#[derive(Debug, Clone, Copy)]
enum Why {
    /// Something of ours panicked that worked on it.
    BrokeOff,
    /// It waits for an answer, and the node takes none any more.
    Drain,
}

impl Running {
    /// Ends a task whose work broke off. Its handler has gone with it.
    pub(super) async fn break_off(&self, service: &Service) {
        let mut slot = self.slot.lock().await;
        // It may be ahead of the journal, or behind it.
        slot.state = None;
        self.end_because(Why::BrokeOff, service, &mut slot).await;
    }

    /// Ends the task if it waits for an answer of its owner's.
    pub(super) async fn end_if_waiting(&self, service: &Service) {
        let mut slot = self.slot.lock().await;
        let waits_for_attempt =
            slot.state.as_ref().is_some_and(|state| state.work().retry_at.is_some());
        if waits_for_attempt && service.journal.durability() != Durability::Memory {
            self.left().cancel();
        }
        self.end_slot_if_waiting(service, &mut slot).await;
    }

    /// As [`Self::end_if_waiting`], for who holds the slot.
    pub(super) async fn end_slot_if_waiting(&self, service: &Service, slot: &mut Slot) {
        // Whoever asked may have thought better of it.
        let waits = slot.question.as_ref().is_some_and(|asked| !asked.reply.is_closed());
        if waits && self.goes_on_later(service) {
            self.left().cancel();
        } else if waits {
            self.end_because(Why::Drain, service, slot).await;
        }
    }

    /// Whether the node that comes next can go on with the task.
    fn goes_on_later(&self, service: &Service) -> bool {
        service.journal.durability() != Durability::Memory
            && self.capability().is_some_and(|index| service.host.descriptor(index).resume)
    }

    async fn end_because(&self, why: Why, service: &Service, slot: &mut Slot) {
        if let Err(fault) = self.try_to_end(why, service, slot).await {
            tracing::error!(task_id = %self.id(), error = %fault, "Task end was not stored");
        }
        self.stop().cancel();
    }

    async fn try_to_end(&self, why: Why, service: &Service, slot: &mut Slot) -> Result<(), Fault> {
        let state = slot.fresh(service, self.scope(), self.id()).await?;
        if state.is_ended() {
            return Ok(());
        }
        // On record before it can be seen, as everything.
        service.note(AuditEventKind::TaskEnded {
            task_id: self.id().clone(),
            capability: state.capability().clone(),
            owner: self.scope().owner.clone(),
            why: why.as_str(),
        });
        self.change(service, slot, [why.event()], None).await
    }
}

impl Why {
    /// The word of the audit trail.
    fn as_str(self) -> &'static str {
        match self {
            Self::BrokeOff => "broke_off",
            Self::Drain => "drain",
        }
    }

    fn event(self) -> Event {
        match self {
            Self::BrokeOff => Event::HandlerPanicked { message_id: ids::message() },
            Self::Drain => Event::HandlerFinished(Err(words(
                "the agent ends, and takes no answer to this task any more; send what you want \
                 done again"
                    .to_owned(),
            ))),
        }
    }
}
