//! The processes under test: our agent on a store of its own, and what is in that store afterwards.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use super::disk::{Disk, Syncs};
use crate::child::{Child, log_file};
use crate::cores;
use crate::load::Target;
use crate::procfs;
use crate::stage::{CALLER, DEV_STARTED, Door, Stage, WORKER};

/// The worker's methods, for every caller of a plaintext listener.
const METHODS: &str = "input.request.method in [\"hold\", \"note\", \"tell\", \"relay\"]";

/// The file of a store that `sqlite3` opens.
const STORE_FILE: &str = "journal.db";

/// How long an audit record may take to be in its file. Source: it is flushed within 10 ms; the rest
/// is for a machine that does much else.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);

/// How an agent is started.
pub(crate) struct Setting<'a> {
    pub(crate) name: &'a str,
    pub(crate) door: Door,
    /// Where its store is; made if it is not there.
    pub(crate) store: &'a Path,
    /// How many tasks are at work at a time.
    pub(crate) seats: usize,
    /// The disk that it writes to, and how many microseconds longer a sync takes there.
    pub(crate) disk: Option<(&'a Disk, u32)>,
}

/// An agent at work.
pub(crate) struct Worker {
    child: Child,
    pub(crate) target: Target,
    pub(crate) log: PathBuf,
    pub(crate) syncs: Option<Syncs>,
}

impl Worker {
    /// Starts an agent and waits until it listens.
    pub(crate) fn start(stage: &Stage, setting: &Setting<'_>) -> Result<Self> {
        let Setting { name, door, store, seats, disk } = *setting;
        let at = |suffix: &str| stage.path(&format!("{name}.{suffix}"));
        let (config, policy, log, audit) = (at("yaml"), at("rego"), at("log"), at("audit.jsonl"));
        let caller = match door {
            Door::Mesh => format!("    input.caller.spiffe_id == \"{CALLER}\"\n"),
            Door::Dev => String::new(),
        };
        let rego = format!(
            "package agentweave.authz\n\ndefault allow := false\n\nallow if {{\n{caller}    \
             {METHODS}\n}}\n"
        );
        std::fs::write(&policy, rego)?;
        // JSON is YAML too.
        let text = json!({
            "identity": { "spiffe_id": WORKER, "spire_socket": stage.path("api.sock") },
            "authorization": { "default_policy": "deny_all", "policy_file": policy },
            "server": { "host": "127.0.0.1", "port": 0 },
            "observability": {
                "logging": { "level": "INFO", "format": "json" },
                "metrics": { "enabled": true, "port": 0 },
                "audit": { "path": audit },
            },
            "journal": { "path": store },
            "tasks": { "concurrency_max": seats, "queue_max": 10_000_000 },
        });
        std::fs::write(&config, text.to_string())?;
        let mut command = cores::server(&std::env::current_exe()?, stage.is_apart());
        command.arg("subject").arg(&config);
        if door == Door::Dev {
            command.arg("--dev");
        }
        let syncs = disk.map(|(disk, extra_us)| disk.under(&mut command, name, extra_us));
        // Lines by which it says where it listens, and what it has found.
        command.env("CONVOKE_LOG", "warn,convoke_node::node=info,convoke_node::tasks=info");
        for old in [&log, &audit] {
            if old.exists() {
                std::fs::remove_file(old)?;
            }
        }
        command.stdout(Stdio::null()).stderr(log_file(&log)?);
        let mut child = Child::start(&mut command)?;
        let started = child.logged(&log, "Agent server started")?;
        let target = match door {
            Door::Mesh => stage.mesh(&started)?,
            Door::Dev => {
                let line = child.logged(&log, DEV_STARTED)?;
                let addr = line["address"].as_str().context("no address")?.parse()?;
                Target { addr, tls: None }
            }
        };
        Ok(Self { child, target, log, syncs: syncs.transpose()? })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Its memory that is resident, in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        procfs::resident(self.pid())
    }

    /// Waits until it has logged `message`, and gives the line.
    pub(crate) fn logged(&mut self, message: &str) -> Result<Value> {
        let log = self.log.clone();
        self.child.logged(&log, message)
    }

    /// Waits until the line of its first audit record is written.
    pub(crate) fn settled(&self, audit: &Path) -> Result<()> {
        let give_up = Instant::now() + SETTLED_WITHIN;
        while !std::fs::read(audit)?.ends_with(b"\n") {
            ensure!(Instant::now() < give_up, "no record in {}", audit.display());
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Ends it in good order.
    pub(crate) fn end(mut self) -> Result<()> {
        self.child.ask_to_end();
        let status = self.child.ended(SETTLED_WITHIN)?;
        ensure!(status.success(), "the agent ended with {status}");
        Ok(())
    }

    /// Ends it where it stands: its tasks wait for ever, and what it has acknowledged is on the disk.
    pub(crate) fn kill(self) -> Result<()> {
        self.child.kill()
    }
}

/// What is in a store whose agent has gone.
pub(crate) struct Stored(Connection);

impl Stored {
    pub(crate) fn open(store: &Path) -> Result<Self> {
        let path = store.join(STORE_FILE);
        // To be written, because a log that was left behind is to be read too.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        let opened = Connection::open_with_flags(&path, flags);
        Ok(Self(opened.with_context(|| path.display().to_string())?))
    }

    fn number(&self, sql: &str) -> Result<u64> {
        Ok(u64::try_from(self.0.query_row(sql, [], |row| row.get::<_, i64>(0))?)?)
    }

    /// How many tasks there are.
    pub(crate) fn tasks(&self) -> Result<u64> {
        self.number("SELECT count(*) FROM tasks")
    }

    /// How many bytes a task says, on average: the texts of its rows and the line of its audit
    /// record, without any key, index or page.
    pub(crate) fn bytes_per_task(&self, audit: &Path) -> Result<usize> {
        let sum = self.number(
            "SELECT (SELECT sum(length(task_id) + length(context_id) + length(capability)) FROM tasks)
                  + (SELECT sum(length(body)) FROM events)
                  + (SELECT coalesce(sum(length(body)), 0) FROM records)",
        )?;
        let tasks = self.tasks()?;
        ensure!(tasks > 0, "an empty store");
        let lines = std::fs::read(audit)?;
        let count = lines.iter().filter(|byte| **byte == b'\n').count();
        ensure!(count > 0, "no audit records");
        Ok(usize::try_from(sum / tasks)? + lines.len() / count)
    }

    /// How many bytes of pages are in use.
    pub(crate) fn bytes(&self) -> Result<u64> {
        Ok(4096 * (self.number("PRAGMA page_count")? - self.number("PRAGMA freelist_count")?))
    }
}
