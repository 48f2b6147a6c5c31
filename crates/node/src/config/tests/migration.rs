//! The reference's other shapes, turned into this one.

use std::fs;

use super::super::migrate::migrate;
use super::*;

/// Set to have the results written instead of compared.
const UPDATE: &str = "UPDATE_GOLDEN";

#[test]
fn each_shape_becomes_one_that_loads() {
    let mut different = Vec::new();
    for path in corpus::files("migrate") {
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.ends_with(".migrated.yaml") {
            continue;
        }
        let migration = migrate(&fs::read_to_string(&path).unwrap(), name).unwrap();
        assert_eq!(migration.problems, None, "{name}:\n{}", migration.text);
        let golden = path.with_extension("migrated.yaml");
        if std::env::var_os(UPDATE).is_some() {
            fs::write(&golden, &migration.text).unwrap();
        }
        if fs::read_to_string(&golden).unwrap_or_default() != migration.text {
            different.push(format!("{}:\n{}", golden.display(), migration.text));
        }
        // What has become of it is already of this shape, and stays as it is.
        let again = migrate(&migration.text, name).unwrap();
        assert_eq!((again.dropped, again.decisions), (Vec::new(), Vec::new()), "{name}");
        let without = |text: &str| {
            let lines = text.lines().map(|line| line.split("  # ").next().unwrap().to_owned());
            lines.filter(|line| !line.starts_with('#')).collect::<Vec<_>>()
        };
        assert_eq!(without(&again.text), without(&migration.text), "{name}");
    }
    assert!(different.is_empty(), "{UPDATE}=1 records:\n{}", different.join("\n"));
}

#[test]
fn every_key_is_mapped_or_listed() {
    let text = fs::read_to_string(corpus::directory("migrate").join("reference.yaml")).unwrap();
    let migration = migrate(&text, "reference.yaml").unwrap();
    for dropped in &migration.dropped {
        assert_ne!(dropped.why, "it is no key that is known here", "{}", dropped.path);
        assert!(dropped.line.is_some(), "{}", dropped.path);
    }
    for line in text.lines().filter(|line| line.contains(": ") && !line.starts_with('#')) {
        let key = line.trim().trim_start_matches("- ").split(':').next().unwrap();
        let listed = migration.text.contains(key)
            || migration.dropped.iter().any(|dropped| dropped.path == "agent.capabilities");
        assert!(listed, "{key}");
    }
}

#[test]
fn what_is_unknown_is_listed_too() {
    let migration = migrate("agent: {name: a, colour: red}\n", "a.yaml").unwrap();
    let dropped = Dropped {
        path: "agent.colour".into(),
        line: Some(1),
        why: "it is no key that is known here",
    };
    assert_eq!(migration.dropped, [dropped]);
    // Without a trust domain there is no identity, which a person has to add.
    assert!(migration.problems.unwrap().to_string().contains("`identity.spiffe_id` is missing"));
}

#[test]
fn what_is_no_configuration_is_refused() {
    let check = |text: &str, expected: &str| {
        let error = migrate(text, "a.yaml").expect_err(text).to_string();
        assert!(error.contains(expected), "{error}");
    };
    check("- a\n", "the file is a list, not a mapping");
    check("a: {{ .Values.a }}\n", "it is a template: render it first");
    check(&"[".repeat(100_000), "limit");
}

#[test]
fn nothing_of_the_original_gets_out_of_its_comment() {
    let hostile = "agent: {name: \"a\\nserver: {port: 1}\", trust_domain: \"x # y\", \
                   \"b\\nc: d\": 1}\nauthorization: {provider: opa}\n";
    let migration = migrate(hostile, "a\nevil: 1").unwrap();
    for line in migration.text.lines().filter(|line| !line.is_empty()) {
        let key = line.trim_start().split(':').next().unwrap();
        assert!(line.starts_with('#') || !["server", "evil", "c", "port"].contains(&key), "{line}");
    }
}

#[test]
fn no_text_makes_it_panic() {
    let text = fs::read_to_string(corpus::directory("migrate").join("helm.yaml")).unwrap();
    for end in (0..text.len()).step_by(41) {
        let (start, rest) = text.split_at(end);
        for piece in ["", "\0", "[", "&a *a", ": - !!int \"", "1e400 ", "{a: ", "${x}\n"] {
            for text in [format!("{start}{piece}"), format!("{start}{piece}{rest}")] {
                if let Ok(migration) = migrate(&text, "a.yaml") {
                    assert!(!migration.text.contains(['\u{1b}', '\0']), "{}", migration.text);
                }
            }
        }
    }
}
