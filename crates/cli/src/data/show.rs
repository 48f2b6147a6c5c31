//! What is in a journal, for people and for programs.

use std::fmt::Write as _;

use convoke_journal::maintenance::{Cell, Stats, Table};
use serde_json::{Value, json};

use crate::paint::{plain, plain_lines};

/// Longest cell of a table of several columns, in characters, unless all of it is asked for. JSON has
/// all of it.
const CELL_CHARS_MAX: usize = 60;

/// `count` of a thing, whose plural has an `s`.
pub(super) fn counted(count: u64, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

/// A number of bytes as people say it.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return counted(bytes, "byte");
    }
    // In tenths, so that no number is rounded to nothing.
    let (mut tenths, mut unit) = (bytes.saturating_mul(10) / 1024, 0);
    while tenths >= 10 * 1024 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// An answer in columns, whose cells are cut unless it is to be `full`. One column alone is shown as
/// it is, line by line.
pub(super) fn table(table: &Table, full: bool) -> String {
    if let [name] = &table.columns[..] {
        let cells = table.rows.iter().flatten().map(|cell| match cell {
            Cell::Text(text) => plain_lines(text),
            cell => self::text(cell),
        });
        let lines = std::iter::once(plain(name)).chain(cells);
        return lines.flat_map(|line| [line, "\n".to_owned()]).collect();
    }
    let cut = |text: String| if full { text } else { cut(&text) };
    let head: Vec<String> = table.columns.iter().map(|name| cut(plain(name))).collect();
    let cells = |row: &Vec<Cell>| row.iter().map(text).map(cut).collect();
    let rows: Vec<Vec<String>> =
        std::iter::once(head).chain(table.rows.iter().map(cells)).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..table.columns.len()).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

pub(super) fn table_json(table: &Table) -> Value {
    let value = |cell: &Cell| match cell {
        Cell::Null => Value::Null,
        Cell::Integer(number) => json!(number),
        Cell::Real(number) => json!(number),
        Cell::Text(text) => json!(text),
        Cell::Blob(bytes) => json!(hex(bytes)),
    };
    let rows: Vec<Vec<Value>> =
        table.rows.iter().map(|row| row.iter().map(value).collect()).collect();
    json!({ "columns": table.columns, "rows": rows, "cut": table.is_cut })
}

pub(super) fn stats(stats: &Stats) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to memory does not fail.
        let _written = writeln!(out, "{name:<12}{value}");
    };
    line("store", format!("{}, format {}", stats.store_id, stats.format));
    line("made", format!("{}, opened {}", stats.created_at, counted(stats.opened, "time")));
    line("commits", format!("{}, epoch {}", stats.commits, stats.epoch));
    let (size, free) = (bytes(stats.bytes), bytes(stats.free_bytes));
    line("size", format!("{size}, {free} of it free; log {}", bytes(stats.log_bytes)));
    if let (Some(oldest), Some(newest)) = (stats.oldest_at, stats.newest_at) {
        line("tasks", format!("from {oldest} to {newest}"));
    }
    for count in &stats.tasks {
        let word = count.state.as_str().trim_start_matches("TASK_STATE_").to_ascii_lowercase();
        line("", format!("{:>9} {word} of {}", count.tasks, plain(&count.agent)));
    }
    for table in &stats.tables {
        let texts = match table.body_bytes {
            0 => String::new(),
            some => format!(", {} of text", bytes(some)),
        };
        line(table.name, format!("{}{texts}", counted(table.rows, "row")));
    }
    out
}

pub(super) fn stats_json(stats: &Stats) -> Value {
    let tasks: Vec<Value> = stats
        .tasks
        .iter()
        .map(|count| {
            json!({ "agent": count.agent, "state": count.state.as_str(), "tasks": count.tasks })
        })
        .collect();
    let tables: Vec<Value> = stats
        .tables
        .iter()
        .map(|table| {
            json!({ "name": table.name, "rows": table.rows, "body_bytes": table.body_bytes })
        })
        .collect();
    json!({
        "store_id": stats.store_id, "format": stats.format, "created_at": stats.created_at,
        "opened": stats.opened, "epoch": stats.epoch, "commits": stats.commits,
        "tasks": tasks, "oldest_at": stats.oldest_at, "newest_at": stats.newest_at,
        "tables": tables, "bytes": stats.bytes, "free_bytes": stats.free_bytes,
        "log_bytes": stats.log_bytes,
    })
}

fn text(cell: &Cell) -> String {
    match cell {
        Cell::Null => String::new(),
        Cell::Integer(number) => number.to_string(),
        Cell::Real(number) => number.to_string(),
        // What agents and callers say is not trusted with somebody's terminal.
        Cell::Text(text) => plain(text),
        Cell::Blob(bytes) => hex(bytes),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _written = write!(out, "{byte:02x}");
        out
    })
}

fn cut(text: &str) -> String {
    if text.chars().count() <= CELL_CHARS_MAX {
        return text.to_owned();
    }
    text.chars().take(CELL_CHARS_MAX - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_as_people_say_them() {
        for (number, expected) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1024 * 1024 - 1, "1023.9 KiB"),
            (5 * 1024 * 1024 * 1024, "5.0 GiB"),
            (u64::MAX, "1677721.5 TiB"),
        ] {
            assert_eq!(bytes(number), expected);
        }
    }

    #[test]
    fn a_table_has_columns_and_nothing_that_steers_a_terminal() {
        let text = |text: &str| Cell::Text(text.to_owned());
        let answer = Table {
            columns: vec!["id".to_owned(), "what".to_owned()],
            rows: vec![
                vec![Cell::Integer(1), text("a\u{1b}[2J\nb")],
                vec![Cell::Integer(22), Cell::Null],
                vec![Cell::Real(0.5), Cell::Blob(vec![0, 255])],
                vec![Cell::Null, text(&"x".repeat(100))],
            ],
            is_cut: false,
        };
        let long = format!("{}…", "x".repeat(59));
        let expected = format!("id   what\n1    a\u{fffd}[2J b\n22\n0.5  00ff\n     {long}\n");
        assert_eq!(table(&answer, false), expected);
        let all = "x".repeat(100);
        let expected = format!("id   what\n1    a\u{fffd}[2J b\n22\n0.5  00ff\n     {all}\n");
        assert_eq!(table(&answer, true), expected);
        let column = |cells: Vec<Cell>| Table {
            columns: vec!["sql".to_owned()],
            rows: cells.into_iter().map(|cell| vec![cell]).collect(),
            is_cut: false,
        };
        let alone = column(vec![text(&format!("{all}\n\u{1b}[2J")), Cell::Null, Cell::Integer(7)]);
        assert_eq!(table(&alone, false), format!("sql\n{all}\n\u{fffd}[2J\n\n7\n"));
        let json = table_json(&answer);
        assert_eq!(json["rows"][0], json!([1, "a\u{1b}[2J\nb"]));
        assert_eq!(json["rows"][2], json!([0.5, "00ff"]));
    }
}
