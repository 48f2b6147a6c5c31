//! `convoke data`: looking after a journal on a disk.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use convoke_journal::maintenance::ROWS_DEFAULT;

#[derive(Debug, Subcommand)]
pub(crate) enum Data {
    /// Find out whether a journal is whole
    #[command(after_help = "\
Example:
  convoke data check --config config/worker.yaml
  convoke data check --journal /var/lib/worker/journal --accept-loss
  convoke data check --journal worker-2026-11-20.db

It works beside a running agent, and sees the journal as it was when it began.")]
    Check(DataCheck),
    /// Copy a journal to a file, while its agent runs or not
    #[command(after_help = "\
Example:
  convoke data backup --config config/worker.yaml --to worker-2026-11-20.db

The copy is of one instant, and is checked before it has its name.")]
    Backup(DataBackup),
    /// Make a journal of a backup
    #[command(after_help = "\
Example:
  convoke data restore --config config/worker.yaml --from worker-2026-11-20.db

The agent must not run, and there must be no journal yet: move an old one away. Clients that follow a
task are given it as a whole, because what came after the backup is gone.")]
    Restore(DataRestore),
    /// Give back the room that deleted tasks have left
    #[command(after_help = "\
Example:
  convoke data vacuum --config config/worker.yaml

The agent must not run. While it is at it, the journal takes twice its room.")]
    Vacuum(DataVacuum),
    /// Ask a journal one question in SQL
    #[command(after_help = "\
Example:
  convoke data query --config config/worker.yaml \"SELECT * FROM task_view WHERE state = 'failed'\"
  convoke data query --journal /var/lib/worker/journal --json 'SELECT * FROM tasks LIMIT 10'

It works beside a running agent and changes nothing. `task_view` has tasks as people read them:
task_id, state, priority, capability, owner, created, changed, last_seq. Times are ISO 8601 in UTC;
`changed` is when the state was set.

`SELECT sql FROM sqlite_schema` shows the tables, with what their columns mean. There, `_at` and
deadlines are milliseconds since 1970, and states are numbers: 1 submitted, 2 working, 3 completed,
4 failed, 5 canceled, 6 input required, 7 rejected, 8 authorization required.")]
    Query(DataQuery),
    /// Say what is in a journal, and how large it is
    #[command(after_help = "\
Example:
  convoke data stats --config config/worker.yaml --json")]
    Stats(DataStats),
}

/// Where a journal is.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Where {
    /// The agent's configuration, which says where its journal is
    #[arg(long, value_name = "CONFIG", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// The agent's data directory; the journal is in `journal` below it
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) data_dir: Option<PathBuf>,
    /// The journal's own directory; for check, query and stats also a backup
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) journal: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DataCheck {
    #[command(flatten)]
    pub(crate) place: Where,
    /// Go on without commits that are missing: what is there counts from now on
    #[arg(long)]
    pub(crate) accept_loss: bool,
    /// Report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DataBackup {
    #[command(flatten)]
    pub(crate) place: Where,
    /// Where to write the copy, which must not be there yet
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) to: PathBuf,
    /// Report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DataRestore {
    #[command(flatten)]
    pub(crate) place: Where,
    /// The backup
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) from: PathBuf,
    /// Report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DataVacuum {
    #[command(flatten)]
    pub(crate) place: Where,
    /// Report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DataQuery {
    #[command(flatten)]
    pub(crate) place: Where,
    /// One SELECT
    #[arg(value_name = "SQL")]
    pub(crate) sql: String,
    /// How many rows at most
    #[arg(long, value_name = "NUMBER", default_value_t = ROWS_DEFAULT, value_parser = rows)]
    pub(crate) rows: usize,
    /// Cut nothing; otherwise cells of several columns have at most 60 characters
    #[arg(long, conflicts_with = "json")]
    pub(crate) full: bool,
    /// Print the answer as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DataStats {
    #[command(flatten)]
    pub(crate) place: Where,
    /// Report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A number of rows to be shown.
fn rows(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least one row has to be asked for".to_owned()),
        Ok(rows) => Ok(rows),
        Err(error) => Err(format!("it is no number of rows: {error}")),
    }
}
