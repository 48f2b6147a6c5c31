//! What agents leave behind is what `docs/reference/audit-and-logs.md` lists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use crate::page::{Page, code, workspace};
use crate::play::matches;

const PAGE: &str = "docs/reference/audit-and-logs.md";

/// The headings of the tables of log lines.
const LINES: [&str; 4] =
    ["Log lines", "Other log lines", "Of the embedded issuer", "Of the tutorial's agents"];

/// Fields that every log line may have.
const OF_EVERY_LINE: [&str; 8] =
    ["timestamp", "level", "message", "logger", "request_id", "trace_id", "span_id", "operation"];

/// Every record in the audit logs below `state` has fields of the table, and every field of the
/// table is in some record, if it has to be.
pub(crate) fn check_audit(state: &Path) {
    let page = Page::read(PAGE);
    let fields: Vec<_> = page.table("Audit record");
    let reasons = page.table("Reasons");
    let mut seen = BTreeSet::new();
    let mut files = Vec::new();
    find(state, &|name| name == "audit.jsonl", &mut files);
    assert!(files.len() >= 3, "the worker, the orchestrator and the greeter have one: {files:?}");
    for line in files.iter().flat_map(|text| text.lines()) {
        let record: Map<String, Value> = serde_json::from_str(line).unwrap();
        if record["event_type"] != "authorization" {
            check_event(&page, &record);
            continue;
        }
        for row in &fields {
            let field = code(&row[0]).next().unwrap();
            assert!(row[2] != "always" || record.contains_key(field), "no {field}: {line}");
        }
        let reason = record["reason"].as_str().unwrap();
        assert!(reasons.iter().any(|row| row[0] == format!("`{reason}`")), "{line}");
        seen.extend(record.into_iter().map(|(field, _)| field));
    }
    let (sometimes, listed): (Vec<_>, Vec<_>) = fields
        .iter()
        .flat_map(|row| code(&row[0]).map(|field| (field.to_owned(), row[2] == "sometimes")))
        .partition(|(_, sometimes)| *sometimes);
    let listed: BTreeSet<String> = listed.into_iter().map(|(field, _)| field).collect();
    // What depends on the run is not asked for; whether it comes is another test's matter.
    seen.retain(|field| !sometimes.iter().any(|(known, _)| known == field));
    assert_eq!(seen, listed, "what records have, and what the page lists");
}

/// The event has the fields that the page lists for its type, and no other.
fn check_event(page: &Page, event: &Map<String, Value>) {
    let rows = page.table("Audit events");
    let word = event["event_type"].as_str().unwrap();
    let row = rows.iter().find(|row| row[0] == format!("`{word}`"));
    let row = row.unwrap_or_else(|| panic!("{PAGE} lacks the event `{word}`"));
    let of_every = ["timestamp", "event_type", "version", "agent_spiffe_id"];
    let listed: BTreeSet<_> = of_every.into_iter().chain(code(&row[2])).collect();
    let found: BTreeSet<_> = event.keys().map(String::as_str).collect();
    assert_eq!(found, listed, "{event:?}");
}

/// Every log line in `screens` is one of the tables', with fields and a level of its row.
pub(crate) fn check_logs(screens: &str) {
    let page = Page::read(PAGE);
    let rows = LINES.map(|table| page.table(table)).concat();
    let mut lines = 0;
    for line in screens.lines() {
        // Cargo's words are among them.
        let Ok(Value::Object(fields)) = serde_json::from_str(line) else { continue };
        lines += 1;
        let message = fields["message"].as_str().unwrap();
        let row = rows.iter().find(|row| matches(row[0].trim_matches('`'), message));
        let row = row.unwrap_or_else(|| panic!("{PAGE} lacks this line: {line}"));
        assert_eq!(fields["level"], row[1], "{line}");
        for field in fields.keys().filter(|field| !OF_EVERY_LINE.contains(&field.as_str())) {
            assert!(code(&row[2]).any(|known| known == field), "`{field}` is not listed: {line}");
        }
    }
    assert!(lines > 20, "few lines:\n{screens}");
}

/// Every metric in `text` is in the tables, and every metric of the tables is in `text`. Of the names
/// with the first prefix each is there with the second one too.
pub(crate) fn check_metrics(text: &str) {
    let page = Page::read(PAGE);
    let mut of_page = BTreeSet::new();
    for row in page.table("Metrics") {
        let name = code(&row[0]).next().unwrap();
        of_page.extend(name.strip_prefix("agentweave_").map(|rest| format!("convoke_{rest}")));
        of_page.insert(name.to_owned());
    }
    for row in page.table("Other names") {
        of_page.insert(code(&row[0]).next().unwrap().to_owned());
        let meant = code(&row[1]).next().unwrap();
        assert!(of_page.contains(meant), "`{meant}` is no metric");
    }
    let of_agent: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|line| match line.split_once(' ').unwrap() {
            (name, "counter") => format!("{name}_total"),
            (name, "info") => format!("{name}_info"),
            (name, _) => name.to_owned(),
        })
        .collect();
    assert_eq!(of_agent, of_page, "what an agent has, and what the page lists");
}

/// A line or a reason that nothing writes any more is listed no more.
#[test]
fn what_the_page_lists_is_in_the_source() {
    let mut sources = Vec::new();
    for directory in ["crates", "examples"] {
        find(&workspace().join(directory), &|name| name.ends_with(".rs"), &mut sources);
    }
    let page = Page::read(PAGE);
    for table in LINES.into_iter().chain(["Reasons"]) {
        for row in page.table(table) {
            for piece in code(&row[0]).flat_map(|message| message.split('…')) {
                // A text may go on in the next line of its source.
                let piece: String = piece.trim().chars().take(40).collect();
                let written = sources.iter().any(|source| source.contains(&piece));
                assert!(written, "nothing writes `{piece}`");
            }
        }
    }
}

/// Each test that the security page calls its witness is there.
#[test]
fn the_witnesses_of_security_are_tests() {
    let mut pending = vec![workspace().join("crates")];
    let mut sources = String::new();
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    for row in Page::read("docs/security.md").table("The tests that show it") {
        for name in code(&row[1]) {
            assert!(sources.contains(&format!("fn {name}()")), "no test is called `{name}`");
        }
    }
}

/// The metrics that the guide would have alerts for are metrics.
#[test]
fn alerts_are_for_metrics() {
    let metrics = Page::read(PAGE).table("Metrics");
    for row in Page::read("docs/guides/observability.md").table("Alerts") {
        assert!(metrics.iter().any(|metric| metric[0] == row[0]), "{} is no metric", row[0]);
    }
}

/// The texts of the files below `directory` whose name is wanted, without those of tests.
fn find(directory: &Path, wanted: &dyn Fn(&str) -> bool, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            if name != "tests" {
                find(&entry.path(), wanted, found);
            }
        } else if wanted(&name) {
            found.push(fs::read_to_string(entry.path()).unwrap());
        }
    }
}
