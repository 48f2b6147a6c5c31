//! The tables that people read, and the same as JSON.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::costs::Cost;
use crate::decision::Decisions;
use crate::handshake::Handshakes;
use crate::machine::Machine;
use crate::start::Starts;
use crate::stats::Spread;
use crate::targets::{Target, mib, targets};
use crate::tasks::durable::Durable;
use crate::tasks::stored::Stored;
use crate::tasks::{durable_table, memory, memory_table, stored_table, streams, streams_table};
use crate::unary::Unary;

/// Where the tables are in the documentation; what is around them is written by hand.
const BEGIN: &str = "<!-- tables: written by `cargo xtask bench --write-docs` -->";
const END: &str = "<!-- end of tables -->";

/// All that was measured. A part that was not asked for is absent.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) rounds: usize,
    /// Whether servers had a core of their own, and so one worker thread.
    pub(crate) apart: bool,
    pub(crate) run_seconds: f64,
    pub(crate) unary: Option<Unary>,
    pub(crate) costs: Option<Vec<Cost>>,
    pub(crate) decisions: Option<Vec<Decisions>>,
    pub(crate) handshakes: Option<Handshakes>,
    pub(crate) starts: Option<Starts>,
    pub(crate) durable: Option<Durable>,
    pub(crate) streams: Option<Vec<streams::Row>>,
    pub(crate) memory: Option<Vec<memory::Row>>,
    pub(crate) stored: Option<Stored>,
    pub(crate) clean_build_seconds: Option<f64>,
}

/// A report with what follows from it, as it is written to a file.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    report: &'a Report,
    targets: Vec<Target>,
}

impl Report {
    /// Writes the report into `directory`, named by its date, and says where it is.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub(crate) fn save(&self, directory: &Path) -> Result<PathBuf> {
        std::fs::create_dir_all(directory)?;
        let path = directory.join(format!("{}.json", self.machine.file_stem()));
        let document = Document { report: self, targets: targets(self) };
        std::fs::write(&path, serde_json::to_string_pretty(&document)? + "\n")?;
        Ok(path)
    }

    /// Puts the tables into the page at `path`, in the place of the last ones.
    ///
    /// # Errors
    ///
    /// If the page has no such place.
    pub(crate) fn write_docs(&self, path: &Path) -> Result<()> {
        let page = std::fs::read_to_string(path)?;
        let page = replaced(&page, &self.markdown()?)
            .with_context(|| format!("{} has lost its marks", path.display()))?;
        Ok(std::fs::write(path, page)?)
    }

    /// The tables as Markdown, which is also what the terminal shows.
    ///
    /// # Errors
    ///
    /// None: writing to a text does not fail.
    pub(crate) fn markdown(&self) -> Result<String> {
        let mut out = String::new();
        let Machine { date, cores, cpu, kernel, rustc, commit } = &self.machine;
        writeln!(
            out,
            "{date}, commit {commit}, {cores} cores ({cpu}), Linux {kernel}, {rustc}. \
             {} rounds; a run takes {} s; \
             {}.\n",
            self.rounds,
            self.run_seconds,
            if self.apart {
                "servers have a core of their own"
            } else {
                "all cores are shared, and nobody interrupts"
            }
        )?;
        if let Some(unary) = &self.unary {
            unary_table(&mut out, unary)?;
        }
        if let Some(costs) = &self.costs {
            table(&mut out, &["mTLS, 64 connections", "server CPU a call", "beside all"])?;
            for Cost { what, server_cpu_us, beside_all } in costs {
                let beside = beside_all.map_or_else(|| "1".to_owned(), hundredths);
                let own = server_cpu_us.median;
                writeln!(out, "| {what} | {own:.1} µs | {beside} |")?;
            }
            writeln!(out)?;
        }
        if let Some(durable) = &self.durable {
            durable_table(&mut out, durable)?;
        }
        if let Some(streams) = &self.streams {
            streams_table(&mut out, streams)?;
        }
        if let Some(memory) = &self.memory {
            memory_table(&mut out, memory)?;
        }
        if let Some(stored) = &self.stored {
            stored_table(&mut out, stored)?;
        }
        if let Some(decisions) = &self.decisions {
            decision_table(&mut out, decisions)?;
        }
        if self.handshakes.is_some() || self.starts.is_some() || self.clean_build_seconds.is_some()
        {
            self.other_table(&mut out)?;
        }
        table(&mut out, &["target", "bound", "measured", "reached"])?;
        for target in targets(self) {
            let Target { what, target, measured, verdict } = target;
            writeln!(out, "| {what} | {target} | {measured} | {} |", verdict.as_str())?;
        }
        Ok(out)
    }

    fn other_table(&self, out: &mut String) -> Result<()> {
        table(out, &["", "measured"])?;
        if let Some(shakes) = &self.handshakes {
            let Handshakes { ours_per_second, bare_per_second, ratio, count } = shakes;
            writeln!(
                out,
                "| full mTLS handshakes, {count} each: ours, bare rustls, × | {}/s, {}/s, {} |",
                whole(*ours_per_second),
                whole(*bare_per_second),
                hundredths(*ratio)
            )?;
        }
        if let Some(starts) = &self.starts {
            let Starts { count, listening_ms, answered_ms, binary_bytes } = starts;
            for (what, time) in
                [("listening", listening_ms), ("first authorised answer over mTLS", answered_ms)]
            {
                let (p50, max) = (time.p50, time.max);
                writeln!(
                    out,
                    "| cold start, {count} times: {what} | p50 {p50:.1} ms, max {max:.1} ms |"
                )?;
            }
            writeln!(out, "| binary | {:.1} MiB |", mib(*binary_bytes))?;
        }
        if let Some(seconds) = self.clean_build_seconds {
            writeln!(out, "| clean release build | {:.1} min |", seconds / 60.0)?;
        }
        Ok(writeln!(out)?)
    }
}

fn unary_table(out: &mut String, unary: &Unary) -> Result<()> {
    writeln!(
        out,
        "Unary call, {} bytes to the mesh listener and {} back:\n",
        unary.request_bytes, unary.answer_bytes
    )?;
    table(
        out,
        &[
            "server",
            "connections",
            "req/s",
            "×",
            "p50 µs",
            "p99 µs",
            "CPU µs",
            "CPU ×",
            "client CPU µs",
            "refused",
        ],
    )?;
    for row in &unary.rows {
        let (throughput, cpu) = match &row.beside {
            Some(beside) => (hundredths(beside.throughput), hundredths(beside.server_cpu)),
            None => ("1".to_owned(), "1".to_owned()),
        };
        writeln!(
            out,
            "| {} | {} | {} | {throughput} | {:.0} | {:.0} | {:.1} | {cpu} | {:.1} | {} |",
            row.server,
            row.connections,
            whole(row.per_second),
            row.p50_us,
            row.p99_us,
            row.server_cpu_us.median,
            row.generator_cpu_us,
            row.refused,
        )?;
    }
    writeln!(
        out,
        "\nResident memory of the mesh worker: {:.1} MiB after its first answer, {:.1} MiB after \
         all rounds.\n",
        mib(unary.idle_bytes),
        mib(unary.loaded_bytes)
    )?;
    Ok(())
}

fn decision_table(out: &mut String, decisions: &[Decisions]) -> Result<()> {
    table(
        out,
        &["policy", "decisions", "p50 µs", "p99 µs", "two threads, 1/s", "× two processes"],
    )?;
    for one in decisions {
        let Decisions { policy, count, p50_us, p99_us, threads, threads_per_second } = one;
        writeln!(
            out,
            "| {policy} | {count} | {p50_us:.2} | {p99_us:.2} | {} | {} |",
            whole(*threads_per_second),
            hundredths(*threads)
        )?;
    }
    Ok(writeln!(out)?)
}

pub(crate) fn table(out: &mut String, columns: &[&str]) -> Result<()> {
    writeln!(out, "| {} |", columns.join(" | "))?;
    Ok(writeln!(out, "|{}", "---|".repeat(columns.len()))?)
}

pub(crate) fn whole(figure: Spread) -> String {
    format!("{:.0} ({:.0}–{:.0})", figure.median, figure.min, figure.max)
}

pub(crate) fn hundredths(figure: Spread) -> String {
    format!("{:.2} ({:.2}–{:.2})", figure.median, figure.min, figure.max)
}

/// `page` with `tables` between its marks; nothing if it has not both.
fn replaced(page: &str, tables: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{tables}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_take_the_place_of_the_last_ones() {
        let page = format!("before\n\n{BEGIN}\nold\n{END}\n\nafter\n");
        let once = replaced(&page, "new\n").unwrap();
        assert_eq!(once, format!("before\n\n{BEGIN}\n\nnew\n\n{END}\n\nafter\n"));
        assert_eq!(replaced(&once, "new\n").unwrap(), once);
        assert_eq!(replaced("no marks", "new"), None);
    }

    #[test]
    fn the_page_has_its_marks() {
        let page = include_str!("../../docs/benchmarks.md");
        assert!(replaced(page, "new\n").is_some());
    }
}
