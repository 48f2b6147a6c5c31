//! The audit trail of a node: how it is opened, and what the node notes of itself.

use convoke_journal::{
    AuditOpenError, AuditSink, JsonLinesSink, LinesOptions, RECORDS_MAX_DEFAULT, Rotation,
};
use convoke_model::{AuditEvent, AuditEventKind, SpiffeId, UnixMillis};

use crate::config::AuditConfig;

/// Opens the trail that `config` names.
pub(crate) fn open(config: &AuditConfig) -> Result<JsonLinesSink, AuditOpenError> {
    let options = LinesOptions {
        what: "audit file",
        sync: config.sync,
        records_max: RECORDS_MAX_DEFAULT,
        rotation: config.rotate_bytes.map(|bytes| Rotation { bytes, keep: config.keep }),
    };
    JsonLinesSink::open_with(&config.path, options)
}

/// Notes what happened to the node. Nobody asked for it, so there is nobody to refuse when it cannot
/// be noted; the log says so.
pub(crate) fn note(sink: &dyn AuditSink, agent: &SpiffeId, at: UnixMillis, kind: AuditEventKind) {
    let word = kind.as_str();
    if let Err(error) = sink.note(AuditEvent { at, agent: agent.clone(), kind }) {
        tracing::error!(event_type = word, %error, "Audit record was not taken");
    }
}
