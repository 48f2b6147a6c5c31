//! What a call costs: measurements of Convoke beside ceiling programs that do the same I/O and
//! nothing else. `docs/benchmarks.md` has the method and the latest figures.

mod authority;
mod ceiling;
mod child;
mod contender;
mod cores;
mod costs;
mod decision;
mod handshake;
mod load;
mod machine;
mod options;
mod procfs;
mod report;
mod stage;
mod start;
mod stats;
mod targets;
mod tasks;
mod trial;
mod unary;
mod wire;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;

use machine::Machine;
use options::{Cli, Command, Load, Options, Part};
use report::Report;
use stage::{Door, Level, Stage};

fn main() -> Result<()> {
    let cli = Cli::parse();
    match cli.command {
        None => bench(&cli.options),
        Some(Command::Load(options)) => load(&options),
        Some(Command::Trial(options)) => trial::run(&options, &binary(options.binary.as_deref())?),
        Some(Command::Agent { config }) => trial::agent::serve(&config),
        Some(Command::Collector) => ceiling::collector::run(),
        Some(Command::CeilHttp { answer }) => ceiling::http::run(&answer),
        Some(Command::CeilTls { answer, identity }) => ceiling::tls::run(&answer, &identity),
        Some(Command::CeilDurable { answer, file, bytes, identity }) => {
            ceiling::durable::run(&answer, &file, bytes, identity.as_deref())
        }
        Some(Command::CeilSse { events, identity }) => ceiling::sse::run(&events, &identity),
        Some(Command::Subject { config, dev }) => tasks::agent::serve(&config, dev),
        Some(Command::Fill { store, kind, count }) => tasks::fill::fill(&store, kind, count),
        Some(Command::Decide { rego }) => decision::process(rego),
    }
}

fn bench(options: &Options) -> Result<()> {
    let pace = options.pace();
    ensure!(
        !(options.write_docs && (cfg!(debug_assertions) || options.quick)),
        "only a full run in the release profile may go into the documentation"
    );
    if cfg!(debug_assertions) {
        note("without optimisation: the figures mean nothing")?;
    }
    let binary = binary(options.binary.as_deref())?;
    cores::take_turns()?;
    let stage = Stage::set(&binary)?;
    let measure = |part, what: &str| -> Result<bool> {
        let wanted = options.wants(part);
        if wanted {
            note(what)?;
        }
        Ok(wanted)
    };
    let mut report = Report {
        machine: Machine::look()?,
        rounds: pace.rounds,
        apart: options.apart,
        run_seconds: pace.run.as_secs_f64(),
        unary: None,
        costs: None,
        decisions: None,
        handshakes: None,
        starts: None,
        durable: None,
        streams: None,
        memory: None,
        stored: None,
        clean_build_seconds: None,
    };
    if measure(Part::Unary, "unary calls")? {
        let calls = || unary::measure(&stage, pace);
        report.unary = Some(if options.apart { stage.apart(calls) } else { calls() }?);
    }
    if measure(Part::Costs, "what policy, audit and tracing add")? {
        report.costs = Some(costs::measure(&stage, pace)?);
    }
    if measure(Part::Policy, "policy decisions")? {
        report.decisions = Some(decision::measure(pace)?);
    }
    if measure(Part::Handshake, "handshakes")? {
        report.handshakes = Some(handshake::measure(pace)?);
    }
    if measure(Part::Start, "cold starts")? {
        report.starts = Some(start::measure(&stage, &binary, pace)?);
    }
    if measure(Part::Durable, "durable tasks")? {
        report.durable = Some(tasks::durable::measure(&stage, pace)?);
    }
    if measure(Part::Streams, "streams of events")? {
        report.streams = Some(tasks::streams::measure(&stage, pace)?);
    }
    if measure(Part::Memory, "memory of tasks")? {
        report.memory = Some(tasks::memory::measure(&stage)?);
    }
    if measure(Part::Stored, "many stored tasks")? {
        report.stored = Some(tasks::stored::measure(&stage, pace)?);
    }
    drop(stage);
    if options.build {
        note("clean release build")?;
        report.clean_build_seconds = Some(start::clean_build()?.as_secs_f64());
    }
    say(&report.markdown()?)?;
    let path = report.save(&workspace().join("target/bench"))?;
    note(&format!("written to {}", path.display()))?;
    if options.write_docs {
        report.write_docs(&workspace().join("docs/benchmarks.md"))?;
    }
    Ok(())
}

fn load(options: &Load) -> Result<()> {
    let binary = binary(options.binary.as_deref())?;
    cores::take_turns()?;
    let stage = Stage::set(&binary)?;
    let door = if options.plaintext { Door::Dev } else { Door::Mesh };
    let level = if options.info { Level::Info } else { Level::Warn };
    let time = Duration::from_secs(options.seconds.into());
    let connections = options.connections.into();
    let hold = || match options.durable {
        true => tasks::durable::hold(&stage, door, connections, time),
        false => unary::hold(&stage, door, level, connections, time),
    };
    if options.apart { stage.apart(hold) } else { hold() }
}

fn binary(named: Option<&Path>) -> Result<PathBuf> {
    match named {
        Some(path) => Ok(path.canonicalize()?),
        None => start::build(),
    }
}

/// The workspace that this program was built from.
fn workspace() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// Prints a result.
fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Tells whoever waits what goes on.
fn note(line: &str) -> Result<()> {
    Ok(writeln!(std::io::stderr(), "bench: {line}")?)
}
