//! What `docs/reference/configuration.md` lists is what a configuration may say, and the schema
//! beside it takes what the program takes.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use convoke::serve::Config;
use convoke::serve::config::{reference, schema};

use crate::page::{Page, What, workspace};
use crate::play::{UPDATE, environment};

const PAGE: &str = "docs/reference/configuration.md";

const SCHEMA: &str = "docs/reference/convoke.schema.json";

/// Compares `path` with what is generated, or writes it.
fn check(path: &str, expected: &str) {
    let file = workspace().join(path);
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&file, expected).unwrap();
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert!(found == expected, "{path} is not as generated: set {UPDATE}=1 to have it written");
}

/// `page` with `table` between the comments `name` and `end of NAME`.
fn with(page: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->\n"));
    let (before, rest) = page.split_once(&begin).expect(name);
    let (_, after) = rest.split_once(&end).expect(name);
    // A comment ends where a blank line does: without one the table would be a part of it.
    format!("{before}{begin}\n{table}\n{end}{after}")
}

#[test]
fn the_tables_are_those_of_the_program() {
    let page = fs::read_to_string(workspace().join(PAGE)).unwrap();
    let page = with(&page, "keys", &reference::key_table());
    check(PAGE, &with(&page, "variables", &reference::variable_table()));
}

#[test]
fn the_schema_is_that_of_the_program() {
    check(SCHEMA, &format!("{:#}\n", schema()));
}

/// The configurations of the page.
fn examples() -> Vec<String> {
    let blocks = Page::read(PAGE).blocks.into_iter();
    let texts = blocks.filter(|block| block.what == What::Configuration).map(|block| block.text);
    let texts: Vec<_> = texts.collect();
    assert!(!texts.is_empty());
    texts
}

#[test]
fn every_key_is_in_an_example() {
    let mut written = BTreeSet::new();
    for text in examples() {
        let (_, settings) = Config::explain(&text, "example", &environment()).unwrap();
        let settings = settings.into_iter();
        let in_file = settings.filter(|setting| setting.origin.to_string().starts_with("line "));
        written.extend(in_file.map(|setting| setting.path));
    }
    let names = [
        ("agent_registry.document_worker.", "agent_registry.NAME."),
        ("headers.authorization.", "headers.NAME."),
        ("federated.partner.example", "federated.NAME"),
    ];
    let written: BTreeSet<String> = written
        .iter()
        .map(|path| names.iter().fold(path.clone(), |path, (from, to)| path.replace(from, to)))
        .collect();
    // A file with a secret would have to be on the reader's machine.
    let is_secret = |path: &str| ["token_file", "value_file"].iter().any(|end| path.ends_with(end));
    for path in reference::paths() {
        assert!(written.contains(path) || is_secret(path), "no example has `{path}`");
    }
}

fn corpus(part: &str) -> Vec<PathBuf> {
    let directory = workspace().join("crates/node/tests/config").join(part);
    let mut files: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn the_schema_takes_what_the_program_takes() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let check = |name: &str, text: &str, expected: bool| {
        let value: serde_json::Value = serde_saphyr::from_str(text).expect(name);
        assert_eq!(validator.is_valid(&value), expected, "{name}");
    };
    for path in corpus("right") {
        check(&path.display().to_string(), &fs::read_to_string(&path).unwrap(), true);
    }
    for text in examples() {
        check(PAGE, &text, true);
    }
    for path in corpus("migrate") {
        let name = path.display().to_string();
        let is_ours = name.ends_with(".migrated.yaml");
        check(&name, &fs::read_to_string(&path).unwrap(), is_ours);
    }
    // What is wrong with a key by itself is wrong for the schema too.
    for (text, what) in [
        ("server: {prot: 1}", "an unknown key"),
        ("server: {port: 65536}", "a number out of range"),
        ("server: {drain_timeout: 10}", "a duration without a unit"),
        ("environment: prod", "a word that is none"),
        ("authorization: {opa: {token: x}}", "a secret in the file"),
        ("agent_registry: {w: {address: \"https://a\"}}", "an entry without an identity"),
    ] {
        check(what, &format!("identity: {{spiffe_id: \"spiffe://a/b\"}}\n{text}\n"), false);
    }
    check("no identity", "server: {port: 1}\n", false);
}
