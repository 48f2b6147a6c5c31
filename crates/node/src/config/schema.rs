//! The table of keys as a JSON Schema, for editors and other programs.

use serde_json::{Map, Value, json};

use super::keys::{self, Default, Entry, Kind, NAME, NEVER, SIZE_UNITS, TIME_UNITS};

/// The JSON Schema (draft 2020-12) of a configuration that stands alone.
///
/// It knows keys, types, ranges and words. What two keys may not say together, and what only the
/// machine knows, is left to the reader. An empty value counts as none, as in the file.
#[must_use]
pub fn schema() -> Value {
    let mut schema = section("", "The configuration of one agent of Convoke.", false);
    if let Value::Object(root) = &mut schema {
        root.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        root.insert("title".into(), "Convoke configuration".into());
    }
    schema
}

fn section(pattern: &str, doc: &str, is_open: bool) -> Value {
    let mut properties = Map::new();
    let mut additional = Value::Bool(is_open);
    let mut required = Vec::new();
    for (name, entry) in keys::children(pattern) {
        let Some(value) = entry_of(entry) else { continue };
        if name == NAME {
            additional = value;
            continue;
        }
        let is_required = match entry {
            Entry::Key(key) => key.default == Default::Required,
            Entry::Section(row) => has_required(row.pattern()),
        };
        required.extend(is_required.then_some(name));
        properties.insert(name.to_owned(), value);
    }
    let mut schema = json!({
        "type": ["object", "null"],
        "description": doc,
        "additionalProperties": additional,
    });
    if !properties.is_empty() {
        schema["properties"] = Value::Object(properties);
    }
    if !required.is_empty() {
        // A mapping that has to be there cannot be an empty one either.
        schema["type"] = "object".into();
        schema["required"] = json!(required);
    }
    schema
}

/// Whether the section cannot be left out, because one of its own keys cannot.
fn has_required(pattern: &str) -> bool {
    keys::children(pattern)
        .any(|(_, entry)| matches!(entry, Entry::Key(key) if key.default == Default::Required))
}

/// `None` for a key that is known and refused.
fn entry_of(entry: Entry) -> Option<Value> {
    let key = match entry {
        Entry::Section(row) => return Some(section(row.pattern(), row.doc, row.is_open)),
        Entry::Key(key) => key,
    };
    let mut schema = value(key.kind)?;
    schema.insert("description".into(), key.doc.into());
    schema.insert("x-since".into(), key.since.into());
    if let Default::Is(text) = key.default {
        schema.insert("default".into(), key.value_of(text).to_json());
    }
    Some(Value::Object(schema))
}

fn value(kind: Kind) -> Option<Map<String, Value>> {
    let units =
        |units: &[(&str, u64)]| units.iter().map(|(name, _)| *name).collect::<Vec<_>>().join("|");
    let or_never = |mut shapes: Vec<Value>, never: bool| {
        shapes.extend(never.then(|| json!({"const": NEVER})));
        shapes.push(json!({"type": "null"}));
        json!({ "anyOf": shapes })
    };
    let schema = match kind {
        Kind::Text(_) => json!({"type": ["string", "null"]}),
        // The first for an editor's list of words, the second because case is ignored.
        Kind::Words(words) => json!({
            "anyOf": [
                {"enum": words},
                {"type": "string", "pattern": any_case(words)},
                {"type": "null"},
            ],
        }),
        Kind::Flag => json!({"type": ["boolean", "null"]}),
        Kind::Number(min, max) => {
            json!({"type": ["integer", "null"], "minimum": min, "maximum": max})
        }
        Kind::Size(min, max, never) => {
            let pattern = format!("^[0-9]+({})?$", units(&SIZE_UNITS));
            let number = json!({"type": "integer", "minimum": min, "maximum": max});
            or_never(vec![number, json!({"type": "string", "pattern": pattern})], never)
        }
        Kind::Duration(_, _, never) => {
            let pattern = format!("^[0-9]+({})$", units(&TIME_UNITS));
            or_never(vec![json!({"type": "string", "pattern": pattern})], never)
        }
        Kind::Share => json!({"type": ["number", "null"], "minimum": 0, "maximum": 1}),
        Kind::Texts => {
            json!({"type": ["array", "null"], "items": {"type": "string", "minLength": 1}})
        }
        Kind::Refused(_) => return None,
    };
    match schema {
        Value::Object(schema) => Some(schema),
        _ => None,
    }
}

/// A pattern for any of `words` in capitals and small letters as one likes.
fn any_case(words: &[&str]) -> String {
    let word = |word: &&str| -> String {
        word.chars()
            .map(|c| match c.is_ascii_alphabetic() {
                true => format!("[{}{}]", c.to_ascii_lowercase(), c.to_ascii_uppercase()),
                false => c.to_string(),
            })
            .collect()
    };
    format!("^({})$", words.iter().map(word).collect::<Vec<_>>().join("|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_has_every_key_at_its_place() {
        let schema = schema();
        for key in keys::KEYS {
            let mut here = &schema;
            for name in key.path.split('.') {
                here = match name {
                    NAME => &here["additionalProperties"],
                    _ => &here["properties"][name],
                };
            }
            let is_refused = matches!(key.kind, Kind::Refused(_));
            assert_eq!(here.is_null(), is_refused, "{}", key.path);
            assert!(is_refused || here["description"] == key.doc, "{}", key.path);
        }
    }

    #[test]
    fn what_is_closed_stays_closed() {
        let schema = schema();
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["properties"]["server"]["additionalProperties"], false);
        assert_eq!(schema["properties"]["metadata"]["additionalProperties"], true);
        assert_eq!(schema["required"], json!(["identity"]));
        assert_eq!(schema["properties"]["identity"]["required"], json!(["spiffe_id"]));
        assert_eq!(schema["properties"]["server"]["properties"]["port"]["default"], 8443);
    }

    #[test]
    fn words_are_taken_in_any_case() {
        assert_eq!(any_case(&["v0", "a_b"]), "^([vV]0|[aA]_[bB])$");
    }
}
