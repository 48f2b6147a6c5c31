//! The tables about tasks.

use std::fmt::Write;

use anyhow::Result;

use super::durable::Durable;
use super::memory;
use super::stored::Stored;
use super::streams;
use crate::report::{hundredths, table, whole};

pub(crate) fn durable_table(out: &mut String, durable: &Durable) -> Result<()> {
    let Durable { rows, request_bytes, record_bytes, has_disk } = durable;
    writeln!(
        out,
        "Durable task, acknowledged once it is on the disk: {request_bytes} bytes are sent, and a \
         task says {record_bytes} bytes, which is what the ceiling appends.{}\n",
        if *has_disk { "" } else { " Without a C compiler syncs were not counted." }
    )?;
    table(
        out,
        &[
            "server",
            "sync takes longer by",
            "in flight",
            "tasks/s",
            "×",
            "p50 µs",
            "p99 µs",
            "CPU µs",
            "CPU ×",
            "tasks a sync",
            "refused",
        ],
    )?;
    for row in rows {
        let throughput = row.beside.map_or_else(|| "1".to_owned(), hundredths);
        let cpu = match (row.beside, row.cpu_beside) {
            (None, _) => "1".to_owned(),
            (Some(_), Some(cpu)) => hundredths(cpu),
            (Some(_), None) => "not seen".to_owned(),
        };
        let per_sync = row.acks_per_sync.map_or_else(
            || "not counted".to_owned(),
            |it| format!("{:.1} ({:.1}–{:.1})", it.median, it.min, it.max),
        );
        writeln!(
            out,
            "| {} | {} ms | {} | {} | {throughput} | {:.0} | {:.0} | {:.1} | {cpu} | {per_sync} | \
             {} |",
            row.server,
            f64::from(row.extra_us) / 1000.0,
            row.in_flight,
            whole(row.per_second),
            row.p50_us,
            row.p99_us,
            row.server_cpu_us.median,
            row.refused,
        )?;
    }
    Ok(writeln!(out)?)
}

pub(crate) fn streams_table(out: &mut String, rows: &[streams::Row]) -> Result<()> {
    table(
        out,
        &[
            "stream over mTLS",
            "pieces",
            "readers",
            "events/s",
            "×",
            "wall µs",
            "CPU µs",
            "wall, × the shortest",
            "CPU, × the shortest",
        ],
    )?;
    for row in rows {
        let ratio =
            |it: Option<crate::stats::Spread>| it.map_or_else(|| "1".to_owned(), hundredths);
        writeln!(
            out,
            "| {} | {} | {} | {} | {} | {:.1} | {:.1} | {} | {} |",
            row.server,
            row.pieces,
            row.readers,
            whole(row.per_second),
            ratio(row.beside),
            row.wall_us.median,
            row.server_cpu_us.median,
            ratio(row.wall_beside_first),
            ratio(row.cpu_beside_first),
        )?;
    }
    Ok(writeln!(out)?)
}

pub(crate) fn memory_table(out: &mut String, rows: &[memory::Row]) -> Result<()> {
    table(out, &["a task", "tasks", "memory, KiB each", "store, bytes each"])?;
    for memory::Row { what, tasks, resident_bytes, store_bytes } in rows {
        let kib = resident_bytes / 1024.0;
        writeln!(out, "| {what} | {tasks} | {kib:.2} | {store_bytes:.0} |")?;
    }
    Ok(writeln!(out)?)
}

pub(crate) fn stored_table(out: &mut String, stored: &Stored) -> Result<()> {
    let Stored { many, few, rows, create, paced, recoveries } = stored;
    let (of_few, of_many) = (format!("{few} stored, µs"), format!("{many} stored, µs"));
    table(out, &["", &of_few, &of_many, "×"])?;
    for row in rows {
        writeln!(
            out,
            "| {} | {} | {} | {} |",
            row.what,
            whole(row.few_us),
            whole(row.many_us),
            hundredths(row.beside)
        )?;
    }
    writeln!(
        out,
        "\nWith {many} stored, durable tasks with 64 in flight are made {} × as fast as with {few}. \
         At {:.0} a second ({} tasks, {} refused) they take p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms.\n",
        hundredths(*create),
        paced.per_second,
        paced.tasks,
        paced.refused,
        paced.p50_us / 1000.0,
        paced.p99_us / 1000.0,
        paced.max_us / 1000.0,
    )?;
    table(out, &["after a start, tasks", "first answer", "all found after", "for a million"])?;
    for one in recoveries {
        writeln!(
            out,
            "| {} {} | {:.0} ms, {} | {:.0} ms | {:.1} s |",
            one.tasks,
            one.what,
            one.answered_ms,
            if one.answered_before { "before all were found" } else { "after all were found" },
            one.found_ms,
            one.seconds_per_million,
        )?;
    }
    Ok(writeln!(out)?)
}
