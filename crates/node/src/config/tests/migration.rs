//! The reference's other shapes, turned into this one.

use std::fs;

use super::super::migrate::migrate;
use super::super::{text, yaml};
use super::*;

/// Why a key is listed that nobody has thought of.
const UNKNOWN: &str = "it is no key that is known here";

/// Those of them that do not say who the agent is, which a person has to add.
const NAMELESS: [&str; 1] = ["reference-nameless.yaml"];

/// Set to have the results written instead of compared.
const UPDATE: &str = "UPDATE_GOLDEN";

#[test]
fn each_shape_becomes_one_that_loads() {
    let mut different = Vec::new();
    let documented = corpus::files("documented");
    let mut originals = 0;
    for path in corpus::files("migrate").into_iter().chain(documented) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if !is_original(name) {
            continue;
        }
        originals += 1;
        let migration = migrate(&fs::read_to_string(&path).unwrap(), name).unwrap();
        match NAMELESS.contains(&name) {
            true => {
                let problems = migration.problems.as_ref().unwrap().to_string();
                assert!(problems.contains("`identity.spiffe_id` is missing"), "{name}: {problems}");
                assert_eq!(problems.lines().count(), 1, "{name}: {problems}");
            }
            false => assert_eq!(migration.problems, None, "{name}:\n{}", migration.text),
        }
        for dropped in &migration.dropped {
            assert_ne!(dropped.why, UNKNOWN, "{name}: {}", dropped.path);
        }
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
    assert!(originals >= 12, "{originals}");
    assert!(different.is_empty(), "{UPDATE}=1 records:\n{}", different.join("\n"));
}

#[test]
fn no_documented_key_is_lost_in_silence() {
    let (mut seen, mut lost) = (0, Vec::new());
    for path in corpus::files("documented") {
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        // Manifests have the configuration within a text.
        let (true, Ok(tree)) = (is_original(name), yaml::parse(&text)) else { continue };
        if tree.entry("apiVersion").is_some() {
            continue;
        }
        let Migration { text: ours, decisions, dropped, .. } = migrate(&text, name).unwrap();
        let result = yaml::parse(&ours).unwrap();
        let mut leaves = Vec::new();
        leaves_of(&tree, "", &mut leaves);
        for leaf in leaves {
            let is_told = |told: &str| leaf == told || leaf.starts_with(&format!("{told}."));
            let is_seen = dropped.iter().any(|dropped| is_told(&dropped.path))
                || decisions.iter().any(|decision| decision.contains(&format!("`{leaf}`")))
                || ours.contains(&format!("# from {leaf}\n"))
                || result.below(&leaf).is_some()
                || STOOD_FOR.iter().any(|(told, by)| *told == leaf && ours.contains(by));
            match is_seen {
                true => seen += 1,
                false => lost.push(format!("{name}: {leaf}")),
            }
        }
    }
    assert_eq!(lost, Vec::<String>::new());
    assert!(seen > 150, "{seen}");
}

/// Keys that say what goes without saying here, or together with others, and what in the result
/// stands for them.
const STOOD_FOR: &[(&str, &str)] = &[
    ("authorization.provider", "enabled: true  # that shape asks an OPA server"),
    ("authorization.provider", "that shape allowed every call"),
    ("authz.provider", "enabled: true  # that shape asks an OPA server"),
    ("authorization.audit.enabled", ""),
    ("observability.audit.enabled", ""),
    ("opa.enabled", "enabled: true  # that shape asks an OPA server"),
    ("spiffe.enabled", "spiffe_id"),
    ("transport.circuit_breaker.enabled", ""),
    // The same name may be written twice.
    ("agent.trustDomain", "trust_domain: "),
];

/// The paths of everything below `node` that is no mapping.
fn leaves_of(node: &yaml::Node, path: &str, leaves: &mut Vec<String>) {
    match &node.value {
        yaml::Value::Map(entries) => {
            for (key, node) in entries {
                leaves_of(node, &text::join(path, &key.name), leaves);
            }
        }
        yaml::Value::Null => {}
        _ => leaves.push(path.to_owned()),
    }
}

fn is_original(name: &str) -> bool {
    name.ends_with(".yaml") && !name.ends_with(".migrated.yaml")
}

#[test]
fn a_configuration_is_found_in_what_kubernetes_is_given() {
    let map = |name: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\ndata:\n  opa.yaml: |\n    services: {{}}\n  \
             config.yaml: |\n    agent:\n      name: {name}\n      trust_domain: a.example\n"
        )
    };
    let service = "apiVersion: v1\nkind: Service\nspec: {type: ClusterIP}\n";
    let check = |text: &str, expected: &str| {
        let migration = migrate(text, "a.yaml").unwrap();
        assert!(migration.text.contains(expected), "{}", migration.text);
        assert_eq!(migration.problems, None);
    };
    check(&map("x"), "spiffe://a.example/agent/x");
    check(&format!("---\n# first\n---\n{service}---\n{}---\n", map("x")), "a.example/agent/x");
    let refused = |text: &str, expected: &str| {
        let error = migrate(text, "a.yaml").expect_err(text).to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused(service, "a manifest of Kubernetes with no configuration in it; give the file that");
    refused(&format!("{service}---\n{service}"), "none of the file's 2 documents is a ConfigMap");
    refused(&format!("{}---\n{}", map("x"), map("y")), "2 configurations; give each agent's");
    refused(&format!("{service}---\na: {{{{ b }}}}\n"), "a.yaml:5");
    refused(&format!("{service}---\na: {{{{ b }}}}\n"), "render it first");
    refused(&"---\na: 1\n".repeat(65), "more than 64 documents");
    // A mark at the beginning does not move the lines.
    let migration = migrate("---\nagent: {name: a}\nimage: {tag: x}\n", "a.yaml").unwrap();
    assert_eq!(migration.dropped[0].line, Some(3));
}

#[test]
fn two_keys_of_the_same_meaning_do_not_push_each_other_out() {
    let text = "agent: {name: a, trustDomain: a.example}\nglobal: {trustDomain: b.example}\n";
    let migration = migrate(text, "a.yaml").unwrap();
    let told = "line 2, `global.trustDomain`, was \"b.example\", and another key says something else of \
                `identity.trust_domain`";
    assert!(migration.decisions.iter().any(|decision| decision.contains(told)), "{migration:?}");
    assert_eq!(migration.problems, None);
    // Neither does what is made of other keys push out what was said.
    let text = "agent: {name: a, trust_domain: a.example, spiffe_id: \"spiffe://a.example/x\"}\n";
    let migration = migrate(text, "a.yaml").unwrap();
    assert!(migration.text.contains("spiffe_id: \"spiffe://a.example/x\"  # from agent.spiffe_id"));
}

#[test]
fn a_switch_that_is_not_understood_is_left_to_a_person() {
    let text = "agent: {name: a, trust_domain: a.example}\nauthorization: {provider: casbin, audit: \
                {enabled: \"no\"}}\n";
    let decisions = migrate(text, "a.yaml").unwrap().decisions.join("\n");
    for told in [
        "line 2, `authorization.provider`, was \"casbin\"",
        "line 2, `authorization.audit.enabled`, was \"no\"",
    ] {
        assert!(decisions.contains(told), "{decisions}");
    }
}

#[test]
fn every_key_is_mapped_or_listed() {
    let text = fs::read_to_string(corpus::directory("migrate").join("reference.yaml")).unwrap();
    let migration = migrate(&text, "reference.yaml").unwrap();
    for dropped in &migration.dropped {
        assert_ne!(dropped.why, UNKNOWN, "{}", dropped.path);
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
    let dropped = Dropped { path: "agent.colour".into(), line: Some(1), why: UNKNOWN };
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
