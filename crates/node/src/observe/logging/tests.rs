use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tracing::{Level, debug, error, info, info_span, warn};

use super::*;

#[derive(Clone, Default)]
pub(super) struct Memory(pub(super) Arc<Mutex<Vec<u8>>>);

impl io::Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn options(format: Format) -> LogOptions {
    LogOptions { format, ..LogOptions::default() }
}

/// What `log` writes under `options`.
fn text(options: &LogOptions, log: impl FnOnce()) -> String {
    let memory = Memory::default();
    let (subscriber, guard) = subscriber(options, memory.clone()).unwrap();
    tracing::subscriber::with_default(subscriber, log);
    guard.flush(Duration::from_secs(60)).unwrap();
    let bytes = memory.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

/// The one JSON line that `log` writes, without its timestamp.
fn json_line(log: impl FnOnce()) -> Value {
    let text = text(&options(Format::Json), log);
    assert_eq!(text.matches('\n').count(), 1, "{}", &text[..text.len().min(400)]);
    assert!(text.ends_with('\n'));
    let mut line: Value = serde_json::from_str(&text).unwrap();
    let timestamp = line.as_object_mut().unwrap().remove("timestamp").unwrap();
    let timestamp = timestamp.as_str().unwrap();
    assert!(timestamp.len() == 24 && timestamp.ends_with('Z'), "{timestamp}");
    line
}

const LOGGER: &str = module_path!();

#[test]
fn fields_are_typed_and_stand_at_the_top() {
    let line = json_line(|| {
        info!(port = 8443, ratio = 0.5, ok = true, id = %"a-1", huge = u64::MAX, "Agent server started");
    });
    let expected = json!({"level": "INFO", "message": "Agent server started", "port": 8443,
        "ratio": 0.5, "ok": true, "id": "a-1", "huge": u64::MAX, "logger": LOGGER});
    assert_eq!(line, expected);
}

#[test]
fn keys_come_in_the_order_of_the_seed() {
    let text = text(&options(Format::Json), || info!(port = 1, "Agent server started"));
    let after = text.split_once("Z\"").unwrap().1;
    let rest = format!(
        r#","level":"INFO","message":"Agent server started","port":1,"logger":"{LOGGER}"}}"#
    );
    assert_eq!(after, rest + "\n");
}

#[test]
fn spans_add_their_fields_from_outside_in_and_the_innermost_wins() {
    let text = text(&options(Format::Json), || {
        let _outer = info_span!("outer", request_id = "r", who = "outer", x = 1).entered();
        let inner = info_span!("inner", who = "inner", late = tracing::field::Empty).entered();
        inner.record("late", 7);
        inner.record("late", 8);
        info!(x = 2, "m");
    });
    let after = text.split_once(r#""message":"m""#).unwrap().1;
    let rest = format!(r#","x":2,"request_id":"r","who":"inner","late":8,"logger":"{LOGGER}"}}"#);
    assert_eq!(after, rest + "\n");
}

#[test]
fn reserved_keys_cannot_be_overwritten() {
    let line = json_line(|| {
        let _span = info_span!("s", message = "from a span").entered();
        warn!(timestamp = "never", level = "FAKE", logger = "mine", r#type = "t", "real");
    });
    let expected = json!({"level": "WARN", "message": "real", "timestamp_": "never",
        "level_": "FAKE", "logger": "mine", "type": "t", "message_": "from a span"});
    assert_eq!(line, expected);
}

#[test]
fn json_fields_are_inlined_and_nothing_else_is() {
    let operations = ["analyze", "senti\u{2028}ment"];
    let raw = serde_json::value::RawValue::from_string("{\n\"a\": 1}".into()).unwrap();
    let long = "x".repeat(VALUE_BYTES_MAX);
    let line = json_line(|| {
        info!(
            operations = json_field(&operations),
            raw = json_field(&raw),
            nested = ?Some(JsonFieldInside(&operations)),
            forged = %r#"["analyze"]"#,
            long = json_field(&long),
            "m"
        );
    });
    assert_eq!(line["operations"], json!(operations));
    assert_eq!(line["raw"], json!({"a": 1}));
    assert!(line["nested"].as_str().unwrap().starts_with("Some("), "{line}");
    assert_eq!(line["forged"], json!(r#"["analyze"]"#));
    assert!(line["long"].as_str().unwrap().ends_with("… (16386 bytes)"));
}

/// A value with JSON somewhere in its text.
struct JsonFieldInside<'a>(&'a [&'a str; 2]);

impl std::fmt::Debug for JsonFieldInside<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "inside {:?}", json_field(self.0))
    }
}

#[test]
fn a_line_stays_one_line_whatever_it_holds() {
    let evil = "a\nb\r\u{1b}[2J\u{9b}0m\u{202e}\u{2028}\0\"\\";
    let line = json_line(|| info!(evil, shown = %evil, debugged = ?evil, "{evil}"));
    assert_eq!(line["message"], evil);
    assert_eq!(line["evil"], evil);
    assert_eq!(line["shown"], evil);
    for format in [Format::Json, Format::Pretty] {
        let text = text(&options(format), || info!(evil, "{evil}"));
        let is_plain = |c: char| !c.is_control() && !matches!(c, '\u{2028}' | '\u{202e}');
        assert!(text.trim_end_matches('\n').chars().all(is_plain), "{text:?}");
    }
}

#[test]
fn values_and_lines_are_bounded() {
    let mega = "é".repeat(512 * 1024);
    let line = json_line(|| info!(value = mega, debugged = ?vec![1_u8; 1 << 20], "{mega}"));
    for key in ["message", "value", "debugged"] {
        let value = line[key].as_str().unwrap();
        let (shown, rest) = value.split_once('…').unwrap();
        assert!(shown.len() <= VALUE_BYTES_MAX && rest.ends_with(" bytes)"), "{key}: {rest}");
    }
    let bell = "\u{7}".repeat(VALUE_BYTES_MAX);
    let line = json_line(|| info!(a = bell, b = bell, c = bell, d = bell, z = 1, "m"));
    assert_eq!((&line["truncated"], &line["z"]), (&json!(true), &json!(1)));
    assert!(line.get("d").is_none() && line["b"] == bell.as_str());
}

#[test]
fn errors_show_their_causes() {
    let cause = LogError::Thread(io::Error::other("no more threads"));
    let line = json_line(|| error!(error = &cause as &dyn std::error::Error, "m"));
    assert_eq!(line["error"], "the log's writer thread does not start: no more threads");
}

#[test]
fn numbers_that_json_cannot_spell_are_text() {
    let line = json_line(|| info!(nan = f64::NAN, inf = f64::INFINITY, "m"));
    assert_eq!((&line["nan"], &line["inf"]), (&json!("NaN"), &json!("inf")));
}

#[test]
fn levels_and_filters_apply() {
    let all = || {
        debug!("debug");
        info!("info");
        warn!(target: "hyper::proto", "library warning");
        info!(target: "hyper::proto", "library chatter");
    };
    let messages = |options: &LogOptions| {
        let text = text(options, all);
        ["debug", "info", "library warning", "library chatter"]
            .map(|message| text.contains(&format!("\"message\":\"{message}\"")))
    };
    let mut options = options(Format::Json);
    assert_eq!(messages(&options), [false, true, true, false]);
    options.level = Level::DEBUG;
    assert_eq!(messages(&options), [true, true, true, true]);
    options.filter = Some("off,hyper=info".into());
    assert_eq!(messages(&options), [false, false, true, true]);
    options.filter = Some("lots".into());
    assert!(matches!(subscriber(&options, io::sink()), Err(LogError::Filter(_))));
}

#[test]
fn pretty_lines_are_for_people() {
    let log = || {
        let _span = info_span!("s", request_id = "r-1").entered();
        info!(
            port = 8443,
            text = "two words",
            empty = "",
            list = json_field(&[1, 2]),
            "Agent server started"
        );
    };
    let mut options = options(Format::Pretty);
    let plain = text(&options, log);
    assert_eq!(&plain[2..3], ":");
    assert_eq!(
        &plain[12..],
        "  INFO Agent server started port=8443 text=\"two words\" empty=\"\" list=[1,2] request_id=r-1\n"
    );
    options.colour = true;
    let coloured = text(&options, log);
    assert!(coloured.contains("\u{1b}[32m INFO\u{1b}[0m Agent server started"), "{coloured:?}");
}

/// Texts that break lines, drive terminals, forge lines or hold secrets: one JSON object on a line,
/// with the text and the part of it that must not be written.
const CORPUS: &str = include_str!("corpus.jsonl");

#[test]
fn every_text_of_the_corpus_is_one_line_that_reads_back_without_its_secret() {
    let corpus: Vec<Value> =
        CORPUS.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(corpus.len() >= 200);
    for entry in &corpus {
        let text = entry["text"].as_str().unwrap();
        let log = || info!(value = text, shown = %text, json = json_field(&text), "{text}");
        let line = json_line(log);
        let Some(secret) = entry["secret"].as_str() else {
            for key in ["message", "value", "shown", "json"] {
                assert_eq!(line[key], text, "{key}");
            }
            continue;
        };
        for key in ["message", "value", "shown", "json"] {
            let value = line[key].as_str().unwrap();
            assert!(!value.contains(secret), "{key}: {value}");
            assert!(value.contains("[redacted]"), "{key}: {value}");
        }
        let pretty = super::tests::text(&options(Format::Pretty), log);
        assert!(!pretty.contains(secret) && pretty.matches('\n').count() == 1, "{pretty}");
    }
}

#[test]
fn fields_with_secret_names_are_not_written() {
    let with = LogOptions { redact: vec!["patient".into()], ..LogOptions::default() };
    let log = || {
        let span = info_span!("s", password = "hunter2", late_token = tracing::field::Empty);
        let _entered = span.enter();
        span.record("late_token", 12345);
        info!(api_key = %"hunter2", secret = ?Some("hunter2"), patient = "Ann", token_count = 3, "m");
    };
    let line: Value = serde_json::from_str(&text(&with, log)).unwrap();
    for key in ["password", "late_token", "api_key", "secret", "patient"] {
        assert_eq!(line[key], "[redacted]", "{key}");
    }
    assert_eq!(line["token_count"], 3);
}

#[test]
fn a_value_of_a_mebibyte_is_cut_and_its_length_said() {
    let mega = "x".repeat(1 << 20);
    let line = json_line(|| info!(value = mega, shown = %mega, "m"));
    for key in ["value", "shown"] {
        assert!(line[key].as_str().unwrap().ends_with("x… (1048576 bytes)"), "{key}");
    }
    struct Endless;
    impl std::fmt::Debug for Endless {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            loop {
                f.write_str("an endless value ")?;
            }
        }
    }
    let line = json_line(|| info!(value = ?Endless, "m"));
    assert!(line["value"].as_str().unwrap().contains("… (more than "), "{}", line["value"]);
}

#[test]
fn lines_of_what_went_well_are_sampled_by_trace() {
    let sampled = LogOptions { sampling_rate: 0.5, ..LogOptions::default() };
    // By the upper end of the numbers' lower half: the first is chosen, the second is not.
    let traces = ["00000000000000000000000000000001", "0000000000000000ffffffffffffffff"];
    let request = |trace_id: &str, end: fn()| {
        let _span = info_span!("request", trace_id).entered();
        info!("begins");
        end();
    };
    let messages = |end: fn()| {
        let text = text(&sampled, || {
            info!("of no request");
            traces.iter().for_each(|trace_id| request(trace_id, end));
        });
        let of = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            format!("{} {}", &line["trace_id"].as_str().unwrap_or("-")[..1], line["message"])
        };
        let trace = |line: &str| line.contains(traces[1]);
        let (of_second, others): (Vec<_>, Vec<_>) = text.lines().partition(|line| trace(line));
        assert_eq!(others.iter().filter(|line| line.contains("of no request")).count(), 1);
        assert!(others.len() >= 2, "the first is written in any case");
        of_second.into_iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(messages(|| info!("ends")), [] as [String; 0]);
    let all = [r#"0 "begins""#, r#"0 "goes wrong""#];
    assert_eq!(messages(|| warn!("goes wrong")), all);
    assert_eq!(messages(|| info!(error = "why", "goes wrong")), all);
    let after = || {
        error!("goes wrong");
        info!("goes on");
    };
    assert_eq!(messages(after), [all[0], all[1], r#"0 "goes on""#]);
}
