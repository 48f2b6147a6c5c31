//! What `docs/reference/configuration.md` lists is what a configuration may say.

use std::collections::BTreeSet;
use std::fs;

use convoke::serve::{Config, ConfigError, Environment};

use crate::page::{Page, code, workspace};

const PAGE: &str = "docs/reference/configuration.md";

/// The names of the functions by which the configuration's reader asks for a key.
const ASKS: [&str; 11] = [
    "section",
    "named_sections",
    "parsed",
    "text",
    "number",
    "flag",
    "word",
    "duration",
    "has",
    "size",
    "time",
];

fn parse(text: &str) -> Result<Config, ConfigError> {
    let env = Environment { home: Some("/home/ann".into()), ..Environment::default() };
    Config::parse_in(text, "c.yaml", &env)
}

fn keys() -> Vec<(String, Vec<String>)> {
    let rows = Page::read(PAGE).table("Keys").into_iter();
    rows.map(|row| (row[0].trim_matches('`').to_owned(), row)).collect()
}

/// The file with nothing but `key`, whose value no key takes.
fn with(key: &str) -> String {
    let mut text = String::new();
    let parts: Vec<_> = key.split('.').collect();
    for (depth, part) in parts.iter().enumerate() {
        let end = if depth + 1 == parts.len() { " [[x]]" } else { "" };
        text.push_str(&format!("{}{part}:{end}\n", "  ".repeat(depth)));
    }
    text
}

#[test]
fn every_key_of_the_table_is_known() {
    let refused = |key: &str| parse(&with(key)).unwrap_err().to_string();
    assert!(refused("server.colour").contains("unknown key"), "{}", refused("server.colour"));
    for (key, _) in keys() {
        let why = refused(&key);
        assert!(!why.contains("unknown key"), "{key}: {why}");
        assert!(why.contains(&key), "{key}: {why}");
    }
}

#[test]
fn every_known_key_is_in_the_table_and_in_the_example() {
    let reader = workspace().join("crates/node/src/config/read.rs");
    let source = fs::read_to_string(reader).unwrap();
    let mut known = BTreeSet::new();
    for ask in ASKS {
        for (at, _) in source.match_indices(&format!("{ask}(")) {
            let rest = source[at + ask.len() + 1..].trim_start();
            if let Some((key, _)) = rest.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
                known.insert(key.to_owned());
            }
        }
    }
    let keys = keys();
    let parts: BTreeSet<String> = keys
        .iter()
        .flat_map(|(key, _)| key.split('.'))
        .filter(|part| *part != "NAME")
        .map(str::to_owned)
        .collect();
    assert_eq!(known, parts, "what the reader asks for, and what the page lists");

    let page = Page::read(PAGE);
    let example = &page.blocks[0].text;
    for part in parts {
        let written =
            example.lines().any(|line| line.trim_start().starts_with(&format!("{part}:")));
        assert!(written, "the example lacks `{part}`");
    }
}

#[test]
fn the_defaults_of_the_table_are_those_of_the_program() {
    let config = parse(
        "identity:\n  spiffe_id: spiffe://example.org/worker\nobservability:\n  metrics:\n    enabled: true\n",
    )
    .unwrap();
    let limits = &config.server.limits;
    let metrics = config.observability.metrics.as_ref().unwrap();
    let lower = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
    let defaults = [
        ("authorization.default_policy", lower(&config.authorization.default_policy)),
        ("authorization.policy_path", config.authorization.policy_path.display().to_string()),
        ("authorization.package", config.authorization.package.clone()),
        ("server.host", config.server.host.to_string()),
        ("server.port", config.server.port.to_string()),
        ("server.limits.body_bytes_max", limits.body_bytes_max.to_string()),
        ("server.limits.connections_max", limits.connections_max.to_string()),
        ("server.limits.idle_timeout", format!("{:?}", limits.idle_timeout)),
        ("server.limits.connection_age_max", format!("{:?}", limits.connection_age_max)),
        ("observability.logging.level", config.observability.logging.level.to_string()),
        ("observability.logging.format", lower(&config.observability.logging.format)),
        ("observability.metrics.host", metrics.host.to_string()),
        ("observability.metrics.port", metrics.port.to_string()),
        ("observability.audit.sync", config.observability.audit.sync.to_string()),
        ("metadata.version", config.metadata.version.clone()),
        ("journal.durability", lower(&config.journal.durability)),
    ];
    let keys = keys();
    for (key, expected) in defaults {
        let (_, row) = keys.iter().find(|(known, _)| known == key).expect(key);
        let found = code(&row[2]).next().unwrap();
        assert_eq!(found.replace('_', ""), expected.to_lowercase().replace('_', ""), "{key}");
    }
}
