//! JSON Schemas: made from types, compiled once, asked for every call.

use convoke_model::{FieldViolation, Json, limits};
use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{PatternOptions, ValidationError, Validator};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

/// Longest pointer or description of a violation, in bytes: both may hold names that the peer
/// chose.
const VIOLATION_BYTES_MAX: usize = 256;

/// The schema of what a `T` can be read from.
#[must_use]
pub fn input_schema_of<T: JsonSchema>() -> Value {
    derive::<T>(SchemaSettings::draft2020_12().for_deserialize())
}

/// The schema of what a `T` is written as.
#[must_use]
pub fn output_schema_of<T: JsonSchema>() -> Value {
    derive::<T>(SchemaSettings::draft2020_12().for_serialize())
}

/// The name that a derived schema gives to what it describes is a Rust type's, which is nobody's
/// business but ours; the dialect is the one that a schema without a name for it has.
fn derive<T: JsonSchema>(mut settings: SchemaSettings) -> Value {
    settings.meta_schema = None;
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    schema.remove("title");
    schema.to_value()
}

/// A schema ready to be asked.
#[derive(Debug)]
pub(crate) struct Compiled(Validator);

impl Compiled {
    /// Compiles `schema`. It may refer to nothing outside itself, and its patterns are of the kind
    /// that is matched in linear time, because peers choose what they are matched against.
    pub(crate) fn new(schema: &Value) -> Result<Self, String> {
        jsonschema::options()
            .offline()
            .with_pattern_options(PatternOptions::regex())
            .build(schema)
            .map(Self)
            .map_err(|error| {
                let at = error.instance_path().to_string();
                let error = error.to_string();
                if at.is_empty() { error } else { format!("{at}: {error}") }
            })
    }

    /// What is wrong with `json`: nothing, or the first few violations.
    pub(crate) fn violations(&self, json: &Json) -> Vec<FieldViolation> {
        let value: Value = match json.to() {
            Ok(value) => value,
            Err(error) => {
                let description = clip(error.to_string());
                return vec![FieldViolation { field: String::new(), description }];
            }
        };
        // Looking for the first violation is cheaper than listing them, and there mostly is none.
        if self.0.is_valid(&value) {
            return Vec::new();
        }
        let errors = self.0.iter_errors(&value).take(limits::VIOLATIONS_MAX);
        errors.map(|error| violation(&error)).collect()
    }
}

/// Says what is wrong without repeating what the peer sent.
fn violation(error: &ValidationError<'_>) -> FieldViolation {
    let mut field = error.instance_path().to_string();
    let description = match error.kind() {
        ValidationErrorKind::Required { property } => {
            field.push('/');
            field.push_str(&escape(property.as_str().unwrap_or_default()));
            "is missing".to_owned()
        }
        ValidationErrorKind::Type { kind: TypeKind::Single(kind) } => {
            format!("must be of type {kind}")
        }
        ValidationErrorKind::AdditionalProperties { unexpected } => match unexpected.as_slice() {
            [name] => format!("has the unknown property `{name}`"),
            [name, rest @ ..] => {
                format!("has the unknown property `{name}` and {} more", rest.len())
            }
            [] => "has unknown properties".to_owned(),
        },
        _ => error.masked().to_string(),
    };
    FieldViolation { field: clip(field), description: clip(description) }
}

/// A name as one step of a JSON pointer (RFC 6901 §3).
fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn clip(mut text: String) -> String {
    if text.len() > VIOLATION_BYTES_MAX {
        text.truncate(text.floor_char_boundary(VIOLATION_BYTES_MAX));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(schema: &Value, input: &str, expected: &[(&str, &str)]) {
        let compiled = Compiled::new(schema).unwrap();
        let found = compiled.violations(&Json::parse(input).unwrap());
        let found: Vec<_> = found.iter().map(|v| (&*v.field, &*v.description)).collect();
        assert_eq!(found, expected, "{input}");
    }

    #[test]
    fn violations_point_at_the_field_and_keep_its_value_to_themselves() {
        let schema = json!({
            "type": "object",
            "properties": {
                "text": {"type": "string", "maxLength": 5},
                "list": {"type": "array", "items": {
                    "type": "object", "required": ["a/b"], "additionalProperties": false,
                    "properties": {"a/b": {"type": ["string", "null"]}},
                }},
                "word": {"enum": ["a", "b"]},
            },
            "required": ["text"],
        });
        check(&schema, r#"{"text":"hi"}"#, &[]);
        check(&schema, r#"{"text":"hi","unknown":1}"#, &[]);
        check(&schema, "{}", &[("/text", "is missing")]);
        check(&schema, "[]", &[("", "must be of type object")]);
        check(&schema, r#"{"text":7}"#, &[("/text", "must be of type string")]);
        check(&schema, r#"{"text":"secret"}"#, &[("/text", "value is longer than 5 characters")]);
        check(
            &schema,
            r#"{"text":"","list":[{"a/b":null},{"a/b":1},{"c":1,"d":2}],"word":"secret"}"#,
            &[
                ("/list/1/a~1b", "value is not of types \"null\", \"string\""),
                ("/list/2", "has the unknown property `c` and 1 more"),
                ("/list/2/a~1b", "is missing"),
                ("/word", "value is not one of \"a\" or \"b\""),
            ],
        );
    }

    #[test]
    fn a_hostile_input_gets_a_short_answer() {
        let schema = json!({"additionalProperties": {"type": "string"}});
        let compiled = Compiled::new(&schema).unwrap();
        let mut input = serde_json::Map::new();
        for n in 0..1000 {
            input.insert(format!("{n}{}", "ä".repeat(2000)), json!(n));
        }
        let found = compiled.violations(&Json::of(&input).unwrap());
        assert_eq!(found.len(), limits::VIOLATIONS_MAX);
        assert!(found.iter().all(|v| v.field.len() <= VIOLATION_BYTES_MAX + "…".len()));
    }

    #[test]
    fn a_pattern_that_could_run_for_ever_is_refused_at_load() {
        assert!(Compiled::new(&json!({"pattern": "^(a+)+$"})).is_ok());
        assert!(Compiled::new(&json!({"pattern": r"^(a+)\1$"})).is_err());
        assert!(Compiled::new(&json!({"$ref": "https://example.org/schema.json"})).is_err());
        assert!(Compiled::new(&json!({"type": "strnig"})).unwrap_err().contains("/type"));
    }

    #[test]
    fn schemas_follow_from_types() {
        #[derive(serde::Deserialize, serde::Serialize, JsonSchema)]
        struct Params {
            /// What to count
            text: String,
            most: Option<u8>,
        }
        let schema = input_schema_of::<Params>();
        assert_eq!(schema.get("title"), None);
        assert_eq!(schema.get("$schema"), None);
        assert_eq!(schema["required"], json!(["text"]));
        assert_eq!(schema["properties"]["text"]["description"], "What to count");
        assert_eq!(schema["properties"]["most"]["type"], json!(["integer", "null"]));
        // A field that may be absent when read is always there when written.
        assert_eq!(output_schema_of::<Params>()["required"], json!(["text", "most"]));
    }
}
