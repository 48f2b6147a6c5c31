//! Where tasks are kept.

use std::sync::Arc;

use convoke_journal::{
    AuditSink, Durability, Journal, JsonLinesSink, MemoryJournal, MemoryLimits, OpenError,
    Retention, SqliteJournal, SqliteOptions,
};
use tokio::task::spawn_blocking;

use crate::config::JournalConfig;

/// The status of a process that ends because what it wrote may not be on the disk. Source:
/// `EX_IOERR` of sysexits(3).
const DISK_FAILED: i32 = 74;

/// Opens the journal that `config` names.
///
/// # Errors
///
/// [`OpenError`] if it cannot be opened, or should not be: it is in use, damaged, or too new.
pub(crate) async fn open(
    config: &JournalConfig,
    audit: &Arc<JsonLinesSink>,
) -> Result<Arc<dyn Journal>, OpenError> {
    let sink = Arc::clone(audit) as Arc<dyn AuditSink>;
    let durability = config.durability;
    if durability == Durability::Memory && config.path.join("journal.db").exists() {
        let path = config.path.display();
        tracing::warn!(path = %path, "the store is not used, and its tasks are not here");
    }
    let journal: Arc<dyn Journal> = match durability {
        Durability::Memory => Arc::new(MemoryJournal::new(MemoryLimits::default(), sink)),
        Durability::Relaxed | Durability::Strict => {
            let options = SqliteOptions {
                directory: config.path.clone(),
                durability,
                retention: Retention {
                    ended_after: config.keep_ended,
                    tasks_max: Some(config.keep_tasks),
                    ..Retention::default()
                },
                fatal: Box::new(end),
            };
            // It reads its files, all of them if they are small.
            let opened = spawn_blocking(move || SqliteJournal::open(options, sink)).await;
            match opened {
                Ok(journal) => Arc::new(journal?),
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            }
        }
    };
    let word = durability.as_str();
    if durability == Durability::Strict {
        let path = config.path.display();
        tracing::info!(durability = word, path = %path, "Journal opened");
    } else {
        tracing::warn!(durability = word, "{}", durability.sentence());
    }
    Ok(journal)
}

/// Ends the process: nothing that it says of its store can be believed any more, and the kernel may
/// have forgotten what it did not write. Started again, the node goes on from what is there.
#[expect(clippy::exit, reason = "the journal says when, and nothing may run on")]
fn end(why: &str) {
    tracing::error!(error = why, "Journal cannot make sure of what it wrote; the process ends");
    std::process::exit(DISK_FAILED);
}
