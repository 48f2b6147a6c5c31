//! Follows audit logs and says each decision as it is written.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use convoke::UnixMillis;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::paint::{Paint, plain, say};

/// How often the logs are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// How long all logs have to be silent until the trail of a call is taken to be complete. Audit is
/// written within 10 ms of a decision.
const SILENT_FOR: Duration = Duration::from_millis(40);

/// How long after its decision a record is surely written.
const WRITTEN_WITHIN: Duration = Duration::from_millis(25);

/// Columns for caller and agent.
const WHO_WIDTH: usize = 32;

/// Audit logs that are read as they grow.
pub(crate) struct Trail {
    logs: Vec<Log>,
    /// The beginning of IDs that need no mention, such as `spiffe://example.org`.
    domain: String,
    paint: Paint,
}

struct Log {
    path: PathBuf,
    read: u64,
    /// The beginning of a line whose end is not written yet.
    rest: Vec<u8>,
}

impl Trail {
    pub(crate) fn new(paths: Vec<PathBuf>, domain: String, paint: Paint) -> Self {
        let logs = paths.into_iter().map(|path| Log { path, read: 0, rest: Vec::new() }).collect();
        Self { logs, domain, paint }
    }

    /// Says decisions until `done` is cancelled and the logs have been silent for a moment.
    pub(crate) async fn follow(&mut self, done: &CancellationToken) -> std::io::Result<()> {
        let mut silent = Duration::ZERO;
        let mut lines: Vec<Value> = Vec::new();
        loop {
            let known = lines.len();
            for log in &mut self.logs {
                log.grown(&mut lines)?;
            }
            silent = if lines.len() > known { Duration::ZERO } else { silent + LOOK_EVERY };
            let over = done.is_cancelled() && silent >= SILENT_FOR;
            // A cause is decided before its effect but may be written after it, so a line waits
            // until no earlier one can come. Of the same millisecond the first log's come first.
            lines.sort_by(|a, b| a["timestamp"].as_str().cmp(&b["timestamp"].as_str()));
            let settled = before(WRITTEN_WITHIN);
            let ready = match over {
                true => lines.len(),
                false => lines.partition_point(|line| line["timestamp"].as_str() < Some(&settled)),
            };
            for line in lines.drain(..ready) {
                say(self.sentence(&line));
            }
            if over {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn sentence(&self, record: &Value) -> String {
        let text = |key: &str| record[key].as_str().map(plain);
        let is_allowed = record["decision"] == "allow";
        let verdict = match is_allowed {
            true => self.paint.good("allowed"),
            false => self.paint.bad("refused"),
        };
        // Every rule is below `data`.
        let rule = text("rule").map(|rule| match rule.strip_prefix("data.") {
            Some(short) => (short.to_owned(), true),
            None => (rule, false),
        });
        let by = match (rule, text("detail")) {
            (Some((rule, _)), Some(detail)) => format!("by {rule}: {detail}"),
            (Some((rule, true)), None) if !is_allowed => format!("because {rule} does not hold"),
            (Some((rule, _)), None) => format!("by {rule}"),
            (None, _) => format!("by {}", text("reason").unwrap_or_default()),
        };
        let took =
            record["decision_us"].as_u64().map_or(String::new(), |us| format!(" in {us} µs"));
        let asked = text("capability").or_else(|| text("operation")).unwrap_or_default();
        let caller = self.short(&text("caller_spiffe_id").unwrap_or_default());
        let agent = self.short(&text("agent_spiffe_id").unwrap_or_default());
        let who = format!("{} → {}", self.paint.name(&caller), self.paint.name(&agent));
        // Padded by what is seen, which colours do not count for.
        let gap = " ".repeat(WHO_WIDTH.saturating_sub(caller.chars().count() + agent.len() + 3));
        format!("   {who}{gap} {asked:<17} {verdict} {}", self.paint.dim(&format!("{by}{took}")))
    }

    /// An ID without the trust domain that everybody here is of.
    fn short(&self, id: &str) -> String {
        id.strip_prefix(&self.domain).unwrap_or(id).to_owned()
    }
}

/// The timestamp of the instant `ago`.
fn before(ago: Duration) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let then = now.saturating_sub(ago).as_millis();
    UnixMillis(u64::try_from(then).unwrap_or(u64::MAX)).to_string()
}

impl Log {
    /// Reads what was added since the last look.
    fn grown(&mut self, lines: &mut Vec<Value>) -> std::io::Result<()> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            // The log is made with its first record.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(self.read))?;
        let read = file.read_to_end(&mut self.rest)?;
        self.read += u64::try_from(read).unwrap_or(0);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            // What happened to a node itself is no decision, and known from the node's words.
            if let Ok(value) = serde_json::from_slice::<Value>(&line)
                && value["event_type"] == "authorization"
            {
                lines.push(value);
            }
        }
        Ok(())
    }
}
