//! What one client has asked and heard, in its order, on the disk before anything depends on it.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Largest history of one client, in bytes.
const BYTES_MAX: u64 = 256 * 1024 * 1024;

/// One thing that a client has asked or heard. Tasks and events are as A2A writes them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Entry {
    /// A message is about to leave that makes a task, perhaps again.
    Sends {
        /// Its name.
        message: String,
        /// What it calls.
        capability: String,
        /// With what.
        params: Value,
    },
    /// The answer to a message that makes a task.
    Sent {
        /// Its name.
        message: String,
        /// The task.
        task: Value,
    },
    /// A message is about to leave that answers a question.
    Replies {
        /// The task that asked.
        task: String,
        /// What is answered.
        word: String,
    },
    /// A task as an answer showed it, whole.
    Saw {
        /// The task.
        task: Value,
    },
    /// A page of a list, as names and states.
    Listed {
        /// The tasks.
        tasks: Vec<(String, String)>,
    },
    /// A cancellation is about to leave.
    Cancels {
        /// Of which task.
        task: String,
    },
    /// It was answered: the task is cancelled.
    Cancelled {
        /// The task.
        task: Value,
    },
    /// It was answered: the task had ended.
    NotCancelable {
        /// The task.
        task: String,
    },
    /// A task is about to be followed.
    Follows {
        /// The client's number for the stream, over all its cuts.
        stream: u64,
        /// The place after which it begins, if it is one of a task that is known.
        after: Option<String>,
    },
    /// An event of a stream.
    Heard {
        /// The stream.
        stream: u64,
        /// The event's place.
        cursor: Option<String>,
        /// Whether it is the task as it stands because events were lost.
        reset: bool,
        /// The event.
        event: Value,
    },
    /// Something was refused, or had no answer.
    Failed {
        /// What was asked.
        what: String,
        /// The agent's word for it, if it had one.
        code: Option<String>,
        /// In words.
        error: String,
    },
}

/// A history as it is written.
pub struct History {
    file: Option<File>,
    entries: Vec<Entry>,
    pending: Vec<u8>,
    bytes: u64,
}

impl History {
    /// A new history in `file`.
    ///
    /// # Errors
    ///
    /// If the file cannot be made.
    pub fn begin(file: &Path) -> Result<Self> {
        let file = File::create_new(file).with_context(|| format!("{}", file.display()))?;
        Ok(Self { file: Some(file), ..Self::in_memory() })
    }

    /// A new history of a client that is not to be slowed down by a disk.
    #[must_use]
    pub fn in_memory() -> Self {
        Self { file: None, entries: Vec::new(), pending: Vec::new(), bytes: 0 }
    }

    /// Adds an entry, which [`keep`](Self::keep) has on the disk.
    ///
    /// # Errors
    ///
    /// If the history is too long.
    pub fn add(&mut self, entry: Entry) -> Result<()> {
        if self.file.is_some() {
            let before = self.pending.len();
            serde_json::to_writer(&mut self.pending, &entry).context("an entry is no JSON")?;
            self.pending.push(b'\n');
            self.bytes += (self.pending.len() - before) as u64;
            ensure!(self.bytes <= BYTES_MAX, "a history has more than {BYTES_MAX} bytes");
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Returns once everything that was added is on the disk.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn keep(&mut self) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let pending = std::mem::take(&mut self.pending);
        tokio::task::block_in_place(|| {
            file.write_all(&pending)?;
            file.sync_data()
        })
        .context("a history cannot be written")
    }

    /// What was written, in order.
    #[must_use]
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }
}

/// Reads a history that a client has left.
///
/// # Errors
///
/// If a line is no entry.
pub fn read(file: &Path) -> Result<Vec<Entry>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
    let entry = |(line, text): (usize, &str)| {
        serde_json::from_str(text).with_context(|| format!("{}:{}", file.display(), line + 1))
    };
    text.lines().enumerate().map(entry).collect()
}
