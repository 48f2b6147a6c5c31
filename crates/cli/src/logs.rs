//! `convoke logs`: lines of logs and audit trails, for people.

mod entry;
mod source;

use std::io::{BufWriter, StdoutLock, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use convoke::UnixMillis;

use crate::args::{Color, Logs};
use crate::exit::{Code, Failure};
use crate::paint::{Paint, say};
use entry::{Entry, Page, Pick};
use source::{Line, Source};

/// How often files are looked at for what was added.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(crate) fn run(options: &Logs, color: Color) -> Result<(), Failure> {
    let pick = Pick::new(options, since(options.since));
    let out = Out {
        to: BufWriter::new(std::io::stdout().lock()),
        page: Page::new(Paint::for_stdout(color), options.json),
        pick,
        any: false,
    };
    match read(options, out) {
        // A reader who has gone away, such as `head`, has seen enough.
        Err(Stop::Out(error)) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::of_file(Code::Failure, "standard output", &error))
        }
        Err(Stop::In(failure)) => Err(failure),
        Ok(()) | Err(Stop::Out(_)) => Ok(()),
    }
}

/// Why reading ends early.
enum Stop {
    In(Failure),
    Out(std::io::Error),
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Out(error)
    }
}

/// Where lines go, and which of them.
struct Out {
    to: BufWriter<StdoutLock<'static>>,
    page: Page,
    pick: Pick,
    /// Whether a line was wanted so far.
    any: bool,
}

impl Out {
    fn line(&mut self, source: &mut Source, line: &Line) -> std::io::Result<()> {
        let entry = Entry::read(&line.text);
        if let Some(agent) = entry.as_ref().and_then(Entry::introduces) {
            source.agent = Some(agent);
        }
        if !self.pick.wants(entry.as_ref(), source.agent.as_deref()) {
            return Ok(());
        }
        self.any = true;
        let text = self.page.show(line, entry.as_ref());
        self.to.write_all(text.as_bytes())
    }
}

fn read(options: &Logs, mut out: Out) -> Result<(), Stop> {
    let stdin = [Path::new("-").to_owned()];
    let files = if options.files.is_empty() { &stdin[..] } else { &options.files };
    let mut sources = Vec::new();
    for path in files {
        let opened = Source::open(path)
            .map_err(|error| Stop::In(Failure::of_file(Code::Failure, path.display(), &error)))?;
        sources.push(opened);
    }
    by_time(&mut sources, &mut out)?;
    out.to.flush()?;
    if !out.any && !options.follow && !options.json {
        say("no line is as asked for");
    }
    while options.follow && sources.iter().any(|source| !source.is_stdin()) {
        std::thread::sleep(LOOK_EVERY);
        for source in &mut sources {
            while let Some(line) = source.next().map_err(|error| unreadable(source, &error))? {
                out.line(source, &line)?;
            }
        }
        out.to.flush()?;
    }
    Ok(())
}

/// Writes what all sources have, the earliest line first. A line without a time stays behind the one
/// before it.
fn by_time(sources: &mut [Source], out: &mut Out) -> Result<(), Stop> {
    let mut heads: Vec<Option<(String, Line)>> = Vec::new();
    for source in sources.iter_mut() {
        heads.push(head(source, "")?);
    }
    loop {
        let earliest =
            heads.iter().enumerate().filter_map(|(index, head)| Some((index, head.as_ref()?)));
        let earliest = earliest.min_by(|(_, (one, _)), (_, (other, _))| one.cmp(other));
        let Some(index) = earliest.map(|(index, _)| index) else { return Ok(()) };
        let Some((time, line)) = heads[index].take() else { return Ok(()) };
        out.line(&mut sources[index], &line)?;
        // Somebody may look on while standard input goes on.
        if sources[index].is_stdin() {
            out.to.flush()?;
        }
        heads[index] = head(&mut sources[index], &time)?;
    }
}

/// The next line of `source` with its time, or that of the line before.
fn head(source: &mut Source, before: &str) -> Result<Option<(String, Line)>, Stop> {
    let line = source.next().map_err(|error| unreadable(source, &error))?;
    Ok(line.map(|line| {
        let own = Entry::read(&line.text).and_then(|entry| entry.time());
        (own.unwrap_or_else(|| before.to_owned()), line)
    }))
}

fn unreadable(source: &Source, error: &std::io::Error) -> Stop {
    Stop::In(Failure::of_file(Code::Failure, source.name(), error))
}

/// The timestamp of the instant `ago`.
fn since(ago: Option<Duration>) -> Option<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let then = now.saturating_sub(ago?).as_millis();
    Some(UnixMillis(u64::try_from(then).unwrap_or(u64::MAX)).to_string())
}
