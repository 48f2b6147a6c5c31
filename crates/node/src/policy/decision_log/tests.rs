use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use convoke_model::{Caller, Json, OperationKind, Reason, Revision, SpiffeId, UnixMillis};

use super::*;

fn config(path: &Path, params: bool) -> DecisionLogConfig {
    DecisionLogConfig { path: path.to_owned(), params, rotate_bytes: None, keep: 5 }
}

fn open(path: &Path, params: bool) -> (DecisionLog, PathMetrics) {
    let metrics = PathMetrics::default();
    let config = config(path, params);
    (DecisionLog::open(&config, Clock::new(), &metrics).unwrap(), metrics)
}

fn keep(log: &DecisionLog, request_id: &str, params: &str) {
    let agent = SpiffeId::parse("spiffe://example.org/worker").unwrap();
    let params = Json::from_checked(params);
    let question = Question {
        caller: &Caller::Anonymous,
        agent: &agent,
        agent_name: "Worker",
        operation: OperationKind::SendMessage,
        method: "count\nwords",
        params: Some(&params),
        at: UnixMillis(1_798_761_599_001),
        protocol: "a2a/1.0",
        remote_addr: "127.0.0.1:50000",
        request_id,
        task_id: None,
        context_id: None,
    };
    let decision = Decision {
        reason: Reason::Denied(Some("no".to_owned())),
        rule: "data.agentweave.authz.allow".into(),
        revision: Revision("0123".into()),
        took: Duration::from_micros(7),
    };
    log.keep(&question, &decision);
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_line_has_all_that_it_takes_to_decide_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new/decisions.jsonl");
    let check = |params: bool, expected: &serde_json::Value| {
        let (log, _) = open(&path, params);
        keep(&log, "r", "{\n  \"text\": \"a\\nb\"\r\n}");
        log.close();
        let line = lines(&path).pop().unwrap();
        for (name, value) in [
            ("time", "2026-12-31T23:59:59.001Z"),
            ("request_id", "r"),
            ("revision", "0123"),
            ("rule", "data.agentweave.authz.allow"),
            ("caller", "anonymous"),
            ("method", "count\nwords"),
            ("operation", "SendMessage"),
            ("reason", "denied"),
            ("detail", "no"),
        ] {
            assert_eq!(line[name], value);
        }
        assert_eq!((&line["allowed"], &line["took_us"]), (&false.into(), &7.into()));
        assert_eq!(line["params_sha256"].as_str().unwrap().len(), 64);
        assert_eq!(line["input"]["request"]["method"], "count\nwords");
        assert_eq!(&line["input"]["request"]["params"], expected);
    };
    check(false, &serde_json::Value::Null);
    check(true, &serde_json::json!({"text": "a\nb"}));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn lines_stay_whole_over_ends_and_moves() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("decisions.jsonl");
    std::fs::write(&path, "{\"torn\":").unwrap();
    let (log, _) = open(&path, false);
    keep(&log, "first", "{}");
    log.close();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");

    let moved = directory.path().join("decisions.jsonl.1");
    std::fs::remove_file(&path).unwrap();
    let (log, _) = open(&path, false);
    std::fs::rename(&path, &moved).unwrap();
    keep(&log, "second", "{}");
    log.close();
    assert_eq!(lines(&path)[0]["request_id"], "second");
    assert_eq!(lines(&moved).len(), 0);
}

#[test]
fn a_large_file_is_put_aside_and_so_many_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("decisions.jsonl");
    let numbered = |number: u32| directory.path().join(format!("decisions.jsonl.{number}"));
    let config = DecisionLogConfig { rotate_bytes: Some(1), keep: 2, ..config(&path, false) };
    // Each of them begins where the last one ended, with a file that is large enough already.
    for request_id in ["first", "second", "third", "fourth"] {
        let log = DecisionLog::open(&config, Clock::new(), &PathMetrics::default()).unwrap();
        keep(&log, request_id, "{}");
        log.close();
    }
    for (path, request_id) in [(path, "fourth"), (numbered(1), "third"), (numbered(2), "second")] {
        let lines = lines(&path);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["request_id"], request_id);
    }
    assert!(!numbered(3).exists());
}

#[test]
fn a_file_has_one_writer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("decisions.jsonl");
    let (_log, _) = open(&path, false);
    let again = DecisionLog::open(&config(&path, false), Clock::new(), &PathMetrics::default());
    let why = again.err().map(|error| convoke_model::chain(&error)).unwrap();
    assert!(why.contains("another process writes it"), "{why}");
}

#[test]
fn what_there_is_no_room_for_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("decisions.jsonl");
    let (log, metrics) = open(&path, false);
    // As if so much were waiting already.
    log.waiting.store(BYTES_MAX, Ordering::Relaxed);
    keep(&log, "dropped", "{}");
    assert_eq!(metrics.decision_log_dropped.get(), 1);
    log.waiting.store(0, Ordering::Relaxed);
    keep(&log, "kept", "{}");
    log.close();
    keep(&log, "too late", "{}");
    assert_eq!(metrics.decision_log_dropped.get(), 2);
    assert_eq!(lines(&path).len(), 1);
    assert_eq!(log.waiting.load(Ordering::Relaxed), 0);
}
