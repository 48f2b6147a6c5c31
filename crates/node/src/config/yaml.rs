//! YAML text into a tree that knows where each of its values stands.
//!
//! The tree is what lets all problems of a file be reported at once, each with its key, line and
//! column; a derived `Deserialize` would stop at the first and forget the key.

use std::fmt;
use std::rc::Rc;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy};
use serde_saphyr::{Location, MessageFormatter as _, Spanned, UserMessageFormatter};

use super::error::Problem;
use crate::observe::logging::push_plain;

/// Largest configuration or policy file that is read, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 1024 * 1024;

/// Deepest nesting of a configuration; ours needs four levels, free metadata may need more.
const DEPTH_MAX: usize = 16;

/// Most values of a configuration, aliases expanded.
const NODES_MAX: usize = 20_000;

/// Most aliases of a configuration.
const ALIASES_MAX: usize = 256;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) at: Place,
    pub(super) value: Value,
}

/// Where a value comes from: a line and column of the file, both from 1 and zero when they are not
/// known, or an environment variable.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) variable: Option<Rc<str>>,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) at: Place,
    pub(super) name: String,
}

/// Reads one YAML document; an empty one is an empty mapping.
///
/// Bounded in bytes, depth, values and aliases before anything is built; duplicate keys, merge
/// keys and more than one document are refused.
pub(super) fn parse(text: &str) -> Result<Node, Box<Problem>> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("longer than {TEXT_BYTES_MAX} bytes");
        return Err(Box::new(Problem::of_key("", message, None)));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: NODES_MAX * 3,
            max_nodes: NODES_MAX,
            max_depth: DEPTH_MAX,
            max_aliases: ALIASES_MAX,
            max_anchors: ALIASES_MAX,
            max_recorded_anchor_events: NODES_MAX,
            max_recorded_anchor_bytes: TEXT_BYTES_MAX,
            max_total_scalar_bytes: TEXT_BYTES_MAX,
            max_total_comment_bytes: TEXT_BYTES_MAX,
            max_documents: 1,
            flow_nesting_limit: DEPTH_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: NODES_MAX,
            max_replay_stack_depth: DEPTH_MAX,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        // `no` is a country and `yes` a word; only `true` and `false` are booleans.
        strict_booleans: true,
        with_snippet: false,
    };
    let root: Option<Node> = serde_saphyr::from_str_with_options(text, options).map_err(problem)?;
    let node = root.unwrap_or_else(|| Node::bare(Value::Null));
    match node.value {
        Value::Null => Ok(Node { at: node.at, value: Value::Map(Vec::new()) }),
        _ => Ok(node),
    }
}

impl Node {
    /// A value that stands nowhere.
    pub(super) fn bare(value: Value) -> Self {
        Self { at: Place::default(), value }
    }

    /// What stands below `path`, in which dots part the keys.
    pub(super) fn below(&self, path: &str) -> Option<&Self> {
        path.split('.').try_fold(self, |node, name| node.entry(name))
    }

    /// What stands under `key`, if this is a mapping that has it.
    pub(super) fn entry(&self, name: &str) -> Option<&Self> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
    }
}

impl Value {
    /// What the value is, for a sentence: "`server` is a list".
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "empty",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }

    /// The text, if it is one.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value as JSON.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Number(value) => serde_json::Value::Number(value.clone()),
            Self::Text(value) => value.as_str().into(),
            Self::List(items) => items.iter().map(|item| item.value.to_json()).collect(),
            Self::Map(entries) => {
                entries.iter().map(|(key, node)| (key.name.clone(), node.value.to_json())).collect()
            }
        }
    }
}

impl Place {
    fn of(location: Location) -> Self {
        // Lines and columns are counted in 32 bits, so they fit wherever we run.
        let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        let (line, column) = (number(location.line()), number(location.column()));
        Self { line, column, variable: None }
    }

    /// The environment variable `name`.
    pub(super) fn variable(name: &str) -> Self {
        Self { variable: Some(name.into()), ..Self::default() }
    }

    /// Line and column, if they are known.
    pub(super) fn known(&self) -> (Option<usize>, Option<usize>) {
        let known = |number: usize| (number > 0).then_some(number);
        (known(self.line), known(self.column))
    }
}

fn problem(error: serde_saphyr::Error) -> Box<Problem> {
    let at = error.location().map(Place::of).unwrap_or_default();
    let (line, column) = at.known();
    // The formatter's text can quote the file, and a file can hold control characters.
    let mut message = String::from("not readable as YAML: ");
    push_plain(&mut message, &UserMessageFormatter.format_message(&error));
    Box::new(Problem { path: String::new(), line, column, variable: None, message, cure: None })
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(from)?;
        Ok(Self { at: Place::of(spanned.referenced), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        Value::deserialize(from)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        serde_json::Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number has to be finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = from.next_element::<Node>()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = from.next_key::<Spanned<String>>()? {
            let at = Place::of(key.referenced);
            if key.value.is_empty() {
                return Err(A::Error::custom("a key is empty"));
            }
            entries.push((Key { at, name: key.value }, from.next_value::<Node>()?));
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(parse(text).unwrap().value.to_json().to_string(), expected, "{text}");
    }

    fn check_refused(text: &str, line: Option<usize>, expected: &str) {
        let problem = parse(text).expect_err(text.get(..40).unwrap_or(text));
        assert!(problem.message.contains(expected), "{problem:?}");
        assert_eq!(problem.line, line, "{problem:?}");
        assert!(problem.message.len() < 400 && !problem.message.contains('\n'), "{problem:?}");
    }

    #[test]
    fn values_keep_their_types() {
        check("", "{}");
        check("# only a comment\n", "{}");
        check("a: 1\nb: -2\nc: 1.5\nd: true\n", r#"{"a":1,"b":-2,"c":1.5,"d":true}"#);
        check("a: no\nb: \"1\"\nc:\nd: ~\n", r#"{"a":"no","b":"1","c":null,"d":null}"#);
        check("a: [x, {y: z}]\n8443: &p q\nr: *p\n", r#"{"8443":"q","a":["x",{"y":"z"}],"r":"q"}"#);
    }

    #[test]
    fn places_are_those_of_the_text() {
        let root = parse("a:\n  bc: 7\n").unwrap();
        let Value::Map(entries) = &root.value else { panic!("{root:?}") };
        let Value::Map(inner) = &entries[0].1.value else { panic!("{root:?}") };
        let (key, value) = &inner[0];
        assert_eq!((key.at.line, key.at.column), (2, 3));
        assert_eq!((value.at.line, value.at.column), (2, 7));
    }

    #[test]
    fn bombs_and_ambiguity_are_refused() {
        check_refused("a: 1\na: 2\n", Some(2), "duplicate mapping key: a");
        check_refused("a: 1\n---\nb: 2\n", Some(2), "documents: 2");
        check_refused("a: [1\n", Some(1), "unclosed bracket");
        check_refused("a: &x {b: 1}\nc:\n  <<: *x\n", Some(3), "merge key");
        check_refused(&"[".repeat(100_000), Some(1), "limit");
        check_refused(&format!("a: {}{}", "[".repeat(40), "]".repeat(40)), Some(1), "limit");
        check_refused(&"- x\n".repeat(NODES_MAX + 1), Some(NODES_MAX), "nodes: 20001");
        check_refused(&"x".repeat(TEXT_BYTES_MAX + 1), None, "longer than 1048576 bytes");
        let mut laughs = String::from("a: &a [x,x,x,x,x,x,x,x,x,x]\n");
        for (next, last) in ('b'..'h').zip('a'..) {
            let refer = vec![format!("*{last}"); 10].join(",");
            laughs.push_str(&format!("{next}: &{next} [{refer}]\n"));
        }
        let problem = parse(&laughs).expect_err("a billion laughs");
        assert!(problem.line.is_some(), "{problem:?}");
    }
}
