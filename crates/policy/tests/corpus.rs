//! Every kind of Rego that people write for agents loads and decides, or fails with a line and
//! words that say what to do. Each file of `corpus/` says in its head what is expected of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use convoke_model::{Caller, Json, OperationKind, Principal, SpiffeId, UnixMillis};
use convoke_policy::{
    Finding, Language, Policy, PolicyData, PolicyOptions, PolicySource, Question, Severity,
};

/// As many as the documentation that the kinds are counted in has.
const FILES_MIN: usize = 82;

/// What the head of a file says.
struct Expected<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Expected<'a> {
    fn of(text: &'a str) -> Self {
        let head = text.lines().map_while(|line| line.strip_prefix("# "));
        Self(head.map(|line| line.split_once(": ").expect("key: value")).collect())
    }

    fn one(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find(|(name, _)| *name == key).map(|(_, value)| *value)
    }

    fn options(&self) -> PolicyOptions {
        let data = self
            .one("data")
            .map(|text| PolicyData { name: "data.json".to_owned(), text: text.to_owned() });
        PolicyOptions {
            package: self.one("package").unwrap_or("agentweave.authz").to_owned(),
            language: self.one("rego_version").map(|version| match version {
                "v0" => Language::V0,
                "v1" => Language::V1,
                other => panic!("{other}"),
            }),
            data: data.into_iter().collect(),
            time_max: Duration::from_secs(60),
            ..PolicyOptions::default()
        }
    }
}

/// Asks `caller=… method=… params=…`.
fn decide(policy: &Policy, ask: &str) -> convoke_model::Decision {
    let agent = SpiffeId::parse("spiffe://example.org/document-worker").unwrap();
    let (ask, params) = match ask.split_once(" params=") {
        Some((ask, params)) => (ask, Some(Json::parse(params).unwrap())),
        None => (ask, None),
    };
    let (caller, method) = ask.split_once(" method=").expect("caller=… method=…");
    let caller = match caller.strip_prefix("caller=").expect("caller=…") {
        "anonymous" => Caller::Anonymous,
        id => Caller::Principal(Arc::new(Principal::from_verified_svid(
            SpiffeId::parse(id).unwrap(),
            &agent,
        ))),
    };
    let question = Question {
        caller: &caller,
        agent: &agent,
        agent_name: "Document Worker Agent",
        operation: OperationKind::SendMessage,
        method,
        params: params.as_ref(),
        at: UnixMillis(1_798_761_599_001),
        protocol: "a2a/1.0",
        remote_addr: "127.0.0.1:50000",
        request_id: "req-1",
        task_id: None,
        context_id: None,
    };
    policy.decide(&question, &|| Duration::ZERO)
}

fn check(name: &str, text: &str) {
    let expected = Expected::of(text);
    let source = PolicySource { name: name.to_owned(), text: text.to_owned() };
    let options = expected.options();
    let loaded = Policy::load(&source, &options);
    let findings = Policy::lint(&source, &options);
    if let Some(line) = expected.one("fails") {
        let error = loaded.err().unwrap_or_else(|| panic!("{name} loads"));
        assert_eq!(error.line().unwrap_or(0).to_string(), line, "{name}: {error}");
        let says = expected.one("says").unwrap();
        assert!(error.to_string().contains(says), "{name}: {error}");
        let [Finding { severity: Severity::Error, cure, .. }] = &findings[..] else {
            panic!("{name}: {findings:?}")
        };
        assert!(!cure.is_empty(), "{name}");
        return;
    }
    let policy = loaded.unwrap_or_else(|error| panic!("{error}"));
    let language = match expected.one("language").unwrap() {
        "v0" => Language::V0,
        "v1" => Language::V1,
        other => panic!("{name}: {other}"),
    };
    assert_eq!(policy.language(), Some(language), "{name}");
    let errors: Vec<&Finding> = findings.iter().filter(|f| f.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "{name}: {errors:?}");
    let unknown: Vec<&Finding> = findings.iter().filter(|f| f.rule == "unknown-input").collect();
    assert!(unknown.is_empty(), "{name}: {unknown:?}");
    let mut asked = 0;
    for (key, ask) in &expected.0 {
        let allow = match *key {
            "allow" => true,
            "deny" => false,
            _ => continue,
        };
        asked += 1;
        // The second answer may come from the memo.
        for _ in 0..2 {
            let decision = decide(&policy, ask);
            assert_eq!(decision.is_allowed(), allow, "{name}: {ask}: {:?}", decision.reason);
            let failed = matches!(decision.reason, convoke_model::Reason::Error(_));
            assert!(!failed, "{name}: {ask}: {:?}", decision.reason);
            if let (false, Some(reason)) = (allow, expected.one("reason")) {
                assert_eq!(decision.reason.detail(), Some(reason), "{name}");
            }
        }
    }
    assert!(asked > 0, "{name} is never asked");
}

#[test]
fn every_kind_loads_and_decides_or_fails_with_line_and_words() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files = 0;
    let mut failed = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        files += 1;
        if let Err(panic) = std::panic::catch_unwind(|| check(&name, &text)) {
            let said = panic.downcast_ref::<String>().cloned();
            failed.push(said.unwrap_or_else(|| format!("{name}: {panic:?}")));
        }
    }
    assert!(files >= FILES_MIN, "{files} files");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
