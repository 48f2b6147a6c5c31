//! What a task asks of its caller, as far as the schema of the answer tells.

use convoke_a2a::headers::CAPABILITY_EXTENSION;
use convoke_model::TaskStatus;
use serde_json::{Map, Value};

use super::quoted;

/// How deep a schema is looked into. One that needs more to say what it takes gets no example.
const DEPTH_MAX: usize = 6;

/// The longest example that is shown, in bytes: it is to fit on a line.
const EXAMPLE_MAX: usize = 200;

/// The schema of the answer that a task waits for.
#[derive(Debug)]
pub(super) struct Asked(Value);

impl Asked {
    /// What `status` asks, if it says so as agents of ours do.
    pub(super) fn of(status: &TaskStatus) -> Option<Self> {
        let metadata = status.message.as_ref()?.metadata.as_ref()?;
        let mut metadata: Value = metadata.to().ok()?;
        metadata.get_mut(CAPABILITY_EXTENSION)?.get_mut("answerSchema").map(Value::take).map(Self)
    }

    /// Whether no text is an answer, so that one that is JSON is meant as such.
    pub(super) fn takes_no_text(&self) -> bool {
        self.refuses_text(&self.0, DEPTH_MAX)
    }

    /// How an answer is given on the command line: the options behind the task.
    pub(super) fn options(&self) -> Option<String> {
        let example = self.example(&self.0, DEPTH_MAX)?;
        let (option, word) = match &example {
            Value::String(text) => ("", text.clone()),
            json => ("--data ", json.to_string()),
        };
        // A word that begins like an option would be taken for one.
        let fits = word.len() <= EXAMPLE_MAX && !word.is_empty() && !word.starts_with('-');
        fits.then(|| format!("{option}{}", quoted(&word)))
    }

    /// The schema that `schema` points to within the whole, or itself.
    fn resolved<'a>(&'a self, schema: &'a Value) -> Option<&'a Value> {
        match schema.get("$ref") {
            Some(Value::String(to)) => self.0.pointer(to.strip_prefix('#')?),
            Some(_) => None,
            None => Some(schema),
        }
    }

    fn refuses_text(&self, schema: &Value, depth: usize) -> bool {
        let Some(schema) = self.resolved(schema).filter(|_| depth > 0) else { return false };
        let by_type = match schema.get("type") {
            Some(Value::String(name)) => name != "string",
            Some(Value::Array(names)) => !names.iter().any(|name| name == "string"),
            _ => false,
        };
        let by_value = schema.get("const").is_some_and(|value| !value.is_string());
        let by_values = schema
            .get("enum")
            .and_then(Value::as_array)
            .is_some_and(|values| !values.iter().any(Value::is_string));
        let by_choice = choices(schema)
            .is_some_and(|choices| choices.iter().all(|one| self.refuses_text(one, depth - 1)));
        by_type || by_value || by_values || by_choice
    }

    /// A value that the schema takes, as far as its types and listed values say.
    fn example(&self, schema: &Value, depth: usize) -> Option<Value> {
        let schema = self.resolved(schema).filter(|_| depth > 0)?;
        let listed = |key: &str| schema.get(key)?.as_array()?.first().cloned();
        let said = schema.get("default").or_else(|| schema.get("const")).cloned();
        if let Some(said) = said.or_else(|| listed("examples")).or_else(|| listed("enum")) {
            return Some(said);
        }
        if let Some(one) = choices(schema).and_then(|choices| choices.first()) {
            return self.example(one, depth - 1);
        }
        let names = match schema.get("type")? {
            Value::Array(names) => names.first()?.as_str()?,
            name => name.as_str()?,
        };
        match names {
            "boolean" => Some(true.into()),
            "integer" | "number" => {
                Some(schema.get("minimum").cloned().unwrap_or_else(|| 1.into()))
            }
            "array" => Some(Value::Array(Vec::new())),
            "null" => Some(Value::Null),
            "string" => Some("ANSWER".into()),
            "object" => {
                let required = schema.get("required").and_then(Value::as_array);
                let mut object = Map::new();
                for name in required.into_iter().flatten().filter_map(Value::as_str) {
                    let property = schema.get("properties")?.get(name)?;
                    object.insert(name.to_owned(), self.example(property, depth - 1)?);
                }
                Some(Value::Object(object))
            }
            _ => None,
        }
    }
}

/// The schemas of which one has to fit.
fn choices(schema: &Value) -> Option<&Vec<Value>> {
    let choices = schema.get("anyOf").or_else(|| schema.get("oneOf"))?.as_array()?;
    (!choices.is_empty()).then_some(choices)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_says_whether_a_text_is_an_answer_and_what_one_looks_like() {
        let check = |schema: Value, takes_no_text: bool, options: Option<&str>| {
            let asked = Asked(schema);
            assert_eq!(asked.takes_no_text(), takes_no_text, "{asked:?}");
            assert_eq!(asked.options().as_deref(), options, "{asked:?}");
        };
        check(json!({"type": "boolean"}), true, Some("--data true"));
        check(json!({"type": "integer"}), true, Some("--data 1"));
        check(json!({"type": "number", "minimum": 2.5}), true, Some("--data 2.5"));
        check(json!({"type": "integer", "minimum": -5}), true, None);
        check(json!({"type": "array"}), true, Some("--data '[]'"));
        check(json!({"type": "null"}), true, Some("--data null"));
        check(json!({"enum": [2, 3]}), true, Some("--data 2"));
        check(json!({"const": false}), true, Some("--data false"));
        check(json!({"type": "string"}), false, Some("ANSWER"));
        check(json!({"enum": ["a b", 1]}), false, Some("'a b'"));
        check(json!({"type": ["string", "null"]}), false, Some("ANSWER"));
        check(json!({"type": ["integer", "null"]}), true, Some("--data 1"));
        check(
            json!({"type": "object", "required": ["ok"], "properties": {"ok": {"$ref": "#/$defs/b"}},
                   "$defs": {"b": {"type": "boolean"}}}),
            true,
            Some(r#"--data '{"ok":true}'"#),
        );
        let either = json!({"anyOf": [{"type": "boolean"}, {"type": "null"}]});
        check(either, true, Some("--data true"));
        check(
            json!({"oneOf": [{"type": "boolean"}, {"type": "string"}]}),
            false,
            Some("--data true"),
        );
        // Of these nothing is known, and nothing of them is obeyed.
        check(json!({}), false, None);
        check(json!(true), false, None);
        check(json!({"$ref": "#"}), false, None);
        check(json!({"$ref": 1}), false, None);
        check(json!({"anyOf": []}), false, None);
        check(json!({"enum": ["--force"]}), false, None);
        check(json!({"const": "x".repeat(EXAMPLE_MAX + 1)}), false, None);
        check(json!({"enum": ["'; rm \u{1b}"]}), false, Some("''\\''; rm \u{fffd}'"));
    }

    #[test]
    fn a_schema_that_leads_in_circles_ends() {
        let asked = Asked(json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}));
        assert!(!asked.takes_no_text());
        assert_eq!(asked.options(), None);
    }
}
