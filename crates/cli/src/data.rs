//! `convoke data`: looking after a journal on a disk.

mod show;

use std::path::{Path, PathBuf};

use convoke::chain;
use convoke::serve::Config;
use convoke_journal::OpenError;
use convoke_journal::maintenance::{self, MaintenanceError};
use serde_json::json;

use crate::args::{
    Data, DataBackup, DataCheck, DataQuery, DataRestore, DataStats, DataVacuum, Where,
};
use crate::exit::{Code, Failure};
use crate::paint::{Paint, plain, say};
use crate::{output, progress, validate};
use show::{bytes, counted};

/// What to do when the journal is damaged, for whoever was not about to find out how.
const CHECK: &str = "`convoke data check` says all that is wrong";

/// What is waited for.
pub(crate) fn label(command: &Data) -> String {
    let what = match command {
        Data::Check(_) => "the check of the journal",
        Data::Backup(_) => "the backup of the journal",
        Data::Restore(_) => "the restored journal",
        Data::Vacuum(_) => "the journal to be written anew",
        Data::Query(_) => "the answer of the journal",
        Data::Stats(_) => "the journal to be counted",
    };
    what.to_owned()
}

pub(crate) async fn run(command: Data, paint: Paint) -> Result<(), Failure> {
    match command {
        Data::Check(options) => check(options, paint).await,
        Data::Backup(options) => backup(options, paint).await,
        Data::Restore(options) => restore(options, paint).await,
        Data::Vacuum(options) => vacuum(options, paint).await,
        Data::Query(options) => query(options).await,
        Data::Stats(options) => stats(options).await,
    }
}

async fn check(options: DataCheck, paint: Paint) -> Result<(), Failure> {
    let directory = place(&options.place, options.json, paint)?;
    let name = directory.display().to_string();
    let accepted = options.accept_loss;
    let cure = cure(&directory);
    let checked = work(move || {
        if accepted {
            maintenance::accept_loss(&directory)?;
        }
        maintenance::check(&directory, &mut told("the check of the journal"))
    });
    // This is the command that others send to.
    let report = checked.await.map_err(|failed| failed.damaged(&cure))?;
    let others = report.others;
    if options.json {
        output::print(&json!({
            "journal": name, "whole": report.is_whole(), "tasks": report.tasks,
            "findings": report.findings, "others": others, "accepted_loss": accepted,
        }))?;
    } else {
        for finding in &report.findings {
            say(format!("{} {}", paint.bad("error:"), plain(finding)));
        }
        if others > 0 {
            say(format!("and {}", counted(others, "more finding")));
        }
    }
    if report.is_whole() {
        if !options.json {
            let tasks = counted(report.tasks, "task");
            say(format!("{} {name}, {tasks}", paint.good("whole:")));
        }
        return Ok(());
    }
    let findings = u64::try_from(report.findings.len()).unwrap_or(u64::MAX).saturating_add(others);
    let words = counted(findings, "thing");
    let verb = if findings == 1 { "is" } else { "are" };
    let hint = if report.is_loss_only {
        "move it away and restore a backup with `convoke data restore`, or go on without what is \
         missing: `--accept-loss`"
            .to_owned()
    } else {
        cure
    };
    let what = format_args!("{words} {verb} wrong with `{name}`");
    Err(Failure::new(Code::Failure, what).hint(hint))
}

/// What to do with a damaged journal, or with a damaged backup.
fn cure(path: &Path) -> String {
    if path.is_file() {
        let file = path.display();
        return format!(
            "use another backup; `sqlite3 {file} .recover` prints what can be read of this one"
        );
    }
    let file = path.join("journal.db");
    // A file without content has nothing to be read.
    if file.metadata().is_ok_and(|metadata| metadata.len() > 0) {
        return format!(
            "move it away and restore a backup with `convoke data restore`; `sqlite3 {} .recover` \
             prints what can be read of it",
            file.display()
        );
    }
    "move it away and restore a backup with `convoke data restore`, or begin anew: nothing is left \
     in it"
        .to_owned()
}

async fn backup(options: DataBackup, paint: Paint) -> Result<(), Failure> {
    let directory = place(&options.place, options.json, paint)?;
    let to = options.to.clone();
    let copied =
        work(move || maintenance::backup(&directory, &to, &mut told("the backup of the journal")));
    let report = copied.await.map_err(|failed| failed.damaged(CHECK))?;
    let name = options.to.display();
    if options.json {
        return output::print(&json!({
            "backup": name.to_string(), "bytes": report.bytes, "tasks": report.tasks,
        }));
    }
    let tasks = counted(report.tasks, "task");
    say(format!("{} {name}, {tasks}, {}", paint.good("written:"), bytes(report.bytes)));
    Ok(())
}

async fn restore(options: DataRestore, paint: Paint) -> Result<(), Failure> {
    let directory = place(&options.place, options.json, paint)?;
    let name = directory.display().to_string();
    let restored = work(move || {
        maintenance::restore(&options.from, &directory, &mut told("the restored journal"))
    });
    let report = restored.await.map_err(|failed| {
        failed.damaged(
            "use another backup; `convoke data check --journal FILE` says all that is wrong with \
             this one",
        )
    })?;
    if options.json {
        return output::print(&json!({
            "journal": name, "tasks": report.tasks, "commits": report.commits,
        }));
    }
    say(format!("{} {name}, {}", paint.good("restored:"), counted(report.tasks, "task")));
    Ok(())
}

async fn vacuum(options: DataVacuum, paint: Paint) -> Result<(), Failure> {
    let directory = place(&options.place, options.json, paint)?;
    let name = directory.display().to_string();
    let written = work(move || maintenance::vacuum(&directory));
    let report = written.await.map_err(|failed| failed.damaged(CHECK))?;
    let (before, after) = (report.before, report.after);
    if options.json {
        return output::print(&json!({
            "journal": name, "bytes_before": before, "bytes_after": after,
        }));
    }
    let sizes = format!("{}, {} before", bytes(after), bytes(before));
    say(format!("{} {name}, {sizes}", paint.good("written anew:")));
    Ok(())
}

async fn query(options: DataQuery) -> Result<(), Failure> {
    let directory = place(&options.place, options.json, Paint::none())?;
    let DataQuery { sql, rows, json, full, .. } = options;
    let asked = work(move || maintenance::query(&directory, &sql, rows));
    let table = asked.await.map_err(|failed| failed.damaged(CHECK))?;
    if json {
        return output::print(&show::table_json(&table));
    }
    progress::wipe();
    output::print_text(&show::table(&table, full))?;
    if table.is_cut {
        say(format!("there are more than {rows} rows; `--rows` gives more"));
    }
    Ok(())
}

async fn stats(options: DataStats) -> Result<(), Failure> {
    let directory = place(&options.place, options.json, Paint::none())?;
    let counted = work(move || maintenance::stats(&directory));
    let stats = counted.await.map_err(|failed| failed.damaged(CHECK))?;
    if options.json {
        return output::print(&show::stats_json(&stats));
    }
    say(show::stats(&stats).trim_end());
    Ok(())
}

/// Does what blocks on a thread of its own, so that somebody can say meanwhile what is waited for.
async fn work<T, F>(work: F) -> Result<T, Failed>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, MaintenanceError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(Failed),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// Says of `what` how far it is.
fn told(what: &'static str) -> impl FnMut(&'static str, u64, u64) {
    move |of, done, total| {
        let far = if total == 0 { String::new() } else { format!(" {done} of {total}") };
        progress::label(format!("{what}: {of}{far}"));
    }
}

/// The journal's directory.
fn place(place: &Where, as_json: bool, paint: Paint) -> Result<PathBuf, Failure> {
    if let Some(directory) = &place.journal {
        return Ok(directory.clone());
    }
    if let Some(directory) = &place.data_dir {
        return Ok(directory.join("journal"));
    }
    let path = place.config.as_deref().unwrap_or(Path::new("config.yaml"));
    let name = path.display().to_string();
    match Config::load(path) {
        Ok(config) => Ok(config.journal.path),
        Err(error) => {
            if !as_json {
                validate::print(&validate::Wrong::all(&error), &name, paint);
            }
            let what = format_args!("`{name}` does not say where its journal is");
            Err(Failure::new(Code::Usage, what)
                .hint("`convoke validate` says what is wrong with it, or name `--journal`"))
        }
    }
}

/// What did not work.
struct Failed(MaintenanceError);

impl Failed {
    /// What is told of it. `cure` is what to do if it is damage.
    fn damaged(self, cure: &str) -> Failure {
        use MaintenanceError as Error;
        let (code, hint) = match &self.0 {
            Error::NoStore { .. } | Error::NoDirectory { .. } => (
                Code::Usage,
                Some(
                    "an agent makes it when it starts, if `journal.durability` is `relaxed` or \
                     `strict`",
                ),
            ),
            Error::Question(_) => {
                (Code::Usage, Some("`SELECT sql FROM sqlite_schema` shows what there is"))
            }
            Error::Open(OpenError::InUse { .. }) => {
                (Code::Failure, Some("stop the agent; check, backup, query and stats need not"))
            }
            Error::Damaged { .. } => (Code::Failure, Some(cure)),
            _ => (Code::Failure, None),
        };
        let what = match &self.0 {
            // What SQLite said is in words there, or quoted.
            error @ Error::Store { .. } => error.to_string(),
            error => chain(error),
        };
        let failure = Failure::new(code, what);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
