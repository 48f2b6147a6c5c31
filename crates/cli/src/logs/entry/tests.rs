#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::args::Color;

const LOG: &str = r#"{"timestamp":"2026-11-20T10:00:00.123Z","level":"WARN","message":"Authorization denied","caller":"spiffe://example.org/ann","capability":"count","took":1.50,"list":[1, 2],"request_id":"r-123","trace_id":"4bf9","logger":"x y"}"#;
const ALLOWED: &str = r#"{"timestamp":"2026-11-20T10:00:01.000Z","event_type":"authorization","request_id":"r-124","caller_spiffe_id":"spiffe://example.org/ann","agent_spiffe_id":"spiffe://example.org/worker","operation":"SendMessage","capability":"count","decision":"allow","reason":"allowed"}"#;
const EVENT: &str = r#"{"timestamp":"2026-11-21T10:00:01.000Z","event_type":"startup","version":1,"agent_spiffe_id":"spiffe://example.org/worker","program_version":"1"}"#;

fn show(text: &str) -> String {
    let mut page = Page::new(Paint::for_stdout(Color::Never), false);
    let line = Line { text: text.to_owned(), is_cut: false };
    page.show(&line, Entry::read(text).as_ref())
}

#[test]
fn lines_are_for_people() {
    for (line, expected) in [
        (
            LOG,
            "── 2026-11-20 (UTC) ──\n10:00:00.123 WARN    Authorization denied \
             caller=spiffe://example.org/ann capability=count took=1.50 list=[1, 2] \
             request_id=r-123 trace_id=4bf9 logger=\"x y\"\n",
        ),
        (
            ALLOWED,
            "── 2026-11-20 (UTC) ──\n10:00:01.000 allowed spiffe://example.org/ann → \
             spiffe://example.org/worker count request_id=r-124 operation=SendMessage \
             reason=allowed\n",
        ),
        (
            EVENT,
            "── 2026-11-21 (UTC) ──\n10:00:01.000 event   spiffe://example.org/worker startup \
             program_version=1\n",
        ),
    ] {
        assert_eq!(show(line), expected);
    }
}

#[test]
fn the_day_is_said_when_it_changes() {
    let mut page = Page::new(Paint::for_stdout(Color::Never), false);
    let mut days = |text: &str| {
        let line = Line { text: text.to_owned(), is_cut: false };
        page.show(&line, Entry::read(text).as_ref()).matches("──").count()
    };
    assert_eq!([LOG, ALLOWED, EVENT, EVENT].map(&mut days), [2, 0, 2, 0]);
}

#[test]
fn what_is_no_line_of_ours_is_shown_as_it_is() {
    for line in [
        "thread 'main' panicked",
        "",
        "{}",
        "[1]",
        r#"{"timestamp":1,"level":"INFO"}"#,
        "{\"level\":",
    ] {
        assert!(Entry::read(line).is_none(), "{line}");
        assert_eq!(show(line), format!("{line}\n"));
    }
}

#[test]
fn nothing_drives_the_terminal() {
    let evil = "\u{1b}[2J\u{9b}\u{202e}\u{7}\u{feff}\u{e0041}\r";
    let json = serde_json::to_string(evil).unwrap();
    for line in [
        evil.to_owned(),
        format!(r#"{{"timestamp":{json},"level":"INFO","message":{json},{json}:{json}}}"#),
        format!(r#"{{"timestamp":"T","event_type":{json},"agent_spiffe_id":{json},"x":[{json}]}}"#),
        // As it may stand in JSON without an escape.
        "{\"timestamp\":\"T\",\"level\":\"INFO\",\"message\":\"\u{9b}\u{202e}\",\"x\":[\"\u{202e}\"]}".into(),
    ] {
        let text = show(&line);
        let is_plain = |c: char| c == '\n' || !(c.is_control() || "\u{202e}\u{feff}\u{e0041}".contains(c));
        assert!(text.chars().all(is_plain), "{text:?}");
    }
}

#[test]
fn lines_are_picked() {
    let check = |pick: Pick, expected: [bool; 4]| {
        let wants =
            |text: &str| pick.wants(Entry::read(text).as_ref(), Some("spiffe://example.org/other"));
        assert_eq!([LOG, ALLOWED, EVENT, "foreign"].map(wants), expected, "{pick:?}");
    };
    let of = |text: &str| Some(text.to_owned());
    let none = Pick::default;
    check(none(), [true, true, true, true]);
    check(Pick { no_foreign: true, ..none() }, [true, true, true, false]);
    check(Pick { level: Some(Level::Warn), ..none() }, [true, false, false, false]);
    check(Pick { agent: of("spiffe://example.org/worker"), ..none() }, [false, true, true, false]);
    check(Pick { agent: of("worker"), ..none() }, [false, true, true, false]);
    check(Pick { agent: of("orker"), ..none() }, [false; 4]);
    check(Pick { agent: of("other"), ..none() }, [true, false, false, false]);
    check(Pick { caller: of("ann"), ..none() }, [true, true, false, false]);
    check(Pick { capability: of("count"), ..none() }, [true, true, false, false]);
    check(Pick { capability: of("coun"), ..none() }, [false; 4]);
    check(Pick { request_id: of("r-12"), ..none() }, [true, true, false, false]);
    check(Pick { request_id: of("r-124"), ..none() }, [false, true, false, false]);
    check(Pick { trace_id: of("4b"), ..none() }, [true, false, false, false]);
    let since = of("2026-11-20T10:00:01.000Z");
    check(Pick { since, ..none() }, [false, true, true, false]);
}
