#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tempfile::TempDir;
use tokio::net::UnixStream;

use super::*;
use crate::process::own_uid;

const LIMITS: TtlLimits = TtlLimits { min: Duration::from_secs(2), max: Duration::from_secs(3600) };

fn domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

fn open(dir: &TempDir) -> Result<Entries, IssuerError> {
    let own = own_uid().unwrap();
    let dir = Arc::new(DataDir::open(dir.path().join("data"), own)?);
    Entries::open(dir, domain())
}

fn registration(name: &str, selectors: &[&str]) -> Registration {
    Registration {
        spiffe_id: SpiffeId::parse(&format!("spiffe://example.org/{name}")).unwrap(),
        selectors: selectors.iter().map(|text| text.parse().unwrap()).collect(),
        ttl: None,
    }
}

fn workload() -> Workload {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    Workload::of_peer(&ours.peer_cred().unwrap()).unwrap()
}

#[tokio::test]
async fn entries_survive_and_numbers_are_never_given_twice() {
    let dir = TempDir::new().unwrap();
    let entries = open(&dir).unwrap();
    assert!(entries.never_any());
    let (first, is_first) = entries.add(registration("a", &["unix:uid:1"]), LIMITS).unwrap();
    assert!(is_first);
    let mut second = registration("b", &["unix:path:/b", "unix:uid:2"]);
    second.ttl = Some(Duration::from_secs(7));
    let (second, is_first) = entries.add(second, LIMITS).unwrap();
    assert!(!is_first);
    assert_eq!((first.id, second.id), (1, 2));
    drop(entries);

    let entries = open(&dir).unwrap();
    assert_eq!(entries.all(), [first, second.clone()]);
    assert_eq!(entries.remove(2).unwrap(), second);
    entries.remove(1).unwrap();
    assert!(matches!(entries.remove(1), Err(EntryError::NotFound { id: 1 })));
    drop(entries);

    let entries = open(&dir).unwrap();
    assert!(entries.all().is_empty() && !entries.never_any());
    let (third, is_first) = entries.add(registration("a", &["unix:uid:1"]), LIMITS).unwrap();
    assert_eq!((third.id, is_first), (3, false));
}

#[tokio::test]
async fn losing_the_entries_does_not_bring_enrolling_back() {
    let check = |lose: &dyn Fn(&DataDir)| {
        let dir = TempDir::new().unwrap();
        let entries = open(&dir).unwrap();
        entries.add(registration("a", &["unix:uid:1"]), LIMITS).unwrap();
        lose(&entries.dir);
        let file = entries.dir.file(FILE);
        drop(entries);
        if file.exists() {
            let error = open(&dir).unwrap_err().to_string();
            assert!(error.contains("processes still may not enrol themselves"), "{error}");
            std::fs::remove_file(&file).unwrap();
        }
        let entries = open(&dir).unwrap();
        assert!(entries.all().is_empty() && !entries.never_any());
        // Until an entry says otherwise, and after it.
        entries.add(registration("b", &["unix:uid:2"]), LIMITS).unwrap();
        assert!(!entries.never_any());
    };
    check(&|dir| std::fs::remove_file(dir.file(FILE)).unwrap());
    check(&|dir| dir.replace(FILE, b"{\"version\": 1").unwrap());
    // As an issuer left it that made no mark yet.
    check(&|dir| {
        std::fs::remove_file(dir.file(MARK)).unwrap();
        dir.replace(FILE, b"").unwrap();
    });
}

#[tokio::test]
async fn an_entry_that_is_refused_does_not_end_enrolling() {
    let dir = TempDir::new().unwrap();
    let entries = open(&dir).unwrap();
    entries.add(registration("a", &[]), LIMITS).unwrap_err();
    entries.remove(1).unwrap_err();
    drop(entries);
    assert!(open(&dir).unwrap().never_any());
}

#[tokio::test]
async fn all_selectors_of_an_entry_have_to_hold() {
    let (dir, workload) = (TempDir::new().unwrap(), workload());
    let entries = open(&dir).unwrap();
    let uid = format!("unix:uid:{}", workload.process.uid);
    let path = format!("unix:path:{}", std::env::current_exe().unwrap().display());
    for (name, selectors) in [
        ("uid", vec![uid.as_str()]),
        ("both", vec![&uid, &path]),
        ("other-program", vec![&uid, "unix:path:/bin/sh"]),
        ("other-user", vec!["unix:uid:4000000000", &path]),
    ] {
        entries.add(registration(name, &selectors), LIMITS).unwrap();
    }
    let given: Vec<_> = entries.of(&workload).into_iter().map(|(id, _)| id).collect();
    let given: Vec<_> = given.iter().map(SpiffeId::path).collect();
    assert_eq!(given, ["/uid", "/both"]);
}

#[tokio::test]
async fn what_is_no_entry_is_refused() {
    let dir = TempDir::new().unwrap();
    let entries = open(&dir).unwrap();
    let check = |registration: Registration, expected: &str| {
        let error = entries.add(registration, LIMITS).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let good = || registration("a", &["unix:uid:1", "unix:gid:1"]);
    let foreign = SpiffeId::parse("spiffe://other.org/a").unwrap();
    check(Registration { spiffe_id: foreign, ..good() }, "`example.org` only");
    check(registration("a", &[]), "one to 8");
    check(registration("a", &["unix:uid:1", "unix:uid:1"]), "different");
    let many: Vec<_> = (0..9).map(|uid| format!("unix:uid:{uid}")).collect();
    check(registration("a", &many.iter().map(String::as_str).collect::<Vec<_>>()), "one to 8");
    for ttl in [0, 1999, 2500, 3_600_001] {
        check(Registration { ttl: Some(Duration::from_millis(ttl)), ..good() }, "2 to 3600");
    }
    assert!(entries.never_any());
    entries.add(good(), LIMITS).unwrap();
    check(registration("a", &["unix:gid:1", "unix:uid:1"]), "entry 1 says the same");
}

#[tokio::test]
async fn a_file_that_is_not_ours_is_refused() {
    let dir = TempDir::new().unwrap();
    let entry = r#"{"id": 1, "spiffe_id": "spiffe://example.org/a", "selectors": ["unix:uid:1"]}"#;
    let file = |version: u32, domain: &str, next: u64, entries: &str| {
        format!(
            r#"{{"version": {version}, "trust_domain": "{domain}", "next_id": {next}, "entries": [{entries}]}}"#
        )
    };
    let check = |text: &str, expected: Option<&str>| {
        let own = own_uid().unwrap();
        let data = DataDir::open(dir.path().join("data"), own).unwrap();
        data.replace(FILE, text.as_bytes()).unwrap();
        drop(data);
        match (open(&dir), expected) {
            (Ok(entries), None) => assert_eq!(entries.all().len(), 1),
            (Err(error), Some(part)) => assert!(error.to_string().contains(part), "{error}"),
            (found, _) => panic!("{text}: {found:?}"),
        }
    };
    check(&file(1, "example.org", 2, entry), None);
    check(&file(2, "example.org", 2, entry), Some("version 2"));
    check(&file(1, "other.org", 2, entry), Some("`other.org`"));
    check(&file(1, "example.org", 1, entry), Some("contradict"));
    check(&file(1, "example.org", 0, ""), Some("contradict"));
    check(&file(1, "example.org", 2, &format!("{entry}, {entry}")), Some("entry 1"));
    check(&file(1, "example.org", 2, &entry.replace("\"unix:uid:1\"", "")), Some("empty"));
    check(&file(1, "example.org", 2, &entry.replace("uid:1", "uid:x")), Some("number"));
    check(&file(1, "example.org", 2, &entry.replace("example.org", "other.org")), Some("domain"));
    check("", Some("EOF"));
    check("{}", Some("version"));
}
