//! What a person hands to a command: text in place, in a file or on standard input.

use std::io::Read;

use convoke::{Json, limits};
use convoke_a2a::{ScanLimits, scan};
use convoke_model::system_error;

use crate::exit::{Code, Failure};

/// Reads a text from a file, or from standard input for `-`.
pub(crate) fn text(source: &str) -> Result<String, Failure> {
    let fail = |error: &dyn std::fmt::Display| {
        let name = if source == "-" { "standard input" } else { source };
        Failure::new(Code::Usage, format_args!("{name}: {error}"))
    };
    let mut bytes = Vec::new();
    let max = u64::try_from(limits::BODY_BYTES_MAX).unwrap_or(u64::MAX);
    let read = if source == "-" {
        std::io::stdin().lock().take(max + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(source).and_then(|file| file.take(max + 1).read_to_end(&mut bytes))
    };
    read.map_err(|error| fail(&system_error(&error)))?;
    if bytes.len() > limits::BODY_BYTES_MAX {
        return Err(fail(&format_args!("is larger than {max} bytes, the most an agent takes")));
    }
    String::from_utf8(bytes).map_err(|error| fail(&error))
}

/// Reads the text of JSON that stands in place, in a file after `@`, or on standard input for `-`.
pub(crate) fn json_text(source: &str) -> Result<String, Failure> {
    match source.strip_prefix('@') {
        Some(file) => text(file),
        None if source == "-" => text("-"),
        None => Ok(source.to_owned()),
    }
}

/// Reads the value of `--params`: JSON in place, `@FILE`, or `-`.
pub(crate) fn params(source: &str) -> Result<Json, Failure> {
    let text = json_text(source)?;
    let json = Json::parse(&text).map_err(|error| {
        Failure::new(Code::Usage, format_args!("--params is not JSON: {error}"))
            .hint("quote it for the shell: --params '{\"text\": \"…\"}'")
    })?;
    // An agent would refuse these too, but could not say that it was the command line.
    scan(text.as_bytes(), &ScanLimits::REQUEST).map_err(|error| {
        Failure::new(Code::Usage, format_args!("--params: {error}"))
            .hint("agents bound what they take; send a large document as text, not as structure")
    })?;
    if json.is_object() {
        Ok(json)
    } else {
        Err(Failure::new(Code::Usage, "--params is not a JSON object")
            .hint("parameters have names: --params '{\"text\": \"…\"}'"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn params_are_objects() {
        assert_eq!(params(r#"{"n": 42.0}"#).unwrap().get(), r#"{"n": 42.0}"#);
        for wrong in ["", "{", "[]", "3", r#"{"a":1,"a":2}"#, "@/no/such/file"] {
            assert_eq!(params(wrong).unwrap_err().code, Code::Usage, "{wrong}");
        }
    }
}
