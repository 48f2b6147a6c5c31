//! Data files: what a policy reads as `data`, beside its own rules.

use regorus::Value;

use crate::LoadError;
use crate::said::Said;

/// Most bytes of all data files of a policy together.
///
/// Source: parsed it takes up to some twenty times as much on each thread that decides, and is read
/// in some 20 ms.
pub const DATA_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Deepest nesting of arrays and objects in a data file.
///
/// Source: half of what the JSON parser itself accepts, so that no walk of ours is too deep.
pub const DATA_DEPTH_MAX: usize = 64;

/// A data file: the name that messages call it by, and its JSON, which is an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyData {
    /// The file's name, for messages only.
    pub name: String,
    /// The file's content.
    pub text: String,
}

/// Reads `files` and merges them: objects of the same path become one, and nothing else may have
/// the same path twice. `package` is the policy's own, if there is one, whose place has to stay free.
///
/// # Errors
///
/// [`LoadError::Data`] names the first file that is too large, too deep, no object, or in the way
/// of another or of the policy.
pub(crate) fn merge(files: &[PolicyData], package: Option<&str>) -> Result<Value, LoadError> {
    let fail = |file: &PolicyData, message: String| {
        Err(LoadError::Data { name: file.name.clone(), message })
    };
    let mut merged = Value::new_object();
    let mut bytes = 0_usize;
    for file in files {
        bytes = bytes.saturating_add(file.text.len());
        if bytes > DATA_BYTES_MAX {
            return fail(
                file,
                format!("makes more than {DATA_BYTES_MAX} bytes of data; keep what policy needs"),
            );
        }
        if depth(&file.text) > DATA_DEPTH_MAX {
            return fail(file, format!("is nested more than {DATA_DEPTH_MAX} deep; flatten it"));
        }
        let value = match Value::from_json_str(&file.text) {
            Ok(value) => value,
            Err(error) => {
                return fail(file, format!("is not JSON: {}", Said::of(&error).message));
            }
        };
        if !matches!(value, Value::Object(_)) {
            return fail(file, "is not a JSON object; wrap it in one, under a name".to_owned());
        }
        if let Some(path) = package.and_then(|package| taken(&value, package)) {
            return fail(
                file,
                format!("has a value at `{path}`, where the policy's rules are; rename the key"),
            );
        }
        let mut path = Vec::new();
        match absorb(&merged, &value, &mut path) {
            Ok(together) => merged = together,
            Err(path) => {
                return fail(
                    file,
                    format!("has `{path}`, which another data file has as well; keep one of them"),
                );
            }
        }
    }
    Ok(merged)
}

/// The deepest nesting of brackets outside of strings. Text that is no JSON has one as well.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0_usize);
    let (mut in_string, mut escaped) = (false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The path at which `value` is in the way of the rules of `package`.
fn taken(value: &Value, package: &str) -> Option<String> {
    let mut at = value;
    let mut path = String::from("data");
    for name in package.split('.') {
        let Value::Object(fields) = at else { return Some(path) };
        at = fields.get(&Value::from(name))?;
        path = format!("{path}.{name}");
    }
    Some(path)
}

/// Both together, or the path that both have. Recursion ends at [`DATA_DEPTH_MAX`].
fn absorb(first: &Value, second: &Value, path: &mut Vec<String>) -> Result<Value, String> {
    let (Value::Object(old), Value::Object(new)) = (first, second) else {
        return Err(format!("data.{}", path.join(".")));
    };
    let mut merged: std::collections::BTreeMap<Value, Value> =
        old.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    for (key, value) in new.iter() {
        let together = match merged.get(key) {
            None => value.clone(),
            Some(known) => {
                path.push(key.as_string().map(|key| key.to_string()).unwrap_or_default());
                let together = absorb(known, value, path)?;
                path.pop();
                together
            }
        };
        merged.insert(key.clone(), together);
    }
    Ok(Value::from(merged))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Ask, load_with, patient};
    use crate::{Policy, PolicyOptions};

    fn files(texts: &[&str]) -> Vec<PolicyData> {
        texts
            .iter()
            .enumerate()
            .map(|(n, text)| PolicyData { name: format!("{n}.json"), text: (*text).to_owned() })
            .collect()
    }

    fn load(rules: &str, texts: &[&str]) -> Result<Policy, LoadError> {
        let options = PolicyOptions { data: files(texts), ..patient() };
        load_with(&format!("package agentweave.authz\n{rules}\n"), &options)
    }

    #[test]
    fn files_become_one_document() {
        let check = |texts: &[&str], expected: &str| {
            let merged = merge(&files(texts), Some("agentweave.authz")).unwrap();
            assert_eq!(merged, Value::from_json_str(expected).unwrap(), "{texts:?}");
        };
        check(&[], "{}");
        check(&[r#"{"a": 1}"#], r#"{"a": 1}"#);
        check(
            &[r#"{"a": {"x": 1}}"#, r#"{"a": {"y": 2}, "b": 3}"#],
            r#"{"a":{"x":1,"y":2},"b":3}"#,
        );
        check(&[r#"{"agentweave": {"roles": []}}"#], r#"{"agentweave": {"roles": []}}"#);
        check(&[r#"{"a": "[[{{\"{{"}"#], r#"{"a": "[[{{\"{{"}"#);
    }

    #[test]
    fn what_cannot_be_one_document_is_refused() {
        let check = |texts: &[&str], expected: &str| {
            let error = merge(&files(texts), Some("agentweave.authz")).unwrap_err();
            assert_eq!(error.to_string(), expected, "{texts:?}");
        };
        check(&["[]"], "0.json is not a JSON object; wrap it in one, under a name");
        check(&["{\"a\": }"], "0.json is not JSON: expected value at line 1 column 7");
        let twice = "1.json has `data.a.x`, which another data file has as well; keep one of them";
        check(&[r#"{"a": {"x": 1}}"#, r#"{"a": {"x": 1}}"#], twice);
        check(&[r#"{"a": {"x": 1}}"#, r#"{"a": {"x": {}}}"#], twice);
        for taken in [r#"{"agentweave": 1}"#, r#"{"agentweave": {"authz": {}}}"#] {
            let path =
                if taken.contains("authz") { "data.agentweave.authz" } else { "data.agentweave" };
            check(
                &[taken],
                &format!(
                    "0.json has a value at `{path}`, where the policy's rules are; rename the key"
                ),
            );
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(64), "]".repeat(64));
        check(&[&deep], "0.json is nested more than 64 deep; flatten it");
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(DATA_BYTES_MAX));
        check(&[&large], "0.json makes more than 2097152 bytes of data; keep what policy needs");
    }

    #[test]
    fn policies_read_data() {
        let rules = "allow if input.caller.path in data.callers[input.request.method]";
        let decide = |texts: &[&str], method: &str| {
            Ask { method, ..Ask::default() }.decide(&load(rules, texts).unwrap()).is_allowed()
        };
        let data = r#"{"callers": {"count_words": ["/orchestrator"]}}"#;
        assert!(decide(&[data], "count_words"));
        assert!(!decide(&[data], "analyze_document"));
        assert!(!decide(&[], "count_words"));
        let import = load("import data.limits\nallow if limits.n == 7", &[r#"{"limits":{"n":7}}"#]);
        assert!(Ask::default().decide(&import.unwrap()).is_allowed());
    }

    #[test]
    fn data_belongs_to_the_revision_and_to_the_answer() {
        let rules = "allow if data.open";
        let (yes, no) = (
            load(rules, &[r#"{"open":true}"#]).unwrap(),
            load(rules, &[r#"{"open":false}"#]).unwrap(),
        );
        assert_ne!(yes.revision(), no.revision());
        assert_eq!(yes.revision(), load(rules, &[r#"{"open":true}"#]).unwrap().revision());
        for _ in 0..3 {
            assert!(Ask::default().decide(&yes).is_allowed());
            assert!(!Ask::default().decide(&no).is_allowed());
        }
    }

    #[test]
    fn a_question_that_fails_does_not_cost_the_data() {
        let rules = "allow if to_number(input.request.method) == data.n";
        let policy = load(rules, &[r#"{"n": 7}"#]).unwrap();
        for method in ["x", "7", "y", "7"] {
            let decision = Ask { method, ..Ask::default() }.decide(&policy);
            assert_eq!(decision.is_allowed(), method == "7");
        }
    }
}
