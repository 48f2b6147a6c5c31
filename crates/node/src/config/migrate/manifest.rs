//! Finds the configuration in what Kubernetes is given.
//!
//! The reference deploys agents with manifests: several documents in a file, of which one is a
//! ConfigMap with the configuration as a text within.

use super::super::yaml::{self, Node, TEXT_BYTES_MAX, Value};
use super::Problem;

/// Most documents of a file.
const DOCUMENTS_MAX: usize = 64;

/// A configuration of whichever shape.
pub(super) struct Found {
    pub(super) tree: Node,
    /// It was within a ConfigMap, so its lines are not those of the file.
    pub(super) is_inner: bool,
}

/// The configuration in `text`: all of it, or what one ConfigMap in it holds.
///
/// # Errors
///
/// If the text is no YAML, or of Kubernetes without a configuration in it, or with several.
pub(super) fn find(text: &str) -> Result<Found, Box<Problem>> {
    if text.len() > TEXT_BYTES_MAX {
        return yaml::parse(text).map(|tree| Found { tree, is_inner: false });
    }
    let documents = documents(text);
    if documents.len() > DOCUMENTS_MAX {
        return Err(refused(
            format!("the file has more than {DOCUMENTS_MAX} documents"),
            "give the one with the configuration",
        ));
    }
    let mut inner = Vec::new();
    for (lines, document) in &documents {
        let tree = yaml::parse(document).map_err(|mut problem| {
            if document.contains("{{") {
                problem.cure =
                    Some("it is a template: render it first, as in `helm template`".into());
            }
            problem.line = problem.line.map(|line| line + lines);
            problem
        })?;
        let Some(kind) = kind(&tree) else {
            if documents.len() == 1 {
                return Ok(Found { tree, is_inner: false });
            }
            continue;
        };
        if kind == "ConfigMap" {
            inner.extend(configurations(&tree));
        }
    }
    match inner.len() {
        1 => Ok(Found { tree: inner.remove(0), is_inner: true }),
        0 => Err(refused(
            match documents.len() {
                1 => "the file is a manifest of Kubernetes with no configuration in it".to_owned(),
                count => format!(
                    "none of the file's {count} documents is a ConfigMap with a configuration in it"
                ),
            },
            "give the file that the agent reads, or the ConfigMap that it is in",
        )),
        count => Err(refused(
            format!("the file has {count} configurations"),
            "give each agent's by itself",
        )),
    }
}

fn refused(message: String, cure: &'static str) -> Box<Problem> {
    Box::new(Problem::of_key("", message, Some(cure)))
}

/// The documents of `text`, each with the number of lines before it. Only between documents, and in
/// no value, may a line begin with `---`. Source: YAML 1.2.2 §9.1.2.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut begin, mut end, mut lines_before) = (0, 0, 0);
    let is_empty = |document: &str| {
        document.lines().all(|line| line.trim_ascii().is_empty() || line.starts_with('#'))
    };
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let is_mark = line.strip_prefix("---").is_some_and(|rest| rest.trim_ascii().is_empty());
        if is_mark {
            documents.push((lines_before, &text[begin..end]));
            (begin, lines_before) = (end + line.len(), index + 1);
        }
        end += line.len();
    }
    documents.push((lines_before, &text[begin..]));
    documents.retain(|(_, document)| !is_empty(document));
    match documents.len() {
        // Its lines are those of the file.
        0 | 1 => vec![(0, text)],
        _ => documents,
    }
}

/// What kind of thing of Kubernetes `tree` is, if it is one.
fn kind(tree: &Node) -> Option<&str> {
    tree.entry("apiVersion")?;
    tree.entry("kind")?.value.as_text()
}

/// The configurations within a ConfigMap. A text that is none, such as a policy or a program's
/// settings, is passed by.
fn configurations(tree: &Node) -> Vec<Node> {
    let Some(Node { value: Value::Map(data), .. }) = tree.entry("data") else { return Vec::new() };
    let texts = data.iter().filter_map(|(_, node)| node.value.as_text());
    let trees = texts.filter_map(|text| yaml::parse(text).ok());
    trees.filter(|tree| ["agent", "identity"].iter().any(|key| tree.entry(key).is_some())).collect()
}
